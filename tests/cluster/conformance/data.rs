//! The data sets: images, indexes and artifacts of every shape, with what is expected of them.

use std::collections::BTreeMap;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Map, Value, json};
use shoal_core::{Algorithm, Digest};

use super::client::{INDEX, MANIFEST};

/// Manifests that belong together, and the blobs that they name.
pub(super) struct DataSet {
    pub(super) name: &'static str,
    pub(super) blobs: Vec<(Digest, Bytes)>,
    /// In the order in which they are pushed: children first.
    pub(super) manifests: Vec<Manifest>,
    /// What names which manifest.
    pub(super) tags: BTreeMap<String, Digest>,
    /// By subject, what refers to it.
    pub(super) referrers: BTreeMap<Digest, Vec<Value>>,
    /// Tags that come as parameters of the push by digest.
    pub(super) parameters: Vec<String>,
    random: SmallRng,
    algorithm: Algorithm,
}

pub(super) struct Manifest {
    pub(super) digest: Digest,
    pub(super) content: Bytes,
    pub(super) media_type: &'static str,
    pub(super) subject: Option<Digest>,
}

/// What an image is made of, beside its layers.
#[derive(Clone, Default)]
struct Shape<'a> {
    tag: Option<&'a str>,
    artifact_type: Option<&'a str>,
    annotations: Map<String, Value>,
    subject: Option<Value>,
    with_data: bool,
    with_extra_fields: bool,
}

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const FOREIGN: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const EXAMPLE: [&str; 2] =
    ["application/vnd.example.oci.conformance.v1", "application/vnd.example.oci.conformance.v2"];

/// All of them.
pub(super) fn sets() -> Vec<DataSet> {
    let plain = [("image", LAYER_GZIP), ("image-uncompressed", LAYER)].map(|(name, layer)| {
        let mut set = DataSet::new(name, Algorithm::Sha256);
        set.image(&[layer, layer], &Shape { tag: Some(name), ..Shape::default() });
        set
    });
    let mut sets = Vec::from(plain);
    sets.extend([large_manifest(), index(), nested_index(), empty_index()]);
    sets.extend([artifact(), artifact_index(), artifact_without_layers()]);
    sets.extend([artifacts_with_subject(), index_with_subject(), missing_subject()]);
    sets.extend([data_field(), foreign_layers(), custom_fields(), no_layers()]);
    sets.extend([sha512(), sparse()]);
    sets.extend([Algorithm::Sha256, Algorithm::Sha512].map(tag_parameters));
    sets
}

fn large_manifest() -> DataSet {
    let mut set = DataSet::new("large-manifest", Algorithm::Sha256);
    let annotations = (0..390).map(|at| (format!("large-annotation-{at}"), json!("A".repeat(10_000))));
    let shape = Shape { tag: Some("large"), annotations: annotations.collect(), ..Shape::default() };
    set.image(&[LAYER_GZIP], &shape);
    set
}

fn index() -> DataSet {
    let mut set = DataSet::new("index", Algorithm::Sha256);
    set.platforms(&Shape { tag: Some("index"), ..Shape::default() });
    set
}

fn nested_index() -> DataSet {
    let mut set = DataSet::new("nested-index", Algorithm::Sha256);
    let children = [(); 2].map(|()| set.platforms(&Shape::default()));
    set.index(&children, &Shape { tag: Some("index-of-index"), ..Shape::default() });
    set
}

fn empty_index() -> DataSet {
    let mut set = DataSet::new("empty-index", Algorithm::Sha256);
    set.index(&[], &Shape { tag: Some("empty"), ..Shape::default() });
    set
}

fn artifact() -> DataSet {
    let mut set = DataSet::new("artifact", Algorithm::Sha256);
    set.artifact(&Shape { tag: Some("artifact"), artifact_type: Some(EXAMPLE[0]), ..Shape::default() });
    set
}

fn artifact_index() -> DataSet {
    let mut set = DataSet::new("artifact-index", Algorithm::Sha256);
    let shape = Shape { artifact_type: Some(EXAMPLE[0]), ..Shape::default() };
    let children = [(); 2].map(|()| set.artifact(&shape));
    set.index(&children, &Shape { tag: Some("artifact-index"), ..shape });
    set
}

fn artifact_without_layers() -> DataSet {
    let mut set = DataSet::new("artifact-without-layers", Algorithm::Sha256);
    let empty = set.blob(b"{}", EMPTY, false);
    let shape = Shape { tag: Some("empty"), artifact_type: Some(EXAMPLE[0]), ..Shape::default() };
    set.manifest(&empty, std::slice::from_ref(&empty), &shape);
    set
}

fn artifacts_with_subject() -> DataSet {
    let mut set = DataSet::new("artifacts-with-subject", Algorithm::Sha256);
    let subject = set.image(&[LAYER_GZIP; 2], &Shape { tag: Some("image"), ..Shape::default() });
    set.image(&[LAYER_GZIP; 2], &Shape { subject: Some(subject.clone()), ..Shape::default() });
    for (artifact_type, tag) in EXAMPLE.into_iter().zip(["artifact-1", "artifact-2"]) {
        set.artifact(&attached(artifact_type, tag, subject.clone()));
    }
    set
}

fn index_with_subject() -> DataSet {
    let mut set = DataSet::new("index-with-subject", Algorithm::Sha256);
    let subject = set.platforms(&Shape { tag: Some("index"), ..Shape::default() });
    let children =
        [(); 2].map(|()| set.artifact(&Shape { artifact_type: Some(EXAMPLE[0]), ..Shape::default() }));
    set.index(&children, &attached(EXAMPLE[0], "artifact", subject.clone()));
    // An index without a type of its own is listed without one.
    let untyped = Shape { artifact_type: None, ..attached("", "untyped", subject) };
    set.index(&children, &untyped);
    set
}

fn missing_subject() -> DataSet {
    let mut set = DataSet::new("missing-subject", Algorithm::Sha256);
    let subject = json!({"mediaType": MANIFEST, "digest": Digest::sha256(b"missing content"), "size": 123});
    set.artifact(&attached(EXAMPLE[0], "artifact", subject));
    set
}

fn attached<'a>(artifact_type: &'a str, tag: &'a str, subject: Value) -> Shape<'a> {
    let annotations = [("org.opencontainers.conformance", "hello"), ("org.example.tag", tag)];
    let annotations = annotations.map(|(key, value)| (key.to_owned(), json!(value)));
    Shape {
        tag: Some(tag),
        artifact_type: Some(artifact_type),
        subject: Some(subject),
        annotations: annotations.into_iter().collect(),
        ..Shape::default()
    }
}

fn data_field() -> DataSet {
    let mut set = DataSet::new("data-field", Algorithm::Sha256);
    set.image(&[LAYER_GZIP; 2], &Shape { tag: Some("data"), with_data: true, ..Shape::default() });
    set
}

fn foreign_layers() -> DataSet {
    let mut set = DataSet::new("non-distributable-layers", Algorithm::Sha256);
    let absent = |content: &[u8]| {
        let digest = Digest::sha256(content);
        let url = format!("https://store.example.com/blobs/{digest}");
        json!({"mediaType": FOREIGN, "digest": digest, "size": 123_456, "urls": [url]})
    };
    let (config, layer) = (set.blob(b"{\"os\":\"linux\"}", CONFIG, false), set.random(LAYER_GZIP, false));
    let layers = [absent(b"first"), absent(b"second"), layer];
    set.manifest(&config, &layers, &Shape { tag: Some("foreign"), ..Shape::default() });
    set
}

fn custom_fields() -> DataSet {
    let mut set = DataSet::new("custom-fields", Algorithm::Sha256);
    set.platforms(&Shape { tag: Some("custom"), with_extra_fields: true, ..Shape::default() });
    set
}

fn no_layers() -> DataSet {
    let mut set = DataSet::new("no-layers", Algorithm::Sha256);
    set.image(&[], &Shape { tag: Some("no-layers"), ..Shape::default() });
    set
}

fn sha512() -> DataSet {
    let mut set = DataSet::new("sha512", Algorithm::Sha512);
    set.platforms(&Shape { ..Shape::default() });
    set
}

fn sparse() -> DataSet {
    let mut set = DataSet::new("sparse", Algorithm::Sha256);
    let here = set.image(&[LAYER_GZIP], &Shape::default());
    let away = json!({"mediaType": MANIFEST, "digest": Digest::sha256(b"not copied"), "size": 321});
    set.index(&[here, away], &Shape { tag: Some("sparse"), ..Shape::default() });
    set
}

fn tag_parameters(algorithm: Algorithm) -> DataSet {
    let name = match algorithm {
        Algorithm::Sha512 => "tag-param-sha512",
        _ => "tag-param-sha256",
    };
    let mut set = DataSet::new(name, algorithm);
    set.image(&[LAYER_GZIP], &Shape::default());
    let digest = set.manifests[0].digest;
    set.parameters = (0..10).map(|number| format!("tag-{number}")).collect();
    set.tags = set.parameters.iter().map(|tag| (tag.clone(), digest)).collect();
    set
}

impl DataSet {
    fn new(name: &'static str, algorithm: Algorithm) -> Self {
        Self {
            name,
            blobs: vec![],
            manifests: vec![],
            tags: BTreeMap::new(),
            referrers: BTreeMap::new(),
            parameters: vec![],
            random: SmallRng::seed_from_u64(
                name.bytes().map(u64::from).fold(7, |seed, byte| (seed << 5) ^ (seed >> 59) ^ byte),
            ),
            algorithm,
        }
    }

    /// Where it is pushed.
    pub(super) fn repository(&self) -> String {
        format!("conformance/{}", self.name)
    }

    /// The tags under which a registry may keep what refers to a subject, for clients that do not know the API; this one
    /// does.
    pub(super) fn lists(&self) -> Vec<String> {
        self.referrers
            .keys()
            .map(|subject| format!("{}-{:.64}", subject.algorithm(), subject.hex()))
            .collect()
    }

    /// A blob; gives its descriptor.
    fn blob(&mut self, content: &[u8], media_type: &str, with_data: bool) -> Value {
        let digest = Digest::of(self.algorithm, content);
        if self.blobs.iter().all(|(known, _)| *known != digest) {
            self.blobs.push((digest, Bytes::copy_from_slice(content)));
        }
        let mut descriptor = json!({"mediaType": media_type, "digest": digest, "size": content.len()});
        if with_data {
            descriptor["data"] = json!(data_encoding::BASE64.encode(content));
        }
        descriptor
    }

    fn random(&mut self, media_type: &str, with_data: bool) -> Value {
        let mut content = vec![0; 2048];
        self.random.fill_bytes(&mut content);
        self.blob(&content, media_type, with_data)
    }

    /// An image with layers of those types.
    fn image(&mut self, layers: &[&str], shape: &Shape<'_>) -> Value {
        let layers: Vec<_> = layers.iter().map(|layer| self.random(layer, shape.with_data)).collect();
        let mut config =
            json!({"os": "linux", "architecture": "amd64", "author": self.random.next_u64().to_string()});
        if shape.with_extra_fields {
            config["org.example.extra"] = json!("kept");
        }
        let config = self.blob(config.to_string().as_bytes(), CONFIG, shape.with_data);
        self.manifest(&config, &layers, shape)
    }

    fn artifact(&mut self, shape: &Shape<'_>) -> Value {
        let config = self.blob(b"{}", EMPTY, false);
        let layer = self.random(EXAMPLE[0], false);
        self.manifest(&config, &[layer], shape)
    }

    /// An index of images for two platforms.
    fn platforms(&mut self, shape: &Shape<'_>) -> Value {
        let child = Shape { tag: None, ..shape.clone() };
        let children = ["amd64", "arm64"].map(|architecture| {
            let mut image = self.image(&[LAYER_GZIP, LAYER_GZIP], &child);
            image["platform"] = json!({"os": "linux", "architecture": architecture});
            image
        });
        self.index(&children, shape)
    }

    fn manifest(&mut self, config: &Value, layers: &[Value], shape: &Shape<'_>) -> Value {
        let document = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        self.add(document, MANIFEST, shape, shape.artifact_type.or(config["mediaType"].as_str()))
    }

    fn index(&mut self, children: &[Value], shape: &Shape<'_>) -> Value {
        let document = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": children});
        self.add(document, INDEX, shape, shape.artifact_type)
    }

    fn add(
        &mut self,
        mut document: Value,
        media_type: &'static str,
        shape: &Shape<'_>,
        listed_as: Option<&str>,
    ) -> Value {
        if let Some(artifact_type) = shape.artifact_type {
            document["artifactType"] = json!(artifact_type);
        }
        if !shape.annotations.is_empty() {
            document["annotations"] = json!(shape.annotations);
        }
        if let Some(subject) = &shape.subject {
            document["subject"] = subject.clone();
        }
        if shape.with_extra_fields {
            document["org.example.extra"] = json!({"kept": [1, 2, 3]});
        }
        let content = Bytes::from(document.to_string());
        let digest = Digest::of(self.algorithm, &content);
        let descriptor = json!({"mediaType": media_type, "digest": digest, "size": content.len()});
        let subject =
            shape.subject.as_ref().map(|subject| Digest::parse(subject["digest"].as_str().unwrap()).unwrap());
        if let Some(subject) = subject {
            let mut listed = descriptor.clone();
            if let Some(artifact_type) = listed_as {
                listed["artifactType"] = json!(artifact_type);
            }
            if !shape.annotations.is_empty() {
                listed["annotations"] = json!(shape.annotations);
            }
            self.referrers.entry(subject).or_default().push(listed);
        }
        self.manifests.push(Manifest { digest, content, media_type, subject });
        if let Some(tag) = shape.tag {
            self.tags.insert(tag.to_owned(), digest);
        }
        descriptor
    }
}

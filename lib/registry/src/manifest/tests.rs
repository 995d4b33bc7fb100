use serde_json::{Value, json};

use super::*;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

fn descriptor(content: &[u8], media_type: &str) -> Value {
    json!({"mediaType": media_type, "digest": Digest::sha256(content), "size": content.len()})
}

fn image(media_type: &str) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": descriptor(b"config", "application/vnd.oci.image.config.v1+json"),
        "layers": [
            descriptor(b"layer", "application/vnd.oci.image.layer.v1.tar+gzip"),
            descriptor(b"layer", "application/vnd.oci.image.layer.v1.tar+gzip"),
            descriptor(b"foreign", "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"),
            descriptor(b"windows", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
        ],
        "subject": descriptor(b"subject", OCI_MANIFEST),
    })
}

fn index(media_type: &str) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": media_type,
        "manifests": [descriptor(b"image", OCI_MANIFEST), descriptor(b"cache", "application/octet-stream")],
    })
}

fn parse(document: &Value, content_type: Option<&str>) -> Result<Manifest, ManifestParseError> {
    Manifest::parse(Bytes::from(document.to_string()), content_type)
}

fn with(mut document: Value, key: &str, value: Value) -> Value {
    document[key] = value;
    document
}

fn without(mut document: Value, key: &str) -> Value {
    document.as_object_mut().unwrap().remove(key);
    document
}

#[test]
fn an_image_names_its_config_and_its_own_layers_once() {
    for media_type in [OCI_MANIFEST, DOCKER_MANIFEST] {
        let manifest = parse(&image(media_type), Some(media_type)).unwrap();
        assert_eq!(manifest.media_type().as_str(), media_type);
        let blob = |content: &[u8]| Child { digest: Digest::sha256(content), kind: ChildKind::Blob };
        assert_eq!(manifest.children(), [blob(b"config"), blob(b"layer")]);
    }
}

#[test]
fn an_index_names_its_entries() {
    for media_type in [OCI_INDEX, DOCKER_LIST] {
        let manifest = parse(&index(media_type), Some(media_type)).unwrap();
        let kinds: Vec<_> = manifest.children().iter().map(|child| child.kind).collect();
        assert_eq!(kinds, [ChildKind::Manifest, ChildKind::Either]);
    }
}

#[test]
fn the_bytes_are_kept_as_they_came() {
    let bytes = Bytes::from(format!("  {}\n\n", serde_json::to_string_pretty(&index(OCI_INDEX)).unwrap()));
    assert_eq!(Manifest::parse(bytes.clone(), None).unwrap().bytes(), &bytes);
}

#[test]
fn an_oci_document_may_leave_its_type_out_and_a_docker_one_may_not() {
    let untyped = without(image(OCI_MANIFEST), "mediaType");
    assert_eq!(parse(&untyped, Some(OCI_MANIFEST)).unwrap().media_type(), MediaType::OciManifest);
    assert_eq!(parse(&untyped, None).unwrap().media_type(), MediaType::OciManifest);
    assert!(matches!(parse(&untyped, Some(DOCKER_MANIFEST)), Err(ManifestParseError::NoMediaType)));
    let untyped = without(index(OCI_INDEX), "mediaType");
    assert_eq!(parse(&untyped, None).unwrap().media_type(), MediaType::OciIndex);
}

#[test]
fn a_document_of_another_type_than_its_header_is_refused() {
    let error = parse(&image(OCI_MANIFEST), Some(DOCKER_MANIFEST)).unwrap_err();
    assert!(matches!(error, ManifestParseError::MediaTypeMismatch { .. }), "{error}");
    for media_type in
        ["application/vnd.docker.distribution.manifest.v1+prettyjws", "application/json", "", "text/html"]
    {
        let error = parse(&image(OCI_MANIFEST), Some(media_type)).unwrap_err();
        assert!(matches!(error, ManifestParseError::UnknownMediaType(_)), "{error}");
    }
}

#[test]
fn a_document_that_is_image_and_index_at_once_is_refused() {
    let layers = image(OCI_MANIFEST)["layers"].clone();
    let config = image(OCI_MANIFEST)["config"].clone();
    for confused in [
        with(index(OCI_INDEX), "layers", layers.clone()),
        with(index(OCI_INDEX), "layers", json!([])),
        with(index(OCI_INDEX), "config", config),
        with(index(OCI_INDEX), "Layers", layers),
        with(image(OCI_MANIFEST), "manifests", json!([])),
        with(image(OCI_MANIFEST), "MANIFESTS", json!([])),
        with(image(OCI_MANIFEST), "fsLayers", json!([])),
        with(image(OCI_MANIFEST), "mediaType", json!(OCI_INDEX)),
        with(index(OCI_INDEX), "mediaType", json!(OCI_MANIFEST)),
        json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST}),
    ] {
        assert!(parse(&confused, None).is_err(), "{confused}");
    }
}

#[test]
fn a_key_that_is_there_twice_is_refused() {
    let text = index(OCI_INDEX).to_string();
    for extra in [r#""manifests":[],"#, r#""annotations":{},"annotations":{},"#, r#""other":1,"other":2,"#] {
        let twice = text.replacen('{', &format!("{{{extra}"), 1);
        assert!(Manifest::parse(Bytes::from(twice.clone()), None).is_err(), "{twice}");
    }
}

#[test]
fn a_descriptor_that_contradicts_itself_is_refused() {
    let good = json!({"mediaType": "a/b", "digest": Digest::sha256(b"{}"), "size": 2, "data": "e30="});
    let config = |descriptor: &Value| parse(&with(image(OCI_MANIFEST), "config", descriptor.clone()), None);
    assert!(config(&good).is_ok());
    for (key, value) in [
        ("data", json!("e30")),
        ("data", json!("e31=")),
        ("size", json!(3)),
        ("size", json!(-1)),
        ("size", json!(u64::MAX)),
        ("digest", json!("sha256:abc")),
        ("digest", json!(Digest::sha256(b"{}").to_string().to_uppercase())),
        ("mediaType", json!(null)),
    ] {
        let bad = with(good.clone(), key, value);
        assert!(config(&bad).is_err(), "{bad}");
    }
}

#[test]
fn deep_nesting_is_refused_and_not_followed() {
    let nested = |levels: usize| {
        let text = image(OCI_MANIFEST).to_string();
        let extra = format!(r#"{{"x":{}{},"#, "[".repeat(levels), "]".repeat(levels));
        Manifest::parse(Bytes::from(text.replacen('{', &extra, 1)), None)
    };
    assert!(nested(MAX_DEPTH - 1).is_ok());
    for levels in [MAX_DEPTH, 10_000, 1_000_000] {
        assert!(matches!(nested(levels), Err(ManifestParseError::TooDeep(_))), "{levels}");
    }
}

#[test]
fn endless_lists_and_other_versions_are_refused() {
    let many = vec![descriptor(b"image", OCI_MANIFEST); MAX_DESCRIPTORS + 1];
    let error = parse(&with(index(OCI_INDEX), "manifests", json!(many)), None).unwrap_err();
    assert!(matches!(error, ManifestParseError::TooManyDescriptors(_)), "{error}");
    let error = parse(&with(index(OCI_INDEX), "schemaVersion", json!(1)), None).unwrap_err();
    assert!(matches!(error, ManifestParseError::SchemaVersion(1)), "{error}");
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(bytes: Vec<u8>, content_type: Option<String>) {
        let _ = Manifest::parse(Bytes::from(bytes), content_type.as_deref());
    }
}

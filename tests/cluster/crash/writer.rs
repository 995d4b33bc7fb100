//! A client that pushes, tags and deletes at random until the registry is gone.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, IteratorRandom};
use rand::{Rng, RngExt, SeedableRng};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION};
use reqwest::{Body, RequestBuilder, Response, StatusCode};
use serde_json::json;
use shoal_core::Digest;

use super::fuse::{Fuse, Step};
use super::journal::{Journal, Presence, Upload};

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";
/// How much of a streamed body is one step.
const PART: usize = 32 << 10;
/// Few, so that they move often.
const TAGS: u32 = 5;
/// How many layers all clients have in common: they are pushed twice at once, and mounted.
const SHARED_LAYERS: u64 = 40;
const LENGTHS: std::ops::RangeInclusive<f64> = (10 << 10) as f64..=(3 << 20) as f64;

/// The connection broke, or there was none: the registry is gone.
#[derive(Debug)]
pub(crate) struct Cut;

/// Blobs that some repository is known to have, to be mounted from there.
pub(crate) type Mountable = Arc<Mutex<Vec<(String, Digest)>>>;

/// One client and its repository.
pub(crate) struct Writer {
    pub(crate) http: reqwest::Client,
    pub(crate) address: SocketAddr,
    pub(crate) fuse: Fuse,
    pub(crate) random: SmallRng,
    pub(crate) mountable: Mountable,
    pub(crate) journal: Journal,
}

impl Writer {
    /// Works until the registry is gone; what it knows then.
    pub(crate) async fn run(mut self) -> Journal {
        while let Ok(()) = self.act().await {
            self.journal.acknowledged += 1;
        }
        self.journal
    }

    async fn act(&mut self) -> Result<(), Cut> {
        // Where the origin is to die in a delete or a tag, those come often: what they cut short is there anyhow.
        let often = match self.fuse.counted() {
            Some(Step::Deleting) => 8..11,
            Some(Step::Tagging) => 4..8,
            Some(Step::Sending | Step::Ending) | None => 0..12,
        };
        let chosen = if self.random.random_bool(0.5) { often } else { 0..12 };
        match self.random.random_range(chosen) {
            0..=5 => self.push_image().await,
            6..=7 => self.tag_again().await,
            8..=9 => self.delete_tag().await,
            10 => self.delete_manifest().await,
            _ => self.push_and_delete_blob().await,
        }
    }

    async fn push_image(&mut self) -> Result<(), Cut> {
        let mut layers = Vec::new();
        for _ in 0..self.random.random_range(1..=4) {
            let layer = self.layer();
            layers.push((self.push_layer(layer.clone()).await?, layer.len()));
        }
        let config = Bytes::from(json!({ "created by": self.random.next_u64() }).to_string());
        let config = (self.push_blob(config.clone()).await?, config.len());
        let described = |(digest, length): &(Digest, usize), media_type| json!({ "mediaType": media_type, "digest": digest, "size": length });
        let layers_described: Vec<_> = layers.iter().map(|layer| described(layer, LAYER_TYPE)).collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": described(&config, CONFIG_TYPE),
            "layers": layers_described,
        });
        let blobs: Vec<_> = layers.iter().chain([&config]).map(|(digest, _)| *digest).collect();
        let tag = self.random.random_bool(0.8).then(|| self.tag());
        self.put_manifest(tag, manifest.to_string().into(), &blobs).await
    }

    async fn tag_again(&mut self) -> Result<(), Cut> {
        let known = self.journal.manifests.values().choose(&mut self.random).cloned();
        let Some(manifest) = known else { return Ok(()) };
        let tag = self.tag();
        self.put_manifest(Some(tag), manifest.content, &manifest.blobs).await
    }

    async fn put_manifest(
        &mut self,
        tag: Option<String>,
        content: Bytes,
        blobs: &[Digest],
    ) -> Result<(), Cut> {
        let digest = Digest::sha256(&content);
        self.journal.begin_manifest(digest, &content, blobs);
        if let Some(tag) = &tag {
            self.journal.begin_tag(tag, Some(digest));
        }
        let url = self.url(&format!("manifests/{}", tag.clone().unwrap_or_else(|| digest.to_string())));
        let put = self.http.put(url).header(CONTENT_TYPE, MANIFEST_TYPE).body(content);
        self.send(Step::Tagging, put, &[StatusCode::CREATED]).await?;
        self.journal.end_manifest(&digest, Presence::There);
        if let Some(tag) = &tag {
            self.journal.end_tag(tag, Some(digest));
        }
        Ok(())
    }

    async fn delete_tag(&mut self) -> Result<(), Cut> {
        let set = self.journal.tags.iter().filter_map(|(tag, values)| Some((tag.clone(), values[0]?)));
        let Some((tag, digest)) = set.choose(&mut self.random) else { return Ok(()) };
        self.journal.begin_tag(&tag, None);
        let deleted = self.delete(&format!("manifests/{tag}")).await?;
        self.journal.end_tag(&tag, (!deleted).then_some(digest));
        Ok(())
    }

    async fn delete_manifest(&mut self) -> Result<(), Cut> {
        let there = self.journal.manifests_in(Presence::There);
        // Those with tags are few, and the only ones whose delete changes more than one thing.
        let tagged: Vec<_> = self.journal.tags.values().filter_map(|values| values[0]).collect();
        let chosen = match tagged.choose(&mut self.random) {
            Some(tagged) if self.random.random_bool(0.7) => Some(tagged),
            _ => there.choose(&mut self.random),
        };
        let Some(digest) = chosen else { return Ok(()) };
        self.journal.begin_delete(digest);
        let deleted = self.delete(&format!("manifests/{digest}")).await?;
        self.journal.end_delete(digest, if deleted { Presence::Gone } else { Presence::There });
        Ok(())
    }

    /// A blob that no manifest names: the only kind that may be deleted.
    async fn push_and_delete_blob(&mut self) -> Result<(), Cut> {
        let seed = self.random.next_u64();
        let digest = self.push_blob(layer(seed)).await?;
        self.journal.blobs.insert(digest, Presence::Unknown);
        let deleted = self.delete(&format!("blobs/{digest}")).await?;
        self.journal.blobs.insert(digest, if deleted { Presence::Gone } else { Presence::There });
        Ok(())
    }

    /// Whether it was deleted; if not, the registry does not do that.
    async fn delete(&mut self, path: &str) -> Result<bool, Cut> {
        let delete = self.http.delete(self.url(path));
        let answer = self
            .send(Step::Deleting, delete, &[StatusCode::ACCEPTED, StatusCode::METHOD_NOT_ALLOWED])
            .await?;
        self.journal.cannot_delete |= answer.status() == StatusCode::METHOD_NOT_ALLOWED;
        Ok(answer.status() == StatusCode::ACCEPTED)
    }

    /// Mounts a layer, if another repository is known to have it, or pushes it.
    async fn push_layer(&mut self, content: Bytes) -> Result<Digest, Cut> {
        let digest = Digest::sha256(&content);
        let source = {
            let mountable = self.mountable.lock().unwrap();
            let mut sources = mountable.iter().filter(|(_, there)| *there == digest);
            sources.next().map(|(repository, _)| repository.clone())
        };
        match source {
            Some(from) if self.random.random_bool(0.5) => self.mount(digest, &from).await?,
            _ => _ = self.push_blob(content).await?,
        }
        self.mountable.lock().unwrap().push((self.journal.repository.clone(), digest));
        Ok(digest)
    }

    async fn mount(&mut self, digest: Digest, from: &str) -> Result<(), Cut> {
        self.journal.begin_blob(digest);
        let post = self.http.post(self.url(&format!("blobs/uploads/?mount={digest}&from={from}")));
        self.send(Step::Ending, post, &[StatusCode::CREATED]).await?;
        self.journal.blobs.insert(digest, Presence::There);
        Ok(())
    }

    async fn push_blob(&mut self, content: Bytes) -> Result<Digest, Cut> {
        let digest = Digest::sha256(&content);
        self.journal.begin_blob(digest);
        match self.random.random_range(0..3) {
            0 => self.post_whole(content, &digest).await?,
            1 => self.stream(content, &digest).await?,
            _ => self.send_chunks(content, &digest).await?,
        }
        self.journal.blobs.insert(digest, Presence::There);
        Ok(digest)
    }

    async fn post_whole(&mut self, content: Bytes, digest: &Digest) -> Result<(), Cut> {
        let url = self.url(&format!("blobs/uploads/?digest={digest}"));
        let post = self.http.post(url).header(CONTENT_LENGTH, content.len()).body(self.parts(content));
        self.journal.sessions_lost += 1;
        self.send(Step::Ending, post, &[StatusCode::CREATED]).await?;
        self.journal.sessions_lost -= 1;
        Ok(())
    }

    /// POST, one PATCH, PUT.
    async fn stream(&mut self, content: Bytes, digest: &Digest) -> Result<(), Cut> {
        let mut upload = self.start(content.clone()).await?;
        upload.sent = content.len() as u64;
        self.journal.upload = Some(upload.clone());
        let patch = self.http.patch(self.at(&upload.location)).body(self.parts(content));
        upload.acknowledge(&self.send(Step::Sending, patch, &[StatusCode::ACCEPTED]).await?);
        self.end(upload, Bytes::new(), digest).await
    }

    /// POST, some PATCHes with `Content-Range`, PUT with the rest.
    async fn send_chunks(&mut self, content: Bytes, digest: &Digest) -> Result<(), Cut> {
        let mut upload = self.start(content.clone()).await?;
        let (length, mut rest) = (content.len().div_ceil(4), content);
        while rest.len() > length {
            let chunk = rest.split_to(length);
            upload.sent += chunk.len() as u64;
            self.journal.upload = Some(upload.clone());
            let range = format!("{}-{}", upload.acknowledged, upload.sent - 1);
            let patch = self.http.patch(self.at(&upload.location)).header(CONTENT_RANGE, range).body(chunk);
            upload.acknowledge(&self.send(Step::Sending, patch, &[StatusCode::ACCEPTED]).await?);
        }
        self.end(upload, rest, digest).await
    }

    async fn start(&mut self, content: Bytes) -> Result<Upload, Cut> {
        let post = self.http.post(self.url("blobs/uploads/"));
        self.journal.sessions_lost += 1;
        let started = self.send(Step::Sending, post, &[StatusCode::ACCEPTED]).await?;
        self.journal.sessions_lost -= 1;
        let upload =
            Upload { location: location(&started), content, acknowledged: 0, sent: 0, ending: false };
        self.journal.upload = Some(upload.clone());
        Ok(upload)
    }

    async fn end(&mut self, mut upload: Upload, rest: Bytes, digest: &Digest) -> Result<(), Cut> {
        (upload.sent, upload.ending) = (upload.content.len() as u64, true);
        self.journal.upload = Some(upload.clone());
        let url = with_digest(&self.at(&upload.location), digest);
        let put = self.http.put(url).header(CONTENT_LENGTH, rest.len()).body(rest);
        self.journal.sessions_lost += 1;
        self.send(Step::Ending, put, &[StatusCode::CREATED]).await?;
        self.journal.sessions_lost -= 1;
        self.journal.upload = None;
        Ok(())
    }

    async fn send(
        &self,
        step: Step,
        request: RequestBuilder,
        expected: &[StatusCode],
    ) -> Result<Response, Cut> {
        self.fuse.step(step);
        let began = Instant::now();
        let answer = request.send().await.map_err(|_| Cut)?;
        self.fuse.took(step, began.elapsed());
        if expected.contains(&answer.status()) {
            return Ok(answer);
        }
        let (url, status) = (answer.url().clone(), answer.status());
        panic!("{url}: {status}: {}", answer.text().await.unwrap_or_default());
    }

    /// A body that burns the fuse while it goes out.
    fn parts(&self, mut content: Bytes) -> Body {
        let fuse = self.fuse.clone();
        let next = move || {
            let part = content.split_to(content.len().min(PART));
            fuse.step(Step::Sending);
            (!part.is_empty()).then_some(Ok::<_, std::io::Error>(part))
        };
        Body::wrap_stream(futures_util::stream::iter(std::iter::from_fn(next)))
    }

    /// One that all clients push sooner or later, or one that nobody has.
    fn layer(&mut self) -> Bytes {
        let shared = self.random.random_bool(0.5);
        layer(if shared { self.random.random_range(0..SHARED_LAYERS) } else { self.random.next_u64() })
    }

    fn tag(&mut self) -> String {
        format!("tag-{}", self.random.random_range(0..TAGS))
    }

    fn url(&self, path: &str) -> String {
        self.at(&format!("/v2/{}/{path}", self.journal.repository))
    }

    fn at(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Upload {
    /// What the answer to a chunk says that the registry has.
    fn acknowledge(&mut self, answer: &Response) {
        self.acknowledged = self.sent;
        self.location = location(answer);
    }
}

/// The bytes of a layer; small ones are as frequent as large ones on a logarithmic scale.
fn layer(seed: u64) -> Bytes {
    let mut random = SmallRng::seed_from_u64(seed);
    let exponent = random.random_range(LENGTHS.start().ln()..=LENGTHS.end().ln());
    let mut content = vec![0; exponent.exp() as usize];
    random.fill_bytes(&mut content);
    content.into()
}

/// Where an upload goes on: path and query, since the registry listens elsewhere after a restart.
fn location(answer: &Response) -> String {
    let text = answer.headers()[LOCATION].to_str().unwrap();
    let url = answer.url().join(text).unwrap();
    url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()))
}

pub(crate) fn with_digest(url: &str, digest: &Digest) -> String {
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}digest={digest}")
}

//! A small registry client: pushes and pulls as runtimes do, checks every digest.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use reqwest::{Body, Response, StatusCode, Url};
use shoal_core::{Digest, Digester};

use crate::image::{Image, Layer, MANIFEST_TYPE};

/// A registry, as its clients see it.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
}

/// How a pull of one blob went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// How many bytes came.
    pub bytes: u64,
    /// When the first of them was there, after the request.
    pub first_byte: Duration,
    /// When the last was.
    pub whole: Duration,
}

impl Client {
    /// How long a connection may take.
    const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
    /// How long nothing at all may come.
    const READ_TIMEOUT: Duration = Duration::from_secs(60);

    /// A client of the registry at `http://<address>`.
    pub fn new(address: impl std::fmt::Display) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(Self::CONNECT_TIMEOUT)
            .read_timeout(Self::READ_TIMEOUT)
            .build()?;
        Ok(Self { http, base: Url::parse(&format!("http://{address}/"))? })
    }

    /// Pushes blobs, then the manifest by tag. `progress` is told of bytes sent.
    pub async fn push(
        &self,
        repository: &str,
        tag: &str,
        image: &Image,
        progress: impl Fn(u64) + Clone + Send + 'static,
    ) -> anyhow::Result<()> {
        for &layer in &image.layers {
            self.push_layer(repository, layer, progress.clone()).await?;
        }
        let config = futures_util::stream::iter([Ok(image.config.clone())]);
        self.push_blob(repository, &Digest::sha256(&image.config), config).await?;
        self.push_manifest(repository, tag, MANIFEST_TYPE, image.manifest.clone()).await
    }

    /// Pushes one generated layer.
    pub async fn push_layer(
        &self,
        repository: &str,
        layer: Layer,
        progress: impl Fn(u64) + Send + 'static,
    ) -> anyhow::Result<()> {
        let chunks = layer.chunks().inspect(move |chunk| progress(chunk.len() as u64)).map(Ok);
        self.push_blob(repository, &layer.digest, futures_util::stream::iter(chunks)).await
    }

    /// Pushes a blob as dockerd does: POST, one streamed PATCH, PUT.
    pub async fn push_blob(
        &self,
        repository: &str,
        digest: &Digest,
        content: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
    ) -> anyhow::Result<()> {
        let started = self.http.post(self.url(&format!("v2/{repository}/blobs/uploads/"))?).send().await?;
        let upload = self.location(&expect(started, StatusCode::ACCEPTED).await?)?;
        let patched = self.http.patch(upload).body(Body::wrap_stream(content)).send().await?;
        let mut upload = self.location(&expect(patched, StatusCode::ACCEPTED).await?)?;
        upload.query_pairs_mut().append_pair("digest", &digest.to_string());
        let put = self.http.put(upload).header(CONTENT_LENGTH, 0).send().await?;
        expect(put, StatusCode::CREATED).await.map(drop)
    }

    /// Pushes a manifest under a tag or its digest.
    pub async fn push_manifest(
        &self,
        repository: &str,
        reference: &str,
        media_type: &str,
        manifest: Bytes,
    ) -> anyhow::Result<()> {
        let url = self.url(&format!("v2/{repository}/manifests/{reference}"))?;
        let put = self.http.put(url).header(CONTENT_TYPE, media_type).body(manifest).send().await?;
        expect(put, StatusCode::CREATED).await.map(drop)
    }

    /// Pulls a manifest by tag or digest; its bytes are checked against the digest that the registry names.
    pub async fn pull_manifest(&self, repository: &str, reference: &str) -> anyhow::Result<Bytes> {
        let response = self.get(&format!("v2/{repository}/manifests/{reference}")).await?;
        let response = expect(response, StatusCode::OK).await?;
        let named = response.headers().get("docker-content-digest").context("no Docker-Content-Digest")?;
        let named = Digest::parse(named.to_str()?)?;
        let bytes = response.bytes().await?;
        ensure!(
            Digest::of(named.algorithm(), &bytes) == named,
            "manifest {reference} is not what its digest says"
        );
        Ok(bytes)
    }

    /// Pulls a blob and checks it. `progress` is told of bytes received.
    pub async fn pull_blob(
        &self,
        repository: &str,
        digest: &Digest,
        mut progress: impl FnMut(u64),
    ) -> anyhow::Result<Pulled> {
        let asked = Instant::now();
        let response = self.get(&format!("v2/{repository}/blobs/{digest}")).await?;
        let response = expect(response, StatusCode::OK).await?;
        let (mut digester, mut bytes, mut first_byte) = (Digester::new(digest.algorithm()), 0, None);
        let mut body = response.bytes_stream();
        while let Some(chunk) = body.next().await {
            let chunk = chunk.with_context(|| format!("blob {digest}: cut after {bytes} bytes"))?;
            first_byte.get_or_insert_with(|| asked.elapsed());
            digester.update(&chunk);
            bytes += chunk.len() as u64;
            progress(chunk.len() as u64);
        }
        let found = digester.finish();
        ensure!(found == *digest, "blob {digest}: the bytes that came have digest {found}");
        let whole = asked.elapsed();
        Ok(Pulled { bytes, first_byte: first_byte.unwrap_or(whole), whole })
    }

    /// A plain GET below the registry's root.
    pub async fn get(&self, path: &str) -> anyhow::Result<Response> {
        Ok(self.http.get(self.url(path)?).send().await?)
    }

    /// A GET of a range of bytes, as the header has it: `bytes=0-99`.
    pub async fn get_range(&self, path: &str, range: &str) -> anyhow::Result<Response> {
        Ok(self.http.get(self.url(path)?).header(reqwest::header::RANGE, range).send().await?)
    }

    fn url(&self, path: &str) -> anyhow::Result<Url> {
        Ok(self.base.join(path)?)
    }

    /// Where the registry says to go on; relative or absolute.
    fn location(&self, response: &Response) -> anyhow::Result<Url> {
        let location = response.headers().get(LOCATION).context("no Location in the answer")?;
        Ok(self.base.join(location.to_str()?)?)
    }
}

async fn expect(response: Response, status: StatusCode) -> anyhow::Result<Response> {
    if response.status() == status {
        return Ok(response);
    }
    let (url, found) = (response.url().clone(), response.status());
    let body: String = response.text().await.unwrap_or_default().chars().take(500).collect();
    bail!("{url}: expected {status}, got {found}: {body}")
}

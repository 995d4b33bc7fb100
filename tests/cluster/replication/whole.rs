//! All that belongs to an image goes with it: indexes, platforms, signatures; and deletes where that is wanted.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use shoal::image::{Image, MANIFEST_TYPE};
use shoal_core::Digest;

use super::relay::{Relay, idle, rule};
use crate::process::{Process, Processes};
use crate::support::{REPOSITORY, eventually};

const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";

struct Setting {
    from: Processes,
    to: Processes,
    relay: Relay,
}

impl Setting {
    async fn start(more: &str) -> Self {
        let (to, relay) = (Processes::start().await, Relay::start().await);
        relay.lead_to(&to.origin);
        let from = Processes::start_with(&rule(&relay, more)).await;
        Self { from, to, relay }
    }

    /// An index of two images, and its bytes.
    async fn push_index(&self, tag: &str) -> Vec<u8> {
        let client = self.from.origin.client();
        let mut entries = Vec::new();
        for (seed, architecture) in [(50, "amd64"), (51, "arm64")] {
            let image = Image::generate(300_000, 2, seed);
            client.push(REPOSITORY, architecture, &image, |_| ()).await.unwrap();
            entries.push(json!({
                "mediaType": MANIFEST_TYPE, "digest": Digest::sha256(&image.manifest),
                "size": image.manifest.len(), "platform": { "os": "linux", "architecture": architecture },
            }));
        }
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": entries }).to_string();
        client.push_manifest(REPOSITORY, tag, INDEX_TYPE, index.clone().into()).await.unwrap();
        index.into_bytes()
    }

    /// Something by digest alone that says something about a manifest.
    async fn sign(&self, subject: &[u8], media_type: &str) -> Digest {
        let client = self.from.origin.client();
        let empty = b"{}";
        let content = futures_util::stream::iter([Ok(bytes::Bytes::from_static(empty))]);
        client.push_blob(REPOSITORY, &Digest::sha256(empty), content).await.unwrap();
        let layer = json!({ "mediaType": "application/vnd.oci.empty.v1+json", "digest": Digest::sha256(empty), "size": 2 });
        let signature = json!({
            "schemaVersion": 2, "mediaType": MANIFEST_TYPE, "artifactType": "application/x.signature",
            "config": layer, "layers": [layer],
            "subject": { "mediaType": media_type, "digest": Digest::sha256(subject), "size": subject.len() },
        })
        .to_string();
        let digest = Digest::sha256(signature.as_bytes());
        client.push_manifest(REPOSITORY, &digest.to_string(), MANIFEST_TYPE, signature.into()).await.unwrap();
        digest
    }
}

async fn referrers(origin: &Process, subject: &[u8]) -> Vec<String> {
    let url = format!("http://{}/v2/{REPOSITORY}/referrers/{}", origin.registry(), Digest::sha256(subject));
    let list: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
    let manifests = list["manifests"].as_array().unwrap().iter();
    manifests.map(|entry| entry["digest"].as_str().unwrap().to_owned()).collect()
}

async fn status(origin: &Process, method: Method, path: &str) -> StatusCode {
    let url = format!("http://{}/v2/{REPOSITORY}/{path}", origin.registry());
    reqwest::Client::new().request(method, url).send().await.unwrap().status()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_comes_with_all_platforms_and_signatures_that_come_later_follow() {
    // Only the index goes by its tag.
    let setting = Setting::start("tags = [\"v*\"]").await;
    setting.relay.away(true);
    let index = setting.push_index("v1").await;
    let early = setting.sign(&index, INDEX_TYPE).await;
    setting.relay.away(false);
    let there = &setting.to.origin;
    eventually("the index", async || {
        let manifest = there.client().pull_manifest(REPOSITORY, "v1").await.ok()?;
        (manifest == index).then_some(())
    })
    .await;
    idle(&setting.from.origin).await;
    assert_eq!(referrers(there, &index).await, [early.to_string()]);
    assert_eq!(setting.relay.puts(), [format!("{REPOSITORY}:v1")]);
    assert_eq!(status(there, Method::HEAD, "manifests/amd64").await, StatusCode::NOT_FOUND);

    let late = setting.sign(&index[..], INDEX_TYPE).await;
    assert_eq!(late, early, "the same is the same");
    let child: Value = serde_json::from_slice(&index).unwrap();
    let child = child["manifests"][0]["digest"].as_str().unwrap();
    let child = setting.from.origin.client().pull_manifest(REPOSITORY, child).await.unwrap();
    let late = setting.sign(&child, MANIFEST_TYPE).await;
    eventually("the signature", async || {
        (referrers(there, &child).await == [late.to_string()]).then_some(())
    })
    .await;
    // What it is about does not go there, and so it does not either.
    let other = Image::generate(1000, 1, 60);
    setting.from.origin.client().push(REPOSITORY, "other", &other, |_| ()).await.unwrap();
    let other = setting.sign(&other.manifest, MANIFEST_TYPE).await;
    idle(&setting.from.origin).await;
    assert_eq!(status(there, Method::HEAD, &format!("manifests/{other}")).await, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_goes_along_where_that_is_wanted() {
    for (keys, expected) in [("delete = true", StatusCode::NOT_FOUND), ("", StatusCode::OK)] {
        let setting = Setting::start(keys).await;
        let (here, there) = (&setting.from.origin, &setting.to.origin);
        for (tag, seed) in [("v1", 70), ("v2", 71)] {
            here.client().push(REPOSITORY, tag, &Image::generate(1000, 1, seed), |_| ()).await.unwrap();
        }
        let has = async |tag: &str| status(there, Method::HEAD, &format!("manifests/{tag}")).await;
        eventually("both", async || {
            (has("v1").await == StatusCode::OK && has("v2").await == StatusCode::OK).then_some(())
        })
        .await;
        idle(here).await;
        assert_eq!(status(here, Method::DELETE, "manifests/v1").await, StatusCode::ACCEPTED);
        eventually("what is expected", async || (has("v1").await == expected).then_some(())).await;
        idle(here).await;
        assert_eq!((has("v1").await, has("v2").await), (expected, StatusCode::OK));
    }
}

use std::sync::Arc;

use axum::body::Body;
use futures_util::future::join_all;
use http::StatusCode;
use serde_json::{Value, json};
use shoal_core::{Algorithm, Digest, RepositoryName, Tag};
use shoal_driver::{Context, FilesystemDriver, RegistryPath, StorageDriver};
use shoal_registry::Config;

use crate::rig::{Fault, OCI_INDEX, OCI_MANIFEST, Rig, descriptor, digest_of};

const SIGNATURE: &str = "application/vnd.example.signature.v1";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// An artifact without layers that says something about `subject`.
fn artifact(subject: &Digest, artifact_type: &str, note: &str) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": descriptor(b"{}", EMPTY),
        "layers": [],
        "subject": {"mediaType": OCI_MANIFEST, "digest": subject, "size": 7},
        "annotations": {"note": note},
    })
}

async fn rig() -> Rig {
    let rig = Rig::new();
    rig.push_blob("a", b"{}").await;
    rig
}

/// Pushes it by its digest; gives that.
async fn push(rig: &Rig, media_type: &str, document: &Value) -> Digest {
    let digest = digest_of(document);
    let reply = rig.put_manifest(&format!("/v2/a/manifests/{digest}"), media_type, document).await;
    let reply = reply.expect(StatusCode::CREATED);
    assert_eq!(reply.header("oci-subject"), document["subject"]["digest"].as_str().unwrap());
    digest
}

async fn referrers(rig: &Rig, subject: &Digest, query: &str) -> Vec<Value> {
    let path = format!("/v2/a/referrers/{subject}{query}");
    let reply = rig.get(&path).await.expect(StatusCode::OK);
    assert_eq!(reply.header("content-type"), OCI_INDEX);
    assert_eq!(rig.head(&path).await.expect(StatusCode::OK).headers, reply.headers);
    let mut body: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!((&body["schemaVersion"], &body["mediaType"]), (&json!(2), &json!(OCI_INDEX)));
    serde_json::from_value(body["manifests"].take()).unwrap()
}

fn fallback_tag(subject: &Digest) -> String {
    format!("{}-{:.64}", subject.algorithm(), subject.hex())
}

#[tokio::test]
async fn who_refers_to_nothing_known_finds_an_empty_list() {
    let rig = rig().await;
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        assert!(referrers(&rig, &Digest::of(algorithm, b"unknown"), "").await.is_empty());
    }
    rig.get(&format!("/v2/unknown/referrers/{}", Digest::sha256(b""))).await.expect(StatusCode::OK);
    for digest in ["sha256:x", "latest", "md5:d41d8cd98f00b204e9800998ecf8427e"] {
        let reply = rig.get(&format!("/v2/a/referrers/{digest}")).await;
        reply.expect_error(StatusCode::BAD_REQUEST, "DIGEST_INVALID");
    }
    // No subject, no header.
    assert!(!rig.push_image("a", "x").await.to_string().is_empty());
    let reply = rig.put_manifest("/v2/a/manifests/x", OCI_MANIFEST, &crate::rig::image(OCI_MANIFEST)).await;
    assert!(!reply.headers.contains_key("oci-subject"));
}

#[tokio::test]
async fn referrers_are_listed_with_type_and_annotations_even_without_their_subject() {
    let rig = rig().await;
    for subject in [Digest::sha256(b"absent"), Digest::of(Algorithm::Sha512, b"absent")] {
        let signature = artifact(&subject, SIGNATURE, "one");
        let mut image = artifact(&subject, "", "two");
        image.as_object_mut().unwrap().remove("artifactType");
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [],
            "subject": {"mediaType": OCI_MANIFEST, "digest": subject, "size": 7}});
        push(&rig, OCI_MANIFEST, &signature).await;
        push(&rig, OCI_MANIFEST, &image).await;
        push(&rig, OCI_INDEX, &index).await;
        let entry = |document: &Value, rest: Value| {
            let mut entry =
                descriptor(document.to_string().as_bytes(), document["mediaType"].as_str().unwrap());
            entry.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            entry
        };
        let expected = [
            entry(&signature, json!({"artifactType": SIGNATURE, "annotations": {"note": "one"}})),
            entry(&image, json!({"artifactType": EMPTY, "annotations": {"note": "two"}})),
            entry(&index, json!({})),
        ];
        assert_eq!(referrers(&rig, &subject, "").await, expected);
        // A second push of the same is the same.
        push(&rig, OCI_MANIFEST, &signature).await;
        assert_eq!(referrers(&rig.restarted(), &subject, "").await, expected);
    }
}

#[tokio::test]
async fn a_filter_is_applied_and_said_so() {
    let rig = rig().await;
    let subject = Digest::sha256(b"absent");
    let signature = push(&rig, OCI_MANIFEST, &artifact(&subject, SIGNATURE, "x")).await;
    push(&rig, OCI_MANIFEST, &artifact(&subject, "application/spdx+json", "x")).await;
    let filtered = referrers(&rig, &subject, &format!("?artifactType={SIGNATURE}")).await;
    assert_eq!(filtered.len(), 1);
    assert_eq!(filtered[0]["digest"], json!(signature));
    let encoded = referrers(&rig, &subject, "?artifactType=application%2Fspdx%2Bjson").await;
    assert_eq!(encoded.len(), 1);
    for (query, applied) in [("?artifactType=a/b", true), ("", false), ("?artifactType=", false)] {
        let reply = rig.get(&format!("/v2/a/referrers/{subject}{query}")).await.expect(StatusCode::OK);
        assert_eq!(reply.headers.contains_key("oci-filters-applied"), applied, "{query}");
    }
    assert!(referrers(&rig, &subject, "?artifactType=a/b").await.is_empty());
}

#[tokio::test]
async fn a_deleted_referrer_is_not_listed_any_more() {
    let rig = rig().await;
    let subject = digest_of(&rig.push_image("a", "latest").await);
    let (one, two) = (artifact(&subject, SIGNATURE, "one"), artifact(&subject, SIGNATURE, "two"));
    let one = push(&rig, OCI_MANIFEST, &one).await;
    let two = push(&rig, OCI_MANIFEST, &two).await;
    // Its subject may go first.
    for (digest, left) in [(subject, 2), (one, 1), (two, 0)] {
        let path = format!("/v2/a/manifests/{digest}");
        rig.send("DELETE", &path, &[], Body::empty()).await.expect(StatusCode::ACCEPTED);
        assert_eq!(referrers(&rig, &subject, "").await.len(), left);
    }
    rig.get(&format!("/v2/a/manifests/{}", fallback_tag(&subject))).await.expect(StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn clients_without_the_api_find_and_add_referrers_by_the_fallback_tag() {
    let rig = rig().await;
    let subject = Digest::sha256(b"absent");
    let path = format!("/v2/a/manifests/{}", fallback_tag(&subject));
    let old = artifact(&Digest::sha256(b"another subject"), SIGNATURE, "old");
    push(&rig, OCI_MANIFEST, &old).await;
    let entry = descriptor(old.to_string().as_bytes(), OCI_MANIFEST);
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]});
    rig.put_manifest(&path, OCI_INDEX, &index).await.expect(StatusCode::CREATED);
    assert_eq!(referrers(&rig, &subject, "").await, std::slice::from_ref(&entry));
    push(&rig, OCI_MANIFEST, &artifact(&subject, SIGNATURE, "new")).await;
    let both = referrers(&rig, &subject, "").await;
    assert_eq!((both.len(), &both[0]), (2, &entry));
    let tagged = rig.get(&path).await.expect(StatusCode::OK);
    assert_eq!(tagged.header("content-type"), OCI_INDEX);
    assert_eq!(serde_json::from_slice::<Value>(&tagged.body).unwrap()["manifests"], json!(both));
}

#[tokio::test]
async fn pushes_at_the_same_time_are_all_listed() {
    let directory = tempfile::tempdir().unwrap();
    let files = FilesystemDriver::new(directory.path());
    for rig in [Rig::new(), Rig::on(Arc::new(files), Config::default())] {
        rig.push_blob("a", b"{}").await;
        let subject = Digest::sha256(b"absent");
        let documents: Vec<Value> =
            (0..20).map(|number| artifact(&subject, SIGNATURE, &number.to_string())).collect();
        let pushed = join_all(documents.iter().map(|document| push(&rig, OCI_MANIFEST, document))).await;
        assert_eq!(referrers(&rig, &subject, "").await.len(), 20);
        let rig = &rig;
        let deletes = pushed[..10].iter().map(|digest| async move {
            let path = format!("/v2/a/manifests/{digest}");
            rig.send("DELETE", &path, &[], Body::empty()).await.expect(StatusCode::ACCEPTED);
        });
        let more: Vec<Value> =
            (20..25).map(|number| artifact(&subject, SIGNATURE, &number.to_string())).collect();
        tokio::join!(
            join_all(deletes),
            join_all(more.iter().map(|document| push(rig, OCI_MANIFEST, document)))
        );
        assert_eq!(referrers(rig, &subject, "").await.len(), 15);
    }
}

#[tokio::test]
async fn a_list_that_cannot_be_had_is_not_an_empty_one() {
    let rig = rig().await;
    let subject = Digest::sha256(b"absent");
    push(&rig, OCI_MANIFEST, &artifact(&subject, SIGNATURE, "x")).await;
    let path = format!("/v2/a/referrers/{subject}");
    rig.driver.fail("read", Fault::Unavailable);
    rig.get(&path).await.expect_error(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE");
    rig.driver.heal();
    let tagged = rig.get(&format!("/v2/a/manifests/{}", fallback_tag(&subject))).await.expect(StatusCode::OK);
    let list = Digest::parse(tagged.header("docker-content-digest")).unwrap();
    let data = RegistryPath::Blob(list).to_driver_path();
    rig.driver.delete(&Context::default(), &data).await.unwrap();
    rig.get(&path).await.expect_error(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE");
}

#[tokio::test]
async fn a_list_that_was_replaced_is_let_go() {
    let rig = rig().await;
    let subject = Digest::sha256(b"absent");
    for number in 0..10 {
        push(&rig, OCI_MANIFEST, &artifact(&subject, SIGNATURE, &number.to_string())).await;
    }
    let name = RepositoryName::parse("a").unwrap();
    let history = Tag::parse(&fallback_tag(&subject)).unwrap();
    for (folder, expected) in [
        (RegistryPath::RevisionsByAlgorithm(name.clone(), Algorithm::Sha256), 10 + 1),
        (RegistryPath::TagIndexByAlgorithm(name, history, Algorithm::Sha256), 1),
    ] {
        let children = rig.driver.list(&Context::default(), &folder.to_driver_path()).await.unwrap();
        assert_eq!(children.len(), expected, "{folder}");
    }
}

#[tokio::test]
async fn a_subject_has_no_more_referrers_than_a_list_can_hold() {
    let rig = rig().await;
    let subject = Digest::sha256(b"absent");
    let large = artifact(&subject, SIGNATURE, &"x".repeat(3 << 20));
    push(&rig, OCI_MANIFEST, &large).await;
    let larger = artifact(&subject, SIGNATURE, &"y".repeat(3 << 20));
    let path = format!("/v2/a/manifests/{}", digest_of(&larger));
    let reply = rig.put_manifest(&path, OCI_MANIFEST, &larger).await;
    reply.expect_error(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID");
    rig.get(&path).await.expect(StatusCode::NOT_FOUND);
    assert_eq!(referrers(&rig, &subject, "").await.len(), 1);
}

#[tokio::test]
async fn annotations_that_no_client_could_read_are_refused() {
    let rig = rig().await;
    let mut document = artifact(&Digest::sha256(b"absent"), SIGNATURE, "x");
    document["annotations"] = json!({"note": 1});
    let reply = rig.put_manifest("/v2/a/manifests/x", OCI_MANIFEST, &document).await;
    reply.expect_error(StatusCode::BAD_REQUEST, "MANIFEST_INVALID");
}

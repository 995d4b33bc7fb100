//! Data sets: how they are pushed, listed and deleted; and the manifests that must not be taken.

use std::collections::BTreeSet;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use shoal_core::{Algorithm, Digest};

use super::client::{Answer, MANIFEST, Registry, Way};
use super::data::{DataSet, Manifest};
use super::report::{Checked, Report, ensure, same};

/// Every blob, by each way in turn; every manifest by its digest, then by its tags.
pub(super) async fn push(registry: &Registry, set: &DataSet, report: &mut Report) {
    let (name, repository) = (set.name, set.repository());
    for (at, ((digest, content), way)) in set.blobs.iter().zip(Way::ALL.iter().cycle()).enumerate() {
        let pushed = registry.upload(&repository, digest, content, *way);
        report.check(format!("{name}/push/blob {at} by {}", way.name()), pushed).await;
    }
    for (at, manifest) in set.manifests.iter().enumerate() {
        let name = format!("{name}/push/manifest {at}");
        let tags: Vec<_> = set.parameters.iter().map(|tag| format!("tag={tag}")).collect();
        let query = if tags.is_empty() { String::new() } else { format!("?{}", tags.join("&")) };
        let place = format!("/v2/{repository}/manifests/{}{query}", manifest.digest);
        let pushed = report.check(format!("{name} by digest"), put(registry, &place, manifest)).await;
        answered(registry, &name, manifest, pushed.as_ref(), report).await;
        if let (Some(answer), false) = (&pushed, tags.is_empty()) {
            let said: BTreeSet<_> =
                answer.headers.get_all("oci-tag").iter().filter_map(|tag| tag.to_str().ok()).collect();
            let expected = set.parameters.iter().map(String::as_str).collect();
            report.note(format!("{name} by digest/OCI-Tag"), same("the tags", said, expected));
        }
    }
    // A manifest by its tag has the canonical digest.
    for (tag, digest) in set.tags.iter().filter(|(_, digest)| digest.algorithm() == Algorithm::Sha256) {
        let Some(manifest) = set.manifests.iter().find(|manifest| manifest.digest == *digest) else {
            continue;
        };
        let name = format!("{name}/push/tag {tag}");
        let place = format!("/v2/{repository}/manifests/{tag}");
        let pushed = put(registry, &place, manifest);
        let pushed = report.check(name.clone(), pushed).await;
        answered(registry, &name, manifest, pushed.as_ref(), report).await;
    }
}

async fn put(registry: &Registry, place: &str, manifest: &Manifest) -> Checked<Answer> {
    let headers = [(CONTENT_TYPE.as_str(), manifest.media_type)];
    let answer = registry.send(Method::PUT, place, &headers, manifest.content.clone()).await?;
    answer.expect(StatusCode::CREATED)
}

/// What the answer to a push says.
async fn answered(
    registry: &Registry,
    name: &str,
    manifest: &Manifest,
    answer: Option<&Answer>,
    report: &mut Report,
) {
    let Some(answer) = answer else { return };
    let at = async {
        let got = registry.get(&answer.location()?).await?.expect(StatusCode::OK)?;
        same("the content", &got.body, &manifest.content)
    };
    report.check(format!("{name}/location"), at).await;
    let digest = answer.header("docker-content-digest");
    let digest = digest.and_then(|said| same("the digest", said, &manifest.digest.to_string()));
    report.note(format!("{name}/digest header"), digest);
    if let Some(subject) = &manifest.subject {
        let said = answer.header("oci-subject");
        let said = said.and_then(|said| same("the subject", said, &subject.to_string()));
        report.note(format!("{name}/OCI-Subject"), said);
    }
}

/// All tags, in order, and page by page.
pub(super) async fn tag_list(registry: &Registry, set: &DataSet, report: &mut Report) {
    let (name, place) = (format!("{}/tag-list", set.name), format!("/v2/{}/tags/list", set.repository()));
    let lists = set.lists();
    let mut expected: Vec<&str> = set.tags.keys().chain(&lists).map(String::as_str).collect();
    expected.sort_unstable();
    let all = async {
        same(
            "the tags",
            tags(&registry.get(&place).await?)?,
            expected.iter().map(|tag| (*tag).to_owned()).collect(),
        )
    };
    report.check(format!("{name}/all"), all).await;
    let none = async { same("the tags", tags(&registry.get(&format!("{place}?n=0")).await?)?, vec![]) };
    report.check(format!("{name}/none"), none).await;
    let pages = async {
        let (mut found, mut next) = (vec![], format!("{place}?n=1"));
        for _ in 0..=expected.len() {
            let answer = registry.get(&next).await?;
            let page = tags(&answer)?;
            ensure(page.len() <= 1, || format!("a page of one has {page:?}"))?;
            found.extend(page);
            let Ok(link) = answer.header("link") else { break };
            next = link.split(['<', '>']).nth(1).ok_or("a link without an address")?.to_owned();
        }
        same("the tags", found, expected.iter().map(|tag| (*tag).to_owned()).collect())
    };
    report.check(format!("{name}/by pages"), pages).await;
    if let [first, rest @ ..] = expected.as_slice() {
        let after = async {
            let found = tags(&registry.get(&format!("{place}?last={first}")).await?)?;
            same("the tags", found, rest.iter().map(|tag| (*tag).to_owned()).collect())
        };
        report.check(format!("{name}/last"), after).await;
    }
}

fn tags(answer: &Answer) -> Checked<Vec<String>> {
    same("the status", answer.status, StatusCode::OK)?;
    let body = answer.json()?;
    let tags = body["tags"].as_array().ok_or("the tags are no list")?;
    Ok(tags.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

/// Tags, manifests, blobs: each is gone at once, and nothing else.
pub(super) async fn delete(registry: &Registry, set: &DataSet, report: &mut Report) {
    let repository = set.repository();
    for tag in set.tags.keys() {
        gone(
            registry,
            &format!("{}/delete/tag {tag}", set.name),
            &format!("/v2/{repository}/manifests/{tag}"),
            report,
        )
        .await;
    }
    let left = async {
        same("the tags", tags(&registry.get(&format!("/v2/{repository}/tags/list")).await?)?, set.lists())
    };
    report.check(format!("{}/delete/no tag is left", set.name), left).await;
    // Parents first: a registry may keep what is named.
    for (at, manifest) in set.manifests.iter().enumerate().rev() {
        let name = format!("{}/delete/manifest {at}", set.name);
        gone(registry, &name, &format!("/v2/{repository}/manifests/{}", manifest.digest), report).await;
    }
    for subject in set.referrers.keys() {
        let check = async {
            let answer = registry.get(&format!("/v2/{repository}/referrers/{subject}")).await?;
            same("the referrers", &answer.expect(StatusCode::OK)?.json()?["manifests"], &json!([]))
        };
        report.check(format!("{}/delete/referrers of {subject:.20}", set.name), check).await;
    }
    for (at, (digest, _)) in set.blobs.iter().enumerate() {
        let name = format!("{}/delete/blob {at}", set.name);
        gone(registry, &name, &format!("/v2/{repository}/blobs/{digest}"), report).await;
    }
}

async fn gone(registry: &Registry, name: &str, place: &str, report: &mut Report) {
    let deleted = async { registry.delete(place).await?.expect(StatusCode::ACCEPTED).map(drop) };
    report.check(name, deleted).await;
    let after = async { registry.get(place).await?.expect(StatusCode::NOT_FOUND).map(drop) };
    report.check(format!("{name}/is atomic"), after).await;
}

/// Manifests whose digest, names or contents are wrong.
pub(super) async fn refused(registry: &Registry, report: &mut Report) {
    let document = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": {"mediaType": "a/b", "digest": Digest::sha256(b"absent"), "size": 6}, "layers": []});
    let empty = r#"{"schemaVersion":2,"manifests":[]}"#;
    let other = |algorithm| format!("manifests/{}", Digest::of(algorithm, b"another content"));
    let index = super::client::INDEX;
    let cases = [
        ("bad-digest-image/sha256", other(Algorithm::Sha256), index, empty.to_owned(), 400, "DIGEST_INVALID"),
        ("bad-digest-image/sha512", other(Algorithm::Sha512), index, empty.to_owned(), 400, "DIGEST_INVALID"),
        (
            "invalid-digest-format/manifest-put",
            "manifests/sha256:baddigeststring".into(),
            index,
            empty.to_owned(),
            400,
            "DIGEST_INVALID",
        ),
        (
            "invalid-content/missing blob",
            "manifests/x".into(),
            MANIFEST,
            document.to_string(),
            400,
            "MANIFEST_BLOB_UNKNOWN",
        ),
        ("invalid-content/no JSON", "manifests/x".into(), MANIFEST, "{".into(), 400, "MANIFEST_INVALID"),
        (
            "invalid-content/another type",
            "manifests/x".into(),
            index,
            document.to_string(),
            400,
            "MANIFEST_INVALID",
        ),
        (
            "invalid-content/unknown type",
            "manifests/x".into(),
            "application/json",
            "{}".into(),
            415,
            "MANIFEST_INVALID",
        ),
        (
            "invalid-content/over 4 MiB",
            "manifests/x".into(),
            index,
            "x".repeat((4 << 20) + 1),
            413,
            "SIZE_INVALID",
        ),
    ];
    for (name, place, media_type, content, status, code) in cases {
        let check = async {
            let headers = [(CONTENT_TYPE.as_str(), media_type)];
            let place = format!("/v2/conformance/refused/{place}");
            let answer = registry.send(Method::PUT, &place, &headers, content).await?;
            answer.expect(StatusCode::from_u16(status).unwrap())?.is_error(code)?;
            registry
                .get(&place)
                .await?
                .expect_one_of(&[StatusCode::NOT_FOUND, StatusCode::BAD_REQUEST])
                .map(drop)
        };
        report.check(name, check).await;
    }
}

//! What a client that only reads sees: of nothing, and of the data sets.

use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use shoal_core::{Algorithm, Digest};

use super::client::{Answer, INDEX, Registry};
use super::data::{DataSet, Manifest};
use super::report::{Checked, Report, ensure, same};

/// A registry that has nothing yet.
pub(super) async fn before_anything(registry: &Registry, report: &mut Report) {
    let ping = async { registry.get("/v2/").await?.expect(StatusCode::OK).map(drop) };
    report.check("ping", ping).await;
    let tags = async {
        let answer = registry.get("/v2/conformance/unused/tags/list").await?;
        answer.expect(StatusCode::NOT_FOUND)?.is_error("NAME_UNKNOWN")
    };
    report.check("empty/tag list", tags).await;
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let subject = Digest::of(algorithm, b"nobody pushed this");
        let none = async {
            let answer = registry.get(&format!("/v2/conformance/unused/referrers/{subject}")).await?;
            let answer = answer.expect(StatusCode::OK)?;
            same("the type", answer.header(CONTENT_TYPE.as_str())?, INDEX)?;
            same("the referrers", &answer.json()?["manifests"], &json!([]))
        };
        report.check(format!("empty/referrers of a {algorithm} digest"), none).await;
        let name = format!("missing-manifest/by-{algorithm}-digest");
        missing(registry, name, &format!("manifests/{subject}"), StatusCode::NOT_FOUND, report).await;
    }
    missing(registry, "missing-manifest/by-tag".into(), "manifests/absent", StatusCode::NOT_FOUND, report)
        .await;
    let bad = "manifests/sha256:baddigeststring";
    missing(registry, "invalid-digest-format/manifest-get".into(), bad, StatusCode::BAD_REQUEST, report)
        .await;
}

async fn missing(registry: &Registry, name: String, place: &str, status: StatusCode, report: &mut Report) {
    let place = format!("/v2/conformance/unused/{place}");
    let code = if status == StatusCode::NOT_FOUND { "MANIFEST_UNKNOWN" } else { "DIGEST_INVALID" };
    let got = async { registry.get(&place).await?.expect(status)?.is_error(code) };
    report.check(format!("{name}/get"), got).await;
    let head = async { registry.head(&place).await?.expect(status).map(drop) };
    report.check(format!("{name}/head"), head).await;
}

/// The names under which a manifest is pulled.
fn references<'a>(set: &'a DataSet, manifest: &'a Manifest) -> impl Iterator<Item = String> + 'a {
    let tags = set.tags.iter().filter(|(_, digest)| **digest == manifest.digest).map(|(tag, _)| tag.clone());
    tags.chain([manifest.digest.to_string()])
}

/// HEAD of everything. `by` goes before the names of checks.
pub(super) async fn head(registry: &Registry, set: &DataSet, by: &str, report: &mut Report) {
    let repository = set.repository();
    for (at, manifest) in set.manifests.iter().enumerate() {
        for reference in references(set, manifest) {
            let place = format!("/v2/{repository}/manifests/{reference}");
            let check = async { described(&registry.head(&place).await?, manifest) };
            report.check(format!("{by}{}/head/manifest {at} by {reference:.20}", set.name), check).await;
        }
    }
    for (at, (digest, content)) in set.blobs.iter().enumerate() {
        let check = async {
            let answer =
                registry.head(&format!("/v2/{repository}/blobs/{digest}")).await?.expect(StatusCode::OK)?;
            same("the digest", answer.header("docker-content-digest")?, &digest.to_string())?;
            same("the length", answer.header(CONTENT_LENGTH.as_str())?, &content.len().to_string())
        };
        report.check(format!("{by}{}/head/blob {at}", set.name), check).await;
    }
}

fn described(answer: &Answer, manifest: &Manifest) -> Checked {
    same("the status", answer.status, StatusCode::OK)?;
    same("the digest", answer.header("docker-content-digest")?, &manifest.digest.to_string())?;
    same("the type", answer.header(CONTENT_TYPE.as_str())?, manifest.media_type)?;
    same("the length", answer.header(CONTENT_LENGTH.as_str())?, &manifest.content.len().to_string())
}

/// GET of everything: the very bytes.
pub(super) async fn pull(registry: &Registry, set: &DataSet, by: &str, report: &mut Report) {
    let repository = set.repository();
    for (at, manifest) in set.manifests.iter().enumerate() {
        for reference in references(set, manifest) {
            let place = format!("/v2/{repository}/manifests/{reference}");
            let check = async {
                let answer = registry.get(&place).await?;
                described(&answer, manifest)?;
                same("the content", &answer.body, &manifest.content)
            };
            report.check(format!("{by}{}/pull/manifest {at} by {reference:.20}", set.name), check).await;
        }
    }
    for (at, (digest, content)) in set.blobs.iter().enumerate() {
        let check = async {
            let answer =
                registry.get(&format!("/v2/{repository}/blobs/{digest}")).await?.expect(StatusCode::OK)?;
            same("the content", &answer.body, content)
        };
        report.check(format!("{by}{}/pull/blob {at}", set.name), check).await;
    }
}

/// What refers to each subject, all and by type.
pub(super) async fn referrers(registry: &Registry, set: &DataSet, by: &str, report: &mut Report) {
    for (subject, expected) in &set.referrers {
        let name = format!("{by}{}/referrers", set.name);
        let place = format!("/v2/{}/referrers/{subject}", set.repository());
        let list = async {
            let answer = registry.get(&place).await?.expect(StatusCode::OK)?;
            same("the type", answer.header(CONTENT_TYPE.as_str())?, INDEX)?;
            listed(&answer)
        };
        let listed_all = report.check(format!("{name}/list"), list).await.unwrap_or_default();
        report.note(format!("{name}/count"), same("the count", listed_all.len(), expected.len()));
        for (at, descriptor) in expected.iter().enumerate() {
            let found =
                ensure(listed_all.contains(descriptor), || format!("{descriptor} is not in {listed_all:?}"));
            report.note(format!("{name}/descriptor {at}"), found);
        }
        let mut types: Vec<&str> = expected.iter().filter_map(|one| one["artifactType"].as_str()).collect();
        types.sort_unstable();
        types.dedup();
        for artifact_type in types.into_iter().chain(["application/vnd.example.other"]) {
            let check = async {
                let query = artifact_type.replace('+', "%2B");
                let answer =
                    registry.get(&format!("{place}?artifactType={query}")).await?.expect(StatusCode::OK)?;
                same("the filter", answer.header("oci-filters-applied")?, "artifactType")?;
                let wanted: Vec<_> =
                    expected.iter().filter(|one| one["artifactType"] == artifact_type).cloned().collect();
                let found = listed(&answer)?;
                ensure(found.len() == wanted.len() && wanted.iter().all(|one| found.contains(one)), || {
                    format!("{found:?} instead of {wanted:?}")
                })
            };
            report.check(format!("{name}/of type {artifact_type}"), check).await;
        }
    }
}

fn listed(answer: &Answer) -> Checked<Vec<Value>> {
    let body = answer.json()?;
    Ok(body["manifests"].as_array().ok_or("the manifests are no list")?.clone())
}

/// A registry that only reads, as an agent is: it has it all.
pub(super) async fn read_only(registry: &Registry, set: &DataSet, report: &mut Report) {
    head(registry, set, READ_ONLY, report).await;
    pull(registry, set, READ_ONLY, report).await;
    referrers(registry, set, READ_ONLY, report).await;
}

const READ_ONLY: &str = "read-only/";

/// And it takes nothing.
pub(super) async fn refuses_writes(registry: &Registry, report: &mut Report) {
    let digest = Digest::sha256(b"");
    let writes = [
        (Method::POST, "blobs/uploads/".to_owned()),
        (Method::POST, format!("blobs/uploads/?digest={digest}")),
        (Method::PUT, "manifests/x".to_owned()),
        (Method::PUT, format!("manifests/{digest}")),
        (Method::DELETE, "manifests/image".to_owned()),
        (Method::DELETE, format!("manifests/{digest}")),
        (Method::DELETE, format!("blobs/{digest}")),
        (Method::PATCH, "blobs/uploads/0190a6f2-0000-4000-8000-000000000001".to_owned()),
        (Method::PUT, format!("blobs/uploads/0190a6f2-0000-4000-8000-000000000001?digest={digest}")),
        (Method::DELETE, "blobs/uploads/0190a6f2-0000-4000-8000-000000000001".to_owned()),
    ];
    for (method, place) in writes {
        let name = format!("{READ_ONLY}refuses {method} {place:.24}");
        let check = async {
            let answer = registry.send(method, &format!("/v2/conformance/image/{place}"), &[], "").await?;
            answer.expect(StatusCode::METHOD_NOT_ALLOWED)?.is_error("UNSUPPORTED")
        };
        report.check(name, check).await;
    }
}

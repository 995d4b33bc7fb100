//! The suite of version 1.1.1, in its order: pull, push, discovery, management.

use bytes::Bytes;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use shoal_core::{Algorithm, Digest};

use super::client::{Answer, INDEX, MANIFEST, Registry, Way};
use super::report::{Checked, Report, ensure, same};

const REPOSITORY: &str = "conformance/version-one";
const OTHER: &str = "conformance/version-one-other";

pub(super) async fn check(registry: &Registry, report: &mut Report) {
    let mut suite = Suite { registry, report };
    suite.pull().await;
    suite.push().await;
    suite.discovery().await;
    suite.management().await;
}

struct Suite<'a> {
    registry: &'a Registry,
    report: &'a mut Report,
}

impl Suite<'_> {
    /// One request, and the status of its answer.
    async fn status(&mut self, name: &str, method: Method, place: &str, status: u16) -> Option<Answer> {
        let place =
            if place.contains("://") || place.starts_with("/v2/") { place.to_owned() } else { at(place) };
        let expected = StatusCode::from_u16(status).unwrap();
        let check = async { self.registry.send(method, &place, &[], "").await?.expect(expected) };
        self.report.check(format!("v1.1.1/{name}"), check).await
    }

    /// An image of a config and layers; gives its digest and bytes.
    async fn image(&mut self, name: &str, layers: &[&[u8]], tags: &[&str]) -> Digest {
        let config = format!("{{\"author\":\"{name}\"}}");
        let mut descriptors = vec![];
        for content in [config.as_bytes()].iter().chain(layers) {
            let digest = Digest::sha256(content);
            let pushed = self.registry.upload(REPOSITORY, &digest, content, Way::PostPut).await.map(drop);
            self.report.note(format!("v1.1.1/{name}/setup: blob {}", descriptors.len()), pushed);
            descriptors.push(json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": content.len()}));
        }
        let document = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptors[0], "layers": &descriptors[1..]});
        let content = Bytes::from(document.to_string());
        let digest = Digest::sha256(&content);
        for reference in tags.iter().map(|tag| (*tag).to_owned()).chain([digest.to_string()]) {
            let put = self.put_manifest(&reference, content.clone()).await;
            let put = put.and_then(|answer| answer.location().map(drop));
            self.report.note(
                format!("v1.1.1/{name}/PUT manifest by {reference:.20} yields 201 and a location"),
                put,
            );
        }
        digest
    }

    async fn put_manifest(&self, reference: &str, content: Bytes) -> Checked<Answer> {
        let place = at(&format!("manifests/{reference}"));
        let answer = self.registry.send(Method::PUT, &place, &[("content-type", MANIFEST)], content).await?;
        answer.expect(StatusCode::CREATED)
    }

    async fn pull(&mut self) {
        let [first, second] = [("01 pull, image 0", &b"layer"[..]), ("01 pull, image 1", b"other layer")];
        let manifests = [
            self.image(first.0, &[first.1], &["tagtest0"]).await,
            self.image(second.0, &[second.1], &[]).await,
        ];
        let (there, absent) = (Digest::sha256(b"layer"), Digest::sha256(b"absent"));
        let name = |what: &str| format!("01 pull/{what}");
        self.status(&name("HEAD nonexistent blob"), Method::HEAD, &format!("blobs/{absent}"), 404).await;
        let head = self.status(&name("HEAD blob"), Method::HEAD, &format!("blobs/{there}"), 200).await;
        self.digest_is(&name("HEAD blob/digest"), head, &there);
        self.status(&name("GET nonexistent blob"), Method::GET, &format!("blobs/{absent}"), 404).await;
        self.status(&name("GET blob"), Method::GET, &format!("blobs/{there}"), 200).await;
        self.status(
            &name("HEAD nonexistent manifest"),
            Method::HEAD,
            "manifests/.INVALID_MANIFEST_NAME",
            404,
        )
        .await;
        self.status(&name("GET nonexistent manifest"), Method::GET, "manifests/.INVALID_MANIFEST_NAME", 404)
            .await;
        for (at, digest) in manifests.iter().enumerate() {
            for method in [Method::HEAD, Method::GET] {
                let what = name(&format!("{method} manifest {at}"));
                let answer = self.status(&what, method, &format!("manifests/{digest}"), 200).await;
                self.digest_is(&format!("{what}/digest"), answer, digest);
            }
        }
        for method in [Method::HEAD, Method::GET] {
            self.status(&name(&format!("{method} manifest by tag")), method, "manifests/tagtest0", 200).await;
        }
        let bad =
            self.status(&name("400 response body"), Method::GET, "manifests/sha256:totallywrong", 400).await;
        let body = bad.ok_or("no answer".to_owned()).and_then(|answer| answer.is_error("DIGEST_INVALID"));
        self.report.note("v1.1.1/01 pull/400 response body/errors", body);
    }

    fn digest_is(&mut self, name: &str, answer: Option<Answer>, digest: &Digest) {
        let said = answer.ok_or("no answer".to_owned());
        let said = said.and_then(|answer| {
            same("the digest", answer.header("docker-content-digest")?, &digest.to_string())
        });
        self.report.note(format!("v1.1.1/{name}"), said);
    }

    async fn push(&mut self) {
        let registry = self.registry;
        let name = |what: &str| format!("v1.1.1/02 push/{what}");
        for way in [Way::Stream, Way::PostOnly, Way::PostPut] {
            let content = format!("blob by {}", way.name());
            let digest = Digest::sha256(content.as_bytes());
            self.status(
                &format!("02 push/GET before {}", way.name()),
                Method::GET,
                &format!("blobs/{digest}"),
                404,
            )
            .await;
            let pushed = async {
                let answer = registry.upload(REPOSITORY, &digest, content.as_bytes(), way).await?;
                let got = registry.get(&answer.location()?).await?.expect(StatusCode::OK)?;
                same("the content", got.body, Bytes::from(content.clone()))
            };
            self.report
                .check(name(&format!("{} yields 201, and the location its content", way.name())), pushed)
                .await;
        }
        let content = b"first chunk, then the second";
        let digest = Digest::sha256(content);
        let start =
            self.report.check(name("POST for chunks"), registry.start(REPOSITORY, Algorithm::Sha256)).await;
        let place = start.unwrap_or_default();
        let out = async {
            registry
                .patch(&place, Some(12), &content[12..])
                .await?
                .expect(StatusCode::RANGE_NOT_SATISFIABLE)
                .map(drop)
        };
        self.report.check(name("out-of-order chunk is 416"), out).await;
        let first = async {
            let answer =
                registry.patch(&place, Some(0), &content[..12]).await?.expect(StatusCode::ACCEPTED)?;
            same("the range", answer.header("range")?, "0-11")
        };
        self.report.check(name("first chunk is 202 with its range"), first).await;
        let again = async {
            registry
                .patch(&place, Some(0), &content[..12])
                .await?
                .expect(StatusCode::RANGE_NOT_SATISFIABLE)
                .map(drop)
        };
        self.report.check(name("first chunk again is 416"), again).await;
        let stale = async {
            let answer = registry.get(&place).await?.expect(StatusCode::NO_CONTENT)?;
            same("the range", answer.header("range")?, "0-11")?;
            answer.location()
        };
        let place = self.report.check(name("GET of a stale location is 204"), stale).await.unwrap_or(place);
        let second = async {
            registry.patch(&place, Some(12), &content[12..]).await?.expect(StatusCode::ACCEPTED)?.location()
        };
        let place = self.report.check(name("second chunk is 202"), second).await.unwrap_or(place);
        let end = async {
            registry.put(&place, &digest.to_string(), None, b"").await?.expect(StatusCode::CREATED).map(drop)
        };
        self.report.check(name("PUT is 201"), end).await;
        self.mounts(&digest).await;
        self.status("02 push/GET nonexistent manifest", Method::GET, "manifests/never-pushed", 404).await;
        let tags = ["test0", "test1", "test2", "test3"];
        let digest = self.image("02 push, image", &[b"pushed layer"], &tags).await;
        self.status("02 push/GET manifest", Method::GET, &format!("manifests/{digest}"), 200).await;
        self.image("02 push, image without layers", &[], &["emptylayer"]).await;
    }

    async fn mounts(&mut self, digest: &Digest) {
        let place = |query: String| format!("/v2/{OTHER}/blobs/uploads/?{query}");
        self.status(
            "02 push/mount without from is 202",
            Method::POST,
            &place(format!("mount={digest}")),
            202,
        )
        .await;
        let query = format!("mount={digest}&from={REPOSITORY}");
        let mounted = self.status("02 push/mount is 201", Method::POST, &place(query), 201).await;
        let expected = format!("/v2/{OTHER}/blobs/{digest}");
        let said = mounted
            .ok_or("no answer".to_owned())
            .and_then(|answer| same("the location", answer.location()?, expected.clone()));
        self.report.note("v1.1.1/02 push/mount/location", said);
        self.status("02 push/mounted blob is there", Method::GET, &expected, 200).await;
        let query = format!("mount={}&from={REPOSITORY}", Digest::sha256(b"made up"));
        self.status("02 push/mount of what is not there is 202", Method::POST, &place(query), 202).await;
    }

    async fn discovery(&mut self) {
        let tags = ["disc0", "disc1", "disc2", "disc3"];
        let subject = self.image("03 discovery, image", &[b"found layer"], &tags).await;
        self.status("03 discovery/tags", Method::GET, "tags/list", 200).await;
        let some = async {
            let body = self.registry.get(&at("tags/list?n=4")).await?.expect(StatusCode::OK)?.json()?;
            let page: Vec<_> = body["tags"].as_array().ok_or("no tags")?.clone();
            same("the number of tags", page.len(), 4)?;
            let body = self
                .registry
                .get(&at(&format!("tags/list?n=4&last={}", page[0].as_str().unwrap_or_default())))
                .await?;
            let next: Vec<Value> = body.json()?["tags"].as_array().ok_or("no tags")?.clone();
            ensure(next.len() == 4 && next[..3] == page[1..], || format!("{next:?} follows {page:?}"))
        };
        self.report.check("v1.1.1/03 discovery/n and last are exact", some).await;
        let absent = Digest::sha256(b"no such subject");
        let none = self.referrers(&absent, "").await;
        self.report.note(
            "v1.1.1/03 discovery/referrers of nothing",
            none.and_then(|found| same("the number", found.len(), 0)),
        );
        let missing = Digest::sha256(b"a subject that is missing");
        for (number, (subject, artifact_type)) in [
            (&subject, "a/one"),
            (&subject, "a/two"),
            (&subject, "a/two"),
            (&subject, ""),
            (&subject, "a/four"),
            (&missing, "a/one"),
        ]
        .into_iter()
        .enumerate()
        {
            let refers = self.refer(subject, artifact_type, number).await;
            self.report.note(
                format!("v1.1.1/03 discovery/referrer {number} is 201 and has its OCI-Subject"),
                refers,
            );
        }
        for (subject, query, count) in [
            (&subject, "", 5),
            (&subject, "?artifactType=a/two", 2),
            (&subject, "?artifactType=a/none", 0),
            (&missing, "", 1),
        ] {
            let found = self.referrers(subject, query).await;
            let found = found.and_then(|found| {
                same("the number", found.len(), count)?;
                ensure(found.iter().all(|one| one["annotations"]["test"].is_string()), || {
                    "annotations are missing".into()
                })
            });
            self.report.note(format!("v1.1.1/03 discovery/{count} referrers of {subject:.20}{query}"), found);
        }
    }

    async fn refer(&self, subject: &Digest, artifact_type: &str, number: usize) -> Checked {
        let mut document = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [], "annotations": {"test": number.to_string()}});
        document["subject"] = json!({"mediaType": MANIFEST, "digest": subject, "size": 7});
        if !artifact_type.is_empty() {
            document["artifactType"] = json!(artifact_type);
        }
        let content = document.to_string();
        let place = at(&format!("manifests/{}", Digest::sha256(content.as_bytes())));
        let answer = self.registry.send(Method::PUT, &place, &[("content-type", INDEX)], content).await?;
        same("the subject", answer.expect(StatusCode::CREATED)?.header("oci-subject")?, &subject.to_string())
    }

    async fn referrers(&self, subject: &Digest, query: &str) -> Checked<Vec<Value>> {
        let answer =
            self.registry.get(&at(&format!("referrers/{subject}{query}"))).await?.expect(StatusCode::OK)?;
        if !query.is_empty() {
            same("the filter", answer.header("oci-filters-applied")?, "artifactType")?;
        }
        Ok(answer.json()?["manifests"].as_array().ok_or("no manifests")?.clone())
    }

    async fn management(&mut self) {
        let digest = self.image("04 management, image", &[b"deleted layer"], &["tagtodelete", "other"]).await;
        let layer = format!("blobs/{}", Digest::sha256(b"deleted layer"));
        let manifest = format!("manifests/{digest}");
        self.status("04 management/DELETE by tag", Method::DELETE, "manifests/tagtodelete", 202).await;
        self.status("04 management/GET by the deleted tag", Method::GET, "manifests/tagtodelete", 404).await;
        self.status("04 management/GET by digest still", Method::GET, &manifest, 200).await;
        self.status("04 management/DELETE by digest", Method::DELETE, &manifest, 202).await;
        self.status("04 management/GET of the deleted manifest", Method::GET, &manifest, 404).await;
        self.status("04 management/GET by its other tag", Method::GET, "manifests/other", 404).await;
        let list = async {
            let body = self.registry.get(&at("tags/list")).await?.expect(StatusCode::OK)?.json()?;
            let gone = ["tagtodelete", "other"];
            let tags = body["tags"].as_array().ok_or("no tags")?.clone();
            ensure(!tags.iter().any(|tag| gone.iter().any(|gone| tag == gone)), || format!("{tags:?}"))
        };
        self.report.check("v1.1.1/04 management/tags list reflects it", list).await;
        self.status("04 management/DELETE blob", Method::DELETE, &layer, 202).await;
        self.status("04 management/GET of the deleted blob", Method::GET, &layer, 404).await;
    }
}

fn at(place: &str) -> String {
    format!("/v2/{REPOSITORY}/{place}")
}

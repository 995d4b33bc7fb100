//! Blobs under each digest algorithm, by every way to push them; what is wrong about a push; ranges and mounts.

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use reqwest::{Method, StatusCode};
use shoal_core::{Algorithm, Digest};

use super::client::{Registry, Way};
use super::report::{Checked, Report, ensure, same};

const REPOSITORY: &str = "conformance/blobs";
const OTHER: &str = "conformance/others";

pub(super) async fn check(registry: &Registry, algorithm: Algorithm, report: &mut Report) {
    let mut blobs = Blobs { registry, report, algorithm, random: SmallRng::seed_from_u64(1) };
    blobs.missing().await;
    blobs.pushed().await;
    blobs.out_of_order().await;
    blobs.mounted().await;
    blobs.cancelled().await;
    blobs.ranges().await;
    blobs.wrong_digest().await;
}

struct Blobs<'a> {
    registry: &'a Registry,
    report: &'a mut Report,
    algorithm: Algorithm,
    random: SmallRng,
}

impl Blobs<'_> {
    fn name(&self, check: &str) -> String {
        format!("{} blobs/{check}", self.algorithm)
    }

    fn random(&mut self, length: usize) -> (Digest, Bytes) {
        let mut content = vec![0; length];
        self.random.fill_bytes(&mut content);
        (Digest::of(self.algorithm, &content), content.into())
    }

    async fn missing(&mut self) {
        let (digest, _) = self.random(512);
        for method in [Method::GET, Method::HEAD, Method::DELETE] {
            let name = self.name(&format!("{}-missing", method.as_str().to_lowercase()));
            let place = format!("/v2/{REPOSITORY}/blobs/{digest}");
            let check = async {
                let answer = self.registry.send(method.clone(), &place, &[], "").await?;
                let answer = answer.expect(StatusCode::NOT_FOUND)?;
                if method == Method::HEAD { Ok(()) } else { answer.is_error("BLOB_UNKNOWN") }
            };
            self.report.check(name, check).await;
        }
    }

    /// Every way, for a blob of some bytes, one without any, and the empty JSON.
    async fn pushed(&mut self) {
        for way in Way::ALL {
            let random = self.random(512);
            let kinds = [
                (way.name().to_owned(), random.1),
                (format!("empty, {}", way.name()), Bytes::new()),
                (format!("emptyJSON, {}", way.name()), Bytes::from_static(b"{}")),
            ];
            for (kind, content) in kinds {
                let digest = Digest::of(self.algorithm, &content);
                let name = self.name(&kind);
                let pushed = self.registry.upload(REPOSITORY, &digest, &content, way);
                let pushed = self.report.check(format!("{name}/push"), pushed).await;
                if let Some(answer) = pushed {
                    let said = answer.header("docker-content-digest").map(str::to_owned);
                    let said = said.and_then(|said| same("the digest", said, digest.to_string()));
                    self.report.note(format!("{name}/digest header"), said);
                    let at = answer.location();
                    let check = async {
                        let got = self.registry.get(&at?).await?.expect(StatusCode::OK)?;
                        same("the content", got.body, content.clone())
                    };
                    self.report.check(format!("{name}/location"), check).await;
                }
                self.lives_and_dies(&name, REPOSITORY, &digest, &content).await;
            }
        }
    }

    /// HEAD, GET, DELETE, and that it is gone then.
    async fn lives_and_dies(&mut self, name: &str, repository: &str, digest: &Digest, content: &Bytes) {
        let (registry, place) = (self.registry, format!("/v2/{repository}/blobs/{digest}"));
        let head = async {
            let head = registry.head(&place).await?.expect(StatusCode::OK)?;
            same("the digest", head.header("docker-content-digest")?, &digest.to_string())?;
            same("the length", head.header("content-length")?, &content.len().to_string())
        };
        self.report.check(format!("{name}/blob-head"), head).await;
        let get = async {
            let got = registry.get(&place).await?.expect(StatusCode::OK)?;
            same("the digest", got.header("docker-content-digest")?, &digest.to_string())?;
            same("the content", &got.body, content)
        };
        self.report.check(format!("{name}/blob-get"), get).await;
        let delete = async { registry.delete(&place).await?.expect(StatusCode::ACCEPTED).map(drop) };
        self.report.check(format!("{name}/blob-delete"), delete).await;
        let gone = async { registry.get(&place).await?.expect(StatusCode::NOT_FOUND).map(drop) };
        self.report.check(format!("{name}/blob-delete is atomic"), gone).await;
    }

    async fn out_of_order(&mut self) {
        for (kind, last_by_put) in
            [("chunked out-of-order", false), ("chunked out-of-order and put chunk", true)]
        {
            let name = self.name(kind);
            let (digest, content) = self.random(512);
            let registry = self.registry;
            let Some(place) =
                self.report.check(format!("{name}/post"), registry.start(REPOSITORY, self.algorithm)).await
            else {
                continue;
            };
            let first = async {
                let answer =
                    registry.patch(&place, Some(0), &content[..200]).await?.expect(StatusCode::ACCEPTED)?;
                same("the range", answer.header("range")?, "0-199")?;
                answer.location()
            };
            let next = self.report.check(format!("{name}/first chunk"), first).await.unwrap_or(place.clone());
            let wrong = async {
                let answer = match last_by_put {
                    true => registry.put(&next, &digest.to_string(), Some(300), &content[300..]).await?,
                    false => registry.patch(&next, Some(300), &content[300..]).await?,
                };
                answer.expect(StatusCode::RANGE_NOT_SATISFIABLE).map(drop)
            };
            self.report.check(format!("{name}/wrong offset is 416"), wrong).await;
            let status = async {
                // By the location of before: a client may have no other.
                let answer = registry.get(&place).await?.expect(StatusCode::NO_CONTENT)?;
                same("the range", answer.header("range")?, "0-199")?;
                answer.location()
            };
            let next = self.report.check(format!("{name}/session survives"), status).await.unwrap_or(next);
            let rest = async {
                if last_by_put {
                    let put = registry.put(&next, &digest.to_string(), Some(200), &content[200..]).await?;
                    return put.expect(StatusCode::CREATED);
                }
                let patched = registry.patch(&next, Some(200), &content[200..]).await?;
                let next = patched.expect(StatusCode::ACCEPTED)?.location()?;
                registry.put(&next, &digest.to_string(), None, b"").await?.expect(StatusCode::CREATED)
            };
            self.report.check(format!("{name}/recovers"), rest).await;
            self.lives_and_dies(&name, REPOSITORY, &digest, &content).await;
        }
    }

    async fn mounted(&mut self) {
        let (digest, content) = self.random(512);
        let name = self.name("mount");
        let registry = self.registry;
        let source = registry.upload(OTHER, &digest, &content, Way::PostPut);
        self.report.check(format!("{name}/source"), source).await;
        let mount = async {
            let answer = registry
                .post(&format!("/v2/{REPOSITORY}/blobs/uploads/?mount={digest}&from={OTHER}"))
                .await?;
            let answer = answer.expect(StatusCode::CREATED)?;
            same("the location", answer.location()?, format!("/v2/{REPOSITORY}/blobs/{digest}"))
        };
        self.report.check(format!("{name}/post"), mount).await;
        self.lives_and_dies(&name, REPOSITORY, &digest, &content).await;
        let still = async {
            registry.get(&format!("/v2/{OTHER}/blobs/{digest}")).await?.expect(StatusCode::OK).map(drop)
        };
        self.report.check(format!("{name}/source keeps it"), still).await;
        let absent = self.random(512).0;
        let queries = [
            ("mount anonymous", format!("?mount={digest}")),
            ("mount missing", format!("?mount={absent}&from={OTHER}")),
            ("mount from nowhere", format!("?mount={absent}&from=conformance/nowhere")),
        ];
        for (kind, query) in queries {
            let name = self.name(kind);
            let (digest, content) = self.random(512);
            let session = async {
                let answer = registry.post(&format!("/v2/{REPOSITORY}/blobs/uploads/{query}")).await?;
                let place = answer.expect(StatusCode::ACCEPTED)?.location()?;
                registry.put(&place, &digest.to_string(), None, &content).await?.expect(StatusCode::CREATED)
            };
            self.report.check(format!("{name}/is a session"), session).await;
            self.lives_and_dies(&name, REPOSITORY, &digest, &content).await;
        }
    }

    async fn cancelled(&mut self) {
        let (name, registry) = (self.name("post cancel"), self.registry);
        let place =
            self.report.check(format!("{name}/post"), registry.start(REPOSITORY, self.algorithm)).await;
        let Some(place) = place else { return };
        let cancel = async { registry.delete(&place).await?.expect(StatusCode::NO_CONTENT).map(drop) };
        self.report.check(format!("{name}/delete"), cancel).await;
        let gone = async {
            let answer = registry.get(&place).await?.expect(StatusCode::NOT_FOUND)?;
            answer.is_error("BLOB_UPLOAD_UNKNOWN")
        };
        self.report.check(format!("{name}/is gone"), gone).await;
    }

    async fn ranges(&mut self) {
        let (name, registry) = (self.name("range requests"), self.registry);
        let (digest, content) = self.random(2048);
        let pushed = registry.upload(REPOSITORY, &digest, &content, Way::PostPut);
        self.report.check(format!("{name}/push"), pushed).await;
        let place = format!("/v2/{REPOSITORY}/blobs/{digest}");
        let good = [
            ("500-1499", 500..1500),
            ("500-", 500..2048),
            ("-500", 1548..2048),
            ("0-0", 0..1),
            ("2000-5000", 2000..2048),
            ("-5000", 0..2048),
        ];
        for (range, bytes) in good {
            let check = async {
                let header = format!("bytes={range}");
                let answer = registry.send(Method::GET, &place, &[("range", &header)], "").await?;
                let answer = answer.expect(StatusCode::PARTIAL_CONTENT)?;
                let said = format!("bytes {}-{}/2048", bytes.start, bytes.end - 1);
                same("the content range", answer.header("content-range")?, &said)?;
                same("the length", answer.header("content-length")?, &bytes.len().to_string())?;
                same("the content", answer.body, content.slice(bytes.clone()))
            };
            self.report.check(format!("{name}/{range}"), check).await;
        }
        for range in ["500-0", "5000-10000", "2048-", "-0"] {
            let check = async {
                let header = format!("bytes={range}");
                let answer = registry.send(Method::GET, &place, &[("range", &header)], "").await?;
                let answer = answer.expect(StatusCode::RANGE_NOT_SATISFIABLE)?;
                same("the content range", answer.header("content-range")?, "bytes */2048")
            };
            self.report.check(format!("{name}/{range} is 416"), check).await;
        }
        let several = async {
            let answer = registry.send(Method::GET, &place, &[("range", "bytes=0-9,20-29")], "").await?;
            let answer = answer.expect(StatusCode::OK)?;
            same("the content", answer.body, content.clone())
        };
        self.report.check(format!("{name}/several are the whole"), several).await;
        let known = async {
            let tag = registry.head(&place).await?.header("etag")?.to_owned();
            let answer = registry.send(Method::GET, &place, &[("if-none-match", &tag)], "").await?;
            answer.expect(StatusCode::NOT_MODIFIED).map(drop)
        };
        self.report.check(format!("{name}/what the client has is 304"), known).await;
    }

    async fn wrong_digest(&mut self) {
        for way in Way::ALL {
            let name = self.name(&format!("bad digest {}", way.name()));
            let (_, content) = self.random(512);
            let (wrong, _) = self.random(512);
            let refused = self.refused(way, &wrong, &content).await;
            self.report.note(format!("{name}/is 400"), refused);
            let place = format!("/v2/{REPOSITORY}/blobs/{wrong}");
            let stored = async { self.registry.get(&place).await?.expect(StatusCode::NOT_FOUND).map(drop) };
            self.report.check(format!("{name}/is not stored"), stored).await;
        }
    }

    /// The last answer to a push whose digest is another one's.
    async fn refused(&self, way: Way, wrong: &Digest, content: &[u8]) -> Checked {
        let said = self.registry.upload(REPOSITORY, wrong, content, way).await;
        let said = said.err().ok_or("it was taken")?;
        ensure(said.contains("400") && said.contains("DIGEST_INVALID"), || {
            format!("it was refused otherwise: {said}")
        })
    }
}

//! Registries that err in one thing: the run must find each of them, or it proves nothing.

use std::net::SocketAddr;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::Response;
use shoal_http::{Limits, Running, Server};

use futures_util::future::join_all;
use shoal_core::Algorithm;

use super::client::Registry;
use super::report::Report;
use super::{blobs, data, pulls, push_and_read};
use crate::process::Processes;

/// What is done to an answer, by what was asked.
type Spoil = fn(&Method, &Uri, &mut Answer);

struct Answer {
    status: StatusCode,
    headers: axum::http::HeaderMap,
    body: Bytes,
}

/// The part of the run in which an error shows.
#[derive(Clone, Copy)]
enum Part {
    Nothing,
    Blobs,
    Set(&'static str),
}

/// A registry's error.
struct Error {
    what: &'static str,
    spoil: Spoil,
    part: Part,
    /// The check that has to find it: part of its name.
    check: &'static str,
}

const ERRORS: [Error; 14] = [
    Error {
        what: "no OCI-Subject",
        spoil: |_, _, answer| answer.drop("oci-subject"),
        part: Part::Set("missing-subject"),
        check: "/OCI-Subject",
    },
    Error {
        what: "no OCI-Tag",
        spoil: |_, _, answer| answer.drop("oci-tag"),
        part: Part::Set("tag-param-sha256"),
        check: "/OCI-Tag",
    },
    Error {
        what: "no filter is named",
        spoil: |_, _, answer| answer.drop("oci-filters-applied"),
        part: Part::Set("missing-subject"),
        check: "/of type",
    },
    Error {
        what: "no Link",
        spoil: |_, _, answer| answer.drop("link"),
        part: Part::Set("tag-param-sha256"),
        check: "/by pages",
    },
    Error {
        what: "no type for HEAD",
        spoil: |method, _, answer| {
            if *method == Method::HEAD {
                answer.drop("content-type");
            }
        },
        part: Part::Set("no-layers"),
        check: "/head/manifest",
    },
    Error {
        what: "a byte is wrong",
        spoil: |method, uri, answer| {
            if *method == Method::GET && uri.path().contains("/blobs/") && answer.status == 200 {
                answer.flip();
            }
        },
        part: Part::Set("no-layers"),
        check: "/pull/blob 0",
    },
    Error {
        what: "404 is no JSON",
        spoil: |_, _, answer| {
            if answer.status == 404 {
                answer.body = Bytes::from("404 page not found");
            }
        },
        part: Part::Nothing,
        check: "missing-manifest/by-tag",
    },
    Error {
        what: "400 for 416",
        spoil: |_, _, answer| answer.turn(416, 400),
        part: Part::Blobs,
        check: "wrong offset is 416",
    },
    Error {
        what: "200 for 206",
        spoil: |_, _, answer| answer.turn(206, 200),
        part: Part::Blobs,
        check: "range requests/500-1499",
    },
    Error {
        what: "a wrong range",
        spoil: |method, _, answer| {
            if *method == Method::PATCH {
                answer.set("range", "0-0");
            }
        },
        part: Part::Blobs,
        check: "chunked multi/push",
    },
    Error {
        what: "a sha256 digest for sha512",
        spoil: |_, _, answer| answer.alias(),
        part: Part::Blobs,
        check: "post+put/digest header",
    },
    Error {
        what: "a mount that only starts an upload",
        spoil: |_, uri, answer| {
            if uri.query().is_some_and(|query| query.contains("mount=")) {
                answer.turn(201, 202);
            }
        },
        part: Part::Blobs,
        check: "mount/post",
    },
    Error {
        what: "a wrong digest is taken",
        spoil: |_, _, answer| answer.turn(400, 201),
        part: Part::Blobs,
        check: "bad digest post+put/is 400",
    },
    Error {
        what: "a delete that keeps",
        spoil: |method, _, answer| {
            if *method == Method::GET {
                answer.turn(404, 200);
            }
        },
        part: Part::Blobs,
        check: "blob-delete is atomic",
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_errs_in_one_thing_is_found_out() {
    let cluster = Processes::start_with(super::ORIGIN).await;
    let registry = cluster.origin.registry();
    let right: Spoil = |_, _, _| {};
    let parts = [Part::Nothing, Part::Blobs].into_iter().chain(SETS.map(Part::Set));
    let right =
        join_all(parts.enumerate().map(|(at, part)| run(registry, format!("right-{at}"), right, part)));
    for report in right.await {
        assert!(
            report.failures().is_empty(),
            "through a proxy that errs in nothing: {:#?}",
            report.failures()
        );
    }
    let wrong = ERRORS.iter().enumerate();
    let wrong =
        join_all(wrong.map(|(at, error)| run(registry, format!("wrong-{at}"), error.spoil, error.part)));
    for (Error { what, check, .. }, report) in ERRORS.iter().zip(wrong.await) {
        let failures = report.failures();
        let found = failures.iter().any(|failure| failure.split(": ").next().unwrap().contains(check));
        assert!(found, "{what}: no check called …{check}… failed, but {failures:#?}");
    }
}

const SETS: [&str; 3] = ["missing-subject", "tag-param-sha256", "no-layers"];

/// That part of the run, through a proxy that spoils what it passes on.
async fn run(registry: SocketAddr, name: String, spoil: Spoil, part: Part) -> Report {
    let (_running, address) = spoiled(registry, name, spoil).await;
    let (registry, mut report) = (Registry::at(address), Report::default());
    match part {
        Part::Nothing => pulls::before_anything(&registry, &mut report).await,
        Part::Blobs => blobs::check(&registry, Algorithm::Sha512, &mut report).await,
        Part::Set(name) => {
            let sets = data::sets();
            let set = sets.iter().find(|set| set.name == name).unwrap();
            push_and_read(&registry, set, &mut report).await;
        }
    }
    report
}

/// A registry that answers as that one does, and then errs. Its repositories are its own.
async fn spoiled(registry: SocketAddr, name: String, spoil: Spoil) -> (Running, SocketAddr) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let forward = move |request: Request| {
        let (http, own) = (http.clone(), format!("{name}/"));
        async move {
            let (parts, body) = request.into_parts();
            let url = format!("http://{registry}{}", parts.uri).replace("conformance/", &own);
            let body = to_bytes(body, usize::MAX).await.unwrap();
            let mut headers = parts.headers;
            headers.remove(header::HOST);
            headers.remove(header::TRANSFER_ENCODING);
            let got =
                http.request(parts.method.clone(), url).headers(headers).body(body).send().await.unwrap();
            let (status, mut headers) = (got.status(), got.headers().clone());
            for value in headers.values_mut() {
                *value = value.to_str().unwrap().replace(&own, "conformance/").parse().unwrap();
            }
            let mut answer = Answer { status, headers, body: got.bytes().await.unwrap() };
            spoil(&parts.method, &parts.uri, &mut answer);
            answer.into_response(&parts.method)
        }
    };
    let server = Server::bind(([127, 0, 0, 1], 0).into(), None, Limits::default()).await.unwrap();
    let address = server.local_address();
    (server.serve(Router::new().fallback(forward)), address)
}

impl Answer {
    fn drop(&mut self, name: &'static str) {
        self.headers.remove(name);
    }

    fn set(&mut self, name: &'static str, value: &'static str) {
        if self.headers.contains_key(name) {
            self.headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
    }

    fn turn(&mut self, from: u16, to: u16) {
        if self.status == from {
            self.status = StatusCode::from_u16(to).unwrap();
        }
    }

    /// What the CNCF registry does with sha512.
    fn alias(&mut self) {
        let digest = self.headers.get("docker-content-digest").and_then(|digest| digest.to_str().ok());
        if digest.is_some_and(|digest| digest.starts_with("sha512:")) {
            let canonical = format!("sha256:{}", "0".repeat(64));
            self.headers.insert("docker-content-digest", canonical.parse().unwrap());
        }
    }

    fn flip(&mut self) {
        let mut body = self.body.to_vec();
        if let Some(last) = body.last_mut() {
            *last ^= 1;
        }
        self.body = body.into();
    }

    fn into_response(mut self, method: &Method) -> Response {
        if *method != Method::HEAD {
            self.headers.remove(header::CONTENT_LENGTH);
        }
        let body = if *method == Method::HEAD { Body::empty() } else { Body::from(self.body) };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

//! Registries that err in one thing: the run must find each of them, or it proves nothing.

use std::net::SocketAddr;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::Response;
use shoal_http::{Limits, Running, Server};

use super::client::Registry;
use super::report::Report;
use super::{data, everything_but_deletes};
use crate::process::Processes;

/// What is done to an answer, by what was asked.
type Spoil = fn(&Method, &Uri, &mut Answer);

struct Answer {
    status: StatusCode,
    headers: axum::http::HeaderMap,
    body: Bytes,
}

/// A registry's error, and the check that has to find it: part of its name.
const ERRORS: [(&str, Spoil, &str); 14] = [
    ("no OCI-Subject", |_, _, answer| answer.drop("oci-subject"), "/OCI-Subject"),
    ("no OCI-Tag", |_, _, answer| answer.drop("oci-tag"), "/OCI-Tag"),
    ("no filter named", |_, _, answer| answer.drop("oci-filters-applied"), "/of type"),
    ("no Link", |_, _, answer| answer.drop("link"), "/by pages"),
    (
        "no Content-Type",
        |method, _, answer| {
            if *method == Method::HEAD {
                answer.drop("content-type")
            }
        },
        "/head/manifest",
    ),
    ("400 for 416", |_, _, answer| answer.turn(416, 400), "is 416"),
    ("200 for 206", |_, _, answer| answer.turn(206, 200), "range requests/500-1499"),
    (
        "404 is no JSON",
        |_, _, answer| {
            if answer.status == 404 {
                answer.body = Bytes::from("404 page not found")
            }
        },
        "get-missing",
    ),
    (
        "a wrong range",
        |method, _, answer| {
            if *method == Method::PATCH {
                answer.set("range", "0-0")
            }
        },
        "chunked multi/push",
    ),
    ("a sha256 digest for sha512", |_, _, answer| answer.alias(), "sha512 blobs/post+put/digest header"),
    (
        "a mount that only starts an upload",
        |_, uri, answer| {
            if uri.query().is_some_and(|query| query.contains("mount=")) {
                answer.turn(201, 202)
            }
        },
        "mount/post",
    ),
    ("a wrong digest is taken", |_, _, answer| answer.turn(400, 201), "bad digest post+put/is 400"),
    (
        "a delete that keeps",
        |method, _, answer| {
            if *method == Method::GET {
                answer.turn(404, 200)
            }
        },
        "blob-delete is atomic",
    ),
    (
        "a byte is wrong",
        |method, uri, answer| {
            if *method == Method::GET && uri.path().contains("/blobs/") && answer.status == 200 {
                answer.flip()
            }
        },
        "/pull/blob 0",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_errs_in_one_thing_is_found_out() {
    let cluster = Processes::start_with(super::ORIGIN).await;
    // One data set of each kind that an error shows in: the run is made many times.
    let kinds = ["image", "artifacts-with-subject", "tag-param-sha256"];
    let sets: Vec<_> = data::sets().into_iter().filter(|set| kinds.contains(&set.name)).collect();
    let (right, address) = spoiled(cluster.origin.registry(), |_, _, _| {}).await;
    let mut report = Report::default();
    everything_but_deletes(&Registry::at(address), &sets, &mut report).await;
    assert!(report.failures().is_empty(), "through a proxy that changes nothing: {:#?}", report.failures());
    drop(right);
    for (error, spoil, check) in ERRORS {
        let (_running, address) = spoiled(cluster.origin.registry(), spoil).await;
        let mut report = Report::default();
        everything_but_deletes(&Registry::at(address), &sets, &mut report).await;
        let found =
            report.failures().iter().any(|failure| failure.split(": ").next().unwrap().contains(check));
        assert!(found, "{error}: no check called …{check}… failed, but {:#?}", report.failures());
    }
}

/// A registry that answers as that one does, and then errs.
async fn spoiled(registry: SocketAddr, spoil: Spoil) -> (Running, SocketAddr) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let forward = move |request: Request| {
        let http = http.clone();
        async move {
            let (parts, body) = request.into_parts();
            let url = format!("http://{registry}{}", parts.uri);
            let body = to_bytes(body, usize::MAX).await.unwrap();
            let mut headers = parts.headers;
            headers.remove(header::HOST);
            headers.remove(header::TRANSFER_ENCODING);
            let got =
                http.request(parts.method.clone(), url).headers(headers).body(body).send().await.unwrap();
            let (status, headers) = (got.status(), got.headers().clone());
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

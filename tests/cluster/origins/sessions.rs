//! Uploads whose parts go to one origin after the other, as somebody who balances load sends them.

use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use shoal_core::Digest;

use super::rig::{COUNT, Rig};

const REPOSITORY: &str = "team/parts";
/// More than the connections between origins hold.
const PART: usize = 3 << 20;

struct Client(reqwest::Client);

impl Client {
    fn ask(&self, rig: &Rig, place: usize, method: Method, path: &str) -> RequestBuilder {
        self.0.request(method, format!("http://{}{path}", rig.origin(place).registry()))
    }

    async fn begin(&self, rig: &Rig, place: usize) -> String {
        let path = format!("/v2/{REPOSITORY}/blobs/uploads/");
        let begun = self.ask(rig, place, Method::POST, &path).send().await.unwrap();
        assert_eq!(begun.status(), StatusCode::ACCEPTED);
        location(&begun)
    }

    async fn patch(&self, rig: &Rig, place: usize, path: &str, start: usize, part: &[u8]) -> Response {
        let range = format!("{start}-{}", start + part.len() - 1);
        let request = self.ask(rig, place, Method::PATCH, path).header(CONTENT_RANGE, range);
        let octets = "application/octet-stream";
        request.header(CONTENT_TYPE, octets).body(part.to_vec()).send().await.unwrap()
    }
}

fn location(response: &Response) -> String {
    response.headers()[LOCATION].to_str().unwrap().to_owned()
}

fn content(length: usize) -> Vec<u8> {
    (0..length as u32)
        .flat_map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes())
        .take(length)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_part_of_an_upload_may_come_to_another_origin() {
    let rig = Rig::start().await;
    let (client, blob) = (Client(reqwest::Client::new()), content(3 * PART));
    let digest = Digest::sha256(&blob);
    let mut path = client.begin(&rig, 0).await;
    for (number, part) in blob.chunks(PART).enumerate() {
        let place = (number + 1) % COUNT;
        let taken = client.patch(&rig, place, &path, number * PART, part).await;
        assert_eq!(taken.status(), StatusCode::ACCEPTED, "part {number} to origin {place}");
        path = location(&taken);
        let stands = client.ask(&rig, 2, Method::GET, &path).send().await.unwrap();
        assert_eq!(stands.status(), StatusCode::NO_CONTENT);
        assert_eq!(stands.headers()[RANGE], format!("0-{}", (number + 1) * PART - 1));
    }
    // What the origin of the session says of a wrong part comes back as it is.
    let wrong = client.patch(&rig, 1, &path, 7, b"not there").await;
    assert_eq!(wrong.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    assert!(wrong.text().await.unwrap().contains("the upload stands at"));

    let separator = if path.contains('?') { '&' } else { '?' };
    let end = format!("{path}{separator}digest={digest}");
    let ended = client.ask(&rig, 2, Method::PUT, &end).send().await.unwrap();
    assert_eq!(ended.status(), StatusCode::CREATED);
    assert_eq!(location(&ended), format!("/v2/{REPOSITORY}/blobs/{digest}"));
    for place in 0..COUNT {
        let got = client.ask(&rig, place, Method::GET, &location(&ended)).send().await.unwrap();
        assert!(got.bytes().await.unwrap() == blob, "origin {place} has other bytes");
    }
    let gone = client.ask(&rig, 1, Method::GET, &path).send().await.unwrap();
    assert_eq!(gone.status(), StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_whose_origin_died_says_so_and_goes_on_when_it_is_back() {
    let mut rig = Rig::start().await;
    let (client, blob) = (Client(reqwest::Client::new()), content(2 * PART));
    let path = client.begin(&rig, 0).await;
    let taken = client.patch(&rig, 1, &path, 0, &blob[..PART]).await;
    assert_eq!(taken.status(), StatusCode::ACCEPTED);
    rig.kill(0);
    let refused = client.patch(&rig, 1, &path, PART, &blob[PART..]).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key("retry-after"));
    assert!(refused.text().await.unwrap().contains("cannot be reached"));

    rig.restart(0);
    rig.all_well().await;
    let taken = client.patch(&rig, 2, &path, PART, &blob[PART..]).await;
    assert_eq!(taken.status(), StatusCode::ACCEPTED);
    let end = format!("{path}?digest={}", Digest::sha256(&blob));
    let ended = client.ask(&rig, 1, Method::PUT, &end).send().await.unwrap();
    assert_eq!(ended.status(), StatusCode::CREATED);
}

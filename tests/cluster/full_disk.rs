//! A disk that really is full: the origin's store lies on a small file system of its own.

use reqwest::header::{CONTENT_LENGTH, LOCATION, RANGE};
use reqwest::{Response, StatusCode};
use shoal_core::Digest;

use crate::process::{Process, Processes};

/// The file system's size.
const DISK: usize = 24 << 20;

/// The registry of an origin on a small disk, of which so much is not for uploads.
struct Small {
    origin: Process,
    http: reqwest::Client,
}

impl Small {
    fn start(cluster: &Processes, name: &str, min_free: &str) -> Self {
        Self {
            origin: cluster.origin_on_small_disk(name, DISK, min_free),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
        }
    }

    fn at(&self, place: &str) -> String {
        format!("http://{}{place}", self.origin.registry())
    }

    async fn start_upload(&self) -> String {
        let post = self.http.post(self.at("/v2/app/blobs/uploads/")).send().await.unwrap();
        assert_eq!(post.status(), StatusCode::ACCEPTED);
        post.headers()[LOCATION].to_str().unwrap().to_owned()
    }

    /// Bytes without a length, as docker sends them: that they do not fit shows when the disk is full.
    async fn stream(&self, place: &str, bytes: Vec<u8>) -> Response {
        let parts: Vec<_> =
            bytes.chunks(64 << 10).map(|part| Ok::<_, std::io::Error>(part.to_vec())).collect();
        let body = reqwest::Body::wrap_stream(futures_util::stream::iter(parts));
        self.http.patch(self.at(place)).body(body).send().await.unwrap()
    }

    async fn stands_at(&self, place: &str) -> usize {
        let status = self.http.get(self.at(place)).send().await.unwrap();
        assert_eq!(status.status(), StatusCode::NO_CONTENT);
        let range = status.headers()[RANGE].to_str().unwrap().to_owned();
        range.strip_prefix("0-").unwrap().parse::<usize>().unwrap() + 1
    }
}

async fn is_full(answer: Response) {
    let status = answer.status();
    let said = answer.text().await.unwrap();
    assert!(status == StatusCode::INSUFFICIENT_STORAGE && said.contains("disk is full"), "{status}: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_is_507_and_the_upload_goes_on_once_there_is_room() {
    let cluster = Processes::start().await;
    let small = Small::start(&cluster, "small", "0B");
    let (first, second) = (small.start_upload().await, small.start_upload().await);
    let filled = small.stream(&first, vec![1; DISK / 2]).await;
    assert_eq!(filled.status(), StatusCode::ACCEPTED);
    let content: Vec<u8> = (0..DISK * 2 / 3).map(|at| (at % 251) as u8).collect();
    is_full(small.stream(&second, content.clone()).await).await;
    let offset = small.stands_at(&second).await;
    assert!((1 << 20..content.len()).contains(&offset), "stands at {offset}");
    // The other upload gives its room back, and this one goes on where it stood.
    let cancelled = small.http.delete(small.at(&first)).send().await.unwrap();
    assert_eq!(cancelled.status(), StatusCode::NO_CONTENT);
    let rest = small.stream(&second, content[offset..].to_vec()).await;
    assert_eq!(rest.status(), StatusCode::ACCEPTED);
    let digest = Digest::sha256(&content);
    let put = small.at(&format!("{second}?digest={digest}"));
    let put = small.http.put(put).header(CONTENT_LENGTH, 0).send().await.unwrap();
    assert_eq!(put.status(), StatusCode::CREATED);
    let got = small.http.get(small.at(&format!("/v2/app/blobs/{digest}"))).send().await.unwrap();
    assert_eq!(Digest::sha256(&got.bytes().await.unwrap()), digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_leave_the_reserve_of_a_disk_alone() {
    let cluster = Processes::start().await;
    let small = Small::start(&cluster, "small", "12 MiB");
    let upload = small.start_upload().await;
    let length = (DISK / 2).to_string();
    let told = small.http.patch(small.at(&upload)).header(CONTENT_LENGTH, &length).body(vec![1; DISK / 2]);
    // It is refused before it is sent, and the client may see its connection closed while it still writes.
    if let Ok(answer) = told.send().await {
        is_full(answer).await;
    }
    assert_eq!(small.stands_at(&upload).await, 1, "0-0 stands for nothing");
    is_full(small.stream(&upload, vec![1; DISK / 2]).await).await;
    let offset = small.stands_at(&upload).await;
    assert!(offset < DISK / 2, "{offset} bytes were taken");
}

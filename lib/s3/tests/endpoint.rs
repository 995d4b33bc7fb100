//! The S3 face over real HTTP: the operations that the registry's driver uses, on a driver in memory and a read-only one.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use shoal_core::{Digest, RepositoryName, Tag};
use shoal_driver::{
    ByteRange, ByteStream, Context, DriverError, DriverPath, FilesystemDriver, MemoryDriver, ReadOnlyDriver,
    ResolvedTag, StorageDriver, TagExpectation, TransferError, Transferer,
};
use shoal_http::{Limits, Server};
use shoal_s3::{Access, Config, SecretKey, router};
use shoal_store::Store;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const UPLOAD: &str = "docker/registry/v2/repositories/a/_uploads/0190a6f2-0000-4000-8000-000000000001";

struct Face {
    address: SocketAddr,
    driver: Arc<dyn StorageDriver>,
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Face {
    async fn new() -> Self {
        Self::on(Arc::new(MemoryDriver::new()), Access::Anonymous).await
    }

    async fn on(driver: Arc<dyn StorageDriver>, access: Access) -> Self {
        let router = router(driver.clone(), &Config::default(), access).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, driver }
    }

    /// One request on a connection of its own. `target` comes behind the bucket.
    async fn ask(&self, method: &str, target: &str, headers: &str, body: &str) -> Answer {
        let mut connection = TcpStream::connect(self.address).await.unwrap();
        let request = format!(
            "{method} /registry{target} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n{body}",
            self.address,
            body.len()
        );
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_ascii_lowercase(), body: body.into() }
    }

    async fn get(&self, target: &str) -> Answer {
        self.ask("GET", target, "", "").await
    }

    async fn put(&self, key: &str, body: &str) -> Answer {
        self.ask("PUT", &format!("/{key}"), "", body).await
    }

    async fn begin(&self, key: &str) -> String {
        let answer = self.ask("POST", &format!("/{key}?uploads"), "", "").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        elements(&answer.body, "UploadId").remove(0)
    }

    async fn part(&self, key: &str, id: &str, number: u32, body: &str) -> Answer {
        self.ask("PUT", &format!("/{key}?partNumber={number}&uploadId={id}"), "", body).await
    }

    async fn copy_part(&self, key: &str, id: &str, number: u32, from: &str, range: &str) -> Answer {
        let source =
            format!("x-amz-copy-source: registry/{from}\r\nx-amz-copy-source-range: bytes={range}\r\n");
        self.ask("PUT", &format!("/{key}?partNumber={number}&uploadId={id}"), &source, "").await
    }

    async fn complete(&self, key: &str, id: &str, tags: &[String]) -> Answer {
        let parts = tags
            .iter()
            .enumerate()
            .map(|(at, tag)| format!("<Part><PartNumber>{}</PartNumber><ETag>{tag}</ETag></Part>", at + 1));
        let body =
            format!("<CompleteMultipartUpload>{}</CompleteMultipartUpload>", parts.collect::<String>());
        self.ask("POST", &format!("/{key}?uploadId={id}"), "", &body).await
    }

    /// An upload of these parts, complete.
    async fn upload(&self, key: &str, parts: &[&str]) {
        let id = self.begin(key).await;
        let mut tags = Vec::new();
        for (at, part) in (1..).zip(parts) {
            tags.push(tag_of(&self.part(key, &id, at, part).await));
        }
        assert_eq!(self.complete(key, &id, &tags).await.status, 200);
    }

    async fn keys(&self, query: &str) -> Vec<String> {
        let answer = self.get(&format!("?{query}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        elements(&answer.body, "Key")
    }

    async fn has(&self, path: &str) -> bool {
        self.driver.stat(&Context::default(), &DriverPath::parse(path).unwrap()).await.is_ok()
    }
}

/// The texts of all elements of that name.
fn elements(xml: &str, name: &str) -> Vec<String> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let rest = xml.split(&open).skip(1);
    rest.map(|rest| rest.split(&close).next().unwrap().replace("&quot;", "\"")).collect()
}

fn tag_of(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    let header = answer.head.lines().find_map(|line| line.strip_prefix("etag: "));
    header.map(str::to_owned).unwrap_or_else(|| elements(&answer.body, "ETag").remove(0))
}

fn code(answer: &Answer) -> (u16, String) {
    (answer.status, elements(&answer.body, "Code").concat())
}

fn tag_link(tag: &str) -> String {
    format!("docker/registry/v2/repositories/a/_manifests/tags/{tag}/current/link")
}

fn blob_key(content: &str) -> String {
    let hex = Digest::sha256(content.as_bytes()).hex();
    format!("docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2])
}

#[tokio::test]
async fn small_objects_are_put_and_read_by_range() {
    let face = Face::new().await;
    let key = tag_link("1");
    assert_eq!(face.put(&key, "sha256:abc").await.status, 200);
    let whole = face.get(&format!("/{key}")).await;
    assert_eq!((whole.status, whole.body.as_str()), (200, "sha256:abc"));
    let part = face.ask("GET", &format!("/{key}"), "range: bytes=7-\r\n", "").await;
    assert_eq!((part.status, part.body.as_str()), (206, "abc"));
    assert!(part.head.contains("content-range: bytes 7-9/10"), "{}", part.head);
    let beyond = face.ask("GET", &format!("/{key}"), "range: bytes=10-\r\n", "").await;
    assert_eq!(code(&beyond), (416, "InvalidRange".into()));
    let head = face.ask("HEAD", &format!("/{key}"), "", "").await;
    assert!(head.status == 200 && head.head.contains("content-length: 10"), "{head:?}");
}

#[tokio::test]
async fn what_is_not_of_the_layout_is_neither_read_nor_written() {
    let face = Face::new().await;
    assert_eq!(code(&face.get("/elsewhere").await), (404, "NoSuchKey".into()));
    assert_eq!(code(&face.get(&format!("/{}", tag_link("1"))).await), (404, "NoSuchKey".into()));
    assert_eq!(code(&face.put("elsewhere", "x").await), (400, "InvalidArgument".into()));
    assert_eq!(code(&face.put("docker/registry/v2/../../x", "x").await), (400, "InvalidArgument".into()));
    assert_eq!(code(&face.ask("GET", "-two/x", "", "").await), (404, "NoSuchBucket".into()));
}

#[tokio::test]
async fn pages_put_together_are_all_keys_in_path_order() {
    let face = Face::new().await;
    let tags = ["1", "1-rc", "1.2", "12", "2", "a"];
    for tag in tags {
        face.put(&tag_link(tag), "sha256:abc").await;
    }
    let all: Vec<_> = tags.into_iter().map(tag_link).collect();
    for size in 1..=7 {
        let (mut seen, mut marker) = (Vec::new(), String::new());
        loop {
            let answer = face.get(&format!("?prefix=docker&max-keys={size}&marker={marker}")).await;
            seen.extend(elements(&answer.body, "Key"));
            if elements(&answer.body, "IsTruncated") == ["false"] {
                break;
            }
            marker = elements(&answer.body, "NextMarker").remove(0);
        }
        assert_eq!(seen, all, "pages of {size}");
    }
}

#[tokio::test]
async fn a_folder_is_listed_with_its_folders_and_a_prefix_may_end_within_a_name() {
    let face = Face::new().await;
    for tag in ["1", "12", "2"] {
        face.put(&tag_link(tag), "sha256:abc").await;
    }
    let tags = tag_link("").replace("/current/link", "");
    let answer = face.get(&format!("?list-type=2&delimiter=/&prefix={tags}")).await;
    let folders = elements(&answer.body, "CommonPrefixes").concat();
    assert_eq!(elements(&folders, "Prefix"), ["1", "12", "2"].map(|tag| format!("{tags}{tag}/")));
    assert!(elements(&answer.body, "Key").is_empty());
    let next = face.get(&format!("?list-type=2&delimiter=/&max-keys=1&prefix={tags}")).await;
    let token = elements(&next.body, "NextContinuationToken").remove(0);
    let rest = face.get(&format!("?list-type=2&delimiter=/&prefix={tags}&continuation-token={token}")).await;
    assert_eq!(elements(&rest.body, "CommonPrefixes").len(), 2);

    assert_eq!(face.keys(&format!("prefix={tags}1")).await, [tag_link("1"), tag_link("12")]);
    assert_eq!(face.keys(&format!("prefix={tags}1&max-keys=1")).await, [tag_link("1")]);
    assert_eq!(face.keys(&format!("prefix={}", tag_link("2"))).await, [tag_link("2")]);
    for nothing in ["prefix=elsewhere", "prefix=docker//", "prefix=docker&max-keys=0"] {
        assert!(face.keys(nothing).await.is_empty(), "{nothing}");
    }
    assert_eq!(face.get("?max-keys=-1").await.status, 400);
}

#[tokio::test]
async fn parts_in_order_become_the_upload() {
    let face = Face::new().await;
    let key = format!("{UPLOAD}/data");
    let id = face.begin(&key).await;
    let first = tag_of(&face.part(&key, &id, 1, "first ").await);
    assert_eq!(code(&face.part(&key, &id, 3, "third").await), (400, "InvalidPartOrder".into()));
    assert_eq!(tag_of(&face.part(&key, &id, 1, "first ").await), first, "sent again after a lost answer");
    let second = tag_of(&face.part(&key, &id, 2, "second").await);
    let uploads = face.get(&format!("?uploads&prefix={key}")).await;
    assert_eq!(elements(&uploads.body, "UploadId"), std::slice::from_ref(&id));
    let parts = face.get(&format!("/{key}?uploadId={id}")).await;
    assert_eq!(elements(&parts.body, "Size"), ["6", "6"]);
    assert!(!face.has(&format!("/{key}")).await, "nothing is visible before the end");

    let wrong = face.complete(&key, &id, std::slice::from_ref(&first)).await;
    assert_eq!(code(&wrong), (400, "InvalidPart".into()));
    assert_eq!(face.complete(&key, &id, &[first, second]).await.status, 200);
    assert_eq!(face.get(&format!("/{key}")).await.body, "first second");
    assert_eq!(code(&face.part(&key, &id, 3, "late").await), (404, "NoSuchUpload".into()));
}

#[tokio::test]
async fn a_part_that_breaks_off_leaves_nothing_behind() {
    let face = Face::new().await;
    let key = format!("{UPLOAD}/data");
    let id = face.begin(&key).await;
    let mut cut = TcpStream::connect(face.address).await.unwrap();
    let request = format!(
        "PUT /registry/{key}?partNumber=1&uploadId={id} HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhalf"
    );
    cut.write_all(request.as_bytes()).await.unwrap();
    cut.shutdown().await.unwrap();
    let mut answer = Vec::new();
    let _ = cut.read_to_end(&mut answer).await;
    let tag = tag_of(&face.part(&key, &id, 1, "whole").await);
    assert_eq!(face.complete(&key, &id, &[tag]).await.status, 200);
    assert_eq!(face.get(&format!("/{key}")).await.body, "whole");
}

#[tokio::test]
async fn a_new_upload_ends_the_one_before() {
    let face = Face::new().await;
    let key = format!("{UPLOAD}/data");
    let old = face.begin(&key).await;
    let new = face.begin(&key).await;
    assert_eq!(code(&face.part(&key, &old, 1, "x").await), (404, "NoSuchUpload".into()));
    let tag = tag_of(&face.part(&key, &new, 1, "y").await);
    assert_eq!(face.complete(&key, &new, &[tag]).await.status, 200);
}

#[tokio::test]
async fn an_aborted_upload_leaves_nothing() {
    let face = Face::new().await;
    let key = format!("{UPLOAD}/data");
    let id = face.begin(&key).await;
    tag_of(&face.part(&key, &id, 1, "x").await);
    assert_eq!(face.ask("DELETE", &format!("/{key}?uploadId={id}"), "", "").await.status, 204);
    assert_eq!(face.part(&key, &id, 2, "y").await.status, 404);
    assert!(elements(&face.get(&format!("?uploads&prefix={key}")).await.body, "UploadId").is_empty());
    assert!(!face.has(&format!("/{key}")).await);
}

/// What the registry's driver does when the last part was too small for S3: it ends the upload and copies it into a new one.
#[tokio::test]
async fn an_upload_is_taken_up_again_by_a_copy_of_itself() {
    let face = Face::new().await;
    let key = format!("{UPLOAD}/data");
    face.upload(&key, &["small "]).await;
    let id = face.begin(&key).await;
    assert_eq!(face.get(&format!("/{key}")).await.body, "small ", "as it was until the new one is complete");
    let copied = tag_of(&face.copy_part(&key, &id, 1, &key, "0-5").await);
    let second = tag_of(&face.part(&key, &id, 2, "and more").await);
    assert_eq!(face.complete(&key, &id, &[copied, second]).await.status, 200);
    assert_eq!(face.get(&format!("/{key}")).await.body, "small and more");
}

#[tokio::test]
async fn a_copy_onto_the_blob_is_a_move_that_ends_with_the_deletion() {
    let face = Face::new().await;
    let (from, to) = (format!("{UPLOAD}/data"), blob_key("layer"));
    face.upload(&from, &["layer"]).await;
    let source = format!("x-amz-copy-source: registry/{from}\r\n");
    for _ in 0..2 {
        let copied = face.ask("PUT", &format!("/{to}"), &source, "").await;
        assert_eq!(copied.status, 200, "{copied:?}");
    }
    assert_eq!(face.get(&format!("/{to}")).await.body, "layer");
    assert!(!face.has(&format!("/{from}")).await, "the driver moved it");
    assert_eq!(
        face.keys(&format!("prefix={from}")).await,
        std::slice::from_ref(&from),
        "shown until it is deleted"
    );
    assert_eq!(face.ask("DELETE", &format!("/{from}"), "", "").await.status, 204);
    assert!(face.keys(&format!("prefix={from}")).await.is_empty());
    let elsewhere = face.ask("PUT", &format!("/{}", tag_link("1")), &source.replace(&from, &to), "").await;
    assert_eq!(code(&elsewhere), (501, "NotImplemented".into()));
}

#[tokio::test]
async fn a_large_copy_comes_in_ranges_in_any_order_and_must_be_whole() {
    let face = Face::new().await;
    let (from, to) = (format!("{UPLOAD}/data"), blob_key("0123456789"));
    face.upload(&from, &["0123456789"]).await;
    let partial = face.begin(&to).await;
    let tag = tag_of(&face.copy_part(&to, &partial, 1, &from, "0-4").await);
    assert_eq!(code(&face.complete(&to, &partial, &[tag]).await), (400, "InvalidPart".into()));

    let id = face.begin(&to).await;
    let second = tag_of(&face.copy_part(&to, &id, 2, &from, "5-9").await);
    let first = tag_of(&face.copy_part(&to, &id, 1, &from, "0-4").await);
    assert_eq!(face.part(&to, &id, 3, "bytes").await.status, 501);
    assert_eq!(face.complete(&to, &id, &[first, second]).await.status, 200);
    assert_eq!(face.get(&format!("/{to}")).await.body, "0123456789");
}

#[tokio::test]
async fn an_upload_is_deleted_whole() {
    let face = Face::new().await;
    let (data, started) = (format!("{UPLOAD}/data"), format!("{UPLOAD}/startedat"));
    face.put(&started, "2026-01-01T00:00:00Z").await;
    face.put(&format!("{UPLOAD}/hashstates/sha256/5"), "state").await;
    face.upload(&data, &["layer"]).await;
    assert_eq!(code(&face.ask("DELETE", &format!("/{data}"), "", "").await), (403, "AccessDenied".into()));
    let keys = face.keys(&format!("prefix={UPLOAD}")).await;
    assert_eq!(keys.len(), 3);
    let objects = keys.iter().map(|key| format!("<Object><Key>{key}</Key></Object>")).collect::<String>();
    let deleted = face.ask("POST", "?delete", "", &format!("<Delete>{objects}</Delete>")).await;
    assert_eq!((deleted.status, elements(&deleted.body, "Key").len()), (200, 3), "{deleted:?}");
    assert!(face.keys(&format!("prefix={UPLOAD}")).await.is_empty());
    assert!(!face.has(&format!("/{UPLOAD}")).await);
}

#[tokio::test]
async fn links_and_blobs_are_deleted_and_deleting_nothing_succeeds() {
    let face = Face::new().await;
    for key in [tag_link("1"), blob_key("manifest")] {
        assert_eq!(face.put(&key, "manifest").await.status, 200);
        for _ in 0..2 {
            assert_eq!(face.ask("DELETE", &format!("/{key}"), "", "").await.status, 204);
        }
        assert_eq!(face.get(&format!("/{key}")).await.status, 404);
    }
    assert_eq!(face.ask("DELETE", "/elsewhere", "", "").await.status, 204);
}

#[tokio::test]
async fn a_listener_with_keys_takes_no_unsigned_and_no_foreign_request() {
    let access = Access::Signed { access_key: "ours".into(), secret_key: SecretKey("secret".into()) };
    let face = Face::on(Arc::new(MemoryDriver::new()), access).await;
    let key = tag_link("1");
    for method in ["GET", "PUT", "DELETE"] {
        let unsigned = face.ask(method, &format!("/{key}"), "", "x").await;
        assert_eq!(unsigned.status, 403, "{unsigned:?}");
    }
    let signature = format!(
        "authorization: AWS4-HMAC-SHA256 Credential=theirs/20260101/us-east-1/s3/aws4_request, \
         SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature={}\r\n\
         x-amz-date: 20260101T000000Z\r\nx-amz-content-sha256: UNSIGNED-PAYLOAD\r\n",
        "0".repeat(64)
    );
    for foreign in [signature.clone(), signature.replace("theirs", "ours")] {
        let answer = face.ask("PUT", &format!("/{key}"), &foreign, "x").await;
        assert_eq!(answer.status, 403, "{answer:?}");
    }
    assert!(!face.has(&format!("/{key}")).await);
}

/// Knows one blob, in one repository.
struct OneBlob;

const CONTENT: &str = "a layer of the swarm";

impl OneBlob {
    fn check(&self, repository: Option<&RepositoryName>, digest: &Digest) -> Result<u64, TransferError> {
        let is_it = *digest == Digest::sha256(CONTENT.as_bytes());
        match repository.map(RepositoryName::as_str) {
            Some("a") if is_it => Ok(CONTENT.len() as u64),
            _ => Err(TransferError::NotFound),
        }
    }
}

#[async_trait]
impl Transferer for OneBlob {
    async fn stat(&self, repository: Option<&RepositoryName>, digest: &Digest) -> Result<u64, TransferError> {
        self.check(repository, digest)
    }

    async fn open(
        &self,
        repository: Option<&RepositoryName>,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<ByteStream, TransferError> {
        let range = range.within(self.check(repository, digest)?);
        let bytes = Bytes::from_static(&CONTENT.as_bytes()[range.start as usize..range.end as usize]);
        Ok(Box::pin(futures_util::stream::iter([Ok::<_, DriverError>(bytes)])))
    }

    async fn upload(&self, _: Option<&RepositoryName>, _: &Digest) -> Result<(), TransferError> {
        Err(TransferError::ReadOnly)
    }

    async fn resolve_tag(&self, _: &RepositoryName, _: &Tag) -> Result<ResolvedTag, TransferError> {
        Ok(ResolvedTag::current(Digest::sha256(CONTENT.as_bytes())))
    }

    async fn put_tag(
        &self,
        _: &RepositoryName,
        _: &Tag,
        _: &Digest,
        _: &TagExpectation,
    ) -> Result<(), TransferError> {
        Err(TransferError::ReadOnly)
    }

    async fn delete_tag(&self, _: &RepositoryName, _: &Tag, _: &TagExpectation) -> Result<(), TransferError> {
        Err(TransferError::ReadOnly)
    }

    async fn list_tags(&self, _: &RepositoryName) -> Result<Vec<Tag>, TransferError> {
        Ok(vec![Tag::parse("1").unwrap()])
    }
}

async fn read_only(directory: &std::path::Path) -> Face {
    let store = Store::open(shoal_store::Config { directory: directory.into() }).await.unwrap();
    Face::on(Arc::new(ReadOnlyDriver::new(store, Arc::new(OneBlob))), Access::Anonymous).await
}

#[tokio::test]
async fn a_read_only_driver_refuses_every_write() {
    let directory = tempfile::tempdir().unwrap();
    let face = read_only(directory.path()).await;
    let denied = (403, "AccessDenied".to_owned());
    let data = format!("{UPLOAD}/data");
    assert_eq!(code(&face.put(&tag_link("1"), "sha256:abc").await), denied);
    assert_eq!(code(&face.put(&format!("{UPLOAD}/startedat"), "now").await), denied);
    assert_eq!(code(&face.ask("POST", &format!("/{data}?uploads"), "", "").await), denied);
    assert_eq!(code(&face.ask("DELETE", &format!("/{}", tag_link("1")), "", "").await), denied);
    let delete = format!("<Delete><Object><Key>{}</Key></Object></Delete>", tag_link("1"));
    assert_eq!(code(&face.ask("POST", "?delete", "", &delete).await), denied);
}

#[tokio::test]
async fn a_blob_is_read_on_behalf_of_the_repository_whose_link_was_read() {
    let directory = tempfile::tempdir().unwrap();
    let face = read_only(directory.path()).await;
    let (blob, hex) = (blob_key(CONTENT), Digest::sha256(CONTENT.as_bytes()).hex());
    assert_eq!(face.get(&format!("/{blob}")).await.status, 404, "on nobody's behalf");
    let link = format!("docker/registry/v2/repositories/a/_layers/sha256/{hex}/link");
    assert_eq!(face.get(&format!("/{link}")).await.body, format!("sha256:{hex}"));
    assert_eq!(face.keys(&format!("prefix={blob}&max-keys=1")).await, std::slice::from_ref(&blob));
    assert_eq!(face.get(&format!("/{blob}")).await.body, CONTENT);
    let part = face.ask("GET", &format!("/{blob}"), "range: bytes=2-6\r\n", "").await;
    assert_eq!((part.status, part.body.as_str()), (206, "layer"));
}

#[tokio::test]
async fn a_read_only_driver_lists_what_it_can_and_says_what_it_cannot() {
    let directory = tempfile::tempdir().unwrap();
    let face = read_only(directory.path()).await;
    assert!(face.keys("prefix=&max-keys=1").await.is_empty(), "a health check finds a store");
    let tags = tag_link("").replace("/current/link", "");
    let answer = face.get(&format!("?delimiter=/&prefix={tags}")).await;
    assert_eq!(elements(&elements(&answer.body, "CommonPrefixes").concat(), "Prefix"), [format!("{tags}1/")]);
    let repositories = face.get("?prefix=docker/registry/v2/repositories/").await;
    assert_eq!(code(&repositories), (501, "NotImplemented".into()));
}

#[tokio::test]
async fn a_full_disk_is_507_before_a_part_is_sent() {
    let directory = tempfile::tempdir().unwrap();
    let face = |reserve| {
        let driver = FilesystemDriver::with_reserve(directory.path(), reserve);
        Face::on(Arc::new(driver), Access::Anonymous)
    };
    let (data, started) = (format!("{UPLOAD}/data"), format!("{UPLOAD}/startedat"));
    let refused = (507, "InsufficientStorage".to_owned());
    let full = face(u64::MAX).await;
    let begun = full.ask("POST", &format!("/{data}?uploads"), "", "").await;
    assert_eq!(code(&begun), refused);
    assert_eq!(full.put(&started, "2026-01-01T00:00:00Z").await.status, 200, "what is small has room");
    // A disk on which an upload of the whole address space has no room, and this one has.
    let roomy = face(1).await;
    let id = roomy.begin(&data).await;
    let length = i64::MAX;
    let head = format!(
        "PUT /registry/{data}?partNumber=1&uploadId={id} HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n"
    );
    let mut connection = TcpStream::connect(roomy.address).await.unwrap();
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut said = vec![0; 12];
    connection.read_exact(&mut said).await.unwrap();
    assert_eq!(String::from_utf8(said).unwrap(), "HTTP/1.1 507");
    assert_eq!(roomy.part(&data, &id, 1, "a part").await.status, 200);
}

#[tokio::test]
async fn a_part_that_trickles_is_given_up_and_leaves_nothing_behind() {
    let limits = Limits { body_idle_timeout: Duration::from_millis(100), ..Limits::default() };
    let router = router(Arc::new(MemoryDriver::new()), &Config::default(), Access::Anonymous).unwrap();
    let server = Server::bind(([127, 0, 0, 1], 0).into(), None, limits).await.unwrap();
    let face = Face { address: server.local_address(), driver: Arc::new(MemoryDriver::new()) };
    let _running = server.serve(router);
    let data = format!("{UPLOAD}/data");
    let id = face.begin(&data).await;
    let head = format!(
        "PUT /registry/{data}?partNumber=1&uploadId={id} HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n1234"
    );
    let mut connection = TcpStream::connect(face.address).await.unwrap();
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut said = String::new();
    connection.read_to_string(&mut said).await.unwrap();
    assert!(said.starts_with("HTTP/1.1 400") && said.contains("RequestTimeout"), "{said}");
    let tag = tag_of(&face.part(&data, &id, 1, "whole").await);
    assert_eq!(face.complete(&data, &id, &[tag]).await.status, 200);
    assert_eq!(face.get(&format!("/{data}")).await.body, "whole");
}

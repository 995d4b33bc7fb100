//! Abandoned upload sessions go; others, and everything that is no session, stay.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use shoal_driver::{DriverPath, FilesystemDriver, RegistryPath, UploadId};
use shoal_registry::maintenance::{PurgePolicy, PurgeReport};
use std::sync::Arc;

use crate::rig::{DAY, Rig, in_a_month, name};

const HOUR: Duration = Duration::from_secs(60 * 60);

fn week() -> PurgePolicy {
    PurgePolicy { age: 7 * DAY, dry_run: false }
}

async fn purge(rig: &Rig, now: SystemTime) -> PurgeReport {
    rig.maintenance().purge_uploads(now, &week()).await.unwrap()
}

/// A session whose `startedat` says that it is so old.
async fn session(rig: &Rig, repository: &str, startedat: &str) -> RegistryPath {
    let id = UploadId::random();
    rig.put(RegistryPath::UploadStartedAt(name(repository), id), startedat.to_owned()).await;
    RegistryPath::Upload(name(repository), id)
}

#[tokio::test]
async fn sessions_of_every_repository_are_found() {
    let rig = Rig::new();
    for repository in ["a", "a/b", "a/b/c", "blobs", "z"] {
        session(&rig, repository, "2020-01-01T00:00:00Z").await;
    }
    rig.push_image("library/app", Some("v1"), "one").await;
    assert_eq!(purge(&rig, SystemTime::now()).await, PurgeReport { sessions: 5, purged: 5, in_use: 0 });
}

#[tokio::test]
async fn young_sessions_stay() {
    let rig = Rig::new();
    for _ in 0..3 {
        rig.start_upload("app").await;
    }
    let now = SystemTime::now();
    assert_eq!(purge(&rig, now).await, PurgeReport { sessions: 3, ..Default::default() });
    assert_eq!(purge(&rig, now + 167 * HOUR).await.purged, 0);
}

#[tokio::test]
async fn old_sessions_go_and_are_unknown_to_their_clients() {
    let rig = Rig::new();
    let location = rig.start_upload("app").await;
    assert_eq!(rig.send("PATCH", &location, "half of it").await, StatusCode::ACCEPTED);
    assert_eq!(purge(&rig, in_a_month()).await, PurgeReport { sessions: 1, purged: 1, in_use: 0 });
    assert_eq!(rig.send("PATCH", &location, "the rest").await, StatusCode::NOT_FOUND);
    assert_eq!(purge(&rig, in_a_month()).await, PurgeReport::default());
}

#[tokio::test]
async fn only_the_old_ones_of_many_go() {
    let rig = Rig::new();
    let old = session(&rig, "app", "2020-01-01T00:00:00Z").await;
    let zoned = session(&rig, "app", " 2020-01-01T02:00:00.5+02:00\n").await;
    let future = session(&rig, "app", "2999-01-01T00:00:00Z").await;
    let young = rig.start_upload("app").await;
    assert_eq!(purge(&rig, SystemTime::now()).await, PurgeReport { sessions: 4, purged: 2, in_use: 0 });
    assert!(!rig.has(old).await && !rig.has(zoned).await && rig.has(future).await);
    assert_eq!(rig.send("PATCH", &young, "bytes").await, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn nothing_but_sessions_is_touched() {
    let rig = Rig::new();
    rig.push_image("app", Some("v1"), "one").await;
    rig.put_blob("app", b"unreferenced").await;
    let stray =
        DriverPath::parse("/docker/registry/v2/repositories/app/_uploads/not-a-uuid/startedat").unwrap();
    let context = shoal_driver::Context::default();
    rig.driver.put_content(&context, &stray, "2020-01-01T00:00:00Z".into()).await.unwrap();
    let before = rig.files().await;
    session(&rig, "app", "2020-01-01T00:00:00Z").await;
    assert_eq!(purge(&rig, in_a_month()).await.purged, 1);
    assert_eq!(rig.files().await, before);
}

#[tokio::test]
async fn without_a_start_the_folders_time_counts() {
    let rig = Rig::new();
    let (missing, garbage) = (UploadId::random(), session(&rig, "app", "yesterday").await);
    let state = RegistryPath::UploadHashState(name("app"), missing, shoal_core::Algorithm::Sha256, 7);
    rig.put(state, "state").await;
    assert_eq!(purge(&rig, SystemTime::now()).await.purged, 0);
    assert_eq!(purge(&rig, in_a_month()).await.purged, 2);
    assert!(!rig.has(garbage).await && !rig.has(RegistryPath::Upload(name("app"), missing)).await);
}

#[tokio::test]
async fn session_that_is_being_written_to_stays() {
    let directory = tempfile::tempdir().unwrap();
    let rig = Rig::on(Arc::new(FilesystemDriver::new(directory.path())));
    let location = rig.start_upload("app").await;
    let (parts, body) = tokio::sync::mpsc::channel::<Result<bytes::Bytes, std::io::Error>>(1);
    let body = futures_util::stream::unfold(body, |mut body| async { Some((body.recv().await?, body)) });
    let patch = rig.send("PATCH", &location, axum::body::Body::from_stream(body));
    let during = async {
        parts.send(Ok("half of it".into())).await.unwrap();
        // The second part is taken only when the first one is being written: the session is claimed by then.
        parts.send(Ok(" ".into())).await.unwrap();
        parts.send(Ok("and the rest".into())).await.unwrap();
        let report = purge(&rig, in_a_month()).await;
        drop(parts);
        report
    };
    let (status, report) = tokio::join!(patch, during);
    assert_eq!(report, PurgeReport { sessions: 1, purged: 0, in_use: 1 });
    assert_eq!(status, StatusCode::ACCEPTED);
    assert_eq!(purge(&rig, in_a_month()).await.purged, 1);
}

#[tokio::test]
async fn dry_purge_counts_and_removes_nothing() {
    let rig = Rig::new();
    session(&rig, "app", "2020-01-01T00:00:00Z").await;
    let dry = PurgePolicy { dry_run: true, ..week() };
    assert_eq!(rig.maintenance().purge_uploads(SystemTime::now(), &dry).await.unwrap().purged, 1);
    assert_eq!(purge(&rig, SystemTime::now()).await.purged, 1);
}

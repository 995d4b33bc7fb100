//! What only the filesystem driver promises: restarts, crashes, and a directory that nobody gets out of.

// Functions that tests share are no tests to clippy.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use shoal_driver::{
    ByteRange, Context, DriverError, DriverPath, FilesystemDriver, StorageDriver as _, WriteMode,
};

fn path(text: &str) -> DriverPath {
    DriverPath::parse(text).unwrap()
}

fn files_in(directory: &Path) -> usize {
    fs::read_dir(directory).unwrap().count()
}

#[tokio::test]
async fn uncommitted_content_survives_a_restart() {
    let (directory, context, file) = (tempfile::tempdir().unwrap(), Context::default(), path("/upload/data"));
    let before = FilesystemDriver::new(directory.path());
    let mut writer = before.writer(&context, &file, WriteMode::Create).await.unwrap();
    writer.write(Bytes::from_static(b"first, ")).await.unwrap();
    writer.close().await.unwrap();
    drop((writer, before));

    let after = FilesystemDriver::new(directory.path());
    assert!(matches!(after.get_content(&context, &file).await, Err(DriverError::PathNotFound { .. })));
    let mut writer = after.writer(&context, &file, WriteMode::Append).await.unwrap();
    assert_eq!(writer.size(), 7);
    writer.write(Bytes::from_static(b"then")).await.unwrap();
    writer.commit().await.unwrap();
    assert_eq!(after.get_content(&context, &file).await.unwrap(), "first, then");
}

#[tokio::test]
async fn a_dropped_writer_leaves_its_path_to_the_next() {
    let (directory, context, file) = (tempfile::tempdir().unwrap(), Context::default(), path("/upload/data"));
    let driver = FilesystemDriver::new(directory.path());
    let mut writer = driver.writer(&context, &file, WriteMode::Create).await.unwrap();
    writer.write(Bytes::from(vec![1; 1024 * 1024])).await.unwrap();
    drop(writer);
    let writer = driver.writer(&context, &file, WriteMode::Append).await.unwrap();
    assert_eq!(writer.size(), 1024 * 1024);
}

#[tokio::test]
async fn what_a_crash_left_is_removed_and_was_never_visible() {
    let (directory, context) = (tempfile::tempdir().unwrap(), Context::default());
    let temporary = directory.path().join("temporary");
    fs::create_dir_all(temporary.join("half/deleted")).unwrap();
    fs::write(temporary.join("half-written"), "x").unwrap();
    let driver = FilesystemDriver::new(directory.path());
    assert_eq!(driver.list(&context, &DriverPath::root()).await.unwrap(), []);
    assert_eq!(files_in(&temporary), 0);
}

#[tokio::test]
async fn operations_leave_no_temporary_file() {
    let (directory, context) = (tempfile::tempdir().unwrap(), Context::default());
    let driver = FilesystemDriver::new(directory.path());
    driver.put_content(&context, &path("/a/b"), Bytes::from_static(b"x")).await.unwrap();
    assert!(driver.put_content(&context, &path("/a"), Bytes::from_static(b"x")).await.is_err());
    let mut writer = driver.writer(&context, &path("/c/d"), WriteMode::Create).await.unwrap();
    writer.commit().await.unwrap();
    driver.delete(&context, &path("/a")).await.unwrap();
    assert_eq!(files_in(&directory.path().join("temporary")), 0);
    assert_eq!(files_in(&directory.path().join("pending")), 0, "a committed upload left its folders");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_never_seen_without_what_it_was_made_for() {
    let (directory, context) = (tempfile::tempdir().unwrap(), Context::default());
    let driver = FilesystemDriver::new(directory.path());
    let writing = (0..40).map(|number| {
        let (driver, context) = (driver.clone(), context.clone());
        tokio::spawn(async move {
            // Two at a time make the same directories.
            let file = path(&format!("/tags/{}/current/link-{}", number / 2, number % 2));
            driver.put_content(&context, &file, Bytes::from_static(b"x")).await.unwrap();
        })
    });
    let mut writing = tokio::task::JoinSet::from_iter(writing);
    let mut written = 0;
    while written < 40 {
        for tag in driver.list(&context, &path("/tags")).await.unwrap_or_default() {
            let links = driver.list(&context, &tag.child("current").unwrap()).await.unwrap();
            assert!(!links.is_empty(), "{tag} has nothing");
        }
        while let Some(ended) = writing.try_join_next() {
            ended.unwrap().unwrap();
            written += 1;
        }
    }
    for number in 0..40 {
        let file = path(&format!("/tags/{}/current/link-{}", number / 2, number % 2));
        assert_eq!(driver.get_content(&context, &file).await.unwrap(), "x");
    }
    assert_eq!(files_in(&directory.path().join("temporary")), 0);
}

#[tokio::test]
async fn no_symbolic_link_leads_out_of_the_directory() {
    let (directory, outside, context) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), Context::default());
    fs::write(outside.path().join("secret"), "secret").unwrap();
    let driver = FilesystemDriver::new(directory.path());
    driver.put_content(&context, &path("/a/real"), Bytes::from_static(b"x")).await.unwrap();
    let inside = driver.file_of(&path("/a"));
    symlink(outside.path(), inside.join("folder")).unwrap();
    symlink(outside.path().join("secret"), inside.join("file")).unwrap();

    for link in ["/a/file", "/a/folder", "/a/folder/secret"].map(path) {
        let missing = |error: DriverError| matches!(error, DriverError::PathNotFound { .. });
        assert!(missing(driver.get_content(&context, &link).await.unwrap_err()), "{link}");
        assert!(missing(driver.stat(&context, &link).await.unwrap_err()), "{link}");
        assert!(missing(driver.list(&context, &link).await.unwrap_err()), "{link}");
        assert!(driver.reader(&context, &link, ByteRange::default()).await.is_err(), "{link}");
        assert!(driver.rename(&context, &link, &path("/stolen")).await.is_err(), "{link}");
    }
    let under = path("/a/folder/new");
    assert!(driver.put_content(&context, &under, Bytes::from_static(b"x")).await.is_err());
    assert_eq!(driver.list(&context, &path("/a")).await.unwrap(), [path("/a/real")]);
    driver.delete(&context, &path("/a")).await.unwrap();
    assert_eq!(fs::read(outside.path().join("secret")).unwrap(), b"secret");
    assert_eq!(files_in(outside.path()), 1);
}

#[tokio::test]
async fn a_pipe_in_the_directory_is_no_content_and_blocks_nobody() {
    let (directory, context) = (tempfile::tempdir().unwrap(), Context::default());
    let driver = FilesystemDriver::new(directory.path());
    driver.put_content(&context, &path("/a/real"), Bytes::from_static(b"x")).await.unwrap();
    let pipe = driver.file_of(&path("/a/pipe"));
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
    let read = driver.get_content(&context, &path("/a/pipe")).await;
    assert!(matches!(read, Err(DriverError::PathNotFound { .. })));
    assert_eq!(driver.list(&context, &path("/a")).await.unwrap(), [path("/a/real")]);
}

#[tokio::test]
async fn a_writer_whose_upload_was_replaced_does_not_commit_the_other() {
    let (directory, context, file) = (tempfile::tempdir().unwrap(), Context::default(), path("/upload/data"));
    let driver = FilesystemDriver::new(directory.path());
    let mut first = driver.writer(&context, &file, WriteMode::Create).await.unwrap();
    first.write(Bytes::from_static(b"first")).await.unwrap();
    driver.delete(&context, &path("/upload")).await.unwrap();
    let mut second = driver.writer(&context, &file, WriteMode::Create).await.unwrap();
    second.write(Bytes::from_static(b"second")).await.unwrap();
    assert!(matches!(first.commit().await, Err(DriverError::PathNotFound { .. })));
    first.cancel().await.unwrap();
    second.commit().await.unwrap();
    assert_eq!(driver.get_content(&context, &file).await.unwrap(), "second");
}

#[tokio::test]
async fn streams_come_in_bounded_parts() {
    let (directory, context, file) = (tempfile::tempdir().unwrap(), Context::default(), path("/large"));
    let driver = FilesystemDriver::new(directory.path());
    driver.put_content(&context, &file, Bytes::from(vec![1; 3_000_000])).await.unwrap();
    let stream = driver.reader(&context, &file, ByteRange::default()).await.unwrap();
    let parts: Vec<Bytes> = stream.try_collect().await.unwrap();
    assert!(parts.iter().all(|part| part.len() <= 256 * 1024));
    assert_eq!(parts.iter().map(Bytes::len).sum::<usize>(), 3_000_000);
}

#[tokio::test]
async fn what_is_reserved_is_not_for_writers_and_what_they_wrote_stays() {
    let (directory, context, file) = (tempfile::tempdir().unwrap(), Context::default(), path("/upload/data"));
    let roomy = FilesystemDriver::new(directory.path());
    assert!(roomy.room().await.unwrap().unwrap() > 0);
    let mut writer = roomy.writer(&context, &file, WriteMode::Create).await.unwrap();
    writer.write(Bytes::from_static(b"first")).await.unwrap();
    writer.close().await.unwrap();

    let full = FilesystemDriver::with_reserve(directory.path(), u64::MAX);
    assert_eq!(full.room().await.unwrap(), Some(0));
    let refused = full.writer(&context, &path("/other/data"), WriteMode::Create).await;
    assert!(matches!(refused.err(), Some(DriverError::NoSpace { driver: "filesystem", .. })));
    full.put_content(&context, &path("/link"), Bytes::from_static(b"small")).await.unwrap();
    let mut writer = full.writer(&context, &file, WriteMode::Append).await.unwrap();
    let refused = writer.write(Bytes::from(vec![1; 1 << 20])).await;
    assert!(matches!(refused, Err(DriverError::NoSpace { .. })), "{refused:?}");
    writer.close().await.unwrap();
    let mut writer = full.writer(&context, &file, WriteMode::Append).await.unwrap();
    assert_eq!(writer.size(), 5);
    writer.cancel().await.unwrap();
}

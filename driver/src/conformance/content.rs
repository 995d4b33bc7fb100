//! Content that is put and got whole.

use bytes::Bytes;
use futures_util::future::join_all;

use super::{Bench, Outcome, Violation, bytes, ensure, ensure_error, path};
use crate::driver::{ByteRange, MAX_CONTENT_LENGTH};
use crate::error::DriverError;
use crate::path::DriverPath;

pub(super) async fn root_exists(bench: Bench) -> Outcome {
    let root = DriverPath::root();
    let children = bench.list(&root).await?;
    ensure!(children.is_empty(), "an empty driver lists {children:?}");
    let info = bench.driver.stat(&bench.context, &root).await?;
    ensure!(info.is_directory && info.size == 0 && info.path == root, "the root is {info:?}");
    Ok(())
}

pub(super) async fn valid_paths_hold_content(bench: Bench) -> Outcome {
    let long = format!("/{}/{}", "n".repeat(255), "-".repeat(255));
    let paths = [
        "/a",
        "/2",
        "/aa",
        "/a.a",
        "/0-9/abcdefg",
        "/abcdefg/z.75",
        "/abc/1.2.3.4.5-6_zyx/123.z/4",
        "/docker/docker-registry",
        "/123.abc",
        "/abc./abc",
        "/.abc",
        "/a--b",
        "/a-.b",
        "/_.abc",
        "/Docker/docker-registry",
        "/Abc/Cba",
        "/...",
        &long,
    ];
    for (seed, text) in paths.iter().enumerate() {
        bench.put(&path(text), bytes(32, seed as u64)).await?;
    }
    for (seed, text) in paths.iter().enumerate() {
        ensure!(bench.get(&path(text)).await? == bytes(32, seed as u64), "{text} has other content");
    }
    Ok(())
}

pub(super) async fn the_root_holds_no_content(bench: Bench) -> Outcome {
    let root = DriverPath::root();
    ensure_error!(bench, bench.get(&root).await, DriverError::InvalidPath { .. });
    ensure_error!(bench, bench.put(&root, Bytes::new()).await, DriverError::InvalidPath { .. });
    ensure_error!(bench, bench.read(&root, ByteRange::default()).await, DriverError::InvalidPath { .. });
    ensure_error!(bench, bench.delete(&root).await, DriverError::InvalidPath { .. });
    ensure_error!(bench, bench.rename(&root, &path("/a")).await, DriverError::InvalidPath { .. });
    Ok(())
}

pub(super) async fn put_content_is_read_back(bench: Bench) -> Outcome {
    let file = path("/content/file");
    let contents = [
        Bytes::new(),
        Bytes::from_static(b"a"),
        Bytes::from_static("\u{c3}\u{9f}ñ漢字".as_bytes()),
        Bytes::from_static(&[0x80; 4]),
        bytes(32, 1),
        bytes(1024 * 1024, 2),
    ];
    for content in contents {
        bench.put(&file, content.clone()).await?;
        ensure!(bench.get(&file).await? == content, "{} bytes came back changed", content.len());
    }
    Ok(())
}

pub(super) async fn put_content_replaces_all_of_it(bench: Bench) -> Outcome {
    let file = path("/content/file");
    for (length, seed) in [(1024 * 1024, 1), (1024, 2), (4096, 3), (4096, 4)] {
        bench.put(&file, bytes(length, seed)).await?;
        ensure!(bench.get(&file).await? == bytes(length, seed), "the put of {length} bytes did not replace");
    }
    Ok(())
}

pub(super) async fn missing_content_is_not_found(bench: Bench) -> Outcome {
    let missing = path("/missing/file");
    ensure_error!(bench, bench.get(&missing).await, DriverError::PathNotFound { .. });
    bench.put(&path("/missing/other"), "there").await?;
    ensure_error!(bench, bench.get(&missing).await, DriverError::PathNotFound { .. });
    ensure_error!(bench, bench.get(&path("/missing")).await, DriverError::PathNotFound { .. });
    Ok(())
}

pub(super) async fn concurrent_puts_are_never_mixed(bench: Bench) -> Outcome {
    const WRITERS: u64 = 8;
    let file = path("/content/file");
    let one_of_them = |content: &Bytes| (0..WRITERS).any(|seed| *content == bytes(8192, seed));
    bench.put(&file, bytes(8192, 0)).await?;
    let puts = join_all((0..WRITERS).map(|seed| bench.put(&file, bytes(8192, seed))));
    let gets = join_all((0..WRITERS).map(|_| bench.get(&file)));
    let (puts, gets) = futures_util::future::join(puts, gets).await;
    puts.into_iter().collect::<Result<Vec<()>, _>>()?;
    for got in gets {
        ensure!(one_of_them(&got?), "a reader saw content that nobody put");
    }
    ensure!(one_of_them(&bench.get(&file).await?), "the content left is nobody's");
    Ok(())
}

pub(super) async fn content_over_the_limit_is_for_readers(bench: Bench) -> Outcome {
    let file = path("/content/large");
    let limit = MAX_CONTENT_LENGTH as usize;
    bench.put(&file, vec![7; limit]).await?;
    ensure!(bench.get(&file).await?.len() == limit, "content of the greatest length was cut");
    bench.write(&file, &Bytes::from(vec![7; limit + 1]), limit).await?;
    ensure_error!(bench, bench.get(&file).await, DriverError::InvalidRequest { .. });
    ensure!(bench.read(&file, ByteRange::default()).await?.len() == limit + 1, "the reader cut it");
    Ok(())
}

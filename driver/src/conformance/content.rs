//! Content that is put and got whole.

use bytes::Bytes;
use futures_util::future::join_all;

use super::bench::Bench;
use super::{Outcome, Refusal, Violation, bytes, ensure, ensure_error};
use crate::driver::{ByteRange, MAX_CONTENT_LENGTH, WriteMode};
use crate::error::DriverError;
use crate::path::DriverPath;

/// Bodies that a careless driver changes: none, one byte, text of two and three bytes a character, no text at all, random
/// bytes of a few and of many.
pub(super) fn bodies() -> [Bytes; 6] {
    [
        Bytes::new(),
        Bytes::from_static(b"a"),
        Bytes::from_static("\u{c3}\u{9f}ñ漢字".as_bytes()),
        Bytes::from_static(&[0x80; 4]),
        bytes(32, 1),
        bytes(1024 * 1024, 2),
    ]
}

pub(super) async fn root_exists(bench: Bench) -> Outcome {
    let root = DriverPath::root();
    let children = bench.list(&root).await?;
    ensure!(children == bench.layout().trunk(), "an empty driver lists {children:?}");
    let info = bench.stat(&root).await?;
    ensure!(info.is_directory && info.size == 0 && info.path == root, "the root is {info:?}");
    Ok(())
}

pub(super) async fn unusual_paths_hold_content(bench: Bench) -> Outcome {
    let paths = bench.layout().unusual_notes();
    for (seed, path) in paths.iter().enumerate() {
        bench.put(path, bytes(32, seed as u64)).await?;
    }
    for (seed, path) in paths.iter().enumerate() {
        ensure!(bench.get(path).await? == bytes(32, seed as u64), "{path} has other content");
    }
    Ok(())
}

pub(super) async fn hostile_texts_are_no_paths(bench: Bench) -> Outcome {
    let good = bench.note(1, 1);
    let (long_part, long_path) = (format!("/{}", "a".repeat(256)), "/a".repeat(2049));
    let texts = ["", "abc", "123.abc", "//bcd", "/abc_123/", "..", "/..", "/.", "/%2e%2e", "/a\0", "/a b"];
    let hostile = texts.iter().copied().chain([long_part.as_str(), long_path.as_str()]);
    for text in hostile {
        ensure!(DriverPath::parse(text).is_err(), "{text:?} is a path");
    }
    for end in ["/..", "/.", "/", "//x", "/../../x", "/%2e%2e/x", "/x\0", "/..\\x", "\n"] {
        ensure!(DriverPath::parse(&format!("{good}{end}")).is_err(), "{good}{end:?} is a path");
    }
    Ok(())
}

pub(super) async fn foreign_paths_are_refused(bench: Bench) -> Outcome {
    let to = bench.layout().blob(b"x");
    for foreign in bench.layout().foreign() {
        let refusals = [
            bench.get(&foreign).await.err(),
            bench.put(&foreign, "x").await.err(),
            bench.read_all(&foreign).await.err(),
            bench.writer(&foreign, WriteMode::Create).await.err(),
            bench.writer(&foreign, WriteMode::Append).await.err(),
            bench.rename(&foreign, &to).await.err(),
            bench.rename(&bench.stream(1), &foreign).await.err(),
            bench.delete(&foreign).await.err(),
        ];
        for (operation, error) in refusals.into_iter().enumerate() {
            let error =
                error.ok_or_else(|| Violation::new(format_args!("{operation} {foreign} succeeded")))?;
            ensure!(Refusal::of(&error).is_some(), "{operation} {foreign} gave {error:?}");
            bench.names_itself(&error)?;
        }
        if !foreign.is_root() {
            let (stat, list) = (bench.stat(&foreign).await, bench.list(&foreign).await);
            ensure_error!(bench, stat, DriverError::InvalidPath { .. });
            ensure_error!(bench, list, DriverError::InvalidPath { .. });
        }
    }
    Ok(())
}

pub(super) async fn folders_hold_no_content(bench: Bench) -> Outcome {
    let blob = bench.subject.plant(bytes(32, 1)).await?;
    let folder = bench.layout().home(&blob);
    let errors = [
        bench.get(&folder).await.err(),
        bench.read_all(&folder).await.err(),
        bench.put(&folder, "x").await.err(),
        bench.writer(&folder, WriteMode::Create).await.err(),
        bench.writer(&folder, WriteMode::Append).await.err(),
    ];
    for (operation, error) in errors.into_iter().enumerate() {
        let error = error.ok_or_else(|| Violation::new(format_args!("{operation} {folder} succeeded")))?;
        bench.names_itself(&error)?;
    }
    ensure!(bench.read_all(&blob).await? == bytes(32, 1), "what is in the folder was changed");
    Ok(())
}

pub(super) async fn put_content_is_read_back(bench: Bench) -> Outcome {
    let file = bench.note(1, 1);
    for content in bodies() {
        bench.put(&file, content.clone()).await?;
        ensure!(bench.get(&file).await? == content, "{} bytes came back changed", content.len());
    }
    Ok(())
}

pub(super) async fn put_content_replaces_all_of_it(bench: Bench) -> Outcome {
    let file = bench.note(1, 1);
    for (length, seed) in [(1024 * 1024, 1), (1024, 2), (4096, 3), (4096, 4)] {
        bench.put(&file, bytes(length, seed)).await?;
        ensure!(bench.get(&file).await? == bytes(length, seed), "the put of {length} bytes did not replace");
    }
    Ok(())
}

pub(super) async fn missing_content_is_not_found(bench: Bench) -> Outcome {
    bench.subject.plant(bytes(32, 1)).await?;
    for missing in [bench.note(1, 1), bench.layout().blob(&bytes(32, 2))] {
        ensure_error!(bench, bench.get(&missing).await, DriverError::PathNotFound { .. });
    }
    Ok(())
}

pub(super) async fn planted_content_is_read_back(bench: Bench) -> Outcome {
    for content in bodies() {
        let blob = bench.subject.plant(content.clone()).await?;
        ensure!(bench.get(&blob).await? == content, "{} bytes were got changed", content.len());
        ensure!(bench.read_all(&blob).await? == content, "{} bytes were read changed", content.len());
    }
    Ok(())
}

pub(super) async fn planted_content_is_described(bench: Bench) -> Outcome {
    let blob = bench.subject.plant(bytes(4097, 1)).await?;
    let info = bench.stat(&blob).await?;
    ensure!(info.path == blob && info.size == 4097 && !info.is_directory, "the blob is {info:?}");
    let missing = bench.layout().blob(&bytes(4097, 2));
    ensure_error!(bench, bench.stat(&missing).await, DriverError::PathNotFound { .. });
    Ok(())
}

pub(super) async fn content_over_the_limit_is_for_readers(bench: Bench) -> Outcome {
    let limit = MAX_CONTENT_LENGTH as usize;
    let largest = bench.subject.plant(vec![7; limit].into()).await?;
    ensure!(bench.get(&largest).await?.len() == limit, "content of the greatest length was cut");
    let larger = bench.subject.plant(vec![7; limit + 1].into()).await?;
    ensure_error!(bench, bench.get(&larger).await, DriverError::InvalidRequest { .. });
    ensure!(bench.read_all(&larger).await?.len() == limit + 1, "the reader cut it");
    Ok(())
}

pub(super) async fn concurrent_puts_are_never_mixed(bench: Bench) -> Outcome {
    const WRITERS: u64 = 8;
    let file = bench.note(1, 1);
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

pub(super) async fn a_redirect_is_a_place(bench: Bench) -> Outcome {
    let blob = bench.subject.plant(bytes(32, 1)).await?;
    match bench.driver.redirect_url(&bench.context, &blob).await? {
        Some(url) => ensure!(url.starts_with("https://") || url.starts_with("http://"), "{url} is no place"),
        // Its server serves it itself, from here.
        None => ensure!(bench.read(&blob, ByteRange::default()).await?.len() == 32, "not even here"),
    }
    Ok(())
}

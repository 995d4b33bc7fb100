//! Content that is written and read in parts.

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt as _;
use futures_util::future::try_join_all;
use shoal_core::{Algorithm, Digester};

use super::bench::Bench;
use super::content::bodies;
use super::{Outcome, bytes, ensure, ensure_error};
use crate::driver::{ByteRange, ByteStream, WriteMode};
use crate::error::DriverError;
use crate::path::DriverPath;

pub(super) async fn written_streams_are_read_back(bench: Bench) -> Outcome {
    let file = bench.stream(1);
    for content in bodies() {
        for part in [7777, 700_000] {
            bench.write(&file, &content, part).await?;
            let read = bench.read_all(&file).await?;
            ensure!(read == content, "{} bytes in parts of {part} came back changed", content.len());
        }
        let size = bench.stat(&file).await?.size;
        ensure!(size == content.len() as u64, "{} bytes are said to be {size}", content.len());
    }
    Ok(())
}

/// What distribution does with 5 GB: more than any buffer on the way, compared by digest.
pub(super) async fn a_large_stream_is_read_back(bench: Bench) -> Outcome {
    const PARTS: u64 = 16;
    let (file, part) = (bench.stream(1), 1_000_003);
    let mut written = Digester::new(Algorithm::Sha256);
    let mut writer = bench.writer(&file, WriteMode::Create).await?;
    for seed in 0..PARTS {
        let bytes = bytes(part, seed);
        written.update(&bytes);
        writer.write(bytes).await?;
    }
    writer.commit().await?;
    writer.close().await?;
    let mut read = Digester::new(Algorithm::Sha256);
    let mut stream = bench.driver.reader(&bench.context, &file, ByteRange::default()).await?;
    while let Some(bytes) = stream.try_next().await? {
        read.update(&bytes);
    }
    ensure!(read.finish() == written.finish(), "{PARTS} parts of {part} bytes came back changed");
    Ok(())
}

pub(super) async fn ranges_give_their_bytes(bench: Bench) -> Outcome {
    let content = bytes(600_000, 1);
    let file = bench.subject.plant(content.clone()).await?;
    let length = content.len() as u64;
    for start in [0, 1, 32, 262_144, 300_000, length - 1, length, length + 1, u64::MAX] {
        for end in [None, Some(0), Some(start), Some(start.saturating_add(33)), Some(length), Some(u64::MAX)]
        {
            let range = ByteRange { start, end };
            let expected = range.within(length);
            let expected = content.slice(expected.start as usize..expected.end as usize);
            ensure!(bench.read(&file, range).await? == expected, "{range:?} gave other bytes");
        }
    }
    Ok(())
}

pub(super) async fn missing_streams_are_not_found(bench: Bench) -> Outcome {
    bench.subject.plant(bytes(32, 1)).await?;
    for missing in [bench.stream(1), bench.layout().blob(&bytes(32, 2))] {
        for range in [ByteRange::default(), ByteRange::from(64)] {
            ensure_error!(bench, bench.read(&missing, range).await, DriverError::PathNotFound { .. });
        }
        ensure_error!(bench, bench.stat(&missing).await, DriverError::PathNotFound { .. });
    }
    Ok(())
}

pub(super) async fn appending_goes_on_where_it_was(bench: Bench) -> Outcome {
    for (round, length) in [32, 5000, 300_000].into_iter().enumerate() {
        let (file, content) = (bench.stream(round as u64), bytes(3 * length, round as u64));
        for part in 0..3 {
            let mode = if part == 0 { WriteMode::Create } else { WriteMode::Append };
            let mut writer = bench.writer(&file, mode).await?;
            let size = writer.size();
            ensure!(size == (part * length) as u64, "part {part} of {length} bytes starts at {size}");
            writer.write(content.slice(part * length..(part + 1) * length)).await?;
            ensure!(writer.size() == ((part + 1) * length) as u64, "the size does not grow");
            writer.close().await?;
        }
        let mut writer = bench.writer(&file, WriteMode::Append).await?;
        writer.commit().await?;
        writer.close().await?;
        ensure!(bench.read_all(&file).await? == content, "parts of {length} were mixed");
    }
    Ok(())
}

pub(super) async fn empty_commit_can_be_appended_to(bench: Bench) -> Outcome {
    let file = bench.stream(1);
    bench.write(&file, &Bytes::new(), 1).await?;
    append_to_empty(&bench, &file).await
}

pub(super) async fn empty_content_can_be_appended_to(bench: Bench) -> Outcome {
    let file = bench.stream(1);
    bench.put(&file, Bytes::new()).await?;
    append_to_empty(&bench, &file).await
}

async fn append_to_empty(bench: &Bench, file: &DriverPath) -> Outcome {
    ensure!(bench.read_all(file).await?.is_empty(), "it is not empty");
    let mut writer = bench.writer(file, WriteMode::Append).await?;
    ensure!(writer.size() == 0, "the writer does not start at 0");
    writer.write(bytes(64, 1)).await?;
    writer.commit().await?;
    writer.close().await?;
    ensure!(bench.read_all(file).await? == bytes(64, 1), "other content than was appended");
    Ok(())
}

pub(super) async fn appending_to_nothing_is_not_found(bench: Bench) -> Outcome {
    let missing = bench.stream(1);
    ensure_error!(bench, bench.writer(&missing, WriteMode::Append).await, DriverError::PathNotFound { .. });
    Ok(())
}

pub(super) async fn uncommitted_content_is_not_visible(bench: Bench) -> Outcome {
    let (file, committed, old) = (bench.stream(1), bench.stream(2), bytes(32, 2));
    bench.write(&committed, &old, 32).await?;
    for stream in [&file, &committed] {
        let mut writer = bench.writer(stream, WriteMode::Create).await?;
        writer.write(bytes(500_000, 1)).await?;
        writer.close().await?;
    }
    ensure_error!(bench, bench.read_all(&file).await, DriverError::PathNotFound { .. });
    ensure_error!(bench, bench.stat(&file).await, DriverError::PathNotFound { .. });
    let folder = bench.layout().home(&file);
    ensure_error!(bench, bench.list(&folder).await, DriverError::PathNotFound { .. });
    ensure!(bench.read_all(&committed).await? == old, "a rewrite shows before its commit");
    let mut seen = bench.walk(&DriverPath::root());
    while let Some(info) = seen.next().await? {
        ensure!(!info.path.is_within(&folder), "a walk sees {}", info.path);
    }
    for stream in [&file, &committed] {
        bench.delete(&bench.layout().home(stream)).await?;
    }
    Ok(())
}

pub(super) async fn cancel_leaves_nothing(bench: Bench) -> Outcome {
    let file = bench.stream(1);
    let folder = bench.layout().home(&file);
    let mut writer = bench.writer(&file, WriteMode::Create).await?;
    writer.write(bytes(500_000, 1)).await?;
    writer.cancel().await?;
    writer.close().await?;
    ensure_error!(bench, bench.read_all(&file).await, DriverError::PathNotFound { .. });
    ensure_error!(bench, bench.writer(&file, WriteMode::Append).await, DriverError::PathNotFound { .. });
    ensure_error!(bench, bench.list(&folder).await, DriverError::PathNotFound { .. });
    ensure_error!(bench, bench.delete(&folder).await, DriverError::PathNotFound { .. });
    Ok(())
}

pub(super) async fn a_writer_ends_once(bench: Bench) -> Outcome {
    let file = bench.stream(1);
    let mut writer = bench.writer(&file, WriteMode::Create).await?;
    writer.commit().await?;
    ensure_error!(bench, writer.write(bytes(1, 1)).await, DriverError::Failed { .. });
    ensure_error!(bench, writer.commit().await, DriverError::Failed { .. });
    ensure_error!(bench, writer.cancel().await, DriverError::Failed { .. });
    writer.close().await?;
    ensure_error!(bench, writer.close().await, DriverError::Failed { .. });
    ensure_error!(bench, writer.write(bytes(1, 1)).await, DriverError::Failed { .. });
    ensure_error!(bench, writer.commit().await, DriverError::Failed { .. });
    ensure_error!(bench, writer.cancel().await, DriverError::Failed { .. });
    let mut cancelled = bench.writer(&file, WriteMode::Create).await?;
    cancelled.cancel().await?;
    ensure_error!(bench, cancelled.commit().await, DriverError::Failed { .. });
    cancelled.close().await?;
    ensure!(
        bench.read_all(&file).await?.is_empty(),
        "a cancelled rewrite took the committed content with it"
    );
    Ok(())
}

pub(super) async fn create_truncates_what_was_not_committed(bench: Bench) -> Outcome {
    let file = bench.stream(1);
    let mut writer = bench.writer(&file, WriteMode::Create).await?;
    writer.write(bytes(5000, 1)).await?;
    writer.close().await?;
    bench.write(&file, &bytes(32, 2), 32).await?;
    ensure!(bench.read_all(&file).await? == bytes(32, 2), "old bytes are left");
    Ok(())
}

pub(super) async fn a_path_has_one_writer(bench: Bench) -> Outcome {
    let file = bench.stream(1);
    let mut first = bench.writer(&file, WriteMode::Create).await?;
    first.write(bytes(32, 1)).await?;
    for mode in [WriteMode::Create, WriteMode::Append] {
        ensure_error!(bench, bench.writer(&file, mode).await, DriverError::Unavailable { .. });
    }
    first.close().await?;
    let mut second = bench.writer(&file, WriteMode::Append).await?;
    ensure!(second.size() == 32, "the second writer does not see what the first wrote");
    second.commit().await?;
    second.close().await?;
    Ok(())
}

pub(super) async fn streams_are_read_concurrently(bench: Bench) -> Outcome {
    let content = bytes(2_000_000, 1);
    let file = bench.subject.plant(content.clone()).await?;
    let starts = (0..10_u64).map(|reader| reader * 190_001);
    let tails = try_join_all(starts.clone().map(|start| bench.read(&file, ByteRange::from(start)))).await?;
    for (start, tail) in starts.zip(tails) {
        ensure!(tail == content.slice(start as usize..), "the reader at {start} got other bytes");
    }
    Ok(())
}

pub(super) async fn files_are_written_concurrently(bench: Bench) -> Outcome {
    let written = try_join_all((0..8_u64).map(|seed| {
        let bench = bench.clone();
        async move {
            let file = bench.stream(seed);
            bench.write(&file, &bytes(300_000, seed), 50_000).await?;
            Ok::<_, DriverError>(bench.read_all(&file).await? == bytes(300_000, seed))
        }
    }));
    ensure!(written.await?.iter().all(|same| *same), "files were mixed");
    Ok(())
}

pub(super) async fn a_commit_is_never_mixed_with_what_it_replaces(bench: Bench) -> Outcome {
    const ROUNDS: u64 = 8;
    let (file, length) = (bench.stream(1), 300_000);
    bench.write(&file, &bytes(length, 0), length).await?;
    let rewrites = async {
        for seed in 1..=ROUNDS {
            bench.write(&file, &bytes(length, seed), 50_000).await?;
        }
        Ok::<_, DriverError>(())
    };
    let reads = try_join_all((0..ROUNDS).map(|_| bench.read_all(&file)));
    let (rewritten, reads) = futures_util::future::join(rewrites, reads).await;
    rewritten?;
    for read in reads? {
        ensure!((0..=ROUNDS).any(|seed| read == bytes(length, seed)), "a reader saw a mixture");
    }
    ensure!(bench.read_all(&file).await? == bytes(length, ROUNDS), "the last commit did not stay");
    Ok(())
}

pub(super) async fn a_reader_outlives_its_content(bench: Bench) -> Outcome {
    let content = bytes(3_000_000, 1);
    let blob = bench.subject.plant(content.clone()).await?;
    let mut stream = bench.driver.reader(&bench.context, &blob, ByteRange::default()).await?;
    let mut read = BytesMut::new();
    if let Some(first) = stream.try_next().await? {
        read.extend_from_slice(&first);
    }
    bench.subject.uproot(&blob).await?;
    read_to_end(stream, &mut read).await?;
    ensure!(read == content, "the stream was cut when its content was deleted");
    Ok(())
}

pub(super) async fn a_reader_outlives_a_rewrite(bench: Bench) -> Outcome {
    let (file, content) = (bench.stream(1), bytes(1_000_000, 1));
    bench.write(&file, &content, 262_144).await?;
    let mut stream = bench.driver.reader(&bench.context, &file, ByteRange::default()).await?;
    let mut read = BytesMut::new();
    if let Some(first) = stream.try_next().await? {
        read.extend_from_slice(&first);
    }
    bench.write(&file, &bytes(32, 2), 32).await?;
    read_to_end(stream, &mut read).await?;
    ensure!(read == content, "the stream changed under its reader");
    Ok(())
}

async fn read_to_end(mut stream: ByteStream, read: &mut BytesMut) -> Result<(), DriverError> {
    while let Some(more) = stream.try_next().await? {
        read.extend_from_slice(&more);
    }
    Ok(())
}

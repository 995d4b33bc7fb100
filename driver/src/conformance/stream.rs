//! Content that is written and read in parts.

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt as _;
use futures_util::future::try_join_all;

use super::{Bench, Outcome, Violation, bytes, ensure, ensure_error, path};
use crate::driver::{ByteRange, WriteMode};
use crate::error::DriverError;

pub(super) async fn written_streams_are_read_back(bench: Bench) -> Outcome {
    let file = path("/stream/file");
    let contents = [
        Bytes::new(),
        Bytes::from_static(b"a"),
        Bytes::from_static("\u{c3}\u{9f}ñ漢字".as_bytes()),
        Bytes::from_static(&[0x80; 4]),
        bytes(32, 1),
        bytes(1024 * 1024, 2),
    ];
    for content in contents {
        for part in [7777, 700_000] {
            bench.write(&file, &content, part).await?;
            let read = bench.read(&file, ByteRange::default()).await?;
            ensure!(read == content, "{} bytes in parts of {part} came back changed", content.len());
        }
        let size = bench.driver.stat(&bench.context, &file).await?.size;
        ensure!(size == content.len() as u64, "{} bytes are said to be {size}", content.len());
    }
    Ok(())
}

pub(super) async fn ranges_give_their_bytes(bench: Bench) -> Outcome {
    let (file, content) = (path("/stream/file"), bytes(600_000, 1));
    bench.write(&file, &content, 100_000).await?;
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
    bench.put(&path("/stream/other"), "there").await?;
    for missing in ["/stream/file", "/stream"].map(path) {
        for range in [ByteRange::default(), ByteRange::from(64)] {
            ensure_error!(bench, bench.read(&missing, range).await, DriverError::PathNotFound { .. });
        }
    }
    Ok(())
}

pub(super) async fn appending_goes_on_where_it_was(bench: Bench) -> Outcome {
    for (round, length) in [32, 5000, 300_000].into_iter().enumerate() {
        let (file, content) = (path(&format!("/stream/{round}")), bytes(3 * length, round as u64));
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
        ensure!(bench.read(&file, ByteRange::default()).await? == content, "parts of {length} were mixed");
    }
    Ok(())
}

pub(super) async fn empty_commit_can_be_appended_to(bench: Bench) -> Outcome {
    let file = path("/stream/file");
    bench.write(&file, &Bytes::new(), 1).await?;
    append_to_empty(&bench, &file).await
}

pub(super) async fn empty_content_can_be_appended_to(bench: Bench) -> Outcome {
    let file = path("/stream/file");
    bench.put(&file, Bytes::new()).await?;
    append_to_empty(&bench, &file).await
}

async fn append_to_empty(bench: &Bench, file: &crate::path::DriverPath) -> Outcome {
    ensure!(bench.get(file).await?.is_empty(), "it is not empty");
    let mut writer = bench.writer(file, WriteMode::Append).await?;
    ensure!(writer.size() == 0, "the writer does not start at 0");
    writer.write(bytes(64, 1)).await?;
    writer.commit().await?;
    writer.close().await?;
    ensure!(bench.get(file).await? == bytes(64, 1), "other content than was appended");
    Ok(())
}

pub(super) async fn appending_to_nothing_is_not_found(bench: Bench) -> Outcome {
    let missing = path("/stream/missing");
    ensure_error!(bench, bench.writer(&missing, WriteMode::Append).await, DriverError::PathNotFound { .. });
    Ok(())
}

pub(super) async fn uncommitted_content_is_not_visible(bench: Bench) -> Outcome {
    let (file, committed) = (path("/stream/file"), path("/stream/committed"));
    bench.put(&committed, "old").await?;
    let mut new = bench.writer(&file, WriteMode::Create).await?;
    let mut rewrite = bench.writer(&committed, WriteMode::Create).await?;
    for writer in [&mut new, &mut rewrite] {
        writer.write(bytes(500_000, 1)).await?;
        writer.close().await?;
    }
    ensure_error!(bench, bench.get(&file).await, DriverError::PathNotFound { .. });
    ensure_error!(bench, bench.driver.stat(&bench.context, &file).await, DriverError::PathNotFound { .. });
    ensure!(bench.list(&path("/stream")).await? == [committed.clone()], "it is listed");
    ensure!(bench.get(&committed).await? == "old", "a rewrite shows before its commit");
    Ok(())
}

pub(super) async fn cancel_leaves_nothing(bench: Bench) -> Outcome {
    let file = path("/stream/file");
    let mut writer = bench.writer(&file, WriteMode::Create).await?;
    writer.write(bytes(500_000, 1)).await?;
    writer.cancel().await?;
    writer.close().await?;
    ensure_error!(bench, bench.get(&file).await, DriverError::PathNotFound { .. });
    ensure_error!(bench, bench.writer(&file, WriteMode::Append).await, DriverError::PathNotFound { .. });
    ensure_error!(bench, bench.delete(&path("/stream")).await, DriverError::PathNotFound { .. });
    bench.put(&path("/stream"), "a file where the folder was").await?;
    Ok(())
}

pub(super) async fn a_writer_ends_once(bench: Bench) -> Outcome {
    let file = path("/stream/file");
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
    ensure!(bench.get(&file).await?.is_empty(), "a cancelled rewrite took the committed content with it");
    Ok(())
}

pub(super) async fn create_truncates_what_was_not_committed(bench: Bench) -> Outcome {
    let file = path("/stream/file");
    let mut writer = bench.writer(&file, WriteMode::Create).await?;
    writer.write(bytes(5000, 1)).await?;
    writer.close().await?;
    bench.write(&file, &bytes(32, 2), 32).await?;
    ensure!(bench.get(&file).await? == bytes(32, 2), "old bytes are left");
    Ok(())
}

pub(super) async fn a_path_has_one_writer(bench: Bench) -> Outcome {
    let file = path("/stream/file");
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
    let (file, content) = (path("/stream/file"), bytes(2_000_000, 1));
    bench.write(&file, &content, 262_144).await?;
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
            let file = path(&format!("/stream/{seed}"));
            bench.write(&file, &bytes(300_000, seed), 50_000).await?;
            Ok::<_, DriverError>(bench.read(&file, ByteRange::default()).await? == bytes(300_000, seed))
        }
    }));
    ensure!(written.await?.iter().all(|same| *same), "files were mixed");
    Ok(())
}

pub(super) async fn a_reader_outlives_its_path(bench: Bench) -> Outcome {
    let (file, content) = (path("/stream/file"), bytes(1_000_000, 1));
    for delete in [true, false] {
        bench.write(&file, &content, 262_144).await?;
        let mut stream = bench.driver.reader(&bench.context, &file, ByteRange::default()).await?;
        let mut read = BytesMut::new();
        if let Some(first) = stream.try_next().await? {
            read.extend_from_slice(&first);
        }
        if delete {
            bench.delete(&file).await?;
        } else {
            bench.put(&file, "new").await?;
        }
        while let Some(more) = stream.try_next().await? {
            read.extend_from_slice(&more);
        }
        ensure!(read == content, "the stream changed under its reader (deleted: {delete})");
    }
    Ok(())
}

//! Content that is not whole yet: before a crash, after a restart, while it comes in from elsewhere.

use std::time::Duration;

use bytes::BytesMut;
use futures_util::TryStreamExt as _;
use tokio::time::timeout;

use super::bench::Bench;
use super::{Outcome, Violation, bytes, ensure, ensure_error};
use crate::driver::{ByteRange, WriteMode};
use crate::error::DriverError;

/// How long what is there already may take to be read, before the case says that the reader waits for the rest.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn a_crash_before_the_commit_shows_nothing(bench: Bench) -> Outcome {
    let (file, rewritten) = (bench.stream(1), bench.stream(2));
    bench.write(&rewritten, &bytes(32, 1), 32).await?;
    for stream in [&file, &rewritten] {
        let mut writer = bench.writer(stream, WriteMode::Create).await?;
        writer.write(bytes(500_000, 2)).await?;
        // No commit and no close: the process ends here.
        drop(writer);
    }
    let bench = bench.restart().await?;
    ensure_error!(bench, bench.read_all(&file).await, DriverError::PathNotFound { .. });
    ensure_error!(bench, bench.stat(&file).await, DriverError::PathNotFound { .. });
    ensure!(bench.read_all(&rewritten).await? == bytes(32, 1), "a rewrite shows without its commit");
    for stream in [&file, &rewritten] {
        bench.delete(&bench.layout().home(stream)).await?;
    }
    Ok(())
}

pub(super) async fn an_upload_goes_on_after_a_restart(mut bench: Bench) -> Outcome {
    let (file, content) = (bench.stream(1), bytes(900_000, 1));
    for part in 0..3 {
        let mode = if part == 0 { WriteMode::Create } else { WriteMode::Append };
        let mut writer = bench.writer(&file, mode).await?;
        ensure!(writer.size() == part * 300_000, "part {part} starts at {}", writer.size());
        let at = part as usize * 300_000;
        writer.write(content.slice(at..at + 300_000)).await?;
        writer.close().await?;
        drop(writer);
        bench = bench.restart().await?;
    }
    let mut writer = bench.writer(&file, WriteMode::Append).await?;
    writer.commit().await?;
    writer.close().await?;
    ensure!(bench.read_all(&file).await? == content, "parts of several processes were mixed");
    let place = bench.layout().blob(&content);
    bench.rename(&file, &place).await?;
    ensure!(bench.read_all(&place).await? == content, "other content arrived");
    Ok(())
}

pub(super) async fn committed_content_survives_a_restart(bench: Bench) -> Outcome {
    let blob = bench.subject.plant(bytes(300_000, 1)).await?;
    let bench = bench.restart().await?;
    ensure!(bench.read_all(&blob).await? == bytes(300_000, 1), "content was changed by a restart");
    ensure!(bench.stat(&blob).await?.size == 300_000, "its size was changed by a restart");
    Ok(())
}

pub(super) async fn a_blob_still_arriving_is_read_as_it_comes(bench: Bench) -> Outcome {
    let content = bytes(4_000_000, 1);
    let arriving = bench.subject.arriving(content.clone()).await?;
    let info = bench.stat(&arriving.path).await?;
    ensure!(info.size == content.len() as u64 && !info.is_directory, "what arrives is {info:?}");

    let early = ByteRange { start: 1000, end: Some(900_000) };
    let early = timeout(PATIENCE, bench.read(&arriving.path, early)).await;
    let early = early.map_err(|_| Violation::new("a reader waits for what it was not asked for"))??;
    ensure!(early == content.slice(1000..900_000), "other bytes than have arrived");

    let mut stream = bench.driver.reader(&bench.context, &arriving.path, ByteRange::default()).await?;
    let first = stream.try_next().await?.unwrap_or_default();
    ensure!(!first.is_empty() && content.starts_with(&first), "the stream begins with other bytes");
    let read = async {
        let mut read = BytesMut::from(&first[..]);
        while let Some(more) = stream.try_next().await? {
            read.extend_from_slice(&more);
        }
        Ok::<_, DriverError>(read)
    };
    let (read, ()) = futures_util::future::join(read, arriving.rest).await;
    ensure!(read? == content, "the stream changed while it arrived");
    ensure!(bench.read_all(&arriving.path).await? == content, "what has arrived is something else");
    Ok(())
}

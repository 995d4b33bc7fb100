//! Files and folders: list, rename, delete, stat.

use std::time::{Duration, SystemTime};

use super::bench::Bench;
use super::{Outcome, Violation, bytes, ensure, ensure_error};
use crate::driver::WriteMode;
use crate::error::DriverError;
use crate::path::DriverPath;

/// How long a driver's clock may take to tick between two writes.
const CLOCK_TICK: Duration = Duration::from_secs(5);

/// The folder in which a path lies.
fn folder_of(path: &DriverPath) -> Result<DriverPath, Violation> {
    path.parent().ok_or_else(|| Violation::new(format_args!("{path} lies nowhere")))
}

pub(super) async fn list_gives_direct_children(bench: Bench) -> Outcome {
    let mut files: Vec<DriverPath> = (0..50).map(|number| bench.note(1, number)).collect();
    for file in &files {
        bench.put(file, bytes(8, 1)).await?;
    }
    files.sort();
    let folder = folder_of(&files[0])?;
    let listed = bench.list(&folder).await?;
    ensure!(listed == files, "the folder lists {listed:?}");
    let parent = folder_of(&folder)?;
    ensure!(bench.list(&parent).await? == [folder], "the folder's parent lists something else");
    let top = bench.list(&DriverPath::root()).await?;
    ensure!(top.len() == 1 && files[0].is_within(&top[0]), "the root lists {top:?}");
    Ok(())
}

pub(super) async fn missing_folders_are_not_found(bench: Bench) -> Outcome {
    let missing = bench.layout().missing_folder();
    ensure_error!(bench, bench.list(&missing).await, DriverError::PathNotFound { .. });
    ensure_error!(bench, bench.stat(&missing).await, DriverError::PathNotFound { .. });
    Ok(())
}

pub(super) async fn rename_moves_content(bench: Bench) -> Outcome {
    let (from, to) = (bench.note(1, 1), bench.note(2, 1));
    bench.put(&from, bytes(32, 1)).await?;
    bench.rename(&from, &to).await?;
    ensure!(bench.get(&to).await? == bytes(32, 1), "other content arrived");
    ensure_error!(bench, bench.get(&from).await, DriverError::PathNotFound { .. });
    bench.rename(&to, &to).await?;
    ensure!(bench.get(&to).await? == bytes(32, 1), "a rename to itself lost the content");
    Ok(())
}

pub(super) async fn rename_overwrites(bench: Bench) -> Outcome {
    let (from, to) = (bench.note(1, 1), bench.note(1, 2));
    bench.put(&from, bytes(32, 1)).await?;
    bench.put(&to, bytes(64, 2)).await?;
    bench.rename(&from, &to).await?;
    ensure!(bench.get(&to).await? == bytes(32, 1), "the destination was not replaced");
    ensure_error!(bench, bench.get(&from).await, DriverError::PathNotFound { .. });
    Ok(())
}

pub(super) async fn a_stream_is_renamed_to_its_place(bench: Bench) -> Outcome {
    let (stream, content) = (bench.stream(1), bytes(300_000, 1));
    let place = bench.layout().blob(&content);
    bench.write(&stream, &content, 100_000).await?;
    bench.rename(&stream, &place).await?;
    ensure!(bench.read_all(&place).await? == content, "other content arrived");
    ensure!(bench.stat(&place).await?.size == 300_000, "it arrived with another size");
    ensure_error!(bench, bench.read_all(&stream).await, DriverError::PathNotFound { .. });
    ensure_error!(bench, bench.stat(&stream).await, DriverError::PathNotFound { .. });
    Ok(())
}

pub(super) async fn a_stream_is_renamed_onto_the_same_content(bench: Bench) -> Outcome {
    let (stream, content) = (bench.stream(1), bytes(300_000, 1));
    let place = bench.subject.plant(content.clone()).await?;
    bench.write(&stream, &content, 100_000).await?;
    bench.rename(&stream, &place).await?;
    ensure!(bench.read_all(&place).await? == content, "what was there is something else now");
    ensure_error!(bench, bench.read_all(&stream).await, DriverError::PathNotFound { .. });
    Ok(())
}

pub(super) async fn rename_of_nothing_leaves_the_destination(bench: Bench) -> Outcome {
    let (from, content) = (bench.stream(1), bytes(32, 1));
    let to = bench.subject.plant(content.clone()).await?;
    ensure_error!(bench, bench.rename(&from, &to).await, DriverError::PathNotFound { .. });
    // What is written and not committed is not there either.
    let mut writer = bench.writer(&from, WriteMode::Create).await?;
    writer.write(content.clone()).await?;
    writer.close().await?;
    ensure_error!(bench, bench.rename(&from, &to).await, DriverError::PathNotFound { .. });
    ensure!(bench.read_all(&to).await? == content, "the destination was touched");
    bench.delete(&bench.layout().home(&from)).await?;
    Ok(())
}

pub(super) async fn concurrent_renames_to_one_place_agree(bench: Bench) -> Outcome {
    let (streams, content) = ([bench.stream(1), bench.stream(2)], bytes(300_000, 1));
    let place = bench.layout().blob(&content);
    for stream in &streams {
        bench.write(stream, &content, 100_000).await?;
    }
    let (first, second) =
        futures_util::future::join(bench.rename(&streams[0], &place), bench.rename(&streams[1], &place))
            .await;
    first?;
    second?;
    ensure!(bench.read_all(&place).await? == content, "other content arrived");
    for stream in &streams {
        ensure_error!(bench, bench.read_all(stream).await, DriverError::PathNotFound { .. });
    }
    Ok(())
}

pub(super) async fn concurrent_renames_onto_each_other_lose_one(bench: Bench) -> Outcome {
    let (one, other) = (bench.note(1, 1), bench.note(2, 1));
    for _ in 0..8 {
        bench.put(&one, bytes(8192, 1)).await?;
        bench.put(&other, bytes(8192, 2)).await?;
        let (there, back) =
            futures_util::future::join(bench.rename(&one, &other), bench.rename(&other, &one)).await;
        there?;
        back?;
        let left = match (bench.get(&one).await, bench.get(&other).await) {
            (Ok(left), Err(DriverError::PathNotFound { .. }))
            | (Err(DriverError::PathNotFound { .. }), Ok(left)) => left,
            both => return Err(Violation::new(format_args!("not one of the two is left: {both:?}"))),
        };
        ensure!(left == bytes(8192, 1) || left == bytes(8192, 2), "what is left is neither of them");
    }
    Ok(())
}

pub(super) async fn nothing_lies_under_a_file(bench: Bench) -> Outcome {
    let file = bench.note(1, 1);
    let under = file.child("under").map_err(Violation::new)?;
    let folder = folder_of(&file)?;
    bench.put(&file, "content").await?;
    ensure_error!(bench, bench.get(&under).await, DriverError::PathNotFound { .. });
    ensure_error!(bench, bench.delete(&under).await, DriverError::PathNotFound { .. });
    ensure!(bench.rename(&under, &bench.note(2, 1)).await.is_err(), "something under a file was renamed");
    ensure!(bench.rename(&file, &under).await.is_err(), "a file was moved under itself");
    ensure!(bench.put(&under, "x").await.is_err(), "content was put under a file");
    ensure!(bench.put(&folder, "x").await.is_err(), "a folder was overwritten with content");
    for mode in [WriteMode::Create, WriteMode::Append] {
        ensure!(bench.writer(&folder, mode).await.is_err(), "a folder can be written like a file");
    }
    ensure!(bench.get(&file).await? == "content", "the file was touched");
    Ok(())
}

pub(super) async fn rename_moves_folders(bench: Bench) -> Outcome {
    let (file, beside, moved) = (bench.note(1, 1), bench.note(11, 1), bench.note(2, 1));
    let (from, other, to) = (folder_of(&file)?, folder_of(&beside)?, folder_of(&moved)?);
    bench.put(&file, bytes(8, 1)).await?;
    bench.put(&beside, bytes(8, 2)).await?;
    bench.rename(&from, &to).await?;
    ensure!(bench.get(&moved).await? == bytes(8, 1), "what was inside did not come along");
    ensure!(bench.get(&beside).await? == bytes(8, 2), "a sibling was touched");
    ensure_error!(bench, bench.list(&from).await, DriverError::PathNotFound { .. });
    ensure!(bench.rename(&to, &other).await.is_err(), "a folder replaced one that was not empty");
    ensure!(bench.get(&beside).await? == bytes(8, 2), "what it held was lost");
    let inside = to.child("a").map_err(Violation::new)?;
    ensure!(bench.rename(&to, &inside).await.is_err(), "moved into itself");
    ensure!(bench.get(&moved).await? == bytes(8, 1), "lost by a move into itself");
    Ok(())
}

pub(super) async fn delete_removes_a_folder_with_all_in_it(bench: Bench) -> Outcome {
    let (files, other) = ([1, 2, 3].map(|number| bench.note(1, number)), bench.note(2, 1));
    for file in files.iter().chain([&other]) {
        bench.put(file, bytes(8, 1)).await?;
    }
    let home = bench.layout().home(&files[0]);
    bench.delete(&home).await?;
    for file in &files {
        ensure_error!(bench, bench.get(file).await, DriverError::PathNotFound { .. });
        ensure_error!(bench, bench.stat(file).await, DriverError::PathNotFound { .. });
    }
    ensure_error!(bench, bench.list(&home).await, DriverError::PathNotFound { .. });
    ensure_error!(bench, bench.delete(&home).await, DriverError::PathNotFound { .. });
    ensure!(bench.get(&other).await? == bytes(8, 1), "another folder went too");
    Ok(())
}

pub(super) async fn delete_of_one_file_leaves_its_siblings(bench: Bench) -> Outcome {
    let files = [1, 2, 3].map(|number| bench.note(1, number));
    for file in &files {
        bench.put(file, bytes(8, 1)).await?;
    }
    bench.delete(&files[0]).await?;
    ensure_error!(bench, bench.get(&files[0]).await, DriverError::PathNotFound { .. });
    ensure!(bench.get(&files[1]).await.is_ok() && bench.get(&files[2]).await.is_ok(), "siblings went too");
    Ok(())
}

pub(super) async fn delete_of_nothing_is_not_found(bench: Bench) -> Outcome {
    let missing = bench.layout().home(&bench.note(1, 1));
    ensure_error!(bench, bench.delete(&missing).await, DriverError::PathNotFound { .. });
    let missing = bench.layout().home(&bench.layout().blob(b"missing"));
    ensure_error!(bench, bench.delete(&missing).await, DriverError::PathNotFound { .. });
    Ok(())
}

pub(super) async fn delete_goes_by_whole_parts(bench: Bench) -> Outcome {
    let (file, kept) = (bench.note(1, 1), [bench.note(11, 1), bench.note(10, 0)]);
    bench.put(&file, bytes(8, 1)).await?;
    for file in &kept {
        bench.put(file, bytes(8, 2)).await?;
    }
    bench.delete(&bench.layout().home(&file)).await?;
    for file in &kept {
        ensure!(bench.get(file).await? == bytes(8, 2), "{file} went too");
    }
    Ok(())
}

pub(super) async fn delete_removes_what_is_not_committed(bench: Bench) -> Outcome {
    let file = bench.stream(1);
    let mut writer = bench.writer(&file, WriteMode::Create).await?;
    writer.write(bytes(64, 1)).await?;
    bench.delete(&bench.layout().home(&file)).await?;
    ensure!(writer.commit().await.is_err(), "a deleted upload was committed");
    writer.close().await?;
    ensure_error!(bench, bench.writer(&file, WriteMode::Append).await, DriverError::PathNotFound { .. });
    ensure_error!(bench, bench.read_all(&file).await, DriverError::PathNotFound { .. });
    Ok(())
}

pub(super) async fn stat_tells_size_kind_and_time(bench: Bench) -> Outcome {
    let file = bench.note(1, 1);
    let folder = folder_of(&file)?;
    bench.put(&file, bytes(4096, 1)).await?;
    let first = bench.stat(&file).await?;
    ensure!(first.path == file && first.size == 4096 && !first.is_directory, "the file is {first:?}");
    let info = bench.stat(&folder).await?;
    ensure!(info.path == folder && info.size == 0 && info.is_directory, "the folder is {info:?}");
    let blob = bench.subject.plant(bytes(32, 1)).await?;
    ensure!(bench.stat(&blob).await?.modified >= first.modified, "a blob is older than what came before it");
    let deadline = SystemTime::now() + CLOCK_TICK;
    loop {
        bench.put(&file, bytes(32, 2)).await?;
        let again = bench.stat(&file).await?;
        ensure!(again.size == 32, "a rewrite of 32 bytes has size {}", again.size);
        if again.modified > first.modified {
            return Ok(());
        }
        ensure!(SystemTime::now() < deadline, "the time of change stands still");
    }
}

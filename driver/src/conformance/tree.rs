//! Files and folders: list, rename, delete, stat, walk.

use std::time::{Duration, SystemTime};

use super::{Bench, Outcome, Violation, bytes, ensure, ensure_error, path};
use crate::driver::WriteMode;
use crate::error::DriverError;
use crate::path::DriverPath;

/// How long a driver's clock may take to tick between two writes.
const CLOCK_TICK: Duration = Duration::from_secs(5);

pub(super) async fn list_gives_direct_children(bench: Bench) -> Outcome {
    let folder = path("/top/folder");
    let mut files: Vec<DriverPath> = (0..50).map(|file| path(&format!("/top/folder/file-{file}"))).collect();
    for file in &files {
        bench.put(file, bytes(8, 1)).await?;
    }
    bench.put(&path("/top/folder/deep/er"), "x").await?;
    files.push(path("/top/folder/deep"));
    files.sort();
    ensure!(bench.list(&folder).await? == files, "the folder lists {:?}", bench.list(&folder).await?);
    ensure!(bench.list(&path("/top")).await? == [folder], "the folder's parent lists something else");
    ensure!(bench.list(&DriverPath::root()).await? == [path("/top")], "the root lists something else");
    Ok(())
}

pub(super) async fn missing_folders_are_not_found(bench: Bench) -> Outcome {
    let missing = path("/missing/folder");
    ensure_error!(bench, bench.list(&missing).await, DriverError::PathNotFound { .. });
    ensure_error!(bench, bench.driver.stat(&bench.context, &missing).await, DriverError::PathNotFound { .. });
    Ok(())
}

pub(super) async fn rename_moves_content(bench: Bench) -> Outcome {
    let (from, to) = (path("/tree/from"), path("/tree/to"));
    bench.put(&from, bytes(32, 1)).await?;
    bench.rename(&from, &to).await?;
    ensure!(bench.get(&to).await? == bytes(32, 1), "other content arrived");
    ensure_error!(bench, bench.get(&from).await, DriverError::PathNotFound { .. });
    bench.rename(&to, &to).await?;
    ensure!(bench.get(&to).await? == bytes(32, 1), "a rename to itself lost the content");
    Ok(())
}

pub(super) async fn rename_overwrites(bench: Bench) -> Outcome {
    let (from, to) = (path("/tree/from"), path("/tree/to"));
    bench.put(&from, bytes(32, 1)).await?;
    bench.put(&to, bytes(64, 2)).await?;
    bench.rename(&from, &to).await?;
    ensure!(bench.get(&to).await? == bytes(32, 1), "the destination was not replaced");
    ensure_error!(bench, bench.get(&from).await, DriverError::PathNotFound { .. });
    Ok(())
}

pub(super) async fn rename_of_nothing_leaves_the_destination(bench: Bench) -> Outcome {
    let to = path("/tree/to");
    bench.put(&to, bytes(32, 1)).await?;
    ensure_error!(bench, bench.rename(&path("/tree/from"), &to).await, DriverError::PathNotFound { .. });
    ensure!(bench.get(&to).await? == bytes(32, 1), "the destination was touched");
    Ok(())
}

pub(super) async fn rename_makes_missing_parents(bench: Bench) -> Outcome {
    let (from, to) = (path("/tree/from"), path("/other/far/away"));
    bench.put(&from, bytes(32, 1)).await?;
    bench.rename(&from, &to).await?;
    ensure!(bench.get(&to).await? == bytes(32, 1), "other content arrived");
    Ok(())
}

pub(super) async fn nothing_lies_under_a_file(bench: Bench) -> Outcome {
    let (file, under) = (path("/tree/file"), path("/tree/file/under"));
    bench.put(&file, "content").await?;
    ensure!(bench.rename(&under, &path("/tree/to")).await.is_err(), "something under a file was renamed");
    ensure!(bench.rename(&file, &under).await.is_err(), "a file was moved under itself");
    ensure!(bench.put(&under, "x").await.is_err(), "content was put under a file");
    ensure!(bench.put(&path("/tree"), "x").await.is_err(), "a folder was overwritten with content");
    ensure!(
        bench.writer(&path("/tree"), WriteMode::Create).await.is_err(),
        "a folder can be written like a file"
    );
    ensure!(bench.get(&file).await? == "content", "the file was touched");
    Ok(())
}

pub(super) async fn rename_moves_folders(bench: Bench) -> Outcome {
    bench.put(&path("/tree/from/a/b"), bytes(8, 1)).await?;
    bench.put(&path("/tree/from-not/a"), bytes(8, 2)).await?;
    bench.rename(&path("/tree/from"), &path("/tree/to")).await?;
    ensure!(bench.get(&path("/tree/to/a/b")).await? == bytes(8, 1), "what was inside did not come along");
    ensure!(bench.get(&path("/tree/from-not/a")).await? == bytes(8, 2), "a sibling was touched");
    ensure_error!(bench, bench.list(&path("/tree/from")).await, DriverError::PathNotFound { .. });
    ensure!(
        bench.rename(&path("/tree/to"), &path("/tree/from-not")).await.is_err(),
        "a folder replaced one that was not empty"
    );
    ensure!(bench.get(&path("/tree/from-not/a")).await? == bytes(8, 2), "what it held was lost");
    ensure!(bench.rename(&path("/tree/to"), &path("/tree/to/a/c")).await.is_err(), "moved into itself");
    ensure!(bench.get(&path("/tree/to/a/b")).await? == bytes(8, 1), "lost by a move into itself");
    Ok(())
}

pub(super) async fn delete_removes_content(bench: Bench) -> Outcome {
    let file = path("/tree/file");
    bench.put(&file, bytes(32, 1)).await?;
    bench.delete(&file).await?;
    ensure_error!(bench, bench.get(&file).await, DriverError::PathNotFound { .. });
    Ok(())
}

pub(super) async fn delete_of_nothing_is_not_found(bench: Bench) -> Outcome {
    ensure_error!(bench, bench.delete(&path("/missing/file")).await, DriverError::PathNotFound { .. });
    bench.put(&path("/file"), "x").await?;
    ensure_error!(bench, bench.delete(&path("/file/under")).await, DriverError::PathNotFound { .. });
    Ok(())
}

pub(super) async fn delete_removes_folders(bench: Bench) -> Outcome {
    let files = ["/tree/a", "/tree/b", "/tree/c/d"].map(path);
    for file in &files {
        bench.put(file, bytes(8, 1)).await?;
    }
    bench.delete(&files[0]).await?;
    ensure_error!(bench, bench.get(&files[0]).await, DriverError::PathNotFound { .. });
    ensure!(bench.get(&files[1]).await.is_ok() && bench.get(&files[2]).await.is_ok(), "siblings went too");
    bench.delete(&path("/tree")).await?;
    for file in &files {
        ensure_error!(bench, bench.get(file).await, DriverError::PathNotFound { .. });
    }
    ensure_error!(bench, bench.list(&path("/tree")).await, DriverError::PathNotFound { .. });
    Ok(())
}

pub(super) async fn delete_goes_by_whole_parts(bench: Bench) -> Outcome {
    let kept = ["/tree/folder-suffix/file", "/tree/folder.file", "/tree/folder2"].map(path);
    bench.put(&path("/tree/folder/file"), bytes(8, 1)).await?;
    for file in &kept {
        bench.put(file, bytes(8, 2)).await?;
    }
    bench.delete(&path("/tree/folder")).await?;
    for file in &kept {
        ensure!(bench.get(file).await? == bytes(8, 2), "{file} went too");
    }
    Ok(())
}

pub(super) async fn delete_removes_what_is_not_committed(bench: Bench) -> Outcome {
    let file = path("/tree/upload/data");
    let mut writer = bench.writer(&file, WriteMode::Create).await?;
    writer.write(bytes(64, 1)).await?;
    bench.delete(&path("/tree/upload")).await?;
    ensure!(writer.commit().await.is_err(), "a deleted upload was committed");
    writer.close().await?;
    ensure_error!(bench, bench.writer(&file, WriteMode::Append).await, DriverError::PathNotFound { .. });
    ensure_error!(bench, bench.get(&file).await, DriverError::PathNotFound { .. });
    Ok(())
}

pub(super) async fn stat_tells_size_kind_and_time(bench: Bench) -> Outcome {
    let (folder, file) = (path("/tree/folder"), path("/tree/folder/file"));
    bench.put(&file, bytes(4096, 1)).await?;
    let first = bench.driver.stat(&bench.context, &file).await?;
    ensure!(first.path == file && first.size == 4096 && !first.is_directory, "the file is {first:?}");
    let info = bench.driver.stat(&bench.context, &folder).await?;
    ensure!(info.path == folder && info.size == 0 && info.is_directory, "the folder is {info:?}");
    let deadline = SystemTime::now() + CLOCK_TICK;
    loop {
        bench.put(&file, bytes(32, 2)).await?;
        let again = bench.driver.stat(&bench.context, &file).await?;
        ensure!(again.size == 32, "a rewrite of 32 bytes has size {}", again.size);
        if again.modified > first.modified {
            return Ok(());
        }
        ensure!(SystemTime::now() < deadline, "the time of change stands still");
    }
}

pub(super) async fn walks_see_everything_in_order(bench: Bench) -> Outcome {
    for file in ["/tree/b", "/tree/a/2", "/tree/a/1", "/tree/a-b/3", "/other"] {
        bench.put(&path(file), "x").await?;
    }
    let seen = bench.walk(&path("/tree")).await?;
    let expected = ["/tree/a", "/tree/a/1", "/tree/a/2", "/tree/a-b", "/tree/a-b/3", "/tree/b"].map(path);
    ensure!(seen == expected, "the walk saw {seen:?}");
    ensure!(bench.walk(&DriverPath::root()).await?.len() == 8, "the walk from the root missed something");
    Ok(())
}

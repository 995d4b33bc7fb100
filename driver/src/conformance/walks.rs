//! Walks over what a driver lists: order, hints, folders that are skipped, files that go away.

use super::bench::Bench;
use super::{Outcome, Violation, bytes, ensure, ensure_error};
use crate::driver::FileInfo;
use crate::error::DriverError;
use crate::path::DriverPath;
use crate::walk::Walk;

/// Puts notes into three folders, two of whose names begin alike.
async fn plant_tree(bench: &Bench) -> Result<Vec<DriverPath>, DriverError> {
    let files: Vec<_> = [(1, 1), (1, 2), (1, 10), (11, 1), (2, 5)]
        .into_iter()
        .map(|(folder, number)| bench.note(folder, number))
        .collect();
    for file in &files {
        bench.put(file, bytes(8, 1)).await?;
    }
    Ok(files)
}

async fn rest(mut walk: Walk<'_>) -> Result<Vec<DriverPath>, DriverError> {
    let mut seen = Vec::new();
    while let Some(info) = walk.next().await? {
        seen.push(info.path);
    }
    Ok(seen)
}

/// Walks to the first thing that is as wanted.
async fn until(walk: &mut Walk<'_>, wanted: impl Fn(&FileInfo) -> bool) -> Result<DriverPath, Violation> {
    while let Some(info) = walk.next().await? {
        if wanted(&info) {
            return Ok(info.path);
        }
    }
    Err(Violation::new("the walk does not meet what is there"))
}

pub(super) async fn walks_see_everything_in_order(bench: Bench) -> Outcome {
    let files = plant_tree(&bench).await?;
    let seen = rest(bench.walk(&DriverPath::root())).await?;
    ensure!(seen.is_sorted_by(|before, after| before < after), "not in order, or twice: {seen:?}");
    for file in &files {
        let mut above = Some(file.clone());
        while let Some(path) = above.filter(|path| !path.is_root()) {
            ensure!(seen.contains(&path), "the walk did not see {path}");
            above = path.parent();
        }
    }
    Ok(())
}

pub(super) async fn walks_skip_folders(bench: Bench) -> Outcome {
    let files = plant_tree(&bench).await?;
    let all = rest(bench.walk(&DriverPath::root())).await?;

    let (root, home) = (DriverPath::root(), bench.layout().home(&files[0]));
    let mut walk = bench.walk(&root);
    let skipped = until(&mut walk, |info| info.path == home).await?;
    walk.skip_directory();
    let expected: Vec<_> =
        all.iter().filter(|path| **path > skipped && !path.is_within(&skipped)).cloned().collect();
    ensure!(rest(walk).await? == expected, "a folder was not skipped, or more than that");

    let mut walk = bench.walk(&root);
    let first = until(&mut walk, |info| info.path == files[0]).await?;
    walk.skip_directory();
    let after = rest(walk).await?;
    ensure!(
        after.iter().all(|path| path.parent() != first.parent()) && after.contains(&files[3]),
        "skipping at a file does not leave its folder: {after:?}"
    );
    Ok(())
}

pub(super) async fn walks_start_after_their_hint(bench: Bench) -> Outcome {
    let files = plant_tree(&bench).await?;
    let root = DriverPath::root();
    let all = rest(bench.walk(&root)).await?;
    // What is there, what begins like something that is there, what sorts before all and behind all.
    let missing = [bench.note(1, 11), bench.note(12, 0), bench.note(0, 0), bench.note(99, 0)];
    let texts = [format!("{}-suffix", files[0]), "/-".to_owned(), "/zzz".to_owned()];
    let texts = texts.iter().filter_map(|text| DriverPath::parse(text).ok());
    for hint in all.iter().cloned().chain(missing).chain(texts).chain([root.clone()]) {
        let seen = rest(bench.walk(&root).start_after(hint.clone())).await?;
        let expected: Vec<_> = all.iter().filter(|path| **path > hint).cloned().collect();
        ensure!(seen == expected, "after {hint} the walk saw {seen:?}");
    }
    Ok(())
}

pub(super) async fn walks_begin_at_a_folder(bench: Bench) -> Outcome {
    let files = plant_tree(&bench).await?;
    let home = bench.layout().home(&files[0]);
    let seen = rest(bench.walk(&home)).await?;
    ensure!(files[..3].iter().all(|file| seen.contains(file)), "the walk missed something: {seen:?}");
    ensure!(
        seen.iter().all(|path| path.is_within(&home) && *path != home),
        "the walk left its folder: {seen:?}"
    );
    let missing = bench.layout().missing_folder();
    ensure_error!(bench, bench.walk(&missing).next().await, DriverError::PathNotFound { .. });
    Ok(())
}

pub(super) async fn what_vanishes_during_a_walk_is_skipped(bench: Bench) -> Outcome {
    let files = plant_tree(&bench).await?;
    let root = DriverPath::root();
    let mut walk = bench.walk(&root);
    until(&mut walk, |info| info.path == files[0]).await?;
    // Its siblings have been listed and not been looked at; the last folder was seen only by name.
    bench.delete(&bench.layout().home(&files[0])).await?;
    bench.delete(&bench.layout().home(&files[4])).await?;
    let seen = rest(walk).await?;
    ensure!(seen.contains(&files[3]), "the walk ended early: {seen:?}");
    ensure!(!seen.contains(&files[1]) && !seen.contains(&files[4]), "the walk saw what is gone: {seen:?}");
    Ok(())
}

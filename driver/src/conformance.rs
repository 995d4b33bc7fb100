//! The contract of a storage driver as tests, for any driver. For tests only.
//!
//! The behaviours are those of distribution's driver suite, written anew. A driver whose layout makes one impossible says
//! so, with its reason, by [`Suite::impossible`]; whatever is not declared must hold. Every case leaves the driver empty,
//! and that is checked.

mod content;
mod stream;
mod tree;

use std::fmt::{self, Display};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt as _;
use futures_util::future::BoxFuture;

use crate::driver::{ByteRange, Context, FileWriter, StorageDriver, WriteMode};
use crate::error::DriverError;
use crate::path::DriverPath;
use crate::walk::walk;

/// The suite, for one driver that is empty.
pub struct Suite {
    driver: Arc<dyn StorageDriver>,
    impossible: Vec<(&'static str, &'static str)>,
}

/// What came out of it.
#[derive(Debug, Default)]
pub struct Report {
    /// The cases that hold.
    pub passed: Vec<&'static str>,
    /// The cases that do not, and how.
    pub failed: Vec<(&'static str, Violation)>,
    /// The cases that were declared impossible, and why.
    pub impossible: Vec<(&'static str, &'static str)>,
}

/// How a driver breaks the contract.
#[derive(Debug)]
pub struct Violation(String);

type Outcome = Result<(), Violation>;

/// One behaviour.
struct Case {
    name: &'static str,
    run: fn(Bench) -> BoxFuture<'static, Outcome>,
}

/// A driver, in the words that the cases speak.
#[derive(Clone)]
struct Bench {
    driver: Arc<dyn StorageDriver>,
    context: Context,
}

/// Fails the case unless the condition holds.
macro_rules! ensure {
    ($holds:expr, $($detail:tt)+) => {
        if !$holds {
            return Err(crate::conformance::Violation::new(format_args!($($detail)+)));
        }
    };
}

/// Fails the case unless the error is of that kind and its message names the driver.
macro_rules! ensure_error {
    ($bench:expr, $result:expr, $kind:pat) => {
        match $result {
            Err(error @ $kind) => $bench.names_itself(&error)?,
            Err(other) => return Err(Violation::new(format_args!("wrong error: {other:?}"))),
            Ok(_) => return Err(Violation::new(concat!(stringify!($result), " succeeded"))),
        }
    };
}

macro_rules! cases {
    ($($module:ident: $($case:ident),+;)+) => {
        const CASES: &[Case] =
            &[$($(Case { name: stringify!($case), run: |bench| Box::pin($module::$case(bench)) }),+),+];
    };
}

use {ensure, ensure_error};

cases! {
    content:
        root_exists, valid_paths_hold_content, the_root_holds_no_content, put_content_is_read_back,
        put_content_replaces_all_of_it, missing_content_is_not_found, concurrent_puts_are_never_mixed,
        content_over_the_limit_is_for_readers;
    stream:
        written_streams_are_read_back, ranges_give_their_bytes, missing_streams_are_not_found,
        appending_goes_on_where_it_was, empty_commit_can_be_appended_to, empty_content_can_be_appended_to,
        appending_to_nothing_is_not_found, uncommitted_content_is_not_visible, cancel_leaves_nothing,
        a_writer_ends_once, create_truncates_what_was_not_committed, a_path_has_one_writer,
        streams_are_read_concurrently, files_are_written_concurrently, a_reader_outlives_its_path;
    tree:
        list_gives_direct_children, missing_folders_are_not_found, rename_moves_content, rename_overwrites,
        rename_of_nothing_leaves_the_destination, rename_makes_missing_parents, nothing_lies_under_a_file,
        rename_moves_folders, delete_removes_content, delete_of_nothing_is_not_found, delete_removes_folders,
        delete_goes_by_whole_parts, delete_removes_what_is_not_committed, stat_tells_size_kind_and_time,
        walks_see_everything_in_order;
}

impl Suite {
    /// The suite for a driver that is empty.
    #[must_use]
    pub fn new(driver: Arc<dyn StorageDriver>) -> Self {
        Self { driver, impossible: Vec::new() }
    }

    /// Declares that the driver's layout makes a case impossible.
    #[must_use]
    pub fn impossible(mut self, case: &'static str, why: &'static str) -> Self {
        self.impossible.push((case, why));
        self
    }

    /// The names of all cases.
    pub fn cases() -> impl Iterator<Item = &'static str> {
        CASES.iter().map(|case| case.name)
    }

    /// Runs every case that is not declared impossible, one after the other.
    pub async fn run(self) -> Report {
        let mut report = Report::default();
        let bench = Bench { driver: self.driver, context: Context::default() };
        for case in CASES {
            if let Some(declared) = self.impossible.iter().find(|(name, _)| *name == case.name) {
                report.impossible.push(*declared);
                continue;
            }
            let outcome = (case.run)(bench.clone()).await;
            match outcome.and(bench.clear().await) {
                Ok(()) => report.passed.push(case.name),
                Err(violation) => report.failed.push((case.name, violation)),
            }
        }
        for (name, _) in self.impossible {
            if Self::cases().all(|case| case != name) {
                report.failed.push((name, Violation::new("declared impossible, but there is no such case")));
            }
        }
        report
    }
}

impl Report {
    /// Panics with every violation if there is one.
    pub fn assert(&self) {
        assert!(self.failed.is_empty(), "the driver breaks its contract: {:#?}", self.failed);
    }
}

impl Violation {
    fn new(detail: impl Display) -> Self {
        Self(detail.to_string())
    }
}

impl Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<DriverError> for Violation {
    fn from(error: DriverError) -> Self {
        Self(format!("unexpected error: {error:?}"))
    }
}

impl Bench {
    async fn get(&self, path: &DriverPath) -> Result<Bytes, DriverError> {
        self.driver.get_content(&self.context, path).await
    }

    async fn put(&self, path: &DriverPath, content: impl Into<Bytes>) -> Result<(), DriverError> {
        self.driver.put_content(&self.context, path, content.into()).await
    }

    /// Reads a range to its end.
    async fn read(&self, path: &DriverPath, range: ByteRange) -> Result<Bytes, DriverError> {
        let stream = self.driver.reader(&self.context, path, range).await?;
        Ok(stream.try_collect::<BytesMut>().await?.freeze())
    }

    async fn writer(&self, path: &DriverPath, mode: WriteMode) -> Result<Box<dyn FileWriter>, DriverError> {
        self.driver.writer(&self.context, path, mode).await
    }

    /// Writes content in parts of `part` bytes, and commits it.
    async fn write(&self, path: &DriverPath, content: &Bytes, part: usize) -> Result<(), DriverError> {
        let mut writer = self.writer(path, WriteMode::Create).await?;
        for start in (0..content.len()).step_by(part) {
            writer.write(content.slice(start..content.len().min(start + part))).await?;
        }
        writer.commit().await?;
        writer.close().await
    }

    async fn rename(&self, from: &DriverPath, to: &DriverPath) -> Result<(), DriverError> {
        self.driver.rename(&self.context, from, to).await
    }

    async fn delete(&self, path: &DriverPath) -> Result<(), DriverError> {
        self.driver.delete(&self.context, path).await
    }

    /// The children, sorted.
    async fn list(&self, path: &DriverPath) -> Result<Vec<DriverPath>, DriverError> {
        let mut children = self.driver.list(&self.context, path).await?;
        children.sort();
        Ok(children)
    }

    async fn walk(&self, from: &DriverPath) -> Result<Vec<DriverPath>, DriverError> {
        let mut walk = walk(&*self.driver, &self.context, from);
        let mut seen = Vec::new();
        while let Some(info) = walk.next().await? {
            seen.push(info.path);
        }
        Ok(seen)
    }

    fn names_itself(&self, error: &DriverError) -> Outcome {
        let name = self.driver.name();
        ensure!(error.to_string().contains(name), "the message does not name {name}: {error}");
        Ok(())
    }

    /// Removes what a case left.
    async fn clear(&self) -> Outcome {
        for child in self.list(&DriverPath::root()).await? {
            self.delete(&child).await?;
        }
        let left = self.list(&DriverPath::root()).await?;
        ensure!(left.is_empty(), "still there after all was deleted: {left:?}");
        Ok(())
    }
}

fn path(text: &str) -> DriverPath {
    DriverPath::parse(text).expect("the suite's own paths are valid")
}

/// Bytes that differ from those of another seed, and from themselves at another offset.
fn bytes(length: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    });
    next.take(length).collect()
}

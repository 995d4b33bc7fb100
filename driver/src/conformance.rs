//! The contract of a storage driver as tests, for any driver. For tests only.
//!
//! The behaviours are those of distribution's driver suite, written anew; [`REFERENCE`] says which case stands for which of
//! its tests. A driver whose layout makes a case impossible declares that with its reason, by [`Suite::impossible`]: the
//! case is run all the same, and must end in a clean refusal that changed nothing. Whatever is not declared must hold.
//! Every case leaves the driver empty, and that is checked.

mod arrival;
mod bench;
mod content;
mod layout;
mod reference;
mod stream;
mod subject;
mod tree;
mod walks;
mod watched;

use std::fmt::{self, Display};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::error::DriverError;
use crate::path::DriverPath;

use bench::Bench;
use watched::Watched;

pub use layout::{FreeLayout, Layout, RegistryLayout};
pub use reference::{REFERENCE, Reference};
pub use subject::{Arriving, Bare, Subject};

/// The suite, for one driver that is empty.
pub struct Suite {
    subject: Arc<dyn Subject>,
    impossible: Vec<Impossible>,
}

/// A case that a driver's layout makes impossible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Impossible {
    /// The case.
    pub case: &'static str,
    /// How the driver refuses it.
    pub refusal: Refusal,
    /// Why it has to.
    pub why: &'static str,
}

/// The errors by which a driver says that it will never do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// [`DriverError::InvalidPath`]: the layout has no such place.
    InvalidPath,
    /// [`DriverError::InvalidRequest`]: the operation is not for that place.
    InvalidRequest,
    /// [`DriverError::Unsupported`]: the driver has no such operation.
    Unsupported,
}

/// What came out of it.
#[derive(Debug, Default)]
pub struct Report {
    /// The cases that hold.
    pub passed: Vec<&'static str>,
    /// The cases that were declared impossible, and were refused as declared.
    pub refused: Vec<Impossible>,
    /// The cases that do not hold, or were not refused as declared, and how.
    pub failed: Vec<(&'static str, Violation)>,
}

/// How a driver breaks the contract.
#[derive(Debug)]
pub enum Violation {
    /// It will not do what the case needs.
    Refused(Refusal, DriverError),
    /// It does something else.
    Broken(String),
}

type Outcome = Result<(), Violation>;

/// One behaviour.
struct Case {
    name: &'static str,
    run: fn(Bench) -> BoxFuture<'static, Outcome>,
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
            Err(other) => return Err(crate::conformance::Violation::from(other)),
            Ok(_) => {
                return Err(crate::conformance::Violation::new(concat!(stringify!($result), " succeeded")))
            }
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
        root_exists, unusual_paths_hold_content, hostile_texts_are_no_paths, foreign_paths_are_refused,
        folders_hold_no_content, put_content_is_read_back, put_content_replaces_all_of_it,
        missing_content_is_not_found, planted_content_is_read_back, planted_content_is_described,
        content_over_the_limit_is_for_readers, concurrent_puts_are_never_mixed, a_redirect_is_a_place;
    stream:
        written_streams_are_read_back, a_large_stream_is_read_back, ranges_give_their_bytes,
        missing_streams_are_not_found, appending_goes_on_where_it_was, empty_commit_can_be_appended_to,
        empty_content_can_be_appended_to, appending_to_nothing_is_not_found,
        uncommitted_content_is_not_visible, cancel_leaves_nothing, a_writer_ends_once,
        create_truncates_what_was_not_committed, a_path_has_one_writer, streams_are_read_concurrently,
        files_are_written_concurrently, a_commit_is_never_mixed_with_what_it_replaces,
        a_reader_outlives_its_content, a_reader_outlives_a_rewrite;
    tree:
        list_gives_direct_children, missing_folders_are_not_found, rename_moves_content, rename_overwrites,
        a_stream_is_renamed_to_its_place, a_stream_is_renamed_onto_the_same_content,
        rename_of_nothing_leaves_the_destination, concurrent_renames_to_one_place_agree,
        concurrent_renames_onto_each_other_lose_one, nothing_lies_under_a_file, rename_moves_folders,
        delete_removes_a_folder_with_all_in_it, delete_of_one_file_leaves_its_siblings,
        delete_of_nothing_is_not_found, delete_goes_by_whole_parts, delete_removes_what_is_not_committed,
        stat_tells_size_kind_and_time;
    walks:
        walks_see_everything_in_order, walks_skip_folders, walks_start_after_their_hint,
        walks_begin_at_a_folder, what_vanishes_during_a_walk_is_skipped;
    arrival:
        a_crash_before_the_commit_shows_nothing, an_upload_goes_on_after_a_restart,
        committed_content_survives_a_restart, a_blob_still_arriving_is_read_as_it_comes;
}

impl Suite {
    /// The suite for a subject whose driver is empty.
    #[must_use]
    pub fn new(subject: Arc<dyn Subject>) -> Self {
        Self { subject, impossible: Vec::new() }
    }

    /// Declares that the driver's layout makes cases impossible, how they are refused, and why.
    #[must_use]
    pub fn impossible(mut self, cases: &[&'static str], refusal: Refusal, why: &'static str) -> Self {
        self.impossible.extend(cases.iter().map(|case| Impossible { case, refusal, why }));
        self
    }

    /// The names of all cases.
    pub fn cases() -> impl Iterator<Item = &'static str> {
        CASES.iter().map(|case| case.name)
    }

    /// Runs every case, one after the other.
    pub async fn run(self) -> Report {
        let mut report = Report::default();
        for case in CASES {
            let declared = self.impossible.iter().find(|declared| declared.case == case.name);
            let outcome = match declared {
                Some(declared) => self.is_refused(case, declared).await,
                None => (case.run)(self.bench()).await,
            };
            match (outcome.and(self.bench().clear().await), declared) {
                (Ok(()), None) => report.passed.push(case.name),
                (Ok(()), Some(declared)) => report.refused.push(*declared),
                (Err(violation), _) => report.failed.push((case.name, violation)),
            }
        }
        for Impossible { case, .. } in self.impossible {
            if Self::cases().all(|name| name != case) {
                report.failed.push((case, Violation::new("declared impossible, but there is no such case")));
            }
        }
        report
    }

    fn bench(&self) -> Bench {
        Bench::new(Arc::clone(&self.subject))
    }

    /// Runs a case that must end in a refusal, over a driver that holds something, and looks for what it changed.
    async fn is_refused(&self, case: &Case, declared: &Impossible) -> Outcome {
        let content = bytes(1000, WITNESS);
        let witness = self.subject.plant(content.clone()).await?;
        let bench = self.bench();
        let watched = Arc::new(Watched::new(self.subject.driver(), bench.context.clone()));
        match (case.run)(bench.clone().over(Arc::clone(&watched))).await {
            Err(Violation::Refused(refusal, error)) if refusal == declared.refusal => {
                bench.names_itself(&error)?;
            }
            Err(other) => return Err(other),
            Ok(()) => return Err(Violation::new("declared impossible, but it holds")),
        }
        watched.outcome()?;
        ensure!(bench.get(&witness).await? == content, "a refusal changed what was there");
        self.subject.uproot(&witness).await?;
        Ok(())
    }
}

impl Report {
    /// Panics with every violation if there is one.
    pub fn assert(&self) {
        assert!(self.failed.is_empty(), "the driver breaks its contract: {:#?}", self.failed);
    }
}

impl Refusal {
    /// What kind of refusal the error is; `None` if it is something else.
    fn of(error: &DriverError) -> Option<Self> {
        match error {
            DriverError::InvalidPath { .. } => Some(Self::InvalidPath),
            DriverError::InvalidRequest { .. } => Some(Self::InvalidRequest),
            DriverError::Unsupported { .. } => Some(Self::Unsupported),
            _ => None,
        }
    }
}

impl Violation {
    fn new(detail: impl Display) -> Self {
        Self::Broken(detail.to_string())
    }
}

impl Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(_, error) => write!(f, "refused: {error}"),
            Self::Broken(detail) => f.write_str(detail),
        }
    }
}

impl From<DriverError> for Violation {
    fn from(error: DriverError) -> Self {
        match Refusal::of(&error) {
            Some(refusal) => Self::Refused(refusal, error),
            None => Self::Broken(format!("unexpected error: {error:?}")),
        }
    }
}

/// The content that must outlive every refusal.
const WITNESS: u64 = 4711;

fn path(text: &str) -> DriverPath {
    DriverPath::parse(text).expect("the suite's own paths are valid")
}

/// Bytes that differ from those of another seed, and from themselves at another offset.
fn bytes(length: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

//! The life of a [`crate::FileWriter`], as one table for every driver.

use crate::error::{DriverError, Errors};

/// Where a writer is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriterState {
    Open,
    /// A step was begun and did not end well, or its caller went away meanwhile: what is on disk is not known for sure.
    Broken,
    Committed,
    Cancelled,
    Closed,
}

/// What a caller does to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Write,
    Commit,
    Cancel,
    Close,
}

impl WriterState {
    /// The state after a step that may be taken; why not, otherwise.
    pub(crate) fn after(self, step: Step) -> Result<Self, &'static str> {
        match (self, step) {
            (Self::Open, Step::Write) => Ok(Self::Open),
            (Self::Open, Step::Commit) => Ok(Self::Committed),
            (Self::Open | Self::Broken, Step::Cancel) => Ok(Self::Cancelled),
            (Self::Open | Self::Broken | Self::Committed | Self::Cancelled, Step::Close) => Ok(Self::Closed),
            (Self::Broken, _) => Err("an earlier write failed"),
            (Self::Committed, _) => Err("already committed"),
            (Self::Cancelled, _) => Err("already cancelled"),
            (Self::Closed, _) => Err("already closed"),
        }
    }

    /// Begins a step: the writer is [`Self::Broken`] until the returned state is set.
    pub(crate) fn begin(&mut self, step: Step, errors: Errors) -> Result<Self, DriverError> {
        let next = self.after(step).map_err(|why| errors.failed(format!("writer: {why}")))?;
        *self = Self::Broken;
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_ends_once() {
        use Step::{Cancel, Close, Commit, Write};
        let life =
            |steps: &[Step]| steps.iter().try_fold(WriterState::Open, |state, step| state.after(*step));
        for allowed in [&[Write, Write, Commit, Close][..], &[Cancel, Close], &[Close]] {
            assert_eq!(life(allowed), Ok(WriterState::Closed), "{allowed:?}");
        }
        for refused in [
            [Close, Close],
            [Close, Write],
            [Close, Commit],
            [Close, Cancel],
            [Commit, Commit],
            [Commit, Write],
            [Commit, Cancel],
            [Cancel, Cancel],
            [Cancel, Write],
            [Cancel, Commit],
        ] {
            assert!(life(&refused).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn a_broken_writer_cannot_commit() {
        assert!(WriterState::Broken.after(Step::Commit).is_err());
        assert!(WriterState::Broken.after(Step::Write).is_err());
        assert_eq!(WriterState::Broken.after(Step::Cancel), Ok(WriterState::Cancelled));
        assert_eq!(WriterState::Broken.after(Step::Close), Ok(WriterState::Closed));
    }
}

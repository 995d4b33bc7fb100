//! What comes to a partial, for who passes it on and does not fetch it himself.

use shoal_core::Bitfield;
use tokio::sync::watch;

use crate::blob::Blob;
use crate::partial::Partial;
use crate::progress::{Phase, Progress};

/// Tells of the pieces that come to one partial, by whatever way.
#[derive(Debug)]
pub struct Arrivals {
    progress: watch::Receiver<Progress>,
    told: Bitfield,
}

/// What became of a partial.
#[derive(Debug)]
pub enum Arrived {
    /// These are in: some more than was told before.
    Pieces(Bitfield),
    /// All of it. There is nothing more to tell.
    Whole(Blob),
    /// It was deleted, or thrown away. There is nothing more to tell.
    Gone,
}

impl Arrivals {
    /// Completes when there is more than was told before. Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Arrived {
        let told = &self.told;
        let news = |progress: &Progress| match progress.phase() {
            Phase::Whole { .. } | Phase::Gone(_) => true,
            Phase::Open | Phase::Failed | Phase::Proved => progress.pieces().count() > told.count(),
        };
        // The sender goes with the last handle and the store.
        let Ok(progress) = self.progress.wait_for(news).await else { return Arrived::Gone };
        match progress.phase() {
            Phase::Whole { blob, .. } => Arrived::Whole(blob.clone()),
            Phase::Gone(_) => Arrived::Gone,
            Phase::Open | Phase::Failed | Phase::Proved => {
                self.told = progress.pieces().clone();
                Arrived::Pieces(self.told.clone())
            }
        }
    }
}

impl Partial {
    /// Tells of what comes beyond `told`.
    #[must_use]
    pub fn arrivals(&self, told: Bitfield) -> Arrivals {
        Arrivals { progress: self.0.progress.subscribe(), told }
    }
}

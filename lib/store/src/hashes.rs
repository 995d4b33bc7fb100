//! The piece hashes of a partial: all from the start, or learned in order while its pieces come.
//!
//! An origin that receives a blob learns each hash from the piece itself, and whoever fetches from that origin learns it from
//! the origin. Such hashes are worth as much as who says them; *vouched for* is the partial once somebody signed all of them.

use std::sync::OnceLock;

use shoal_core::{Digest, Metainfo, PieceHash, PieceIndex, SignedMetainfo};
use tokio::sync::watch;

use crate::partial::{Inner, Partial};
use crate::progress::Progress;

/// See the module. At most as many as the blob has pieces.
#[derive(Debug)]
pub(crate) struct Hashes {
    /// Those of the first pieces. Not grown any more once all are signed.
    learned: watch::Sender<Vec<PieceHash>>,
    signed: OnceLock<SignedMetainfo>,
}

/// What is said of the pieces of a partial differs from what is known of them. One of the two is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what is said of the pieces of {digest} differs from what is known of them")]
pub struct Conflict {
    /// Blob.
    pub digest: Digest,
}

/// The same, of a blob that goes without saying; or some are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unfit;

impl Hashes {
    pub(crate) fn new(known: &SignedMetainfo) -> Self {
        let hashes = Self { learned: watch::Sender::new(Vec::new()), signed: OnceLock::new() };
        if known.metainfo.is_complete() {
            // Nobody else has it yet.
            let _ = hashes.signed.set(known.clone());
        } else {
            hashes.learned.send_replace(all_of(&known.metainfo));
        }
        hashes
    }

    pub(crate) fn of(&self, piece: PieceIndex) -> Option<PieceHash> {
        match self.signed.get() {
            Some(signed) => signed.metainfo.hash(piece).copied(),
            None => self.learned.borrow().get(piece.0 as usize).copied(),
        }
    }

    /// All of them, once somebody signed that.
    pub(crate) fn signed(&self) -> Option<&SignedMetainfo> {
        self.signed.get()
    }

    /// Those that are known, from that piece on.
    pub(crate) fn from(&self, first: u32) -> Vec<PieceHash> {
        let rest = |known: &[PieceHash]| known.get(first as usize..).unwrap_or_default().to_vec();
        match self.signed.get() {
            Some(signed) => rest(&all_of(&signed.metainfo)),
            None => rest(&self.learned.borrow()),
        }
    }

    /// How many are known.
    pub(crate) fn count(&self) -> u32 {
        match self.signed.get() {
            Some(signed) => signed.metainfo.known(),
            None => u32::try_from(self.learned.borrow().len()).unwrap_or(u32::MAX),
        }
    }

    /// Completes when that piece's hash is known, or all are signed.
    pub(crate) async fn known(&self, piece: PieceIndex) {
        let mut changes = self.learned.subscribe();
        // The sender lives as long as this.
        let _ = changes.wait_for(|known| known.len() > piece.0 as usize || self.signed.get().is_some()).await;
    }

    /// Takes those of the pieces from `first` on, of which there must be no more than the blob has.
    pub(crate) fn learn(&self, first: u32, hashes: &[PieceHash]) -> Result<(), Unfit> {
        if let Some(signed) = self.signed.get() {
            let known = all_of(&signed.metainfo);
            return extend(&mut known.clone(), first, hashes).map(drop);
        }
        let mut outcome = Ok(false);
        self.learned.send_if_modified(|known| {
            outcome = extend(known, first, hashes);
            outcome == Ok(true)
        });
        outcome.map(drop)
    }

    /// Takes all of them.
    pub(crate) fn vouch(&self, signed: &SignedMetainfo) -> Result<(), Unfit> {
        let known = self.from(0);
        let all = all_of(&signed.metainfo);
        if !signed.metainfo.is_complete() || !all.starts_with(&known) {
            return Err(Unfit);
        }
        // Whoever was quicker said the same of every piece.
        let _ = self.signed.set(signed.clone());
        self.learned.send_modify(|_| ());
        Ok(())
    }
}

impl Partial {
    /// All of it with proof, for passing on; `None` while nobody has signed it.
    #[must_use]
    pub fn signed(&self) -> Option<SignedMetainfo> {
        self.0.hashes.signed().cloned()
    }

    /// The hashes that are known from that piece on, without gaps.
    #[must_use]
    pub fn hashes(&self, first: PieceIndex) -> Vec<PieceHash> {
        self.0.hashes.from(first.0)
    }

    /// Of how many pieces, from the first, the hashes are known.
    #[must_use]
    pub fn known(&self) -> u32 {
        self.0.hashes.count()
    }

    /// Completes when the hash of that piece is known, or all are signed.
    pub async fn hash_known(&self, piece: PieceIndex) {
        self.0.hashes.known(piece).await;
    }

    /// Takes the hashes of the pieces from `first` on. Who says them is for the caller to judge.
    pub fn learn(&self, first: PieceIndex, hashes: &[PieceHash]) -> Result<(), Conflict> {
        let most = self.metainfo().geometry().piece_count().saturating_sub(first.0);
        let learned = hashes.len() <= most as usize && self.0.hashes.learn(first.0, hashes).is_ok();
        if learned { Ok(()) } else { Err(Conflict { digest: self.0.digest() }) }
    }

    /// Takes the metainfo with the hashes of all pieces. Whether it is signed well is for the caller to judge.
    pub fn vouch(&self, signed: &SignedMetainfo) -> Result<(), Conflict> {
        self.0.vouch(signed)
    }
}

impl Inner {
    pub(crate) fn vouch(&self, signed: &SignedMetainfo) -> Result<(), Conflict> {
        let digest = self.digest();
        let (theirs, ours) = (&signed.metainfo, self.metainfo());
        let is_same = theirs.digest() == ours.digest() && theirs.geometry() == ours.geometry();
        if !is_same || self.hashes.vouch(signed).is_err() {
            return Err(Conflict { digest });
        }
        self.progress.send_if_modified(Progress::vouch);
        Ok(())
    }
}

/// Says whether any is new.
fn extend(known: &mut Vec<PieceHash>, first: u32, hashes: &[PieceHash]) -> Result<bool, Unfit> {
    let again = known.get(first as usize..).ok_or(Unfit)?;
    let same = again.len().min(hashes.len());
    if again[..same] != hashes[..same] {
        return Err(Unfit);
    }
    known.extend_from_slice(&hashes[same..]);
    Ok(same < hashes.len())
}

fn all_of(metainfo: &Metainfo) -> Vec<PieceHash> {
    (0..metainfo.known()).filter_map(|piece| metainfo.hash(PieceIndex(piece)).copied()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shoal_core::Geometry;

    use super::*;
    use crate::testing::{MIB, content, proof, signed};

    fn outline() -> SignedMetainfo {
        let geometry = Geometry::for_blob(5 * MIB as u64).unwrap();
        SignedMetainfo { metainfo: Metainfo::outline(Digest::sha256(b"x"), geometry), proof: proof() }
    }

    fn hash(number: u8) -> PieceHash {
        PieceHash([number; 32])
    }

    proptest! {
        #[test]
        fn what_is_known_grows_without_gaps_and_never_changes(
            said in prop::collection::vec((0u32..6, prop::collection::vec(0u8..3, 0..4)), 0..12)
        ) {
            let (hashes, mut model) = (Hashes::new(&outline()), Vec::<PieceHash>::new());
            for (first, values) in said {
                let values: Vec<_> = values.into_iter().map(hash).collect();
                let at = first as usize;
                let fits = at <= model.len()
                    && values.iter().zip(model.iter().skip(at)).all(|(one, other)| one == other);
                prop_assert_eq!(hashes.learn(first, &values).is_ok(), fits);
                if fits {
                    model.truncate(model.len().max(at));
                    for (number, value) in values.iter().enumerate() {
                        if at + number == model.len() {
                            model.push(*value);
                        }
                    }
                }
                prop_assert_eq!(hashes.from(0), model.clone());
                prop_assert_eq!(hashes.of(PieceIndex(first)), model.get(at).copied());
            }
        }
    }

    #[test]
    fn only_what_agrees_with_what_is_known_is_vouched_for() {
        let (right, other) = (signed(&content(2 * MIB, 1)), signed(&content(2 * MIB, 2)));
        let hashes = Hashes::new(&outline());
        hashes.learn(0, &all_of(&right.metainfo)[..1]).unwrap();
        assert_eq!(hashes.vouch(&other), Err(Unfit));
        assert_eq!(hashes.vouch(&outline()), Err(Unfit));
        assert!(hashes.signed().is_none());
        hashes.vouch(&right).unwrap();
        assert_eq!(hashes.signed(), Some(&right));
        assert_eq!(hashes.of(PieceIndex(1)), right.metainfo.hash(PieceIndex(1)).copied());
    }
}

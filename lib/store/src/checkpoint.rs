//! Makes pieces outlive a crash: a bitfield on disk that never claims more than the disk has.
//!
//! Order, always: take the marked pieces, sync the bytes and the metainfo, then replace the bitfield (temporary file, sync,
//! rename, sync of the folder). A crash before the rename leaves the older bitfield, which claims less. At most [`MAX_UNSAVED_BYTES`] or [`MAX_DELAY`]
//! of pieces are fetched again. Runs in a task of its own, off the write path, at most one a partial, that ends when
//! nothing is unsaved.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use shoal_core::{Bitfield, Metainfo, PieceHash};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::directory::locked;
use crate::disk::{self, DiskError, blocking};
use crate::layout::PartialFile;
use crate::partial::Inner;
use crate::progress::Phase;

/// The pieces of one partial that no bitfield on disk claims yet.
#[derive(Debug, Default)]
pub(crate) struct Unsaved {
    state: Mutex<State>,
    /// Do not wait for the delay.
    due: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    bytes: u64,
    task: Option<AbortHandle>,
}

impl Unsaved {
    /// Counts a piece that was just marked, and sees to it that somebody will save it. Needs a tokio runtime.
    pub(crate) fn add(&self, length: u32, partial: &Arc<Inner>) {
        let mut state = locked(&self.state);
        state.bytes += u64::from(length);
        if state.task.is_none() {
            let task = tokio::spawn(save_until_clean(Arc::downgrade(partial), self.due.clone()));
            state.task = Some(task.abort_handle());
        }
        if state.bytes >= MAX_UNSAVED_BYTES {
            self.due.notify_one();
        }
    }

    /// Saves what there is without further delay.
    pub(crate) fn hurry(&self) {
        if locked(&self.state).task.is_some() {
            self.due.notify_one();
        }
    }

    /// What is marked from here on is unsaved again.
    fn begin(&self) {
        locked(&self.state).bytes = 0;
    }

    /// Whether there is nothing left to save; then the task ends.
    fn is_clean(&self) -> bool {
        let mut state = locked(&self.state);
        if state.bytes == 0 {
            state.task = None;
        }
        state.bytes == 0
    }
}

impl Drop for Unsaved {
    fn drop(&mut self) {
        if let Some(task) = &locked(&self.state).task {
            task.abort();
        }
    }
}

/// Holds the partial only while it works, so that a waiting task keeps no store open.
async fn save_until_clean(partial: Weak<Inner>, due: Arc<Notify>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(MAX_DELAY) => {}
            () = due.notified() => {}
        }
        let Some(partial) = partial.upgrade() else { return };
        let clean = blocking(move || {
            partial.checkpoint();
            partial.unsaved.is_clean()
        });
        if clean.await {
            return;
        }
    }
}

impl Inner {
    /// Saves which pieces are in. A failure costs a later restart those pieces, nothing else; it is logged here.
    pub(crate) fn checkpoint(&self) {
        self.unsaved.begin();
        let digest = self.digest();
        let pieces = self.progress.borrow().pieces().clone();
        if self.sync().is_err() {
            return;
        }
        if let Err(error) = self.save(&pieces) {
            tracing::warn!(%digest, error = error.describe(), "cannot save which pieces are in; a restart would fetch them again");
        }
    }

    fn save(&self, pieces: &Bitfield) -> Result<(), DiskError> {
        let Ok(_change) = self.directory.change(&self.digest()) else { return Ok(()) };
        // No file may vouch for bytes that moved away or are removed.
        if matches!(self.progress.borrow().phase(), Phase::Whole { .. } | Phase::Gone(_)) {
            return Ok(());
        }
        let layout = self.directory.layout();
        let metainfo = layout.partial(&self.digest(), PartialFile::Metainfo);
        disk::sync_data(&disk::open_file(&metainfo)?, &metainfo)?;
        let path = layout.partial(&self.digest(), PartialFile::Bitfield);
        self.directory.write_durable(&path, &encode(pieces, self.metainfo()))
    }
}

/// `SHBF`, version 1, the bits, and a checksum of all that and of the metainfo whose pieces they are.
pub(crate) fn encode(pieces: &Bitfield, metainfo: &Metainfo) -> Bytes {
    let mut out = BytesMut::from(MAGIC.as_slice());
    out.put_slice(&pieces.to_bytes());
    let checksum = checksum(&out, metainfo);
    out.put_slice(&checksum.0);
    out.freeze()
}

/// Reads what [`encode`] gives for the same metainfo; anything else is `None`.
pub(crate) fn decode(content: &[u8], metainfo: &Metainfo) -> Option<Bitfield> {
    let (body, found) = content.split_last_chunk::<CHECKSUM_LENGTH>()?;
    let bits = body.strip_prefix(MAGIC)?;
    if checksum(body, metainfo).0 != *found {
        return None;
    }
    Bitfield::from_bytes(metainfo.geometry().piece_count(), bits).ok()
}

fn checksum(body: &[u8], metainfo: &Metainfo) -> PieceHash {
    let bound = PieceHash::of(&metainfo.encode());
    PieceHash::of(&[body, bound.0.as_slice()].concat())
}

/// The longest file that can be a bitfield.
pub(crate) fn encoded_length(metainfo: &Metainfo) -> usize {
    MAGIC.len() + Bitfield::byte_length(metainfo.geometry().piece_count()) + CHECKSUM_LENGTH
}

const MAGIC: &[u8; 5] = b"SHBF\x01";
const CHECKSUM_LENGTH: usize = 32;
/// A fifth of a second of a 300 MB/s link: what a crash may cost, against a sync that costs tens of milliseconds.
const MAX_UNSAVED_BYTES: u64 = 64 << 20;
/// The same for slow links.
const MAX_DELAY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use shoal_core::PieceIndex;

    use super::*;
    use crate::testing::{content, signed};

    proptest! {
        #[test]
        fn encoding_and_decoding_are_inverse_and_a_flipped_bit_is_refused(bits: u8, at: prop::sample::Index, bit in 0u8..8) {
            let mut pieces = Bitfield::empty(7);
            for piece in (0..7).filter(|piece| bits >> piece & 1 == 1) {
                pieces.insert(PieceIndex(piece));
            }
            let mut encoded = encode(&pieces, metainfo()).to_vec();
            prop_assert_eq!(encoded.len(), encoded_length(metainfo()));
            prop_assert_eq!(decode(&encoded, metainfo()), Some(pieces));
            let at = at.index(encoded.len());
            encoded[at] ^= 1 << bit;
            prop_assert_eq!(decode(&encoded, metainfo()), None);
        }
    }

    fn metainfo() -> &'static Metainfo {
        static METAINFO: LazyLock<Metainfo> = LazyLock::new(|| signed(&content(7 << 20, 1)).metainfo);
        &METAINFO
    }

    #[test]
    fn a_bitfield_of_another_metainfo_is_refused() {
        let (one, two) = (signed(&content(3 << 20, 1)).metainfo, signed(&content(3 << 20, 2)).metainfo);
        assert_eq!(decode(&encode(&Bitfield::full(3), &one), &two), None);
        assert_eq!(decode(b"", &one), None);
    }
}

//! Multipart uploads under way.
//!
//! On an upload's data it is a writer's session: parts are appended as they come, so they must come in order, which is how
//! the registry's driver sends them. On a blob's data it notes which ranges of an upload it is put together from, which
//! must be all of it, and ends in a rename. Sessions are in memory: a restart ends them, and the client begins again.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use s3s::{S3ErrorCode, S3Result};
use shoal_driver::DriverPath;
use uuid::Uuid;

use crate::error::refusal;
use crate::keys::Named;

/// Every multipart upload.
pub(crate) struct Uploads {
    open: Mutex<LruCache<Uuid, Arc<Upload>>>,
    moved: Mutex<LruCache<DriverPath, u64>>,
}

/// One multipart upload.
pub(crate) struct Upload {
    pub(crate) id: Uuid,
    pub(crate) named: Named,
    /// Held over a whole part: parts of one upload are written one after the other.
    pub(crate) session: tokio::sync::Mutex<Session>,
}

/// What the parts of an upload become.
pub(crate) enum Session {
    /// Each part is behind the one before.
    Append(Vec<Part>),
    /// The parts are ranges of what will be moved there.
    Move(Vec<Piece>),
    /// A write failed half way, or the upload is over.
    Over,
}

/// A part that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) number: i32,
    pub(crate) length: u64,
    pub(crate) tag: String,
}

/// A part that is a range of another object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) part: Part,
    pub(crate) from: DriverPath,
    pub(crate) start: u64,
}

/// What is to be done with a part that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It goes behind the others.
    Next,
    /// It is the last one once more: its answer was lost.
    Again,
}

/// The most parts of an upload: S3's own limit.
const MAX_PARTS: usize = 10_000;

impl Uploads {
    /// Multipart uploads under way: twice as many as the registry's own upload sessions. One more ends the one that was
    /// longest without a part.
    const MAX_OPEN: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

    /// Uploads that became blobs and were not deleted yet, which follows at once.
    const MAX_MOVED: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

    pub(crate) fn new() -> Self {
        let (open, moved) = (LruCache::new(Self::MAX_OPEN), LruCache::new(Self::MAX_MOVED));
        Self { open: Mutex::new(open), moved: Mutex::new(moved) }
    }

    /// Begins an upload. On an upload's data it ends the one before: there is one writer.
    pub(crate) fn begin(&self, named: Named, session: Session) -> Arc<Upload> {
        if let Session::Append(_) = session {
            self.end(&named.path);
        }
        let upload =
            Arc::new(Upload { id: Uuid::new_v4(), named, session: tokio::sync::Mutex::new(session) });
        self.open().put(upload.id, Arc::clone(&upload));
        upload
    }

    /// The upload of that id on that object.
    pub(crate) fn find(&self, id: &str, named: &Named) -> S3Result<Arc<Upload>> {
        let found = Uuid::try_parse(id).ok().and_then(|id| self.open().get(&id).cloned());
        found.filter(|upload| upload.named == *named).ok_or_else(|| no_such_upload(&named.path))
    }

    /// Ends the uploads on that path.
    pub(crate) fn end(&self, path: &DriverPath) {
        let mut open = self.open();
        let ended: Vec<_> =
            open.iter().filter(|(_, upload)| upload.named.path == *path).map(|(id, _)| *id).collect();
        for id in ended {
            open.pop(&id);
        }
    }

    /// Ends that upload.
    pub(crate) fn remove(&self, id: Uuid) {
        self.open().pop(&id);
    }

    /// The uploads that satisfy `is_meant`, by path.
    pub(crate) fn all(&self, is_meant: impl Fn(&Named) -> bool) -> Vec<Arc<Upload>> {
        let mut found: Vec<_> = self
            .open()
            .iter()
            .map(|(_, upload)| upload)
            .filter(|upload| is_meant(&upload.named))
            .cloned()
            .collect();
        found.sort_by(|a, b| (&a.named.path, a.id).cmp(&(&b.named.path, b.id)));
        found
    }

    /// The upload's data became a blob. Its key is shown until it is deleted, because the registry's driver moves by a copy
    /// and a deletion, and takes a source that is gone for a failure.
    pub(crate) fn note_moved(&self, from: DriverPath, length: u64) {
        self.moved().put(from, length);
    }

    /// The length of what became a blob and was not deleted yet.
    pub(crate) fn moved_length(&self, path: &DriverPath) -> Option<u64> {
        self.moved().peek(path).copied()
    }

    /// Says that it may be forgotten.
    pub(crate) fn forget_moved(&self, path: &DriverPath) -> bool {
        self.moved().pop(path).is_some()
    }

    fn open(&self) -> MutexGuard<'_, LruCache<Uuid, Arc<Upload>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn moved(&self) -> MutexGuard<'_, LruCache<DriverPath, u64>> {
        self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    /// The parts so far, in their order.
    pub(crate) fn parts(&self) -> Vec<Part> {
        match self {
            Self::Append(parts) => parts.clone(),
            Self::Move(pieces) => {
                let mut parts: Vec<_> = pieces.iter().map(|piece| piece.part.clone()).collect();
                parts.sort_by_key(|part| part.number);
                parts
            }
            Self::Over => Vec::new(),
        }
    }
}

/// Whether a part may be appended: parts have the numbers 1, 2, 3, …, in this order.
pub(crate) fn arrival(parts: &[Part], arriving: &Part) -> S3Result<Arrival> {
    let expected = parts.len() + 1;
    if parts.last() == Some(arriving) {
        Ok(Arrival::Again)
    } else if expected > MAX_PARTS {
        Err(refusal(S3ErrorCode::InvalidPart, format!("an upload has at most {MAX_PARTS} parts")))
    } else if usize::try_from(arriving.number) == Ok(expected) {
        Ok(Arrival::Next)
    } else {
        let message =
            format!("part {} arrived, part {expected} is next: parts are appended in order", arriving.number);
        Err(refusal(S3ErrorCode::InvalidPartOrder, message))
    }
}

/// Notes a range of an upload; the same number replaces what it was before.
pub(crate) fn note(pieces: &mut Vec<Piece>, piece: Piece) -> S3Result<()> {
    pieces.retain(|other| other.part.number != piece.part.number);
    if pieces.len() >= MAX_PARTS {
        return Err(refusal(S3ErrorCode::InvalidPart, format!("an upload has at most {MAX_PARTS} parts")));
    }
    if pieces.first().is_some_and(|first| first.from != piece.from) {
        return Err(refusal(S3ErrorCode::InvalidPart, "a blob is the copy of one upload, not of several"));
    }
    pieces.push(piece);
    Ok(())
}

/// The one source of which the pieces are the whole, and its length.
pub(crate) fn whole_of(mut pieces: Vec<Piece>) -> S3Result<(DriverPath, u64)> {
    pieces.sort_by_key(|piece| piece.part.number);
    let mut end = 0;
    for piece in &pieces {
        if piece.start != end {
            let message = format!("part {} starts at byte {}, not {end}", piece.part.number, piece.start);
            return Err(refusal(S3ErrorCode::InvalidPart, message));
        }
        end += piece.part.length;
    }
    let first = pieces.into_iter().next();
    let first = first.ok_or_else(|| refusal(S3ErrorCode::InvalidPart, "a blob without a part"))?;
    Ok((first.from, end))
}

/// The parts that a client believes to have sent must be those that are here.
pub(crate) fn confirm(parts: &[Part], named: &[(i32, String)]) -> S3Result<()> {
    let same = parts.len() == named.len()
        && parts.iter().zip(named).all(|(part, (number, tag))| part.number == *number && part.tag == *tag);
    if same {
        Ok(())
    } else {
        Err(refusal(S3ErrorCode::InvalidPart, "the parts are not those that were uploaded"))
    }
}

pub(crate) fn no_such_upload(path: &DriverPath) -> s3s::S3Error {
    refusal(S3ErrorCode::NoSuchUpload, format!("no such multipart upload of {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(number: i32, tag: &str) -> Part {
        Part { number, length: 10, tag: tag.into() }
    }

    fn piece(number: i32, start: u64, from: &str) -> Piece {
        Piece { part: part(number, ""), from: DriverPath::parse(from).unwrap(), start }
    }

    #[test]
    fn parts_are_taken_in_order_and_the_last_one_twice() {
        let parts = [part(1, "a"), part(2, "b")];
        assert_eq!(arrival(&parts, &part(3, "c")).unwrap(), Arrival::Next);
        assert_eq!(arrival(&parts, &part(2, "b")).unwrap(), Arrival::Again);
        for refused in [part(4, "d"), part(2, "other"), part(1, "a"), part(0, ""), part(-1, "")] {
            assert_eq!(arrival(&parts, &refused).unwrap_err().code(), &S3ErrorCode::InvalidPartOrder);
        }
    }

    #[test]
    fn pieces_in_any_order_are_a_whole_only_without_gaps() {
        assert_eq!(whole_of(vec![piece(2, 10, "/a"), piece(1, 0, "/a")]).unwrap().1, 20);
        assert!(whole_of(vec![piece(1, 10, "/a")]).is_err());
        assert!(whole_of(vec![piece(1, 0, "/a"), piece(2, 11, "/a")]).is_err());
        assert!(whole_of(Vec::new()).is_err());
    }

    #[test]
    fn a_piece_sent_again_replaces_itself_and_one_of_another_upload_is_refused() {
        let mut pieces = vec![piece(1, 0, "/a")];
        note(&mut pieces, piece(1, 0, "/a")).unwrap();
        assert_eq!(pieces.len(), 1);
        note(&mut pieces, piece(2, 10, "/a")).unwrap();
        assert!(note(&mut pieces, piece(3, 20, "/b")).is_err());
    }
}

//! All piece arithmetic, in one place. A [`Piece`] that exists is in range.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// How long the pieces of a blob are: a power of two from 1 MiB to 16 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct PieceLength(u32);

/// The number of a piece within its blob, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PieceIndex(pub u32);

/// How a blob of a given length is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Cut")]
pub struct Geometry {
    length: u64,
    piece_length: PieceLength,
}

/// One piece of a blob: which, from where, how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its number.
    pub index: PieceIndex,
    /// Where it starts in the blob, in bytes.
    pub offset: u64,
    /// How many bytes it has; never 0.
    pub length: u32,
}

/// Why a blob cannot be cut so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GeometryError {
    /// The piece length is none of the allowed ones.
    #[error("piece length {0} is not a power of two from {min} to {max}", min = PieceLength::MIN.0, max = PieceLength::MAX.0)]
    PieceLength(u32),
    /// The blob would have more pieces than anything here handles.
    #[error("a blob of {length} bytes has too many pieces of {piece_length} bytes: at most {max} are allowed", max = Geometry::MAX_PIECES)]
    TooManyPieces {
        /// The blob's length in bytes.
        length: u64,
        /// The piece length in bytes.
        piece_length: u32,
    },
}

impl PieceLength {
    /// 1 MiB: below it the cost of a request outweighs what is gained by spreading.
    pub const MIN: Self = Self(1 << 20);
    /// 16 MiB: a piece is held in memory while it is checked.
    pub const MAX: Self = Self(16 << 20);
    /// The number of pieces up to which a longer piece is not yet chosen.
    const WANTED_PIECES: u64 = 4096;

    /// Checks a length from outside.
    pub fn new(bytes: u32) -> Result<Self, GeometryError> {
        let valid = bytes.is_power_of_two() && (Self::MIN.0..=Self::MAX.0).contains(&bytes);
        if valid { Ok(Self(bytes)) } else { Err(GeometryError::PieceLength(bytes)) }
    }

    /// The length for a blob: 1 MiB, doubled until there are at most 4,096 pieces, 16 MiB at most.
    #[must_use]
    pub fn for_blob(length: u64) -> Self {
        let mut bytes = Self::MIN.0;
        while bytes < Self::MAX.0 && length.div_ceil(u64::from(bytes)) > Self::WANTED_PIECES {
            bytes *= 2;
        }
        Self(bytes)
    }

    /// The length in bytes.
    #[must_use]
    pub fn bytes(self) -> u32 {
        self.0
    }
}

/// A [`Geometry`] from outside, not checked.
#[derive(Deserialize)]
struct Cut {
    length: u64,
    piece_length: PieceLength,
}

impl TryFrom<Cut> for Geometry {
    type Error = GeometryError;

    fn try_from(cut: Cut) -> Result<Self, GeometryError> {
        Self::new(cut.length, cut.piece_length)
    }
}

impl TryFrom<u32> for PieceLength {
    type Error = GeometryError;

    fn try_from(bytes: u32) -> Result<Self, GeometryError> {
        Self::new(bytes)
    }
}

impl From<PieceLength> for u32 {
    fn from(length: PieceLength) -> Self {
        length.0
    }
}

impl Geometry {
    /// The most pieces a blob may have: 1 TiB of 16 MiB pieces, whose hashes take 2 MiB.
    pub const MAX_PIECES: u64 = 1 << 16;

    /// Cuts `length` bytes into pieces of `piece_length`.
    pub fn new(length: u64, piece_length: PieceLength) -> Result<Self, GeometryError> {
        if length.div_ceil(u64::from(piece_length.0)) > Self::MAX_PIECES {
            return Err(GeometryError::TooManyPieces { length, piece_length: piece_length.0 });
        }
        Ok(Self { length, piece_length })
    }

    /// Cuts `length` bytes as [`PieceLength::for_blob`] says.
    pub fn for_blob(length: u64) -> Result<Self, GeometryError> {
        Self::new(length, PieceLength::for_blob(length))
    }

    /// The blob's length in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The length of every piece but the last.
    #[must_use]
    pub fn piece_length(&self) -> PieceLength {
        self.piece_length
    }

    /// How many pieces there are; 0 for an empty blob.
    #[must_use]
    pub fn piece_count(&self) -> u32 {
        u32::try_from(self.length.div_ceil(u64::from(self.piece_length.0)))
            .expect("at most MAX_PIECES, checked in new")
    }

    /// The piece of that number, if there is one.
    #[must_use]
    pub fn piece(&self, index: PieceIndex) -> Option<Piece> {
        let offset = u64::from(index.0) * u64::from(self.piece_length.0);
        let left = self.length.checked_sub(offset).filter(|&left| left > 0)?;
        let length = u32::try_from(left).map_or(self.piece_length.0, |left| left.min(self.piece_length.0));
        Some(Piece { index, offset, length })
    }

    /// The piece that holds the byte at `offset`, if the blob reaches that far.
    #[must_use]
    pub fn piece_at(&self, offset: u64) -> Option<Piece> {
        let index = u32::try_from(offset / u64::from(self.piece_length.0)).ok()?;
        if offset < self.length { self.piece(PieceIndex(index)) } else { None }
    }

    /// The numbers of the pieces that a range of bytes touches; what lies beyond the blob is left out.
    #[must_use]
    pub fn pieces_of(&self, bytes: Range<u64>) -> Range<u32> {
        let end = bytes.end.min(self.length);
        if bytes.start >= end {
            return 0..0;
        }
        let number = |byte: u64| {
            u32::try_from(byte / u64::from(self.piece_length.0)).expect("below the length, checked in new")
        };
        number(bytes.start)..number(end - 1) + 1
    }

    /// All pieces, in order.
    pub fn pieces(&self) -> impl Iterator<Item = Piece> + use<> {
        let geometry = *self;
        (0..self.piece_count()).filter_map(move |index| geometry.piece(PieceIndex(index)))
    }
}

impl Piece {
    /// The bytes of the blob that the piece covers.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset + u64::from(self.length)
    }
}

impl fmt::Display for PieceIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn piece_length_doubles_with_the_blob() {
        for (length, mib) in
            [(0, 1), (1, 1), (4096 * MIB, 1), (4096 * MIB + 1, 2), (16384 * MIB, 4), (1 << 40, 16)]
        {
            assert_eq!(u64::from(PieceLength::for_blob(length).bytes()), mib * MIB, "blob of {length}");
        }
    }

    #[test]
    fn an_empty_blob_has_no_piece() {
        let geometry = Geometry::for_blob(0).unwrap();
        assert_eq!(geometry.piece_count(), 0);
        assert_eq!(geometry.piece(PieceIndex(0)), None);
        assert_eq!(geometry.piece_at(0), None);
        assert_eq!(geometry.pieces_of(0..10), 0..0);
    }

    #[test]
    fn odd_piece_lengths_and_endless_blobs_are_refused() {
        for bytes in [0, 1, MIB as u32 - 1, 3 << 20, 32 << 20, u32::MAX] {
            assert!(PieceLength::new(bytes).is_err(), "{bytes} was accepted");
        }
        assert!(Geometry::for_blob((1 << 40) + 1).is_err());
        assert!(Geometry::for_blob(u64::MAX).is_err());
    }

    proptest! {
        #[test]
        fn pieces_tile_the_blob(length in 0..64 * MIB) {
            let geometry = Geometry::for_blob(length).unwrap();
            let mut next = 0;
            for piece in geometry.pieces() {
                prop_assert_eq!(piece.offset, next);
                prop_assert!(piece.length > 0);
                next += u64::from(piece.length);
            }
            prop_assert_eq!(next, length);
            prop_assert_eq!(geometry.piece(PieceIndex(geometry.piece_count())), None);
        }

        #[test]
        fn a_byte_is_in_the_piece_at_its_offset(length in 1..64 * MIB, at: u64) {
            let geometry = Geometry::for_blob(length).unwrap();
            let at = at % length;
            prop_assert!(geometry.piece_at(at).unwrap().range().contains(&at));
            prop_assert_eq!(geometry.piece_at(length), None);
        }

        #[test]
        fn a_range_touches_the_pieces_that_hold_it(length in 1..64 * MIB, a: u64, b: u64) {
            let geometry = Geometry::for_blob(length).unwrap();
            let (start, end) = (a % (length + MIB), b % (length + MIB));
            let touched: Vec<u32> = geometry
                .pieces()
                .filter(|piece| piece.offset < end && start < piece.range().end && start < end)
                .map(|piece| piece.index.0)
                .collect();
            prop_assert_eq!(geometry.pieces_of(start..end).collect::<Vec<_>>(), touched);
        }

        #[test]
        fn no_number_from_outside_panics(length: u64, piece_length: u32, index: u32, offset: u64) {
            if let Ok(geometry) = PieceLength::new(piece_length).and_then(|cut| Geometry::new(length, cut)) {
                let _ = (geometry.piece(PieceIndex(index)), geometry.piece_at(offset), geometry.piece_count());
                let _ = geometry.pieces_of(offset..length);
            }
        }
    }

    #[test]
    fn a_geometry_from_outside_is_checked() {
        let geometry = Geometry::for_blob(5 * MIB + 1).unwrap();
        let text = serde_json::to_string(&geometry).unwrap();
        assert_eq!(text, r#"{"length":5242881,"piece_length":1048576}"#);
        assert_eq!(serde_json::from_str::<Geometry>(&text).unwrap(), geometry);
        for bad in [
            r#"{"length":1,"piece_length":1000000}"#,
            r#"{"length":18446744073709551615,"piece_length":1048576}"#,
            r#"{"length":1}"#,
        ] {
            assert!(serde_json::from_str::<Geometry>(bad).is_err(), "{bad}");
        }
    }
}

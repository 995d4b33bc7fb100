//! Which pieces of a blob somebody has.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

use crate::piece::{Geometry, PieceIndex};

/// A set of pieces out of a fixed number. Bits beyond that number are never set.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Bitfield {
    words: Vec<u64>,
    length: u32,
    ones: u32,
}

/// Bytes from outside are no bitfield of that many pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a bitfield of {length} pieces has {expected} bytes and no bit set beyond the last piece; got {found} bytes"
)]
pub struct BitfieldError {
    length: u32,
    expected: usize,
    found: usize,
}

/// A text is no bitfield.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseBitfieldError {
    /// It has another form.
    #[error("a bitfield is written <pieces>:<lower-case hex>, <pieces>:all or <pieces>:none, with at most {max} pieces", max = Geometry::MAX_PIECES)]
    Form,
    /// The bytes are not those of so many pieces.
    #[error(transparent)]
    Bytes(#[from] BitfieldError),
}

impl Bitfield {
    /// None of `length` pieces.
    #[must_use]
    pub fn empty(length: u32) -> Self {
        Self { words: vec![0; (length as usize).div_ceil(64)], length, ones: 0 }
    }

    /// All of `length` pieces.
    #[must_use]
    pub fn full(length: u32) -> Self {
        let mut words = vec![u64::MAX; (length as usize).div_ceil(64)];
        if let (Some(last), used @ 1..) = (words.last_mut(), length % 64) {
            *last = (1 << used) - 1;
        }
        Self { words, length, ones: length }
    }

    /// Out of how many pieces.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.length
    }

    /// Whether there are no pieces at all: the bitfield of an empty blob.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// How many pieces are in.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.ones
    }

    /// Whether every piece is in.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.ones == self.length
    }

    /// Whether the piece is in; one that does not exist never is.
    #[must_use]
    pub fn contains(&self, piece: PieceIndex) -> bool {
        piece.0 < self.length && self.words[piece.0 as usize / 64] >> (piece.0 % 64) & 1 == 1
    }

    /// Puts a piece in. Says whether it is new; a piece that does not exist is never put in.
    pub fn insert(&mut self, piece: PieceIndex) -> bool {
        if piece.0 >= self.length || self.contains(piece) {
            return false;
        }
        self.words[piece.0 as usize / 64] |= 1 << (piece.0 % 64);
        self.ones += 1;
        true
    }

    /// Takes a piece out. Says whether it was in.
    pub fn remove(&mut self, piece: PieceIndex) -> bool {
        if !self.contains(piece) {
            return false;
        }
        self.words[piece.0 as usize / 64] &= !(1 << (piece.0 % 64));
        self.ones -= 1;
        true
    }

    /// The pieces that are in, in order.
    pub fn iter(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        self.words.iter().enumerate().flat_map(|(at, &word)| bits(at, word))
    }

    /// The pieces that are in here and not in `other`, in order.
    pub fn difference<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = PieceIndex> + 'a {
        let others = other.words.iter().copied().chain(std::iter::repeat(0));
        self.words.iter().zip(others).enumerate().flat_map(|(at, (&word, other))| bits(at, word & !other))
    }

    /// The first piece from `from` on that is not in.
    #[must_use]
    pub fn first_missing(&self, from: PieceIndex) -> Option<PieceIndex> {
        let start = from.0 as usize / 64;
        let before = (1 << (from.0 % 64)) - 1;
        let words = self.words.iter().enumerate().skip(start);
        let missing = words.map(|(at, &word)| (at, !(if at == start { word | before } else { word })));
        let first = missing.flat_map(|(at, missing)| bits(at, missing)).next()?;
        // The last word has room beyond the last piece.
        (first.0 < self.length).then_some(first)
    }

    /// One bit a piece, the first piece in the lowest bit of the first byte.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.truncate(Self::byte_length(self.length));
        bytes
    }

    /// Reads what [`Bitfield::to_bytes`] gives. The number of bytes is checked before anything is allocated.
    pub fn from_bytes(length: u32, bytes: &[u8]) -> Result<Self, BitfieldError> {
        let expected = Self::byte_length(length);
        let error = BitfieldError { length, expected, found: bytes.len() };
        if bytes.len() != expected {
            return Err(error);
        }
        let words: Vec<u64> = bytes
            .chunks(8)
            .map(|chunk| {
                let mut word = [0; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                u64::from_le_bytes(word)
            })
            .collect();
        if !length.is_multiple_of(64) && words.last().is_some_and(|last| last >> (length % 64) != 0) {
            return Err(error);
        }
        let ones = words.iter().map(|word| word.count_ones()).sum();
        Ok(Self { words, length, ones })
    }

    /// How many bytes a bitfield of `length` pieces takes.
    #[must_use]
    pub fn byte_length(length: u32) -> usize {
        (length as usize).div_ceil(8)
    }
}

impl fmt::Debug for Bitfield {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bitfield({}/{})", self.ones, self.length)
    }
}

/// `<pieces>:<hex>`, or `<pieces>:all` and `<pieces>:none`: what most bitfields are, in few bytes.
impl fmt::Display for Bitfield {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.length)?;
        match self.ones {
            0 => f.write_str("none"),
            _ if self.is_full() => f.write_str("all"),
            _ => f.write_str(&HEXLOWER.encode(&self.to_bytes())),
        }
    }
}

/// Reads what `Display` writes. The number of pieces is checked before anything is allocated.
impl FromStr for Bitfield {
    type Err = ParseBitfieldError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (length, pieces) = text.split_once(':').ok_or(ParseBitfieldError::Form)?;
        let length: u32 = length.parse().map_err(|_| ParseBitfieldError::Form)?;
        if u64::from(length) > Geometry::MAX_PIECES {
            return Err(ParseBitfieldError::Form);
        }
        match pieces {
            "none" => Ok(Self::empty(length)),
            "all" => Ok(Self::full(length)),
            hex => {
                let bytes = HEXLOWER.decode(hex.as_bytes()).map_err(|_| ParseBitfieldError::Form)?;
                Ok(Self::from_bytes(length, &bytes)?)
            }
        }
    }
}

impl Serialize for Bitfield {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Bitfield {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

fn bits(at: usize, mut word: u64) -> impl Iterator<Item = PieceIndex> {
    std::iter::from_fn(move || {
        (word != 0).then(|| {
            let bit = word.trailing_zeros();
            word &= word - 1;
            PieceIndex(u32::try_from(at).expect("a bitfield's length is 32 bits") * 64 + bit)
        })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn set(field: &Bitfield) -> BTreeSet<u32> {
        field.iter().map(|piece| piece.0).collect()
    }

    proptest! {
        #[test]
        fn behaves_as_a_set(length in 0u32..300, steps in prop::collection::vec((any::<bool>(), 0u32..310), 0..200)) {
            let mut field = Bitfield::empty(length);
            let mut model = BTreeSet::new();
            for (insert, piece) in steps {
                if insert {
                    prop_assert_eq!(field.insert(PieceIndex(piece)), piece < length && model.insert(piece));
                } else {
                    prop_assert_eq!(field.remove(PieceIndex(piece)), model.remove(&piece));
                }
            }
            prop_assert_eq!(set(&field), model.clone());
            prop_assert_eq!(field.count() as usize, model.len());
            prop_assert_eq!(field.is_full(), model.len() == length as usize);
            for from in 0..310 {
                let missing = (from..length).find(|p| !model.contains(p));
                prop_assert_eq!(field.first_missing(PieceIndex(from)).map(|p| p.0), missing);
            }
            prop_assert_eq!(Bitfield::from_bytes(length, &field.to_bytes()).unwrap(), field.clone());
            prop_assert_eq!(field.to_string().parse::<Bitfield>().unwrap(), field.clone());
            let missing: BTreeSet<u32> = Bitfield::full(length).difference(&field).map(|p| p.0).collect();
            prop_assert_eq!(missing, (0..length).filter(|p| !model.contains(p)).collect());
        }

        #[test]
        fn bytes_of_the_wrong_size_or_with_stray_bits_are_refused(length in 0u32..100, bytes: Vec<u8>) {
            match Bitfield::from_bytes(length, &bytes) {
                Ok(field) => prop_assert_eq!(field.to_bytes(), bytes),
                Err(_) => prop_assert!(
                    bytes.len() != Bitfield::byte_length(length)
                        || (length % 8 != 0 && bytes.last().is_some_and(|last| last >> (length % 8) != 0))
                ),
            }
        }

        #[test]
        fn a_text_of_nobody_is_refused_or_read_as_it_is_written(text in "[0-9]{0,6}:?(all|none|[0-9a-f]{0,8}|.{0,4})") {
            if let Ok(field) = text.parse::<Bitfield>() {
                prop_assert_eq!(field.to_string().parse::<Bitfield>().unwrap(), field);
            }
        }

        #[test]
        fn full_has_every_piece(length in 0u32..300) {
            let field = Bitfield::full(length);
            prop_assert!(field.is_full());
            prop_assert_eq!(field.iter().count(), length as usize);
        }
    }

    #[test]
    fn a_text_is_short_where_it_can_be_and_a_huge_one_allocates_nothing() {
        let mut field = Bitfield::empty(12);
        assert_eq!(field.to_string(), "12:none");
        field.insert(PieceIndex(9));
        assert_eq!(field.to_string(), "12:0002");
        assert_eq!(Bitfield::full(12).to_string(), "12:all");
        assert_eq!("4294967295:all".parse::<Bitfield>(), Err(ParseBitfieldError::Form));
        assert!(matches!("12:0010".parse::<Bitfield>(), Err(ParseBitfieldError::Bytes(_))));
    }
}

//! Metainfo: what a node must know of a blob to fetch it in pieces and to trust each of them.
//!
//! The encoding is canonical (one value, one byte string), since it is what an origin signs.

use std::fmt;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use data_encoding::HEXLOWER;

use crate::codec::{Decoder, EndOfInput};
use crate::digest::{Algorithm, Digest};
use crate::piece::{Geometry, GeometryError, PieceIndex, PieceLength};

/// The BLAKE3 hash of one piece.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PieceHash(pub [u8; 32]);

/// A blob's digest, its geometry, and the hash of each of its pieces. Cheap to clone.
///
/// Of a blob that is still arriving behind an origin only the first hashes are known, or none: an *outline*. It says how the
/// blob is cut, and that the rest is to be asked for.
#[derive(Clone, PartialEq, Eq)]
pub struct Metainfo {
    digest: Digest,
    geometry: Geometry,
    hashes: Arc<[PieceHash]>,
}

/// Who says that a metainfo is right: an origin's certificate, and its signature over the canonical encoding.
///
/// Whether it is worth anything is for `shoal-identity` to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The signer's certificate, DER.
    pub certificate: Bytes,
    /// The signature over [`Metainfo::encode`].
    pub signature: Bytes,
}

/// A metainfo with its proof, as it is stored and handed on. **Not** verified by being one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedMetainfo {
    /// What is claimed.
    pub metainfo: Metainfo,
    /// By whom.
    pub proof: Proof,
}

/// Why bytes are no metainfo.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetainfoError {
    /// The bytes end before the value does.
    #[error("metainfo is cut: {0}")]
    Cut(#[from] EndOfInput),
    /// Not a metainfo at all, or of a version that this program does not know.
    #[error("not a metainfo of a known version")]
    UnknownFormat,
    /// Pieces of a length, or in a number, that is not allowed.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// The number of hashes is not the number of pieces.
    #[error("metainfo names {found} piece hashes for a blob of {expected} pieces")]
    HashCount {
        /// How many pieces the blob has.
        expected: u32,
        /// How many hashes there are.
        found: u32,
    },
    /// There is more after the end.
    #[error("{0} stray bytes after the metainfo")]
    Trailing(usize),
    /// A certificate or signature longer than any real one.
    #[error("proof of {0} bytes is longer than the {max} allowed", max = Proof::MAX_LENGTH)]
    ProofTooLong(usize),
}

impl PieceHash {
    /// The hash of a piece's bytes.
    #[must_use]
    pub fn of(piece: &[u8]) -> Self {
        Self(*blake3::hash(piece).as_bytes())
    }
}

impl fmt::Debug for PieceHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl Metainfo {
    /// The longest encoding: a header, and the hashes of the most pieces a blob may have.
    pub const MAX_ENCODED_LENGTH: usize = 128 + 32 * Geometry::MAX_PIECES as usize;
    const MAGIC: [u8; 5] = *b"SHMI\x01";
    /// Of one that lacks hashes. Whoever reads an older version refuses it.
    const OUTLINE: [u8; 5] = *b"SHMI\x02";

    /// Puts a metainfo together; there must be one hash for each piece.
    pub fn new(digest: Digest, geometry: Geometry, hashes: Vec<PieceHash>) -> Result<Self, MetainfoError> {
        let found = u32::try_from(hashes.len()).unwrap_or(u32::MAX);
        if found != geometry.piece_count() {
            return Err(MetainfoError::HashCount { expected: geometry.piece_count(), found });
        }
        Ok(Self { digest, geometry, hashes: hashes.into() })
    }

    /// What is known of a blob before its first piece has come.
    #[must_use]
    pub fn outline(digest: Digest, geometry: Geometry) -> Self {
        Self { digest, geometry, hashes: Arc::default() }
    }

    /// Whether the hash of every piece is known.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.known() == self.geometry.piece_count()
    }

    /// The hashes of how many pieces are known, from the first.
    #[must_use]
    pub fn known(&self) -> u32 {
        u32::try_from(self.hashes.len()).expect("never more than there are pieces")
    }

    /// The metainfo of a blob that is in memory.
    pub fn of(content: &[u8]) -> Result<Self, GeometryError> {
        let mut builder = MetainfoBuilder::new(Geometry::for_blob(content.len() as u64)?);
        builder.update(content);
        Ok(builder.finish(Digest::sha256(content)).expect("exactly the blob's bytes were taken"))
    }

    /// The blob's digest.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// How the blob is cut.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The blob's length in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.geometry.length()
    }

    /// The hash that a piece must have, if there is such a piece and its hash is known.
    #[must_use]
    pub fn hash(&self, piece: PieceIndex) -> Option<&PieceHash> {
        self.hashes.get(piece.0 as usize)
    }

    /// The canonical encoding.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(128 + 32 * self.hashes.len());
        out.put_slice(if self.is_complete() { &Self::MAGIC } else { &Self::OUTLINE });
        put_digest(&mut out, &self.digest);
        out.put_u64(self.geometry.length());
        out.put_u32(self.geometry.piece_length().bytes());
        out.put_u32(self.known());
        for hash in self.hashes.iter() {
            out.put_slice(&hash.0);
        }
        out.freeze()
    }

    /// Reads the canonical encoding, and nothing else.
    pub fn decode(bytes: Bytes) -> Result<Self, MetainfoError> {
        let mut input = Decoder::new(bytes);
        let version = input.array()?;
        if ![Self::MAGIC, Self::OUTLINE].contains(&version) {
            return Err(MetainfoError::UnknownFormat);
        }
        let digest = take_digest(&mut input)?;
        let length = input.u64()?;
        let geometry = Geometry::new(length, PieceLength::new(input.u32()?)?)?;
        let (found, expected) = (input.u32()?, geometry.piece_count());
        let fits = if version == Self::MAGIC { found == expected } else { found < expected };
        if !fits {
            return Err(MetainfoError::HashCount { expected, found });
        }
        let hashes = input.bytes(32 * found as usize)?;
        if input.left() > 0 {
            return Err(MetainfoError::Trailing(input.left()));
        }
        let hashes = hashes.as_chunks::<32>().0.iter().map(|hash| PieceHash(*hash)).collect();
        Ok(Self { digest, geometry, hashes })
    }
}

impl fmt::Debug for Metainfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (known, pieces) = (self.known(), self.geometry.piece_count());
        write!(f, "Metainfo({}, {} bytes, {known} of {pieces} pieces)", self.digest, self.length())
    }
}

impl Proof {
    /// The most bytes a certificate or a signature may have here.
    pub const MAX_LENGTH: usize = 8192;
}

impl SignedMetainfo {
    /// The longest encoding.
    pub const MAX_ENCODED_LENGTH: usize = Metainfo::MAX_ENCODED_LENGTH + 2 * Proof::MAX_LENGTH + 16;

    /// The encoding in which it is stored and handed on.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let metainfo = self.metainfo.encode();
        let mut out = BytesMut::with_capacity(metainfo.len() + Proof::MAX_LENGTH);
        for part in [&metainfo, &self.proof.certificate, &self.proof.signature] {
            out.put_u32(u32::try_from(part.len()).expect("each part is capped far below 4 GiB"));
            out.put_slice(part);
        }
        out.freeze()
    }

    /// Reads what [`SignedMetainfo::encode`] gives. The proof is **not** checked.
    pub fn decode(bytes: Bytes) -> Result<Self, MetainfoError> {
        let mut input = Decoder::new(bytes);
        let length = input.u32()?;
        let metainfo = Metainfo::decode(input.bytes(length as usize)?)?;
        let certificate = take_proof_part(&mut input)?;
        let signature = take_proof_part(&mut input)?;
        if input.left() > 0 {
            return Err(MetainfoError::Trailing(input.left()));
        }
        Ok(Self { metainfo, proof: Proof { certificate, signature } })
    }
}

fn take_proof_part(input: &mut Decoder) -> Result<Bytes, MetainfoError> {
    let length = input.u32()? as usize;
    if length > Proof::MAX_LENGTH {
        return Err(MetainfoError::ProofTooLong(length));
    }
    Ok(input.bytes(length)?)
}

/// One byte for the algorithm, then the raw value.
pub fn put_digest(out: &mut impl BufMut, digest: &Digest) {
    out.put_u8(match digest.algorithm() {
        Algorithm::Sha256 => 1,
        Algorithm::Sha512 => 2,
    });
    out.put_slice(digest.as_bytes());
}

/// Reads what [`put_digest`] wrote.
pub fn take_digest(input: &mut Decoder) -> Result<Digest, MetainfoError> {
    match input.u8()? {
        1 => Ok(Digest::Sha256(input.array()?)),
        2 => Ok(Digest::Sha512(input.array()?)),
        _ => Err(MetainfoError::UnknownFormat),
    }
}

/// Cuts a blob that comes in parts: hashes each piece as soon as it is full.
#[derive(Debug)]
pub struct MetainfoBuilder {
    geometry: Geometry,
    hasher: blake3::Hasher,
    taken: u64,
    hashes: Vec<PieceHash>,
}

impl MetainfoBuilder {
    /// A builder for a blob of known length.
    #[must_use]
    pub fn new(geometry: Geometry) -> Self {
        let hashes = Vec::with_capacity(geometry.piece_count() as usize);
        Self { geometry, hasher: blake3::Hasher::new(), taken: 0, hashes }
    }

    /// Takes the next bytes of the blob.
    pub fn update(&mut self, mut bytes: &[u8]) {
        let piece_length = u64::from(self.geometry.piece_length().bytes());
        while !bytes.is_empty() {
            let room = piece_length - self.taken % piece_length;
            let part = bytes.len().min(usize::try_from(room).expect("a piece has at most 16 MiB"));
            self.hasher.update(&bytes[..part]);
            self.taken += part as u64;
            bytes = &bytes[part..];
            if self.taken.is_multiple_of(piece_length) || self.taken == self.geometry.length() {
                self.hashes.push(PieceHash(*self.hasher.finalize().as_bytes()));
                self.hasher.reset();
            }
        }
    }

    /// The metainfo, for the digest that the caller has proved. Fails unless exactly the blob's length was taken.
    pub fn finish(self, digest: Digest) -> Result<Metainfo, MetainfoError> {
        Metainfo::new(digest, self.geometry, self.hashes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn signed(content: &[u8]) -> SignedMetainfo {
        let proof =
            Proof { certificate: Bytes::from_static(b"certificate"), signature: Bytes::from_static(b"sig") };
        SignedMetainfo { metainfo: Metainfo::of(content).unwrap(), proof }
    }

    #[test]
    fn pieces_are_hashed_apart() {
        let mut content = vec![7; 2 << 20];
        content.extend([1, 2, 3]);
        let metainfo = Metainfo::of(&content).unwrap();
        assert_eq!(metainfo.geometry().piece_count(), 3);
        assert_eq!(metainfo.hash(PieceIndex(1)), Some(&PieceHash::of(&content[1 << 20..2 << 20])));
        assert_eq!(metainfo.hash(PieceIndex(2)), Some(&PieceHash::of(&[1, 2, 3])));
        assert_eq!(metainfo.hash(PieceIndex(3)), None);
    }

    #[test]
    fn an_empty_blob_has_a_metainfo() {
        let metainfo = Metainfo::of(b"").unwrap();
        assert_eq!(Metainfo::decode(metainfo.encode()).unwrap(), metainfo);
    }

    #[test]
    fn an_outline_is_no_metainfo_and_reads_back_as_what_it_is() {
        let content = vec![7; 2 << 20];
        let (digest, geometry) = (Digest::sha256(&content), Geometry::for_blob(2 << 20).unwrap());
        let outline = Metainfo::outline(digest, geometry);
        assert!(!outline.is_complete() && Metainfo::of(&content).unwrap().is_complete());
        assert_eq!((outline.known(), outline.hash(PieceIndex(0))), (0, None));
        assert_eq!(Metainfo::decode(outline.encode()).unwrap(), outline);
        // Neither is taken for the other, whatever the version says.
        let mut renamed = outline.encode().to_vec();
        renamed[4] = 1;
        assert!(matches!(Metainfo::decode(renamed.into()), Err(MetainfoError::HashCount { .. })));
        let mut renamed = Metainfo::of(&content).unwrap().encode().to_vec();
        renamed[4] = 2;
        assert!(matches!(Metainfo::decode(renamed.into()), Err(MetainfoError::HashCount { .. })));
    }

    #[test]
    fn a_builder_that_saw_less_than_the_blob_refuses() {
        let mut builder = MetainfoBuilder::new(Geometry::for_blob(3 << 20).unwrap());
        builder.update(&vec![0; 1 << 20]);
        assert!(matches!(
            builder.finish(Digest::sha256(b"")),
            Err(MetainfoError::HashCount { expected: 3, found: 1 })
        ));
    }

    #[test]
    fn a_cut_or_longer_encoding_is_refused() {
        let whole = signed(&[5; 100]).encode();
        for end in 0..whole.len() {
            assert!(SignedMetainfo::decode(whole.slice(..end)).is_err(), "{end} bytes were accepted");
        }
        let longer = [whole.as_ref(), b"x"].concat();
        assert_eq!(SignedMetainfo::decode(longer.into()), Err(MetainfoError::Trailing(1)));
    }

    proptest! {
        #[test]
        fn builder_does_not_care_how_the_bytes_are_parted(parts in prop::collection::vec(0usize..900_000, 0..6)) {
            let content: Vec<u8> = (0..parts.iter().sum::<usize>()).map(|at| (at % 251) as u8).collect();
            let mut builder = MetainfoBuilder::new(Geometry::for_blob(content.len() as u64).unwrap());
            let mut rest = content.as_slice();
            for part in parts {
                let (head, tail) = rest.split_at(part);
                builder.update(head);
                rest = tail;
            }
            prop_assert_eq!(builder.finish(Digest::sha256(&content)).unwrap(), Metainfo::of(&content).unwrap());
        }

        #[test]
        fn encoding_and_decoding_are_inverse(content: Vec<u8>) {
            let signed = signed(&content);
            prop_assert_eq!(SignedMetainfo::decode(signed.encode()).unwrap(), signed);
        }

        #[test]
        fn garbage_is_refused_or_canonical(mut bytes: Vec<u8>, version in 0u8..3) {
            if version > 0 {
                bytes.splice(0..0, [b'S', b'H', b'M', b'I', version, 1]);
            }
            if let Ok(metainfo) = Metainfo::decode(bytes.clone().into()) {
                prop_assert_eq!(metainfo.encode().to_vec(), bytes);
            }
        }
    }
}

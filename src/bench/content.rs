//! Bytes of a blob that nobody keeps: the same random ones again and again, as often as the blob is long.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use shoal_core::{Algorithm, Digester, Geometry, Metainfo, MetainfoBuilder, Piece, PieceLength};

/// The content of a blob of one length.
#[derive(Clone, Debug)]
pub(super) struct Content {
    geometry: Geometry,
    repeated: Bytes,
}

impl Content {
    pub(super) fn new(length: u64) -> anyhow::Result<Self> {
        // A whole number of pieces of any length: no piece goes over its end.
        let mut repeated = BytesMut::zeroed(PieceLength::MAX.bytes() as usize);
        SmallRng::seed_from_u64(length).fill_bytes(&mut repeated);
        Ok(Self { geometry: Geometry::for_blob(length)?, repeated: repeated.freeze() })
    }

    /// All pieces in order, without a copy.
    pub(super) fn pieces(&self) -> impl Iterator<Item = (Piece, Bytes)> {
        self.geometry.pieces().map(|piece| {
            let start = usize::try_from(piece.offset % self.repeated.len() as u64).expect("below 16 MiB");
            (piece, self.repeated.slice(start..start + piece.length as usize))
        })
    }

    /// Hashes all of it.
    pub(super) fn metainfo(&self) -> anyhow::Result<Metainfo> {
        let (mut digester, mut builder) =
            (Digester::new(Algorithm::Sha256), MetainfoBuilder::new(self.geometry));
        for (_, bytes) in self.pieces() {
            digester.update(&bytes);
            builder.update(&bytes);
        }
        Ok(builder.finish(digester.finish())?)
    }

    /// Writes all of it, and comes back when the disk has it.
    pub(super) fn write(&self, path: &Path) -> anyhow::Result<()> {
        self.try_write(path).with_context(|| format!("cannot write {}", path.display()))
    }

    fn try_write(&self, path: &Path) -> io::Result<()> {
        let mut file = File::create_new(path)?;
        for (_, bytes) in self.pieces() {
            file.write_all(&bytes)?;
        }
        file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_file_and_metainfo_are_of_one_blob() {
        let content = Content::new((17 << 20) + 3).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blob");
        content.write(&path).unwrap();
        let bytes = std::fs::read(path).unwrap();
        assert_eq!(content.pieces().flat_map(|(_, piece)| piece).collect::<Vec<_>>(), bytes);
        assert_eq!(content.metainfo().unwrap(), Metainfo::of(&bytes).unwrap());
    }
}

//! The store, used as the product uses it.

use std::hint::black_box;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use bytesize::ByteSize;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use shoal_core::SignedMetainfo;
use shoal_store::{Blob, CacheConfig, Config, Entry, Evictions, Percent, Room, Store, Verify};

use super::content::Content;
use super::usage::{Meter, Usage};

/// Takes a blob in, piece by piece, until it is committed.
pub(super) async fn write(
    directory: PathBuf,
    verify: Verify,
    metainfo: &Path,
    bytes: u64,
) -> anyhow::Result<Usage> {
    let content = Content::new(bytes)?;
    let signed = SignedMetainfo::decode(std::fs::read(metainfo)?.into())?;
    let (store, _evictions) = open_cache(directory, verify).await?;
    let meter = Meter::start();
    let Entry::Partial(partial) = store.create(&signed).await? else { bail!("the store is not new") };
    let writes = content.pieces().map(|(piece, bytes)| partial.write_piece(piece.index, bytes));
    stream::iter(writes).buffer_unordered(WRITES).try_for_each(|_| async { Ok(()) }).await?;
    partial.commit().await?;
    Ok(meter.stop())
}

/// Reads the blob of a store in order, as a client does.
pub(super) async fn read(directory: PathBuf, bytes: u64) -> anyhow::Result<Usage> {
    let (_store, blob) = open(directory).await?;
    let meter = Meter::start();
    let (mut reader, mut count) = (blob.reader(0..bytes), 0);
    while let Some(chunk) = reader.next().await {
        count += black_box(chunk?).len() as u64;
    }
    anyhow::ensure!(count == bytes, "{count} bytes were read instead of {bytes}");
    Ok(meter.stop())
}

/// Reads the blob of a store piece by piece, as peers do.
pub(super) async fn read_pieces(directory: PathBuf, _bytes: u64) -> anyhow::Result<Usage> {
    let (_store, blob) = open(directory).await?;
    let meter = Meter::start();
    for piece in blob.metainfo().geometry().pieces() {
        black_box(blob.read_piece(piece.index).await?);
    }
    Ok(meter.stop())
}

/// An agent's store that takes whatever there is room for.
pub(super) async fn open_cache(directory: PathBuf, verify: Verify) -> anyhow::Result<(Store, Evictions)> {
    let config = CacheConfig {
        capacity: Room::Share(Percent::new(100).expect("a hundred is allowed")),
        min_free: Room::Bytes(ByteSize(0)),
        verify,
        ..CacheConfig::new(directory)
    };
    Ok(Store::open_cache(config).await?)
}

/// A store and the only blob in it.
async fn open(directory: PathBuf) -> anyhow::Result<(Store, Blob)> {
    let store = Store::open(Config { directory }).await?;
    let digests = store.digests();
    let (digest, _) = digests.first().context("the store is empty")?;
    let blob = store.blob(digest).context("the blob is not whole")?;
    Ok((store, blob))
}

/// Pieces that are written at a time: two for each processor of a small host.
const WRITES: usize = 4;

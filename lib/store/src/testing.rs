//! A store in a temporary directory, and content to put into it.

use std::path::Path;

use bytes::Bytes;
use shoal_core::{Digest, Metainfo, PieceIndex, Proof, SignedMetainfo};
use tempfile::TempDir;

use crate::{Blob, BlobReader, Config, Entry, Partial, ReadError, Store, Written};

pub(crate) struct Scene {
    pub(crate) directory: TempDir,
    pub(crate) store: Store,
}

impl Scene {
    pub(crate) async fn open() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path()).await;
        Self { directory, store }
    }

    pub(crate) async fn put(&self, content: &[u8]) -> Blob {
        let digest = Digest::sha256(content);
        self.store.put(Bytes::copy_from_slice(content), &digest, |_| proof()).await.unwrap()
    }

    pub(crate) async fn create(&self, content: &[u8]) -> Partial {
        create(&self.store, &signed(content)).await
    }

    /// The same directory as a new process finds it.
    pub(crate) async fn reopen(&mut self) {
        self.store.close().await;
        self.store = open(self.directory.path()).await;
    }

    /// A store over a copy of the directory as it is now: what a crash at this instant leaves.
    pub(crate) async fn crash(&self) -> Self {
        let directory = tempfile::tempdir().unwrap();
        copy_tree(self.directory.path(), directory.path());
        let store = open(directory.path()).await;
        Self { directory, store }
    }
}

pub(crate) async fn open(directory: &Path) -> Store {
    Store::open(Config { directory: directory.to_owned() }).await.unwrap()
}

pub(crate) async fn create(store: &Store, signed: &SignedMetainfo) -> Partial {
    match store.create(signed).await.unwrap() {
        Entry::Partial(partial) => partial,
        Entry::Whole(blob) => panic!("{blob:?} is whole already"),
    }
}

pub(crate) fn proof() -> Proof {
    Proof { certificate: Bytes::from_static(b"certificate"), signature: Bytes::from_static(b"signature") }
}

pub(crate) fn signed(content: &[u8]) -> SignedMetainfo {
    SignedMetainfo { metainfo: Metainfo::of(content).unwrap(), proof: proof() }
}

/// A metainfo whose pieces are right and whose digest is not.
pub(crate) fn lie(content: &[u8]) -> SignedMetainfo {
    let truth = Metainfo::of(content).unwrap();
    let hashes = truth.geometry().pieces().map(|piece| *truth.hash(piece.index).unwrap()).collect();
    let metainfo = Metainfo::new(Digest::sha256(b"something else"), *truth.geometry(), hashes).unwrap();
    SignedMetainfo { metainfo, proof: proof() }
}

/// Bytes that differ from piece to piece and from seed to seed.
pub(crate) fn content(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&(state ^ (state >> 29)).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

pub(crate) fn piece_of(partial: &Partial, content: &[u8], index: u32) -> Bytes {
    let range = partial.metainfo().geometry().piece(PieceIndex(index)).unwrap().range();
    Bytes::copy_from_slice(&content[range.start as usize..range.end as usize])
}

pub(crate) async fn write(partial: &Partial, content: &[u8], index: u32) -> Written {
    partial.write_piece(PieceIndex(index), piece_of(partial, content, index)).await.unwrap()
}

pub(crate) async fn write_all(partial: &Partial, content: &[u8]) {
    for index in 0..partial.metainfo().geometry().piece_count() {
        write(partial, content, index).await;
    }
}

pub(crate) async fn read_to_end(reader: &mut BlobReader) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::new();
    while let Some(part) = reader.next().await {
        bytes.extend_from_slice(&part?);
    }
    Ok(bytes)
}

/// The names below a directory, sorted, without the lock.
pub(crate) fn files(directory: &Path) -> Vec<String> {
    fn collect(at: &Path, root: &Path, names: &mut Vec<String>) {
        for entry in std::fs::read_dir(at).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                collect(&entry.path(), root, names);
            } else {
                names.push(entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    let mut names = Vec::new();
    collect(directory, directory, &mut names);
    names.retain(|name| name != "lock");
    names.sort();
    names
}

fn copy_tree(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Lets a future run until it waits for something; it must not be done.
pub(crate) fn assert_waits<F: Future>(future: std::pin::Pin<&mut F>) {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(future.poll(&mut context).is_pending(), "it did not wait");
}

pub(crate) const MIB: usize = 1 << 20;

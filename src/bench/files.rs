//! What the file system gives without a store: the ceiling of the store.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::Context as _;
use rustix::fs::{FallocateFlags, fallocate};

use super::content::Content;
use super::usage::{Meter, Usage};

/// Into a preallocated file, as pieces come; synced at the end.
pub(super) fn write(path: &Path, bytes: u64) -> anyhow::Result<Usage> {
    let content = Content::new(bytes)?;
    let meter = Meter::start();
    let file = File::create_new(path).with_context(|| format!("cannot create {}", path.display()))?;
    // A file system that cannot preallocate writes all the same.
    let _ = fallocate(&file, FallocateFlags::empty(), 0, bytes);
    for (piece, bytes) in content.pieces() {
        file.write_all_at(&bytes, piece.offset)?;
    }
    file.sync_all()?;
    Ok(meter.stop())
}

/// From the start to the end.
pub(super) fn read(path: &Path, bytes: u64) -> anyhow::Result<Usage> {
    let mut buffer = vec![0; READ];
    let meter = Meter::start();
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut offset = 0;
    while offset < bytes {
        let length = usize::try_from(bytes - offset).map_or(READ, |left| left.min(READ));
        file.read_exact_at(&mut buffer[..length], offset)?;
        black_box(&buffer);
        offset += length as u64;
    }
    Ok(meter.stop())
}

/// A piece.
const READ: usize = 1 << 20;

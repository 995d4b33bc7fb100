//! Buffers for bulk bytes, used again and again.
//!
//! An allocator gives large blocks back to the system when they are freed, and asks for them anew: each page is then
//! cleared and mapped again, which costs about as much as to encrypt what goes into it. There is one pool a process, as
//! there is one allocator.

use std::mem;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// A `Vec<u8>` whose memory goes back to the pool in the end.
#[derive(Debug, Default)]
pub struct Buffer(Vec<u8>);

#[derive(Debug)]
struct Pool {
    free: Vec<Vec<u8>>,
    bytes: usize,
}

impl Buffer {
    /// An empty one, with room for so many bytes at least.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        let pooled = if capacity >= LEAST { pool().take(capacity) } else { None };
        let mut buffer = pooled.unwrap_or_else(|| Vec::with_capacity(capacity));
        buffer.clear();
        Self(buffer)
    }

    /// One of so many bytes; which ones is not said.
    #[must_use]
    pub fn of_length(length: usize) -> Self {
        let pooled = if length >= LEAST { pool().take(length) } else { None };
        let mut buffer = pooled.unwrap_or_default();
        buffer.resize(length, 0);
        Self(buffer)
    }

    /// Its bytes, to be shared without a copy. The memory goes back when the last share is dropped.
    #[must_use]
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.0.capacity() >= LEAST {
            pool().give_back(mem::take(&mut self.0));
        }
    }
}

impl Pool {
    /// The one that came back last, and is not far too large.
    fn take(&mut self, capacity: usize) -> Option<Vec<u8>> {
        let fits = |buffer: &Vec<u8>| (capacity..=capacity.saturating_mul(2)).contains(&buffer.capacity());
        let buffer = self.free.swap_remove(self.free.iter().rposition(fits)?);
        self.bytes -= buffer.capacity();
        Some(buffer)
    }

    /// What is in it stays, so that whoever takes it next need not clear it.
    fn give_back(&mut self, buffer: Vec<u8>) {
        if self.bytes + buffer.capacity() <= MAX_KEPT {
            self.bytes += buffer.capacity();
            self.free.push(buffer);
        }
    }
}

fn pool() -> MutexGuard<'static, Pool> {
    static POOL: Mutex<Pool> = Mutex::new(Pool { free: Vec::new(), bytes: 0 });
    // Nothing panics while it holds the lock.
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Smaller ones are what an allocator is good at.
const LEAST: usize = 64 << 10;

/// What nobody uses and is kept all the same, in bytes: eight pieces of most blobs.
const MAX_KEPT: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> Pool {
        Pool { free: Vec::new(), bytes: 0 }
    }

    #[test]
    fn what_comes_back_is_used_again_if_it_fits() {
        let mut pool = empty();
        pool.give_back(vec![1; 1 << 20]);
        assert_eq!(pool.take((1 << 20) + 1), None);
        assert_eq!(pool.take((1 << 19) - 1), None);
        let again = pool.take(1 << 19).unwrap();
        assert!(again.capacity() >= 1 << 20);
        assert_eq!((pool.free.len(), pool.bytes), (0, 0));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut pool = empty();
        for _ in 0..100 {
            pool.give_back(Vec::with_capacity(1 << 20));
        }
        pool.give_back(Vec::with_capacity(MAX_KEPT + 1));
        assert_eq!((pool.free.len(), pool.bytes), (8, MAX_KEPT));
    }

    #[test]
    fn one_has_the_length_that_was_asked_for_whatever_was_in_it() {
        drop(Buffer(vec![1; 200_000]));
        assert_eq!(Buffer::of_length(150_000).len(), 150_000);
        assert!(Buffer::with_capacity(150_000).is_empty());
        assert_eq!(Buffer::of_length(3).as_ref(), [0; 3]);
    }

    #[test]
    fn shares_see_the_bytes() {
        let mut buffer = Buffer::with_capacity(100_000);
        buffer.extend_from_slice(b"abc");
        let bytes = buffer.freeze();
        assert_eq!(bytes.slice(1..), &b"bc"[..]);
    }
}

//! Reading bytes from outside: every read is checked, nothing is allocated by a length that was not.

use bytes::Bytes;

/// The bytes end before the value does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("input ends early: {wanted} more bytes wanted, {left} left")]
pub struct EndOfInput {
    /// How many bytes the next value takes.
    pub wanted: usize,
    /// How many there are.
    pub left: usize,
}

/// Takes values from the front of a buffer. Numbers are big-endian.
#[derive(Clone, Debug)]
pub struct Decoder(Bytes);

impl Decoder {
    /// Reads from the start of `bytes`.
    #[must_use]
    pub fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The next `count` bytes, without a copy.
    pub fn bytes(&mut self, count: usize) -> Result<Bytes, EndOfInput> {
        if count > self.0.len() {
            return Err(EndOfInput { wanted: count, left: self.0.len() });
        }
        Ok(self.0.split_to(count))
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], EndOfInput> {
        let bytes = self.bytes(N)?;
        Ok(bytes.as_ref().try_into().expect("bytes gives exactly as many as were asked for"))
    }

    /// The next byte.
    pub fn u8(&mut self) -> Result<u8, EndOfInput> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    /// The next two bytes.
    pub fn u16(&mut self) -> Result<u16, EndOfInput> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    /// The next four bytes.
    pub fn u32(&mut self) -> Result<u32, EndOfInput> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// The next eight bytes.
    pub fn u64(&mut self) -> Result<u64, EndOfInput> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// How many bytes are left.
    #[must_use]
    pub fn left(&self) -> usize {
        self.0.len()
    }
}

//! Frames on a byte stream, of whatever transport.

use std::io;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::wire::{Frame, WireError};

/// Takes frames off a byte stream. Holds no more than the longest frame and one read.
#[derive(Debug)]
pub(crate) struct FrameReader<R> {
    input: R,
    buffer: BytesMut,
}

/// No frame could be taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    /// The bytes are not the protocol.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The stream broke.
    #[error("stream broke")]
    Stream(#[from] io::Error),
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, buffer: BytesMut::new() }
    }

    /// The next frame; `None` where the stream ends between two frames.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            if let Some(frame) = Frame::decode(&mut self.buffer)? {
                return Ok(Some(frame));
            }
            self.buffer.reserve(READ_LENGTH);
            if self.input.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(WireError::Ended.into()) };
            }
        }
    }

    /// Appends so many bytes behind the frame that was taken to `out`.
    pub(crate) async fn read_into(&mut self, out: &mut Vec<u8>, length: usize) -> Result<(), FrameError> {
        let begun = self.buffer.split_to(length.min(self.buffer.len()));
        out.extend_from_slice(&begun);
        let mut left = length - begun.len();
        while left > 0 {
            match (&mut self.input).take(left as u64).read_buf(out).await? {
                0 => return Err(WireError::Ended.into()),
                read => left -= read,
            }
        }
        Ok(())
    }

    /// Leaves out so many bytes behind the frame that was taken.
    pub(crate) async fn skip(&mut self, length: usize) -> Result<(), FrameError> {
        let mut left = length;
        loop {
            let here = left.min(self.buffer.len());
            self.buffer.advance(here);
            left -= here;
            if left == 0 {
                return Ok(());
            }
            self.buffer.reserve(READ_LENGTH);
            if self.input.read_buf(&mut self.buffer).await? == 0 {
                return Err(WireError::Ended.into());
            }
        }
    }

    /// The stream behind the frames that were taken, and what was read of it beyond them.
    pub(crate) fn into_rest(self) -> (R, BytesMut) {
        (self.input, self.buffer)
    }
}

/// Puts one frame on a byte stream.
pub(crate) async fn write_frame(output: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> io::Result<()> {
    let mut bytes = BytesMut::new();
    frame.encode(&mut bytes);
    output.write_all(&bytes).await
}

/// How much is read at once: some fifty messages.
const READ_LENGTH: usize = 4096;

#[cfg(test)]
mod tests {
    use shoal_core::Digest;
    use shoal_swarm::Message;

    use super::*;

    fn frame(number: u8) -> Frame {
        Frame::Message(Message::Absent { digest: Digest::sha256(&[number]) })
    }

    #[tokio::test]
    async fn frames_are_read_however_the_stream_cuts_them() {
        let (mut there, here) = tokio::io::duplex(7);
        let writes = async move {
            for number in 0..50 {
                write_frame(&mut there, &frame(number)).await.unwrap();
            }
        };
        let reads = async move {
            let mut input = FrameReader::new(here);
            for number in 0..50 {
                assert_eq!(input.next().await.unwrap(), Some(frame(number)));
            }
            assert_eq!(input.next().await.unwrap(), None);
        };
        tokio::join!(writes, reads);
    }

    #[tokio::test]
    async fn a_stream_that_ends_within_a_frame_is_an_error() {
        let mut bytes = BytesMut::new();
        frame(1).encode(&mut bytes);
        let mut input = FrameReader::new(&bytes[..bytes.len() - 1]);
        assert!(matches!(input.next().await, Err(FrameError::Wire(WireError::Ended))));
    }

    #[tokio::test]
    async fn raw_bytes_between_frames_are_taken_or_left_to_the_byte() {
        let mut bytes = BytesMut::new();
        for raw in [&[1; 5000][..], &[2; 5000]] {
            frame(raw[0]).encode(&mut bytes);
            bytes.extend_from_slice(raw);
        }
        frame(3).encode(&mut bytes);
        let mut input = FrameReader::new(&bytes[..]);
        input.next().await.unwrap();
        let mut raw = Vec::new();
        input.read_into(&mut raw, 5000).await.unwrap();
        assert_eq!(raw, [1; 5000][..]);
        assert_eq!(input.next().await.unwrap(), Some(frame(2)));
        input.skip(5000).await.unwrap();
        assert_eq!(input.next().await.unwrap(), Some(frame(3)));
        assert!(matches!(input.skip(1).await, Err(FrameError::Wire(WireError::Ended))));
        assert!(matches!(input.read_into(&mut raw, 1).await, Err(FrameError::Wire(WireError::Ended))));
    }

    #[tokio::test]
    async fn what_follows_a_frame_is_not_lost() {
        let mut bytes = BytesMut::new();
        frame(1).encode(&mut bytes);
        bytes.extend_from_slice(b"the bytes of a piece");
        let mut input = FrameReader::new(&bytes[..]);
        input.next().await.unwrap();
        let (rest, start) = input.into_rest();
        assert_eq!(start.chain(rest).chunk(), b"the bytes of a piece");
    }
}

//! A stream of a blob whose last bytes come only when its length and its digest are right.

use std::io;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use shoal_core::{Digest, Digester};
use shoal_upstream::Descriptor;

struct Proof<S> {
    stream: S,
    digester: Option<Digester>,
    digest: Digest,
    left: u64,
    held: Option<Bytes>,
}

/// The same bytes, proved.
pub(crate) fn proved<S: Stream<Item = io::Result<Bytes>> + Send + Unpin>(
    stream: S,
    blob: &Descriptor,
) -> impl Stream<Item = io::Result<Bytes>> + Send + use<S> {
    let digester = Some(Digester::new(blob.digest.algorithm()));
    let proof = Proof { stream, digester, digest: blob.digest, left: blob.size, held: None };
    futures_util::stream::try_unfold(proof, async |mut proof| {
        Ok(proof.next().await?.map(|bytes| (bytes, proof)))
    })
}

impl<S: Stream<Item = io::Result<Bytes>> + Unpin> Proof<S> {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        while let Some(digester) = &mut self.digester {
            let Some(chunk) = self.stream.next().await.transpose()? else {
                self.finish()?;
                break;
            };
            let wrong = || invalid(format!("{} is longer than its descriptor says", self.digest));
            self.left = self.left.checked_sub(chunk.len() as u64).ok_or_else(wrong)?;
            digester.update(&chunk);
            if let Some(held) = self.held.replace(chunk) {
                return Ok(Some(held));
            }
        }
        Ok(self.held.take())
    }

    fn finish(&mut self) -> io::Result<()> {
        let found = self.digester.take().map(Digester::finish);
        if self.left > 0 {
            return Err(invalid(format!(
                "{} is {} bytes shorter than its descriptor says",
                self.digest, self.left
            )));
        }
        match found {
            Some(found) if found != self.digest => {
                Err(invalid(format!("the bytes of {} have digest {found}", self.digest)))
            }
            _ => Ok(()),
        }
    }
}

fn invalid(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt, stream};

    use super::*;

    async fn read(chunks: &[&'static str], of: &[u8], size: u64) -> (Vec<u8>, bool) {
        let blob = Descriptor::new("x", Digest::sha256(of), size);
        let chunks: Vec<_> = chunks.iter().map(|chunk| Ok(Bytes::from_static(chunk.as_bytes()))).collect();
        let mut stream = Box::pin(proved(stream::iter(chunks), &blob));
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.next().await {
            match chunk {
                Ok(chunk) => bytes.extend_from_slice(&chunk),
                Err(_) => return (bytes, false),
            }
        }
        (bytes, true)
    }

    #[tokio::test]
    async fn the_last_bytes_come_only_when_all_are_right() {
        assert_eq!(read(&["ab", "cd"], b"abcd", 4).await, (b"abcd".to_vec(), true));
        assert_eq!(read(&[], b"", 0).await, (Vec::new(), true));
        assert_eq!(read(&["ab", "cx"], b"abcd", 4).await, (b"ab".to_vec(), false));
        assert_eq!(read(&["ab"], b"abcd", 4).await, (Vec::new(), false));
        assert!(!read(&["ab", "cd", "e"], b"abcd", 4).await.1);
    }
}

//! What one node asks another of a blob, and what it answers: the bytes on the wire.
//!
//! A question is JSON. An answer is JSON behind its length, and then the signed metainfo as it is, if that was asked for.
//! A stream carries one of either, cut off at its limit while it is read.

use std::io;

use bytes::Bytes;
use futures_util::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use libp2p::{StreamProtocol, request_response};
use serde::{Deserialize, Serialize};
use shoal_core::{Digest, MetainfoError, PeerAddress, RepositoryName, SignedMetainfo};

use crate::message::AnnounceRequest;

/// "Have you this blob?"
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Question {
    /// In that repository; `None`: at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) repository: Option<RepositoryName>,
    pub(crate) digest: Digest,
    /// Whether its metainfo is wanted as well.
    #[serde(default)]
    pub(crate) metainfo: bool,
}

/// What a node says of a blob.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// `None`: it does not have it, or not in that repository as far as it knows.
    pub(crate) held: Option<Held>,
    /// **Not** verified.
    pub(crate) metainfo: Option<SignedMetainfo>,
}

/// "I have it."
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    /// Where it exchanges pieces. An unspecified IP stands for the one that the connection goes to.
    pub(crate) address: PeerAddress,
    /// For how long that repository may see the blob on the answering node's word alone.
    pub(crate) lent_ms: u64,
}

/// Bytes that are no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnswerError {
    #[error("answer is cut")]
    Cut,
    #[error("answer is not the expected JSON")]
    Json(#[from] serde_json::Error),
    #[error("answer names a node by more than it may")]
    Address,
    #[error("answer's metainfo cannot be read")]
    Metainfo(#[from] MetainfoError),
}

/// The longest question: a repository name, a digest, and room for what newer versions add.
pub(crate) const MAX_QUESTION_LENGTH: usize = 4 << 10;
/// The longest answer without its metainfo.
const MAX_HEAD_LENGTH: usize = 4 << 10;
/// The longest answer.
pub(crate) const MAX_ANSWER_LENGTH: usize = 4 + MAX_HEAD_LENGTH + SignedMetainfo::MAX_ENCODED_LENGTH;
/// The protocol's name.
pub(crate) const PROTOCOL: StreamProtocol = StreamProtocol::new("/shoal/blob/1");

#[derive(Serialize, Deserialize)]
struct Head {
    #[serde(default)]
    held: Option<Held>,
}

impl Question {
    fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a question has string keys only and cannot fail")
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}

impl Answer {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let head = serde_json::to_vec(&Head { held: self.held.clone() });
        let head = head.expect("an answer has string keys only and cannot fail");
        let length = u32::try_from(head.len()).expect("an answer's head is far below 4 GiB");
        let metainfo = self.metainfo.as_ref().map(SignedMetainfo::encode).unwrap_or_default();
        [&length.to_be_bytes()[..], &head, &metainfo].concat()
    }

    pub(crate) fn decode(bytes: &Bytes) -> Result<Self, AnswerError> {
        let (length, rest) = bytes.split_first_chunk::<4>().ok_or(AnswerError::Cut)?;
        let length = u32::from_be_bytes(*length) as usize;
        if length > rest.len() || length > MAX_HEAD_LENGTH {
            return Err(AnswerError::Cut);
        }
        let Head { held } = serde_json::from_slice(&rest[..length])?;
        if held.as_ref().is_some_and(|held| !is_bounded(&held.address)) {
            return Err(AnswerError::Address);
        }
        let metainfo = bytes.slice(4 + length..);
        let metainfo = if metainfo.is_empty() { None } else { Some(SignedMetainfo::decode(metainfo)?) };
        Ok(Self { held, metainfo })
    }
}

fn is_bounded(address: &PeerAddress) -> bool {
    address.addresses.len() <= AnnounceRequest::MAX_ADDRESSES
        && address.zone.0.len() <= AnnounceRequest::MAX_ZONE_LENGTH
}

/// Reads and writes both for libp2p.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Codec;

impl request_response::Codec for Codec {
    type Protocol = StreamProtocol;
    type Request = Question;
    type Response = Answer;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Question>
    where
        T: AsyncRead + Unpin + Send,
    {
        let bytes = read_capped(io, MAX_QUESTION_LENGTH).await?;
        Question::decode(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Answer>
    where
        T: AsyncRead + Unpin + Send,
    {
        let bytes = read_capped(io, MAX_ANSWER_LENGTH).await?;
        Answer::decode(&bytes.into()).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, question: Question) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&question.encode()).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, answer: Answer) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&answer.encode()).await
    }
}

/// All bytes up to the end of the stream, of which there must be no more than `limit`.
async fn read_capped(io: &mut (impl AsyncRead + Unpin), limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io.take(limit as u64 + 1).read_to_end(&mut bytes).await?;
    if bytes.len() > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("more than {limit} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shoal_core::{Metainfo, PeerId, Proof, Role, Zone};

    use super::*;

    fn held(addresses: usize) -> Held {
        Held {
            address: PeerAddress {
                id: PeerId::from_public_key([7; 32]),
                role: Role::Agent,
                addresses: vec!["10.0.0.1:16002".parse().unwrap(); addresses],
                zone: Zone("rack-7".into()),
            },
            lent_ms: 3_600_000,
        }
    }

    fn signed(content: &[u8]) -> SignedMetainfo {
        let proof = Proof { certificate: Bytes::from_static(b"c"), signature: Bytes::from_static(b"s") };
        SignedMetainfo { metainfo: Metainfo::of(content).unwrap(), proof }
    }

    #[test]
    fn questions_and_answers_survive_the_wire() {
        for repository in [None, Some(RepositoryName::parse("team/app").unwrap())] {
            let question = Question { repository, digest: Digest::sha256(b"x"), metainfo: true };
            assert_eq!(Question::decode(&question.encode()).unwrap(), question);
        }
        for held in [None, Some(held(1))] {
            for metainfo in [None, Some(signed(b"blob"))] {
                let answer = Answer { held: held.clone(), metainfo };
                assert_eq!(Answer::decode(&answer.encode().into()).unwrap(), answer);
            }
        }
    }

    #[test]
    fn an_answer_with_more_than_it_may_have_is_refused() {
        let many = Answer { held: Some(held(AnnounceRequest::MAX_ADDRESSES + 1)), metainfo: None };
        assert!(matches!(Answer::decode(&many.encode().into()), Err(AnswerError::Address)));
        let mut long = held(1);
        long.address.zone = Zone("z".repeat(AnnounceRequest::MAX_ZONE_LENGTH + 1));
        let long = Answer { held: Some(long), metainfo: None };
        assert!(matches!(Answer::decode(&long.encode().into()), Err(AnswerError::Address)));
        let huge = [&u32::MAX.to_be_bytes()[..], b"{}"].concat();
        assert!(matches!(Answer::decode(&huge.into()), Err(AnswerError::Cut)));
    }

    #[tokio::test]
    async fn a_stream_without_end_is_cut_off() {
        let mut endless = futures_util::io::repeat(b'{');
        assert!(read_capped(&mut endless, MAX_QUESTION_LENGTH).await.is_err());
        let mut fits = futures_util::io::AsyncReadExt::take(futures_util::io::repeat(b'{'), 9);
        assert_eq!(read_capped(&mut fits, 9).await.unwrap().len(), 9);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, place: prop::sample::Index, byte: u8) {
            let _ = Question::decode(&bytes);
            let _ = Answer::decode(&bytes.into());
            // Blind bytes do not get deep: one byte of a true one is another.
            let true_one = Answer { held: Some(held(2)), metainfo: Some(signed(b"blob")) };
            let mut altered = true_one.encode();
            let place = place.index(altered.len());
            altered[place] = byte;
            let _ = Answer::decode(&altered.clone().into());
            altered.truncate(place);
            prop_assert_ne!(Answer::decode(&altered.into()).ok(), Some(true_one));
        }
    }
}

//! What nodes tell all others: "I am here", and a tracker: "ask me there". Signed, small, and not older than it says.
//!
//! On the wire: certificate and signature, each behind its length in two bytes, and then JSON that is signed. A notice
//! comes by way of others; what it says is believed of its signer, with the role of the signer's certificate.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shoal_core::{Proof, Role};
use shoal_identity::{Identity, MessageError, MessageKind, Peer};

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Notice {
    /// When, in milliseconds since 1970: of two notices of a node the later one counts.
    pub(crate) at_ms: u64,
    /// Where it is reached in the overlay.
    #[serde(default)]
    pub(crate) addresses: Vec<SocketAddr>,
    /// Where agents and origins reach it, if it is a tracker: `https://host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tracker: Option<String>,
}

/// Why a notice is not believed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoticeError {
    #[error("notice is cut, or longer than it may be")]
    Length,
    #[error("notice is not the expected JSON")]
    Json(#[from] serde_json::Error),
    #[error("notice names more addresses than it may")]
    Addresses,
    #[error("notice is of another time, {0} ms away")]
    Time(u64),
    #[error("notice of a tracker's address by a node that is {0}")]
    Role(Role),
    #[error(transparent)]
    Signer(#[from] MessageError),
}

/// The longest notice: a certificate of usual length, a signature, four addresses and a URL take 1 KiB.
pub(crate) const MAX_LENGTH: usize = 4 << 10;
/// How far the clocks of nodes may be apart, the way of a notice included.
pub(crate) const MAX_AGE: Duration = Duration::from_secs(10 * 60);
const MAX_ADDRESSES: usize = crate::overlay::addresses::MAX_ADDRESSES;
const MAX_URL_LENGTH: usize = 512;

/// A notice that was read, and not proved yet.
#[derive(Clone, Debug)]
pub(crate) struct Unproved {
    notice: Notice,
    signed: Bytes,
    proof: Proof,
}

impl Notice {
    /// As it goes out, signed by this node.
    pub(crate) fn sign(&self, identity: &Identity) -> Vec<u8> {
        let signed = serde_json::to_vec(self).expect("a notice has string keys only and cannot fail");
        let Proof { certificate, signature } = identity.sign_message(MessageKind::OverlayNotice, &signed);
        let mut bytes = Vec::with_capacity(4 + certificate.len() + signature.len() + signed.len());
        for part in [certificate, signature] {
            let length = u16::try_from(part.len()).expect("certificates are far below 64 KiB");
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(&part);
        }
        bytes.extend_from_slice(&signed);
        bytes
    }

    fn check(&self) -> Result<(), NoticeError> {
        if self.addresses.len() > MAX_ADDRESSES
            || self.tracker.as_ref().is_some_and(|url| url.len() > MAX_URL_LENGTH)
        {
            return Err(NoticeError::Addresses);
        }
        Ok(())
    }
}

impl Unproved {
    /// Reads; cheap beside the proof.
    pub(crate) fn decode(bytes: Bytes, now_ms: u64) -> Result<Self, NoticeError> {
        if bytes.len() > MAX_LENGTH {
            return Err(NoticeError::Length);
        }
        let mut rest = bytes;
        let certificate = take_part(&mut rest)?;
        let signature = take_part(&mut rest)?;
        let notice: Notice = serde_json::from_slice(&rest)?;
        notice.check()?;
        let apart = notice.at_ms.abs_diff(now_ms);
        if u128::from(apart) > MAX_AGE.as_millis() {
            return Err(NoticeError::Time(apart));
        }
        Ok(Self { notice, signed: rest, proof: Proof { certificate, signature } })
    }

    /// Who said it. Two Ed25519 checks.
    pub(crate) fn prove(self, identity: &Identity) -> Result<(Peer, Notice), NoticeError> {
        let signer = identity.verify_message(MessageKind::OverlayNotice, &self.signed, &self.proof)?;
        if self.notice.tracker.is_some() && signer.role != Role::Tracker {
            return Err(NoticeError::Role(signer.role));
        }
        Ok((signer, self.notice))
    }
}

fn take_part(rest: &mut Bytes) -> Result<Bytes, NoticeError> {
    let (length, _) = rest.split_first_chunk::<2>().ok_or(NoticeError::Length)?;
    let end = 2 + usize::from(u16::from_be_bytes(*length));
    if end > rest.len() {
        return Err(NoticeError::Length);
    }
    Ok(rest.split_to(end).slice(2..))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shoal_identity::Authority;

    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn notice(tracker: bool) -> Notice {
        Notice {
            at_ms: NOW,
            addresses: vec!["10.0.0.1:16003".parse().unwrap(); MAX_ADDRESSES],
            tracker: tracker.then(|| "https://tracker.internal:15003".into()),
        }
    }

    #[test]
    fn a_notice_is_believed_of_its_signer_and_of_nobody_else() {
        let authority = Authority::generate("prod").unwrap();
        let (agent, tracker) =
            (authority.issue(Role::Agent, "a").unwrap(), authority.issue(Role::Tracker, "t").unwrap());
        let bytes = notice(true).sign(&tracker);
        assert!(bytes.len() < MAX_LENGTH / 2, "{} bytes", bytes.len());
        let (signer, read) = Unproved::decode(bytes.into(), NOW + 5000).unwrap().prove(&agent).unwrap();
        assert_eq!((signer.id, signer.role, read), (tracker.id(), Role::Tracker, notice(true)));

        let pretended = Unproved::decode(notice(true).sign(&agent).into(), NOW).unwrap().prove(&agent);
        assert!(matches!(pretended, Err(NoticeError::Role(Role::Agent))), "{pretended:?}");
        let stranger = Authority::generate("prod").unwrap().issue(Role::Tracker, "t").unwrap();
        let foreign = Unproved::decode(notice(true).sign(&stranger).into(), NOW).unwrap().prove(&agent);
        assert!(matches!(foreign, Err(NoticeError::Signer(_))), "{foreign:?}");
    }

    #[test]
    fn what_is_old_or_early_or_large_is_refused() {
        let agent = Authority::generate("prod").unwrap().issue(Role::Agent, "a").unwrap();
        let decode = |notice: &Notice, now| Unproved::decode(notice.sign(&agent).into(), now).map(drop);
        let age = MAX_AGE.as_millis() as u64;
        assert!(decode(&notice(false), NOW + age).is_ok());
        for now in [NOW + age + 1, NOW - age - 1, 0, u64::MAX] {
            assert!(matches!(decode(&notice(false), now), Err(NoticeError::Time(_))), "{now}");
        }
        let mut many = notice(false);
        many.addresses.push("10.0.0.1:1".parse().unwrap());
        assert!(matches!(decode(&many, NOW), Err(NoticeError::Addresses)));
        let long = Notice { tracker: Some("h".repeat(MAX_URL_LENGTH + 1)), ..notice(false) };
        assert!(matches!(decode(&long, NOW), Err(NoticeError::Addresses)));
        let huge = Notice { tracker: Some("h".repeat(MAX_LENGTH)), ..notice(false) };
        assert!(matches!(decode(&huge, NOW), Err(NoticeError::Length)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = Unproved::decode(bytes.into(), NOW);
        }

        #[test]
        fn no_altered_byte_is_believed(place: prop::sample::Index, byte in 1u8..) {
            let agent = Authority::generate("prod").unwrap().issue(Role::Agent, "a").unwrap();
            let mut bytes = notice(false).sign(&agent);
            let place = place.index(bytes.len());
            bytes[place] ^= byte;
            let believed = Unproved::decode(bytes.into(), NOW).and_then(|read| read.prove(&agent));
            prop_assert!(believed.is_err(), "{believed:?}");
        }
    }
}

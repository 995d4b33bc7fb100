//! Signed messages between nodes that come by way of others, so that no handshake says who wrote them.

use ring::signature::{ED25519, UnparsedPublicKey};
use rustls_pki_types::UnixTime;
use shoal_core::{PeerId, Proof};

use crate::trust::CertificateError;
use crate::{Identity, Peer};

/// What kind of message is signed: what is signed as one means nothing as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// A node says where it is.
    OverlayNotice,
}

/// Why a signed message is not believed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum MessageError {
    /// The signer's certificate is not accepted.
    #[error("message is not believed: its signer is not accepted")]
    Certificate(#[from] CertificateError),
    /// The signature is not the signer's, or of something else.
    #[error("message is not believed: it is not what {signer} signed")]
    Signature {
        /// Who is said to have signed.
        signer: PeerId,
    },
}

impl MessageKind {
    fn domain(self) -> &'static [u8] {
        match self {
            Self::OverlayNotice => b"shoal overlay notice v1\0",
        }
    }

    fn signed(self, message: &[u8]) -> Vec<u8> {
        [self.domain(), message].concat()
    }
}

impl Identity {
    /// Signs a message with this node's key.
    #[must_use]
    pub fn sign_message(&self, kind: MessageKind, message: &[u8]) -> Proof {
        self.prove(&kind.signed(message))
    }

    /// Who of this cluster signed exactly this message, as one of that kind. Two Ed25519 checks.
    pub fn verify_message(
        &self,
        kind: MessageKind,
        message: &[u8],
        proof: &Proof,
    ) -> Result<Peer, MessageError> {
        let signer = self.holder(proof, UnixTime::now())?;
        UnparsedPublicKey::new(&ED25519, signer.id.public_key())
            .verify(&kind.signed(message), &proof.signature)
            .map_err(|_| MessageError::Signature { signer: signer.id })?;
        Ok(signer)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use shoal_core::Role;

    use super::*;
    use crate::Authority;

    const KIND: MessageKind = MessageKind::OverlayNotice;

    #[test]
    fn only_what_a_node_of_this_cluster_signed_is_believed() {
        let authority = Authority::generate("prod").unwrap();
        let (agent, tracker) =
            (authority.issue(Role::Agent, "a").unwrap(), authority.issue(Role::Tracker, "t").unwrap());
        let proof = tracker.sign_message(KIND, b"here");
        assert_eq!(agent.verify_message(KIND, b"here", &proof).unwrap().role, Role::Tracker);
        let altered = agent.verify_message(KIND, b"there", &proof);
        assert!(matches!(altered, Err(MessageError::Signature { signer }) if signer == tracker.id()));
        // The certificate of one with the signature of another.
        let stolen = Proof { signature: agent.sign_message(KIND, b"here").signature, ..proof };
        assert!(agent.verify_message(KIND, b"here", &stolen).is_err());

        let stranger = Authority::generate("prod").unwrap().issue(Role::Tracker, "t").unwrap();
        let foreign = agent.verify_message(KIND, b"here", &stranger.sign_message(KIND, b"here"));
        assert!(matches!(foreign, Err(MessageError::Certificate(_))), "{foreign:?}");
        let none = Proof { certificate: Bytes::new(), signature: Bytes::new() };
        assert!(agent.verify_message(KIND, b"here", &none).is_err());
    }
}

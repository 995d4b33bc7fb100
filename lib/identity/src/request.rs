//! Certificate requests (PKCS #10, RFC 2986): a node proves that it holds a key, and nothing else that it says counts.

use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use shoal_core::PeerId;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

use crate::trust;

/// Why a certificate request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// More than a request for an Ed25519 key has.
    #[error("certificate request of {0} bytes is longer than any that a node makes")]
    TooLong(usize),
    /// Not PKCS #10.
    #[error("certificate request cannot be read as PKCS #10")]
    Unreadable,
    /// The key is of another kind.
    #[error("certificate request is not for an Ed25519 key")]
    NotEd25519,
    /// Whoever made it does not hold the key.
    #[error("certificate request is not signed by the key that it names")]
    Signature,
}

/// A request of a node takes some 130 bytes; other tools add names and attributes.
const MAX_LENGTH: usize = 8192;

/// A request for that key, DER. It has no name in it: who the node is says the token.
pub(crate) fn make(key: &KeyPair) -> Result<Vec<u8>, rcgen::Error> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    Ok(parameters.serialize_request(key)?.der().to_vec())
}

/// Whose key it is. Names, extensions and attributes are not looked at.
pub(crate) fn holder(request: &[u8]) -> Result<PeerId, RequestError> {
    if request.len() > MAX_LENGTH {
        return Err(RequestError::TooLong(request.len()));
    }
    let Ok(([], parsed)) = X509CertificationRequest::from_der(request) else {
        return Err(RequestError::Unreadable);
    };
    let key =
        trust::ed25519(&parsed.certification_request_info.subject_pki).ok_or(RequestError::NotEd25519)?;
    parsed.verify_signature().map_err(|_| RequestError::Signature)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ED25519};

    use super::*;

    fn key() -> KeyPair {
        KeyPair::generate_for(&PKCS_ED25519).unwrap()
    }

    #[test]
    fn a_request_names_the_key_that_signed_it() {
        let key = key();
        let holder = holder(&make(&key).unwrap()).unwrap();
        assert_eq!(holder.public_key(), key.public_key_raw());
    }

    #[test]
    fn a_request_with_names_of_its_own_is_read_for_its_key_alone() {
        let key = key();
        let parameters = CertificateParams::new(vec!["spiffe.example".to_owned()]).unwrap();
        let request = parameters.serialize_request(&key).unwrap();
        assert_eq!(holder(request.der()).unwrap().public_key(), key.public_key_raw());
    }

    #[test]
    fn other_kinds_of_keys_are_refused() {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        assert_eq!(holder(&make(&key).unwrap()), Err(RequestError::NotEd25519));
        assert_eq!(holder(&[0; MAX_LENGTH + 1]), Err(RequestError::TooLong(MAX_LENGTH + 1)));
    }

    proptest! {
        #[test]
        fn a_damaged_request_names_no_other_node(at: prop::sample::Index, bit in 0..8u8) {
            let key = key();
            let mut request = make(&key).unwrap();
            let at = at.index(request.len());
            request[at] ^= 1 << bit;
            // A bit or two of the encoding are outside of what is signed.
            prop_assert!(holder(&request).is_ok_and(|id| id.public_key() == key.public_key_raw()) || holder(&request).is_err());
        }

        #[test]
        fn a_cut_or_longer_request_names_nobody(end: prop::sample::Index, more in 1..64usize) {
            let mut request = make(&key()).unwrap();
            prop_assert!(holder(&request[..end.index(request.len())]).is_err());
            request.resize(request.len() + more, 0);
            prop_assert!(holder(&request).is_err());
        }

        #[test]
        fn garbage_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(holder(&bytes).is_err());
        }
    }
}

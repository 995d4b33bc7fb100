//! The public keys that sign tokens, from a PEM bundle or a JWK set. A secret in that file is an error.

use std::path::{Path, PathBuf};

use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Header};
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};

/// A key that signs tokens.
pub(super) struct Key {
    pub(super) key: DecodingKey,
    /// What the key is called; without, it may be any.
    id: Option<String>,
    /// The algorithms that it is for. Never one with a shared secret.
    algorithms: &'static [Algorithm],
    /// The one algorithm that its owner wants it for.
    only: Option<Algorithm>,
}

/// What is wrong with a file of keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// It cannot be read.
    #[error("cannot read the token keys {path}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A key of it cannot be used.
    #[error("token keys {path}, key {number}: {reason}", path = .path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        number: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There are none, or too many to try.
    #[error("token keys {path}: has {count} keys, 1 to 16 can be used", path = .path.display())]
    Count {
        /// The file.
        path: PathBuf,
        /// How many there are.
        count: usize,
    },
}

impl Key {
    /// Whether it is worth to try.
    pub(super) fn may_have_signed(&self, header: &Header) -> bool {
        let named = self.id.is_none() || header.kid.is_none() || self.id == header.kid;
        named && self.algorithms.contains(&header.alg) && self.only.is_none_or(|only| only == header.alg)
    }

    fn of_pem(pem: &Pem) -> Result<Self, &'static str> {
        match pem.label.as_str() {
            "PUBLIC KEY" => {
                let (_, key) =
                    SubjectPublicKeyInfo::from_der(&pem.contents).map_err(|_| "is not a public key")?;
                Self::of_public_key(&key)
            }
            "CERTIFICATE" => {
                let (_, certificate) =
                    X509Certificate::from_der(&pem.contents).map_err(|_| "is not a certificate")?;
                Self::of_public_key(certificate.public_key())
            }
            _ => Err("is neither PUBLIC KEY nor CERTIFICATE"),
        }
    }

    fn of_public_key(info: &SubjectPublicKeyInfo<'_>) -> Result<Self, &'static str> {
        let (key, algorithms) = match info.parsed() {
            Ok(PublicKey::RSA(rsa)) => (DecodingKey::from_rsa_raw_components(rsa.modulus, rsa.exponent), RSA),
            Ok(PublicKey::EC(point)) => {
                (DecodingKey::from_ec_der(point.data()), ec_algorithms(point.data()).ok_or(UNKNOWN_KIND)?)
            }
            _ if info.algorithm.algorithm.to_id_string() == ED25519 => {
                (DecodingKey::from_ed_der(&info.subject_public_key.data), ED)
            }
            _ => return Err(UNKNOWN_KIND),
        };
        Ok(Self { key, id: None, algorithms, only: None })
    }

    fn of_jwk(jwk: &Jwk) -> Result<Self, &'static str> {
        use jsonwebtoken::AlgorithmFamily::{Ec, Ed, Hmac, Rsa};
        let key = DecodingKey::from_jwk(jwk).map_err(|_| UNKNOWN_KIND)?;
        let algorithms = match key.family() {
            Rsa => RSA,
            Ec => key.try_get_as_bytes().ok().and_then(ec_algorithms).ok_or(UNKNOWN_KIND)?,
            Ed => ED,
            Hmac => return Err("is a shared secret: who can check a token could make one"),
        };
        let wanted = jwk.common.key_algorithm.map(Algorithm::try_from);
        let only = wanted.transpose().map_err(|_| "is for something else than signatures")?;
        Ok(Self { key, id: jwk.common.key_id.clone(), algorithms, only })
    }
}

/// Reads a PEM bundle or a JWK set.
pub(super) fn parse(path: &Path, file: &[u8]) -> Result<Vec<Key>, KeysError> {
    let keys: Vec<_> = match serde_json::from_slice::<JwkSet>(file) {
        Ok(set) => set.keys.iter().filter(|jwk| is_for_signatures(jwk)).map(Key::of_jwk).collect(),
        Err(_) => Pem::iter_from_buffer(file)
            .map(|pem| Key::of_pem(&pem.map_err(|_| "is neither PEM nor a JWK set")?))
            .collect(),
    };
    if !(1..=MAX_KEYS).contains(&keys.len()) {
        return Err(KeysError::Count { path: path.to_owned(), count: keys.len() });
    }
    let numbered = keys.into_iter().enumerate();
    numbered
        .map(|(index, key)| {
            key.map_err(|reason| KeysError::Key { path: path.to_owned(), number: index + 1, reason })
        })
        .collect()
}

fn is_for_signatures(jwk: &Jwk) -> bool {
    jwk.common.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature)
}

/// By the length of an uncompressed point.
fn ec_algorithms(point: &[u8]) -> Option<&'static [Algorithm]> {
    match point.len() {
        65 => Some(&[ES256]),
        97 => Some(&[ES384]),
        _ => None,
    }
}

const RSA: &[Algorithm] = &[RS256, RS384, RS512, PS256, PS384, PS512];
const ED: &[Algorithm] = &[EdDSA];
/// RFC 8410, section 3.
const ED25519: &str = "1.3.101.112";
const UNKNOWN_KIND: &str = "is not RSA, EC (P-256, P-384, uncompressed) or Ed25519";
/// A token is tried with each of them; a rotation has two or three.
const MAX_KEYS: usize = 16;

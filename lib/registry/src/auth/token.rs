//! Bearer tokens: signed by a configured key, for this registry, in time; and what they allow.
//!
//! Only the configured keys are ever tried, and each only with the algorithms of its kind: what a token's own header
//! says of keys (`jwk`, `jku`, `x5c`) is not looked at (CVE-2025-24976), and `kid` only picks among ours.

mod keys;
mod signatures;

use jsonwebtoken::{Validation, decode, decode_header};
use serde::Deserialize;

use super::rules::{Action, CATALOG};
use super::{GuardError, Refusal, TokenConfig};
use keys::Key;
pub use keys::KeysError;

/// Knows which tokens are good.
pub(crate) struct Tokens {
    keys: Vec<Key>,
    claims: Validation,
}

/// A token that was good.
#[derive(Debug)]
pub(crate) struct Token {
    /// Whose; may be empty.
    pub(crate) subject: String,
    access: Vec<Access>,
}

/// One entry of the claim `access`.
#[derive(Debug, Deserialize)]
struct Access {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    #[serde(default)]
    actions: Vec<String>,
}

/// Checked here a second time by their types: an issuer is one text.
#[derive(Debug, Deserialize)]
struct Claims {
    #[serde(rename = "iss")]
    _issuer: String,
    #[serde(rename = "sub", default)]
    subject: String,
    #[serde(default)]
    access: Option<Vec<Access>>,
}

impl Tokens {
    pub(crate) async fn open(config: &TokenConfig) -> Result<Self, GuardError> {
        signatures::install();
        let path = &config.keys;
        let file = tokio::fs::read(path).await;
        let file = file.map_err(|source| GuardError::from(KeysError::Read { path: path.clone(), source }))?;
        let keys = keys::parse(path, &file)?;
        // The algorithms are set for each key.
        let mut claims = Validation::new(jsonwebtoken::Algorithm::EdDSA);
        claims.set_audience(&[&config.service]);
        claims.set_issuer(&[&config.issuer]);
        claims.set_required_spec_claims(&["exp", "aud", "iss"]);
        claims.validate_nbf = true;
        claims.leeway = config.leeway.as_secs().min(MAX_LEEWAY);
        Ok(Self { keys, claims })
    }

    /// Checks a token.
    pub(crate) fn check(&self, token: &str) -> Result<Token, Refusal> {
        let header = decode_header(token).map_err(|_| Refusal::BadCredentials("token is not readable"))?;
        if header.crit.is_some() {
            // RFC 7515, 4.1.11: what must be understood and is not.
            return Err(Refusal::BadCredentials("token has critical extensions"));
        }
        let mut reason = "token is not signed by a key of this registry, with an algorithm of its kind";
        for key in self.keys.iter().filter(|key| key.may_have_signed(&header)) {
            let claims = Validation { algorithms: vec![header.alg], ..self.claims.clone() };
            match decode::<Claims>(token, &key.key, &claims) {
                Ok(token) => return Ok(token.claims.into()),
                Err(error) => reason = explain(&error).unwrap_or(reason),
            }
        }
        Err(Refusal::BadCredentials(reason))
    }
}

impl Token {
    /// Whether the token says that its bearer may do that.
    pub(crate) fn allows(&self, action: Action, repository: &str) -> bool {
        // "registry:catalog:*", as the CNCF registry asks for the list of repositories.
        let (kind, name, action) = match repository {
            CATALOG => ("registry", "catalog", "*"),
            name => ("repository", name, action.as_str()),
        };
        let is_about = |access: &&Access| access.kind == kind && access.name == name;
        let mut about = self.access.iter().filter(is_about);
        about.any(|access| access.actions.iter().any(|allowed| allowed == action || allowed == "*"))
    }
}

impl From<Claims> for Token {
    fn from(claims: Claims) -> Self {
        Self { subject: claims.subject, access: claims.access.unwrap_or_default() }
    }
}

/// What of a token with a good signature is wrong; without anything of the token.
fn explain(error: &jsonwebtoken::errors::Error) -> Option<&'static str> {
    use jsonwebtoken::errors::ErrorKind;
    match error.kind() {
        ErrorKind::ExpiredSignature => Some("token has expired"),
        ErrorKind::ImmatureSignature => Some("token is not valid yet"),
        ErrorKind::InvalidAudience => Some("token is for another service"),
        ErrorKind::InvalidIssuer => Some("token is of another issuer"),
        ErrorKind::MissingRequiredClaim(_) => Some("token lacks one of exp, aud and iss"),
        ErrorKind::InvalidClaimFormat(_) | ErrorKind::Json(_) => Some("token's claims are not readable"),
        _ => None,
    }
}

/// Clocks that differ more are broken.
const MAX_LEEWAY: u64 = 600;

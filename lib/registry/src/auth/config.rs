//! What an operator can set of authentication and authorisation.

use std::path::PathBuf;
use std::time::Duration;

use super::rules::Rule;

/// Who may do what. Without a method everybody may do everything: for development, and behind a proxy that asks.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Names and passwords from a file. At most one of the three methods.
    pub htpasswd: Option<HtpasswdConfig>,
    /// Bearer tokens of an authorisation server.
    pub token: Option<TokenConfig>,
    /// Client certificates; the listener has to ask for them.
    pub certificate: Option<CertificateConfig>,
    /// The first rule that names the repository and the client decides; where none does, the answer is no. Without
    /// any rule, whoever has authenticated may do everything, and nobody else anything. At most 1,000.
    pub rules: Vec<Rule>,
}

/// Basic authentication against a file of `name:bcrypt hash` lines, as `htpasswd -B` writes it.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HtpasswdConfig {
    /// The file. It is read again when it changed, looked at once a second at most.
    pub file: PathBuf,
    /// What clients show when they ask for a password.
    #[serde(default = "default_realm")]
    pub realm: String,
    /// Where clients get tokens for their password, or for none, if the rules allow anonymous clients anything: docker can
    /// do both only by tokens. The registry gives them itself, at `/v2/_token` of the host that the client asked; to be set
    /// where that is not right, behind a proxy that speaks TLS: `https://registry.example.com/v2/_token`.
    #[serde(default)]
    pub token_url: Option<String>,
    /// How long a password that was right is taken again without bcrypt, and a token is good. 5 minutes: bcrypt is slow on
    /// purpose, and a push asks many times. A change in the file counts at once.
    #[serde(default = "default_remember", with = "humantime_serde")]
    pub remember: Duration,
    /// Passwords that are checked at one moment. Half the processors: each check is a tenth of a second of one, and
    /// guessing must not stop the pulls.
    #[serde(default = "default_max_checks")]
    pub max_checks: usize,
    /// Checks that may wait for their turn; a client beyond is answered 429. 128: some seconds of waiting.
    #[serde(default = "default_max_waiting")]
    pub max_waiting: usize,
}

/// Bearer tokens as the CNCF registry knows them (distribution, "Token Authentication Specification").
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenConfig {
    /// The URL at which clients ask for tokens.
    pub realm: String,
    /// The name of this registry: what a token's `aud` has to hold.
    pub service: String,
    /// What a token's `iss` has to be.
    pub issuer: String,
    /// The public keys that sign tokens: PEM (`PUBLIC KEY` or `CERTIFICATE`, several one after another) or a JWK set.
    pub keys: PathBuf,
    /// How far clocks may differ when `exp` and `nbf` are checked. 60 seconds.
    #[serde(default = "default_leeway", with = "humantime_serde")]
    pub leeway: Duration,
}

/// Client certificates.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CertificateConfig {
    /// Which name of the certificate is the client's.
    pub identity: CertificateName,
}

/// A name in a certificate. A certificate that has not exactly one of it belongs to nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateName {
    /// The common name of the subject.
    #[default]
    CommonName,
    /// The URI among the subject's alternative names (SPIFFE).
    Uri,
}

fn default_realm() -> String {
    "shoal".to_owned()
}

fn default_remember() -> Duration {
    Duration::from_secs(5 * 60)
}

fn default_max_checks() -> usize {
    std::thread::available_parallelism().map_or(1, |processors| (processors.get() / 2).max(1))
}

fn default_max_waiting() -> usize {
    128
}

fn default_leeway() -> Duration {
    Duration::from_secs(60)
}

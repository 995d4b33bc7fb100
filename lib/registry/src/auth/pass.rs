//! Passes: short-lived tokens that the registry itself gives for a password, or for none.
//!
//! docker decides at `/v2/` whether it shows credentials at all: with a Basic challenge there it cannot pull anonymously,
//! with none it never logs in. A Bearer challenge lets it do both, if somebody gives tokens also to nobody. A pass says
//! who its bearer is, never what he may do: the rules are asked at each request. It ends with its time, with a change of
//! the password, and with this process.

use std::time::{Duration, SystemTime};

use data_encoding::BASE64URL_NOPAD;
use ring::{hmac, rand};
use serde::{Deserialize, Serialize};

use super::{GuardError, Refusal};

/// Gives passes and knows its own.
pub(crate) struct Passes {
    key: hmac::Key,
    lifetime: Duration,
}

/// What a pass says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Claims {
    /// Who has it; `None`: whoever showed no credentials.
    name: Option<String>,
    /// Seconds since 1970.
    expires: u64,
}

/// A pass as clients are given it (distribution, "Token Authentication Specification").
#[derive(Debug, Serialize)]
pub(crate) struct Given {
    token: String,
    /// The same, for clients that look for the name of OAuth.
    access_token: String,
    expires_in: u64,
}

impl Passes {
    pub(crate) fn new(lifetime: Duration) -> Result<Self, GuardError> {
        let random = rand::SystemRandom::new();
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &random).map_err(|_| GuardError::NoRandomness)?;
        Ok(Self { key, lifetime: lifetime.max(MIN_LIFETIME) })
    }

    /// A pass for a client, by its name and the hash of its password, which the pass does not outlive; or for one that
    /// has no name.
    pub(crate) fn give(&self, now: SystemTime, client: Option<(&str, &str)>) -> Given {
        let lifetime = self.lifetime.as_secs();
        let (name, entry) = client.unzip();
        let claims = Claims { name: name.map(str::to_owned), expires: seconds(now).saturating_add(lifetime) };
        let claims = serde_json::to_vec(&claims).expect("a name and a number are JSON");
        let signature = hmac::sign(&self.key, &signed(&claims, entry));
        let token =
            format!("{}.{}", BASE64URL_NOPAD.encode(&claims), BASE64URL_NOPAD.encode(signature.as_ref()));
        Given { access_token: token.clone(), token, expires_in: lifetime }
    }

    /// Whose pass it is, if it is a good one. `entry` says what a name's password is hashed to now.
    pub(crate) fn check<'a>(
        &self,
        now: SystemTime,
        token: &str,
        entry: impl FnOnce(&str) -> Option<&'a str>,
    ) -> Result<Option<String>, Refusal> {
        let (claims, signature) = token.split_once('.').ok_or(NOT_OURS)?;
        let claims = BASE64URL_NOPAD.decode(claims.as_bytes()).map_err(|_| NOT_OURS)?;
        let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).map_err(|_| NOT_OURS)?;
        let Claims { name, expires } = serde_json::from_slice(&claims).map_err(|_| NOT_OURS)?;
        let entry = name.as_deref().and_then(entry);
        hmac::verify(&self.key, &signed(&claims, entry), &signature).map_err(|_| NOT_OURS)?;
        if seconds(now) >= expires {
            return Err(Refusal::BadCredentials("the token has expired"));
        }
        Ok(name)
    }
}

/// What the signature is about, each part with its length before it.
fn signed(claims: &[u8], entry: Option<&str>) -> Vec<u8> {
    let entry = entry.unwrap_or_default().as_bytes();
    let length = (claims.len() as u64).to_be_bytes();
    [&length[..], claims, entry].concat()
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(u64::MAX, |since| since.as_secs())
}

const NOT_OURS: Refusal =
    Refusal::BadCredentials("the token is none of this registry, or its password has changed");
/// Clients take a token for good so long, whatever is said of it.
const MIN_LIFETIME: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn passes() -> Passes {
        Passes::new(Duration::from_secs(300)).unwrap()
    }

    #[test]
    fn a_pass_is_good_for_its_client_until_its_time_is_over() {
        let passes = passes();
        for client in [Some(("alice", "hash")), None] {
            let (name, entry) = client.unzip();
            let Given { token, expires_in, .. } = passes.give(NOW, client);
            let check = |after| passes.check(NOW + Duration::from_secs(after), &token, |_| entry);
            assert_eq!((check(0), check(299), expires_in), (Ok(name.map(str::to_owned)), check(0), 300));
            assert!(check(300).is_err());
        }
    }

    #[test]
    fn a_change_of_the_password_ends_a_pass() {
        let passes = passes();
        let token = passes.give(NOW, Some(("alice", "hash"))).token;
        for after in [Some("other"), None] {
            assert!(passes.check(NOW, &token, |_| after).is_err());
        }
    }

    #[test]
    fn a_pass_of_another_process_or_one_that_was_changed_is_none() {
        let (ours, theirs) = (passes(), passes());
        let token = theirs.give(NOW, None).token;
        assert!(ours.check(NOW, &token, |_| None).is_err());
        let good = ours.give(NOW, None).token;
        let (claims, signature) = good.split_once('.').unwrap();
        let more = BASE64URL_NOPAD.encode(br#"{"name":"alice","expires":9999999999}"#);
        let short = &signature[..signature.len() - 4];
        for forged in [
            format!("{more}.{signature}"),
            format!("{claims}.{short}"),
            format!("{claims}."),
            ".".into(),
            "x".into(),
        ] {
            assert!(ours.check(NOW, &forged, |_| None).is_err(), "{forged}");
        }
    }
}

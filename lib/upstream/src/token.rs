//! Tokens: which one a request needs, who gives it, and for how long it is good (the distribution project's token
//! specification; RFC 6749, 6). Decisions only; `transport` sends the requests.

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;
use reqwest::Url;
use serde::Deserialize;
use shoal_core::RepositoryName;

use crate::challenge::Challenge;
use crate::credentials::{Credentials, Secret};
use crate::redirect::RedirectError;
use crate::reference::RegistryHost;

/// What a token has to allow: `repository:<name>:<actions>`, several divided by spaces; empty for nothing but to know who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Scope(String);

/// What is to be shown with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// Nothing, or not before the registry has asked.
    Nothing,
    /// This `Authorization`.
    Header(Secret),
    /// A token that is to be had there first.
    Token(TokenRequest),
}

/// A question to a token server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenRequest {
    /// Where: not checked yet.
    pub(crate) realm: String,
    pub(crate) service: Option<String>,
    /// What the token is for, and is kept for.
    pub(crate) scope: Scope,
    /// What is asked for.
    pub(crate) asked: String,
}

/// A token server's answer.
#[derive(Deserialize)]
pub(crate) struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// What one registry wants, and the tokens that it takes.
pub(crate) struct Authorizer {
    credentials: Credentials,
    /// Who may be shown them beside the registry.
    token_hosts: Vec<RegistryHost>,
    state: Mutex<State>,
}

struct State {
    challenge: Option<Challenge>,
    tokens: LruCache<Scope, Token>,
}

struct Token {
    header: Secret,
    until: Instant,
}

impl Scope {
    pub(crate) fn none() -> Self {
        Self::default()
    }

    pub(crate) fn pull(repository: &RepositoryName) -> Self {
        Self(format!("repository:{repository}:pull"))
    }

    pub(crate) fn push(repository: &RepositoryName) -> Self {
        Self(format!("repository:{repository}:pull,push"))
    }

    pub(crate) fn delete(repository: &RepositoryName) -> Self {
        Self(format!("repository:{repository}:pull,delete"))
    }

    pub(crate) fn and(self, other: &Self) -> Self {
        Self(format!("{} {}", self.0, other.0))
    }
}

impl Authorizer {
    pub(crate) fn new(
        host: &RegistryHost,
        credentials: Credentials,
        mut token_hosts: Vec<RegistryHost>,
    ) -> Self {
        let known = host.known_token_host().and_then(|host| RegistryHost::parse(host).ok());
        token_hosts.extend(known);
        let state = State { challenge: None, tokens: LruCache::new(MAX_TOKENS) };
        Self { credentials, token_hosts, state: Mutex::new(state) }
    }

    pub(crate) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// What a request of that scope shows.
    pub(crate) fn shown(&self, scope: &Scope, now: Instant) -> Shown {
        if let Credentials::Token(token) = &self.credentials {
            return Shown::Header(bearer(token.expose()));
        }
        let mut state = self.state();
        match state.challenge.clone() {
            None => Shown::Nothing,
            Some(Challenge::Basic) => self.credentials.basic().map_or(Shown::Nothing, Shown::Header),
            Some(Challenge::Bearer { realm, service, scope: theirs }) => {
                let kept = state.tokens.get(scope).filter(|token| token.until > now);
                if let Some(token) = kept {
                    return Shown::Header(token.header.clone());
                }
                let asked = if scope.0.is_empty() { theirs.unwrap_or_default() } else { scope.0.clone() };
                Shown::Token(TokenRequest { realm, service, scope: scope.clone(), asked })
            }
        }
    }

    /// The registry has asked. What was kept for that scope was not good enough.
    pub(crate) fn challenged(&self, challenge: Challenge, scope: &Scope) {
        let mut state = self.state();
        state.challenge = Some(challenge);
        state.tokens.pop(scope);
    }

    /// Keeps a token for as long as it is good; the header to show.
    pub(crate) fn keep(&self, scope: &Scope, answer: TokenAnswer, now: Instant) -> Option<Secret> {
        let text = answer.token.filter(|token| !token.is_empty()).or(answer.access_token)?;
        // Nothing else fits in a header, and a line break would be another header.
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let header = bearer(&text);
        let life = answer.expires_in.map_or(DEFAULT_LIFE, Duration::from_secs).min(LONGEST_LIFE);
        let token = Token { header: header.clone(), until: now + life.saturating_sub(MARGIN) };
        self.state().tokens.put(scope.clone(), token);
        Some(header)
    }

    /// Whether the token server may be shown the credentials: the registry itself, or a host that is named.
    pub(crate) fn trusts(&self, registry: &Url, realm: &Url) -> Result<(), UntrustedRealm> {
        if realm.origin() == registry.origin() {
            return Ok(());
        }
        let host = host_of(realm);
        let encrypted = realm.scheme() == "https" || registry.scheme() == "http";
        match encrypted && self.token_hosts.iter().any(|trusted| trusted.as_str() == host) {
            true => Ok(()),
            false => Err(UntrustedRealm(host)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is whole in itself, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A token server that was not named.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UntrustedRealm(pub(crate) String);

/// The URL of a token server, if what came from `registry` may name it.
pub(crate) fn realm(registry: &Url, text: &str, reach: crate::reach::Reach) -> Result<Url, RedirectError> {
    let url = Url::parse(text).map_err(|_| RedirectError::NoUrl)?;
    crate::redirect::check(registry, &url, reach)?;
    Ok(url)
}

fn host_of(url: &Url) -> String {
    let name = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"))
}

fn bearer(token: &str) -> Secret {
    Secret::new(format!("Bearer {token}"))
}

/// Some repositories at a time, some actions each.
const MAX_TOKENS: NonZeroUsize = NonZeroUsize::new(256).expect("it is not 0");
/// What the specification says where the server says nothing.
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// Rights are taken away: a token is not believed for longer, whatever it says.
const LONGEST_LIFE: Duration = Duration::from_secs(3600);
/// On its way a token must not run out.
const MARGIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reach::Reach;

    fn authorizer(credentials: Credentials) -> Authorizer {
        let host = RegistryHost::parse("r.example").unwrap();
        Authorizer::new(&host, credentials, vec![RegistryHost::parse("auth.example").unwrap()])
    }

    fn scope() -> Scope {
        Scope::pull(&RepositoryName::parse("a/b").unwrap())
    }

    fn asks_for_tokens() -> Challenge {
        Challenge::Bearer { realm: "https://auth.example/t".into(), service: Some("s".into()), scope: None }
    }

    fn answer(json: &str) -> TokenAnswer {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_token_is_kept_by_scope_until_shortly_before_its_end() {
        let (authorizer, now) = (authorizer(Credentials::Anonymous), Instant::now());
        assert_eq!(authorizer.shown(&scope(), now), Shown::Nothing);
        authorizer.challenged(asks_for_tokens(), &scope());
        let Shown::Token(request) = authorizer.shown(&scope(), now) else { panic!("no token is asked for") };
        assert_eq!((request.asked.as_str(), request.service.as_deref()), ("repository:a/b:pull", Some("s")));
        let header = authorizer.keep(&scope(), answer(r#"{"token": "T", "expires_in": 30}"#), now).unwrap();
        assert_eq!(header.expose(), "Bearer T");
        let after = |seconds| authorizer.shown(&scope(), now + Duration::from_secs(seconds));
        assert_eq!(after(24), Shown::Header(header));
        assert!(matches!(after(26), Shown::Token(_)));
        let other = Scope::push(&RepositoryName::parse("a/b").unwrap());
        assert!(matches!(authorizer.shown(&other, now), Shown::Token(_)));
        authorizer.challenged(asks_for_tokens(), &scope());
        assert!(matches!(after(1), Shown::Token(_)));
    }

    #[test]
    fn a_token_that_fits_no_header_is_none() {
        let (authorizer, now) = (authorizer(Credentials::Anonymous), Instant::now());
        for json in ["{}", r#"{"token": ""}"#, r#"{"token": "a\r\nX: y"}"#, r#"{"access_token": "a b"}"#] {
            assert_eq!(authorizer.keep(&scope(), answer(json), now), None, "{json}");
        }
        assert!(authorizer.keep(&scope(), answer(r#"{"token": "", "access_token": "A"}"#), now).is_some());
    }

    #[test]
    fn credentials_go_to_the_registry_and_to_hosts_that_are_named() {
        let authorizer = authorizer(Credentials::Anonymous);
        let url = |text: &str| Url::parse(text).unwrap();
        let registry = url("https://r.example/");
        for (realm, trusted) in [
            ("https://r.example/token", true),
            ("https://auth.example/token", true),
            ("http://auth.example/token", false),
            ("https://auth.example:8443/token", false),
            ("https://r.example:8443/token", false),
            ("https://evil.example/token", false),
            ("https://auth.example.evil/token", false),
        ] {
            assert_eq!(authorizer.trusts(&registry, &url(realm)).is_ok(), trusted, "{realm}");
        }
        assert!(realm(&registry, "http://r.example/t", Reach::Public).is_err());
        assert!(realm(&registry, "https://127.0.0.1/t", Reach::Public).is_err());
    }
}

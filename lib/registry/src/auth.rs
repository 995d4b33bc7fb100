//! Who a client is, and what it may do.
//!
//! Invariant: nothing is allowed that a configured method and the rules did not allow; credentials are in no log, no
//! error and no cache. The HTTP API asks once a request, before it looks at anything that the request names.
//! Not here: users' own storage, an authorisation server, TLS.

mod certificate;
mod challenge;
mod config;
mod credentials;
mod htpasswd;
mod pass;
mod rules;
mod token;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use http::{Extensions, HeaderMap};

pub use certificate::ClientCertificate;
pub(crate) use challenge::{Challenge, Fault, Host, PASS_PATH};
pub use config::{CertificateConfig, CertificateName, Config, HtpasswdConfig, TokenConfig};
use credentials::Credentials;
use htpasswd::Htpasswd;
pub use htpasswd::HtpasswdError;
pub(crate) use pass::Given;
use pass::Passes;
pub(crate) use rules::CATALOG;
use rules::Rules;
pub use rules::{Action, Rule};
pub use token::KeysError;
use token::{Token, Tokens};

use crate::elsewhere::Vouched;

/// Asks clients who they are, and decides what they may do.
pub struct Guard {
    method: Method,
    challenge: Challenge,
    rules: Rules,
}

/// How clients say who they are.
enum Method {
    /// Not at all: everybody may do everything.
    Open,
    Htpasswd(Htpasswd, Option<Box<Passes>>),
    Token(Tokens),
    Certificate(CertificateName),
    /// Another node has asked them, and decided.
    Vouched,
}

/// A client, as far as it proved to be one. Asked again and again in one request.
pub(crate) struct Caller {
    guard: Arc<Guard>,
    identity: Identity,
}

enum Identity {
    /// No credentials.
    Anonymous,
    Named(String),
    Token(Token),
    /// A pass of this registry, with the name of who got it; `None` for one without credentials.
    Pass(Option<String>),
}

/// Whether a client may do a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allowed,
    /// Not without credentials.
    Unauthenticated,
    /// Not with this token: one with the scope might.
    InsufficientScope,
    /// Not.
    Denied,
}

/// Why credentials were not taken. Says nothing of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// They are wrong, or of another kind.
    BadCredentials(&'static str),
    /// A good certificate that names no client.
    Nobody(&'static str),
    /// Too many are being checked.
    Busy,
}

/// What of a configuration of access cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// More than one method.
    #[error("auth: configure one of htpasswd, token and certificate, not several")]
    SeveralMethods,
    /// Rules for nobody.
    #[error("auth.rules: there are rules, and no htpasswd, token or certificate that says who is who")]
    RulesWithoutMethod,
    /// More rules than can be walked at each request.
    #[error("auth.rules: {0} rules are more than the 1000 that are allowed")]
    TooManyRules(usize),
    /// A pattern of a rule is none.
    #[error("auth.rules: {pattern:?} is not a pattern")]
    Pattern {
        /// As it was written.
        pattern: String,
        /// What is wrong with it.
        source: globset::Error,
    },
    /// A text of the configuration cannot stand in a header.
    #[error("auth: {0:?} cannot be shown to clients: printable ASCII without quotes is needed")]
    Unprintable(String),
    /// The password file.
    #[error(transparent)]
    Htpasswd(#[from] HtpasswdError),
    /// The token keys.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The system has no randomness.
    #[error("auth: the system gives no random numbers")]
    NoRandomness,
}

impl Guard {
    /// Lets everybody do everything.
    #[must_use]
    pub fn open() -> Self {
        Self { method: Method::Open, challenge: Challenge::None, rules: Rules::default() }
    }

    /// Believes what other nodes say of who sends what, and that they have allowed it.
    pub(crate) fn of_nodes() -> Self {
        Self { method: Method::Vouched, challenge: Challenge::None, rules: Rules::default() }
    }

    /// Reads the files that the configuration names.
    pub async fn new(config: &Config) -> Result<Self, GuardError> {
        let rules = Rules::compile(&config.rules)?;
        let (method, challenge) = match (&config.htpasswd, &config.token, &config.certificate) {
            (None, None, None) if config.rules.is_empty() => return Ok(Self::open()),
            (None, None, None) => return Err(GuardError::RulesWithoutMethod),
            (Some(htpasswd), None, None) => Self::by_passwords(htpasswd, &rules).await?,
            (None, Some(token), None) => {
                (Method::Token(Tokens::open(token).await?), Challenge::bearer(&token.realm, &token.service)?)
            }
            (None, None, Some(certificate)) => (Method::Certificate(certificate.identity), Challenge::None),
            _ => return Err(GuardError::SeveralMethods),
        };
        Ok(Self { method, challenge, rules })
    }

    /// Passes are for where some may do something without a password: clients then need both ways.
    async fn by_passwords(config: &HtpasswdConfig, rules: &Rules) -> Result<(Method, Challenge), GuardError> {
        let htpasswd = Htpasswd::open(config).await?;
        if !rules.allow_anonymous() {
            return Ok((Method::Htpasswd(htpasswd, None), Challenge::basic(&config.realm)?));
        }
        let challenge = Challenge::pass(&config.realm, config.token_url.as_deref())?;
        Ok((Method::Htpasswd(htpasswd, Some(Box::new(Passes::new(config.remember)?))), challenge))
    }

    /// The same, behind a listener that speaks TLS: clients are sent nowhere without it.
    #[must_use]
    pub fn over_tls(mut self) -> Self {
        self.challenge.send_to_tls();
        self
    }

    /// Whether everybody may do everything.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.method, Method::Open | Method::Vouched)
    }

    pub(crate) fn challenge(&self) -> &Challenge {
        &self.challenge
    }

    /// Whether clients get passes here.
    pub(crate) fn gives_passes(&self) -> bool {
        matches!(self.method, Method::Htpasswd(_, Some(_)))
    }

    /// Finds out who asks. Takes the credentials out of the headers.
    pub(crate) async fn admit(
        self: &Arc<Self>,
        headers: &mut HeaderMap,
        extensions: &Extensions,
    ) -> Result<Caller, Refusal> {
        let credentials = Credentials::take(headers);
        let identity = match &self.method {
            Method::Open => Identity::Anonymous,
            Method::Vouched => match extensions.get() {
                Some(Vouched(Some(name))) => Identity::Named(name.clone()),
                Some(Vouched(None)) => Identity::Anonymous,
                None => return Err(Refusal::Nobody("no node vouches for this request")),
            },
            Method::Certificate(name) => match extensions.get::<ClientCertificate>() {
                Some(certificate) => Identity::Named(certificate.identity(*name)?),
                None => Identity::Anonymous,
            },
            Method::Htpasswd(htpasswd, passes) => match (credentials?, passes) {
                (Credentials::None, _) => Identity::Anonymous,
                (Credentials::Basic(basic), _) => Identity::Named(htpasswd.check(basic).await?),
                (Credentials::Bearer(token), Some(passes)) => {
                    let users = htpasswd.users().await;
                    let name = passes.check(SystemTime::now(), &token, |name| users.entry(name))?;
                    Identity::Pass(name)
                }
                (Credentials::Bearer(_), None) => return Err(OTHER_KIND),
            },
            Method::Token(tokens) => match credentials? {
                Credentials::None => Identity::Anonymous,
                Credentials::Bearer(token) => Identity::Token(tokens.check(&token)?),
                Credentials::Basic(_) => return Err(OTHER_KIND),
            },
        };
        Ok(Caller { guard: Arc::clone(self), identity })
    }
}

impl Caller {
    /// Whether it may do that in that repository.
    pub(crate) fn may(&self, action: Action, repository: &str) -> Verdict {
        if self.guard.is_open() {
            return Verdict::Allowed;
        }
        let identity = self.identity();
        if !self.guard.rules.allow(identity, action, repository) {
            return match &self.identity {
                // It has shown what it was asked for; to ask for the same again would be asked for ever.
                Identity::Pass(None) => Verdict::InsufficientScope,
                _ => self.refused(identity),
            };
        }
        match &self.identity {
            Identity::Token(token) if !token.allows(action, repository) => Verdict::InsufficientScope,
            _ => Verdict::Allowed,
        }
    }

    /// Whether there is nothing to ask: everybody may do everything.
    pub(crate) fn is_trusted(&self) -> bool {
        self.guard.is_open()
    }

    /// Whether another node has let it in.
    pub(crate) fn is_vouched_for(&self) -> bool {
        matches!(self.guard.method, Method::Vouched)
    }

    pub(crate) fn challenge(&self) -> &Challenge {
        self.guard.challenge()
    }

    /// Whether it may know that this is a registry it can use: with good credentials, or if there is something to do
    /// without any. Where passes are given it has to get one first, so that it learns how to show who it is.
    pub(crate) fn may_enter(&self) -> Verdict {
        let must_ask = match &self.identity {
            Identity::Anonymous => !self.guard.rules.allow_anonymous() || self.guard.gives_passes(),
            _ => false,
        };
        if must_ask && !self.guard.is_open() { self.refused(None) } else { Verdict::Allowed }
    }

    /// A pass for what it showed just now: a password, or nothing. `None` where there are no passes, and for a pass: it is
    /// not a way to another.
    pub(crate) async fn pass(&self) -> Option<Given> {
        let Method::Htpasswd(htpasswd, Some(passes)) = &self.guard.method else { return None };
        match &self.identity {
            Identity::Anonymous => Some(passes.give(SystemTime::now(), None)),
            Identity::Named(name) => {
                let users = htpasswd.users().await;
                Some(passes.give(SystemTime::now(), Some((name, users.entry(name)?))))
            }
            Identity::Token(_) | Identity::Pass(_) => None,
        }
    }

    /// Its name: `None` without credentials; empty where good ones name nobody.
    pub(crate) fn identity(&self) -> Option<&str> {
        match &self.identity {
            Identity::Anonymous => None,
            Identity::Named(name) => Some(name),
            Identity::Token(token) => Some(&token.subject),
            Identity::Pass(name) => name.as_deref(),
        }
    }

    fn refused(&self, identity: Option<&str>) -> Verdict {
        match (identity, &self.guard.challenge) {
            // There is no way to ask for a certificate in HTTP.
            (_, Challenge::None) => Verdict::Denied,
            (None | Some(""), _) => Verdict::Unauthenticated,
            (Some(_), _) => Verdict::Denied,
        }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = match &self.method {
            Method::Open => "open",
            Method::Htpasswd(..) => "htpasswd",
            Method::Token(_) => "token",
            Method::Certificate(_) => "certificate",
            Method::Vouched => "vouched",
        };
        f.debug_struct("Guard").field("method", &method).finish_non_exhaustive()
    }
}

const OTHER_KIND: Refusal = Refusal::BadCredentials("credentials of another kind are needed here");

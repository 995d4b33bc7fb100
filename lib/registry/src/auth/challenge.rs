//! `WWW-Authenticate`: how a client may prove who it is (RFC 9110, 11.6.1; RFC 6750, 3).

use http::HeaderValue;

use super::GuardError;

/// How clients are asked.
pub(crate) enum Challenge {
    /// They are not.
    None,
    /// For name and password.
    Basic { realm: String },
    /// For a token of the authorisation server at `realm`.
    Bearer { realm: String, service: String },
    /// For a pass of this registry itself, which is at `url`, or else on the host that the client asked.
    Pass { service: String, url: Option<String>, scheme: &'static str },
}

/// The host, and port, that a client asked, as it said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host<'a>(pub(crate) &'a str);

/// What was wrong with the credentials that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// There were none.
    Absent,
    /// They are not good.
    Invalid,
    /// A good token that does not allow this.
    InsufficientScope,
}

impl Challenge {
    pub(super) fn basic(realm: &str) -> Result<Self, GuardError> {
        Ok(Self::Basic { realm: printable(realm)? })
    }

    pub(super) fn bearer(realm: &str, service: &str) -> Result<Self, GuardError> {
        Ok(Self::Bearer { realm: printable(realm)?, service: printable(service)? })
    }

    pub(super) fn pass(service: &str, url: Option<&str>) -> Result<Self, GuardError> {
        let url = url.map(printable).transpose()?;
        Ok(Self::Pass { service: printable(service)?, url, scheme: "http" })
    }

    /// Clients speak TLS to this registry.
    pub(super) fn send_to_tls(&mut self) {
        if let Self::Pass { scheme, .. } = self {
            *scheme = "https";
        }
    }

    /// The header. `scope` is what a token would have to allow, made of validated names.
    pub(crate) fn header(&self, scope: &str, fault: Fault, host: Option<Host<'_>>) -> Option<HeaderValue> {
        let text = match self {
            Self::None => return None,
            Self::Basic { realm } => basic(realm),
            Self::Bearer { realm, service } => bearer(realm, service, scope, fault),
            Self::Pass { service, url: Some(url), .. } => bearer(url, service, scope, fault),
            Self::Pass { service, url: None, scheme } => {
                match host.and_then(|Host(host)| printable(host).ok()) {
                    Some(host) => bearer(&format!("{scheme}://{host}{PASS_PATH}"), service, scope, fault),
                    // A client that does not say whom it asks, as no browser and no runtime does, can show a password.
                    None => basic(service),
                }
            }
        };
        HeaderValue::try_from(text).ok()
    }
}

fn basic(realm: &str) -> String {
    format!("Basic realm=\"{realm}\", charset=\"UTF-8\"")
}

fn bearer(realm: &str, service: &str, scope: &str, fault: Fault) -> String {
    let mut text = format!("Bearer realm=\"{realm}\",service=\"{service}\"");
    if !scope.is_empty() {
        text.push_str(&format!(",scope=\"{scope}\""));
    }
    match fault {
        Fault::Absent => {}
        Fault::Invalid => text.push_str(",error=\"invalid_token\""),
        Fault::InsufficientScope => text.push_str(",error=\"insufficient_scope\""),
    }
    text
}

/// Where passes are given. No repository's name begins so.
pub(crate) const PASS_PATH: &str = "/v2/_token";

/// What may stand between quotes in a header.
fn printable(text: &str) -> Result<String, GuardError> {
    let good = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    match text.bytes().all(good) {
        true => Ok(text.to_owned()),
        false => Err(GuardError::Unprintable(text.to_owned())),
    }
}

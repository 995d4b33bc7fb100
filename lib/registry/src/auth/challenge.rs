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
}

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

    /// The header. `scope` is what a token would have to allow, made of validated names.
    pub(crate) fn header(&self, scope: &str, fault: Fault) -> Option<HeaderValue> {
        let text = match self {
            Self::None => return None,
            Self::Basic { realm } => format!("Basic realm=\"{realm}\", charset=\"UTF-8\""),
            Self::Bearer { realm, service } => {
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
        };
        HeaderValue::try_from(text).ok()
    }
}

/// What may stand between quotes in a header.
fn printable(text: &str) -> Result<String, GuardError> {
    let good = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    match text.bytes().all(good) {
        true => Ok(text.to_owned()),
        false => Err(GuardError::Unprintable(text.to_owned())),
    }
}

//! What goes wrong between here and a registry. Messages name the request without its query, for that may hold secrets.

use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;

use crate::redirect::RedirectError;

/// Why a registry did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The configuration of the endpoint does not do: say it to whoever wrote it.
    #[error("{0}")]
    Setup(String),
    /// The registry does not have it.
    #[error("{what}: not found{}", said(.message))]
    NotFound {
        /// The request.
        what: String,
        /// The registry's words.
        message: String,
    },
    /// The registry wants to know who asks, or knows and refuses.
    #[error("{what}: access denied{}; log in with `docker login` or `podman login`, or ask for the right", said(.message))]
    Denied {
        /// The request.
        what: String,
        /// The registry's words.
        message: String,
    },
    /// The registry refuses for another reason; asking again will not help.
    #[error("{what}: the registry answered {status}{}", said(.message))]
    Refused {
        /// The request.
        what: String,
        /// Its status.
        status: StatusCode,
        /// Its words.
        message: String,
    },
    /// The registry is busy or broken; another time may help.
    #[error("{what}: the registry answered {status}{}{}, at each attempt", said(.message), asks(*.retry_after))]
    Busy {
        /// The request.
        what: String,
        /// Its status.
        status: StatusCode,
        /// Its words.
        message: String,
        /// How long it asks to wait, if it does.
        retry_after: Option<Duration>,
    },
    /// Nobody answers there, or the connection broke, every time it was tried.
    #[error("{what}: {reason}")]
    Unreachable {
        /// The request.
        what: String,
        /// In what.
        reason: String,
    },
    /// TLS does not come about: the certificate of one side is not trusted by the other.
    #[error(
        "{what}: {reason}; its certificate is not trusted here, or ours is not trusted there: name the right authority, certificate and key"
    )]
    Untrusted {
        /// The request.
        what: String,
        /// In what.
        reason: String,
    },
    /// What came is not what its digest says, or longer than it may be: nothing of it was used.
    #[error("{what}: {reason}")]
    WrongContent {
        /// The request.
        what: String,
        /// In what.
        reason: String,
    },
    /// The answer is not one of a registry.
    #[error("{what}: {reason}")]
    Malformed {
        /// The request.
        what: String,
        /// In what.
        reason: String,
    },
    /// The registry leads where it may not.
    #[error("{what}: not followed, {reason}")]
    Unsafe {
        /// The request.
        what: String,
        /// Why.
        reason: String,
    },
    /// What is to be uploaded cannot be read.
    #[error("{what}: its content cannot be read")]
    Content {
        /// The request.
        what: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl UpstreamError {
    /// Whether the registry said that it does not have it.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Whether the same request may do another time.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::Unreachable { .. })
    }

    pub(crate) fn not_followed(what: &str, reason: &RedirectError) -> Self {
        Self::Unsafe { what: what.to_owned(), reason: reason.to_string() }
    }

    pub(crate) fn malformed(what: &str, reason: impl Into<String>) -> Self {
        Self::Malformed { what: what.to_owned(), reason: reason.into() }
    }

    pub(crate) fn wrong(what: &str, reason: impl Into<String>) -> Self {
        Self::WrongContent { what: what.to_owned(), reason: reason.into() }
    }

    /// What a status that is no success means.
    pub(crate) fn of(what: &str, status: StatusCode, body: &[u8], retry_after: Option<Duration>) -> Self {
        let (what, message) = (what.to_owned(), message(body));
        match status {
            StatusCode::NOT_FOUND => Self::NotFound { what, message },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Self::Denied { what, message },
            _ if crate::retry::is_temporary(status) => Self::Busy { what, status, message, retry_after },
            _ => Self::Refused { what, status, message },
        }
    }
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" ({message})") }
}

fn asks(retry_after: Option<Duration>) -> String {
    retry_after.map_or_else(String::new, |wait| format!(", and asks to wait {} s", wait.as_secs()))
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<One>,
}

#[derive(Deserialize)]
struct One {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// The registry's own words (distribution-spec, "Error Codes"), on one line and fit for a terminal.
pub(crate) fn message(body: &[u8]) -> String {
    let text = match serde_json::from_slice::<Errors>(body) {
        Ok(Errors { errors }) => {
            let each = errors.iter().map(|one| format!("{} {}", one.code, one.message).trim().to_owned());
            each.collect::<Vec<_>>().join("; ")
        }
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    printable(&text)
}

/// Text from outside without what a terminal or a log could take for an order, at most [`MAX_MESSAGE`] characters.
pub(crate) fn printable(text: &str) -> String {
    let one = |character: char| if is_order(character) { ' ' } else { character };
    let spaced: String = text.chars().take(MAX_MESSAGE).map(one).collect();
    spaced.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Control characters, and those that turn the direction of text.
fn is_order(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A line or three.
const MAX_MESSAGE: usize = 300;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_registrys_words_are_kept_and_made_harmless() {
        let body = br#"{"errors":[{"code":"DENIED","message":"no\u001b[2J\nway"},{"code":"X"}]}"#;
        assert_eq!(message(body), "DENIED no [2J way; X");
        assert_eq!(message(b"<html>\r\n502</html>"), "<html> 502</html>");
        assert_eq!(message(b""), "");
    }

    #[test]
    fn statuses_are_told_apart_by_what_can_be_done() {
        let of = |status| UpstreamError::of("GET x", StatusCode::from_u16(status).unwrap(), b"", None);
        assert!(of(404).is_not_found());
        assert!(matches!(of(403), UpstreamError::Denied { .. }));
        assert!(of(503).is_temporary() && of(429).is_temporary());
        assert!(matches!(of(400), UpstreamError::Refused { .. }));
    }

    proptest! {
        #[test]
        fn no_message_is_long_or_has_control_characters(body: Vec<u8>) {
            let message = message(&body);
            prop_assert!(message.chars().count() <= MAX_MESSAGE && !message.chars().any(is_order));
        }
    }
}

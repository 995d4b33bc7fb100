//! Who one is at a registry. A secret is never printed: [`Secret`] has no other way out than [`Secret::expose`].

mod docker_config;
mod helper;

use std::fmt;
use std::path::PathBuf;

use data_encoding::BASE64;

pub use docker_config::DockerConfig;

/// A password or a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// What a registry, or its token server, is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Credentials {
    /// Nothing.
    #[default]
    Anonymous,
    /// Name and password.
    Basic {
        /// The name.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A token that the registry takes as it is.
    Token(Secret),
    /// A token that the token server takes in place of a password (OAuth 2, `refresh_token`).
    Identity(Secret),
}

/// Why credentials cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The file cannot be read.
    #[error("{path}: cannot be read")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is no such file. What is in it is not said, for it has secrets.
    #[error("{path}: {reason}")]
    Invalid {
        /// Which.
        path: PathBuf,
        /// In what.
        reason: String,
    },
    /// The helper that the file names does not do.
    #[error("credential helper docker-credential-{helper} for {host}: {reason}")]
    Helper {
        /// Which.
        helper: String,
        /// For which registry it was asked.
        host: String,
        /// What happened.
        reason: String,
    },
}

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl Credentials {
    /// The value of `Authorization` with name and password; `None` for other credentials.
    pub(crate) fn basic(&self) -> Option<Secret> {
        match self {
            Self::Basic { user, password } => {
                let pair = BASE64.encode(format!("{user}:{}", password.expose()).as_bytes());
                Some(Secret(format!("Basic {pair}")))
            }
            _ => None,
        }
    }

    /// What docker writes for both kinds: a name `<token>` says that the password is an identity token.
    fn of(user: String, password: String) -> Self {
        if user == "<token>" {
            Self::Identity(Secret(password))
        } else {
            Self::Basic { user, password: Secret(password) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_prints_a_secret() {
        let basic = Credentials::of("me".into(), "hunter2".into());
        let header = basic.basic().unwrap();
        assert_eq!(header.expose(), "Basic bWU6aHVudGVyMg==");
        for text in [
            format!("{basic:?}"),
            format!("{header:?}"),
            format!("{:?}", Credentials::Token(Secret::new("hunter2"))),
        ] {
            assert!(!text.contains("hunter2") && !text.contains("aHVud"), "{text}");
        }
    }
}

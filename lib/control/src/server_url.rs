//! Where a tracker, or an origin's API, is.

use reqwest::Url;

use crate::error::ControlError;
use crate::servers::MAX_REASON_LENGTH;

/// The address of a tracker or of an origin's API: `https://host:port`, and nothing more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl(Url);

impl ServerUrl {
    /// Reads `https://host:port`; a slash at the end is allowed.
    pub fn parse(text: &str) -> Result<Self, ControlError> {
        let error = || ControlError::Address { url: text.chars().take(MAX_REASON_LENGTH).collect() };
        let url = Url::parse(text).map_err(|_| error())?;
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        let anonymous = url.username().is_empty() && url.password().is_none();
        if url.scheme() != "https" || !url.has_host() || !bare || !anonymous {
            return Err(error());
        }
        Ok(Self(url))
    }

    /// The same as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str().trim_end_matches('/')
    }

    pub(crate) fn with_path(&self, path: &str) -> Url {
        let mut url = self.0.clone();
        url.set_path(path);
        url
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bare_https_addresses_are_servers() {
        for good in ["https://tracker:15003", "https://10.0.0.1:1/", "https://[::1]:15003", "https://tracker"]
        {
            assert!(ServerUrl::parse(good).is_ok(), "{good} was refused");
        }
        for bad in [
            "",
            "tracker:15003",
            "http://tracker:1",
            "https://",
            "https://u:p@tracker",
            "https://tracker/path",
            "https://tracker?x",
            "https://tracker#x",
        ] {
            assert!(ServerUrl::parse(bad).is_err(), "{bad} was accepted");
        }
    }
}

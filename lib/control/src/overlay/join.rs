//! Whom to meet first: names of the configuration, resolved again whenever they are needed.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::timeout;

/// One entry of `overlay.join`: `host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Meeting(String);

/// An entry of `overlay.join` cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("overlay.join: {0:?} names no node: write host:port or dns://name:port")]
pub struct JoinError(String);

/// How long a name may take: a resolver that takes longer is in trouble, and is asked again later.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);
/// The most addresses that one round of joining tries. A headless service has one for each of its nodes, and a few that
/// answer are enough.
const MAX_ADDRESSES: usize = 32;

impl Meeting {
    pub(crate) fn parse(text: &str) -> Result<Self, JoinError> {
        let error = || JoinError(text.chars().take(256).collect());
        let bare = text.strip_prefix("dns://").unwrap_or(text);
        let (host, port) = bare.rsplit_once(':').ok_or_else(error)?;
        let is_port = port.parse::<u16>().is_ok_and(|port| port != 0);
        let is_name = !host.is_empty() && !host.contains(['/', '@', ' ', '?', '#']);
        let is_bracketed = host.starts_with('[') && host.ends_with(']');
        if !is_port || !is_name || (host.contains(':') && !is_bracketed) {
            return Err(error());
        }
        Ok(Self(bare.to_owned()))
    }

    /// All addresses that it has now.
    async fn resolve(&self) -> Vec<SocketAddr> {
        match timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host(&self.0)).await {
            Ok(Ok(found)) => found.take(MAX_ADDRESSES).collect(),
            Ok(Err(error)) => {
                tracing::info!(name = self.0, %error, "overlay.join cannot be resolved now");
                Vec::new()
            }
            Err(_) => {
                tracing::info!(name = self.0, "overlay.join was not resolved in time");
                Vec::new()
            }
        }
    }
}

/// The addresses of all entries, each once.
pub(crate) async fn resolve(meetings: &[Meeting]) -> Vec<SocketAddr> {
    let found = futures_util::future::join_all(meetings.iter().map(Meeting::resolve)).await;
    let each: BTreeSet<SocketAddr> = found.into_iter().flatten().collect();
    each.into_iter().take(MAX_ADDRESSES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_told_from_anything_else() {
        for good in ["node:1", "dns://nodes.internal:16003", "10.0.0.1:1", "[::1]:1", "dns://[fd00::1]:9"] {
            assert!(Meeting::parse(good).is_ok(), "{good}");
        }
        for bad in
            ["", "node", "node:", ":1", "node:0", "node:99999", "https://node:1", "::1:1", "a b:1", "dns://"]
        {
            assert!(Meeting::parse(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn an_address_is_its_own_name_and_counts_once() {
        let meetings =
            ["127.0.0.1:7", "dns://127.0.0.1:7", "[::1]:8"].map(|text| Meeting::parse(text).unwrap());
        let expected: Vec<SocketAddr> = ["127.0.0.1:7", "[::1]:8"].map(|text| text.parse().unwrap()).into();
        assert_eq!(resolve(&meetings).await, expected);
    }
}

//! Why a question to the control plane was not answered. The variants say what the caller can do.

use shoal_core::MetainfoError;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The cluster does not have it (in that repository). Final: asking another server changes nothing.
    #[error("{what}: not found, says {url}")]
    NotFound {
        /// What was asked for: it names the digest or tag.
        what: String,
        /// Who said so.
        url: String,
    },
    /// Nobody answered in time, or whoever did cannot say now. Try again later, or go on without.
    #[error("{what}: {url} is not available")]
    Unavailable {
        /// What was asked for.
        what: String,
        /// The server that was tried last.
        url: String,
        /// What happened there.
        source: Failure,
    },
    /// The server refuses this request for good reason: the same again will be refused too, 429 (a limit) apart.
    #[error("{what}: {url} refused with {status}: {reason}")]
    Denied {
        /// What was asked for.
        what: String,
        /// Who refused.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The server's own words.
        reason: String,
    },
    /// The reply is not what this protocol has. Not a fault of the request.
    #[error("{what}: the reply of {url} makes no sense")]
    Malformed {
        /// What was asked for.
        what: String,
        /// Who said it.
        url: String,
        /// What is wrong with it.
        source: Nonsense,
    },
    /// A configured server is not `https://host:port`.
    #[error("{url:?} is not a server's address: expected https://host:port")]
    Address {
        /// What was configured.
        url: String,
    },
    /// More servers than a node may have.
    #[error(
        "{count} trackers are configured, of which each node tells every one that it is there: name {max} at most"
    )]
    TooMany {
        /// How many are configured.
        count: usize,
        /// How many may be.
        max: usize,
    },
    /// The HTTP client cannot be set up.
    #[error("cannot set up the HTTP client")]
    Client(#[source] reqwest::Error),
}

/// Why a server counts as not available.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// None is configured.
    #[error("no server is configured")]
    NoServer,
    /// No node of the overlay that was reached has it.
    #[error("no node that was reached has it")]
    NoHolder,
    /// There was no time left to ask.
    #[error("out of time")]
    OutOfTime,
    /// No connection, or it broke, or it took too long.
    #[error("connection failed")]
    Connection(#[source] reqwest::Error),
    /// The server answered that it cannot answer.
    #[error("answered {status}: {reason}")]
    Answer {
        /// The HTTP status: 500 or above, or 408.
        status: u16,
        /// The server's own words.
        reason: String,
    },
}

/// Why a reply makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum Nonsense {
    /// A status that nothing here is answered with (a redirect, for one: none is followed).
    #[error("unexpected status {0}")]
    Status(u16),
    /// More bytes than such a reply can have.
    #[error("longer than {limit} bytes")]
    TooLong {
        /// What is allowed.
        limit: usize,
    },
    /// Not the JSON that was expected.
    #[error("not the expected JSON")]
    Json(#[from] serde_json::Error),
    /// Bytes that are no text.
    #[error("not text")]
    Text,
    /// Metainfo that is not base64.
    #[error("metainfo is not base64")]
    Base64(#[from] data_encoding::DecodeError),
    /// Metainfo that is none.
    #[error("metainfo cannot be read")]
    Metainfo(#[from] MetainfoError),
    /// A hash of which bytes are missing.
    #[error("the last hash is cut")]
    CutHash,
    /// Metainfo of another blob than that asked for.
    #[error("metainfo of another blob, {found}")]
    OtherBlob {
        /// The blob that it is of.
        found: shoal_core::Digest,
    },
}

impl ControlError {
    /// Whether the cluster said that it does not have what was asked for.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Whether no other server would say otherwise.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::NotFound { .. } | Self::Denied { .. })
    }
}

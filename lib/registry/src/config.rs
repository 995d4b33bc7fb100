//! What an operator can set.

use std::collections::BTreeMap;
use std::time::Duration;

use bytesize::ByteSize;

/// Settings of one registry.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Writes are refused with 405 UNSUPPORTED.
    pub read_only: bool,
    /// Upstream host names by which runtimes may ask (`?ns=`, or as the first part of the path), and the prefix that
    /// their repositories have here ("" = none). A `ns` that is not listed is answered 404 at once.
    pub namespaces: BTreeMap<String, String>,
    /// The largest blob that a client may push. 128 GiB: layers of 10 GB are common, model weights of 100 GB exist,
    /// and one client cannot fill a disk with a single endless body.
    pub max_blob_size: ByteSize,
    /// Upload sessions that are written to at one moment; one more is answered 429. 512: about a hundred pushing
    /// clients with five layers each, and a bound for open files.
    pub max_concurrent_uploads: usize,
    /// How long a request's body may send nothing before it is answered 408; its session survives. 60 seconds: longer
    /// than a client takes to compress the next part, shorter than what holds a connection for nothing.
    #[serde(with = "humantime_serde")]
    pub body_idle_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            read_only: false,
            namespaces: BTreeMap::new(),
            max_blob_size: ByteSize::gib(128),
            max_concurrent_uploads: 512,
            body_idle_timeout: Duration::from_secs(60),
        }
    }
}

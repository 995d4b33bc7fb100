//! What an operator may set on the overlay. Limits that nobody needs to turn are constants, each where it is used.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::overlay::addresses::Network;

/// The overlay's configuration: the table `[overlay]` of each role. Without the table there is none.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where other nodes connect, in TCP. With an IP that is unspecified, at all addresses of the host.
    pub listen: SocketAddr,
    /// The address at which other nodes reach `listen`, where it is not one that this host has itself.
    #[serde(default)]
    pub advertise: Option<SocketAddr>,
    /// Nodes to meet first, `host:port` or `dns://name:port` (every address of the name counts). Any node of the overlay
    /// will do; names are resolved again each time that they are needed.
    #[serde(default)]
    pub join: Vec<String>,
    /// The file of the cluster's pre-shared key, as libp2p writes it: `/key/swarm/psk/1.0.0/`, `/base16/` and 64 hexadecimal
    /// digits, a line each. Without it the key comes from the cluster's name: it keeps clusters apart, and is no secret.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// Whether nodes are looked for by multicast DNS on the local network, too.
    #[serde(default)]
    pub mdns: bool,
    /// The networks in which nodes are; an address outside of them is not connected to, whoever names it. Empty: everywhere
    /// but on loopback (unless `listen` is there) and on link-local addresses.
    #[serde(default)]
    pub networks: Vec<Network>,
    /// How long the trackers are waited for before the overlay is asked as well. 500 ms: some round trips around the world,
    /// and short beside what a runtime waits.
    #[serde(default = "default_patience", with = "humantime_serde")]
    pub patience: Duration,
}

impl Config {
    /// The same as if a file had only `listen` in it.
    #[must_use]
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            advertise: None,
            join: Vec::new(),
            key: None,
            mdns: false,
            networks: Vec::new(),
            patience: default_patience(),
        }
    }
}

fn default_patience() -> Duration {
    Duration::from_millis(500)
}

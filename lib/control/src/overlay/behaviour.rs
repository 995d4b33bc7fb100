//! The protocols of the overlay, and their limits.

use std::num::NonZeroUsize;
use std::time::Duration;

use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::gossipsub::{self, IdentTopic, MessageAuthenticity, MessageId, ValidationMode};
use libp2p::request_response::{self, ProtocolSupport};
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{PeerId, StreamProtocol, identify, kad, mdns, ping};
use shoal_core::Digest;

use crate::overlay::gate::libp2p_key;
use crate::overlay::holdings::RECORD_LIFETIME;
use crate::overlay::notice;
use crate::overlay::question::{Codec, PROTOCOL};
use crate::overlay::records::Records;

/// What runs on each connection. Questions come before Kademlia, so that who was just found by a search is dialled by the
/// addresses that the search still knows.
#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
pub(crate) struct Behaviour {
    pub(crate) limits: connection_limits::Behaviour,
    pub(crate) questions: request_response::Behaviour<Codec>,
    pub(crate) kad: kad::Behaviour<Records>,
    pub(crate) identify: identify::Behaviour,
    pub(crate) gossip: gossipsub::Behaviour,
    pub(crate) ping: ping::Behaviour,
    pub(crate) mdns: Toggle<mdns::tokio::Behaviour>,
}

/// Connections that others opened: a node that everybody joins by has many, each about 40 KiB.
const MAX_INCOMING: u32 = 512;
/// Connections that this node opened: a search walks along a few dozen nodes.
const MAX_OUTGOING: u32 = 128;
/// Connections that are not proved yet, in each direction.
const MAX_PENDING: u32 = 64;
/// Two nodes that dial each other at the same time.
const MAX_PER_PEER: u32 = 2;
/// How long a connection that nothing uses is kept: the next question of the same pull finds it.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a walk through the overlay may take in all. Whoever waits for a blob waits less; a publication may take longer,
/// on a node that has just started and must connect to all that it meets.
const QUERY_TIMEOUT: Duration = Duration::from_secs(20);
/// How long one node may take to answer in a search. Dead ones are passed over in parallel.
const STREAM_TIMEOUT: Duration = Duration::from_secs(2);
/// On how many nodes a record lies, and how many holders one node names. Half of them may vanish between two publications,
/// and one in a hundred and fifty records is lost.
const REPLICATION: NonZeroUsize = NonZeroUsize::new(8).expect("not zero");
/// How often the routing table is refreshed without a need: what the overlay costs at rest is mostly this.
const REFRESH_INTERVAL: Duration = Duration::from_secs(10 * 60);
/// How often nodes tell each other their addresses again.
const IDENTIFY_INTERVAL: Duration = Duration::from_secs(10 * 60);
/// How often a connection is tried, so that one to a host that vanished does not stay.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// How long an answer to a question may take: the holder looks into its store.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// How many questions of one connection are answered at once: each may cost 2 MiB of metainfo.
const MAX_QUESTIONS: usize = 8;

impl Behaviour {
    pub(crate) fn new(id: &shoal_core::PeerId, records: Records, mdns: bool) -> Result<Self, String> {
        let local = libp2p_key(id).to_peer_id();
        let mut kad = kad::Behaviour::with_config(local, records, kad_config());
        // Every node of the overlay can be dialled by the others.
        kad.set_mode(Some(kad::Mode::Server));
        let identify = identify::Config::new("shoal/1".into(), libp2p_key(id))
            .with_agent_version("shoal".into())
            .with_interval(IDENTIFY_INTERVAL);
        Ok(Self {
            limits: connection_limits::Behaviour::new(limits()),
            questions: questions(),
            kad,
            identify: identify::Behaviour::new(identify),
            gossip: gossip()?,
            ping: ping::Behaviour::new(ping::Config::new().with_interval(PING_INTERVAL)),
            mdns: local_search(local, mdns)?.into(),
        })
    }
}

/// What all nodes talk about.
pub(crate) fn topic() -> IdentTopic {
    IdentTopic::new("shoal/notices/1")
}

/// A blob as Kademlia names it.
pub(crate) fn key(digest: &Digest) -> kad::RecordKey {
    kad::RecordKey::new(&digest.to_string())
}

/// The blob that Kademlia names so.
pub(crate) fn digest(key: &kad::RecordKey) -> Option<Digest> {
    std::str::from_utf8(key.as_ref()).ok().and_then(|text| Digest::parse(text).ok())
}

fn limits() -> ConnectionLimits {
    ConnectionLimits::default()
        .with_max_pending_incoming(Some(MAX_PENDING))
        .with_max_pending_outgoing(Some(MAX_PENDING))
        .with_max_established_incoming(Some(MAX_INCOMING))
        .with_max_established_outgoing(Some(MAX_OUTGOING))
        .with_max_established_per_peer(Some(MAX_PER_PEER))
}

fn questions() -> request_response::Behaviour<Codec> {
    let config = request_response::Config::default()
        .with_request_timeout(ANSWER_TIMEOUT)
        .with_max_concurrent_streams(MAX_QUESTIONS);
    request_response::Behaviour::with_codec(Codec, [(PROTOCOL, ProtocolSupport::Full)], config)
}

fn kad_config() -> kad::Config {
    let mut config = kad::Config::new(StreamProtocol::new("/shoal/kad/1"));
    config
        .set_query_timeout(QUERY_TIMEOUT)
        .set_substreams_timeout(STREAM_TIMEOUT)
        .set_replication_factor(REPLICATION)
        .set_provider_record_ttl(Some(RECORD_LIFETIME))
        // When what is published is this node's own decision.
        .set_provider_publication_interval(None)
        .set_publication_interval(None)
        .set_replication_interval(None)
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_periodic_bootstrap_interval(Some(REFRESH_INTERVAL));
    config
}

/// Notices carry their own signature, with the certificate that libp2p's has not.
fn gossip() -> Result<gossipsub::Behaviour, String> {
    let config = gossipsub::ConfigBuilder::default()
        .validation_mode(ValidationMode::Anonymous)
        .validate_messages()
        .max_transmit_size(2 * notice::MAX_LENGTH)
        .message_id_fn(|message| MessageId::from(Digest::sha256(&message.data).to_string()))
        .build()
        .map_err(|error| error.to_string())?;
    let mut gossip = gossipsub::Behaviour::new(MessageAuthenticity::Anonymous, config)?;
    gossip.subscribe(&topic()).map_err(|error| error.to_string())?;
    Ok(gossip)
}

fn local_search(local: PeerId, is_wanted: bool) -> Result<Option<mdns::tokio::Behaviour>, String> {
    let search = is_wanted.then(|| mdns::tokio::Behaviour::new(mdns::Config::default(), local)).transpose();
    search.map_err(|error| format!("multicast DNS: {error}"))
}

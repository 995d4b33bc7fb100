//! A node with a certificate that does its worst: what no honest node of the overlay sends.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use libp2p::kad::RecordKey;
use libp2p::swarm::SwarmEvent;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::{gossipsub, kad};
use prometheus::Registry;
use shoal_core::{Digest, PeerAddress, Role, Zone};
use shoal_identity::{Authority, Identity};

use super::addresses::{Belief, multiaddr};
use super::behaviour::{Behaviour, BehaviourEvent, topic};
use super::gate::{Gate, libp2p_id};
use super::metrics::Metrics;
use super::notice::Notice;
use super::records::{Bounds, Records};
use super::{Config, Member, Overlay, behaviour, key, transport};

/// The hostile node: the same protocols, driven by hand.
struct Puppet {
    swarm: libp2p::Swarm<Behaviour>,
    identity: Identity,
    /// Records that it made up so far.
    provided: u32,
}

/// Records between two looks at what became of them.
const RECORDS_AT_ONCE: u32 = 256;

async fn victim(authority: &Authority) -> (Overlay, Identity, Registry) {
    let identity = authority.issue(Role::Agent, "victim").unwrap();
    let address = PeerAddress {
        id: identity.id(),
        role: Role::Agent,
        addresses: vec![([127, 0, 0, 1], 9).into()],
        zone: Zone::default(),
    };
    let library = Arc::new(|_, _| Box::pin(std::future::ready(None)) as super::Looked);
    let address = tokio::sync::watch::channel(address).1;
    let member = Member { identity: identity.clone(), address, library, trackers: None, tracker_url: None };
    let metrics = Registry::new();
    let config = Config::new(([127, 0, 0, 1], 0).into());
    (Overlay::start(&config, member, &metrics).await.unwrap(), identity, metrics)
}

impl Puppet {
    /// One that is connected to the victim.
    async fn meet(authority: &Authority, victim: &Overlay) -> Self {
        let identity = authority.issue(Role::Agent, "puppet").unwrap();
        let belief = Belief::new([127, 0, 0, 1].into(), vec![]);
        let gate = Gate::new(identity.clone());
        let meter = Metrics::register(&Registry::new()).unwrap().meter;
        let key = key::load(None, identity.cluster()).unwrap();
        let transport = transport::build(belief.clone(), meter, key, gate);
        let local = libp2p_id(&identity.id());
        let records = Records::new(local, belief, Bounds::default());
        let behaviour = Behaviour::new(&identity.id(), records, false).unwrap();
        let config = libp2p::swarm::Config::with_tokio_executor();
        let mut swarm = libp2p::Swarm::new(transport, behaviour, local, config);
        let address = multiaddr(victim.local_address());
        swarm.dial(DialOpts::unknown_peer_id().address(address).build()).unwrap();
        let mut puppet = Self { swarm, identity, provided: 0 };
        // It takes both before what is said by either goes to the victim, and either may come first.
        let (mut gossips, mut routes) = (false, false);
        puppet
            .until("acquaintance", |event| {
                if let SwarmEvent::Behaviour(event) = event {
                    gossips |= matches!(event, BehaviourEvent::Gossip(gossipsub::Event::Subscribed { .. }));
                    routes |= matches!(event, BehaviourEvent::Kad(kad::Event::RoutingUpdated { .. }));
                }
                gossips && routes
            })
            .await;
        puppet
    }

    async fn until(&mut self, what: &str, mut is_it: impl FnMut(&SwarmEvent<BehaviourEvent>) -> bool) {
        let wait = async {
            loop {
                if is_it(&self.swarm.select_next_some().await) {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap_or_else(|_| panic!("no {what}"));
    }

    /// Says of so many more blobs that it holds them.
    async fn provide(&mut self, count: u32) {
        let kad = |swarm: &mut libp2p::Swarm<Behaviour>, number: u32| {
            // Digests, and keys that are none, almost as long as a message may be.
            let key = match number % 4 {
                0 => RecordKey::new(&[&number.to_le_bytes()[..], &[0; 8 << 10]].concat()),
                _ => behaviour::key(&Digest::sha256(&number.to_le_bytes())),
            };
            let query = swarm.behaviour_mut().kad.start_providing(key.clone()).unwrap();
            // The puppet itself has no bound to keep to.
            swarm.behaviour_mut().kad.stop_providing(&key);
            query
        };
        let numbers = self.provided..self.provided + count;
        self.provided = numbers.end;
        let mut running: HashSet<_> = numbers.map(|number| kad(&mut self.swarm, number)).collect();
        while !running.is_empty() {
            if let SwarmEvent::Behaviour(BehaviourEvent::Kad(kad::Event::OutboundQueryProgressed {
                id,
                step,
                ..
            })) = self.swarm.select_next_some().await
                && step.last
            {
                running.remove(&id);
            }
        }
    }

    /// Says by gossip what no honest node would pass on, and is let go for it.
    async fn say(&mut self, bytes: Vec<u8>) {
        self.swarm.behaviour_mut().gossip.publish(topic(), bytes).unwrap();
        self.until("end", |event| matches!(event, SwarmEvent::ConnectionClosed { .. })).await;
    }
}

fn metric(metrics: &Registry, name: &str) -> f64 {
    let families = metrics.gather();
    let of_name = families.iter().filter(|family| family.name() == name);
    let each = of_name.flat_map(prometheus::proto::MetricFamily::get_metric);
    each.map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn records_without_end_do_not_bloat_a_node() {
    let authority = Authority::generate("test").unwrap();
    let (overlay, _, metrics) = victim(&authority).await;
    let mut puppet = Puppet::meet(&authority, &overlay).await;
    let bound = Bounds::default().of_provider as f64;
    let kept = || metric(&metrics, "shoal_overlay_records");
    let refused = || metric(&metrics, "shoal_overlay_refused_total");
    // A node under load drops some of what comes: more is sent until it must have had enough.
    let flood = async {
        while kept() < bound || refused() < bound / 2.0 {
            puppet.provide(RECORDS_AT_ONCE).await;
        }
        // And a good deal beyond the bound.
        puppet.provide(4 * RECORDS_AT_ONCE).await;
    };
    let came = tokio::time::timeout(Duration::from_secs(180), flood).await;
    assert!(came.is_ok(), "{} of {bound} records came, {} were refused", kept(), refused());
    assert_eq!(kept(), bound);
    overlay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gossip_that_is_not_so_ends_the_connection_to_who_brought_it() {
    let authority = Authority::generate("test").unwrap();
    let pretends = |identity: &Identity| {
        let notice = Notice { at_ms: now_ms(), addresses: vec![], tracker: Some("https://evil:1".into()) };
        notice.sign(identity)
    };
    let stranger = Authority::generate("test").unwrap().issue(Role::Tracker, "stranger").unwrap();
    for case in 0..4 {
        let (overlay, _, metrics) = victim(&authority).await;
        let mut puppet = Puppet::meet(&authority, &overlay).await;
        let bytes = match case {
            0 => vec![0xff; 100],
            1 => b"\x00\x00\x00\x00{\"at_ms\": 5}".repeat(50),
            // An agent that says it is a tracker, and a tracker of another cluster.
            2 => pretends(&puppet.identity),
            _ => pretends(&stranger),
        };
        puppet.say(bytes).await;
        assert_eq!(metric(&metrics, "shoal_overlay_members"), 0.0, "case {case}");
        assert!(metric(&metrics, "shoal_overlay_refused_total") >= 1.0, "case {case}");
        // It does not come in again.
        let address = multiaddr(overlay.local_address());
        puppet.swarm.dial(DialOpts::unknown_peer_id().address(address).build()).unwrap();
        puppet
            .until("refusal", |event| {
                matches!(
                    event,
                    SwarmEvent::OutgoingConnectionError { .. } | SwarmEvent::ConnectionClosed { .. }
                )
            })
            .await;
        // The other end hears of it in its own time.
        let alone = async {
            while overlay.peers() > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(20), alone).await.is_ok(), "case {case}");
        overlay.shutdown().await;
    }
}

fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
    since.as_millis() as u64
}

//! Gossip: what this node says of itself, and what it makes of what others say.

use std::time::{Instant, SystemTime};

use libp2p::gossipsub::{Event, Message, MessageAcceptance, MessageId};
use libp2p::{PeerId, gossipsub};

use crate::overlay::addresses::socket_address;
use crate::overlay::behaviour::topic;
use crate::overlay::gate::{libp2p_id, shoal_id};
use crate::overlay::gossip::Verdict;
use crate::overlay::host::Host;
use crate::overlay::metrics::gauge;
use crate::overlay::notice::{Notice, NoticeError, Unproved};
use crate::server_url::ServerUrl;

/// What became of a notice.
enum Heard {
    News,
    Known,
    /// It is from another time, which may be a clock's fault.
    Stale,
    False(NoticeError),
}

impl Host {
    pub(super) fn speak_if_due(&mut self, now: Instant) {
        if now < self.speaks_at || self.book.len() == 0 {
            return;
        }
        self.speaks_at = now + self.gossip.interval(rand::random_range(0.0..1.0));
        let addresses = self.swarm.external_addresses().filter_map(socket_address).collect();
        let notice = Notice { at_ms: now_ms(), addresses, tracker: self.tracker_url.clone() };
        // Without anybody who listens there is nobody to tell.
        let _ = self.swarm.behaviour_mut().gossip.publish(topic(), notice.sign(&self.identity));
    }

    pub(super) fn on_gossip(&mut self, event: Event) {
        if let Event::Message { propagation_source, message_id, message } = event {
            self.weigh(propagation_source, &message_id, message);
        }
    }

    fn weigh(&mut self, source: PeerId, id: &MessageId, message: Message) {
        let (acceptance, result) = match self.gossip.weigh(source, Instant::now()) {
            Verdict::Take => match self.hear(message) {
                Heard::News => (MessageAcceptance::Accept, "news"),
                Heard::Known => (MessageAcceptance::Ignore, "known"),
                Heard::Stale => (MessageAcceptance::Ignore, "stale"),
                Heard::False(error) => {
                    tracing::warn!(%source, error = &error as &dyn std::error::Error, "gossip that is not so");
                    self.cut(&source, "notice");
                    (MessageAcceptance::Reject, "false")
                }
            },
            Verdict::Drop => (MessageAcceptance::Ignore, "dropped"),
            Verdict::Cut => {
                self.cut(&source, "flood");
                (MessageAcceptance::Ignore, "dropped")
            }
        };
        self.metrics.notices.with_label_values(&[result]).inc();
        let gossip: &mut gossipsub::Behaviour = &mut self.swarm.behaviour_mut().gossip;
        gossip.report_message_validation_result(id, &source, acceptance);
    }

    fn hear(&mut self, message: Message) -> Heard {
        let unproved = match Unproved::decode(message.data.into(), now_ms()) {
            Ok(unproved) => unproved,
            Err(NoticeError::Time(_)) => return Heard::Stale,
            Err(error) => return Heard::False(error),
        };
        let (signer, notice) = match unproved.prove(&self.identity) {
            Ok(proved) => proved,
            Err(error) => return Heard::False(error),
        };
        if signer.id == self.identity.id() || !self.gossip.hear(signer.id, notice.at_ms) {
            return Heard::Known;
        }
        let addresses = self.belief.plausible(notice.addresses);
        self.learn(&libp2p_id(&signer.id), &addresses);
        self.book.remember(signer.id, addresses);
        self.metrics.members.set(gauge(self.gossip.signers()));
        if let (Some(trackers), Some(Ok(url))) =
            (&self.trackers, notice.tracker.as_deref().map(ServerUrl::parse))
        {
            trackers.learn(url);
        }
        Heard::News
    }

    /// Who passes on what is not so has not looked at it: no honest node does that.
    fn cut(&mut self, source: &PeerId, what: &'static str) {
        if let Some(peer) = shoal_id(source) {
            self.refuse(peer, what);
        }
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

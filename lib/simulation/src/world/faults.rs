//! What goes wrong, as the scenario says.

use std::time::Duration;

use super::{Letter, Said, Tick, World, nanos};
use crate::fault::Fault;
use crate::node::NodeId;
use crate::pipe::Pipe;

/// How often hosts restart under [`Fault::Churn`], in nanoseconds.
const CHURN: u64 = 1_000_000_000;

impl World<'_> {
    /// Chooses the hosts, and enters what is to happen to them.
    pub(super) fn plan_faults(&mut self) {
        let scenario = self.scenario;
        for fault in &scenario.faults {
            let hosts = self.shuffled_hosts();
            let chosen =
                |share: crate::fault::Share| hosts.iter().copied().take(share.of(scenario.hosts) as usize);
            if let Some(share) = fault.share() {
                chosen(share).for_each(|node| self.nodes[node as usize].is_unsound = true);
            }
            match *fault {
                Fault::Crash { share, after, back } => {
                    for node in chosen(share) {
                        let at = self.nodes[node as usize].tally.started.unwrap_or(0) + nanos(after);
                        self.agenda.at(at, Tick::Crash { node });
                        match back {
                            Some(back) => self.agenda.at(at + nanos(back), Tick::Return { node }),
                            None => self.write_off(node),
                        }
                    }
                }
                Fault::Churn { .. } => self.agenda.at(CHURN, Tick::Churn),
                Fault::Slow { share, factor } => {
                    let rate = scenario.host_rate / u64::from(factor);
                    for node in chosen(share) {
                        let node = &mut self.nodes[node as usize];
                        (node.up, node.down) = (Pipe::new(rate), Pipe::new(rate));
                    }
                }
                Fault::SlowDisk { share, factor } => {
                    for node in chosen(share) {
                        self.nodes[node as usize].store = Pipe::new(scenario.store_rate / u64::from(factor));
                    }
                }
                Fault::Corrupt { share } => {
                    chosen(share).for_each(|node| self.nodes[node as usize].is_corrupt = true);
                }
                Fault::Tracker(_) => {}
                Fault::Cut { zone, span } => self.agenda.at(nanos(span.from), Tick::Cut { zone }),
            }
        }
    }

    /// A host that will not come back need not complete.
    fn write_off(&mut self, node: NodeId) {
        self.missing -= 1;
        let pieces: u64 = self.nodes[node as usize].disk.iter().map(|have| u64::from(have.len())).sum();
        self.goal -= pieces;
    }

    pub(super) fn is_tracker_away(&self) -> bool {
        let now = Duration::from_nanos(self.agenda.now());
        self.scenario.faults.iter().any(|fault| matches!(fault, Fault::Tracker(span) if span.contains(now)))
    }

    /// Whether something can go from the one to the other now.
    pub(super) fn is_passable(&self, one: NodeId, other: NodeId) -> bool {
        let now = Duration::from_nanos(self.agenda.now());
        let zones = || [self.nodes[one as usize].zone, self.nodes[other as usize].zone];
        let cuts = |fault: &Fault| match fault {
            Fault::Cut { zone, span } if span.contains(now) => {
                let zones = zones();
                zones[0] != zones[1] && zones.contains(zone)
            }
            _ => false,
        };
        !self.scenario.faults.iter().any(cuts)
    }

    pub(super) fn is_reachable(&self, one: NodeId, other: NodeId) -> bool {
        self.nodes[other as usize].is_on && self.is_passable(one, other)
    }

    /// A host loses power. What its peers know of it they know by its silence.
    pub(super) fn crash(&mut self, node: NodeId) {
        let silence = nanos(self.scenario.silence);
        for (peer, link) in self.switch_off(node) {
            self.agenda.after(silence, Tick::Lost { node: peer, peer: node, link });
        }
    }

    /// A host restarts in order: its peers see their connections end.
    fn restart(&mut self, node: NodeId, back: Duration) {
        for (peer, link) in self.switch_off(node) {
            let letter = Letter { from: node, to: peer, link, what: Said::Closed };
            self.agenda.post(self.latency(node, peer), letter);
        }
        self.agenda.after(nanos(back), Tick::Return { node });
    }

    fn switch_off(&mut self, node: NodeId) -> Vec<(NodeId, u32)> {
        for upload in self.nodes[node as usize].uploads.find(|_| true) {
            let ended = self.nodes[node as usize].uploads.end(upload);
            if let Some(ended) = ended {
                self.nodes[ended.to as usize].tally.wasted += ended.sent;
            }
        }
        let it = &mut self.nodes[node as usize];
        it.is_on = false;
        it.life += 1;
        it.wake = None;
        it.expected.clear();
        let links: Vec<_> = std::mem::take(&mut it.links).into_iter().collect();
        links.iter().for_each(|&(peer, link)| self.ends.release(link, node, peer));
        links
    }

    /// A host is back, with what is on its disk; its runtime asks again.
    pub(super) fn return_(&mut self, node: NodeId) {
        let life = self.nodes[node as usize].life;
        let engine = self.engine(node, self.nodes[node as usize].zone, life);
        let it = &mut self.nodes[node as usize];
        it.engine = engine;
        it.is_on = true;
        for (frontier, have) in it.frontier.iter_mut().zip(&it.disk) {
            *frontier = super::frontier(have, 0);
        }
        let holdings = self.holdings(node);
        self.announce(node, holdings);
        self.agenda.after(nanos(crate::tracker::Tracker::HEARTBEAT), Tick::Heartbeat { node, life });
        self.start(node);
    }

    pub(super) fn churn(&mut self) {
        let hosts = self.shuffled_hosts();
        for fault in &self.scenario.faults {
            let Fault::Churn { share, back } = *fault else { continue };
            for &node in hosts.iter().take(share.of(self.scenario.hosts) as usize) {
                let started =
                    self.nodes[node as usize].tally.started.is_some_and(|at| at <= self.agenda.now());
                if started && self.nodes[node as usize].is_on {
                    self.restart(node, back);
                }
            }
        }
        self.agenda.after(CHURN, Tick::Churn);
    }

    /// A zone is cut off: both sides of its connections notice the silence.
    pub(super) fn cut(&mut self, zone: u32) {
        let silence = nanos(self.scenario.silence);
        for at in 0..self.nodes.len() {
            let node = super::number_of(at);
            for (&peer, &link) in &self.nodes[at].links {
                if (self.nodes[at].zone == zone) != (self.nodes[peer as usize].zone == zone) {
                    self.agenda.after(silence, Tick::Lost { node, peer, link });
                }
            }
        }
    }
}

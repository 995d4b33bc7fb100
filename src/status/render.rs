//! The answers as people read them: aligned tables, sizes and times in the units that fit.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use bytesize::ByteSize;
use comfy_table::{CellAlignment, Table, presets};
use shoal_core::Zone;

use super::{
    Holds, KnownNode, List, MemberStatus, NodeStatus, NodeSwarm, PeerStatus, Peers, Rates, ReadOnly, Retried,
    Status, Swarm, TrackerStatus, TrackerSwarm,
};

/// What can be printed.
pub(super) trait Render {
    /// Lines without an end.
    fn render(&self) -> String;
}

impl Render for Status {
    fn render(&self) -> String {
        let ready = self.not_ready.as_deref().map_or_else(|| "yes".into(), |why| format!("no: {why}"));
        let mut lines = Lines::default();
        lines.add("role", format!("{} of cluster {}", self.role, self.cluster));
        lines.add("name", &self.name);
        lines.add("id", self.id.to_string());
        lines.add("version", &self.version);
        lines.add("up for", time(self.uptime_s));
        lines.add("ready", ready);
        lines.add("certificate ends", &self.certificate_ends);
        if let Some(tracker) = &self.tracker {
            tracker.lines(&mut lines);
        }
        let Some(node) = &self.node else { return lines.aligned() };
        node.lines(&mut lines);
        if node.fetches.total == 0 {
            return lines.aligned();
        }
        format!("{}\n\n{}", lines.aligned(), node.fetches_table())
    }
}

impl Render for ReadOnly {
    fn render(&self) -> String {
        match self.on {
            true => "read only: pulls go on, writes are refused, nothing is collected",
            false => "reads and writes",
        }
        .to_owned()
    }
}

impl Render for Retried {
    fn render(&self) -> String {
        format!("{} jobs are tried again", self.jobs)
    }
}

impl TrackerStatus {
    fn lines(&self, lines: &mut Lines) {
        lines.add("nodes", format!("{} agents, {} origins", self.agents, self.origins));
        lines.add("blobs", format!("{}, held {} times", self.blobs, self.holdings));
        lines.add("waiting", format!("{} for somebody new", self.waiting));
    }
}

impl NodeStatus {
    fn lines(&self, lines: &mut Lines) {
        lines.add("zone", zone(&self.zone));
        lines.add("peer port", self.peer_port.to_string());
        for tracker in &self.trackers {
            let state =
                tracker.error.as_deref().map_or_else(|| "answers".into(), |error| format!("away: {error}"));
            lines.add("tracker", format!("{} {state}", tracker.url));
        }
        if let Some(peers) = self.overlay_peers {
            lines.add("overlay", format!("{peers} peers"));
        }
        let store = &self.store;
        let mut stored = size(store.used);
        if let Some(capacity) = store.capacity {
            let _ = write!(stored, " of {} ({} %)", size(capacity), percent(store.used, capacity));
        }
        if let Some(free) = store.free {
            let _ = write!(stored, ", {} left on the file system", size(free));
        }
        lines.add("store", stored);
        lines.add("blobs", format!("{} whole, {} in part", store.blobs, store.partials));
        lines.add("connections", self.connections.to_string());
        let (agents, origins) = (size(self.received_from_agents), size(self.received_from_origins));
        let (received, sent) = both_rates(self.rates);
        lines.add("received", format!("{agents} from agents, {origins} from origins, {received} now"));
        lines.add("sent", format!("{}, {sent} now", size(self.sent)));
        for queue in &self.queues {
            let since =
                if queue.waiting > 0 { format!(" for up to {}", time(queue.lag_s)) } else { String::new() };
            let (waiting, dead) = (queue.waiting, queue.dead.total);
            lines.add("queue", format!("{}: {waiting} waiting{since}, {dead} given up", queue.name));
            for job in &queue.dead.entries {
                lines.add("given up", format!("{} after {} tries: {}", job.key, job.tries, job.error));
            }
        }
    }

    fn fetches_table(&self) -> String {
        let header = ["fetching", "size", "done %", "rate", "peers"];
        table(header, &[0], &self.fetches, |fetch| {
            [
                fetch.digest.to_string(),
                size(fetch.length),
                percent(fetch.bytes, fetch.length),
                rate(fetch.rate),
                fetch.peers.to_string(),
            ]
        })
    }
}

impl Render for Peers {
    fn render(&self) -> String {
        match self {
            Self::Node(peers) => {
                let header = [
                    "peer", "role", "zone", "address", "over", "rtt", "for", "received", "sent", "in", "out",
                    "requests", "blobs",
                ];
                table(header, &[0, 1, 2, 3, 4], peers, peer_row)
            }
            Self::Tracker(nodes) => {
                let header = ["node", "role", "zone", "address", "lease s", "blobs", "handed out"];
                table(header, &[0, 1, 2, 3, 6], nodes, node_row)
            }
        }
    }
}

fn peer_row(peer: &PeerStatus) -> [String; 13] {
    let round_trip = peer.round_trip_us.map(|us| format!("{:.1} ms", us as f64 / 1000.0));
    let (received, sent) = both_rates(peer.rates);
    [
        peer.id.to_string(),
        peer.role.to_string(),
        zone(&peer.zone),
        peer.address.to_string(),
        peer.transport.clone(),
        or_dash(round_trip),
        time(peer.connected_s),
        size(peer.received),
        size(peer.sent),
        received,
        sent,
        peer.requests.to_string(),
        peer.blobs.to_string(),
    ]
}

fn node_row(node: &KnownNode) -> [String; 7] {
    let handed_out = if node.removed { "no: others cannot reach it" } else { "yes" };
    [
        node.id.to_string(),
        node.role.to_string(),
        zone(&node.zone),
        addresses(&node.addresses),
        node.lease_s.to_string(),
        node.blobs.to_string(),
        handed_out.into(),
    ]
}

impl Render for Swarm {
    fn render(&self) -> String {
        match self {
            Self::Node(swarm) => swarm.render(),
            Self::Tracker(swarm) => swarm.render(),
        }
    }
}

impl Render for NodeSwarm {
    fn render(&self) -> String {
        let mut lines = Lines::default();
        lines.add("blob", self.digest.to_string());
        match self.own {
            Some(own) => {
                lines.add("size", size(own.length));
                let share = percent(own.have.into(), own.pieces.into());
                lines.add("here", format!("{} of {} pieces ({share} %)", own.have, own.pieces));
            }
            None => lines.add("here", "nothing"),
        }
        let pieces = self.own.map(|own| own.pieces);
        let header = ["peer", "role", "pieces", "done %", "in", "out"];
        let members = table(header, &[0, 1], &self.members, |member| member_row(member, pieces));
        format!("{}\n\n{members}", lines.aligned())
    }
}

fn member_row(member: &MemberStatus, pieces: Option<u32>) -> [String; 6] {
    let (received, sent) = both_rates(member.rates);
    let share = member.have.zip(pieces).map(|(have, pieces)| percent(have.into(), pieces.into()));
    [member.id.to_string(), member.role.to_string(), or_dash(member.have), or_dash(share), received, sent]
}

impl Render for TrackerSwarm {
    fn render(&self) -> String {
        let header = ["node", "role", "zone", "address", "has", "for"];
        let holders = table(header, &[0, 1, 2, 3, 4], &self.holders, |holder| {
            let has = match holder.state {
                Holds::Asked => "asked for it",
                Holds::Partial => "a part",
                Holds::Complete => "all",
            };
            [
                holder.id.to_string(),
                holder.role.to_string(),
                zone(&holder.zone),
                addresses(&holder.addresses),
                has.into(),
                time(holder.since_s),
            ]
        });
        format!("blob  {}\n\n{holders}", self.digest)
    }
}

/// Names and what they are, one a line.
#[derive(Default)]
struct Lines(Vec<(&'static str, String)>);

impl Lines {
    fn add(&mut self, name: &'static str, value: impl Into<String>) {
        self.0.push((name, value.into()));
    }

    fn aligned(&self) -> String {
        let width = self.0.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let lines: Vec<_> = self.0.iter().map(|(name, value)| format!("{name:width$}  {value}")).collect();
        lines.join("\n")
    }
}

/// Words to the left, numbers to the right; and how many more there are.
fn table<T, const N: usize>(
    header: [&str; N],
    words: &[usize],
    list: &List<T>,
    row: impl Fn(&T) -> [String; N],
) -> String {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_header(header);
    table.add_rows(list.entries.iter().map(row));
    table.column_iter_mut().for_each(|column| {
        let is_word = words.contains(&column.index);
        column.set_cell_alignment(if is_word { CellAlignment::Left } else { CellAlignment::Right });
    });
    let (shown, total) = (list.entries.len(), list.total);
    let more = if list.truncated { ", and there are more: see --limit" } else { "" };
    format!("{table}\n{shown} of {}{more}", total.max(shown))
}

fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

fn rate(bytes: Option<u64>) -> String {
    or_dash(bytes.map(|bytes| format!("{}/s", size(bytes))))
}

fn both_rates(rates: Option<Rates>) -> (String, String) {
    (rate(rates.map(|rates| rates.received)), rate(rates.map(|rates| rates.sent)))
}

fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "100".into() } else { format!("{:.0}", (100.0 * part as f64 / whole as f64).floor()) }
}

fn time(seconds: u64) -> String {
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

fn zone(zone: &Zone) -> String {
    if zone.0.is_empty() { "-".into() } else { zone.0.clone() }
}

/// The first, and how many others there are.
fn addresses(addresses: &[SocketAddr]) -> String {
    match addresses {
        [] => "-".into(),
        [one] => one.to_string(),
        [first, others @ ..] => format!("{first} +{}", others.len()),
    }
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

#[cfg(test)]
mod tests;

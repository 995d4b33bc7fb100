//! A diagnosis as a person reads it.

use std::fmt;
use std::time::{Duration, SystemTime};

use bytesize::ByteSize;
use comfy_table::{CellAlignment, Table, presets};
use shoal_core::PeerId;

use super::diagnosis::{Diagnosis, Ending, Peer, Requests, Stall, Swarm};

/// Prints the whole of it.
pub(super) struct Report<'a>(pub(super) &'a Diagnosis);

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let diagnosis = self.0;
        header(f, diagnosis)?;
        diagnosis.swarms.iter().try_for_each(|swarm| self::swarm(f, swarm))?;
        if !diagnosis.peers.is_empty() {
            writeln!(f, "\npeers, the slowest first\n{}", peers(&diagnosis.peers))?;
        }
        open(f, diagnosis)
    }
}

fn header(f: &mut fmt::Formatter<'_>, diagnosis: &Diagnosis) -> fmt::Result {
    let Diagnosis { node, software, seconds, .. } = diagnosis;
    let started = SystemTime::UNIX_EPOCH + Duration::from_millis(diagnosis.started_unix_ms.min(LATEST_MS));
    writeln!(f, "node     {node} ({software})")?;
    writeln!(f, "time     {seconds:.3} s from {}", humantime::format_rfc3339_millis(started))?;
    writeln!(f, "end      {}", ending(diagnosis.ending))?;
    writeln!(f, "told     {}", counts(&diagnosis.events))?;
    writeln!(f, "did      {}", counts(&diagnosis.actions))?;
    if !diagnosis.refused.is_empty() {
        writeln!(f, "refused  {}", counts(&diagnosis.refused))?;
    }
    Ok(())
}

fn ending(ending: Ending) -> &'static str {
    match ending {
        Ending::Stopped => "the node was stopped",
        Ending::Full => "the record was full (transfer.record.max_size); the node went on",
        Ending::Overrun => "events came faster than they could be written; the node went on",
        Ending::BrokenOff => "the record breaks off: the node was killed, or runs still",
        Ending::Until => "as far as --until",
        Ending::Mismatch => "the engine did otherwise than it is on record: what follows is from before that",
    }
}

fn counts<Name: fmt::Display>(counts: &std::collections::BTreeMap<Name, u64>) -> String {
    let counts: Vec<_> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
    if counts.is_empty() { "nothing".to_owned() } else { counts.join(", ") }
}

fn swarm(f: &mut fmt::Formatter<'_>, swarm: &Swarm) -> fmt::Result {
    let Swarm { digest, pieces, held_before, have, .. } = swarm;
    writeln!(f, "\nblob {digest}")?;
    let length = ByteSize(swarm.length);
    writeln!(f, "  {length} in {pieces} pieces; {held_before} were here before, {have} are now")?;
    let (agents, origins) = (&swarm.from_agents, &swarm.from_origins);
    writeln!(f, "  {}", fetch(swarm))?;
    writeln!(
        f,
        "  pieces    from agents {} ({}), from origins {} ({})",
        agents.pieces,
        ByteSize(agents.bytes),
        origins.pieces,
        ByteSize(origins.bytes)
    )?;
    writeln!(f, "  requests  {}", requests(&swarm.requests))?;
    writeln!(f, "  uploads   {}, refused {}", swarm.uploads, swarm.uploads_refused)?;
    swarm.stalls.iter().try_for_each(|stall| self::stall(f, stall))
}

fn fetch(swarm: &Swarm) -> String {
    let Some(from) = swarm.fetched_at else { return "served, not fetched".to_owned() };
    let searches = swarm.searches;
    let asked = format!("asked for peers {searches} times");
    match (swarm.completed_at, swarm.given_up_at) {
        (Some(to), _) => {
            let rate =
                ByteSize(((swarm.from_agents.bytes + swarm.from_origins.bytes) as f64 / (to - from)) as u64);
            format!("fetched from {from:.3} s to {to:.3} s ({rate}/s), {asked}")
        }
        (None, Some(to)) => format!("fetched from {from:.3} s, GIVEN UP at {to:.3} s, {asked}"),
        (None, None) => format!("fetched from {from:.3} s, NOT COMPLETE, {asked}"),
    }
}

fn requests(requests: &Requests) -> String {
    let Requests { sent, good, duplicate, corrupt, not_stored, .. } = requests;
    let Requests { rejected, timed_out, overtaken, lost, closed, .. } = requests;
    format!(
        "{sent}: good {good}, twice {duplicate}, corrupt {corrupt}, not stored {not_stored}, rejected {rejected}, timed \
         out {timed_out}, overtaken {overtaken}, lost with the connection {lost}, closed {closed}"
    )
}

fn stall(f: &mut fmt::Formatter<'_>, stall: &Stall) -> fmt::Result {
    let mut waited: Vec<_> = stall.waited_for.iter().collect();
    waited.sort_by_key(|(_, requests)| std::cmp::Reverse(**requests));
    let named =
        waited.iter().take(MOST_NAMED).map(|(peer, requests)| format!("{} ({requests})", short(peer)));
    let named: Vec<_> = named.collect();
    let whom = match waited.len() {
        0 => "nobody was asked".to_owned(),
        count => format!("waited for {count} peers: {}", named.join(", ")),
    };
    writeln!(
        f,
        "  STALL     {:.3} s, from {:.3} s to {:.3} s; {whom}",
        stall.to - stall.from,
        stall.from,
        stall.to
    )
}

fn peers(peers: &[Peer]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header([
        "peer",
        "role",
        "good",
        "bytes",
        "mean s",
        "longest s",
        "rejected",
        "timed out",
        "overtaken",
        "lost",
        "corrupt",
        "uploads",
        "dials failed",
        "closed",
    ]);
    for peer in peers {
        let requests = &peer.requests;
        let seconds =
            |seconds: Option<f64>| seconds.map_or("-".to_owned(), |seconds| format!("{seconds:.3}"));
        table.add_row([
            format!("{}{}", short(&peer.peer), if peer.banned { " BANNED" } else { "" }),
            peer.role.map_or("-".to_owned(), |role| role.to_string()),
            requests.good.to_string(),
            ByteSize(peer.bytes).to_string(),
            seconds(peer.mean_seconds),
            seconds(peer.longest_seconds),
            requests.rejected.to_string(),
            requests.timed_out.to_string(),
            requests.overtaken.to_string(),
            requests.lost.to_string(),
            requests.corrupt.to_string(),
            peer.uploads.to_string(),
            peer.failed_dials.to_string(),
            peer.disconnects.to_string(),
        ]);
    }
    table.column_iter_mut().skip(2).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table
}

fn open(f: &mut fmt::Formatter<'_>, diagnosis: &Diagnosis) -> fmt::Result {
    let open = &diagnosis.open;
    if open.is_empty() {
        return Ok(());
    }
    writeln!(f, "\n{} requests are open, the oldest first", open.len())?;
    for request in open.iter().take(MOST_OPEN) {
        let age = diagnosis.seconds - request.since;
        let (digest, piece) = (request.digest, request.piece);
        writeln!(f, "  {age:8.3} s  {}  piece {piece} of {digest}", short(&request.peer))?;
    }
    Ok(())
}

/// Enough of a peer's name to find it in a log.
fn short(peer: &PeerId) -> String {
    let name = peer.to_string();
    format!("…{}", &name[name.len() - 12..])
}

/// Peers that are named of those that a stall waited for.
const MOST_NAMED: usize = 6;
/// Open requests that are listed.
const MOST_OPEN: usize = 20;
/// No wall clock is beyond: the end of the year 9999.
const LATEST_MS: u64 = 253_402_300_799_000;

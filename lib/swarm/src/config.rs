//! Every limit of the engine, with its unit and the reason for its number. Nothing in this crate is bounded by a number
//! that is not here.

use std::time::Duration;

/// Limits, with defaults and the reason for each number. Durations are written like `8s` or `250ms`.
///
/// A limit of 0 never stops a fetch for good: at least one request, one reader piece and one connection are allowed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Connections at once, dialled by either side. Beyond it, one that was idle for `idle_timeout` makes room, or the
    /// new one is refused. 512: all layers of an image together rarely need more than a few swarms of 50.
    pub max_connections: usize,
    /// Dials in flight at once. 16: a dial over a healthy network takes milliseconds, so more would only help to
    /// flood a network where it does not.
    pub max_dials: usize,
    /// Peers that a fetch looks for by itself. 12: as many come by themselves, and a random graph of degree 24 is
    /// connected beyond doubt at 100,000 hosts; in simulations of 200 hosts 20 brought nothing but news, 8 were worse.
    pub max_peers_per_swarm: usize,
    /// Peers in a swarm, with those that came by themselves; the next are told `Absent`. 200: many times what each looks
    /// for, so that a late joiner finds a place even at a popular host.
    pub max_members_per_swarm: usize,
    /// Candidates remembered for a fetch; those beyond are dropped. 200: four handouts.
    pub max_candidates: usize,
    /// Failures in a row (dial, join, connection lost before it gave a piece) after which a candidate counts no more
    /// as somebody to wait for, and piece timeouts in a row after which a connected peer does not. 6: with the back-off
    /// below that is 15 s of trying; a peer that answers nothing at all is waited for some two minutes.
    pub max_attempts: u32,
    /// Wait before a candidate is tried again; doubles with each failure. 500 ms: a restarted process is back by then.
    #[serde(with = "humantime_serde")]
    pub retry_backoff: Duration,
    /// The longest of these waits. 8 s: half of `stall_timeout`, so that a peer that returns is found before giving up.
    #[serde(with = "humantime_serde")]
    pub retry_backoff_max: Duration,
    /// How long a connected peer may take to answer `Join`. 8 s: it may have to load the blob's bitfield from disk.
    #[serde(with = "humantime_serde")]
    pub join_timeout: Duration,

    /// Between two tellings of new pieces to the members of a swarm, at least; what came meanwhile goes in one message. The
    /// first news goes at once. 20 ms: a quarter of what a piece waits at those who have it, so nobody waits for news, and
    /// a host that takes 300 pieces a second says a sixth of the messages.
    #[serde(with = "humantime_serde")]
    pub news_interval: Duration,

    /// Requests outstanding at one agent. 8: pieces of 1 MiB at 100 MB/s keep the pipe full over 80 ms of round trip.
    pub requests_per_agent: usize,
    /// Requests outstanding at one origin. 4: half, so that agents that start together ask it for few pieces twice
    /// before they hear of each other's.
    pub requests_per_origin: usize,
    /// Bytes outstanding at one peer; one piece always may be. 16 MiB: the longest piece, or 16 of the shortest.
    pub request_bytes_per_peer: u64,
    /// Requests outstanding at all peers. 24: in simulations of 100 hosts 8 to 32 fill the links alike; with 48 pieces
    /// wait so long that the endgame asks for one in seventy twice.
    pub max_requests: usize,
    /// Bytes outstanding at all peers, which bounds what arriving pieces may take in memory; one piece always may be. 64 MiB:
    /// 8 pieces of 8 MiB.
    pub max_bytes_in_flight: u64,
    /// Up to which share of these budgets origins and far agents are asked for what near agents have, in percent. 25:
    /// a link that is busy with near agents needs no help.
    pub hungry_percent: usize,
    /// Beyond that they are asked where one of them would bring a piece that many times sooner than any near agent. 4:
    /// an idle origin helps out a slow host, a crowded one does not.
    pub far_advantage: u32,
    /// How much of these budgets goes to blobs that nobody reads while one is read, in percent. 25.
    pub background_percent: usize,

    /// The next missing pieces of a reader that are asked for before all others. 4: enough to hide a round trip, and
    /// few enough that agents that pull the same blob at once do not all ask for the same pieces.
    pub reader_window: usize,
    /// How much of what a fetch has in flight may be readers' pieces, in percent. 50: the other half is chosen
    /// rarest first, and is what this node can give to others.
    pub reader_share_percent: usize,
    /// How far beyond a reader's place a fetch in scope `Demand` asks for pieces, in bytes; for the very next piece in any
    /// case. A client that asks for the rest of a blob and goes away has cost that much for nothing. 8 MiB: what one agent
    /// is asked for at a time, enough for 100 MB/s over 80 ms of round trip.
    pub read_ahead: u64,
    /// Readers of one blob whose next pieces come first; those of the others come in any order. 16: more than a container
    /// runtime opens.
    pub max_readers: usize,

    /// Peers that are asked for a piece beyond the first when nothing else is left to ask for. 2: more only waste.
    pub endgame_extra: usize,
    /// How old the request must be for the first of them (twice that for the second); at least twice the time that a
    /// piece took of late. 300 ms: below it the first answer is likely on its way.
    #[serde(with = "humantime_serde")]
    pub endgame_delay: Duration,

    /// How long a peer may bring no piece that was asked of it while its pace is unknown. 8 s: 128 KiB/s at 1 MiB.
    /// Doubles with each time in a row.
    #[serde(with = "humantime_serde")]
    pub piece_timeout: Duration,
    /// The least such time once its pace is known (eight times what a piece takes). 2 s: a pause of a
    /// busy disk or a lost packet is no reason to ask elsewhere.
    #[serde(with = "humantime_serde")]
    pub piece_timeout_min: Duration,
    /// The most, and how long a request may be overtaken by younger ones. 60 s: 16 MiB at 280 KiB/s.
    #[serde(with = "humantime_serde")]
    pub piece_timeout_max: Duration,
    /// Piece timeouts in a row after which a peer counts no more as one to wait for, and gives its place to a
    /// candidate if there is one. 3: the doubling timeouts have then taken most of a minute.
    pub max_strikes: u32,
    /// Wait before a peer that rejected a request or let one time out is asked again; doubles each time in a row.
    /// 250 ms: a queue of uploads moves in that time.
    #[serde(with = "humantime_serde")]
    pub reject_backoff: Duration,
    /// The longest of these waits. 5 s: a peer that is full for long is still found free soon after.
    #[serde(with = "humantime_serde")]
    pub reject_backoff_max: Duration,
    /// Rejects in a row after which a peer counts no more as one to wait for (it is still asked). 8: with the back-off
    /// above 20 s, longer than any queue of a sound peer.
    pub max_rejects: u32,
    /// Given-up requests of a swarm whose late answers are still taken. 256: ten times `max_requests`.
    pub max_late: usize,

    /// How long a peer is refused after a corrupt piece. 10 min: a broken disk or memory does not heal; an operator
    /// who exchanged it does not want to wait for an hour.
    #[serde(with = "humantime_serde")]
    pub ban_duration: Duration,
    /// Bans remembered; the one that ends first makes room. 1,024: a tenth of the largest cluster.
    pub max_bans: usize,

    /// Wait after a piece could not be stored. 1 s: a full disk is being evicted meanwhile.
    #[serde(with = "humantime_serde")]
    pub store_backoff: Duration,
    /// Pieces in a row that could not be stored after which the fetch is given up. 5: eviction had its time.
    pub max_store_failures: u32,

    /// Usable peers below which a fetch asks for more. 8: any two of them may fail and the link still fills.
    pub wanted_peers: usize,
    /// Wait between two `FindPeers` of a fetch; doubles while nobody new comes. 2 s: a start of 2,600 hosts that each
    /// ask that often is 1,300 small requests a second.
    #[serde(with = "humantime_serde")]
    pub find_interval: Duration,
    /// The longest of these waits. 10 s: below `stall_timeout`, so that nobody gives up without having asked.
    #[serde(with = "humantime_serde")]
    pub find_interval_max: Duration,
    /// How long an unanswered `FindPeers` counts as under way. 10 s: longer than the tracker's client tries.
    #[serde(with = "humantime_serde")]
    pub find_timeout: Duration,
    /// A fetch with nobody left to ask is given up when nothing came for so long. 15 s: longer than a restart of the
    /// only peer, shorter than what the container runtime waits for.
    #[serde(with = "humantime_serde")]
    pub stall_timeout: Duration,

    /// A connection on which nothing was said for so long, and by which neither side can gain, is closed. 60 s: the
    /// next layer of the same image is usually pulled before.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// A seed that nobody asked for a piece for so long is closed; it is loaded again when somebody does. 5 min: a
    /// rollout over a cluster touches a blob more often.
    #[serde(with = "humantime_serde")]
    pub seed_idle_timeout: Duration,

    /// Uploads at once. 32: as some receivers are held up by others who send to them, fewer do not fill the link:
    /// an early engine took 5.5 s with 8 where it took 3.6 s with 32 (100 simulated hosts, 1 GB at 300 MB/s).
    pub max_uploads: usize,
    /// Uploads to one peer at once. 4: the next piece is read from disk while one is on the wire.
    pub max_uploads_per_peer: usize,
    /// Requests of one peer that wait; the next are rejected. 32: four times what an honest agent has outstanding.
    pub upload_queue_per_peer: usize,
    /// Requests of all peers that wait; what would be sent last beyond it is rejected. 64: an agent has as many waiting as
    /// each agent asks for; whoever comes to a crowded origin is told at once, and asks elsewhere.
    pub upload_queue: usize,
    /// How long a node from which others have a blob keeps a piece that it begins to send from the next who ask for it: they
    /// get it from whoever has it now. 1 s: when readers did not wait yet (`reader_hold`), simulated origins at 30 MB/s sent
    /// 1.17 copies to 150 hosts with it, 1.29 without, and 1.14 with 2 s, which a peer that nobody passes it on to would wait
    /// in vain.
    #[serde(with = "humantime_serde")]
    pub hold: Duration,
    /// How long at most it keeps the first copy from those whose reader waits for it, once it is sent; that it is still being
    /// sent counts for no more than twice the time that it usually takes. 50 ms: the one that has it tells the others
    /// within 20 ms, and has as many uploads. Readers of one image all stand at the same piece: if each were sent it, a
    /// starved origin would send little else.
    #[serde(with = "humantime_serde")]
    pub reader_hold: Duration,
    /// How often it does that. 2: a piece that three asked for and did not pass on is one that must come from here.
    pub held_copies: u32,
    /// How long a request waits at most behind those that are more urgent or rarer. 2 s.
    #[serde(with = "humantime_serde")]
    pub upload_patience: Duration,
    /// Blobs being loaded at once because a peer asked for them; for others it is told `Absent`. 64: a look-up on disk
    /// takes less than a millisecond.
    pub max_loads: usize,
    /// Of these, for one peer. 16: an image has fewer layers, and no peer alone fills the limit above.
    pub max_loads_per_peer: usize,
}

impl Default for Config {
    fn default() -> Self {
        let millis = Duration::from_millis;
        let seconds = Duration::from_secs;
        Self {
            max_connections: 512,
            max_dials: 16,
            max_peers_per_swarm: 12,
            max_members_per_swarm: 200,
            max_candidates: 200,
            max_attempts: 6,
            retry_backoff: millis(500),
            retry_backoff_max: seconds(8),
            join_timeout: seconds(8),
            news_interval: millis(20),
            requests_per_agent: 8,
            requests_per_origin: 4,
            request_bytes_per_peer: 16 << 20,
            max_requests: 24,
            max_bytes_in_flight: 64 << 20,
            hungry_percent: 25,
            far_advantage: 4,
            background_percent: 25,
            reader_window: 4,
            reader_share_percent: 50,
            read_ahead: 8 << 20,
            max_readers: 16,
            endgame_extra: 2,
            endgame_delay: millis(300),
            piece_timeout: seconds(8),
            piece_timeout_min: seconds(2),
            piece_timeout_max: seconds(60),
            max_strikes: 3,
            reject_backoff: millis(250),
            reject_backoff_max: seconds(5),
            max_rejects: 8,
            max_late: 256,
            ban_duration: seconds(600),
            max_bans: 1024,
            store_backoff: seconds(1),
            max_store_failures: 5,
            wanted_peers: 8,
            find_interval: seconds(2),
            find_interval_max: seconds(10),
            find_timeout: seconds(10),
            stall_timeout: seconds(15),
            idle_timeout: seconds(60),
            seed_idle_timeout: seconds(300),
            max_uploads: 32,
            max_uploads_per_peer: 4,
            upload_queue_per_peer: 32,
            upload_queue: 64,
            hold: seconds(1),
            reader_hold: millis(50),
            held_copies: 2,
            upload_patience: seconds(2),
            max_loads: 64,
            max_loads_per_peer: 16,
        }
    }
}

/// `base` doubled `times` times, at most `max`.
pub(crate) fn backoff(base: Duration, times: u32, max: Duration) -> Duration {
    base.saturating_mul(1 << times.min(16)).min(max)
}

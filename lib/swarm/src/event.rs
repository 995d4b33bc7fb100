//! What goes into the engine and what comes out of it.
//!
//! Nothing here does anything: an [`Event`] says what happened, an [`Action`] what is to be done, and a [`Message`] is
//! what two engines say to each other, in whatever encoding the transport chooses.

use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shoal_core::{Bitfield, Digest, Geometry, PeerId, PieceIndex, Role, Zone};

/// A point in time: how long after an epoch of the caller's choice. The engine never asks for the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub Duration);

impl Moment {
    /// That much later.
    pub(crate) fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(wait))
    }

    /// How long ago `earlier` was; nothing if it is yet to come.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Who may have pieces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Name.
    pub peer: PeerId,
    /// Role: origins are asked when agents do not have a piece.
    pub role: Role,
    /// Zone.
    pub zone: Zone,
}

/// Why something is fetched; the first come first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Somebody reads it, or is about to.
    #[default]
    Reader,
    /// Somebody may read it soon.
    Prefetch,
    /// A copy is to be made; nobody waits for it.
    Repair,
}

/// How much of a blob a fetch is after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// All that is missing.
    #[default]
    All,
    /// What readers come to next, at most `read_ahead` beyond each. While nobody reads, the fetch rests: it asks for nothing,
    /// looks for nobody, and is not given up. What was asked for before still comes.
    Demand,
}

/// What peers say to each other about pieces: one engine's `Action::Send` is another's `Event::Message`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Message {
    /// "I am in the swarm of this blob, and have these pieces." Answered by a `Join` of the other's own, or `Absent`.
    Join {
        /// Blob.
        digest: Digest,
        /// Sender's pieces.
        have: Bitfield,
    },
    /// "I do not have (any more) that blob."
    Absent {
        /// Blob.
        digest: Digest,
    },
    /// "I have these pieces now."
    Have {
        /// Blob.
        digest: Digest,
        /// Pieces, at most [`Message::MAX_NEWS`].
        pieces: Vec<PieceIndex>,
    },
    /// "Send me this piece."
    Request {
        /// Blob.
        digest: Digest,
        /// Piece.
        piece: PieceIndex,
        /// How urgent it is: that of a piece that no reader comes to next is at most `Prefetch`.
        priority: Priority,
    },
    /// "I need it no more."
    Cancel {
        /// Blob.
        digest: Digest,
        /// Piece.
        piece: PieceIndex,
    },
    /// "I will not send that piece (busy, or gone); ask elsewhere or later."
    Reject {
        /// Blob.
        digest: Digest,
        /// Piece.
        piece: PieceIndex,
    },
}

impl Message {
    /// The most pieces that one `Have` names: as many as come to a fast host while it waits to tell of them, and more.
    pub const MAX_NEWS: usize = 256;
}

/// How a requested piece came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PieceOutcome {
    /// Arrived, hash right, written.
    Good,
    /// Arrived, hash wrong.
    Corrupt,
    /// It could not be stored (disk) though it was right: not the peer's fault.
    NotStored,
}

/// What happens to a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Fetch this blob (open its swarm); `have` is what is on disk already.
    Fetch {
        /// Blob.
        digest: Digest,
        /// Its pieces.
        geometry: Geometry,
        /// On disk already.
        have: Bitfield,
        /// Whom to ask first.
        candidates: Vec<Candidate>,
        /// Why it is fetched. While readers wait for it, as if it were fetched for them.
        priority: Priority,
        /// How much of it. Where a record does not say, all of it.
        #[serde(default)]
        scope: Scope,
    },
    /// From now on all of a blob is wanted that is being fetched; never less again. Nothing happens if it is complete.
    Raise {
        /// Blob.
        digest: Digest,
        /// Why. The more urgent of this and what was said before counts.
        priority: Priority,
    },
    /// Serve this blob, whole or partial, to those who ask; the answer to `Action::Load`.
    Seed {
        /// Blob.
        digest: Digest,
        /// Its pieces.
        geometry: Geometry,
        /// On disk.
        have: Bitfield,
    },
    /// Pieces of a blob that is served and not fetched came another way: this node is where others have them from.
    Grew {
        /// Blob.
        digest: Digest,
        /// Pieces.
        pieces: Vec<PieceIndex>,
    },
    /// The blob of `Action::Load` is not here.
    NotHeld {
        /// Blob.
        digest: Digest,
    },
    /// Leave the swarm of this blob (deleted, or the fetch was given up).
    Close {
        /// Blob.
        digest: Digest,
    },
    /// More peers for a fetch.
    Found {
        /// Blob.
        digest: Digest,
        /// Who.
        candidates: Vec<Candidate>,
    },
    /// The readers of a blob stand here now: the pieces each comes to next, in order, to the end of what it reads. Replaces
    /// what was said before.
    Demand {
        /// Blob.
        digest: Digest,
        /// One range a reader.
        pieces: Vec<Range<u32>>,
    },
    /// There is a connection with that peer (whoever dialled).
    Connected {
        /// Who.
        peer: PeerId,
        /// From its certificate.
        role: Role,
        /// From its own words; a peer of another zone than ours is far.
        zone: Zone,
    },
    /// The answer to `Action::Connect` when there will be none.
    ConnectFailed {
        /// Who.
        peer: PeerId,
    },
    /// The connection is gone.
    Disconnected {
        /// Who.
        peer: PeerId,
    },
    /// A peer said something. May be hostile: nonsense is refused, never believed, never a panic.
    Message {
        /// Who.
        peer: PeerId,
        /// What.
        message: Message,
    },
    /// A piece that was requested from that peer arrived and was checked.
    Received {
        /// From.
        peer: PeerId,
        /// Blob.
        digest: Digest,
        /// Piece.
        piece: PieceIndex,
        /// How it came out.
        outcome: PieceOutcome,
    },
    /// The upload that `Action::Upload` started has ended, well or not: its slot is free.
    Uploaded {
        /// To.
        peer: PeerId,
        /// Blob.
        digest: Digest,
        /// Piece.
        piece: PieceIndex,
    },
}

/// What a node is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    /// Dial; answered by `Connected` or `ConnectFailed`.
    Connect {
        /// Who.
        peer: PeerId,
    },
    /// Close the connection. No `Disconnected` is expected for it (one may come).
    Disconnect {
        /// Who.
        peer: PeerId,
        /// Why.
        reason: DisconnectReason,
    },
    /// Say this.
    Send {
        /// To.
        peer: PeerId,
        /// What.
        message: Message,
    },
    /// Send the bytes of this piece; answered by `Uploaded`.
    Upload {
        /// To.
        peer: PeerId,
        /// Blob.
        digest: Digest,
        /// Piece.
        piece: PieceIndex,
        /// How urgent the peer said it is. In no record's checksum: it is the request's, and records from before it was
        /// told stay good.
        #[serde(skip)]
        priority: Priority,
    },
    /// A peer asks for a blob whose swarm is not open: answer with `Seed` or `NotHeld`.
    Load {
        /// Blob.
        digest: Digest,
    },
    /// The fetch needs more peers: ask the tracker.
    FindPeers {
        /// Blob.
        digest: Digest,
    },
    /// All pieces are in. (The swarm stays open as a seed.)
    Complete {
        /// Blob.
        digest: Digest,
    },
    /// Nobody is left to ask, `FindPeers` brought nobody new, and nothing came for `stall_timeout`; or the store failed
    /// several times in a row. The fetch is given up and its swarm closed.
    GiveUp {
        /// Blob.
        digest: Digest,
    },
    /// That peer sent a corrupt piece: it is banned for `ban_duration`. (A `Disconnect` follows if it is connected.)
    Banned {
        /// Who.
        peer: PeerId,
        /// Blob.
        digest: Digest,
        /// Piece.
        piece: PieceIndex,
    },
    /// An idle seed was closed: whatever was held open for it may be let go.
    Closed {
        /// Blob.
        digest: Digest,
    },
}

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DisconnectReason {
    /// Nothing in common any more.
    Idle,
    /// It broke the protocol.
    Protocol,
    /// It sent corrupt data.
    Corrupt,
    /// It takes a place that another needs.
    Replaced,
}

/// An event that cannot be right in this state; the engine is unchanged.
///
/// Only what the driver itself says can be such an error: a piece that was never asked for, a peer that is not
/// connected, a swarm that is not open, a bitfield of the wrong length. What a *peer* says wrongly is no error but
/// `Action::Disconnect` with [`DisconnectReason::Protocol`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EventError(pub &'static str);

//! The exchange engine: who is asked for which piece, and who is sent one. One engine a node owns all its swarms.
//!
//! Pure: events go in, actions come out, time and the seed of all randomness are arguments, and the same events give
//! the same actions on every machine. So it runs in the daemon and, unchanged, in the simulator. It moves no bytes,
//! checks no hashes and opens no connections; whoever drives it does.
#![doc = include_str!("states.md")]

mod bans;
mod budget;
mod config;
mod engine;
mod event;
mod fetch;
mod finder;
mod peer;
mod picker;
mod readers;
pub mod record;
mod swarm;
mod timers;
mod uploads;
mod view;
mod wanted;

#[cfg(test)]
mod tests;

pub use config::Config;
pub use engine::Engine;
pub use event::{
    Action, Candidate, DisconnectReason, Event, EventError, Message, Moment, PieceOutcome, Priority, Scope,
};
pub use view::{MemberView, PeerStanding};

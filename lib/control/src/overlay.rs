//! The overlay: how nodes find blobs and each other when no tracker answers.
//!
//! A libp2p host beside the other ports. Every connection is behind the cluster's pre-shared key (`key`) and then is
//! the cluster's mutual TLS (`gate`), so nobody without a certificate gets to say a word of the protocols above. Those
//! are: Kademlia for who holds what, requests to a holder for its peer port and its signed metainfo, gossip of where
//! nodes and trackers are, mDNS on request. What arrives is bounded before it is kept and proved before it is used.
//! No piece of a blob goes this way. No type of libp2p leaves this module.

mod addresses;
mod answer;
mod behaviour;
mod book;
mod config;
mod find;
mod gate;
mod gossip;
mod handle;
mod holdings;
mod host;
mod join;
mod key;
mod metrics;
mod notice;
mod queries;
mod question;
mod records;
mod transport;

pub use addresses::{Network, NetworkError};
pub use answer::{Holder, Library, Looked};
pub use config::Config;
pub use find::{FoundByOverlay, MAX_LENT};
pub use handle::{Member, Overlay, OverlayHandle};
pub use host::StartError;
pub use join::JoinError;
pub use key::KeyError;

#[cfg(fuzzing)]
pub mod fuzzing;
#[cfg(test)]
mod tests;

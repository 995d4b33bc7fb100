//! Registries that serve the same content as several nodes: a client may send each part of an upload to another of them.
//!
//! A session lies at the node where it began. Its id says which that is, so nobody has to be asked; any other node hands
//! requests about it over, with the name of who sent them, once it has allowed them.

use async_trait::async_trait;
use axum::extract::Request;
use axum::response::Response;

/// Knows the other nodes, and hands requests to them.
#[async_trait]
pub trait Elsewhere: Send + Sync + 'static {
    /// What the ids of sessions that begin at this node end with.
    fn mark(&self) -> u32;

    /// Whether sessions with that mark are at another node.
    fn knows(&self, mark: u32) -> bool;

    /// Has that node answer, at its [`crate::Registry::router_of_nodes`], with [`Vouched`] for who sent it.
    async fn hand_over(&self, mark: u32, request: Request, caller: Vouched) -> Result<Response, Unreachable>;
}

/// Who sent a request that another node has let in: an extension of the request. Nothing: nobody that it knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vouched(pub Option<String>);

/// The node where the session is does not answer.
#[derive(Debug, thiserror::Error)]
#[error("the node that has this upload cannot be reached: {0}")]
pub struct Unreachable(pub String);

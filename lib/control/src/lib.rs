//! Finding peers: what nodes say to trackers and origins, the clients that say it, and the task that announces.
//!
//! The wire is JSON over HTTP/2 (or 1.1) over mutual TLS; the types are in [`message`], used by both ends:
//! `POST /v1/find`, `POST /v1/announce`, `POST /v1/leave`, `POST /v1/unreachable`,
//! `POST /v1/renew`, `GET /v1/revocations`, `POST` and `GET /v1/prefetch` at a tracker, and at its
//! enrolment port, without a certificate, `POST /v1/enrol`; `GET /v1/metainfo` (answered by
//! `application/octet-stream`), `GET /v1/tag`, `GET /v1/tags` at an origin; what origins say to each other is in [`cluster`]. Whatever fails is answered by its
//! status (404: the cluster does not have it; 503: cannot say now) and an [`ErrorReply`]. Nothing that arrives here is
//! believed for its own sake: replies are capped while they are read, and metainfo is for the caller to verify.

mod announcer;
mod changes;
pub mod cluster;
pub mod enrol;
mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod message;
mod origin;
pub mod overlay;
pub mod prefetch;
mod rendezvous;
mod reporter;
mod server_url;
mod servers;
mod tracker;
mod upkeep;
mod whereabouts;

pub use announcer::{Announcer, AnnouncerHandle, Orders};
pub use cluster::ClusterClient;
pub use error::{ControlError, Failure, Nonsense};
pub use message::{Announced, ErrorReply, Holding, Seen, Sharing};
pub use origin::OriginClient;
pub use rendezvous::MAX_TRACKERS;
pub use reporter::Reporter;
pub use server_url::ServerUrl;
pub use servers::{CONNECT_TIMEOUT, REQUEST_TIMEOUT};
pub use tracker::{Found, TrackerClient};
pub use upkeep::{Issuer, Upkeep};
pub use whereabouts::{Advertise, PlaceError, Whereabouts};

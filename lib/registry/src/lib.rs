//! The registry: its own storage layer, and the OCI distribution API (v1.1) over any [`shoal_driver::StorageDriver`].
//!
//! A request goes straight down: `http` reads it, `storage` decides what it means for a repository, and the driver
//! moves the bytes. A repository sees a blob only through its own link. Bodies stream both ways, in bounded parts.
//! Who may do what is decided by `auth`, once a request, before anything is looked up. Maintenance removes what nobody
//! can reach. Not here: pull-through, and how a driver gets its bytes.

pub mod auth;
mod config;
pub mod elsewhere;
pub mod event;
mod http;
pub mod maintenance;
mod manifest;
mod metrics;
mod observer;
mod storage;
mod tag_rules;

use std::sync::Arc;

use shoal_driver::StorageDriver;

use auth::Guard;
pub use config::Config;
pub use maintenance::{Maintenance, MaintenanceConfig};
pub use metrics::PullMetrics;
pub use observer::Observer;
pub use tag_rules::{Pattern, TagRule};

/// The registry; [`Registry::router`] is its HTTP API. Clones share one registry.
#[derive(Clone)]
pub struct Registry {
    api: Arc<http::Api>,
    guard: Arc<Guard>,
}

impl Registry {
    /// A registry of what `driver` holds, open to everybody. `observer` is told what clients do.
    pub fn new(config: Config, driver: Arc<dyn StorageDriver>, observer: Arc<dyn Observer>) -> Self {
        Self { api: Arc::new(http::Api::new(config, driver, observer)), guard: Arc::new(Guard::open()) }
    }

    /// The same registry, open only to whom `guard` lets in.
    #[must_use]
    pub fn guarded(self, guard: Guard) -> Self {
        Self { guard: Arc::new(guard), ..self }
    }

    /// The same registry, which tells `watcher` what clients do to its content.
    ///
    /// # Panics
    ///
    /// If it serves already.
    #[must_use]
    pub fn watched(mut self, watcher: Arc<dyn event::Watcher>) -> Self {
        Arc::get_mut(&mut self.api).expect("nobody else has it yet").watch(watcher);
        self
    }

    /// The same registry as one of several nodes with the same content.
    ///
    /// # Panics
    ///
    /// If it serves already.
    #[must_use]
    pub fn among(mut self, others: Arc<dyn elsewhere::Elsewhere>) -> Self {
        Arc::get_mut(&mut self.api).expect("nobody else has it yet").share(others);
        self
    }

    /// The HTTP API for requests that another node has let in, and vouches for ([`elsewhere::Vouched`]). Never for clients.
    pub fn router_of_nodes(&self) -> axum::Router {
        http::router(Arc::clone(&self.api), Arc::new(Guard::of_nodes()))
    }

    /// The HTTP API: every path below `/v2/`, and an error of the specification for every other.
    pub fn router(&self) -> axum::Router {
        http::router(Arc::clone(&self.api), Arc::clone(&self.guard))
    }

    /// The same API for clients that cannot say which upstream they mean, as docker with `registry-mirrors`: it is that of
    /// `namespace`, which must be one of [`Config::namespaces`].
    pub fn router_of(&self, namespace: String) -> axum::Router {
        http::router_of(Arc::clone(&self.api), Arc::clone(&self.guard), namespace)
    }

    /// Garbage collection, upload purge and scrub of this registry.
    #[must_use]
    pub fn maintenance(&self) -> Maintenance {
        Maintenance::new(self.api.storage().clone())
    }

    /// Whether it takes no writes.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.api.storage().is_read_only()
    }

    /// Takes no writes from now on, or takes them again, until it is told otherwise or starts anew. Pulls go on, and so do writes
    /// that are under way; nothing is collected meanwhile.
    pub fn set_read_only(&self, read_only: bool) {
        self.api.storage().set_read_only(read_only);
    }

    /// Waits until the writes under way are done: a client that went away does not stop its write halfway.
    /// For a shutdown, after the listener took its last request.
    pub async fn drain(&self) {
        self.api.drain().await;
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

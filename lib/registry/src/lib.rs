//! The registry: its own storage layer, and the OCI distribution API (v1.1) over any [`shoal_driver::StorageDriver`].
//!
//! A request goes straight down: `http` reads it, `storage` decides what it means for a repository, and the driver
//! moves the bytes. A repository sees a blob only through its own link. Bodies stream both ways, in bounded parts.
//! Not here: authentication, garbage collection, pull-through, and how a driver gets its bytes.

mod config;
mod http;
mod manifest;
mod metrics;
mod observer;
mod storage;

use std::sync::Arc;

use shoal_driver::StorageDriver;

pub use config::Config;
pub use metrics::PullMetrics;
pub use observer::Observer;

/// The registry; [`Registry::router`] is its HTTP API. Clones share one registry.
#[derive(Clone)]
pub struct Registry(Arc<http::Api>);

impl Registry {
    /// A registry of what `driver` holds. `observer` is told what clients do.
    pub fn new(config: Config, driver: Arc<dyn StorageDriver>, observer: Arc<dyn Observer>) -> Self {
        Self(Arc::new(http::Api::new(config, driver, observer)))
    }

    /// The HTTP API: every path below `/v2/`, and an error of the specification for every other.
    pub fn router(&self) -> axum::Router {
        http::router(Arc::clone(&self.0))
    }

    /// Waits until the writes under way are done: a client that went away does not stop its write halfway.
    /// For a shutdown, after the listener took its last request.
    pub async fn drain(&self) {
        self.0.drain().await;
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

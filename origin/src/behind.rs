//! Puts together what an origin has behind it: the backends, what is written to them, and what is given up for it here.

use std::sync::Arc;

use futures_util::FutureExt as _;
use shoal_driver::Transferer;
use shoal_store::Store;

use crate::backend::{BackendConfig, BackendConfigError, Backends};
use crate::cluster::Cluster;
use crate::eviction::{Eviction, EvictionConfig};
use crate::queue::{Journal, JournalError, QueueMetrics, Shown};
use crate::records::Records;
use crate::refill::Named;
use crate::write_back::{Peers, RestoredTransferer, WriteBack, WriteBackConfig};

/// See the module. Without a backend it is empty.
#[derive(Debug)]
pub(crate) struct Behind(Option<Parts>);

#[derive(Debug)]
struct Parts {
    backends: Backends,
    write_back: WriteBack,
    eviction: Option<Eviction>,
}

/// Why what stands behind an origin cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BehindError {
    /// A backend.
    #[error(transparent)]
    Backend(#[from] BackendConfigError),
    /// The queue of what is to be written.
    #[error(transparent)]
    Queue(#[from] JournalError),
    /// What was given up would be lost.
    #[error(
        "[eviction] needs a [[backend]], from which what was given up can be had again: add one, or take it out"
    )]
    NothingBehind,
    /// It would never end.
    #[error("eviction.low_watermark is above eviction.high_watermark: make it the lower one")]
    Watermarks,
    /// Two metrics of one name.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl Behind {
    pub(crate) fn open(
        (backends, write_back, eviction): (&[BackendConfig], WriteBackConfig, Option<EvictionConfig>),
        (records, store): (Arc<Records>, Store),
        queues: (&Journal, &QueueMetrics),
        metrics: &prometheus::Registry,
    ) -> Result<Self, BehindError> {
        let backends = Backends::open(backends, write_back.timeout, metrics)?;
        if backends.is_empty() {
            return if eviction.is_some() { Err(BehindError::NothingBehind) } else { Ok(Self(None)) };
        }
        let write_back = WriteBack::open(write_back, backends.clone(), (records, store.clone()), queues)?;
        let eviction = match eviction {
            Some(config) if config.low_watermark > config.high_watermark => {
                return Err(BehindError::Watermarks);
            }
            Some(config) => Some(Eviction::new(config, store, backends.clone(), metrics)?),
            None => None,
        };
        Ok(Self(Some(Parts { backends, write_back, eviction })))
    }

    /// The backends, as where blobs come from.
    pub(crate) fn sources(&self) -> impl Iterator<Item = Named> {
        self.0.iter().flat_map(|parts| parts.backends.sources())
    }

    /// Begins to write to the backends, and to look there for what `origins` do not know.
    pub(crate) fn start(
        &self,
        origins: Arc<dyn Transferer>,
        cluster: Option<&Arc<Cluster>>,
    ) -> Arc<dyn Transferer> {
        let Some(Parts { write_back, eviction, .. }) = &self.0 else { return origins };
        let others = cluster.map(Arc::downgrade);
        let rank = move |digest: &_| {
            let cluster = others.as_ref().and_then(std::sync::Weak::upgrade);
            cluster.map_or(0, |cluster| cluster.rank(digest))
        };
        let alone = cluster.is_none();
        write_back.start(Peers { transferer: origins.clone(), rank: Box::new(rank), alone });
        if let Some(eviction) = eviction {
            eviction.start();
            if let Some(cluster) = cluster {
                let eviction = eviction.clone();
                cluster.skip_what_is_kept_behind(Box::new(move |digest, length| {
                    let eviction = eviction.clone();
                    async move { eviction.is_kept(digest, length).await }.boxed()
                }));
            }
        }
        Arc::new(RestoredTransferer { origins, write_back: write_back.clone() })
    }

    /// What is to be written.
    pub(crate) fn queue(&self) -> Option<Box<dyn Shown>> {
        self.0.as_ref().map(|parts| parts.write_back.queue())
    }

    /// Ends all of it; what is not written stays in the queue.
    pub(crate) async fn shutdown(&self) {
        let Some(Parts { write_back, eviction, .. }) = &self.0 else { return };
        write_back.shutdown().await;
        if let Some(eviction) = eviction {
            eviction.shutdown().await;
        }
    }
}

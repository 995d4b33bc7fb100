//! Copies that others ask this origin to make: it fetches the blob from whoever has it, by the data plane, which proves every
//! piece and the whole. One fetch a blob, however often it is asked for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shoal_control::cluster::message::{CopyReason, CopyState};
use shoal_core::{Digest, PeerAddress, SignedMetainfo, causes};
use shoal_identity::Identity;
use shoal_store::{Entry, Partial, Store};
use shoal_transfer::{Fetch, FetchEvent, Transfer, Want};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The copies under way. Clones are one.
#[derive(Clone)]
pub(super) struct Copies(Arc<Inner>);

struct Inner {
    identity: Identity,
    store: Store,
    transfer: Transfer,
    active: Mutex<HashMap<Digest, Active>>,
    runtime: Handle,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// A copy on its way: who is to have it knows of these sources, and of the most urgent reason.
struct Active {
    wanted: watch::Sender<Wanted>,
    ended: watch::Receiver<()>,
}

#[derive(Clone)]
struct Wanted {
    want: Want,
    sources: Vec<PeerAddress>,
}

/// Why a copy is not made.
#[derive(Debug, thiserror::Error)]
pub(super) enum CopyError {
    /// Nobody of this cluster signed it.
    #[error("the metainfo does not verify: {0}")]
    Unproved(#[from] shoal_identity::IdentityError),
    /// Hashes are missing: nobody has the blob whole yet.
    #[error("the metainfo lacks hashes")]
    Incomplete,
    /// Too many are on their way.
    #[error("{} copies are on their way: try again", Copies::MAX_ACTIVE)]
    Busy,
    /// The disk, the store, or the node.
    #[error("{0}")]
    Failed(String),
}

impl Copies {
    /// How many copies may be on their way. Pushes of some dozens of clients, each with a few layers.
    const MAX_ACTIVE: usize = 512;
    /// How many sources of one copy are remembered.
    const MAX_SOURCES: usize = 8;
    /// After how long whoever asks is told how far it is.
    const PATIENCE: Duration = Duration::from_secs(2);

    pub(super) fn new(
        identity: Identity,
        store: Store,
        transfer: Transfer,
        stop: CancellationToken,
        tasks: TaskTracker,
    ) -> Self {
        let (active, runtime) = (Mutex::default(), Handle::current());
        Self(Arc::new(Inner { identity, store, transfer, active, runtime, stop, tasks }))
    }

    /// Makes a copy, or goes on with it, and says within [`Self::PATIENCE`] how far it is.
    pub(super) async fn copy(
        &self,
        metainfo: SignedMetainfo,
        source: PeerAddress,
        reason: CopyReason,
    ) -> Result<CopyState, CopyError> {
        let digest = *metainfo.metainfo.digest();
        // Whoever asks for a push relies on it: it is made young.
        let touched = match reason {
            CopyReason::Push => self.0.store.touch(&digest).await,
            CopyReason::Repair => Ok(self.0.store.blob(&digest).is_some()),
        };
        if touched.map_err(|error| CopyError::Failed(causes(&error)))? {
            return Ok(CopyState::Whole);
        }
        let mut ended = match self.join(&digest, &source, reason) {
            Some(ended) => ended,
            None => self.begin(metainfo, &source, reason)?,
        };
        // An error means that it has ended, which is what was waited for.
        let patience = tokio::time::timeout(Self::PATIENCE, ended.changed()).await;
        match self.0.store.entry(&digest) {
            Some(Entry::Whole(_)) => Ok(CopyState::Whole),
            Some(Entry::Partial(partial)) if patience.is_err() => {
                Ok(CopyState::Arriving { pieces: partial.bitfield().count() })
            }
            _ => Err(CopyError::Failed("the copy was given up".to_owned())),
        }
    }

    /// Takes part in a copy that is on its way.
    fn join(&self, digest: &Digest, source: &PeerAddress, reason: CopyReason) -> Option<watch::Receiver<()>> {
        let active = self.active();
        let Active { wanted, ended } = active.get(digest)?;
        wanted.send_modify(|wanted| {
            wanted.want = wanted.want.max(want_for(reason));
            if !wanted.sources.contains(source) && wanted.sources.len() < Self::MAX_SOURCES {
                wanted.sources.push(source.clone());
            }
        });
        Some(ended.clone())
    }

    fn begin(
        &self,
        metainfo: SignedMetainfo,
        source: &PeerAddress,
        reason: CopyReason,
    ) -> Result<watch::Receiver<()>, CopyError> {
        if !metainfo.metainfo.is_complete() {
            return Err(CopyError::Incomplete);
        }
        self.0.identity.verify(&metainfo)?;
        let (end, ended) = watch::channel(());
        let digest = *metainfo.metainfo.digest();
        let wanted = Wanted { want: want_for(reason), sources: vec![source.clone()] };
        {
            let mut active = self.active();
            if let Some(Active { ended, .. }) = active.get(&digest) {
                return Ok(ended.clone());
            }
            if active.len() >= Self::MAX_ACTIVE {
                return Err(CopyError::Busy);
            }
            let wanted = watch::Sender::new(wanted.clone());
            active.insert(digest, Active { wanted, ended: ended.clone() });
        }
        // A task, since the request that asks for it may go away.
        let copies = self.clone();
        self.0.tasks.spawn_on(
            async move {
                if let Err(error) = copies.fetch(&metainfo, wanted).await {
                    tracing::warn!(%digest, error, "cannot make a copy");
                }
                copies.active().remove(&digest);
                drop(end);
            },
            &self.0.runtime,
        );
        Ok(ended)
    }

    async fn fetch(&self, metainfo: &SignedMetainfo, wanted: Wanted) -> Result<(), String> {
        let entry = self.0.store.create(metainfo).await.map_err(|error| causes(&error))?;
        let Entry::Partial(partial) = entry else { return Ok(()) };
        let fetch = self.start(&partial, &wanted).await?;
        self.supervise(fetch, metainfo.metainfo.digest(), wanted.want).await
    }

    async fn start(&self, partial: &Partial, wanted: &Wanted) -> Result<Fetch, String> {
        let fetch = self.0.transfer.fetch_some(partial.clone(), wanted.sources.clone(), wanted.want).await;
        fetch.map_err(|error| causes(&error))
    }

    /// Answers the fetch's questions until it has ended.
    async fn supervise(&self, mut fetch: Fetch, digest: &Digest, mut told: Want) -> Result<(), String> {
        let changes = self.active().get(digest).map(|active| active.wanted.subscribe());
        let mut changes = changes.expect("it is there until this ends");
        loop {
            let Wanted { want, sources } = changes.borrow_and_update().clone();
            if want > told {
                fetch.raise(want).await;
                told = want;
            }
            tokio::select! {
                biased;
                () = self.0.stop.cancelled() => return Err("the origin stops".to_owned()),
                event = fetch.next() => match event {
                    Some(FetchEvent::FindPeers) => fetch.add_peers(sources).await,
                    Some(FetchEvent::Complete(_)) => return Ok(()),
                    Some(FetchEvent::Failed(error)) => return Err(causes(&error)),
                    None => return Err("the node has stopped".to_owned()),
                },
                Ok(()) = changes.changed() => {}
            }
        }
    }

    fn active(&self) -> MutexGuard<'_, HashMap<Digest, Active>> {
        self.0.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn want_for(reason: CopyReason) -> Want {
    match reason {
        CopyReason::Push => Want::Whole,
        CopyReason::Repair => Want::Repair,
    }
}

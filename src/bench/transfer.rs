//! From agent to agent: the data plane with the stores at both ends.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use prometheus::Registry;
use shoal_core::{SignedMetainfo, Zone};
use shoal_store::{Entry, Store, Verify};
use shoal_transfer::{Config, FetchEvent, Transfer, TransportChoice};

use super::store::open_cache;
use super::stream::load;
use super::task::{Fetch, Transport};
use super::usage::{Meter, Usage};

/// Serves what the store has until it is dropped.
pub(super) async fn seed(
    transport: Transport,
    identity: &Path,
    store: PathBuf,
    listening: impl FnOnce(SocketAddr) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let (store, _evictions) = open_cache(store, Verify::Full).await?;
    let transfer = bind(transport, identity, &store).await?;
    listening(transfer.local_address())?;
    std::future::pending().await
}

/// Fetches a blob, from the start of the fetch until it is committed.
pub(super) async fn fetch(task: Fetch) -> anyhow::Result<Usage> {
    let (store, _evictions) = open_cache(task.store, task.verify).await?;
    let transfer = bind(task.transport, &task.identity, &store).await?;
    let signed = SignedMetainfo::decode(std::fs::read(&task.metainfo)?.into())?;
    let meter = Meter::start();
    let Entry::Partial(partial) = store.create(&signed).await? else { bail!("the store is not new") };
    let mut fetch = transfer.fetch(partial, vec![task.peer]).await?;
    loop {
        match fetch.next().await.context("the fetch ended without a word")? {
            FetchEvent::FindPeers => fetch.add_peers(Vec::new()).await,
            FetchEvent::Complete(_) => return Ok(meter.stop()),
            FetchEvent::Failed(error) => return Err(error.into()),
        }
    }
}

async fn bind(transport: Transport, identity: &Path, store: &Store) -> anyhow::Result<Transfer> {
    let (config, identity) = (config(transport), load(identity)?);
    Ok(Transfer::bind(config, identity, Zone::default(), store.clone(), &Registry::new()).await?)
}

fn config(transport: Transport) -> Config {
    let transport = match transport {
        Transport::Tcp => TransportChoice::Tcp,
        Transport::Quic => TransportChoice::Quic,
    };
    Config { listen: (Ipv4Addr::LOCALHOST, 0).into(), transport, ..Config::default() }
}

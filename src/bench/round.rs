//! What is prepared once, and one run of each figure with it.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use shoal_core::{PeerAddress, PeerId, Role, Zone};
use shoal_identity::Authority;
use shoal_store::{Config, Store, Verify};

use super::Options;
use super::content::Content;
use super::figure::Figure;
use super::process::{Server, work};
use super::registry::{self, Hit};
use super::sample::Sample;
use super::task::{Fetch, Hash, Protocol, Serve, Transport, Work};

/// Files and identities that all rounds use.
#[derive(Debug)]
pub(super) struct Bench {
    folder: PathBuf,
    size: u64,
    verify: Verify,
    sender: PeerId,
    hit: Option<Hit>,
}

/// How many bytes of disk these figures need at most.
pub(super) fn space(figures: &[Figure], size: u64, blob_size: u64) -> u64 {
    let count = |needs: fn(Figure) -> bool| u64::from(figures.iter().any(|&figure| needs(figure)));
    let (read, written) = (count(Figure::needs_blob), count(Figure::writes_blob));
    let registry = count(|figure| figure == Figure::Registry);
    (read + written) * size + registry * (2 * blob_size + AGENT_RESERVE) + SMALL_FILES
}

impl Bench {
    /// Writes what these figures read.
    pub(super) async fn prepare(
        folder: &Path,
        figures: &[Figure],
        options: &Options,
    ) -> anyhow::Result<Self> {
        let mut bench = Self {
            folder: folder.to_owned(),
            size: options.size,
            verify: options.verify,
            sender: prepare_identities(folder)?,
            hit: None,
        };
        if figures.iter().any(|figure| figure.needs_blob()) {
            bench.prepare_blob().await.context("cannot prepare the blob")?;
        }
        if figures.contains(&Figure::Registry) {
            let hit = registry::prepare(&bench.path(CLUSTER), options.blob_size).await;
            bench.hit = Some(hit.context("cannot prepare the registry")?);
        }
        Ok(bench)
    }

    /// One run.
    pub(super) async fn measure(&self, figure: Figure) -> anyhow::Result<Sample> {
        match figure {
            Figure::Sha256 => self.hash(Hash::Sha256).await,
            Figure::Sha512 => self.hash(Hash::Sha512).await,
            Figure::Blake3 => self.hash(Hash::Blake3).await,
            Figure::FileWrite => self.file_write().await,
            Figure::FileRead => self.alone(Work::FileRead { file: self.path(BLOB), bytes: self.size }).await,
            Figure::StoreWrite => self.store_write().await,
            Figure::StoreRead => {
                self.alone(Work::StoreRead { store: self.path(STORE), bytes: self.size }).await
            }
            Figure::StorePieces => {
                self.alone(Work::StorePieces { store: self.path(STORE), bytes: self.size }).await
            }
            Figure::Tcp => self.stream(Protocol::Tcp).await,
            Figure::Tls => self.stream(Protocol::Tls).await,
            Figure::Quic => self.stream(Protocol::Quic).await,
            Figure::TransferTcp => self.transfer(Transport::Tcp).await,
            Figure::TransferQuic => self.transfer(Transport::Quic).await,
            Figure::Registry => self.registry().await,
        }
    }

    /// The blob as a file, and the same file in a store: it is on disk, and in the page cache, only once.
    async fn prepare_blob(&self) -> anyhow::Result<()> {
        let (size, file, moved) = (self.size, self.path(BLOB), self.path("blob-to-import"));
        let linked = moved.clone();
        let metainfo = tokio::task::spawn_blocking(move || {
            let content = Content::new(size)?;
            content.write(&file)?;
            std::fs::hard_link(&file, &linked)?;
            content.metainfo()
        });
        let digest = *metainfo.await??.digest();
        let store = Store::open(Config { directory: self.path(STORE) }).await?;
        let origin = super::stream::load(&self.path(ORIGIN))?;
        let blob = store.import(&moved, &digest, move |metainfo| origin.sign(metainfo)).await?;
        std::fs::write(self.path(METAINFO), blob.signed().encode())?;
        store.close().await;
        Ok(())
    }

    async fn alone(&self, task: Work) -> anyhow::Result<Sample> {
        Ok(Sample::new(self.size, None, work(task).await?))
    }

    async fn hash(&self, hash: Hash) -> anyhow::Result<Sample> {
        let bytes = self.size.min(HASHED);
        Ok(Sample::new(bytes, None, work(Work::Hash { hash, bytes }).await?))
    }

    async fn file_write(&self) -> anyhow::Result<Sample> {
        self.alone(Work::FileWrite { file: self.make_way()?, bytes: self.size }).await
    }

    async fn store_write(&self) -> anyhow::Result<Sample> {
        let (metainfo, verify, bytes) = (self.path(METAINFO), self.verify, self.size);
        self.alone(Work::StoreWrite { store: self.make_way()?, verify, metainfo, bytes }).await
    }

    /// Where the next file or store may be written. What the last run wrote is removed only now, so that its memory is
    /// free and at hand: where the host of a virtual machine takes free memory back, the first use of a page costs a
    /// multiple of what is measured.
    fn make_way(&self) -> anyhow::Result<PathBuf> {
        let folder = self.path(WRITTEN);
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::create_dir(&folder)?;
        Ok(folder.join("new"))
    }

    async fn stream(&self, over: Protocol) -> anyhow::Result<Sample> {
        let bytes = self.size;
        let server = Server::start(Serve::Stream { over, identity: self.path(SENDER), bytes }).await?;
        let (identity, address) = (self.path(RECEIVER), server.address);
        let received = work(Work::Stream { over, identity, address, bytes }).await?;
        Ok(Sample::new(bytes, Some(server.stop().await?), received))
    }

    async fn transfer(&self, transport: Transport) -> anyhow::Result<Sample> {
        let (identity, store) = (self.path(SENDER), self.path(STORE));
        let server = Server::start(Serve::Seed { transport, identity, store }).await?;
        let task = Fetch {
            transport,
            identity: self.path(RECEIVER),
            store: self.make_way()?,
            verify: self.verify,
            metainfo: self.path(METAINFO),
            peer: PeerAddress {
                id: self.sender,
                role: Role::Agent,
                addresses: vec![server.address],
                zone: Zone::default(),
            },
        };
        let fetched = work(Work::Fetch(task)).await?;
        Ok(Sample::new(self.size, Some(server.stop().await?), fetched))
    }

    async fn registry(&self) -> anyhow::Result<Sample> {
        let Hit { path, bytes } = self.hit.clone().context("no registry was prepared")?;
        let server = Server::start(Serve::Registry { directory: self.path(CLUSTER) }).await?;
        let got = work(Work::Get { address: server.address, path, bytes }).await?;
        Ok(Sample::new(bytes, Some(server.stop().await?), got))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// One authority, and of it an origin and two agents. Who the sender is.
fn prepare_identities(folder: &Path) -> anyhow::Result<PeerId> {
    let authority = Authority::generate("shoal-bench")?;
    authority.issue(Role::Origin, ORIGIN)?.save(&folder.join(ORIGIN))?;
    authority.issue(Role::Agent, RECEIVER)?.save(&folder.join(RECEIVER))?;
    let sender = authority.issue(Role::Agent, SENDER)?;
    sender.save(&folder.join(SENDER))?;
    Ok(sender.id())
}

const ORIGIN: &str = "origin";
const SENDER: &str = "sender";
const RECEIVER: &str = "receiver";
const BLOB: &str = "blob";
const STORE: &str = "store";
const METAINFO: &str = "metainfo";
const WRITTEN: &str = "written";
const CLUSTER: &str = "cluster";

/// Enough for a rate that does not depend on it: a hash does the same again and again.
const HASHED: u64 = 512 << 20;
/// What the agent of a cluster leaves free (`cluster`).
const AGENT_RESERVE: u64 = 256 << 20;
/// Identities, metainfo, and what a file system needs for itself.
const SMALL_FILES: u64 = 32 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_measured_needs_room() {
        let needed = |figures: &[Figure]| space(figures, 1 << 30, 1 << 20) - SMALL_FILES;
        assert_eq!(needed(&[Figure::Tcp, Figure::Sha256]), 0);
        assert_eq!(needed(&[Figure::FileWrite]), 1 << 30);
        assert_eq!(needed(&[Figure::TransferQuic]), 2 << 30);
        assert_eq!(needed(&[Figure::Registry]), (2 << 20) + AGENT_RESERVE);
    }
}

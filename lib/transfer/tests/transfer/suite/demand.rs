//! Fetches of what is read.

use shoal_core::{Metainfo, Role};
use shoal_store::Partial;
use shoal_transfer::{Fetch, Want};

use super::node::{Node, authority, config, content, finish, read, until};

const MIB: u64 = 1 << 20;

struct Rig {
    agent: Node,
    origin: Node,
    content: bytes::Bytes,
    partial: Partial,
    fetch: Fetch,
}

impl Rig {
    /// An agent that fetches what is read of a blob of that many pieces, and an origin that has it.
    async fn new(pieces: u64, want: Want) -> Self {
        let authority = authority();
        let mut config = config();
        config.swarm.read_ahead = 4 * MIB;
        let origin = Node::start(&authority, Role::Origin).await;
        let agent = Node::start_with(&authority, Role::Agent, config).await;
        let content = content(usize::try_from(pieces * MIB).unwrap(), pieces);
        let metainfo = origin.hold(&content).await;
        let partial = agent.partial(&metainfo).await;
        let fetch = agent.transfer.fetch_some(partial.clone(), vec![origin.address()], want).await.unwrap();
        Self { agent, origin, content, partial, fetch }
    }

    async fn read(&self, start: u64, end: u64) {
        let mut reader = self.partial.reader(start..end);
        let mut bytes = Vec::new();
        while let Some(chunk) = reader.next().await {
            bytes.extend_from_slice(&chunk.unwrap());
        }
        let at = |byte: u64| usize::try_from(byte).unwrap();
        assert!(bytes == self.content[at(start)..at(end)], "other bytes from {start} to {end}");
    }

    fn received(&self) -> u64 {
        self.agent.transfer.stats().bytes_from_origins
    }

    fn metainfo(&self) -> &Metainfo {
        self.partial.metainfo()
    }
}

#[tokio::test]
async fn a_small_range_moves_its_piece_and_nothing_else() {
    let rig = Rig::new(64, Want::Read).await;
    assert_eq!(rig.metainfo().geometry().piece_count(), 64);
    rig.read(40 * MIB + 7, 40 * MIB + 1031).await;
    assert_eq!(rig.received(), MIB);
    // A second one waits for nothing but its own.
    rig.read(10 * MIB - 512, 10 * MIB + 512).await;
    assert_eq!(rig.received(), 3 * MIB);
    // The sender counts what it knows to have arrived.
    until(|| rig.origin.transfer.stats().bytes_sent == 3 * MIB).await;
}

#[tokio::test]
async fn readers_that_go_away_cost_what_was_read_ahead() {
    let rig = Rig::new(64, Want::Read).await;
    let mut readers: Vec<_> = [0, 20, 40].map(|start| rig.partial.reader(start * MIB..u64::MAX)).into();
    for reader in &mut readers {
        reader.next().await.unwrap().unwrap();
    }
    drop(readers);
    // Later than what was asked for by then, as pieces come in no order, and one connection.
    rig.read(60 * MIB, 64 * MIB).await;
    assert!((7 * MIB..=16 * MIB).contains(&rig.received()), "{} pieces", rig.received() / MIB);
}

#[tokio::test]
async fn ranges_that_leave_nothing_out_bring_the_whole_blob() {
    let rig = Rig::new(32, Want::Read).await;
    futures_util::future::join_all((0..4).map(|part| rig.read(part * 8 * MIB, (part + 1) * 8 * MIB))).await;
    let blob = finish(rig.fetch).await.unwrap();
    assert!(read(&blob).await == rig.content);
    assert_eq!(rig.agent.transfer.stats().bytes_from_origins, 32 * MIB);
}

#[tokio::test]
async fn a_fetch_that_is_raised_brings_the_rest() {
    let rig = Rig::new(32, Want::Read).await;
    rig.read(8 * MIB, 9 * MIB).await;
    assert_eq!(rig.received(), MIB);
    rig.fetch.raise(Want::Read).await;
    rig.fetch.raise(Want::Whole).await;
    let blob = finish(rig.fetch).await.unwrap();
    assert!(read(&blob).await == rig.content);
    assert_eq!(rig.agent.transfer.stats().bytes_from_origins, 32 * MIB);
}

#[tokio::test]
async fn a_prefetch_brings_what_nobody_reads() {
    let rig = Rig::new(16, Want::Prefetch).await;
    rig.read(8 * MIB, 9 * MIB).await;
    until(|| rig.received() == 16 * MIB).await;
    finish(rig.fetch).await.unwrap();
}

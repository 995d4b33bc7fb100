//! The suite over TLS on TCP, and what can only be done wrong where pieces and messages share a stream.

use bytes::{Bytes, BytesMut};
use shoal_core::{Digest, PieceIndex, Role};
use shoal_swarm::Message;
use shoal_transfer::TransportChoice;
use shoal_transfer::wire::{Frame, MAX_CHUNK_LENGTH, PieceHeader};

#[path = "suite/mod.rs"]
mod suite;

pub(crate) const TRANSPORT: TransportChoice = TransportChoice::Tcp;

use suite::hostile::{PROTOCOL, Town};
use suite::node::{Node, authority, content, finish, read};
use suite::puppet::Puppet;

const MIB: usize = 1 << 20;

#[tokio::test]
async fn bytes_that_belong_to_no_piece_close_that_connection_only() {
    let town = Town::found().await;
    let mut too_long = BytesMut::new();
    Frame::Chunk(MAX_CHUNK_LENGTH as u32 + 1).encode(&mut too_long);
    for bytes in [&[0x11, 0, 0, 0, 1, 7][..], &[0x11, 0, 0, 0, 0], &[0x12, 0, 0, 0, 0], &too_long] {
        let mut strings = town.visit().await;
        strings.say_bytes(bytes).await;
        assert_eq!(strings.closed().await, PROTOCOL, "after {bytes:?}");
    }
    town.stays_well().await;
}

#[tokio::test]
async fn a_piece_that_is_dropped_half_way_is_had_from_another_peer() {
    let authority = authority();
    let (origin, agent) =
        (Node::start(&authority, Role::Origin).await, Node::start(&authority, Role::Agent).await);
    let content = content(2 * MIB, 41);
    let metainfo = origin.hold(&content).await;
    let digest = *metainfo.metainfo.digest();
    let puppet = Puppet::new(&authority, Role::Agent);
    let fetch = agent.fetch(&metainfo, [puppet.address()]).await;
    let mut strings = puppet.accept().await;
    let piece = strings.pose_as_seed(&metainfo).await.unwrap();
    let mut half = BytesMut::new();
    Frame::Piece(PieceHeader { digest, piece, length: MIB as u32 }).encode(&mut half);
    Frame::Chunk(1000).encode(&mut half);
    half.extend_from_slice(&[0; 1000]);
    // What is said between two chunks is heard before the piece has come to its end.
    Frame::Message(Message::Absent { digest: Digest::sha256(b"another") }).encode(&mut half);
    Frame::Dropped.encode(&mut half);
    strings.say_bytes(&half).await;
    fetch.add_peers(vec![origin.address()]).await;
    assert!(read(&finish(fetch).await.unwrap()).await == content);
    assert!(strings.is_open().await);
}

#[tokio::test]
async fn a_piece_that_was_begun_twice_closes_that_connection_and_the_blob_completes() {
    let authority = authority();
    let (origin, agent) =
        (Node::start(&authority, Role::Origin).await, Node::start(&authority, Role::Agent).await);
    let content = content(2 * MIB, 42);
    let metainfo = origin.hold(&content).await;
    let puppet = Puppet::new(&authority, Role::Agent);
    let fetch = agent.fetch(&metainfo, [puppet.address()]).await;
    let mut strings = puppet.accept().await;
    let piece = strings.pose_as_seed(&metainfo).await.unwrap();
    for _ in 0..2 {
        let header = PieceHeader { digest: *metainfo.metainfo.digest(), piece, length: MIB as u32 };
        strings.say(Frame::Piece(header)).await;
    }
    assert_eq!(strings.closed().await, PROTOCOL);
    fetch.add_peers(vec![origin.address()]).await;
    assert!(read(&finish(fetch).await.unwrap()).await == content);
}

/// More than one chunk after the other of pieces that nobody waits for any more is left out, to the byte.
#[tokio::test]
async fn what_comes_of_a_fetch_that_was_given_up_is_left_out() {
    let authority = authority();
    let (origin, agent) =
        (Node::start(&authority, Role::Origin).await, Node::start(&authority, Role::Agent).await);
    let content = content(MIB, 43);
    let metainfo = origin.hold(&content).await;
    let digest = *metainfo.metainfo.digest();
    let puppet = Puppet::new(&authority, Role::Agent);
    let fetch = agent.fetch(&metainfo, [puppet.address()]).await;
    let mut strings = puppet.accept().await;
    let piece = strings.pose_as_seed(&metainfo).await.unwrap();
    assert_eq!(piece, PieceIndex(0));
    let mut begun = BytesMut::new();
    Frame::Piece(PieceHeader { digest, piece, length: MIB as u32 }).encode(&mut begun);
    Frame::Chunk(MAX_CHUNK_LENGTH as u32).encode(&mut begun);
    begun.extend_from_slice(&content[..MAX_CHUNK_LENGTH]);
    strings.say_bytes(&begun).await;
    drop(fetch);
    while !matches!(strings.hear().await.unwrap(), Frame::Message(Message::Absent { .. })) {}
    let mut rest = Bytes::copy_from_slice(&content[MAX_CHUNK_LENGTH..]);
    while !rest.is_empty() {
        let mut bytes = BytesMut::new();
        let chunk = rest.split_to(rest.len().min(MAX_CHUNK_LENGTH));
        Frame::Chunk(chunk.len() as u32).encode(&mut bytes);
        bytes.extend_from_slice(&chunk);
        strings.say_bytes(&bytes).await;
    }
    assert!(read(&agent.pull(&metainfo, [origin.address()]).await.unwrap()).await == content);
    assert_eq!(agent.transfer.stats().bytes_from_peers, 0);
    assert!(strings.is_open().await);
}

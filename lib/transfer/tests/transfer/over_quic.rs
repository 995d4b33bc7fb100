//! The suite over QUIC, and what can only be done wrong with streams.

use shoal_transfer::TransportChoice;

#[path = "suite/mod.rs"]
pub(crate) mod suite;

pub(crate) const TRANSPORT: TransportChoice = TransportChoice::Quic;

use suite::hostile::{PROTOCOL, Town};

#[tokio::test]
async fn a_piece_stream_that_starts_with_garbage_closes_that_connection_only() {
    let town = Town::found().await;
    for garbage in [&b"no frame"[..], &[], &[0x03, 0, 0, 0, 0]] {
        let mut strings = town.visit().await;
        strings.send_stream(garbage).await;
        assert_eq!(strings.closed().await, PROTOCOL, "after {garbage:?}");
    }
    town.stays_well().await;
}

#[tokio::test]
async fn a_frame_of_the_other_transport_closes_that_connection_only() {
    use shoal_transfer::wire::{CloseReason, Frame};

    let town = Town::found().await;
    for frame in [Frame::Chunk(0), Frame::Dropped, Frame::Close(CloseReason::Idle)] {
        let mut strings = town.visit().await;
        strings.say(frame).await;
        assert_eq!(strings.closed().await, PROTOCOL);
    }
    town.stays_well().await;
}

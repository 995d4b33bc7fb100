use proptest::prelude::*;

use super::*;

fn digest() -> impl Strategy<Value = Digest> {
    prop_oneof![
        any::<[u8; 32]>().prop_map(Digest::Sha256),
        (any::<[u8; 32]>(), any::<[u8; 32]>())
            .prop_map(|(a, b)| { Digest::Sha512([a, b].concat().try_into().unwrap()) }),
    ]
}

fn bitfield() -> impl Strategy<Value = Bitfield> {
    (0..3000u32, prop::collection::vec(any::<u32>(), 0..40)).prop_map(|(length, pieces)| {
        let mut bitfield = Bitfield::empty(length);
        for piece in pieces.into_iter().filter_map(|piece| piece.checked_rem(length)) {
            bitfield.insert(PieceIndex(piece));
        }
        bitfield
    })
}

fn priority() -> impl Strategy<Value = Priority> {
    prop_oneof![Just(Priority::Reader), Just(Priority::Prefetch), Just(Priority::Repair)]
}

fn frame() -> impl Strategy<Value = Frame> {
    let piece = || any::<u32>().prop_map(PieceIndex);
    prop_oneof![
        (1..u16::MAX, any::<u64>(), "[a-z/.0-9]{0,64}", "[a-zü]{0,64}").prop_map(
            |(version, moment, software, zone)| {
                Frame::Hello(Hello { version, moment, zone: Zone(zone), software })
            }
        ),
        (digest(), bitfield()).prop_map(|(digest, have)| Frame::Message(Message::Join { digest, have })),
        digest().prop_map(|digest| Frame::Message(Message::Absent { digest })),
        (digest(), prop::collection::vec(piece(), 1..=Message::MAX_NEWS))
            .prop_map(|(digest, pieces)| Frame::Message(Message::Have { digest, pieces })),
        (digest(), piece(), priority()).prop_map(|(digest, piece, priority)| {
            Frame::Message(Message::Request { digest, piece, priority })
        }),
        (digest(), piece()).prop_map(|(digest, piece)| Frame::Message(Message::Cancel { digest, piece })),
        (digest(), piece()).prop_map(|(digest, piece)| Frame::Message(Message::Reject { digest, piece })),
        (digest(), piece(), any::<u32>()).prop_map(|(digest, piece, length)| Frame::Piece(PieceHeader {
            digest,
            piece,
            length
        })),
        (0..=MAX_CHUNK_LENGTH as u32).prop_map(Frame::Chunk),
        Just(Frame::Dropped),
        (0..=8u64).prop_map(|code| Frame::Close(CloseReason::from_code(code).unwrap())),
    ]
}

fn encoded(frame: &Frame) -> BytesMut {
    let mut bytes = BytesMut::new();
    frame.encode(&mut bytes);
    bytes
}

proptest! {
    #[test]
    fn encode_and_decode_are_inverse(frames in prop::collection::vec(frame(), 0..5)) {
        let mut bytes = BytesMut::new();
        for frame in &frames {
            frame.encode(&mut bytes);
        }
        for frame in frames {
            prop_assert_eq!(Frame::decode(&mut bytes).unwrap(), Some(frame));
        }
        prop_assert!(bytes.is_empty());
    }

    #[test]
    fn a_frame_that_comes_in_parts_is_read_when_it_is_whole(frame in frame(), cut: prop::sample::Index) {
        let whole = encoded(&frame);
        let cut = cut.index(whole.len());
        let mut input = BytesMut::from(&whole[..cut]);
        prop_assert_eq!(Frame::decode(&mut input).unwrap(), None);
        prop_assert_eq!(input.len(), cut);
        input.extend_from_slice(&whole[cut..]);
        prop_assert_eq!(Frame::decode(&mut input).unwrap(), Some(frame));
    }

    #[test]
    fn random_bytes_neither_panic_nor_wait_for_more_than_the_longest_frame(
        kind in 0..0x15u8, bytes in prop::collection::vec(any::<u8>(), 0..2 * MAX_FRAME_LENGTH)
    ) {
        let mut input = BytesMut::from(&[&[kind], bytes.as_slice()].concat()[..]);
        while let Ok(Some(_)) = Frame::decode(&mut input) {}
        if matches!(Frame::decode(&mut input), Ok(None)) {
            prop_assert!(input.len() < MAX_FRAME_LENGTH);
        }
    }

    #[test]
    fn a_damaged_frame_never_panics(frame in frame(), at: prop::sample::Index, with: u8) {
        let mut bytes = encoded(&frame);
        let at = at.index(bytes.len());
        bytes[at] ^= with;
        let _ = Frame::decode(&mut bytes);
    }
}

#[test]
fn an_over_long_length_is_refused_by_its_head_alone() {
    let mut input = BytesMut::from(&[0x02, 0xff, 0xff, 0xff, 0xff][..]);
    assert!(matches!(Frame::decode(&mut input), Err(WireError::TooLong { kind: Kind::Join, .. })));
}

#[test]
fn an_unknown_type_is_refused_by_its_first_byte() {
    for byte in [0x00, 0x08, 0x09, 0x14, 0xff] {
        assert_eq!(Frame::decode(&mut BytesMut::from(&[byte][..])), Err(WireError::UnknownType(byte)));
    }
}

#[test]
fn stray_bytes_are_refused_but_a_longer_hello_is_read() {
    let absent = Frame::Message(Message::Absent { digest: Digest::sha256(b"") });
    for (frame, fine) in [(absent, false), (Frame::Hello(Hello::new(7, &Zone::default())), true)] {
        let mut bytes = encoded(&frame);
        bytes.put_u8(0);
        bytes[4] += 1;
        assert_eq!(Frame::decode(&mut bytes).is_ok(), fine, "{frame:?}");
    }
}

#[test]
fn news_of_nothing_and_unknown_priorities_are_refused() {
    let digest = Digest::sha256(b"");
    let none = Frame::Message(Message::Have { digest, pieces: Vec::new() });
    assert_eq!(Frame::decode(&mut encoded(&none)), Err(WireError::News(0)));
    let request = Message::Request { digest, piece: PieceIndex(1), priority: Priority::Repair };
    let mut bytes = encoded(&Frame::Message(request));
    *bytes.last_mut().unwrap() = 3;
    assert_eq!(Frame::decode(&mut bytes), Err(WireError::Priority(3)));
}

#[test]
fn a_close_for_no_known_reason_is_refused() {
    let mut bytes = encoded(&Frame::Close(CloseReason::Busy));
    *bytes.last_mut().unwrap() += 1;
    assert_eq!(Frame::decode(&mut bytes), Err(WireError::Reason(9)));
    assert_eq!(CloseReason::from_code(9), None);
}

#[test]
fn of_a_chunk_the_head_alone_is_taken() {
    let mut bytes = encoded(&Frame::Chunk(3));
    bytes.extend_from_slice(b"abc");
    assert_eq!(Frame::decode(&mut bytes), Ok(Some(Frame::Chunk(3))));
    assert_eq!(&bytes[..], b"abc");
}

#[test]
fn of_a_long_zone_the_beginning_is_sent() {
    let hello = Hello::new(7, &Zone("ü".repeat(100)));
    assert_eq!(hello.zone, Zone("ü".repeat(64)));
}

#[test]
fn the_largest_blob_s_bitfield_fits() {
    let have = Bitfield::full(u32::try_from(Geometry::MAX_PIECES).unwrap());
    let digest = Digest::of(shoal_core::Algorithm::Sha512, b"");
    let bytes = encoded(&Frame::Message(Message::Join { digest, have }));
    assert_eq!(bytes.len(), MAX_FRAME_LENGTH);
    assert_eq!(Kind::Join.limit(), 8261);
}

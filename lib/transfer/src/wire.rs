//! The wire protocol, byte for byte. Pure: it knows neither sockets nor which transport carries it.
//!
//! (This head is longer than others because it is the protocol's specification.)
//!
//! Everything is a frame: `[type u8][length u32][payload: length bytes]`, numbers big-endian. A length above
//! the limit of its type is refused as soon as the five bytes of the head are there, before anything is
//! allocated for it. A `digest` is `[1][32 bytes]` (SHA-256) or `[2][64 bytes]` (SHA-512).
//!
//! | type | name    | payload                                                 | at most    |
//! |------|---------|---------------------------------------------------------|------------|
//! | 0x01 | Hello   | `[version u16][moment u64][n u8][software][m u8][zone]`… | 1,024     |
//! | 0x02 | Join    | `[digest][pieces u32][bitfield: ⌈pieces / 8⌉ bytes]`    | 8,261      |
//! | 0x03 | Absent  | `[digest]`                                              | 65         |
//! | 0x04 | Have    | `[digest][n u16][piece u32] * n`, n from 1 to 256       | 1,091      |
//! | 0x05 | Request | `[digest][piece u32][priority u8]`                      | 70         |
//! | 0x06 | Cancel  | `[digest][piece u32]`                                   | 69         |
//! | 0x07 | Reject  | `[digest][piece u32]`                                   | 69         |
//! | 0x08 | –       | reserved: metainfo request                              |            |
//! | 0x09 | –       | reserved: metainfo                                      |            |
//! | 0x10 | Piece   | `[digest][piece u32][length u32]`                       | 73         |
//! | 0x11 | Chunk   | the next bytes of the piece that was begun              | 131,072    |
//! | 0x12 | Dropped | –                                                       | 0          |
//! | 0x13 | Close   | `[reason u8]`                                           | 1          |
//!
//! The side that dialled sends Hello first; the connection is established when the other answers with its own.
//! Nothing else is sent before. After it, messages (0x02 to 0x07) go both ways in any number. A payload is
//! consumed exactly; only Hello may carry more than is known here, for later versions. Bits of a bitfield
//! beyond the last piece are 0; bit 0 of byte 0 is piece 0. A priority is 0 for a reader, 1 for prefetch, 2 for repair.
//!
//! A Piece frame announces `length` bytes. Over QUIC each piece has a unidirectional stream of its own: the Piece frame,
//! then the raw bytes, so that no piece waits for another or delays a message; a piece is given up by a reset of its
//! stream, and a connection is closed with the code of a reason. Over TLS on TCP there is one stream a direction: a
//! piece's bytes come in Chunk frames, between which there may be messages but no other piece, up to the announced
//! length or to Dropped, by which the sender gives the piece up; and Close, if it is said, is the last frame. These
//! three types are only there.

#[cfg(test)]
mod tests;

use bytes::{Buf, BufMut, BytesMut};
use shoal_core::bitfield::BitfieldError;
use shoal_core::codec::{Decoder, EndOfInput};
use shoal_core::metainfo::{put_digest, take_digest};
use shoal_core::{Bitfield, Digest, Geometry, MetainfoError, PieceIndex, Zone};
use shoal_swarm::{Message, Priority};

/// What both sides must speak, negotiated by TLS (RFC 7301).
pub const ALPN: &[u8] = b"shoal/1";

/// The version of this protocol that this program speaks. A higher one of the other side is fine: both speak the lower.
pub const VERSION: u16 = 1;

/// No Chunk carries more bytes: eight TLS records, so that a message waits 13 ms behind one on a path of 10 MB/s.
pub const MAX_CHUNK_LENGTH: usize = 128 << 10;

/// No frame is longer, head included and the bytes of a Chunk not.
pub const MAX_FRAME_LENGTH: usize = HEAD_LENGTH + Kind::Join.limit();

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The first frame of each direction.
    Hello(Hello),
    /// What the engines say to each other.
    Message(Message),
    /// The raw bytes of a piece follow.
    Piece(PieceHeader),
    /// So many bytes of the piece that was begun follow; they are not part of what is encoded and decoded here.
    Chunk(u32),
    /// The rest of the piece that was begun does not come.
    Dropped,
    /// The sender ends the connection.
    Close(CloseReason),
}

/// Who speaks, beyond what its certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The highest protocol version that the sender speaks, from 1.
    pub version: u16,
    /// Grows with each Hello that a node makes, across its restarts: tells an old connection from a new one.
    pub moment: u64,
    /// Where the sender stands.
    pub zone: Zone,
    software: String,
}

/// Announces the bytes of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PieceHeader {
    /// Of which blob.
    pub digest: Digest,
    /// Which piece.
    pub piece: PieceIndex,
    /// How many bytes follow.
    pub length: u32,
}

/// Why a side ends a connection: the code of a QUIC close, and what a Close frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CloseReason {
    /// The node stops.
    Shutdown = 0,
    /// Nothing in common any more.
    Idle = 1,
    /// The peer broke the protocol.
    Protocol = 2,
    /// The peer sent a corrupt piece.
    Corrupt = 3,
    /// Another peer needs the place.
    Replaced = 4,
    /// There is another connection between the two.
    Duplicate = 5,
    /// The certificate is not one to exchange pieces with.
    Refused = 6,
    /// The peer does not take what is sent to it.
    TooSlow = 7,
    /// There is no place for another connection.
    Busy = 8,
}

/// Bytes from a peer are not this protocol: that connection ends, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// No frame has that type.
    #[error("frame type {0:#04x} is unknown")]
    UnknownType(u8),
    /// A length that no frame of the type has.
    #[error("{kind:?} frame of {length} bytes: at most {limit} are allowed")]
    TooLong {
        /// The frame's type.
        kind: Kind,
        /// The length that its head claims.
        length: usize,
        /// The limit of the type.
        limit: usize,
    },
    /// The payload ends before the frame does.
    #[error("{kind:?} frame is cut")]
    Cut {
        /// The frame's type.
        kind: Kind,
        /// What is missing.
        source: EndOfInput,
    },
    /// There is more payload than frame.
    #[error("{kind:?} frame has {stray} stray bytes")]
    Trailing {
        /// The frame's type.
        kind: Kind,
        /// How many.
        stray: usize,
    },
    /// The payload names no valid digest.
    #[error("{kind:?} frame has no valid digest")]
    Digest {
        /// The frame's type.
        kind: Kind,
        /// Why not.
        source: MetainfoError,
    },
    /// A Join of a blob with more pieces than any blob has.
    #[error("Join of {0} pieces: no blob has more than {max}", max = Geometry::MAX_PIECES)]
    TooManyPieces(u32),
    /// A Join whose bitfield is none.
    #[error("Join has no valid bitfield")]
    Bitfield(#[from] BitfieldError),
    /// A Have of no piece, or of more than any engine tells at once.
    #[error("Have of {0} pieces: from 1 to {max} are allowed", max = Message::MAX_NEWS)]
    News(usize),
    /// A Request with a priority that there is not.
    #[error("Request of priority {0}: 0, 1 and 2 are known")]
    Priority(u8),
    /// A Close for a reason that there is not.
    #[error("Close with reason {0}: 0 to 8 are known")]
    Reason(u8),
    /// A Hello of version 0, or whose software or zone is no text.
    #[error("Hello is not valid")]
    Hello,
    /// A good frame in a place where it has no meaning.
    #[error("{0:?} frame is out of place")]
    OutOfPlace(Kind),
    /// The stream ended within a frame.
    #[error("stream ended within a frame")]
    Ended,
}

/// The types of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// See [`Frame::Hello`].
    Hello = 0x01,
    /// See [`Message::Join`].
    Join = 0x02,
    /// See [`Message::Absent`].
    Absent = 0x03,
    /// See [`Message::Have`].
    Have = 0x04,
    /// See [`Message::Request`].
    Request = 0x05,
    /// See [`Message::Cancel`].
    Cancel = 0x06,
    /// See [`Message::Reject`].
    Reject = 0x07,
    /// See [`Frame::Piece`].
    Piece = 0x10,
    /// See [`Frame::Chunk`].
    Chunk = 0x11,
    /// See [`Frame::Dropped`].
    Dropped = 0x12,
    /// See [`Frame::Close`].
    Close = 0x13,
}

impl Frame {
    /// Appends the frame to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u8(self.kind() as u8);
        if let Self::Chunk(length) = self {
            return out.put_u32(*length);
        }
        let length_at = out.len();
        out.put_u32(0);
        self.encode_payload(out);
        let length = u32::try_from(out.len() - length_at - 4).expect("a payload has a few KiB at most");
        out[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// Takes a frame from the front of `input`; `None` (and `input` untouched) until all of it is there. Of a Chunk only the
    /// head is taken.
    pub fn decode(input: &mut BytesMut) -> Result<Option<Self>, WireError> {
        let Some(&first) = input.first() else { return Ok(None) };
        let kind = Kind::parse(first)?;
        let Some(length) = input.get(1..HEAD_LENGTH).map(|mut length| length.get_u32() as usize) else {
            return Ok(None);
        };
        if length > kind.limit() {
            return Err(WireError::TooLong { kind, length, limit: kind.limit() });
        }
        if kind == Kind::Chunk {
            input.advance(HEAD_LENGTH);
            return Ok(Some(Self::Chunk(u32::try_from(length).expect("read as one"))));
        }
        if input.len() < HEAD_LENGTH + length {
            return Ok(None);
        }
        input.advance(HEAD_LENGTH);
        let payload = Payload { kind, input: Decoder::new(input.split_to(length).freeze()) };
        payload.frame().map(Some)
    }

    /// The frame's type.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Hello(_) => Kind::Hello,
            Self::Message(Message::Join { .. }) => Kind::Join,
            Self::Message(Message::Absent { .. }) => Kind::Absent,
            Self::Message(Message::Have { .. }) => Kind::Have,
            Self::Message(Message::Request { .. }) => Kind::Request,
            Self::Message(Message::Cancel { .. }) => Kind::Cancel,
            Self::Message(Message::Reject { .. }) => Kind::Reject,
            Self::Piece(_) => Kind::Piece,
            Self::Chunk(_) => Kind::Chunk,
            Self::Dropped => Kind::Dropped,
            Self::Close(_) => Kind::Close,
        }
    }

    fn encode_payload(&self, out: &mut BytesMut) {
        match self {
            Self::Hello(hello) => hello.encode(out),
            Self::Message(Message::Join { digest, have }) => {
                put_digest(out, digest);
                out.put_u32(have.len());
                out.put_slice(&have.to_bytes());
            }
            Self::Message(Message::Absent { digest }) => put_digest(out, digest),
            Self::Message(Message::Have { digest, pieces }) => {
                put_digest(out, digest);
                out.put_u16(u16::try_from(pieces.len()).expect("at most MAX_NEWS"));
                pieces.iter().for_each(|piece| out.put_u32(piece.0));
            }
            Self::Message(Message::Request { digest, piece, priority }) => {
                put_digest(out, digest);
                out.put_u32(piece.0);
                out.put_u8(match priority {
                    Priority::Reader => 0,
                    Priority::Prefetch => 1,
                    Priority::Repair => 2,
                });
            }
            Self::Message(Message::Cancel { digest, piece } | Message::Reject { digest, piece }) => {
                put_digest(out, digest);
                out.put_u32(piece.0);
            }
            Self::Piece(header) => {
                put_digest(out, &header.digest);
                out.put_u32(header.piece.0);
                out.put_u32(header.length);
            }
            Self::Chunk(_) | Self::Dropped => {}
            Self::Close(reason) => out.put_u8(*reason as u8),
        }
    }
}

impl Hello {
    /// No name of a software is longer, in bytes; one byte carries its length.
    const MAX_SOFTWARE_LENGTH: usize = 64;
    /// No name of a zone that is sent is longer, in bytes; of a longer one the beginning is sent.
    const MAX_ZONE_LENGTH: usize = 128;

    /// The greeting of this program.
    #[must_use]
    pub fn new(moment: u64, zone: &Zone) -> Self {
        let mut zone = zone.clone();
        zone.0.truncate(zone.0.floor_char_boundary(Self::MAX_ZONE_LENGTH));
        Self {
            version: VERSION,
            moment,
            zone,
            software: concat!("shoal/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }

    /// Name and version of the sender's program, for the log.
    #[must_use]
    pub fn software(&self) -> &str {
        &self.software
    }

    fn encode(&self, out: &mut BytesMut) {
        out.put_u16(self.version);
        out.put_u64(self.moment);
        out.put_u8(u8::try_from(self.software.len()).expect("checked wherever a Hello is made"));
        out.put_slice(self.software.as_bytes());
        out.put_u8(u8::try_from(self.zone.0.len()).expect("checked wherever a Hello is made"));
        out.put_slice(self.zone.0.as_bytes());
    }
}

impl CloseReason {
    /// The one with that code; none of a later version is known.
    #[must_use]
    pub const fn from_code(code: u64) -> Option<Self> {
        Some(match code {
            0 => Self::Shutdown,
            1 => Self::Idle,
            2 => Self::Protocol,
            3 => Self::Corrupt,
            4 => Self::Replaced,
            5 => Self::Duplicate,
            6 => Self::Refused,
            7 => Self::TooSlow,
            8 => Self::Busy,
            _ => return None,
        })
    }

    /// In words, for the peer's log.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Shutdown => "shutting down",
            Self::Idle => "nothing in common",
            Self::Protocol => "protocol broken",
            Self::Corrupt => "corrupt piece",
            Self::Replaced => "place needed",
            Self::Duplicate => "duplicate connection",
            Self::Refused => "certificate refused",
            Self::TooSlow => "too slow",
            Self::Busy => "too many connections",
        }
    }
}

impl Kind {
    fn parse(byte: u8) -> Result<Self, WireError> {
        Ok(match byte {
            0x01 => Self::Hello,
            0x02 => Self::Join,
            0x03 => Self::Absent,
            0x04 => Self::Have,
            0x05 => Self::Request,
            0x06 => Self::Cancel,
            0x07 => Self::Reject,
            0x10 => Self::Piece,
            0x11 => Self::Chunk,
            0x12 => Self::Dropped,
            0x13 => Self::Close,
            _ => return Err(WireError::UnknownType(byte)),
        })
    }

    /// The longest payload of the type, in bytes.
    #[must_use]
    pub const fn limit(self) -> usize {
        match self {
            Self::Hello => 1024,
            Self::Join => MAX_DIGEST_LENGTH + 4 + (Geometry::MAX_PIECES as usize).div_ceil(8),
            Self::Absent => MAX_DIGEST_LENGTH,
            Self::Have => MAX_DIGEST_LENGTH + 2 + 4 * Message::MAX_NEWS,
            Self::Request => MAX_DIGEST_LENGTH + 5,
            Self::Cancel | Self::Reject => MAX_DIGEST_LENGTH + 4,
            Self::Piece => MAX_DIGEST_LENGTH + 8,
            Self::Chunk => MAX_CHUNK_LENGTH,
            Self::Dropped => 0,
            Self::Close => 1,
        }
    }
}

/// The payload of one frame, being read.
struct Payload {
    kind: Kind,
    input: Decoder,
}

impl Payload {
    fn frame(mut self) -> Result<Frame, WireError> {
        let frame = match self.kind {
            // What a later version appends is not looked at.
            Kind::Hello => return self.hello().map(Frame::Hello),
            Kind::Piece => Frame::Piece(self.piece_header()?),
            Kind::Dropped => Frame::Dropped,
            Kind::Close => Frame::Close(self.reason()?),
            _ => Frame::Message(self.message()?),
        };
        match self.input.left() {
            0 => Ok(frame),
            stray => Err(WireError::Trailing { kind: self.kind, stray }),
        }
    }

    fn hello(&mut self) -> Result<Hello, WireError> {
        let version = self.take(Decoder::u16)?;
        let moment = self.take(Decoder::u64)?;
        let software = self.text(Hello::MAX_SOFTWARE_LENGTH)?;
        if version == 0 {
            return Err(WireError::Hello);
        }
        let zone = Zone(self.text(Hello::MAX_ZONE_LENGTH)?);
        Ok(Hello { version, moment, zone, software })
    }

    /// A short text behind its length.
    fn text(&mut self, limit: usize) -> Result<String, WireError> {
        let length = usize::from(self.take(Decoder::u8)?);
        let text = self.take(|input| input.bytes(length))?;
        let text = std::str::from_utf8(&text).ok().filter(|text| text.len() <= limit);
        text.map(str::to_owned).ok_or(WireError::Hello)
    }

    fn news(&mut self) -> Result<Vec<PieceIndex>, WireError> {
        let count = usize::from(self.take(Decoder::u16)?);
        if !(1..=Message::MAX_NEWS).contains(&count) {
            return Err(WireError::News(count));
        }
        (0..count).map(|_| self.piece()).collect()
    }

    fn priority(&mut self) -> Result<Priority, WireError> {
        match self.take(Decoder::u8)? {
            0 => Ok(Priority::Reader),
            1 => Ok(Priority::Prefetch),
            2 => Ok(Priority::Repair),
            other => Err(WireError::Priority(other)),
        }
    }

    fn piece_header(&mut self) -> Result<PieceHeader, WireError> {
        let (digest, piece) = (self.digest()?, self.piece()?);
        Ok(PieceHeader { digest, piece, length: self.take(Decoder::u32)? })
    }

    fn reason(&mut self) -> Result<CloseReason, WireError> {
        let code = self.take(Decoder::u8)?;
        CloseReason::from_code(code.into()).ok_or(WireError::Reason(code))
    }

    fn message(&mut self) -> Result<Message, WireError> {
        let digest = self.digest()?;
        Ok(match self.kind {
            Kind::Join => Message::Join { digest, have: self.bitfield()? },
            Kind::Absent => Message::Absent { digest },
            Kind::Have => Message::Have { digest, pieces: self.news()? },
            Kind::Request => Message::Request { digest, piece: self.piece()?, priority: self.priority()? },
            Kind::Cancel => Message::Cancel { digest, piece: self.piece()? },
            Kind::Reject => Message::Reject { digest, piece: self.piece()? },
            Kind::Hello | Kind::Piece | Kind::Chunk | Kind::Dropped | Kind::Close => {
                return Err(WireError::OutOfPlace(self.kind));
            }
        })
    }

    fn digest(&mut self) -> Result<Digest, WireError> {
        take_digest(&mut self.input).map_err(|source| WireError::Digest { kind: self.kind, source })
    }

    fn piece(&mut self) -> Result<PieceIndex, WireError> {
        self.take(Decoder::u32).map(PieceIndex)
    }

    fn bitfield(&mut self) -> Result<Bitfield, WireError> {
        let pieces = self.take(Decoder::u32)?;
        if u64::from(pieces) > Geometry::MAX_PIECES {
            return Err(WireError::TooManyPieces(pieces));
        }
        let bytes = self.take(|input| input.bytes(Bitfield::byte_length(pieces)))?;
        Ok(Bitfield::from_bytes(pieces, &bytes)?)
    }

    fn take<T>(&mut self, read: impl FnOnce(&mut Decoder) -> Result<T, EndOfInput>) -> Result<T, WireError> {
        read(&mut self.input).map_err(|source| WireError::Cut { kind: self.kind, source })
    }
}

/// Type and length.
const HEAD_LENGTH: usize = 5;

/// A SHA-512 digest.
const MAX_DIGEST_LENGTH: usize = 65;

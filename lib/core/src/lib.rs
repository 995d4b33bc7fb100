//! The names of things: digests, repositories, tags, pieces, bitfields, metainfo, peers.
//!
//! A value of a type in this crate is valid: it was checked where it was made, and nobody checks it again.
//! No I/O and no clock live here.

pub mod bitfield;
pub mod buffer;
pub mod causes;
pub mod codec;
pub mod digest;
pub mod metainfo;
pub mod name;
pub mod peer;
pub mod piece;
pub mod rendezvous;

pub use bitfield::Bitfield;
pub use buffer::Buffer;
pub use causes::causes;
pub use digest::{Algorithm, Digest, DigestError, Digester};
pub use metainfo::{Metainfo, MetainfoBuilder, MetainfoError, PieceHash, Proof, SignedMetainfo};
pub use name::{NameError, Reference, RepositoryName, Tag};
pub use peer::{PeerAddress, PeerId, PeerIdError, Role, Zone};
pub use piece::{Geometry, GeometryError, Piece, PieceIndex, PieceLength};
pub use rendezvous::{Places, Rendezvous};

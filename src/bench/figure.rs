//! What can be measured, and what is the ceiling of what.

use std::fmt;

use clap::ValueEnum;
use serde::Serialize;

/// One line of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Figure {
    Sha256,
    Sha512,
    Blake3,
    FileWrite,
    FileRead,
    StoreWrite,
    StoreRead,
    StorePieces,
    Tcp,
    Tls,
    Quic,
    TransferTcp,
    TransferQuic,
    Registry,
}

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Group {
    /// Hashes of blobs and of pieces.
    Hash,
    /// The store beside plain files.
    Store,
    /// Raw TCP.
    Tcp,
    /// Raw TLS.
    Tls,
    /// Raw QUIC.
    Quic,
    /// From agent to agent on each transport.
    Transfer,
    /// From agent to agent by TLS over TCP.
    TransferTcp,
    /// From agent to agent by QUIC.
    TransferQuic,
    /// From an agent to its client.
    Registry,
}

impl Figure {
    /// All, in the order in which a round measures them.
    const ALL: [Self; 14] = [
        Self::Sha256,
        Self::Sha512,
        Self::Blake3,
        Self::FileWrite,
        Self::FileRead,
        Self::StoreWrite,
        Self::StoreRead,
        Self::StorePieces,
        Self::Tcp,
        Self::Tls,
        Self::Quic,
        Self::TransferTcp,
        Self::TransferQuic,
        Self::Registry,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
            Self::Blake3 => "blake3",
            Self::FileWrite => "file-write",
            Self::FileRead => "file-read",
            Self::StoreWrite => "store-write",
            Self::StoreRead => "store-read",
            Self::StorePieces => "store-pieces",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Quic => "quic",
            Self::TransferTcp => "transfer-tcp",
            Self::TransferQuic => "transfer-quic",
            Self::Registry => "registry",
        }
    }

    /// What it cannot be faster than; `None` for what is a ceiling itself.
    pub(super) fn ceiling(self) -> Option<Self> {
        match self {
            Self::StoreWrite => Some(Self::FileWrite),
            Self::StoreRead | Self::StorePieces => Some(Self::FileRead),
            Self::TransferTcp => Some(Self::Tls),
            Self::TransferQuic => Some(Self::Quic),
            Self::Registry => Some(Self::Tcp),
            Self::Sha256
            | Self::Sha512
            | Self::Blake3
            | Self::FileWrite
            | Self::FileRead
            | Self::Tcp
            | Self::Tls
            | Self::Quic => None,
        }
    }

    /// Whether it needs the blob that is prepared.
    pub(super) fn needs_blob(self) -> bool {
        self.is_transfer()
            || matches!(self, Self::FileRead | Self::StoreWrite | Self::StoreRead | Self::StorePieces)
    }

    /// Whether it writes a file of its own.
    pub(super) fn writes_blob(self) -> bool {
        self.is_transfer() || matches!(self, Self::FileWrite | Self::StoreWrite)
    }

    fn is_transfer(self) -> bool {
        matches!(self, Self::TransferTcp | Self::TransferQuic)
    }

    fn is_of(self, group: Group) -> bool {
        match group {
            Group::Hash => matches!(self, Self::Sha256 | Self::Sha512 | Self::Blake3),
            Group::Store => matches!(self, Self::StoreWrite | Self::StoreRead | Self::StorePieces),
            Group::Tcp => self == Self::Tcp,
            Group::Tls => self == Self::Tls,
            Group::Quic => self == Self::Quic,
            Group::Transfer => self.is_transfer(),
            Group::TransferTcp => self == Self::TransferTcp,
            Group::TransferQuic => self == Self::TransferQuic,
            Group::Registry => self == Self::Registry,
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The figures of these groups and their ceilings; of no group, all.
pub(super) fn chosen(groups: &[Group]) -> Vec<Figure> {
    let asked = |figure: Figure| groups.is_empty() || groups.iter().any(|&group| figure.is_of(group));
    let is_ceiling =
        |figure| Figure::ALL.iter().any(|&other| asked(other) && other.ceiling() == Some(figure));
    Figure::ALL.into_iter().filter(|&figure| asked(figure) || is_ceiling(figure)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_comes_with_its_ceiling() {
        assert_eq!(chosen(&[Group::Registry]), [Figure::Tcp, Figure::Registry]);
        assert_eq!(
            chosen(&[Group::Tls, Group::TransferQuic]),
            [Figure::Tls, Figure::Quic, Figure::TransferQuic]
        );
    }

    #[test]
    fn everything_is_measured_unless_something_is_named() {
        assert_eq!(chosen(&[]), Figure::ALL);
        assert_eq!(chosen(Group::value_variants()), Figure::ALL);
    }

    #[test]
    fn a_figure_has_one_name() {
        for figure in Figure::ALL {
            assert_eq!(serde_json::to_value(figure).unwrap(), figure.name());
        }
    }
}

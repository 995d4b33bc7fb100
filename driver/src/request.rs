//! Requests: an operation on a path of the registry, proved to make sense before anything is touched.
//!
//! What may be done where is one table, [`operations_of`]; everything else is an [`InvalidRequest`]. Whether a driver
//! offers an operation at all (a read-only one does not write) is the driver's own answer.

use std::fmt;

use crate::path::DriverPath;
use crate::registry_path::{InvalidRegistryPath, RegistryPath};

/// What a storage driver can be asked to do with one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Read small content whole.
    GetContent,
    /// Replace the whole content.
    PutContent,
    /// Stream content.
    Reader,
    /// Write content in parts.
    Writer,
    /// Learn size and kind.
    Stat,
    /// Name the direct children.
    List,
    /// Be the source of a rename.
    RenameFrom,
    /// Be the destination of a rename.
    RenameTo,
    /// Remove it, and everything below it.
    Delete,
    /// Ask for another place to fetch it from.
    RedirectUrl,
}

/// An operation that may be done on its path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    operation: Operation,
    path: RegistryPath,
}

/// The operation makes no sense on that path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{operation} may not be done on {path}")]
pub struct InvalidRequest {
    /// What was asked for.
    pub operation: Operation,
    /// On what.
    pub path: RegistryPath,
}

/// Why an operation and a driver path make no request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The path has no meaning in the layout.
    #[error(transparent)]
    Path(#[from] InvalidRegistryPath),
    /// The path is fine, the operation is not for it.
    #[error(transparent)]
    Request(#[from] InvalidRequest),
}

impl Operation {
    /// Every operation, in the order of [`crate::StorageDriver`].
    pub const ALL: [Self; 10] = [
        Self::GetContent,
        Self::PutContent,
        Self::Reader,
        Self::Writer,
        Self::Stat,
        Self::List,
        Self::RenameFrom,
        Self::RenameTo,
        Self::Delete,
        Self::RedirectUrl,
    ];

    /// Its name in errors and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GetContent => "get_content",
            Self::PutContent => "put_content",
            Self::Reader => "reader",
            Self::Writer => "writer",
            Self::Stat => "stat",
            Self::List => "list",
            Self::RenameFrom => "rename from",
            Self::RenameTo => "rename to",
            Self::Delete => "delete",
            Self::RedirectUrl => "redirect_url",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Request {
    /// Puts a request together, if it makes sense.
    pub fn new(operation: Operation, path: RegistryPath) -> Result<Self, InvalidRequest> {
        if operations_of(&path).contains(&operation) {
            Ok(Self { operation, path })
        } else {
            Err(InvalidRequest { operation, path })
        }
    }

    /// Reads the path, and puts a request together.
    pub fn parse(operation: Operation, path: &DriverPath) -> Result<Self, RequestError> {
        Ok(Self::new(operation, RegistryPath::parse(path)?)?)
    }

    /// What is asked for.
    #[must_use]
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// On what.
    #[must_use]
    pub fn path(&self) -> &RegistryPath {
        &self.path
    }

    /// On what, for keeps.
    #[must_use]
    pub fn into_path(self) -> RegistryPath {
        self.path
    }
}

/// The table: what may be done on a path.
///
/// - Folders are looked at. Only those that are one thing to a registry (a tag, a revision, a layer, an upload, a blob)
///   are deleted; a repository is not, since its path may be the beginning of other repositories' names.
/// - Links and an upload's notes are small and are read and written whole.
/// - An upload is written in parts, read back to be hashed, and ends by being renamed to the blob that it is.
/// - A blob's bytes come by that rename, or whole where they are small; never by a writer, whose digest nobody knows yet.
#[must_use]
pub fn operations_of(path: &RegistryPath) -> &'static [Operation] {
    use Operation::{
        Delete, GetContent, List, PutContent, Reader, RedirectUrl, RenameFrom, RenameTo, Stat, Writer,
    };
    use RegistryPath as P;
    match path {
        P::Root | P::Docker | P::Registry | P::Version | P::Repositories | P::Repository(_) => &[Stat, List],
        P::Manifests(_) | P::Revisions(_) | P::RevisionsByAlgorithm(..) => &[Stat, List],
        P::Tags(_) | P::TagCurrent(..) | P::TagIndex(..) | P::TagIndexByAlgorithm(..) => &[Stat, List],
        P::Layers(_) | P::LayersByAlgorithm(..) => &[Stat, List],
        P::Uploads(_) | P::UploadHashAlgorithms(..) | P::UploadHashStates(..) => &[Stat, List],
        P::Blobs | P::BlobsByAlgorithm(_) | P::BlobShard(..) => &[Stat, List],
        P::Revision(..) | P::Tag(..) | P::TagIndexEntry(..) => &[Stat, List, Delete],
        P::Layer(..) | P::Upload(..) | P::Blob(_) => &[Stat, List, Delete],
        P::RevisionLink(..) | P::TagCurrentLink(..) | P::TagIndexEntryLink(..) | P::LayerLink(..) => {
            &[GetContent, PutContent, Stat, Delete]
        }
        P::UploadStartedAt(..) | P::UploadHashState(..) => &[GetContent, PutContent, Stat],
        P::UploadData(..) => &[Reader, Writer, Stat, RenameFrom],
        P::BlobData(_) => &[GetContent, PutContent, Reader, Stat, RenameTo, RedirectUrl],
    }
}

#[cfg(test)]
mod tests {
    use shoal_core::{Algorithm, Digest, RepositoryName, Tag};
    use uuid::Uuid;

    use super::*;
    use crate::registry_path::{Shard, UploadId};

    /// Columns: get, put, reader, writer, stat, list, rename from, rename to, delete, redirect.
    const EXPECTED: &str = "\
/                                          ....SL....
/docker                                    ....SL....
/docker/registry                           ....SL....
V                                          ....SL....
V/repositories                             ....SL....
V/repositories/r                           ....SL....
V/repositories/r/_manifests                ....SL....
V/repositories/r/_manifests/revisions      ....SL....
V/repositories/r/_manifests/revisions/A    ....SL....
V/repositories/r/_manifests/revisions/D    ....SL..D.
V/repositories/r/_manifests/revisions/D/link GP..S...D.
V/repositories/r/_manifests/tags           ....SL....
V/repositories/r/_manifests/tags/t         ....SL..D.
V/repositories/r/_manifests/tags/t/current ....SL....
V/repositories/r/_manifests/tags/t/current/link GP..S...D.
V/repositories/r/_manifests/tags/t/index   ....SL....
V/repositories/r/_manifests/tags/t/index/A ....SL....
V/repositories/r/_manifests/tags/t/index/D ....SL..D.
V/repositories/r/_manifests/tags/t/index/D/link GP..S...D.
V/repositories/r/_layers                   ....SL....
V/repositories/r/_layers/A                 ....SL....
V/repositories/r/_layers/D                 ....SL..D.
V/repositories/r/_layers/D/link            GP..S...D.
V/repositories/r/_uploads                  ....SL....
V/repositories/r/_uploads/U                ....SL..D.
V/repositories/r/_uploads/U/data           ..RWS.F...
V/repositories/r/_uploads/U/startedat      GP..S.....
V/repositories/r/_uploads/U/hashstates     ....SL....
V/repositories/r/_uploads/U/hashstates/A   ....SL....
V/repositories/r/_uploads/U/hashstates/A/7 GP..S.....
V/blobs                                    ....SL....
V/blobs/A                                  ....SL....
V/blobs/A/e3                               ....SL....
V/blobs/A/e3/X                             ....SL..D.
V/blobs/A/e3/X/data                        GPR.S..T.U";

    fn samples() -> Vec<RegistryPath> {
        use RegistryPath as P;
        let (n, t) = (RepositoryName::parse("r").unwrap(), Tag::parse("t").unwrap());
        let (n, t) = (|| n.clone(), || t.clone());
        let (a, d, id) = (Algorithm::Sha256, Digest::sha256(b""), UploadId(Uuid::nil()));
        vec![
            P::Root,
            P::Docker,
            P::Registry,
            P::Version,
            P::Repositories,
            P::Repository(n()),
            P::Manifests(n()),
            P::Revisions(n()),
            P::RevisionsByAlgorithm(n(), a),
            P::Revision(n(), d),
            P::RevisionLink(n(), d),
            P::Tags(n()),
            P::Tag(n(), t()),
            P::TagCurrent(n(), t()),
            P::TagCurrentLink(n(), t()),
            P::TagIndex(n(), t()),
            P::TagIndexByAlgorithm(n(), t(), a),
            P::TagIndexEntry(n(), t(), d),
            P::TagIndexEntryLink(n(), t(), d),
            P::Layers(n()),
            P::LayersByAlgorithm(n(), a),
            P::Layer(n(), d),
            P::LayerLink(n(), d),
            P::Uploads(n()),
            P::Upload(n(), id),
            P::UploadData(n(), id),
            P::UploadStartedAt(n(), id),
            P::UploadHashAlgorithms(n(), id),
            P::UploadHashStates(n(), id, a),
            P::UploadHashState(n(), id, a, 7),
            P::Blobs,
            P::BlobsByAlgorithm(a),
            P::BlobShard(a, Shard(0xe3)),
            P::Blob(d),
            P::BlobData(d),
        ]
    }

    fn row(path: &RegistryPath) -> String {
        let hex = Digest::sha256(b"").hex();
        let text = path.to_string().replace("/docker/registry/v2", "V");
        let text = text.replace(&format!("e3/{hex}"), "e3/X").replace(&format!("sha256/{hex}"), "D");
        let text = text.replace("sha256", "A").replace(&Uuid::nil().to_string(), "U");
        let cells = Operation::ALL.iter().zip("GPRWSLFTDU".chars()).map(|(operation, letter)| {
            if Request::new(*operation, path.clone()).is_ok() { letter } else { '.' }
        });
        format!("{text:42} {}", cells.collect::<String>())
    }

    #[test]
    fn the_whole_table_is_as_written_down() {
        let table: Vec<String> = samples().iter().map(row).collect();
        assert_eq!(table.join("\n"), EXPECTED);
    }

    #[test]
    fn a_refusal_names_operation_and_path() {
        let error = Request::new(Operation::Writer, RegistryPath::Blobs).unwrap_err();
        assert_eq!(error.to_string(), "writer may not be done on /docker/registry/v2/blobs");
    }

    #[test]
    fn a_path_outside_of_the_layout_makes_no_request() {
        let path = DriverPath::parse("/elsewhere").unwrap();
        assert!(matches!(Request::parse(Operation::Stat, &path), Err(RequestError::Path(_))));
    }
}

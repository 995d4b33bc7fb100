//! A repository's links: the small files by which it sees a blob (a layer) or a manifest (a revision).

use shoal_core::{Digest, RepositoryName};

use crate::registry_path::RegistryPath;

/// One link, by what it is filed under. What it names is its content, nearly always the same digest.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Link {
    /// Whose.
    pub repository: RepositoryName,
    /// To a blob or to a manifest.
    pub kind: LinkKind,
    /// Filed under.
    pub digest: Digest,
}

/// What a link leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LinkKind {
    /// A blob: a layer, a configuration.
    Layer,
    /// A manifest.
    Revision,
}

impl Link {
    /// The link that a path of the layout is, or is the folder of.
    #[must_use]
    pub fn of(path: &RegistryPath) -> Option<Self> {
        let (repository, kind, digest) = match path {
            RegistryPath::LayerLink(name, digest) | RegistryPath::Layer(name, digest) => {
                (name, LinkKind::Layer, digest)
            }
            RegistryPath::RevisionLink(name, digest) | RegistryPath::Revision(name, digest) => {
                (name, LinkKind::Revision, digest)
            }
            _ => return None,
        };
        Some(Self { repository: repository.clone(), kind, digest: *digest })
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> RegistryPath {
        let (name, digest) = (self.repository.clone(), self.digest);
        match self.kind {
            LinkKind::Layer => RegistryPath::LayerLink(name, digest),
            LinkKind::Revision => RegistryPath::RevisionLink(name, digest),
        }
    }

    /// The folder that is the link to a registry: what a delete removes.
    #[must_use]
    pub fn folder(&self) -> RegistryPath {
        let (name, digest) = (self.repository.clone(), self.digest);
        match self.kind {
            LinkKind::Layer => RegistryPath::Layer(name, digest),
            LinkKind::Revision => RegistryPath::Revision(name, digest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_that_of_its_file_and_of_its_folder() {
        let name = RepositoryName::parse("team/app").unwrap();
        for kind in [LinkKind::Layer, LinkKind::Revision] {
            let link = Link { repository: name.clone(), kind, digest: Digest::sha256(b"blob") };
            assert_eq!(Link::of(&link.path()), Some(link.clone()));
            assert_eq!(Link::of(&link.folder()), Some(link));
        }
        assert_eq!(Link::of(&RegistryPath::Layers(name)), None);
    }
}

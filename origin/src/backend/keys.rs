//! Where things are in a backend. The layout is a promise: another version, and whoever looks by hand, finds them there.

use shoal_control::cluster::message::{LinkName, LinkTo, TagName};
use shoal_core::{Algorithm, Digest, RepositoryName, Tag};

/// What an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// `blobs/sha256/ab/<hex>`: the bytes.
    Blob(Digest),
    /// `repositories/<name>/_layers/sha256/<hex>`, or `_revisions` of a manifest: the digest that the link names.
    Link(LinkName),
    /// `repositories/<name>/_tags/<tag>`: what it names and since which write, as JSON.
    Tag(TagName),
}

/// Above all repositories.
pub(crate) const REPOSITORIES: &str = "repositories";

/// Above the tags of one.
pub(crate) fn tags_of(repository: &RepositoryName) -> String {
    format!("{REPOSITORIES}/{repository}/{TAGS}")
}

impl Key {
    /// Below the backend's prefix.
    pub(crate) fn path(&self) -> String {
        match self {
            Self::Blob(digest) => {
                let (algorithm, hex) = (digest.algorithm().as_str(), digest.hex());
                format!("blobs/{algorithm}/{}/{hex}", &hex[..2])
            }
            Self::Link(LinkName { repository, to, digest }) => {
                let folder = match to {
                    LinkTo::Layer => LAYERS,
                    LinkTo::Revision => REVISIONS,
                };
                let (algorithm, hex) = (digest.algorithm().as_str(), digest.hex());
                format!("{REPOSITORIES}/{repository}/{folder}/{algorithm}/{hex}")
            }
            Self::Tag(TagName { repository, tag }) => format!("{}/{tag}", tags_of(repository)),
        }
    }

    /// The link or tag that a path is. A name of a repository has no part that begins with `_`, so there is one reading.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let rest = path.strip_prefix(REPOSITORIES)?.strip_prefix('/')?;
        let (name, rest) = rest.split_once("/_")?;
        let repository = RepositoryName::parse(name).ok()?;
        let (folder, rest) = rest.split_once('/')?;
        let to = match format!("_{folder}").as_str() {
            LAYERS => LinkTo::Layer,
            REVISIONS => LinkTo::Revision,
            TAGS => {
                let tag = Tag::parse(rest).ok()?;
                return Some(Self::Tag(TagName { repository, tag }));
            }
            _ => return None,
        };
        let (algorithm, hex) = rest.split_once('/')?;
        let digest = Digest::from_hex(Algorithm::parse(algorithm).ok()?, hex).ok()?;
        Some(Self::Link(LinkName { repository, to, digest }))
    }
}

const LAYERS: &str = "_layers";
const REVISIONS: &str = "_revisions";
const TAGS: &str = "_tags";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_and_a_tag_are_read_as_what_they_were_written_as() {
        for name in ["app", "team/app", "a/b/c"] {
            let repository = RepositoryName::parse(name).unwrap();
            for digest in [Digest::sha256(b"x"), Digest::of(Algorithm::Sha512, b"x")] {
                for to in [LinkTo::Layer, LinkTo::Revision] {
                    let key = Key::Link(LinkName { repository: repository.clone(), to, digest });
                    assert_eq!(Key::parse(&key.path()), Some(key));
                }
            }
            let tag = Key::Tag(TagName { repository, tag: Tag::parse("v1.0_x-y").unwrap() });
            assert_eq!(Key::parse(&tag.path()), Some(tag));
        }
    }

    #[test]
    fn what_is_nothing_of_this_is_passed_over() {
        let digest = Digest::sha256(b"x");
        let blob = Key::Blob(digest).path();
        assert_eq!(blob, format!("blobs/sha256/{}/{}", &digest.hex()[..2], digest.hex()));
        let hex = digest.hex();
        for path in [
            blob.as_str(),
            "repositories/app",
            "repositories/app/_tags/",
            "repositories/app/_tags/a/b",
            "repositories/App/_tags/a",
            "repositories/app/_others/a",
            &format!("repositories/app/_layers/md5/{hex}"),
            &format!("repositories/app/_layers/sha256/{}", &hex[1..]),
        ] {
            assert_eq!(Key::parse(path), None, "{path}");
        }
    }
}

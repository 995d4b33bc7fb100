//! Text to [`RegistryPath`]: part by part, from the left.
//!
//! A repository's name may hold any word of the layout (`blobs`, `tags`, `uploads`), but no part that starts with `_`: the
//! first such part ends the name. What comes after the marker is matched by position, so a tag may be called `current`.

use shoal_core::{Algorithm, Digest, DigestError, NameError, RepositoryName, Tag};

use super::{RegistryPath, Shard, UploadId};
use crate::path::DriverPath;

/// Why a driver path is no path of the registry layout.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path} is not a path of the registry layout")]
pub struct InvalidRegistryPath {
    /// The path.
    pub path: DriverPath,
    /// What is wrong with it.
    #[source]
    pub fault: RegistryPathFault,
}

/// What is wrong with a path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryPathFault {
    /// The layout has nothing of that shape.
    #[error("the layout has no such place")]
    NoSuchPlace,
    /// The repository's name, or the tag, is not one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The algorithm or the value is not that of a digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// The blob lies in the folder of another digest.
    #[error("the folder {0:?} is not the first two characters of the digest")]
    Shard(String),
    /// Not a UUID in its canonical spelling.
    #[error("upload id {0:?} is not a lower-case UUID with hyphens")]
    UploadId(String),
    /// Not a decimal number in its shortest spelling.
    #[error("hash state offset {0:?} is not a decimal number of 64 bits")]
    Offset(String),
}

type Parsed = Result<RegistryPath, RegistryPathFault>;

impl RegistryPath {
    /// Reads what a path means.
    pub fn parse(path: &DriverPath) -> Result<Self, InvalidRegistryPath> {
        let parts: Vec<&str> = path.parts().collect();
        let parsed = match parts.as_slice() {
            [] => Ok(Self::Root),
            ["docker"] => Ok(Self::Docker),
            ["docker", "registry"] => Ok(Self::Registry),
            ["docker", "registry", "v2"] => Ok(Self::Version),
            ["docker", "registry", "v2", "repositories"] => Ok(Self::Repositories),
            ["docker", "registry", "v2", "repositories", rest @ ..] => repository(rest),
            ["docker", "registry", "v2", "blobs", rest @ ..] => blob(rest),
            _ => Err(RegistryPathFault::NoSuchPlace),
        };
        parsed.map_err(|fault| InvalidRegistryPath { path: path.clone(), fault })
    }
}

fn repository(parts: &[&str]) -> Parsed {
    let end = parts.iter().position(|part| part.starts_with('_')).unwrap_or(parts.len());
    let (name, rest) = parts.split_at(end);
    let name = RepositoryName::parse(&name.join("/"))?;
    match rest {
        [] => Ok(RegistryPath::Repository(name)),
        ["_manifests"] => Ok(RegistryPath::Manifests(name)),
        ["_manifests", "revisions", rest @ ..] => revision(name, rest),
        ["_manifests", "tags", rest @ ..] => tag(name, rest),
        ["_layers", rest @ ..] => layer(name, rest),
        ["_uploads", rest @ ..] => upload(name, rest),
        _ => Err(RegistryPathFault::NoSuchPlace),
    }
}

fn revision(name: RepositoryName, parts: &[&str]) -> Parsed {
    Ok(match parts {
        [] => RegistryPath::Revisions(name),
        [algorithm] => RegistryPath::RevisionsByAlgorithm(name, Algorithm::parse(algorithm)?),
        [algorithm, hex] => RegistryPath::Revision(name, digest(algorithm, hex)?),
        [algorithm, hex, "link"] => RegistryPath::RevisionLink(name, digest(algorithm, hex)?),
        _ => return Err(RegistryPathFault::NoSuchPlace),
    })
}

fn tag(name: RepositoryName, parts: &[&str]) -> Parsed {
    let [tag, rest @ ..] = parts else { return Ok(RegistryPath::Tags(name)) };
    let tag = Tag::parse(tag)?;
    Ok(match rest {
        [] => RegistryPath::Tag(name, tag),
        ["current"] => RegistryPath::TagCurrent(name, tag),
        ["current", "link"] => RegistryPath::TagCurrentLink(name, tag),
        ["index"] => RegistryPath::TagIndex(name, tag),
        ["index", algorithm] => RegistryPath::TagIndexByAlgorithm(name, tag, Algorithm::parse(algorithm)?),
        ["index", algorithm, hex] => RegistryPath::TagIndexEntry(name, tag, digest(algorithm, hex)?),
        ["index", algorithm, hex, "link"] => {
            RegistryPath::TagIndexEntryLink(name, tag, digest(algorithm, hex)?)
        }
        _ => return Err(RegistryPathFault::NoSuchPlace),
    })
}

fn layer(name: RepositoryName, parts: &[&str]) -> Parsed {
    Ok(match parts {
        [] => RegistryPath::Layers(name),
        [algorithm] => RegistryPath::LayersByAlgorithm(name, Algorithm::parse(algorithm)?),
        [algorithm, hex] => RegistryPath::Layer(name, digest(algorithm, hex)?),
        [algorithm, hex, "link"] => RegistryPath::LayerLink(name, digest(algorithm, hex)?),
        _ => return Err(RegistryPathFault::NoSuchPlace),
    })
}

fn upload(name: RepositoryName, parts: &[&str]) -> Parsed {
    let [id, rest @ ..] = parts else { return Ok(RegistryPath::Uploads(name)) };
    let id = UploadId::parse(id).ok_or_else(|| RegistryPathFault::UploadId((*id).to_owned()))?;
    Ok(match rest {
        [] => RegistryPath::Upload(name, id),
        ["data"] => RegistryPath::UploadData(name, id),
        ["startedat"] => RegistryPath::UploadStartedAt(name, id),
        ["hashstates"] => RegistryPath::UploadHashAlgorithms(name, id),
        ["hashstates", algorithm] => RegistryPath::UploadHashStates(name, id, Algorithm::parse(algorithm)?),
        ["hashstates", algorithm, at] => {
            RegistryPath::UploadHashState(name, id, Algorithm::parse(algorithm)?, offset(at)?)
        }
        _ => return Err(RegistryPathFault::NoSuchPlace),
    })
}

fn blob(parts: &[&str]) -> Parsed {
    let [algorithm, rest @ ..] = parts else { return Ok(RegistryPath::Blobs) };
    let algorithm = Algorithm::parse(algorithm)?;
    let [shard_text, rest @ ..] = rest else { return Ok(RegistryPath::BlobsByAlgorithm(algorithm)) };
    let shard = shard(shard_text)?;
    let [hex, rest @ ..] = rest else { return Ok(RegistryPath::BlobShard(algorithm, shard)) };
    let digest = Digest::from_hex(algorithm, hex)?;
    if Shard::of(&digest) != shard {
        return Err(RegistryPathFault::Shard((*shard_text).to_owned()));
    }
    match rest {
        [] => Ok(RegistryPath::Blob(digest)),
        ["data"] => Ok(RegistryPath::BlobData(digest)),
        _ => Err(RegistryPathFault::NoSuchPlace),
    }
}

fn digest(algorithm: &str, hex: &str) -> Result<Digest, DigestError> {
    Digest::from_hex(Algorithm::parse(algorithm)?, hex)
}

fn shard(text: &str) -> Result<Shard, RegistryPathFault> {
    let value = u8::from_str_radix(text, 16).ok().map(Shard);
    value.filter(|shard| shard.to_string() == text).ok_or_else(|| RegistryPathFault::Shard(text.to_owned()))
}

fn offset(text: &str) -> Result<u64, RegistryPathFault> {
    let value = text.parse::<u64>().ok();
    value
        .filter(|offset| offset.to_string() == text)
        .ok_or_else(|| RegistryPathFault::Offset(text.to_owned()))
}

//! Where a driver lets the cases keep their content: the paths of a free tree, or those of the registry.
//!
//! A case asks for a place by its role and runs on any layout that has one. Where a layout has none it gives the path that
//! an unknowing caller would try, and the driver must refuse it.

use shoal_core::{Algorithm, Digest, RepositoryName};
use uuid::Uuid;

use super::path;
use crate::driver::Context;
use crate::path::DriverPath;
use crate::registry_path::{RegistryPath, UploadId};

/// The paths that the cases use. Other numbers give other paths.
pub trait Layout: Send + Sync + 'static {
    /// On whose behalf the suite asks.
    fn context(&self) -> Context;

    /// Small content that is put and got whole; one `folder` lists all that is in it.
    fn note(&self, folder: u64, number: u64) -> DriverPath;

    /// Content that is written in parts, in a folder of its own.
    fn stream(&self, number: u64) -> DriverPath;

    /// Where a stream of that content is renamed to when it is whole.
    fn blob(&self, content: &[u8]) -> DriverPath;

    /// What is deleted to be rid of a note with its whole folder, of a stream, or of a blob.
    fn home(&self, file: &DriverPath) -> DriverPath;

    /// A folder that could be listed, and is not there.
    fn missing_folder(&self) -> DriverPath;

    /// Places for small content with names at the edges of what is allowed.
    fn unusual_notes(&self) -> Vec<DriverPath>;

    /// Paths where nothing can ever be; the root, which holds no content, is one of them.
    fn foreign(&self) -> Vec<DriverPath>;

    /// The children of the root of an empty driver.
    fn trunk(&self) -> Vec<DriverPath>;
}

/// Any path is a place for anything.
#[derive(Clone, Copy, Debug, Default)]
pub struct FreeLayout;

/// The paths of one repository, in the layout of [`RegistryPath`].
///
/// Notes are an upload's hash states (any small content, many in a folder), streams its data, blobs blobs.
#[derive(Clone, Debug)]
pub struct RegistryLayout(pub RepositoryName);

impl Layout for FreeLayout {
    fn context(&self) -> Context {
        Context::default()
    }

    fn note(&self, folder: u64, number: u64) -> DriverPath {
        path(&format!("/notes/{folder}/{number}"))
    }

    fn stream(&self, number: u64) -> DriverPath {
        path(&format!("/streams/{number}/data"))
    }

    fn blob(&self, content: &[u8]) -> DriverPath {
        path(&format!("/blobs/{}/data", Digest::sha256(content).hex()))
    }

    fn home(&self, file: &DriverPath) -> DriverPath {
        file.parent().unwrap_or_else(DriverPath::root)
    }

    fn missing_folder(&self) -> DriverPath {
        path("/missing/folder")
    }

    fn unusual_notes(&self) -> Vec<DriverPath> {
        let long = format!("/{}/{}", "n".repeat(255), "-".repeat(255));
        let of_distribution = [
            "/a",
            "/2",
            "/aa",
            "/a.a",
            "/0-9/abcdefg",
            "/abcdefg/z.75",
            "/abc/1.2.3.4.5-6_zyx/123.z/4",
            "/docker/docker-registry",
            "/123.abc",
            "/abc./abc",
            "/.abc",
            "/a--b",
            "/a-.b",
            "/_.abc",
            "/Docker/docker-registry",
            "/Abc/Cba",
        ];
        of_distribution.into_iter().chain(["/...", &long]).map(path).collect()
    }

    fn foreign(&self) -> Vec<DriverPath> {
        vec![DriverPath::root()]
    }

    fn trunk(&self) -> Vec<DriverPath> {
        Vec::new()
    }
}

impl RegistryLayout {
    fn state(&self, upload: u64, algorithm: Algorithm, offset: u64) -> DriverPath {
        RegistryPath::UploadHashState(self.0.clone(), upload_id(upload), algorithm, offset).to_driver_path()
    }
}

impl Layout for RegistryLayout {
    fn context(&self) -> Context {
        Context::of(self.0.clone())
    }

    fn note(&self, folder: u64, number: u64) -> DriverPath {
        self.state(folder, Algorithm::Sha256, number)
    }

    fn stream(&self, number: u64) -> DriverPath {
        RegistryPath::UploadData(self.0.clone(), upload_id(STREAMS + number)).to_driver_path()
    }

    fn blob(&self, content: &[u8]) -> DriverPath {
        RegistryPath::BlobData(Digest::sha256(content)).to_driver_path()
    }

    fn home(&self, file: &DriverPath) -> DriverPath {
        match RegistryPath::parse(file) {
            Ok(RegistryPath::BlobData(digest)) => RegistryPath::Blob(digest).to_driver_path(),
            Ok(
                RegistryPath::UploadData(name, id)
                | RegistryPath::UploadStartedAt(name, id)
                | RegistryPath::UploadHashState(name, id, ..),
            ) => RegistryPath::Upload(name, id).to_driver_path(),
            _ => file.clone(),
        }
    }

    fn missing_folder(&self) -> DriverPath {
        RegistryPath::Tags(self.0.clone()).to_driver_path()
    }

    fn unusual_notes(&self) -> Vec<DriverPath> {
        let names = ["blobs", "tags", "uploads/data", "a--b/c__d/e.f", "repositories/link/sha256", "0"];
        let names = names.iter().filter_map(|name| RepositoryName::parse(name).ok());
        let started = names.map(|name| RegistryPath::UploadStartedAt(name, upload_id(1)).to_driver_path());
        let states = [(Algorithm::Sha256, u64::MAX), (Algorithm::Sha512, 0), (Algorithm::Sha512, 1 << 40)];
        started.chain(states.map(|(algorithm, offset)| self.state(1, algorithm, offset))).collect()
    }

    fn foreign(&self) -> Vec<DriverPath> {
        let hex = Digest::sha256(b"").hex();
        let (upper, repository) =
            (hex.to_uppercase(), format!("/docker/registry/v2/repositories/{}", self.0));
        let texts = [
            "/".to_owned(),
            "/elsewhere".into(),
            "/etc/passwd".into(),
            "/docker/registry/v1".into(),
            "/docker/registry/v2/other".into(),
            format!("/docker/registry/v2/blobs/sha256/00/{hex}/data"),
            format!("/docker/registry/v2/blobs/sha256/E3/{upper}/data"),
            format!("/docker/registry/v2/blobs/sha256/e3/{hex}0/data"),
            format!("/docker/registry/v2/blobs/md5/e3/{hex}/data"),
            format!("{repository}/_layers/sha256/{upper}/link"),
            format!("{repository}/_layers/sha512/{hex}/link"),
            format!("{repository}/_manifests/tags/.hidden/current/link"),
            format!("{repository}/_uploads/not-a-uuid/data"),
            format!("{repository}/_uploads/{}/hashstates/sha256/007", upload_id(1)),
            format!("{repository}/_other"),
            "/docker/registry/v2/repositories/Upper/_layers".into(),
        ];
        texts.iter().map(|text| path(text)).collect()
    }

    fn trunk(&self) -> Vec<DriverPath> {
        vec![RegistryPath::Docker.to_driver_path()]
    }
}

/// Where the numbers of streams begin, so that no note is in a stream's folder.
const STREAMS: u64 = 1 << 32;

fn upload_id(number: u64) -> UploadId {
    UploadId(Uuid::from_u128(number.into()))
}

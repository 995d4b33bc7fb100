//! Object stores behind the origins: what was pushed is written there, and comes back from there when no origin holds it.
//!
//! A backend has blobs by digest, and the links and tags of repositories as small objects, so that it alone is enough to begin
//! again from. Which repository is written where is decided by patterns, the first that fits; read is from all. A call here is
//! tried once and has a limit of time: trying again is for the queue of [`crate::write_back`] and for [`crate::refill`].

mod config;
mod keys;
mod metrics;
mod objects;
mod source;
#[cfg(test)]
mod tests;
mod upload;

use std::sync::Arc;
use std::time::Duration;

use globset::GlobSet;
use shoal_core::{Digest, RepositoryName};

pub use self::config::{
    AzureConfig, BackendConfig, BackendConfigError, DirectoryBackendConfig, GcsConfig, S3Config,
};
pub(crate) use self::keys::Key;
pub(crate) use self::keys::{REPOSITORIES, tags_of};
pub(crate) use self::objects::{BackendError, Expected, Objects};
use crate::refill::Named;

/// All backends of an origin. Clones are one.
#[derive(Clone)]
pub(crate) struct Backends(Arc<[Backend]>);

struct Backend {
    /// Nothing: every repository.
    repositories: Option<GlobSet>,
    objects: Objects,
}

impl Backends {
    pub(crate) fn open(
        configs: &[BackendConfig],
        timeout: Duration,
        registry: &prometheus::Registry,
    ) -> Result<Self, BackendConfigError> {
        let metrics = metrics::BackendMetrics::register(registry)?;
        config::check_names(configs)?;
        let open = |config: &BackendConfig| {
            let (repositories, objects) = (config.repositories()?, config.open(timeout, metrics.clone())?);
            Ok(Backend { repositories, objects })
        };
        Ok(Self(configs.iter().map(open).collect::<Result<_, BackendConfigError>>()?))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where a repository is written; nothing where no pattern fits it.
    pub(crate) fn of(&self, repository: &RepositoryName) -> Option<&Objects> {
        let fits = |backend: &&Backend| {
            backend.repositories.as_ref().is_none_or(|globs| globs.is_match(repository.as_str()))
        };
        self.0.iter().find(fits).map(|backend| &backend.objects)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Objects> {
        self.0.iter().map(|backend| &backend.objects)
    }

    /// Whether a blob of that length can be had from one of them. One that does not answer has nothing.
    pub(crate) async fn have(&self, digest: &Digest, length: u64) -> bool {
        for objects in self.iter() {
            if let Ok(Some(found)) = objects.size(&Key::Blob(*digest)).await
                && found == length
            {
                return true;
            }
        }
        false
    }

    /// The same as sources of blobs.
    pub(crate) fn sources(&self) -> impl Iterator<Item = Named> {
        self.iter().map(|objects| Named {
            name: objects.name().to_owned(),
            source: Arc::new(objects.clone()),
            pace: None,
        })
    }
}

impl std::fmt::Debug for Backends {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

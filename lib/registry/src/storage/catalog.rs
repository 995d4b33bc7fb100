//! The names of all repositories: a walk over the folders that lead to them, from where the last page ended.
//!
//! A repository is what has manifests, or has had some. A page costs about three looks for each of its repositories, and
//! one for each folder on the way; what is below a repository's own folders is not looked at.

use shoal_core::RepositoryName;
use shoal_driver::{Context, DriverError, RegistryPath, walk};

use super::{Storage, found};

/// Some of the repositories, in the order of a walk.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct RepositoryPage {
    pub(crate) names: Vec<RepositoryName>,
    /// Whether there are others behind them.
    pub(crate) more: bool,
}

impl Storage {
    /// At most `limit` repositories, those after `last`.
    pub(crate) async fn repositories(
        &self,
        last: Option<&RepositoryName>,
        limit: usize,
    ) -> Result<RepositoryPage, DriverError> {
        let mut page = RepositoryPage::default();
        if limit == 0 {
            return Ok(page);
        }
        let context = Context::default();
        let mut walk = walk(&*self.0.driver, &context, &RegistryPath::Repositories.to_driver_path());
        if let Some(last) = last {
            walk = walk.start_after(RegistryPath::Manifests(last.clone()).to_driver_path());
        }
        // Nothing is found where nobody has pushed yet.
        while let Some(info) = found(walk.next().await)?.flatten() {
            match RegistryPath::parse(&info.path) {
                Ok(RegistryPath::Repository(_)) => {}
                Ok(RegistryPath::Manifests(_)) if page.names.len() == limit => {
                    page.more = true;
                    break;
                }
                Ok(RegistryPath::Manifests(name)) => {
                    page.names.push(name);
                    walk.skip_directory();
                }
                _ => walk.skip_directory(),
            }
        }
        Ok(page)
    }
}

//! Blobs at a registry: whether they are there, and mounts.

use http::header::CONTENT_LENGTH;
use http::{Method, StatusCode};
use shoal_core::{Digest, RepositoryName};

use crate::download::Download;
use crate::error::UpstreamError;
use crate::registry::Registry;
use crate::token::Scope;
use crate::transport::Call;

/// What a registry says of a blob that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobFound {
    /// Its length, if it says so.
    pub length: Option<u64>,
}

impl Registry {
    /// Whether a repository has a blob.
    pub async fn find_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<BlobFound>, UpstreamError> {
        let call = Call::new(
            Method::HEAD,
            self.path(repository, format_args!("blobs/{digest}"))?,
            Scope::pull(repository),
        );
        match self.transport.expect(&call, &[StatusCode::OK]).await {
            Ok(response) => {
                let length = response.headers().get(CONTENT_LENGTH);
                let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
                Ok(Some(BlobFound { length }))
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gets a blob whole. `size`: what a descriptor says of it; another length is an error.
    #[must_use]
    pub fn blob(&self, repository: &RepositoryName, digest: &Digest, size: Option<u64>) -> Download {
        Download::whole(self.clone(), repository.clone(), *digest, size)
    }

    /// Deletes a blob's link from a repository; whether there was one.
    pub async fn delete_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, UpstreamError> {
        let url = self.path(repository, format_args!("blobs/{digest}"))?;
        let call = Call::new(Method::DELETE, url, Scope::delete(repository));
        match self
            .transport
            .expect(&call, &[StatusCode::ACCEPTED, StatusCode::OK, StatusCode::NO_CONTENT])
            .await
        {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

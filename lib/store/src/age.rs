//! How long a blob has been of no use, and its removal for that: one step with looking, so that nobody who touches it loses it.

use std::time::SystemTime;

use shoal_core::Digest;

use crate::directory::Closed;
use crate::disk::blocking;
use crate::index::Entry;
use crate::reader::ReadError;
use crate::store::{Store, StoreError};

impl Store {
    /// Makes a whole blob young, durably; says whether there is one. What [`Self::delete_unchanged`] is told to spare then
    /// stays, also after a crash.
    pub async fn touch(&self, digest: &Digest) -> Result<bool, StoreError> {
        let (store, digest) = (self.clone(), *digest);
        blocking(move || store.touch_blocking(digest)).await
    }

    /// Deletes a whole blob, unless it came or was touched after `since`; says whether it was deleted.
    pub async fn delete_unchanged(&self, digest: &Digest, since: SystemTime) -> Result<bool, StoreError> {
        let (store, digest) = (self.clone(), *digest);
        blocking(move || store.delete_unchanged_blocking(digest, since)).await
    }

    fn touch_blocking(&self, digest: Digest) -> Result<bool, StoreError> {
        let directory = &self.space().directory;
        let _change = directory.change(&digest).map_err(|Closed| StoreError::Closed { digest })?;
        let Some(Entry::Whole(blob)) = self.space().index.find(&digest) else { return Ok(false) };
        blob.touch().map_err(|source| StoreError::Disk { digest, source })?;
        Ok(true)
    }

    fn delete_unchanged_blocking(&self, digest: Digest, since: SystemTime) -> Result<bool, StoreError> {
        let directory = &self.space().directory;
        let _change = directory.change(&digest).map_err(|Closed| StoreError::Closed { digest })?;
        let Some(Entry::Whole(blob)) = self.space().index.find(&digest) else { return Ok(false) };
        match blob.modified_blocking() {
            Ok(modified) if modified <= since => {}
            Ok(_) => return Ok(false),
            // Its file is gone: the rest may go, too.
            Err(ReadError::Gone { .. }) => {}
            Err(error) => {
                tracing::warn!(%error, "nobody knows how old a blob is: it stays");
                return Ok(false);
            }
        }
        self.remove_blocking(digest)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::Scene;

    #[tokio::test]
    async fn what_is_touched_after_that_moment_stays_and_what_is_not_goes() {
        let scene = Scene::open().await;
        let digest = *scene.put(b"blob").await.metainfo().digest();
        let before = SystemTime::now() - Duration::from_secs(60);
        assert!(!scene.store.delete_unchanged(&digest, before).await.unwrap());

        let entered = scene.store.blob(&digest).unwrap().modified().await.unwrap();
        // Times on disk move in steps of some milliseconds.
        std::thread::sleep(Duration::from_millis(50));
        assert!(scene.store.touch(&digest).await.unwrap());
        assert!(!scene.store.delete_unchanged(&digest, entered).await.unwrap());
        let crashed = scene.crash().await;
        assert!(crashed.store.blob(&digest).is_some());

        let after = SystemTime::now() + Duration::from_secs(1);
        assert!(scene.store.delete_unchanged(&digest, after).await.unwrap());
        assert!(scene.store.blob(&digest).is_none());
        assert!(!scene.store.touch(&digest).await.unwrap());
        assert!(!scene.store.delete_unchanged(&digest, after).await.unwrap());
    }

    #[tokio::test]
    async fn content_that_comes_again_makes_its_blob_young() {
        let scene = Scene::open().await;
        let digest = *scene.put(b"blob").await.metainfo().digest();
        let entered = scene.store.blob(&digest).unwrap().modified().await.unwrap();
        std::thread::sleep(Duration::from_millis(50));
        scene.put(b"blob").await;
        assert!(!scene.store.delete_unchanged(&digest, entered).await.unwrap());
    }
}

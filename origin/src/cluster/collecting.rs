//! Collection of garbage where several origins take pushes: each removes its own blobs, and one the links of a repository.

use async_trait::async_trait;
use shoal_core::{Digest, RepositoryName};
use shoal_driver::DriverError;
use shoal_registry::maintenance::OtherWriters;

use super::Cluster;
use super::ballots::majority;

#[async_trait]
impl OtherWriters for Cluster {
    /// A link is acknowledged once a majority has it, so it is in one of the lists of any majority.
    async fn catch_up(&self) -> Result<(), DriverError> {
        let (read, all) = (self.learn_metadata().await.count(), self.rendezvous.len());
        let least = majority(all);
        if read >= least {
            return Ok(());
        }
        let detail =
            format!("{read} of {all} origins say what is linked, and {least} have to before anything goes");
        Err(DriverError::Unavailable { driver: "origin-cluster", detail })
    }

    fn leaves_to_us(&self, repository: &RepositoryName) -> bool {
        let (name, well) = (Digest::sha256(repository.as_str().as_bytes()), self.members.well());
        self.rendezvous.order(&name).into_iter().find(|&place| well.contains(place)) == Some(self.own)
    }
}

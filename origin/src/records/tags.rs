//! Tags in this origin's files: as the only origin has them, and as one that votes on them with others.
//!
//! What is promised or voted for is on disk before it is said. A deleted tag stays as a vote for nothing, until all origins
//! have that: then it is forgotten, and the floor says which ballots may not come back.

use std::time::Instant;

use shoal_control::cluster::message::{
    TagAcceptance, TagBallot, TagEntry, TagName, TagPromise, TagRecord, TagVersion, TagVote,
};
use shoal_core::{Digest, RepositoryName, Tag};
use shoal_driver::{
    Context, DriverError, DriverPath, RegistryPath, StorageDriver as _, TagExpectation, TransferError,
};
use tokio::sync::Mutex;

use super::{Changed, Records, from_driver};
use crate::register::Register;

impl Records {
    /// What the tag names, remembered for a while. For the only origin: of several none knows by itself.
    pub(crate) async fn read_tag(&self, name: &TagName) -> Result<Digest, TransferError> {
        let asked = self.recent_tags.moment();
        let digest = self.register(name).await?.digest().ok_or(TransferError::NotFound)?;
        self.recent_tags.learn((asked, Instant::now()), &name.repository, &name.tag, digest);
        Ok(digest)
    }

    /// Lets the tag name that if it is as expected, as the only origin does it.
    pub(crate) async fn put_tag(
        &self,
        name: &TagName,
        digest: &Digest,
        expected: &TagExpectation,
    ) -> Result<(), TransferError> {
        let _turn = self.turn(name).await;
        expect(self.register(name).await?.digest(), expected)?;
        self.write_tag(name, digest.to_string()).await?;
        self.changed(Changed::Tag(name)).await
    }

    /// Lets the tag name nothing if it is as expected, as the only origin does it.
    pub(crate) async fn delete_tag(
        &self,
        name: &TagName,
        expected: &TagExpectation,
    ) -> Result<(), TransferError> {
        let _turn = self.turn(name).await;
        let current = self.register(name).await?.digest();
        if current.is_none() {
            return Err(TransferError::NotFound);
        }
        expect(current, expected)?;
        self.remove_tag(name).await?;
        self.changed(Changed::Tag(name)).await
    }

    /// The tags of a repository, in lexical order, by this origin's files.
    pub(crate) async fn list_tags(&self, repository: &RepositoryName) -> Result<Vec<Tag>, TransferError> {
        let named = self.tag_entries(repository).await?.into_iter().filter(|entry| entry.named);
        Ok(named.map(|entry| entry.tag).collect())
    }

    /// This origin's vote on a tag.
    pub(crate) async fn vote(&self, name: &TagName) -> Result<Option<TagVote>, TransferError> {
        Ok(self.register(name).await?.vote)
    }

    /// Promises a ballot, durably.
    pub(crate) async fn promise(
        &self,
        TagBallot { name, ballot }: &TagBallot,
    ) -> Result<TagPromise, TransferError> {
        let _turn = self.turn(name).await;
        let mut register = self.register(name).await?;
        let promise = register.promise(*ballot);
        if let TagPromise::Promised(_) = &promise {
            self.write_tag(name, register.to_content()).await?;
        }
        Ok(promise)
    }

    /// Votes, durably.
    pub(crate) async fn accept(&self, record: &TagRecord) -> Result<TagAcceptance, TransferError> {
        let acceptance = self.keep_vote(record).await?;
        if acceptance == TagAcceptance::Accepted {
            self.changed(Changed::Tag(&record.name)).await?;
        }
        Ok(acceptance)
    }

    /// What the tag named before this origin's files were lost, if nothing is known of it here; says whether that was so. For
    /// the only origin, whose writes are in no ballot.
    pub(crate) async fn restore_tag(
        &self,
        TagRecord { name, vote }: &TagRecord,
    ) -> Result<bool, TransferError> {
        let _turn = self.turn(name).await;
        if self.register(name).await?.vote.is_some() {
            return Ok(false);
        }
        match vote.value.digest {
            Some(digest) => self.write_tag(name, digest.to_string()).await.map(|()| true),
            None => Ok(false),
        }
    }

    pub(super) async fn keep_vote(
        &self,
        TagRecord { name, vote }: &TagRecord,
    ) -> Result<TagAcceptance, TransferError> {
        let _turn = self.turn(name).await;
        let before = self.register(name).await?;
        let mut register = before.clone();
        let acceptance = register.accept(vote);
        if register != before {
            self.write_tag(name, register.to_content()).await?;
        }
        if register.is_deleted() {
            self.drop_history(name).await;
        }
        Ok(acceptance)
    }

    /// What this origin knows of the tags of a repository, in lexical order; of those that were deleted, too.
    pub(crate) async fn tag_entries(
        &self,
        repository: &RepositoryName,
    ) -> Result<Vec<TagEntry>, TransferError> {
        let path = RegistryPath::Tags(repository.clone()).to_driver_path();
        let entries = self.metadata.list(&Context::default(), &path).await.map_err(from_driver)?;
        let mut tags = Vec::new();
        for tag in entries.iter().filter_map(|entry| Tag::parse(entry.name()?).ok()) {
            let name = TagName { repository: repository.clone(), tag };
            // A tag's folder without a vote is one whose push was cut, or that was deleted.
            let Some(vote) = self.vote(&name).await? else { continue };
            tags.push(TagEntry { tag: name.tag, ballot: vote.ballot, named: vote.value.digest.is_some() });
        }
        tags.sort_by(|one, other| one.tag.cmp(&other.tag));
        Ok(tags)
    }

    /// Keeps nothing of a tag any more of which this origin's last word is that ballot, and that names nothing; says whether
    /// it was so. A vote may be forgotten once every origin has it: then no older one is left that could come back.
    pub(crate) async fn forget_tag(
        &self,
        TagBallot { name, ballot }: &TagBallot,
    ) -> Result<bool, TransferError> {
        let _turn = self.turn(name).await;
        let register = self.register(name).await?;
        let last = register.vote.as_ref().map_or(register.promised, |vote| vote.ballot);
        if register.digest().is_some() || last != *ballot {
            return Ok(false);
        }
        // First what is not to be voted for again.
        self.raise_floor(register.promised).await?;
        match self.remove_tag(name).await {
            Ok(()) | Err(TransferError::NotFound) => Ok(true),
            Err(error) => Err(error),
        }
    }

    async fn raise_floor(&self, promised: TagVersion) -> Result<(), TransferError> {
        let mut floor = self.floor().await?.lock().await;
        if promised > *floor {
            let content = Register::untouched(promised).to_content();
            let put = self.metadata.put_content(&Context::default(), &floor_path(), content.into()).await;
            put.map_err(from_driver)?;
            *floor = promised;
        }
        Ok(())
    }

    pub(super) async fn register(&self, name: &TagName) -> Result<Register, TransferError> {
        let path = current(name).to_driver_path();
        match self.metadata.get_content(&Context::default(), &path).await {
            Ok(content) => Register::parse(&content).map_err(|error| TransferError::Failed(Box::new(error))),
            Err(DriverError::PathNotFound { .. }) => {
                Ok(Register::untouched(*self.floor().await?.lock().await))
            }
            Err(error) => Err(from_driver(error)),
        }
    }

    /// The floor, read from the disk once.
    async fn floor(&self) -> Result<&Mutex<TagVersion>, TransferError> {
        let read = async || match self.metadata.get_content(&Context::default(), &floor_path()).await {
            Ok(content) => {
                let register = Register::parse(&content);
                let register = register.map_err(|error| TransferError::Failed(Box::new(error)))?;
                Ok(Mutex::new(register.promised))
            }
            Err(DriverError::PathNotFound { .. }) => Ok(Mutex::default()),
            Err(error) => Err(from_driver(error)),
        };
        self.floor.get_or_try_init(read).await
    }

    async fn write_tag(&self, name: &TagName, content: String) -> Result<(), TransferError> {
        let path = current(name).to_driver_path();
        let put = self.metadata.put_content(&Context::default(), &path, content.into()).await;
        self.recent_tags.forget(&name.repository, &name.tag);
        put.map_err(from_driver)
    }

    async fn remove_tag(&self, name: &TagName) -> Result<(), TransferError> {
        let path = RegistryPath::Tag(name.repository.clone(), name.tag.clone()).to_driver_path();
        let removed = self.metadata.delete(&Context::default(), &path).await;
        self.recent_tags.forget(&name.repository, &name.tag);
        removed.map_err(from_driver)
    }

    /// What a deleted tag named before is nobody's business; where it cannot be removed, it does no harm.
    async fn drop_history(&self, name: &TagName) {
        let path = RegistryPath::TagIndex(name.repository.clone(), name.tag.clone()).to_driver_path();
        match self.metadata.delete(&Context::default(), &path).await {
            Ok(()) | Err(DriverError::PathNotFound { .. }) => {}
            Err(error) => tracing::warn!(%error, "cannot remove what a deleted tag named before"),
        }
    }
}

/// Refuses to go on with a tag that is not as expected.
pub(crate) fn expect(current: Option<Digest>, expected: &TagExpectation) -> Result<(), TransferError> {
    if expected.allows(current.as_ref()) {
        return Ok(());
    }
    Err(TransferError::TagMoved { current: current.into() })
}

fn current(name: &TagName) -> RegistryPath {
    RegistryPath::TagCurrentLink(name.repository.clone(), name.tag.clone())
}

/// Beside the registry's own tree.
fn floor_path() -> DriverPath {
    DriverPath::parse("/tags-floor").expect("a name under the root")
}

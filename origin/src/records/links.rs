//! Links in this origin's files. The file of a link has a second line where the origin is one of several: which put it is. What
//! was deleted is noted beside the registry's tree, until every origin knows.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shoal_control::cluster::message::{
    LinkAnswer, LinkDeletion, LinkName, LinkRecord, LinkState, LinkTo, LinkVersion,
};
use shoal_core::Digest;
use shoal_driver::{Context, DriverError, DriverPath, Link, StorageDriver as _, TransferError, walk};
use tokio::sync::mpsc;

use super::{Changed, Records, from_driver, link_of, name_of};
use crate::link_state::{self, Change};

/// The file of a deletion.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Deleted {
    #[serde(flatten)]
    pub(crate) deletion: LinkDeletion,
    /// When this origin heard of it, in microseconds by its own clock.
    pub(crate) at: u64,
}

impl Records {
    /// What a link names.
    pub(crate) async fn link(&self, link: &Link) -> Result<Digest, TransferError> {
        self.filed(link).await?.map(|(target, _)| target).ok_or(TransferError::NotFound)
    }

    /// What this origin knows of a link.
    pub(crate) async fn link_state(&self, link: &Link) -> Result<Option<LinkState>, TransferError> {
        let filed = self.filed(link).await?;
        let filed = filed.map(|(target, version)| LinkState { target: Some(target), version });
        let deleted = self.deleted(link).await?;
        let deleted =
            deleted.map(|Deleted { deletion, .. }| LinkState { target: None, version: deletion.version });
        Ok(link_state::newest([&filed, &deleted]))
    }

    /// Whether a link was deleted here, as far as that is still known.
    pub(crate) async fn was_deleted(&self, link: &Link) -> Result<bool, TransferError> {
        Ok(self.link_state(link).await?.is_some_and(|state| state.target.is_none()))
    }

    /// Puts a link, durably, unless something newer is known. `now` in microseconds.
    pub(crate) async fn put_link(&self, record: &LinkRecord, now: u64) -> Result<Change, TransferError> {
        let change = self.file_link(record, now).await?;
        if !matches!(change, Change::Refused(_)) {
            self.changed(Changed::Link(&link_of(&record.name))).await?;
        }
        Ok(change)
    }

    async fn file_link(&self, record: &LinkRecord, now: u64) -> Result<Change, TransferError> {
        let link = link_of(&record.name);
        let _turn = self.turn(&link).await;
        let known = self.link_state(&link).await?;
        let change = link_state::put(known.as_ref(), record.target, record.version, now);
        if change == Change::Write {
            self.write_link(record, known).await?;
        }
        Ok(change)
    }

    /// Puts a link where this origin stands alone: there is nobody to order it with.
    pub(crate) async fn put_link_alone(&self, link: &Link, target: &Digest) -> Result<(), TransferError> {
        let _turn = self.turn(link).await;
        let (path, content) = (link.path().to_driver_path(), target.to_string());
        self.metadata.put_content(&Context::default(), &path, content.into()).await.map_err(from_driver)?;
        self.changed(Changed::Link(link)).await
    }

    /// Deletes a link where this origin stands alone: there is nobody who would bring it back.
    pub(crate) async fn delete_link_alone(&self, link: &Link) -> Result<(), TransferError> {
        let _turn = self.turn(link).await;
        self.remove(&link.folder().to_driver_path()).await?;
        self.changed(Changed::Link(link)).await
    }

    /// Deletes a link, durably, unless somebody has put it anew; gives what it named.
    pub(crate) async fn delete_link(
        &self,
        deletion: &LinkDeletion,
        now: u64,
    ) -> Result<(Change, Option<Digest>), TransferError> {
        let link = link_of(&deletion.name);
        let _turn = self.turn(&link).await;
        let known = self.link_state(&link).await?;
        let change = link_state::delete(known.as_ref(), deletion.version);
        if change == Change::Write {
            let deleted = Deleted { deletion: deletion.clone(), at: now };
            let content = serde_json::to_vec(&deleted).expect("a deletion is plain values");
            let path = deletion_path(&link);
            self.metadata
                .put_content(&Context::default(), &path, content.into())
                .await
                .map_err(from_driver)?;
        }
        if !matches!(change, Change::Refused(_)) {
            // Also what a crash left between the two.
            self.remove(&link.folder().to_driver_path()).await?;
            self.changed(Changed::Link(&link)).await?;
        }
        Ok((change, known.and_then(|known| known.target)))
    }

    /// Takes over what another origin has, where it is news; says whether it was.
    pub(super) async fn learn_link(&self, record: &LinkRecord) -> Result<bool, TransferError> {
        // A list says how things are: it may be of any age.
        Ok(self.file_link(record, 0).await? == Change::Write)
    }

    /// Forgets a deletion, if that is still what is known; says whether nothing is known then.
    pub(crate) async fn forget_link(&self, deletion: &LinkDeletion) -> Result<bool, TransferError> {
        let link = link_of(&deletion.name);
        let _turn = self.turn(&link).await;
        match self.link_state(&link).await? {
            None => Ok(true),
            Some(LinkState { target: None, version }) if version <= deletion.version => {
                self.remove(&deletion_path(&link)).await?;
                Ok(true)
            }
            Some(_) => Ok(false),
        }
    }

    /// Sends every deletion that is kept. Whoever takes no more ends it.
    pub(crate) async fn send_deleted_links(
        &self,
        deleted: &mpsc::Sender<Deleted>,
    ) -> Result<(), TransferError> {
        let context = Context::default();
        let mut files = walk(&self.metadata, &context, &deletions());
        loop {
            let info = match files.next().await {
                Ok(Some(info)) => info,
                Ok(None) | Err(DriverError::PathNotFound { .. }) => return Ok(()),
                Err(error) => return Err(from_driver(error)),
            };
            if !info.is_directory
                && let Some(one) = self.read_deletion(&info.path).await?
                && deleted.send(one).await.is_err()
            {
                return Ok(());
            }
        }
    }

    /// What the file of a link says.
    pub(super) async fn filed(&self, link: &Link) -> Result<Option<(Digest, LinkVersion)>, TransferError> {
        let path = link.path().to_driver_path();
        let content = match self.metadata.get_content(&Context::default(), &path).await {
            Err(DriverError::PathNotFound { .. }) => return Ok(None),
            other => other.map_err(from_driver)?,
        };
        let text = String::from_utf8_lossy(&content);
        let (target, version) = text.trim().split_once('\n').unwrap_or((text.trim(), ""));
        let target = Digest::parse(target.trim()).map_err(|error| TransferError::Failed(error.into()))?;
        let version = match version.trim() {
            // Put by an origin that stood alone.
            "" => LinkVersion::default(),
            version => serde_json::from_str(version).map_err(|error| TransferError::Failed(error.into()))?,
        };
        Ok(Some((target, version)))
    }

    async fn deleted(&self, link: &Link) -> Result<Option<Deleted>, TransferError> {
        self.read_deletion(&deletion_path(link)).await
    }

    async fn read_deletion(&self, path: &DriverPath) -> Result<Option<Deleted>, TransferError> {
        match self.metadata.get_content(&Context::default(), path).await {
            Err(DriverError::PathNotFound { .. }) => Ok(None),
            content => {
                let content = content.map_err(from_driver)?;
                let deleted = serde_json::from_slice(&content);
                deleted.map(Some).map_err(|error| TransferError::Failed(error.into()))
            }
        }
    }

    /// The file of the link first: a crash in between leaves a deletion that is older than it, and does no harm.
    async fn write_link(&self, record: &LinkRecord, known: Option<LinkState>) -> Result<(), TransferError> {
        let link = link_of(&record.name);
        let version = serde_json::to_string(&record.version).expect("a version is plain values");
        let content = Bytes::from(format!("{}\n{version}", record.target));
        let path = link.path().to_driver_path();
        self.metadata.put_content(&Context::default(), &path, content).await.map_err(from_driver)?;
        if known.is_some() {
            self.remove(&deletion_path(&link)).await?;
        }
        Ok(())
    }

    async fn remove(&self, path: &DriverPath) -> Result<(), TransferError> {
        match self.metadata.delete(&Context::default(), path).await {
            Ok(()) | Err(DriverError::PathNotFound { .. }) => Ok(()),
            Err(error) => Err(from_driver(error)),
        }
    }
}

/// What an origin says to a change.
pub(crate) fn answer(change: Change, holds: bool) -> LinkAnswer {
    match change {
        Change::Write | Change::Known => LinkAnswer::Done { holds },
        Change::Refused(version) => LinkAnswer::Refused(version),
    }
}

/// Beside the registry's own tree.
fn deletions() -> DriverPath {
    DriverPath::parse("/deleted-links").expect("a name under the root")
}

/// By the name's digest: repositories have names within each other.
fn deletion_path(link: &Link) -> DriverPath {
    let LinkName { repository, to, digest } = name_of(link);
    let to = match to {
        LinkTo::Layer => "layer",
        LinkTo::Revision => "revision",
    };
    let hex = Digest::sha256(format!("{to} {repository} {digest}").as_bytes()).hex();
    DriverPath::parse(&format!("{}/{}/{hex}", deletions(), &hex[..2])).expect("made of hexadecimal digits")
}

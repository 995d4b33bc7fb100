use shoal_control::cluster::message::{
    LinkDeletion, LinkRecord, TagBallot, TagEntry, TagName, TagPromise, TagRecord, TagValue, TagVote,
};
use shoal_core::{Digest, PeerId, RepositoryName, Tag};
use shoal_driver::{FilesystemDriver, StorageDriver as _, TagExpectation};

use super::*;

fn records() -> (tempfile::TempDir, Records) {
    let directory = tempfile::tempdir().unwrap();
    let records = Records::new(FilesystemDriver::new(directory.path()));
    (directory, records)
}

fn app() -> RepositoryName {
    RepositoryName::parse("team/app").unwrap()
}

fn latest() -> TagName {
    TagName { repository: app(), tag: Tag::parse("latest").unwrap() }
}

fn version(stamp: u64) -> TagVersion {
    TagVersion { stamp, by: Some(PeerId::from_public_key([7; 32])) }
}

fn vote(stamp: u64, content: Option<&[u8]>) -> TagVote {
    let value = TagValue { digest: content.map(Digest::sha256), version: version(stamp), before: vec![] };
    TagVote { ballot: version(stamp), value }
}

fn record(vote: TagVote) -> TagRecord {
    TagRecord { name: latest(), vote }
}

fn ballot(stamp: u64) -> TagBallot {
    TagBallot { name: latest(), ballot: version(stamp) }
}

#[tokio::test]
async fn the_newest_vote_is_kept_in_whatever_order_they_come() {
    let (_directory, records) = records();
    let (old, new, newest) = (vote(1, Some(b"old")), vote(2, Some(b"new")), vote(3, Some(b"newest")));
    assert_eq!(records.accept(&record(new.clone())).await.unwrap(), TagAcceptance::Accepted);
    assert_eq!(records.accept(&record(old.clone())).await.unwrap(), TagAcceptance::Refused(version(2)));
    assert!(!records.learn(&MetadataRecord::Tag(record(old))).await.unwrap());
    assert_eq!(records.vote(&latest()).await.unwrap(), Some(new));
    assert!(records.learn(&MetadataRecord::Tag(record(newest.clone()))).await.unwrap());
    assert_eq!(records.vote(&latest()).await.unwrap(), Some(newest));
}

#[tokio::test]
async fn what_was_promised_and_voted_is_so_after_a_restart() {
    let (directory, records) = records();
    let voted = vote(5, Some(b"manifest"));
    records.accept(&record(voted.clone())).await.unwrap();
    assert_eq!(records.promise(&ballot(9)).await.unwrap(), TagPromise::Promised(Some(voted.clone())));
    drop(records);
    let records = Records::new(FilesystemDriver::new(directory.path()));
    assert_eq!(records.promise(&ballot(9)).await.unwrap(), TagPromise::Refused(version(9)));
    assert_eq!(records.accept(&record(vote(8, None))).await.unwrap(), TagAcceptance::Refused(version(9)));
    assert_eq!(records.vote(&latest()).await.unwrap(), Some(voted));
}

#[tokio::test]
async fn any_ballot_surpasses_a_tag_from_before_the_cluster() {
    let (_directory, records) = records();
    records.put_tag(&latest(), &Digest::sha256(b"before"), &TagExpectation::anything()).await.unwrap();
    let before = records.vote(&latest()).await.unwrap();
    assert_eq!(before, Some(TagVote::before_the_cluster(Digest::sha256(b"before"))));
    assert_eq!(records.promise(&ballot(1)).await.unwrap(), TagPromise::Promised(before));
    assert_eq!(records.accept(&record(vote(1, Some(b"after")))).await.unwrap(), TagAcceptance::Accepted);
    assert_eq!(records.read_tag(&latest()).await.unwrap(), Digest::sha256(b"after"));
}

#[tokio::test]
async fn a_deleted_tag_is_listed_as_that_until_it_is_forgotten_and_never_comes_back_by_an_older_vote() {
    let (directory, records) = records();
    records.accept(&record(vote(1, Some(b"manifest")))).await.unwrap();
    records.accept(&record(vote(4, None))).await.unwrap();
    assert!(records.list_tags(&app()).await.unwrap().is_empty());
    let listed = TagEntry { tag: latest().tag, ballot: version(4), named: false };
    assert_eq!(records.tag_entries(&app()).await.unwrap(), [listed]);
    assert!(!records.learn(&MetadataRecord::Tag(record(vote(3, Some(b"older"))))).await.unwrap());

    assert!(!records.forget_tag(&ballot(3)).await.unwrap(), "that is not its vote");
    assert!(records.forget_tag(&ballot(4)).await.unwrap());
    assert!(records.vote(&latest()).await.unwrap().is_none());
    drop(records);
    let records = Records::new(FilesystemDriver::new(directory.path()));
    for stamp in [1, 4] {
        let promised = records.promise(&ballot(stamp)).await.unwrap();
        assert_eq!(promised, TagPromise::Refused(version(4)));
    }
    let refused = records.accept(&record(vote(3, Some(b"older")))).await.unwrap();
    assert_eq!(refused, TagAcceptance::Refused(version(4)));
    assert_eq!(records.promise(&ballot(5)).await.unwrap(), TagPromise::Promised(None));
    assert!(!records.forget_tag(&ballot(4)).await.unwrap());
    assert!(records.forget_tag(&ballot(5)).await.unwrap(), "a promise without a vote");
}

#[tokio::test]
async fn a_tag_that_names_something_is_not_forgotten() {
    let (_directory, records) = records();
    records.accept(&record(vote(1, Some(b"manifest")))).await.unwrap();
    assert!(!records.forget_tag(&ballot(1)).await.unwrap());
    assert_eq!(records.list_tags(&app()).await.unwrap(), [latest().tag]);
}

fn link(kind: LinkKind) -> Link {
    Link { repository: app(), kind, digest: Digest::sha256(b"layer") }
}

fn put(link: &Link, stamp: u64) -> LinkRecord {
    LinkRecord { name: name_of(link), target: link.digest, version: version(stamp) }
}

#[tokio::test]
async fn what_was_deleted_comes_back_by_a_push_and_not_by_an_older_list() {
    let (directory, records) = records();
    let layer = link(LinkKind::Layer);
    let listed = MetadataRecord::Link(put(&layer, 5));
    assert!(records.learn(&listed).await.unwrap());

    let deletion = LinkDeletion { name: name_of(&layer), version: version(5) };
    assert_eq!(records.delete_link(&deletion, 7).await.unwrap(), (Change::Write, Some(layer.digest)));
    assert!(!records.learn(&listed).await.unwrap());
    drop(records);
    let records = Records::new(FilesystemDriver::new(directory.path()));
    assert!(!records.learn(&listed).await.unwrap(), "a restart forgets it");
    assert!(records.link(&layer).await.is_err());
    assert_eq!(records.delete_link(&deletion, 8).await.unwrap(), (Change::Known, None));

    assert_eq!(records.put_link(&put(&layer, 6), 6).await.unwrap(), Change::Write);
    assert_eq!(records.link(&layer).await.unwrap(), layer.digest);
    assert!(!records.learn(&MetadataRecord::Unlinked(deletion.clone())).await.unwrap());
    assert_eq!(
        records.delete_link(&deletion, 9).await.unwrap(),
        (Change::Refused(version(6)), Some(layer.digest))
    );
    assert_eq!(records.link(&layer).await.unwrap(), layer.digest);
}

#[tokio::test]
async fn a_deletion_is_told_until_it_is_forgotten() {
    let (_directory, records) = records();
    let (records, layer) = (std::sync::Arc::new(records), link(LinkKind::Layer));
    let deletion = LinkDeletion { name: name_of(&layer), version: version(5) };
    records.delete_link(&deletion, 7).await.unwrap();
    let told = async |records: &std::sync::Arc<Records>| {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(9);
        records.clone().send_all(sender).await.unwrap();
        receiver.recv().await.unwrap()
    };
    assert_eq!(told(&records).await, MetadataRecord::Unlinked(deletion.clone()));
    let older = LinkDeletion { version: version(4), ..deletion.clone() };
    assert!(!records.forget_link(&older).await.unwrap());
    assert!(records.forget_link(&deletion).await.unwrap());
    assert_eq!(told(&records).await, MetadataRecord::End);
    assert_eq!(records.link_state(&layer).await.unwrap(), None);
}

#[tokio::test]
async fn a_link_from_before_the_cluster_is_the_oldest() {
    let (directory, records) = records();
    let layer = link(LinkKind::Layer);
    let files = FilesystemDriver::new(directory.path());
    let content = layer.digest.to_string().into();
    files
        .put_content(&shoal_driver::Context::default(), &layer.path().to_driver_path(), content)
        .await
        .unwrap();
    let state = records.link_state(&layer).await.unwrap().unwrap();
    assert_eq!((state.target, state.version), (Some(layer.digest), TagVersion::default()));
    assert_eq!(records.put_link(&put(&layer, 1), 1).await.unwrap(), Change::Write);
    assert_eq!(records.link_state(&layer).await.unwrap().unwrap().version, version(1));
}

#[tokio::test]
async fn the_list_has_every_record_and_an_end() {
    let (_directory, records) = records();
    let records = std::sync::Arc::new(records);
    let tag = record(vote(5, Some(b"manifest")));
    records.accept(&tag).await.unwrap();
    let mut expected = vec![MetadataRecord::Tag(tag)];
    for kind in [LinkKind::Layer, LinkKind::Revision] {
        let put = put(&link(kind), 5);
        records.put_link(&put, 5).await.unwrap();
        expected.push(MetadataRecord::Link(put));
    }
    assert_eq!(records.linked().await.unwrap(), [Digest::sha256(b"layer")].into());
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    let sending = tokio::spawn(records.send_all(sender));
    let mut listed = Vec::new();
    while let Some(record) = receiver.recv().await {
        listed.push(record);
    }
    sending.await.unwrap().unwrap();
    assert_eq!(listed.pop(), Some(MetadataRecord::End));
    assert_eq!(listed.len(), expected.len());
    assert!(expected.iter().all(|record| listed.contains(record)));
}

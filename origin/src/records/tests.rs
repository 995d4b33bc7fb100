use shoal_driver::FilesystemDriver;

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

fn value(stamp: u64, content: &[u8]) -> TagValue {
    let by = Some(PeerId::from_public_key([7; 32]));
    TagValue { digest: Digest::sha256(content), version: TagVersion { stamp, by } }
}

fn record(value: TagValue) -> TagRecord {
    TagRecord { name: latest(), value }
}

#[tokio::test]
async fn the_newest_version_of_a_tag_is_kept_in_whatever_order_they_come() {
    let (_directory, records) = records();
    let (old, new, newest) = (value(1, b"old"), value(2, b"new"), value(3, b"newest"));
    assert_eq!(records.keep_tag(&record(new)).await.unwrap(), new);
    assert_eq!(records.keep_tag(&record(old)).await.unwrap(), new);
    assert!(!records.learn(&MetadataRecord::Tag(record(old))).await.unwrap());
    assert_eq!(records.tag(&latest()).await.unwrap(), new);
    assert!(records.learn(&MetadataRecord::Tag(record(newest))).await.unwrap());
    assert_eq!(records.tag(&latest()).await.unwrap(), newest);
}

#[tokio::test]
async fn any_version_is_newer_than_a_tag_from_before_the_cluster() {
    let (_directory, records) = records();
    records.put_tag(&latest(), &Digest::sha256(b"before")).await.unwrap();
    assert_eq!(records.tag(&latest()).await.unwrap().version, TagVersion::default());
    let value = value(1, b"after");
    assert_eq!(records.keep_tag(&record(value)).await.unwrap(), value);
}

#[tokio::test]
async fn what_was_deleted_comes_back_by_a_push_and_not_by_an_older_list() {
    let (_directory, records) = records();
    let (tag, digest) = (record(value(1, b"manifest")), Digest::sha256(b"layer"));
    let link = Link { repository: app(), kind: LinkKind::Layer, digest };
    let listed = MetadataRecord::Link(LinkRecord { name: name_of(&link), target: digest });
    records.keep_tag(&tag).await.unwrap();
    assert!(records.learn(&listed).await.unwrap());

    records.delete_tag(&latest()).await.unwrap();
    assert!(records.delete_link(&link).await.unwrap());
    assert!(!records.learn(&listed).await.unwrap());
    assert!(!records.learn(&MetadataRecord::Tag(tag.clone())).await.unwrap());
    assert!(records.link(&link).await.is_err() && records.tag(&latest()).await.is_err());

    records.put_link(&link, &digest).await.unwrap();
    records.keep_tag(&tag).await.unwrap();
    assert_eq!(records.link(&link).await.unwrap(), digest);
    assert_eq!(records.tag(&latest()).await.unwrap(), tag.value);
}

#[tokio::test]
async fn the_list_has_every_record_and_an_end() {
    let (_directory, records) = records();
    let records = std::sync::Arc::new(records);
    let digest = Digest::sha256(b"layer");
    let tag = record(value(5, b"manifest"));
    records.keep_tag(&tag).await.unwrap();
    let mut expected = vec![MetadataRecord::Tag(tag)];
    for kind in [LinkKind::Layer, LinkKind::Revision] {
        let link = Link { repository: app(), kind, digest };
        records.put_link(&link, &digest).await.unwrap();
        expected.push(MetadataRecord::Link(LinkRecord { name: name_of(&link), target: digest }));
    }
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

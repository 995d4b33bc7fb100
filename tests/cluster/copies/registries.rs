//! From one registry to another, tags and deletes.

use super::rig::{INDEX_TYPE, Index, Stock, User};
use crate::process::Processes;

#[tokio::test(flavor = "multi_thread")]
async fn an_index_goes_to_the_stock_registry_and_back_bit_by_bit() {
    let Some(stock) = Stock::start().await else { return };
    let cluster = Processes::start().await;
    let index = Index::push(&cluster.origin.client(), "team/app", "1").await;
    let user = User::logged_in(&[stock.address]);
    let (ours, theirs) = (cluster.origin.registry(), stock.address);

    let there = user.does(&["copy", &format!("{ours}/team/app:1"), &format!("{theirs}/copy/app:1")]);
    assert_eq!(there["digest"], index.digest());
    assert_eq!((&there["media_type"], &there["manifests"]), (&INDEX_TYPE.into(), &3.into()));
    assert_eq!((&there["blobs"], &there["present"]), (&index.blobs().into(), &0.into()));

    let again = user.does(&["copy", &format!("{ours}/team/app:1"), &format!("{theirs}/copy/app:1")]);
    assert_eq!((&again["present"], &again["moved_bytes"]), (&index.blobs().into(), &0.into()));

    let within = user.does(&["copy", &format!("{theirs}/copy/app:1"), &format!("{theirs}/other/app:1")]);
    assert_eq!((&within["mounted"], &within["moved_bytes"]), (&index.blobs().into(), &0.into()));

    let back = user.does(&["copy", &format!("{theirs}/other/app:1"), &format!("{ours}/back/app:1")]);
    assert_eq!(back["digest"], index.digest());
    let pulled = cluster.origin.client().pull_manifest("back/app", "1").await.unwrap();
    assert_eq!(pulled, index.bytes);
    for image in &index.images {
        for layer in &image.layers {
            cluster.origin.client().pull_blob("back/app", &layer.digest, |_| ()).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_platform_is_an_image_of_its_own() {
    let cluster = Processes::start().await;
    let index = Index::push(&cluster.origin.client(), "team/app", "1").await;
    let (user, ours) = (User::logged_in(&[]), cluster.origin.registry());
    let from = format!("{ours}/team/app:1");
    let one = user.does(&["copy", "--platform", "linux/arm64", &from, &format!("{ours}/arm/app:1")]);
    assert_eq!(one["digest"], shoal_core::Digest::sha256(&index.images[1].manifest).to_string());
    assert_eq!((&one["mounted"], &one["blobs"]), (&4.into(), &4.into()));
    let (code, said) = user.fails(&["copy", "--platform", "linux/s390x", &from, &format!("{ours}/z/app:1")]);
    assert_eq!(code, 1);
    assert!(said.contains("linux/amd64, linux/arm64"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_have_exit_codes_and_say_what_to_do() {
    let Some(stock) = Stock::start().await else { return };
    let cluster = Processes::start().await;
    Index::push(&cluster.origin.client(), "team/app", "1").await;
    let (ours, theirs) = (cluster.origin.registry(), stock.address);
    let stranger = User::logged_in(&[]);
    let (code, said) = stranger.fails(&["copy", &format!("{ours}/team/app:1"), &format!("{theirs}/a/b:1")]);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("docker login") && !said.contains("secret"), "{said}");
    let (code, said) =
        stranger.fails(&["copy", &format!("{ours}/team/app:absent"), &format!("{ours}/a/b:1")]);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("manifests/absent"), "{said}");
    let (code, _) = stranger.fails(&["tag", "127.0.0.1:1/a/b:1", "2"]);
    assert_eq!(code, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_are_given_and_taken() {
    let cluster = Processes::start().await;
    let index = Index::push(&cluster.origin.client(), "team/app", "1").await;
    let (user, ours) = (User::logged_in(&[]), cluster.origin.registry());
    let tagged = user.does(&["tag", &format!("{ours}/team/app:1"), "stable"]);
    assert_eq!(tagged["digest"], index.digest());
    let client = cluster.origin.client();
    assert_eq!(client.pull_manifest("team/app", "stable").await.unwrap(), index.bytes);
    user.does(&["delete", &format!("{ours}/team/app:stable")]);
    assert!(client.pull_manifest("team/app", "stable").await.is_err());
    assert_eq!(client.pull_manifest("team/app", "1").await.unwrap(), index.bytes);
    let (code, _) = user.fails(&["delete", &format!("{ours}/team/app:stable")]);
    assert_eq!(code, 3);
    let (_, said) = user.fails(&["delete", &format!("{ours}/team/app")]);
    assert!(said.contains("whole repository"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn referrers_go_along_to_registries_with_and_without_the_api() {
    let Some(stock) = Stock::start().await else { return };
    let cluster = Processes::start().await;
    let client = cluster.origin.client();
    let index = Index::push(&client, "team/app", "1").await;
    let empty = shoal_core::Digest::sha256(b"{}");
    client.push_blob("team/app", &empty, futures_util::stream::iter([Ok("{}".into())])).await.unwrap();
    let descriptor =
        serde_json::json!({ "mediaType": "application/vnd.oci.empty.v1+json", "digest": empty, "size": 2 });
    let signature = serde_json::json!({
        "schemaVersion": 2, "mediaType": shoal::image::MANIFEST_TYPE, "artifactType": "application/x.signature",
        "config": descriptor, "layers": [descriptor],
        "subject": { "mediaType": INDEX_TYPE, "digest": index.digest(), "size": index.bytes.len() },
    })
    .to_string();
    let digest = shoal_core::Digest::sha256(signature.as_bytes()).to_string();
    client.push_manifest("team/app", &digest, shoal::image::MANIFEST_TYPE, signature.into()).await.unwrap();

    let user = User::logged_in(&[stock.address]);
    let (ours, theirs) = (cluster.origin.registry(), stock.address);
    let there =
        user.does(&["copy", "--referrers", &format!("{ours}/team/app:1"), &format!("{theirs}/copy/app:1")]);
    assert_eq!(there["manifests"], 4);
    // The stock registry has no such API: the way back goes by the tag that was left there.
    let back =
        user.does(&["copy", "--referrers", &format!("{theirs}/copy/app:1"), &format!("{ours}/back/app:1")]);
    assert_eq!(back["manifests"], 4);
    assert!(client.pull_manifest("back/app", &digest).await.is_ok());
    user.does(&["pull", "--referrers", &format!("{ours}/back/app:1"), "oci:folder"]);
    let filed = user.does(&["push", "--referrers", "oci:folder", &format!("{ours}/filed/app:1")]);
    assert_eq!((&filed["manifests"], &filed["digest"]), (&4.into(), &index.digest().into()));
    assert!(client.pull_manifest("filed/app", &digest).await.is_ok());
}

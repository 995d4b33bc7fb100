//! Upstreams that lie, lead elsewhere, or want what they are not to have.

use shoal::image::Image;
use shoal_core::Digest;

use super::super::rig::{COUNT, Rig, in_time, pull};
use super::fake::{Behaviour, Fake};
use super::{APP, ask, upstream, with_upstream};
use crate::support::MIB;

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_never_a_blob_and_the_right_ones_are_afterwards() {
    let keys = "[refill]\nbar = \"1s\"\nremember = \"100ms\"\n";
    let (rig, fake, image) = with_upstream(keys, 3 * MIB, 910).await;
    let (client, layer) = (rig.client(0), image.layers[0].digest);
    client.pull_manifest(APP, "1").await.unwrap();
    fake.behave(Behaviour::Wrong);
    client.pull_blob(APP, &layer, |_| ()).await.unwrap_err();
    assert_eq!(rig.copies(&layer), 0);
    fake.behave(Behaviour::Honest);
    in_time("the right blob", async || client.pull_blob(APP, &layer, |_| ()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_to_where_clouds_keep_their_secrets_is_not_followed() {
    let (rig, fake, image) = with_upstream("", MIB, 911).await;
    rig.client(0).pull_manifest(APP, "1").await.unwrap();
    fake.behave(Behaviour::Redirect("http://169.254.169.254/latest/meta-data/".to_owned()));
    let layer = image.layers[0].digest;
    rig.client(0).pull_blob(APP, &layer, |_| ()).await.unwrap_err();
    let warned = (0..COUNT).flat_map(|place| rig.origin(place).complaints());
    let warned: Vec<_> = warned.filter(|line| line.contains("not followed")).collect();
    assert!(!warned.is_empty(), "nobody said why");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_server_elsewhere_is_shown_no_password() {
    let (fake, elsewhere) = (Fake::start().await, Fake::start().await);
    let image = Image::generate(MIB, 1, 912);
    fake.has("team/app", "1", &image);
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, "hunter2\n").unwrap();
    let keys = format!("username = \"me\"\npassword_file = {password:?}");
    let rig = Rig::start_configured(COUNT, &(upstream(fake.address, &keys))).await;
    fake.behave(Behaviour::Realm(format!("http://{}/token", elsewhere.address)));
    let (status, _, text) = ask(rig.origin(0), APP, "1").await;
    assert_eq!(status, 404, "{text}");
    assert!(!text.contains("hunter2"));
    assert!(!fake.asked().is_empty());
    assert!(elsewhere.asked().iter().all(|asked| asked.authorization.is_none()), "{:?}", elsewhere.asked());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_manifest_is_unknown_and_is_not_asked_for_again_at_once() {
    let (rig, fake, image) = with_upstream("", MIB, 913).await;
    fake.behave(Behaviour::Huge);
    for place in 0..COUNT {
        assert_eq!(ask(rig.origin(place), APP, "1").await.0, 404);
        let digest = Digest::sha256(&image.manifest).to_string();
        assert_eq!(ask(rig.origin(place), APP, &digest).await.0, 404);
    }
    assert_eq!(fake.count("GET", "/manifests/"), 1, "{:#?}", fake.asked());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_upstream_does_not_have_is_unknown_and_asked_for_once() {
    let (rig, fake, _) = with_upstream("", MIB, 914).await;
    let absent = Digest::sha256(b"absent").to_string();
    for round in 0..2 {
        for place in 0..COUNT {
            let (status, _, text) = ask(rig.origin(place), APP, "absent").await;
            assert_eq!(status, 404, "{text}");
            assert!(text.contains("MANIFEST_UNKNOWN"), "round {round}: {text}");
            assert_eq!(ask(rig.origin(place), APP, &absent).await.0, 404);
            let blob = rig.client(place).get(&format!("v2/{APP}/blobs/{absent}")).await.unwrap();
            assert_eq!(blob.status(), 404);
        }
    }
    assert_eq!(fake.count("HEAD", "/manifests/absent"), 1, "{:#?}", fake.asked());
    assert_eq!(fake.count("GET", "/manifests/"), 1);
    assert_eq!(fake.count("", "/blobs/"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_for_others_is_not_given_unless_the_upstream_names_it() {
    let (rig, fake, image) = with_upstream("", MIB, 915).await;
    let secret = Image::generate(MIB, 1, 916);
    rig.client(0).push("private/app", "1", &secret, |_| ()).await.unwrap();
    pull(&rig.client(0), APP, "1", &image).await.unwrap();
    for place in 0..COUNT {
        let manifest = Digest::sha256(&secret.manifest).to_string();
        assert_eq!(ask(rig.origin(place), APP, &manifest).await.0, 404);
        let blob =
            rig.client(place).get(&format!("v2/{APP}/blobs/{}", secret.layers[0].digest)).await.unwrap();
        assert_eq!(blob.status(), 404);
    }
    assert_eq!(fake.count("GET", &secret.layers[0].digest.to_string()), 0);
}

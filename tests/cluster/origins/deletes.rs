//! Deletes of manifests and blobs with origins away: those that return do not bring anything back.

use anyhow::ensure;
use reqwest::{Method, StatusCode};
use shoal::image::{Image, MANIFEST_TYPE};
use shoal_core::Digest;

use super::rig::{COUNT, Rig, in_time, pull};

const REPOSITORY: &str = "team/deletes";

async fn ask(rig: &Rig, place: usize, method: Method, path: &str) -> StatusCode {
    let url = format!("http://{}/v2/{REPOSITORY}/{path}", rig.origin(place).registry());
    reqwest::Client::new().request(method, url).send().await.unwrap().status()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_while_an_origin_was_away_is_gone_there_too_and_can_be_pushed_again() {
    let mut rig = Rig::start().await;
    let image = Image::generate(200_000, 2, 1);
    rig.client(1).push(REPOSITORY, "latest", &image, |_| ()).await.unwrap();
    let manifest = format!("manifests/{}", Digest::sha256(&image.manifest));
    let layer = format!("blobs/{}", image.layers[0].digest);

    rig.kill(1);
    rig.all_well().await;
    for path in [&manifest, &layer] {
        assert_eq!(ask(&rig, 0, Method::DELETE, path).await, StatusCode::ACCEPTED, "{path}");
        for place in [0, 2] {
            assert_eq!(
                ask(&rig, place, Method::DELETE, path).await,
                StatusCode::NOT_FOUND,
                "{path} at {place}"
            );
            assert_eq!(ask(&rig, place, Method::GET, path).await, StatusCode::NOT_FOUND, "{path} at {place}");
        }
    }

    // The origin that has all of it, and heard of nothing.
    rig.restart(1);
    rig.all_well().await;
    for path in [&manifest, &layer] {
        in_time("the returned origin hears of it", async || {
            let found = ask(&rig, 1, Method::GET, path).await;
            ensure!(found == StatusCode::NOT_FOUND, "{path} is {found}");
            Ok(())
        })
        .await;
    }
    // Nobody can rely on what it has still filed.
    let (client, manifest_only) = (rig.client(1), image.manifest.clone());
    let pushed = client.push_manifest(REPOSITORY, "again", MANIFEST_TYPE, manifest_only).await;
    assert!(pushed.unwrap_err().to_string().contains("MANIFEST_BLOB_UNKNOWN"));

    // Once more, with another one away: what was said is with the others, too.
    rig.kill(0);
    rig.all_well().await;
    for place in [1, 2] {
        for path in [&manifest, &layer] {
            assert_eq!(ask(&rig, place, Method::GET, path).await, StatusCode::NOT_FOUND, "{path} at {place}");
        }
    }
    rig.client(2).push(REPOSITORY, "latest", &image, |_| ()).await.unwrap();
    rig.restart(0);
    rig.all_well().await;
    for place in 0..COUNT {
        in_time("what was pushed again", async || {
            pull(&rig.client(place), REPOSITORY, "latest", &image).await
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_is_switched_to_read_only_serves_pulls_and_the_others_take_pushes() {
    let rig = Rig::start().await;
    let image = Image::generate(100_000, 1, 1);
    rig.client(0).push(REPOSITORY, "latest", &image, |_| ()).await.unwrap();
    let admin = rig.origin(0).admin_address().to_string();
    let switched = crate::process::shoal(&["read-only", "on", "--admin", &admin]);
    assert!(switched.contains("read only"), "{switched}");
    for (method, path) in [
        (Method::POST, "blobs/uploads/".to_owned()),
        (Method::PUT, "manifests/latest".to_owned()),
        (Method::DELETE, format!("manifests/{}", Digest::sha256(&image.manifest))),
    ] {
        assert_eq!(ask(&rig, 0, method, &path).await, StatusCode::METHOD_NOT_ALLOWED, "{path}");
    }
    pull(&rig.client(0), REPOSITORY, "latest", &image).await.unwrap();
    let next = Image::generate(100_000, 1, 2);
    rig.client(1).push(REPOSITORY, "next", &next, |_| ()).await.unwrap();
    pull(&rig.client(0), REPOSITORY, "next", &next).await.unwrap();
    crate::process::shoal(&["read-only", "off", "--admin", &admin]);
    rig.client(0).push(REPOSITORY, "again", &next, |_| ()).await.unwrap();
}

//! By which names what an upstream has is asked for, and what is refused.

use shoal_core::Digest;

use super::super::rig::COUNT;
use super::fake::Fake;
use super::{APP, HUB, ask, with_upstream};
use crate::process::{free_port, stored};
use crate::support::MIB;

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_is_found_by_query_by_prefix_and_at_its_own_port() {
    let fake = Fake::start().await;
    let image = shoal::image::Image::generate(MIB, 1, 920);
    fake.has("library/app", "1", &image);
    let port = free_port();
    // As Docker Hub is called, whose names of one part are below library/.
    let keys = format!(
        "[[upstream]]\nname = \"docker.io\"\nurl = \"http://{}\"\nrepositories = [\"library/*\"]\nlisten = \"127.0.0.1:{port}\"\nprefix = \"hub\"\n",
        fake.address
    );
    let origins = crate::process::Processes::start_with(&keys).await;
    let client = origins.origin.client();
    for path in ["v2/library/app/manifests/1?ns=docker.io", "v2/app/manifests/1?ns=docker.io"] {
        assert_eq!(client.get(path).await.unwrap().bytes().await.unwrap(), image.manifest, "{path}");
    }
    for name in ["docker.io/library/app", "docker.io/app", "hub/library/app"] {
        assert_eq!(client.pull_manifest(name, "1").await.unwrap(), image.manifest, "{name}");
    }
    // As docker asks a mirror.
    let mirror = shoal::client::Client::new(format!("127.0.0.1:{port}")).unwrap();
    assert_eq!(mirror.pull_manifest("library/app", "1").await.unwrap(), image.manifest);
    mirror.pull_blob("library/app", &image.layers[0].digest, |_| ()).await.unwrap();
    assert_eq!(fake.count("GET", "/manifests/"), 1, "{:#?}", fake.asked());
    assert_eq!(fake.count("HEAD", "/manifests/"), 1);
    assert_eq!(client.get("v2/a/manifests/1?ns=other.example").await.unwrap().status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_pushes_to_an_upstreams_repository_and_what_may_not_be_pulled_is_not_asked_for() {
    let (rig, fake, image) = with_upstream("", MIB, 921).await;
    fake.has("secret/app", "1", &image);
    let refused = rig.client(0).push(APP, "1", &image, |_| ()).await.unwrap_err().to_string();
    assert!(refused.contains("405") && refused.contains(HUB), "{refused}");
    let put =
        rig.client(0).push_manifest(APP, "2", shoal::image::MANIFEST_TYPE, image.manifest.clone()).await;
    assert!(put.unwrap_err().to_string().contains("push to hub.example itself"));
    for place in 0..COUNT {
        assert_eq!(ask(rig.origin(place), "hub.example/secret/app", "1").await.0, 404);
        let digest = Digest::sha256(&image.manifest).to_string();
        assert_eq!(ask(rig.origin(place), "hub.example/secret/app", &digest).await.0, 404);
    }
    assert_eq!(fake.asked().len(), 0, "{:?}", fake.asked());
}

#[test]
fn an_upstream_that_cannot_be_used_is_said_at_the_start() {
    shoal_identity::install_crypto_provider();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("origin.toml");
    let head = "tracker = [\"https://127.0.0.1:1\"]\n";
    let tail = stored(folder.path(), "origin", "");
    let upstream = "[[upstream]]\nname = \"docker.io\"\n";
    std::fs::write(&file, format!("{head}{tail}[identity]\ndirectory = \"/none\"\n{upstream}")).unwrap();
    let error = shoal::config::load::<shoal_origin::Config>(&file, &[]).unwrap_err();
    assert!(format!("{error:#}").contains("repositories"), "{error:#}");
}

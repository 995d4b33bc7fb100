//! Between registries and files.

use serde_json::json;

use super::rig::{Index, User, layout_blobs};
use crate::process::Processes;

#[tokio::test(flavor = "multi_thread")]
async fn layouts_and_archives_come_back_bit_by_bit() {
    let cluster = Processes::start().await;
    let index = Index::push(&cluster.origin.client(), "team/app", "1").await;
    let agent = cluster.agent("agent").await;
    let (user, origin) = (User::logged_in(&[]), cluster.origin.registry());
    let from = format!("{}/team/app:1", agent.registry());
    for (form, to) in [("oci", "oci:folder:one"), ("archive", "oci-archive:image.tar:one")] {
        let pulled = user.does(&["pull", &from, to]);
        assert_eq!(pulled["digest"], index.digest(), "{form}");
        let pushed = user.does(&["push", to, &format!("{origin}/{form}/app:2")]);
        assert_eq!(pushed["digest"], index.digest(), "{form}");
        let there = cluster.origin.client().pull_manifest(&format!("{form}/app"), "2").await.unwrap();
        assert_eq!(there, index.bytes, "{form}");
    }
    assert_eq!(layout_blobs(&user.path("folder")).len() as u64, index.blobs() + 3);
    assert!(!user.path("image.tar.partial").exists());

    // A second name in the same layout, and the same again.
    user.does(&["pull", "--platform", "linux/amd64", &from, "oci:folder:two"]);
    let again = user.does(&["pull", &from, "oci:folder:one"]);
    assert_eq!(again["moved_bytes"], 0);
    let (_, said) = user.fails(&["push", "oci:folder", &format!("{origin}/x/app:1")]);
    assert!(said.contains("one, two") || said.contains("two, one"), "{said}");
    let (_, said) = user.fails(&["pull", &from, "oci-archive:image.tar"]);
    assert!(said.contains("there already"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_docker_archive_keeps_configuration_and_layers() {
    let cluster = Processes::start().await;
    let index = Index::push(&cluster.origin.client(), "team/app", "1").await;
    let (user, origin) = (User::logged_in(&[]), cluster.origin.registry());
    let from = format!("{origin}/team/app:1");
    let (_, said) = user.fails(&["pull", &from, "docker-archive:saved.tar"]);
    assert!(said.contains("--platform linux/amd64"), "{said}");
    user.does(&["pull", "--platform", "linux/amd64", &from, "docker-archive:saved.tar:team/app:1"]);
    user.does(&["push", "docker-archive:saved.tar:team/app:1", &format!("{origin}/saved/app:1")]);
    let manifest = cluster.origin.client().pull_manifest("saved/app", "1").await.unwrap();
    let image = &index.images[0];
    let named = |bytes: &[u8]| {
        let manifest: serde_json::Value = serde_json::from_slice(bytes).unwrap();
        let digests = |list: &serde_json::Value| {
            list.as_array().unwrap().iter().map(|layer| layer["digest"].clone()).collect::<Vec<_>>()
        };
        (manifest["config"]["digest"].clone(), digests(&manifest["layers"]))
    };
    assert_eq!(named(&manifest), named(&image.manifest));
}

/// Each is a layout that somebody else made.
#[tokio::test(flavor = "multi_thread")]
async fn a_layout_that_lies_is_refused_and_names_nothing() {
    let cluster = Processes::start().await;
    Index::push(&cluster.origin.client(), "team/app", "1").await;
    let (user, origin) = (User::logged_in(&[]), cluster.origin.registry());
    let spoil = |name: &str, how: &dyn Fn(&std::path::Path)| {
        let from = format!("{origin}/team/app:1");
        user.does(&["pull", "--platform", "linux/amd64", &from, &format!("oci:{name}")]);
        how(&user.path(name));
        let (_, said) = user.fails(&["push", &format!("oci:{name}"), &format!("{origin}/spoiled/{name}:1")]);
        said
    };
    let largest = |folder: &std::path::Path| {
        let blobs =
            std::fs::read_dir(folder.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path());
        blobs.max_by_key(|path| std::fs::metadata(path).unwrap().len()).unwrap()
    };
    let said = spoil("bytes", &|folder| {
        let path = largest(folder);
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(path, bytes).unwrap();
    });
    assert!(said.contains("have digest"), "{said}");
    let said = spoil("length", &|folder| {
        let path = largest(folder);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(path, &bytes[1..]).unwrap();
    });
    assert!(said.contains("its descriptor says"), "{said}");
    let said = spoil("link", &|folder| {
        let path = largest(folder);
        let elsewhere = folder.parent().unwrap().join("elsewhere");
        std::fs::rename(&path, &elsewhere).unwrap();
        std::os::unix::fs::symlink(elsewhere, path).unwrap();
    });
    assert!(said.contains("link out of"), "{said}");
    let said = spoil("gone", &|folder| std::fs::remove_file(largest(folder)).unwrap());
    assert!(said.contains("has no blobs/sha256/"), "{said}");
    let said = spoil("index", &|folder| {
        let entry = json!({ "mediaType": "application/vnd.oci.image.index.v1+json", "size": 2, "digest": shoal_core::Digest::sha256(b"{}") });
        std::fs::write(
            folder.join("index.json"),
            json!({ "schemaVersion": 2, "manifests": [entry] }).to_string(),
        )
        .unwrap();
    });
    assert!(said.contains("there is no blobs/sha256/"), "{said}");
    for name in ["bytes", "length", "link", "gone", "index"] {
        let tag = cluster.origin.client().get(&format!("v2/spoiled/{name}/manifests/1")).await.unwrap();
        assert_eq!(tag.status(), 404, "{name}");
    }
}

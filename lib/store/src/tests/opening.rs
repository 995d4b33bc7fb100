//! What a start makes of a directory, in order or not.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use shoal_core::{Digest, PieceIndex};

use crate::layout::PartialFile;
use crate::testing::{MIB, Scene, content, files, open, read_to_end, signed, write};
use crate::{Config, OpenError, Store};

#[tokio::test]
async fn a_second_process_on_the_same_directory_is_refused() {
    let scene = Scene::open().await;
    let config = Config { directory: scene.directory.path().to_owned() };
    let Err(error @ OpenError::Locked { .. }) = Store::open(config).await else { panic!("two have it") };
    let message = error.to_string();
    assert!(message.contains(&std::process::id().to_string()), "{message}");
    assert!(message.contains(scene.directory.path().to_str().unwrap()), "{message}");
}

#[tokio::test]
async fn a_closed_or_dropped_store_gives_its_directory_free() {
    let scene = Scene::open().await;
    let partial = scene.create(b"held on to").await;
    scene.store.close().await;
    let second = open(scene.directory.path()).await;
    drop(second);
    open(scene.directory.path()).await;
    drop(partial);
}

#[tokio::test]
async fn only_this_user_may_look_in() {
    let scene = Scene::open().await;
    scene.put(b"private").await;
    let hex = Digest::sha256(b"private").hex();
    for name in ["blobs", "blobs/sha256", &format!("blobs/sha256/{}", &hex[..2]), "incoming", "partial"] {
        let mode = fs::metadata(scene.directory.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{name}");
    }
}

#[tokio::test]
async fn a_restart_is_warm() {
    let mut scene = Scene::open().await;
    let (whole, half) = (content(MIB + 1, 1), content(2 * MIB, 2));
    scene.put(&whole).await;
    let partial = scene.create(&half).await;
    write(&partial, &half, 1).await;
    scene.reopen().await;
    assert_eq!(scene.store.bytes(), (whole.len() + half.len()) as u64);
    let blob = scene.store.blob(&Digest::sha256(&whole)).unwrap();
    assert_eq!(blob.read_piece(PieceIndex(1)).await.unwrap(), whole[MIB..]);
    assert_eq!(blob.signed(), signed(&whole));
    let partial = scene.create(&half).await;
    assert_eq!(partial.read_piece(PieceIndex(1)).await.unwrap(), half[MIB..]);
    write(&partial, &half, 0).await;
    let blob = partial.commit().await.unwrap();
    assert_eq!(read_to_end(&mut blob.reader(0..u64::MAX)).await.unwrap(), half);
}

#[tokio::test]
async fn strangers_are_left_alone() {
    let mut scene = Scene::open().await;
    scene.put(b"good").await;
    let root = scene.directory.path().to_owned();
    let hex = Digest::sha256(b"x").hex();
    fs::create_dir_all(root.join("blobs/sha256/zz")).unwrap();
    fs::create_dir_all(root.join(format!("blobs/sha256/{}/{hex}", &hex[..2]))).unwrap();
    fs::create_dir_all(root.join(format!("partial/sha256-{hex}"))).unwrap();
    symlink("/etc/passwd", root.join(format!("blobs/sha256/zz/{hex}"))).unwrap();
    for name in [
        "README".to_owned(),
        "blobs/sha256/stray".into(),
        "blobs/sha256/zz/short".into(),
        "blobs/md5".into(),
        format!("blobs/sha512/{hex}"),
        "metainfo/sha256/stray".into(),
        "partial/stray".into(),
        format!("partial/sha256-{hex}.other"),
        "partial/sha256-ABC.metainfo".into(),
    ] {
        fs::write(root.join(name), b"garbage").unwrap();
    }
    let before = files(&root);
    scene.reopen().await;
    assert_eq!(scene.store.digests(), [(Digest::sha256(b"good"), true)]);
    assert_eq!(files(&root), before);
}

#[tokio::test]
async fn a_blob_that_does_not_fit_its_metainfo_is_set_aside() {
    let long = content(5000, 3);
    let digest = Digest::sha256(&long);
    let damages: [fn(&std::path::Path, &std::path::Path); 4] = [
        |blob, _| fs::File::options().write(true).open(blob).unwrap().set_len(4999).unwrap(),
        |_, metainfo| fs::remove_file(metainfo).unwrap(),
        |_, metainfo| fs::write(metainfo, b"garbage").unwrap(),
        |_, metainfo| fs::write(metainfo, signed(b"another").encode()).unwrap(),
    ];
    for damage in damages {
        let mut scene = Scene::open().await;
        scene.put(&long).await;
        let layout = crate::layout::Layout::new(scene.directory.path().to_owned());
        damage(&layout.blob(&digest), &layout.metainfo(&digest));
        scene.reopen().await;
        assert!(scene.store.entry(&digest).is_none());
        assert_eq!(scene.store.bytes(), 0);
        assert_eq!(files(scene.directory.path()), [format!("aside/sha256-{}", digest.hex())]);
        scene.put(&long).await;
    }
}

#[tokio::test]
async fn a_damaged_bitfield_means_no_pieces() {
    let damages: [fn(&mut Vec<u8>); 4] =
        [|bytes| bytes.truncate(10), Vec::clear, |bytes| bytes[5] ^= 1, |bytes| bytes.push(0)];
    for damage in damages {
        let mut scene = Scene::open().await;
        let content = content(3 * MIB, 4);
        let partial = scene.create(&content).await;
        write(&partial, &content, 0).await;
        scene.store.close().await;
        let layout = crate::layout::Layout::new(scene.directory.path().to_owned());
        let path = layout.partial(partial.metainfo().digest(), PartialFile::Bitfield);
        let mut bytes = fs::read(&path).unwrap();
        damage(&mut bytes);
        fs::write(&path, bytes).unwrap();
        scene.reopen().await;
        assert_eq!(scene.create(&content).await.bitfield().count(), 0);
    }
}

#[tokio::test]
async fn a_partial_whose_files_do_not_fit_is_removed() {
    let content = content(3 * MIB, 5);
    let digest = *signed(&content).metainfo.digest();
    let damages: [fn(&std::path::Path, &std::path::Path); 6] = [
        |bytes, _| fs::remove_file(bytes).unwrap(),
        |bytes, _| fs::File::options().write(true).open(bytes).unwrap().set_len(1).unwrap(),
        |bytes, _| {
            fs::remove_file(bytes).unwrap();
            symlink("/etc/passwd", bytes).unwrap();
        },
        |_, metainfo| fs::remove_file(metainfo).unwrap(),
        |_, metainfo| fs::File::options().write(true).open(metainfo).unwrap().set_len(50).unwrap(),
        |_, metainfo| fs::write(metainfo, signed(b"another").encode()).unwrap(),
    ];
    for damage in damages {
        let mut scene = Scene::open().await;
        let partial = scene.create(&content).await;
        write(&partial, &content, 0).await;
        scene.store.close().await;
        let layout = crate::layout::Layout::new(scene.directory.path().to_owned());
        let path = |file| layout.partial(&digest, file);
        damage(&path(PartialFile::Bytes), &path(PartialFile::Metainfo));
        scene.reopen().await;
        assert!(scene.store.entry(&digest).is_none());
        assert_eq!(files(scene.directory.path()), [""; 0]);
        assert_eq!(scene.create(&content).await.bitfield().count(), 0);
    }
}

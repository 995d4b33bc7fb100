use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use prometheus::Registry;
use shoal_driver::ByteStream;

use super::upload::UploadError;
use super::*;
use crate::source::{Source as _, SourceError};

struct Place {
    folder: tempfile::TempDir,
    backends: Backends,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("share");
        std::fs::create_dir(&path).unwrap();
        let config = |name: &str, repositories: &str| {
            let text = format!(
                "kind = \"directory\"\nname = {name:?}\npath = {path:?}\nrepositories = {repositories}"
            );
            toml::from_str::<BackendConfig>(&text).unwrap()
        };
        let configs = [config("team", "[\"team/*\"]"), config("base", "[\"base\"]")];
        let backends = Backends::open(&configs, Duration::from_secs(5), &Registry::new()).unwrap();
        Self { folder, backends }
    }

    fn objects(&self) -> &Objects {
        self.backends.iter().next().unwrap()
    }
}

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

fn bytes(content: &[u8]) -> ByteStream {
    let parts: Vec<_> = content.chunks(100_003).map(|part| Ok(Bytes::copy_from_slice(part))).collect();
    // One that may not be asked again after its end, as those of the store.
    stream::unfold(parts.into_iter(), async |mut parts| Some((parts.next()?, parts))).boxed()
}

#[test]
fn the_first_pattern_that_fits_a_repository_says_where_it_is_written() {
    let place = Place::new();
    let of = |name: &str| {
        let repository = RepositoryName::parse(name).unwrap();
        place.backends.of(&repository).map(|objects| objects.name().to_owned())
    };
    assert_eq!(of("team/app").as_deref(), Some("team"));
    assert_eq!(of("base").as_deref(), Some("base"));
    assert_eq!(of("team/app/part"), None);
}

#[tokio::test]
async fn a_blob_of_any_length_is_there_whole_and_is_read_from_anywhere() {
    let place = Place::new();
    let objects = place.objects();
    for length in [0, 1, 8 << 20, (8 << 20) + 1, (20 << 20) + 7] {
        let content = content(length);
        let digest = Digest::sha256(&content);
        assert!(matches!(objects.stat(None, &digest).await, Err(SourceError::NotFound)));
        objects.put_blob(&digest, length as u64, bytes(&content)).await.unwrap();
        assert!(place.backends.have(&digest, length as u64).await);
        assert!(!place.backends.have(&digest, length as u64 + 1).await);
        for start in [0, length / 2, length] {
            let incoming = crate::source::Source::open(objects, None, &digest, start as u64).await.unwrap();
            assert_eq!(incoming.length, length as u64);
            let parts: Vec<Bytes> = incoming.bytes.try_collect().await.unwrap();
            assert!(parts.concat() == content[start..], "{length} from {start}");
        }
    }
}

#[tokio::test]
async fn what_is_not_the_blob_is_not_written() {
    let place = Place::new();
    let objects = place.objects();
    for length in [100, 20 << 20] {
        let right = content(length);
        let digest = Digest::sha256(&right);
        let mut flipped = right.clone();
        flipped[length - 1] ^= 1;
        let longer = [right.as_slice(), b"x"].concat();
        for wrong in [&flipped, &longer, &right[..length - 1].to_vec()] {
            let put = objects.put_blob(&digest, length as u64, bytes(wrong)).await;
            assert!(matches!(put, Err(UploadError::Spoiled)), "{put:?}");
            assert_eq!(objects.size(&Key::Blob(digest)).await.unwrap(), None);
        }
    }
}

#[tokio::test]
async fn a_directory_that_is_away_is_not_a_directory_without_blobs() {
    let place = Place::new();
    let objects = place.objects();
    let digest = Digest::sha256(b"x");
    objects.put_blob(&digest, 1, bytes(b"x")).await.unwrap();
    let (share, away) = (place.folder.path().join("share"), place.folder.path().join("away"));
    std::fs::rename(&share, &away).unwrap();
    assert!(matches!(objects.stat(None, &digest).await, Err(SourceError::Unavailable { .. })));
    let put = objects.put_blob(&Digest::sha256(b"y"), 1, bytes(b"y")).await;
    assert!(matches!(put, Err(UploadError::Backend(BackendError::Unavailable(_)))), "{put:?}");
    assert!(!share.exists(), "it was made anew");
    std::fs::rename(&away, &share).unwrap();
    assert_eq!(objects.stat(None, &digest).await.unwrap(), 1);
}

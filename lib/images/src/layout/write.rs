//! Writing a layout.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures_util::StreamExt;
use shoal_core::{Digest, Digester};
use shoal_upstream::{Descriptor, MAX_MANIFEST_BYTES, Manifest};
use tokio::fs;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufWriter};

use super::pack::{self, Pack};
use super::{INDEX, MARKER, index};
use crate::copy::Progress;
use crate::error::ImageError;
use crate::files::{blob_name, blocking};
use crate::place::{Put, Sink, Source};

/// A layout that takes an image, or an archive that is made of one at the end.
#[derive(Debug)]
pub struct LayoutSink {
    directory: PathBuf,
    name: Option<String>,
    /// Held as long as the sink is.
    _lock: std::fs::File,
    /// What is made of the layout at the end, in place of it.
    pack: Option<(PathBuf, Pack)>,
    /// What belongs to this image: a layout may have more.
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    digests: BTreeSet<Digest>,
    /// What refers to the image: the index lists it, for nothing else would lead there.
    referrers: Vec<Descriptor>,
}

impl LayoutSink {
    /// A folder; made if it is not there, and kept with what is in it.
    pub async fn folder(directory: &Path, name: Option<String>) -> Result<Self, ImageError> {
        let lock = prepare(directory).await?;
        Ok(Self { directory: directory.to_owned(), name, _lock: lock, pack: None, taken: Mutex::default() })
    }

    /// An OCI archive. Until it is whole it is a folder beside it, which a next attempt goes on with.
    pub async fn oci_archive(file: &Path, name: Option<String>) -> Result<Self, ImageError> {
        Self::archive(file, name, Pack::Oci).await
    }

    /// An archive for `docker load`, in the same way.
    pub async fn docker_archive(file: &Path, name: Option<String>) -> Result<Self, ImageError> {
        Self::archive(file, name, Pack::Docker).await
    }

    async fn archive(file: &Path, name: Option<String>, pack: Pack) -> Result<Self, ImageError> {
        if fs::try_exists(file).await.map_err(ImageError::file(file, "cannot be looked for"))? {
            return Err(ImageError::invalid(
                file.display(),
                "it is there already: remove it, or name another file",
            ));
        }
        let mut folder = file.as_os_str().to_owned();
        folder.push(".partial");
        let sink = Self::folder(Path::new(&folder), name).await?;
        Ok(Self { pack: Some((file.to_owned(), pack)), ..sink })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Every change is whole in itself, so a panic elsewhere leaves nothing half done.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the index lists of this copy.
    fn entries(&self, root: &Manifest) -> Vec<Descriptor> {
        let referrers = self.taken().referrers.clone().into_iter();
        let referrers = referrers.filter(|referrer| referrer.digest != root.digest());
        std::iter::once(index::entry(root, self.name.as_deref())).chain(referrers).collect()
    }

    /// Writes what is missing of a blob, proves it, and gives it its name.
    async fn fetch(&self, blob: &Descriptor, source: &dyn Source, progress: &dyn Progress) -> io::Result<()> {
        let path = self.directory.join(blob_name(&blob.digest));
        let partial = path.with_extension("partial");
        let (file, mut digester, mut at) = take_up(&partial, blob).await?;
        progress.at(&blob.digest, at);
        let mut file = BufWriter::with_capacity(WRITE, file);
        let mut stream = source.open(blob, at).await?;
        while let Some(chunk) = stream.next().await {
            let chunk = match chunk {
                Ok(chunk) => chunk,
                Err(error) => {
                    // What came is as good as it was: the next attempt proves it.
                    file.flush().await?;
                    return Err(error);
                }
            };
            at += chunk.len() as u64;
            if at > blob.size {
                break;
            }
            digester.update(&chunk);
            file.write_all(&chunk).await?;
            progress.at(&blob.digest, at);
        }
        file.flush().await?;
        let found = digester.finish();
        if at != blob.size || found != blob.digest {
            fs::remove_file(&partial).await?;
            let reason = format!("{at} bytes with digest {found} came, and were thrown away: try again");
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        file.into_inner().sync_all().await?;
        fs::rename(&partial, &path).await
    }

    /// Lists the image, and makes it last.
    async fn list(&self, root: &Manifest) -> Result<(), ImageError> {
        let path = self.directory.join(INDEX);
        let failed = || ImageError::file(&path, "cannot be replaced");
        let entries = self.entries(root);
        let index = match read_index(&path).await.map_err(failed())? {
            None => index::only(&entries),
            Some(old) => index::with(&old, &entries).ok_or_else(|| {
                ImageError::invalid(path.display(), "it is no index of a layout: move it away")
            })?,
        };
        // Names of blobs before the index that lists them.
        for folder in ["blobs/sha256", "blobs/sha512", "blobs"] {
            sync_folder(self.directory.join(folder)).await.map_err(failed())?;
        }
        write_new(&path, &index).await.map_err(failed())?;
        sync_folder(self.directory.clone()).await.map_err(failed())
    }
}

#[async_trait]
impl Sink for LayoutSink {
    fn accept(&self, root: &Manifest) -> Result<(), ImageError> {
        match self.pack {
            Some((_, Pack::Docker)) => pack::image(root).map(drop),
            _ => Ok(()),
        }
    }

    async fn put_blob(
        &self,
        blob: &Descriptor,
        source: &dyn Source,
        progress: &dyn Progress,
    ) -> Result<Put, ImageError> {
        self.taken().digests.insert(blob.digest);
        let path = self.directory.join(blob_name(&blob.digest));
        match fs::metadata(&path).await {
            Ok(found) if found.is_file() && found.len() == blob.size => return Ok(Put::Present),
            _ => {}
        }
        let failed = |source| ImageError::Blob { digest: blob.digest, source };
        self.fetch(blob, source, progress).await.map_err(failed)?;
        Ok(Put::Moved)
    }

    async fn put_manifest(&self, manifest: &Manifest) -> Result<(), ImageError> {
        self.taken().digests.insert(manifest.digest());
        if manifest.subject().is_some() {
            self.taken().referrers.push(manifest.referrer_descriptor());
        }
        let path = self.directory.join(blob_name(&manifest.digest()));
        write_new(&path, manifest.bytes()).await.map_err(ImageError::file(&path, "cannot be written"))
    }

    async fn finish(&self, root: &Manifest) -> Result<(), ImageError> {
        if self.pack.is_none() {
            return self.list(root).await;
        }
        self.pack(root).await
    }
}

impl LayoutSink {
    async fn pack(&self, root: &Manifest) -> Result<(), ImageError> {
        let Some((file, pack)) = &self.pack else { return Ok(()) };
        let taken: Vec<Digest> = self.taken().digests.iter().copied().collect();
        let contents = match pack {
            Pack::Oci => pack::oci(index::only(&self.entries(root)), &taken),
            Pack::Docker => pack::docker(&self.directory, root, self.name.as_deref()).await?,
        };
        let (folder, target) = (self.directory.clone(), file.clone());
        blocking(move || pack::write(&folder, &target, &contents))
            .await
            .map_err(ImageError::file(file, "cannot be written"))?;
        fs::remove_dir_all(&self.directory)
            .await
            .map_err(ImageError::file(&self.directory, "cannot be removed"))
    }
}

/// Makes the folders, and takes the lock.
async fn prepare(directory: &Path) -> Result<std::fs::File, ImageError> {
    let failed = || ImageError::file(directory, "cannot be made a layout");
    for algorithm in ["sha256", "sha512"] {
        fs::create_dir_all(directory.join("blobs").join(algorithm)).await.map_err(failed())?;
    }
    let marker = directory.join(MARKER);
    let lock = blocking(move || {
        let mut file = std::fs::File::options().read(true).append(true).create(true).open(marker)?;
        file.try_lock().map_err(|error| match error {
            std::fs::TryLockError::WouldBlock => {
                io::Error::new(io::ErrorKind::ResourceBusy, "another process writes there")
            }
            std::fs::TryLockError::Error(error) => error,
        })?;
        if file.metadata()?.len() == 0 {
            io::Write::write_all(&mut file, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        }
        Ok(file)
    });
    lock.await.map_err(failed())
}

/// What there is of a blob: the file at its end, and the digester that has seen all of it.
async fn take_up(partial: &Path, blob: &Descriptor) -> io::Result<(fs::File, Digester, u64)> {
    let mut options = fs::File::options();
    let mut file = options.read(true).append(true).create(true).open(partial).await?;
    let mut digester = Digester::new(blob.digest.algorithm());
    if file.metadata().await?.len() > blob.size {
        file.set_len(0).await?;
    }
    let (mut at, mut buffer) = (0, vec![0; WRITE]);
    loop {
        let count = file.read(&mut buffer).await?;
        if count == 0 {
            return Ok((file, digester, at));
        }
        digester.update(&buffer[..count]);
        at += count as u64;
    }
}

async fn read_index(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match fs::File::open(path).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_MANIFEST_BYTES as u64).read_to_end(&mut bytes).await?;
    Ok(Some(bytes))
}

async fn sync_folder(path: PathBuf) -> io::Result<()> {
    blocking(move || std::fs::File::open(path)?.sync_all()).await
}

/// Old or new, never half.
async fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = path.with_extension("partial");
    let mut file = fs::File::create(&partial).await?;
    file.write_all(bytes).await?;
    file.sync_all().await?;
    fs::rename(&partial, path).await
}

/// Each is one trip to a thread that may block.
const WRITE: usize = 1 << 20;

//! A directory whose content is reached part by part, from an open directory to the next, never through a symbolic link.
//!
//! So nothing that lies inside can lead outside, whatever somebody put there.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::path::DriverPath;

/// A directory that holds content under driver paths.
#[derive(Debug)]
pub(super) struct Place {
    root: PathBuf,
    durability: Durability,
}

/// Whether the directories that are made in a place must be there after a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durability {
    Synced,
    Unsynced,
}

/// The directory in which a path lies, open, and the path's name in it.
pub(super) struct Spot<'a> {
    pub(super) directory: OwnedFd,
    pub(super) name: &'a str,
}

/// What a name in a directory stands for; symbolic links and devices stand for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NodeKind {
    File,
    Directory,
}

impl Place {
    pub(super) fn new(root: PathBuf, durability: Durability) -> Self {
        Self { root, durability }
    }

    pub(super) fn path(&self) -> &Path {
        &self.root
    }

    /// Opens the directory at `path`.
    pub(super) fn directory(&self, path: &DriverPath) -> io::Result<OwnedFd> {
        path.parts().try_fold(self.root()?, |directory, part| Ok(open_directory(&directory, part)?))
    }

    /// Where `path` lies; its directory must exist.
    pub(super) fn spot<'a>(&self, path: &'a DriverPath) -> io::Result<Spot<'a>> {
        let (parent, name) = split(path)?;
        Ok(Spot { directory: self.directory(&parent)?, name })
    }

    /// Where `path` lies; its directory is made.
    pub(super) fn make_spot<'a>(&self, path: &'a DriverPath) -> io::Result<Spot<'a>> {
        let (parent, name) = split(path)?;
        let directory =
            parent.parts().try_fold(self.root()?, |directory, part| match open_directory(&directory, part) {
                Err(Errno::NOENT) => make_directory(&directory, part, self.durability),
                other => Ok(other?),
            });
        Ok(Spot { directory: directory?, name })
    }

    /// The highest directory above `path` that is not there; `path` itself if none is missing.
    pub(super) fn topmost_missing(&self, path: &DriverPath) -> io::Result<DriverPath> {
        let (parent, _) = split(path)?;
        let mut directory = self.root()?;
        for (depth, part) in parent.parts().enumerate() {
            directory = match open_directory(&directory, part) {
                Err(Errno::NOENT) => {
                    let parts = path.parts().take(depth + 1).map(|part| format!("/{part}"));
                    return Ok(DriverPath::from_valid(&parts.collect::<String>()));
                }
                other => other?,
            };
        }
        Ok(path.clone())
    }

    /// Makes the place itself, and its name durable, whoever made it.
    pub(super) fn make_root(&self) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.root)?;
        // The place, the driver's directory, and the one in which that lies.
        for directory in self.root.canonicalize()?.ancestors().skip(1).take(2) {
            File::open(directory)?.sync_all()?;
        }
        Ok(())
    }

    /// Removes the directories above `path` that hold nothing.
    pub(super) fn prune_above(&self, path: &DriverPath) -> io::Result<()> {
        let mut above = path.parent();
        while let Some(directory) = above.filter(|directory| !directory.is_root()) {
            let spot = self.spot(&directory)?;
            match rustix::fs::unlinkat(&spot.directory, spot.name, AtFlags::REMOVEDIR) {
                Err(Errno::NOTEMPTY | Errno::EXIST) => break,
                other => other?,
            }
            above = directory.parent();
        }
        Ok(())
    }

    fn root(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(CWD, &self.root, flags, Mode::empty())?)
    }
}

impl Spot<'_> {
    /// What is there.
    pub(super) fn stat(&self) -> io::Result<Stat> {
        Ok(rustix::fs::statat(&self.directory, self.name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Opens the file that is there; with `OFlags::CREATE` it is made.
    pub(super) fn open(&self, flags: OFlags) -> io::Result<File> {
        // Without NONBLOCK the open of a pipe that somebody put there would wait for ever.
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        Ok(rustix::fs::openat(&self.directory, self.name, flags, Mode::RUSR | Mode::WUSR)?.into())
    }

    /// A new file with that content, whose bytes are durable.
    pub(super) fn write_new(&self, content: &[u8]) -> io::Result<()> {
        let mut file = self.open(OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)?;
        file.write_all(content)?;
        file.sync_all()
    }

    /// Moves what is there to another spot. What was there is replaced.
    pub(super) fn move_to(&self, to: &Spot<'_>) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.directory, self.name, &to.directory, to.name)?)
    }

    /// Makes what happened to the directory's names durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.directory)?)
    }

    /// Removes the file that is there.
    pub(super) fn unlink(&self) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.directory, self.name, AtFlags::empty())?)
    }
}

impl NodeKind {
    pub(super) fn of(stat: &Stat) -> Option<Self> {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Some(Self::File),
            FileType::Directory => Some(Self::Directory),
            _ => None,
        }
    }
}

fn split(path: &DriverPath) -> io::Result<(DriverPath, &str)> {
    let above = path.parent().zip(path.name());
    above.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the root lies in no directory"))
}

fn open_directory(directory: &OwnedFd, part: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, part, flags, Mode::empty())
}

fn make_directory(directory: &OwnedFd, part: &str, durability: Durability) -> io::Result<OwnedFd> {
    match rustix::fs::mkdirat(directory, part, Mode::RWXU) {
        // Somebody else was faster.
        Err(Errno::EXIST) => {}
        other => other?,
    }
    if durability == Durability::Synced {
        rustix::fs::fsync(directory)?;
    }
    Ok(open_directory(directory, part)?)
}

//! Tar archives as tables: which name is where in the file. Nothing is unpacked, so no name leads anywhere.
//!
//! Headers are read one after the other and contents skipped, so an index costs a seek an entry. Links are followed in the table,
//! a bounded number of times: `docker save` names a layer that two images share by one. The format is POSIX ustar with pax and GNU
//! extensions, as Go and GNU tar write it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use tar::{EntryType, Header, PaxExtensions};

/// Where bytes are in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Extent {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// What an archive holds, by name.
#[derive(Debug, Default)]
pub(crate) struct Table(HashMap<String, Entry>);

#[derive(Debug)]
enum Entry {
    File(Extent),
    Link(String),
}

/// What extension headers said of the next entry.
#[derive(Default)]
struct Said {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Table {
    /// Reads the headers of an archive. Blocks.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut table = Self::default();
        let (mut at, mut said) = (0, Said::default());
        for _ in 0..MAX_ENTRIES {
            let Some(header) = next_header(&mut file, at, length)? else { return Ok(table) };
            let size = said.size.take().map_or_else(|| header.entry_size(), Ok)?;
            let extent = Extent { offset: at + BLOCK, length: size };
            let end = extent.offset.checked_add(size).filter(|end| *end <= length);
            let end = end.ok_or_else(|| invalid("an entry is longer than the archive"))?;
            match header.entry_type() {
                EntryType::XHeader => said.pax(&read_small(&mut file, extent)?)?,
                EntryType::GNULongName => said.path = Some(without_nul(read_small(&mut file, extent)?)),
                EntryType::GNULongLink => said.link = Some(without_nul(read_small(&mut file, extent)?)),
                EntryType::XGlobalHeader => {}
                kind => table.add(kind, &header, std::mem::take(&mut said), extent)?,
            }
            at = end.next_multiple_of(BLOCK);
        }
        Err(invalid(&format!("there are more than {MAX_ENTRIES} entries")))
    }

    /// Where a file is.
    pub(crate) fn find(&self, name: &str) -> Option<Extent> {
        let mut name = normal(name, "").ok()?;
        for _ in 0..MAX_LINKS {
            match self.0.get(&name)? {
                Entry::File(extent) => return Some(*extent),
                Entry::Link(target) => name = target.clone(),
            }
        }
        None
    }

    fn add(&mut self, kind: EntryType, header: &Header, said: Said, extent: Extent) -> io::Result<()> {
        let path = said.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let name = normal(&text(path)?, "").map_err(|reason| invalid(&reason))?;
        let entry = match kind {
            EntryType::Regular | EntryType::Continuous => Entry::File(extent),
            EntryType::Symlink | EntryType::Link => {
                let target =
                    said.link.or_else(|| Some(header.link_name_bytes()?.into_owned())).unwrap_or_default();
                // A symbolic link begins at the folder it is in, a hard one at the root.
                let folder = if kind == EntryType::Symlink {
                    name.rsplit_once('/').map_or("", |(folder, _)| folder)
                } else {
                    ""
                };
                Entry::Link(normal(&text(target)?, folder).map_err(|reason| invalid(&reason))?)
            }
            EntryType::Directory => return Ok(()),
            other => {
                return Err(invalid(&format!(
                    "{name:?} is an entry of kind {other:?}, which images do not have"
                )));
            }
        };
        // Of two files of one name unpacking would leave the second, and a reader of the first would see another image.
        match self.0.insert(name.clone(), entry) {
            Some(_) => Err(invalid(&format!("{name:?} is there twice"))),
            None => Ok(()),
        }
    }
}

impl Said {
    fn pax(&mut self, bytes: &[u8]) -> io::Result<()> {
        for extension in PaxExtensions::new(bytes) {
            let extension = extension?;
            match extension.key_bytes() {
                b"path" => self.path = Some(extension.value_bytes().to_vec()),
                b"linkpath" => self.link = Some(extension.value_bytes().to_vec()),
                b"size" => {
                    let size = extension.value().ok().and_then(|value| value.parse().ok());
                    self.size = Some(size.ok_or_else(|| invalid("a pax header has a size that is none"))?);
                }
                key if key.starts_with(b"GNU.sparse") => return Err(invalid("it has sparse files")),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The header at `at`; `None` at the end, which is a block of zeros, or the end of the file.
fn next_header(file: &mut File, at: u64, length: u64) -> io::Result<Option<Header>> {
    if at >= length {
        return Ok(None);
    }
    file.seek(SeekFrom::Start(at))?;
    let mut header = Header::new_old();
    file.read_exact(header.as_mut_bytes()).map_err(|_| invalid("it breaks off in a header"))?;
    let bytes = header.as_bytes();
    if bytes.iter().all(|&byte| byte == 0) {
        return Ok(None);
    }
    let sum = bytes
        .iter()
        .enumerate()
        .map(|(at, &byte)| if (148..156).contains(&at) { 32 } else { u32::from(byte) })
        .sum::<u32>();
    if header.cksum().ok() != Some(sum) {
        return Err(invalid(
            "it is no tar archive, or it is compressed: unpack it with gunzip or zstd first",
        ));
    }
    Ok(Some(header))
}

fn read_small(file: &mut File, extent: Extent) -> io::Result<Vec<u8>> {
    if extent.length > MAX_EXTENSION {
        return Err(invalid("a name is longer than any name"));
    }
    file.seek(SeekFrom::Start(extent.offset))?;
    let mut bytes = Vec::new();
    file.take(extent.length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A name below the archive's root, without `.` and `..`.
fn normal(name: &str, folder: &str) -> Result<String, String> {
    let excerpt: String = name.chars().take(80).collect();
    if name.starts_with('/') || name.contains('\0') {
        return Err(format!("{excerpt:?} leads out of the archive"));
    }
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop().ok_or_else(|| format!("{excerpt:?} leads out of the archive"))?),
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|_| invalid("a name is not UTF-8"))
}

fn without_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len()));
    bytes
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_owned())
}

const BLOCK: u64 = 512;
/// An image has some hundred entries, an archive of a hundred images ten thousand.
const MAX_ENTRIES: usize = 100_000;
/// A name or two, and times.
const MAX_EXTENSION: u64 = 64 << 10;
/// A link to a link to a file.
const MAX_LINKS: usize = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tar::Builder;

    use super::*;

    fn header(kind: EntryType, size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o644);
        header
    }

    fn read(bytes: &[u8]) -> io::Result<Table> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        Table::read(file.path())
    }

    /// With a name that no honest archiver writes.
    fn named(name: &str, kind: EntryType, link: &str) -> Vec<u8> {
        let mut header = header(kind, 0);
        let gnu = header.as_gnu_mut().unwrap();
        gnu.name[..name.len()].copy_from_slice(name.as_bytes());
        gnu.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        header.as_bytes().to_vec()
    }

    #[test]
    fn files_are_found_by_name_and_by_link() {
        let mut builder = Builder::new(Vec::new());
        let long = format!("{}/layer.tar", "a".repeat(150));
        builder.append_data(&mut header(EntryType::Regular, 5), "./x/one", &b"first"[..]).unwrap();
        builder.append_data(&mut header(EntryType::Regular, 3), &long, &b"two"[..]).unwrap();
        builder.append_link(&mut header(EntryType::Symlink, 0), "y/link", "../x/one").unwrap();
        builder.append_link(&mut header(EntryType::Link, 0), "y/hard", "x/one").unwrap();
        builder.append_pax_extensions([("path", "renamed".as_bytes())]).unwrap();
        builder.append_data(&mut header(EntryType::Regular, 1), "short", &b"z"[..]).unwrap();
        let bytes = builder.into_inner().unwrap();
        let table = read(&bytes).unwrap();
        let content = |name: &str| {
            table.find(name).map(|found| &bytes[found.offset as usize..][..found.length as usize])
        };
        assert_eq!(content("x/one"), Some(b"first".as_slice()));
        assert_eq!(content("./y/link"), Some(b"first".as_slice()));
        assert_eq!(content("y/hard"), Some(b"first".as_slice()));
        assert_eq!(content(&long), Some(b"two".as_slice()));
        assert_eq!(content("renamed"), Some(b"z".as_slice()));
        assert_eq!(content("absent"), None);
    }

    #[test]
    fn hostile_archives_are_refused_with_a_reason() {
        let twice = [named("a", EntryType::Regular, ""), named("./a", EntryType::Regular, "")].concat();
        let mut huge = header(EntryType::Regular, 1 << 40);
        huge.set_path("a").unwrap();
        huge.set_cksum();
        for (bytes, reason) in [
            (named("../etc/passwd", EntryType::Regular, ""), "leads out"),
            (named("a/../../b", EntryType::Regular, ""), "leads out"),
            (named("/etc/passwd", EntryType::Regular, ""), "leads out"),
            (named("a", EntryType::Symlink, "../../etc/passwd"), "leads out"),
            (named("a", EntryType::Symlink, "/etc/passwd"), "leads out"),
            (named("a", EntryType::Block, ""), "kind"),
            (named("a", EntryType::GNUSparse, ""), "kind"),
            (twice, "twice"),
            (huge.as_bytes().to_vec(), "longer than the archive"),
            (vec![7; 512], "no tar archive"),
            (vec![7; 100], "breaks off"),
        ] {
            let error = read(&bytes).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn links_that_go_round_lead_nowhere() {
        let bytes = [named("a", EntryType::Symlink, "b"), named("b", EntryType::Symlink, "a")].concat();
        assert_eq!(read(&bytes).unwrap().find("a"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
            let _ = read(&bytes);
        }

        #[test]
        fn no_name_leaves_the_archive(name in "[a./]{0,12}", folder in "[a/]{0,6}") {
            if let Ok(normal) = normal(&name, &folder) {
                prop_assert!(!normal.starts_with('/') && normal.split('/').all(|part| part != ".."));
            }
        }
    }
}

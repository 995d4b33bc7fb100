//! Which nodes used which token, until the tokens end. What is decided is in memory; a line in a file for each use keeps it
//! through a restart.
//!
//! A node that used a token may use it again: it lost the answer. So a token counts nodes, not requests.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use data_encoding::HEXLOWER;
use shoal_core::PeerId;
use shoal_identity::Grant;

type TokenId = [u8; 16];

/// All uses that still count.
#[derive(Debug)]
pub(crate) struct Uses {
    tokens: HashMap<TokenId, Used>,
    count: usize,
    max: usize,
    file: File,
}

#[derive(Debug)]
struct Used {
    expires: u64,
    nodes: Vec<PeerId>,
}

/// A use that was admitted and is yet to be noted.
#[must_use]
pub(crate) struct Use<'a> {
    file: &'a mut File,
    line: Option<String>,
}

/// Why a token cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UsesError {
    #[error("join token was used by the {uses} nodes that it is for: make a new one with `shoal ca token`")]
    Spent { uses: u32 },
    #[error("too many tokens were used lately: try again when some have ended")]
    Full,
}

impl Uses {
    /// Takes up what the file says, and writes it anew without what has ended.
    pub(crate) fn open(path: &Path, max: usize, now: u64) -> io::Result<Self> {
        let (tokens, count) = read(path, max, now)?;
        let next = path.with_extension("next");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
        for (id, used) in &tokens {
            for node in &used.nodes {
                file.write_all(line(id, used.expires, node).as_bytes())?;
            }
        }
        file.sync_all()?;
        fs::rename(&next, path)?;
        let file = OpenOptions::new().append(true).open(path)?;
        Ok(Self { tokens, count, max, file })
    }

    /// Whether the node may use the token of this grant.
    pub(crate) fn admit(&mut self, grant: &Grant, node: PeerId, now: u64) -> Result<Use<'_>, UsesError> {
        if self.count >= self.max {
            self.forget(now);
        }
        let used = self.tokens.get(&grant.id);
        if used.is_some_and(|used| used.nodes.contains(&node)) {
            return Ok(Use { file: &mut self.file, line: None });
        }
        if used.map_or(0, |used| used.nodes.len()) >= grant.uses as usize {
            return Err(UsesError::Spent { uses: grant.uses });
        }
        if self.count >= self.max {
            return Err(UsesError::Full);
        }
        let fresh = || Used { expires: grant.expires, nodes: Vec::new() };
        self.tokens.entry(grant.id).or_insert_with(fresh).nodes.push(node);
        self.count += 1;
        Ok(Use { file: &mut self.file, line: Some(line(&grant.id, grant.expires, &node)) })
    }

    fn forget(&mut self, now: u64) {
        self.tokens.retain(|_, used| used.expires > now);
        self.count = self.tokens.values().map(|used| used.nodes.len()).sum();
    }
}

impl Use<'_> {
    /// Puts it on disk; says whether it is the node's first.
    pub(crate) fn note(self) -> io::Result<bool> {
        let Some(line) = self.line else { return Ok(false) };
        self.file.write_all(line.as_bytes())?;
        self.file.sync_data()?;
        Ok(true)
    }
}

fn read(path: &Path, max: usize, now: u64) -> io::Result<(HashMap<TokenId, Used>, usize)> {
    let mut tokens: HashMap<TokenId, Used> = HashMap::new();
    let mut count = 0;
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((tokens, count)),
        Err(error) => return Err(error),
    };
    for line in BufReader::new(file).lines() {
        // A line that a crash cut had no certificate.
        let Some((id, expires, node)) = parse(&line?).filter(|(_, expires, _)| *expires > now) else {
            continue;
        };
        if count == max {
            break;
        }
        tokens.entry(id).or_insert_with(|| Used { expires, nodes: Vec::new() }).nodes.push(node);
        count += 1;
    }
    Ok((tokens, count))
}

fn line(id: &TokenId, expires: u64, node: &PeerId) -> String {
    format!("{} {expires} {node}\n", HEXLOWER.encode(id))
}

fn parse(line: &str) -> Option<(TokenId, u64, PeerId)> {
    let mut parts = line.split(' ');
    let id = HEXLOWER.decode(parts.next()?.as_bytes()).ok()?.try_into().ok()?;
    Some((id, parts.next()?.parse().ok()?, PeerId::parse(parts.next()?).ok()?))
}

#[cfg(test)]
mod tests {
    use shoal_core::Role;
    use shoal_identity::NamePattern;

    use super::*;

    fn grant(number: u8, uses: u32, expires: u64) -> Grant {
        let name = NamePattern::parse("*").unwrap();
        Grant { id: [number; 16], role: Role::Agent, name, uses, expires }
    }

    fn node(number: u8) -> PeerId {
        PeerId::from_public_key([number; 32])
    }

    fn use_it(uses: &mut Uses, grant: &Grant, number: u8, now: u64) -> Result<bool, UsesError> {
        uses.admit(grant, node(number), now).map(|admitted| admitted.note().unwrap())
    }

    #[test]
    fn a_token_is_for_so_many_nodes_and_each_may_come_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut uses = Uses::open(&folder.path().join("used"), 10, 0).unwrap();
        let grant = grant(1, 2, 100);
        assert_eq!(use_it(&mut uses, &grant, 1, 0), Ok(true));
        assert_eq!(use_it(&mut uses, &grant, 1, 0), Ok(false));
        assert_eq!(use_it(&mut uses, &grant, 2, 0), Ok(true));
        assert_eq!(use_it(&mut uses, &grant, 3, 0), Err(UsesError::Spent { uses: 2 }));
        assert_eq!(use_it(&mut uses, &grant, 2, 0), Ok(false));
    }

    #[test]
    fn a_restart_forgets_only_tokens_that_have_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("used");
        let mut uses = Uses::open(&path, 10, 0).unwrap();
        use_it(&mut uses, &grant(1, 1, 100), 1, 0).unwrap();
        use_it(&mut uses, &grant(2, 1, 200), 2, 0).unwrap();
        uses.file.write_all(b"0101 12").unwrap();
        let mut uses = Uses::open(&path, 10, 150).unwrap();
        assert_eq!(use_it(&mut uses, &grant(2, 1, 200), 3, 150), Err(UsesError::Spent { uses: 1 }));
        assert_eq!(uses.count, 1);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_makes_room_as_tokens_end() {
        let folder = tempfile::tempdir().unwrap();
        let mut uses = Uses::open(&folder.path().join("used"), 2, 0).unwrap();
        use_it(&mut uses, &grant(1, 1, 100), 1, 0).unwrap();
        use_it(&mut uses, &grant(2, 1, 200), 2, 0).unwrap();
        assert_eq!(use_it(&mut uses, &grant(3, 1, 300), 3, 50), Err(UsesError::Full));
        assert_eq!(use_it(&mut uses, &grant(2, 1, 200), 2, 50), Ok(false));
        assert_eq!(use_it(&mut uses, &grant(3, 1, 300), 3, 100), Ok(true));
    }
}

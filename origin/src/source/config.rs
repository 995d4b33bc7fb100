//! `[[source]]`: which sources there are, in which order.

use std::collections::HashSet;
use std::sync::Arc;

use bytesize::ByteSize;
use serde::Deserialize;

use super::directory::{Directory, DirectoryConfig};
use super::{Pace, Source};
use crate::refill::Named;

/// One source, by what it is.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum SourceConfig {
    /// A directory of this host.
    Directory(DirectoryConfig),
}

/// Why sources cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SourceConfigError {
    /// Two are named alike.
    #[error("two [[source]] are named {0:?}: logs and metrics name them, so give each its own")]
    SameName(String),
    /// A name that nobody can read.
    #[error("a [[source]] has the name {0:?}: 1 to 64 characters are needed")]
    Name(String),
    /// Bytes that never come.
    #[error("the [[source]] {0:?} has rate = 0: leave it out for no limit")]
    Rate(String),
}

impl SourceConfig {
    fn name(&self) -> &str {
        match self {
            Self::Directory(directory) => &directory.name,
        }
    }

    fn rate(&self) -> Option<ByteSize> {
        match self {
            Self::Directory(directory) => directory.rate,
        }
    }

    fn source(&self) -> Arc<dyn Source> {
        match self {
            Self::Directory(directory) => Arc::new(Directory::new(directory.path.clone())),
        }
    }

    /// All of them, to be asked in that order.
    pub(crate) fn sources(configs: &[Self]) -> Result<Vec<Named>, SourceConfigError> {
        let mut names = HashSet::new();
        let named = configs.iter().map(|config| {
            let name = config.name().to_owned();
            if name.is_empty() || name.len() > MAX_NAME_LENGTH {
                return Err(SourceConfigError::Name(name));
            }
            if !names.insert(name.clone()) {
                return Err(SourceConfigError::SameName(name));
            }
            let pace = match config.rate().map(|rate| rate.as_u64()) {
                Some(0) => return Err(SourceConfigError::Rate(name)),
                rate => rate.map(Pace::new),
            };
            Ok(Named { name, source: config.source(), pace })
        });
        named.collect()
    }
}

/// It is a label of metrics.
const MAX_NAME_LENGTH: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Table {
        source: Vec<SourceConfig>,
    }

    fn parse(text: &str) -> Result<Vec<SourceConfig>, String> {
        serde_json::from_str::<Table>(text).map(|table| table.source).map_err(|error| error.to_string())
    }

    #[test]
    fn sources_are_told_apart_by_name_and_unknown_keys_are_refused() {
        let one = r#"{"kind": "directory", "name": "a", "path": "/a"}"#;
        let two = r#"{"kind": "directory", "name": "b", "path": "/b", "rate": "5MB"}"#;
        let sources = SourceConfig::sources(&parse(&format!(r#"{{"source": [{one}, {two}]}}"#)).unwrap());
        let sources = sources.unwrap();
        assert_eq!(sources.iter().map(|source| source.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert!(sources[0].pace.is_none() && sources[1].pace.is_some());
        let twice = parse(&format!(r#"{{"source": [{one}, {one}]}}"#)).unwrap();
        assert!(matches!(SourceConfig::sources(&twice), Err(SourceConfigError::SameName(_))));
        let unknown = one.replace("path\": \"/a", "path\": \"/a\", \"wirte\": \"x");
        assert!(parse(&format!(r#"{{"source": [{unknown}]}}"#)).unwrap_err().contains("wirte"));
    }
}

//! The keys of a document's top level: what some JSON readers would take for another key is refused.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::ManifestParseError;

/// Refuses a key that is there twice, and one that differs from a key with a meaning only by case: Go's JSON reader
/// takes `Layers` for `layers`, others do not. Schema 1's layers have no place here either.
pub(super) fn check(bytes: &[u8]) -> Result<(), ManifestParseError> {
    let Keys(keys) = serde_json::from_slice(bytes)?;
    let mut seen = HashSet::new();
    for key in &keys {
        let other_case = KNOWN.iter().any(|known| known.eq_ignore_ascii_case(key) && known != key);
        if other_case || !seen.insert(key) {
            return Err(ManifestParseError::AmbiguousKey(key.chars().take(80).collect()));
        }
        if key.eq_ignore_ascii_case(SCHEMA_1_LAYERS) {
            return Err(ManifestParseError::Confused);
        }
    }
    Ok(())
}

const KNOWN: [&str; 8] =
    ["schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "subject", "annotations"];
const SCHEMA_1_LAYERS: &str = "fsLayers";

struct Keys(Vec<String>);

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(KeysVisitor)
    }
}

struct KeysVisitor;

impl<'de> Visitor<'de> for KeysVisitor {
    type Value = Keys;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
        let mut keys = Vec::new();
        while let Some((key, IgnoredAny)) = map.next_entry()? {
            keys.push(key);
        }
        Ok(Keys(keys))
    }
}

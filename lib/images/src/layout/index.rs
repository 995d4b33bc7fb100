//! `index.json` with one more image in it. Whatever else is there stays, other tools' keys too.

use serde_json::{Map, Value, json};
use shoal_core::Digest;
use shoal_upstream::{Descriptor, Manifest, MediaType};

use super::REF_NAME;

/// The entry of an image under a name.
pub(super) fn entry(root: &Manifest, name: Option<&str>) -> Descriptor {
    let annotations = name.map(|name| Map::from_iter([(REF_NAME.to_owned(), name.into())]));
    Descriptor { annotations, ..root.descriptor() }
}

/// An index of those entries.
pub(super) fn only(entries: &[Descriptor]) -> Vec<u8> {
    let kind = MediaType::OciIndex.as_str();
    json!({ "schemaVersion": 2, "mediaType": kind, "manifests": entries }).to_string().into_bytes()
}

/// The index with the entries in it, instead of others of their names. `None` where `old` is no index.
pub(super) fn with(old: &[u8], added: &[Descriptor]) -> Option<Vec<u8>> {
    let mut index: Map<String, Value> = serde_json::from_slice(old).ok()?;
    let Value::Array(entries) = index.get_mut("manifests")? else { return None };
    for entry in added {
        let value = serde_json::to_value(entry).ok()?;
        entries.retain(|other| !replaces(&value, other, &entry.digest));
        entries.push(value);
    }
    serde_json::to_vec(&index).ok()
}

/// Whether what is added makes the other one obsolete: the same name, or both without one and the same image.
fn replaces(added: &Value, other: &Value, digest: &Digest) -> bool {
    let name = |entry: &Value| entry["annotations"][REF_NAME].as_str().map(str::to_owned);
    match (name(added), name(other)) {
        (None, None) => other["digest"].as_str() == Some(&digest.to_string()),
        (added, other) => added == other,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use shoal_core::Algorithm;

    use super::*;

    fn image(text: &str) -> Manifest {
        let bytes = json!({ "manifests": [], "annotations": { "x": text } }).to_string();
        Manifest::parse_new(Bytes::from(bytes), Algorithm::Sha256, None).unwrap()
    }

    fn names(index: &[u8]) -> Vec<(String, String)> {
        let index: Value = serde_json::from_slice(index).unwrap();
        let entries = index["manifests"].as_array().unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        entries.iter().map(|entry| (text(&entry["annotations"][REF_NAME]), text(&entry["digest"]))).collect()
    }

    #[test]
    fn an_image_takes_the_place_of_its_name_and_of_nothing_else() {
        let (a, b) = (image("a"), image("b"));
        let named = |name: &str, image: &Manifest| (name.to_owned(), image.digest().to_string());
        let first = only(&[entry(&a, Some("1"))]);
        let second = with(&first, &[entry(&a, Some("2"))]).unwrap();
        let third = with(&second, &[entry(&b, Some("1"))]).unwrap();
        assert_eq!(names(&third), [named("2", &a), named("1", &b)]);
        let bare = with(&third, &[entry(&b, None)]).unwrap();
        assert_eq!(with(&bare, &[entry(&b, None)]).unwrap(), bare);
        assert_eq!(names(&bare).len(), 3);
    }

    #[test]
    fn what_others_wrote_stays() {
        let old = json!({ "manifests": [{ "digest": "sha256:x", "data": "e30=", "y": 1 }], "annotations": { "k": "v" } });
        let new = with(old.to_string().as_bytes(), &[entry(&image("a"), Some("1"))]).unwrap();
        let new: Value = serde_json::from_slice(&new).unwrap();
        assert_eq!((&new["annotations"], &new["manifests"][0]), (&old["annotations"], &old["manifests"][0]));
        assert_eq!(with(b"{}", &[entry(&image("a"), None)]), None);
    }
}

use proptest::prelude::*;

use super::*;

const HEX: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
const ID: &str = "0198c4b2-7c1e-7def-8abc-0123456789ab";

fn parse(text: &str) -> Result<RegistryPath, RegistryPathFault> {
    RegistryPath::parse(&DriverPath::parse(text).unwrap()).map_err(|error| error.fault)
}

fn name(text: &str) -> RepositoryName {
    RepositoryName::parse(text).unwrap()
}

fn in_repositories(rest: &str) -> String {
    format!("/docker/registry/v2/repositories/{rest}")
}

#[test]
fn a_mark_is_in_the_last_bytes_of_an_id_and_nowhere_else() {
    let id = UploadId::random();
    let marked = id.marked(0xdead_beef);
    assert_eq!(marked.mark(), 0xdead_beef);
    assert!(marked.to_string().ends_with("deadbeef") && marked.to_string()[..28] == id.to_string()[..28]);
    assert_eq!(UploadId::parse(&marked.to_string()), Some(marked));
}

#[test]
fn the_layout_of_the_reference_is_read() {
    let digest = Digest::from_hex(Algorithm::Sha256, HEX).unwrap();
    let (n, id, t) = (name("library/redis"), UploadId::parse(ID).unwrap(), Tag::parse("v1").unwrap());
    let cases = [
        (in_repositories("library/redis/_manifests"), RegistryPath::Manifests(n.clone())),
        (
            in_repositories(&format!("library/redis/_manifests/revisions/sha256/{HEX}/link")),
            RegistryPath::RevisionLink(n.clone(), digest),
        ),
        (
            in_repositories("library/redis/_manifests/tags/v1/current/link"),
            RegistryPath::TagCurrentLink(n.clone(), t.clone()),
        ),
        (
            in_repositories(&format!("library/redis/_manifests/tags/v1/index/sha256/{HEX}/link")),
            RegistryPath::TagIndexEntryLink(n.clone(), t, digest),
        ),
        (
            in_repositories(&format!("library/redis/_layers/sha256/{HEX}/link")),
            RegistryPath::LayerLink(n.clone(), digest),
        ),
        (
            in_repositories(&format!("library/redis/_uploads/{ID}/data")),
            RegistryPath::UploadData(n.clone(), id),
        ),
        (
            in_repositories(&format!("library/redis/_uploads/{ID}/hashstates/sha256/1048576")),
            RegistryPath::UploadHashState(n, id, Algorithm::Sha256, 1_048_576),
        ),
        (format!("/docker/registry/v2/blobs/sha256/ba/{HEX}/data"), RegistryPath::BlobData(digest)),
    ];
    for (text, expected) in cases {
        assert_eq!(parse(&text), Ok(expected.clone()));
        assert_eq!(expected.to_string(), text);
    }
}

#[test]
fn words_of_the_layout_are_legal_in_repository_names() {
    for text in ["blobs", "tags/list", "uploads/data", "repositories/manifests/link", "docker/registry/v2"] {
        assert_eq!(parse(&in_repositories(&format!("{text}/_layers"))), Ok(RegistryPath::Layers(name(text))));
        assert_eq!(parse(&in_repositories(text)), Ok(RegistryPath::Repository(name(text))));
    }
}

#[test]
fn words_of_the_layout_are_legal_tags() {
    for text in ["current", "link", "index", "sha256", "tags", "_manifests", "_uploads"] {
        let tag = Tag::parse(text).unwrap();
        assert_eq!(
            parse(&in_repositories(&format!("a/_manifests/tags/{text}/current/link"))),
            Ok(RegistryPath::TagCurrentLink(name("a"), tag.clone()))
        );
        assert_eq!(
            parse(&in_repositories(&format!("a/_manifests/tags/{text}"))),
            Ok(RegistryPath::Tag(name("a"), tag))
        );
    }
}

#[test]
fn the_first_part_with_an_underscore_ends_the_name() {
    assert_eq!(
        parse(&in_repositories("a/_manifests/tags/_layers")),
        Ok(RegistryPath::Tag(name("a"), Tag::parse("_layers").unwrap()))
    );
    assert!(matches!(parse(&in_repositories("_layers")), Err(RegistryPathFault::Name(_))));
    assert_eq!(parse(&in_repositories("a/_other")), Err(RegistryPathFault::NoSuchPlace));
    assert_eq!(parse(&in_repositories("a/_layers/_uploads")), {
        Err(RegistryPathFault::Digest(shoal_core::DigestError::UnknownAlgorithm("_uploads".into())))
    });
}

#[test]
fn a_digest_in_a_path_is_strict() {
    let upper = HEX.to_uppercase();
    let sha512 = "a".repeat(128);
    for rest in [
        format!("sha256/{upper}/link"),
        format!("sha256/{}/link", &HEX[1..]),
        format!("sha256/{HEX}0/link"),
        format!("sha512/{HEX}/link"),
        format!("sha256/{sha512}/link"),
        format!("md5/{HEX}/link"),
        format!("SHA256/{HEX}/link"),
    ] {
        let text = in_repositories(&format!("a/_layers/{rest}"));
        assert!(matches!(parse(&text), Err(RegistryPathFault::Digest(_))), "{text}");
    }
    assert!(parse(&in_repositories(&format!("a/_layers/sha512/{sha512}/link"))).is_ok());
}

#[test]
fn a_blob_lies_in_the_folder_of_its_own_digest() {
    for shard in ["bb", "BA", "b", "baa", "-a", "zz"] {
        let text = format!("/docker/registry/v2/blobs/sha256/{shard}/{HEX}/data");
        assert_eq!(parse(&text), Err(RegistryPathFault::Shard(shard.to_owned())));
    }
}

#[test]
fn an_upload_id_has_one_spelling() {
    let simple = ID.replace('-', "");
    for id in [&ID.to_uppercase(), &simple, "not-a-uuid", "0", &ID[1..]] {
        let text = in_repositories(&format!("a/_uploads/{id}/data"));
        assert_eq!(parse(&text), Err(RegistryPathFault::UploadId(id.to_owned())));
    }
}

#[test]
fn a_hash_state_offset_has_one_spelling() {
    for offset in ["-1", "01", "0x1", "a", "18446744073709551616", "1.0"] {
        let text = in_repositories(&format!("a/_uploads/{ID}/hashstates/sha256/{offset}"));
        assert_eq!(parse(&text), Err(RegistryPathFault::Offset(offset.to_owned())));
    }
}

#[test]
fn places_that_the_layout_does_not_have_are_refused() {
    for text in [
        "/a".to_owned(),
        "/docker/registry/v1".into(),
        "/docker/registry/v2/other".into(),
        "/Docker/registry/v2".into(),
        in_repositories("a/_manifests/other"),
        in_repositories("a/_manifests/tags/t/other"),
        in_repositories("a/_manifests/tags/t/current/other"),
        in_repositories("a/_manifests/tags/t/current/link/more"),
        in_repositories(&format!("a/_layers/sha256/{HEX}/data")),
        in_repositories(&format!("a/_uploads/{ID}/other")),
        format!("/docker/registry/v2/blobs/sha256/ba/{HEX}/link"),
        format!("/docker/registry/v2/blobs/sha256/ba/{HEX}/data/more"),
    ] {
        assert_eq!(parse(&text), Err(RegistryPathFault::NoSuchPlace), "{text}");
    }
    assert!(matches!(parse(&in_repositories("Upper/_layers")), Err(RegistryPathFault::Name(_))));
    assert!(matches!(parse(&in_repositories("a/_manifests/tags/.t")), Err(RegistryPathFault::Name(_))));
}

/// What a client may try in any part of a path.
const HOSTILE: &[&str] = &[
    "",
    ".",
    "..",
    "../..",
    "..\\..",
    "%2e%2e",
    "%252e%252e",
    "%2f",
    "%00",
    "\0",
    "a\0",
    "a\n",
    "\r\n",
    " ",
    "a b",
    "\u{ff41}",
    "\u{202e}a",
    "a:b",
    "sha256:",
    "a@b",
    "a;b",
    "a?b",
    "a#b",
    "a*",
    "~",
    "$HOME",
    "+7",
    "-",
    "--",
    ".a",
    "-a",
];

#[test]
fn hostile_parts_are_refused_in_every_place() {
    let id = ID;
    for hostile in HOSTILE.iter().copied().chain([&*"a".repeat(300), &*"a/".repeat(2500)]) {
        for text in [
            format!("/docker/{hostile}"),
            format!("/docker/registry/{hostile}/repositories"),
            in_repositories(&format!("{hostile}/_layers")),
            in_repositories(&format!("a/{hostile}/_layers")),
            in_repositories(&format!("a/_manifests/{hostile}")),
            in_repositories(&format!("a/_manifests/tags/{hostile}/current/link")),
            in_repositories(&format!("a/_manifests/tags/t/index/{hostile}/{HEX}/link")),
            in_repositories(&format!("a/_manifests/revisions/sha256/{hostile}/link")),
            in_repositories(&format!("a/_layers/sha256/{HEX}{hostile}x/link")),
            in_repositories(&format!("a/_uploads/{hostile}/data")),
            in_repositories(&format!("a/_uploads/{id}/hashstates/sha256/{hostile}")),
            in_repositories(&format!("a/_uploads/{id}/{hostile}/sha256/7")),
            format!("/docker/registry/v2/blobs/sha256/{hostile}/{HEX}/data"),
            format!("/docker/registry/v2/blobs/sha256/ba/{hostile}/data"),
            format!("/docker/registry/v2/blobs/sha256/ba/{HEX}/{hostile}"),
        ] {
            let parsed = DriverPath::parse(&text).map(|path| RegistryPath::parse(&path));
            assert!(!matches!(parsed, Ok(Ok(_))), "{text:?}");
        }
    }
}

#[test]
fn what_only_a_pull_through_cache_keeps_has_no_place() {
    assert_eq!(parse("/scheduler-state.json"), Err(RegistryPathFault::NoSuchPlace));
}

#[test]
fn the_longest_names_still_make_a_path() {
    let longest = RegistryPath::TagIndexEntryLink(
        name(&"a/".repeat(127).chars().chain(['a']).collect::<String>()),
        Tag::parse(&"t".repeat(Tag::MAX_LENGTH)).unwrap(),
        Digest::of(Algorithm::Sha512, b""),
    );
    assert_eq!(RegistryPath::parse(&longest.to_driver_path()), Ok(longest));
}

/// Any value of the enum; used by the tests of other modules too.
pub(crate) fn any_path() -> impl Strategy<Value = RegistryPath> {
    use RegistryPath as P;
    let word = "[a-z0-9]{1,4}|blobs|tags|uploads|repositories|manifests|link|data|a-b|a__b";
    let names = proptest::collection::vec(word, 1..4).prop_map(|parts| name(&parts.join("/")));
    let tags = "[A-Za-z0-9_][A-Za-z0-9._-]{0,8}|current|link|index|sha256"
        .prop_map(|text| Tag::parse(&text).unwrap());
    let algorithms = prop_oneof![Just(Algorithm::Sha256), Just(Algorithm::Sha512)];
    let digests = (algorithms.clone(), any::<u64>()).prop_map(|(a, seed)| Digest::of(a, &seed.to_be_bytes()));
    let ids = any::<u128>().prop_map(|bits| UploadId(Uuid::from_u128(bits)));
    (0..35_u8, names, tags, digests, ids, algorithms, any::<u64>()).prop_map(|(which, n, t, d, id, a, at)| {
        match which {
            0 => P::Root,
            1 => P::Docker,
            2 => P::Registry,
            3 => P::Version,
            4 => P::Repositories,
            5 => P::Repository(n),
            6 => P::Manifests(n),
            7 => P::Revisions(n),
            8 => P::RevisionsByAlgorithm(n, a),
            9 => P::Revision(n, d),
            10 => P::RevisionLink(n, d),
            11 => P::Tags(n),
            12 => P::Tag(n, t),
            13 => P::TagCurrent(n, t),
            14 => P::TagCurrentLink(n, t),
            15 => P::TagIndex(n, t),
            16 => P::TagIndexByAlgorithm(n, t, a),
            17 => P::TagIndexEntry(n, t, d),
            18 => P::TagIndexEntryLink(n, t, d),
            19 => P::Layers(n),
            20 => P::LayersByAlgorithm(n, a),
            21 => P::Layer(n, d),
            22 => P::LayerLink(n, d),
            23 => P::Uploads(n),
            24 => P::Upload(n, id),
            25 => P::UploadData(n, id),
            26 => P::UploadStartedAt(n, id),
            27 => P::UploadHashAlgorithms(n, id),
            28 => P::UploadHashStates(n, id, a),
            29 => P::UploadHashState(n, id, a, at),
            30 => P::Blobs,
            31 => P::BlobsByAlgorithm(a),
            32 => P::BlobShard(a, Shard(at as u8)),
            33 => P::Blob(d),
            _ => P::BlobData(d),
        }
    })
}

/// Texts near the layout: most parse, some do not.
fn nearby_text() -> impl Strategy<Value = String> {
    (any_path(), any::<prop::sample::Index>(), "[a-z0-9_./A-Z-]{0,2}").prop_map(|(path, at, noise)| {
        let mut text = path.to_string();
        text.insert_str(at.index(text.len() + 1), &noise);
        text
    })
}

proptest! {
    #[test]
    fn every_path_has_a_text_that_means_it(path in any_path()) {
        let text = DriverPath::parse(&path.to_string()).unwrap();
        prop_assert_eq!(&text, &path.to_driver_path());
        prop_assert_eq!(RegistryPath::parse(&text), Ok(path));
    }

    #[test]
    fn every_text_that_parses_is_the_text_of_its_path(text in nearby_text()) {
        if let Ok(path) = DriverPath::parse(&text)
            && let Ok(parsed) = RegistryPath::parse(&path)
        {
            prop_assert_eq!(parsed.to_string(), text);
        }
    }

    #[test]
    fn the_folder_of_every_path_is_a_path(path in any_path()) {
        if let Some(parent) = path.to_driver_path().parent() {
            prop_assert!(RegistryPath::parse(&parent).is_ok(), "{parent}");
        }
    }
}

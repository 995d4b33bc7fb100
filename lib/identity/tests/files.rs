//! What is written to disk, and what is accepted from it.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use shoal_core::{Metainfo, Role, SignedMetainfo};
use shoal_identity::{Authority, CertificateError, Config, FileError, Identity, IdentityError};

fn load(directory: &Path) -> Result<Identity, IdentityError> {
    Identity::load(&Config::at(directory))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A directory with the files of a node of cluster `prod`.
fn node_directory(role: Role) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    Authority::generate("prod").unwrap().issue(role, "host-1").unwrap().save(directory.path()).unwrap();
    directory
}

#[test]
fn what_is_saved_loads_as_the_same_identity() {
    let home = tempfile::tempdir().unwrap();
    let (ca, node) = (home.path().join("ca"), home.path().join("node"));
    Authority::generate("prod").unwrap().save(&ca).unwrap();
    let origin = Authority::load(&ca).unwrap().issue(Role::Origin, "host-1").unwrap();
    origin.save(&node).unwrap();

    let loaded = load(&node).unwrap();
    assert_eq!((loaded.id(), loaded.role(), loaded.name()), (origin.id(), Role::Origin, "host-1"));
    assert_eq!(loaded.cluster(), "prod");
    // The authority that was read again speaks for the same cluster as before, and the key still signs.
    let agent = Authority::load(&ca).unwrap().issue(Role::Agent, "host-2").unwrap();
    let metainfo = Metainfo::of(b"blob").unwrap();
    let signed = SignedMetainfo { proof: loaded.sign(&metainfo), metainfo };
    assert_eq!(agent.verify(&signed).unwrap().id, origin.id());
}

#[test]
fn only_the_owner_reads_a_private_key() {
    let home = tempfile::tempdir().unwrap();
    let authority = Authority::generate("prod").unwrap();
    authority.save(home.path()).unwrap();
    authority.issue(Role::Agent, "a").unwrap().save(&home.path().join("node")).unwrap();
    assert_eq!(mode(&home.path().join("ca-key.pem")), 0o600);
    assert_eq!(mode(&home.path().join("node/key.pem")), 0o600);
}

#[test]
fn an_existing_file_is_named_and_left_as_it_was() {
    let authority = Authority::generate("prod").unwrap();
    let agent = authority.issue(Role::Agent, "a").unwrap();
    let of_authority = |directory: &Path| authority.save(directory);
    let of_node = |directory: &Path| agent.save(directory);
    type Save<'a> = &'a dyn Fn(&Path) -> Result<(), IdentityError>;
    let cases: [(&str, Save<'_>); 5] = [
        ("ca.pem", &of_authority),
        ("ca-key.pem", &of_authority),
        ("ca.pem", &of_node),
        ("cert.pem", &of_node),
        ("key.pem", &of_node),
    ];
    for (name, save) in cases {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(name), "mine").unwrap();
        let saved = save(directory.path());
        let Err(IdentityError::File(FileError::Exists { path })) = saved else {
            panic!("{name} was written over: {saved:?}")
        };
        assert_eq!(path, directory.path().join(name));
        assert_eq!(fs::read_to_string(path).unwrap(), "mine");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "half a set was left beside {name}");
    }
}

#[test]
fn a_missing_file_is_named() {
    for name in ["ca.pem", "cert.pem", "key.pem"] {
        let directory = node_directory(Role::Agent);
        fs::remove_file(directory.path().join(name)).unwrap();
        let error = load(directory.path()).unwrap_err();
        assert!(matches!(error, IdentityError::File(FileError::Read { .. })), "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn a_file_of_garbage_is_named() {
    for name in ["ca.pem", "cert.pem", "key.pem"] {
        for garbage in [
            "",
            "garbage",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        ] {
            let directory = node_directory(Role::Agent);
            fs::write(directory.path().join(name), garbage).unwrap();
            let error = load(directory.path()).unwrap_err();
            assert!(error.to_string().contains(name), "{garbage:?}: {error}");
            assert!(error.to_string().contains("shoal ca issue"), "{error} names no remedy");
        }
    }
}

#[test]
fn another_nodes_key_is_refused() {
    let (one, other) = (node_directory(Role::Agent), node_directory(Role::Agent));
    fs::copy(other.path().join("key.pem"), one.path().join("key.pem")).unwrap();
    assert!(matches!(load(one.path()), Err(IdentityError::File(FileError::KeyMismatch { .. }))));
}

#[test]
fn an_authoritys_key_must_fit_its_certificate() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    Authority::generate("prod").unwrap().save(one.path()).unwrap();
    Authority::generate("prod").unwrap().save(other.path()).unwrap();
    fs::copy(other.path().join("ca-key.pem"), one.path().join("ca-key.pem")).unwrap();
    let error = Authority::load(one.path()).unwrap_err();
    assert!(matches!(error, IdentityError::File(FileError::KeyMismatch { .. })), "{error}");
}

#[test]
fn a_certificate_of_another_authority_is_refused() {
    let (one, other) = (node_directory(Role::Agent), node_directory(Role::Agent));
    fs::copy(other.path().join("ca.pem"), one.path().join("ca.pem")).unwrap();
    let error = load(one.path()).unwrap_err();
    assert!(
        matches!(
            &error,
            IdentityError::File(FileError::Certificate { source: CertificateError::Untrusted(_), .. })
        ),
        "{error:?}"
    );
}

#[test]
fn a_nodes_certificate_is_no_authority() {
    let directory = node_directory(Role::Origin);
    fs::copy(directory.path().join("cert.pem"), directory.path().join("ca.pem")).unwrap();
    let error = load(directory.path()).unwrap_err();
    assert!(
        matches!(
            &error,
            IdentityError::File(FileError::Certificate { source: CertificateError::NotAnAuthority, .. })
        ),
        "{error:?}"
    );
}

#[test]
fn a_cluster_can_change_its_authority_while_it_runs() {
    let (old, new) = (Authority::generate("prod").unwrap(), Authority::generate("prod").unwrap());
    let directory = tempfile::tempdir().unwrap();
    old.issue(Role::Agent, "a").unwrap().save(directory.path()).unwrap();
    let next = tempfile::tempdir().unwrap();
    new.save(next.path()).unwrap();
    let texts = [directory.path(), next.path()].map(|at| fs::read_to_string(at.join("ca.pem")).unwrap());
    fs::write(directory.path().join("ca.pem"), texts.concat()).unwrap();

    let agent = load(directory.path()).unwrap();
    let metainfo = Metainfo::of(b"blob").unwrap();
    for authority in [old, new] {
        let proof = authority.issue(Role::Origin, "o").unwrap().sign(&metainfo);
        agent.verify(&SignedMetainfo { metainfo: metainfo.clone(), proof }).unwrap();
    }
}

#[test]
fn names_that_fit_no_certificate_are_refused() {
    for cluster in ["", "Prod", "a b", "a/b"] {
        assert!(matches!(Authority::generate(cluster), Err(IdentityError::Name(_))), "{cluster:?}");
    }
    let authority = Authority::generate("prod").unwrap();
    for name in ["", "..", "a/b", "a b", "ü"] {
        assert!(matches!(authority.issue(Role::Agent, name), Err(IdentityError::Name(_))), "{name:?}");
    }
}

#[test]
fn no_private_key_is_printed() {
    let authority = Authority::generate("prod").unwrap();
    let agent = authority.issue(Role::Agent, "a").unwrap();
    assert!(!format!("{authority:?} {agent:?}").contains("PRIVATE"));
}

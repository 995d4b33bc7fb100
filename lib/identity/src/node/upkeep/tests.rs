//! Certificates and files that change under a node, and what of it is taken.

use rcgen::{CertificateParams, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SanType};
use shoal_core::{Metainfo, Role, SignedMetainfo};

use super::*;
use crate::{Authority, Config};

const HOUR: Duration = Duration::from_secs(3600);

fn at_home(authority: &Authority, role: Role) -> (tempfile::TempDir, Identity) {
    let home = tempfile::tempdir().unwrap();
    authority.issue(role, "node").unwrap().save(home.path()).unwrap();
    let identity = Identity::load(&Config::at(home.path())).unwrap();
    (home, identity)
}

#[test]
fn a_certificate_is_due_at_two_thirds_of_its_life_and_a_little_later_by_chance() {
    let from = SystemTime::UNIX_EPOCH + HOUR;
    let until = from + 12 * HOUR;
    assert_eq!(due(from, until, 0.0), from + 8 * HOUR);
    assert_eq!(due(from, until, 1.0), from + 9 * HOUR);
    assert_eq!(due(from, until, f64::INFINITY), from + 9 * HOUR);
    assert_eq!(due(until, from, 0.5), until, "a life that ends before it begins is over");
}

#[test]
fn a_renewed_certificate_is_in_use_and_on_disk() {
    let authority = Authority::generate("prod").unwrap();
    let (home, node) = at_home(&authority, Role::Agent);
    let clone = node.clone();
    let renewed = authority.renew(&node.own(), HOUR).unwrap();
    node.renewed(&renewed).unwrap();
    assert!(clone.expires() <= SystemTime::now() + HOUR, "a clone shows the old one");
    assert_eq!(std::fs::read_to_string(home.path().join("cert.pem")).unwrap(), renewed);
    let again = Identity::load(&Config::at(home.path())).unwrap();
    assert_eq!((again.id(), again.expires()), (node.id(), node.expires()));
    // What it wrote itself is taken once more, and then no longer new.
    node.refresh().unwrap();
    assert_eq!(node.refresh().unwrap(), Refresh::Unchanged);
}

#[test]
fn files_that_others_replace_are_taken() {
    let authority = Authority::generate("prod").unwrap();
    let (home, node) = at_home(&authority, Role::Agent);
    assert_eq!(node.refresh().unwrap(), Refresh::Unchanged);
    let renewed = authority.renew(&node.own(), HOUR).unwrap();
    files::replace(home.path(), files::NODE_CERTIFICATE, Secrecy::Public, &renewed).unwrap();
    assert_eq!(node.refresh().unwrap(), Refresh::Taken);
    assert!(node.expires() <= SystemTime::now() + HOUR);
}

#[test]
fn files_of_another_node_or_role_are_not_taken_and_said_once() {
    let authority = Authority::generate("prod").unwrap();
    let (home, node) = at_home(&authority, Role::Agent);
    let (other, _) = at_home(&authority, Role::Agent);
    for name in ["cert.pem", "key.pem"] {
        std::fs::copy(other.path().join(name), home.path().join(name)).unwrap();
    }
    assert!(matches!(node.refresh(), Err(IdentityError::OtherNode { .. })));
    assert_eq!(node.refresh().unwrap(), Refresh::Unchanged);

    let (home, node) = at_home(&authority, Role::Agent);
    let promoted = crate::Peer { role: Role::Origin, ..node.own() };
    let promoted = authority.renew(&promoted, HOUR).unwrap();
    assert!(matches!(node.renewed(&promoted), Err(IdentityError::OtherNode { .. })));
    assert_eq!(node.role(), Role::Agent);
    drop(home);
}

#[test]
fn a_list_survives_a_restart_and_files_without_it() {
    let authority = Authority::generate("prod").unwrap();
    let (home, node) = at_home(&authority, Role::Agent);
    let outcast = crate::Outcast::Node(shoal_core::PeerId::from_public_key([1; 32]));
    let list = authority.revoke(None, outcast, SystemTime::now()).unwrap();
    node.revoke(list.text()).unwrap();
    let restarted = Identity::load(&Config::at(home.path())).unwrap();
    assert_eq!(restarted.revocations().unwrap().number(), list.number());
    node.refresh().unwrap();
    std::fs::remove_file(home.path().join("revoked.list")).unwrap();
    assert_eq!(node.refresh().unwrap(), Refresh::Taken);
    assert_eq!(node.revocations().unwrap().number(), list.number());
}

#[test]
fn a_list_of_garbage_keeps_a_node_from_starting() {
    let authority = Authority::generate("prod").unwrap();
    let (home, _) = at_home(&authority, Role::Agent);
    std::fs::write(home.path().join("revoked.list"), "garbage").unwrap();
    let error = Identity::load(&Config::at(home.path())).unwrap_err();
    assert!(error.to_string().contains("revoked.list"), "{error}");
}

/// A certificate as an issuer from outside makes it, under an intermediate; all keys but the node's are ECDSA.
struct Outside {
    root: String,
    chain: String,
    key: String,
}

impl Outside {
    fn new(uri: &str, node_key: &KeyPair) -> Self {
        let key = || KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let authority = |name: &str| {
            let mut parameters = CertificateParams::default();
            parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
            parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            parameters
        };
        let (root_parameters, root_key) = (authority("root"), key());
        let root = root_parameters.self_signed(&root_key).unwrap();
        let root_issuer = Issuer::new(root_parameters, root_key);
        let (parameters, middle_key) = (authority("intermediate"), key());
        let middle = parameters.signed_by(&middle_key, &root_issuer).unwrap();
        let middle_issuer = Issuer::new(parameters, middle_key);
        let mut parameters = CertificateParams::new(vec!["host.example".to_owned()]).unwrap();
        parameters.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        let leaf = parameters.signed_by(node_key, &middle_issuer).unwrap();
        Self { root: root.pem(), chain: leaf.pem() + &middle.pem(), key: node_key.serialize_pem() }
    }

    fn load(&self) -> (tempfile::TempDir, Result<Identity, IdentityError>) {
        let home = tempfile::tempdir().unwrap();
        for (name, text) in [("ca.pem", &self.root), ("cert.pem", &self.chain), ("key.pem", &self.key)] {
            std::fs::write(home.path().join(name), text).unwrap();
        }
        let loaded = Identity::load(&Config::at(home.path()));
        (home, loaded)
    }
}

#[test]
fn an_outside_certificate_with_an_intermediate_works_and_signs() {
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let outside = Outside::new("spiffe://prod/origin/o-1", &key);
    let (home, origin) = outside.load();
    let origin = origin.unwrap();
    assert_eq!((origin.role(), origin.name(), origin.cluster()), (Role::Origin, "o-1", "prod"));
    let metainfo = Metainfo::of(b"blob").unwrap();
    let signed = SignedMetainfo { proof: origin.sign(&metainfo), metainfo };
    let read = SignedMetainfo::decode(signed.encode()).unwrap();
    assert_eq!(origin.verify(&read).unwrap().id, origin.id());
    // Without the intermediate nobody knows who issued it.
    let leaf = outside.chain.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap();
    std::fs::write(home.path().join("cert.pem"), leaf).unwrap();
    assert!(Identity::load(&Config::at(home.path())).is_err());
}

#[test]
fn an_outside_certificate_for_another_kind_of_key_is_refused_by_name() {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let error = Outside::new("spiffe://prod/agent/a", &key).load().1.unwrap_err();
    assert!(shoal_core::causes(&error).contains("Ed25519"), "{}", shoal_core::causes(&error));
}

//! Which servers a node without a certificate believes, and what it keeps.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use super::*;
use crate::{Authority, NamePattern, TokenOrder};

fn token(authority: &Authority) -> JoinToken {
    let name = NamePattern::parse("host-1").unwrap();
    let lifetime = Duration::from_secs(60);
    let order = TokenOrder { id: [1; 16], role: Role::Agent, name, uses: 1, lifetime };
    authority.token(order, SystemTime::now()).unwrap()
}

fn config(token: &JoinToken, directory: &std::path::Path) -> Config {
    let join = JoinConfig { token: Some(token.as_str().to_owned()), token_file: None, trackers: Vec::new() };
    Config { join: Some(join), ..Config::at(directory) }
}

fn chain(server: &Identity, authority: &Authority) -> Vec<CertificateDer<'static>> {
    vec![server.certificate(), authority.certificate().clone()]
}

#[test]
fn a_node_joins_with_a_token_and_no_other_knowledge() {
    let authority = Authority::generate("prod").unwrap();
    let home = tempfile::tempdir().unwrap();
    let config = config(&token(&authority), home.path());
    let missing = Identity::load(&config).unwrap_err();
    assert!(missing.asks_to_join(), "{missing}");

    let joining = Joining::begin(&config, SystemTime::now()).unwrap();
    let mode = std::fs::metadata(home.path().join("key.pem")).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let tracker = authority.issue(Role::Tracker, "t").unwrap();
    joining.tracker.check(&chain(&tracker, &authority), UnixTime::now()).unwrap();
    let grant = authority.check_token(joining.token(), SystemTime::now()).unwrap();
    let request = joining.request().unwrap();
    let (node, certificate) = authority.enrol(&grant, &request, Duration::from_secs(60)).unwrap();
    assert_eq!((node.id, node.role, node.name.as_str()), (joining.id(), Role::Agent, "host-1"));
    let identity = joining.finish(&certificate).unwrap();
    assert_eq!(identity.own(), node);
    assert_eq!(Identity::load(&config).unwrap().id(), node.id);
}

#[test]
fn whoever_is_cut_off_comes_back_as_the_same_node() {
    let authority = Authority::generate("prod").unwrap();
    let home = tempfile::tempdir().unwrap();
    let config = config(&token(&authority), home.path());
    let ids = [(); 2].map(|()| Joining::begin(&config, SystemTime::now()).unwrap().id());
    assert_eq!(ids[0], ids[1]);
}

#[test]
fn a_server_that_is_no_tracker_of_the_tokens_authority_is_refused() {
    let [ours, theirs] = [(); 2].map(|()| Authority::generate("prod").unwrap());
    let home = tempfile::tempdir().unwrap();
    let joining = Joining::begin(&config(&token(&ours), home.path()), SystemTime::now()).unwrap();
    let check = |chain: &[_]| joining.tracker.check(chain, UnixTime::now());
    let [tracker, stranger] = [&ours, &theirs].map(|one| one.issue(Role::Tracker, "t").unwrap());
    let agent = ours.issue(Role::Agent, "a").unwrap();
    assert!(check(&chain(&agent, &ours)).is_err(), "an agent");
    assert!(check(&chain(&stranger, &theirs)).is_err(), "another cluster's tracker");
    assert!(check(&chain(&stranger, &ours)).is_err(), "one that shows our authority and is not of it");
    assert!(check(&[tracker.certificate()]).is_err(), "one that does not show the authority");
    assert!(check(&[]).is_err());
    assert!(matches!(joining.finish("").unwrap_err(), IdentityError::NoAuthority));
}

#[test]
fn a_token_whose_time_is_over_is_not_tried() {
    let authority = Authority::generate("prod").unwrap();
    let home = tempfile::tempdir().unwrap();
    let later = SystemTime::now() + Duration::from_secs(120);
    let error = Joining::begin(&config(&token(&authority), home.path()), later).unwrap_err();
    assert!(error.to_string().contains("expired"), "{error}");
    assert!(!home.path().join("key.pem").exists());
}

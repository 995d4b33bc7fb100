//! Whose lists count, and which of two.

use std::time::Duration;

use proptest::prelude::*;
use rustls_pki_types::UnixTime;
use shoal_core::{Metainfo, Role, SignedMetainfo};

use super::*;
use crate::{Authority, CertificateError, Identity};

fn node(number: u8) -> PeerId {
    PeerId::from_public_key([number; 32])
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn pair(authority: &Authority) -> (Identity, Identity) {
    (authority.issue(Role::Origin, "origin").unwrap(), authority.issue(Role::Agent, "agent").unwrap())
}

#[test]
fn each_list_keeps_those_before_and_has_a_higher_number() {
    let authority = Authority::generate("prod").unwrap();
    let first = authority.revoke(None, Outcast::Node(node(1)), at(100)).unwrap();
    let serial = Serial::parse("0A:0b").unwrap();
    let second = authority.revoke(Some(&first), Outcast::Certificate(serial), at(50)).unwrap();
    assert_eq!((first.number(), second.number()), (100, 101));
    assert!(second.has(&node(1), &[]) && second.has(&node(2), &[0, 0x0a, 0x0b]));
    assert!(!second.has(&node(2), &[0x0b]) && !first.has(&node(2), &[0x0a, 0x0b]));
}

#[test]
fn a_revoked_node_is_refused_with_every_certificate_of_its_key() {
    let authority = Authority::generate("prod").unwrap();
    let (origin, agent) = pair(&authority);
    let metainfo = Metainfo::of(b"blob").unwrap();
    let signed = SignedMetainfo { proof: origin.sign(&metainfo), metainfo };
    agent.verify(&signed).unwrap();
    let renewed = authority.renew(&origin.own(), Duration::from_secs(60)).unwrap();
    let list = authority.revoke(None, Outcast::Node(origin.id()), at(1)).unwrap();
    agent.revoke(list.text()).unwrap();
    let certificates = [origin.certificate(), crate::files::first_certificate(&renewed).unwrap()];
    for certificate in certificates {
        let refused = agent.trust().check(&[certificate], UnixTime::now());
        assert!(matches!(refused, Err(CertificateError::Revoked { .. })), "{refused:?}");
    }
    assert!(agent.verify(&signed).is_err(), "what a revoked origin signed is believed");
}

#[test]
fn one_certificate_can_be_revoked_by_its_serial() {
    let authority = Authority::generate("prod").unwrap();
    let (origin, agent) = pair(&authority);
    let serial = crate::trust::serial_of(&origin.certificate()).unwrap();
    let list = authority.revoke(None, Outcast::Certificate(serial), at(1)).unwrap();
    agent.revoke(list.text()).unwrap();
    assert!(matches!(agent.trust().peer(&origin.certificate()), Err(CertificateError::Revoked { .. })));
    agent.trust().peer(&agent.certificate()).unwrap();
}

#[test]
fn an_older_list_does_not_take_the_place_of_a_newer() {
    let authority = Authority::generate("prod").unwrap();
    let (_, agent) = pair(&authority);
    let old = authority.revoke(None, Outcast::Node(node(1)), at(1)).unwrap();
    let new = authority.revoke(Some(&old), Outcast::Node(node(2)), at(2)).unwrap();
    agent.revoke(new.text()).unwrap();
    let refused = agent.revoke(old.text()).unwrap_err();
    assert!(refused.to_string().contains("older"), "{refused}");
    assert_eq!(agent.revocations().unwrap().number(), 2);
}

#[test]
fn lists_of_others_are_refused() {
    let [ours, theirs] = [(); 2].map(|()| Authority::generate("prod").unwrap());
    let (_, agent) = pair(&ours);
    let list = theirs.revoke(None, Outcast::Node(node(1)), at(1)).unwrap();
    agent.revoke(list.text()).unwrap_err();
    let other = ours.renamed("staging").revoke(None, Outcast::Node(node(1)), at(1)).unwrap();
    agent.revoke(other.text()).unwrap_err();
    assert!(agent.revocations().is_none());
}

#[test]
fn serials_are_read_as_tools_print_them() {
    assert_eq!(Serial::parse("00:ab:CD").unwrap(), Serial::parse("abcd").unwrap());
    for bad in ["", "0", "xy", "00", &"ab".repeat(21), &"ab:".repeat(100)] {
        assert!(Serial::parse(bad).is_err(), "{bad} was accepted");
    }
}

proptest! {
    #[test]
    fn an_altered_list_is_refused(at_byte: prop::sample::Index, byte: u8) {
        let authority = Authority::generate("prod").unwrap();
        let list = authority.revoke(None, Outcast::Node(node(1)), at(1)).unwrap();
        let mut altered = list.text().as_bytes().to_vec();
        let at_byte = at_byte.index(altered.len());
        prop_assume!(altered[at_byte] != byte);
        altered[at_byte] = byte;
        if let Ok(text) = std::str::from_utf8(&altered) {
            let refused = Revocations::read(text, "prod", &[authority.id()]);
            // White space at an end is not part of the text.
            let same = text.trim_ascii() == list.text();
            prop_assert!(refused.is_err() || same);
        }
    }

    #[test]
    fn garbage_is_refused(text in "(shoal-revocations-1\\.)?[A-Za-z0-9_.-]{0,300}") {
        prop_assert!(Revocations::read(&text, "prod", &[node(1)]).is_err());
    }
}

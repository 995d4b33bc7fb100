//! Which signed metainfo is believed.

use shoal_core::{Geometry, PieceHash, PieceIndex, PieceLength};
use time::{Duration, OffsetDateTime};

use super::*;
use crate::Authority;
use crate::authority::Validity;

const MIB: u64 = 1 << 20;

struct Cluster {
    authority: Authority,
    origin: Identity,
    agent: Identity,
}

fn cluster() -> Cluster {
    let authority = Authority::generate("prod").unwrap();
    let origin = authority.issue(Role::Origin, "origin-1").unwrap();
    let agent = authority.issue(Role::Agent, "agent-1").unwrap();
    Cluster { authority, origin, agent }
}

fn metainfo() -> Metainfo {
    Metainfo::of(&vec![7; 2 * MIB as usize + 1]).unwrap()
}

fn signed_by(signer: &Identity) -> SignedMetainfo {
    let metainfo = metainfo();
    SignedMetainfo { proof: signer.sign(&metainfo), metainfo }
}

#[test]
fn an_origins_signature_is_believed() {
    let Cluster { origin, agent, .. } = cluster();
    let signer = agent.verify(&signed_by(&origin)).unwrap();
    assert_eq!(signer, Peer { id: origin.id(), role: Role::Origin, name: "origin-1".into() });
}

#[test]
fn a_certificates_peer_id_is_the_identitys() {
    let Cluster { origin, agent, .. } = cluster();
    assert_eq!(agent.peer(&origin.certificate()).unwrap().id, origin.id());
    assert_eq!(origin.id().public_key(), origin.0.key.public_key().as_ref());
}

#[test]
fn signatures_of_agents_and_trackers_are_refused() {
    let Cluster { authority, agent, .. } = cluster();
    for role in [Role::Agent, Role::Tracker] {
        let signer = authority.issue(role, "x").unwrap();
        let error = agent.verify_at(&signed_by(&signer), UnixTime::now()).unwrap_err();
        assert!(matches!(error, ProofError::NotAnOrigin { role: found, .. } if found == role), "{error}");
    }
}

#[test]
fn an_origin_of_another_authority_is_refused() {
    let (ours, theirs) = (cluster(), cluster());
    let error = ours.agent.verify_at(&signed_by(&theirs.origin), UnixTime::now()).unwrap_err();
    assert!(
        matches!(&error, ProofError::Certificate { source, .. } if matches!(**source, CertificateError::Untrusted(_))),
        "{error:?}"
    );
}

#[test]
fn another_origins_certificate_does_not_fit_the_signature() {
    let Cluster { authority, origin, agent } = cluster();
    let mut signed = signed_by(&origin);
    signed.proof.certificate = signed_by(&authority.issue(Role::Origin, "o2").unwrap()).proof.certificate;
    let error = agent.verify_at(&signed, UnixTime::now()).unwrap_err();
    assert!(matches!(error, ProofError::Signature { .. }), "{error}");
}

#[test]
fn a_metainfo_with_any_field_altered_is_refused() {
    let Cluster { origin, agent, .. } = cluster();
    let signed = signed_by(&origin);
    let geometry = *signed.metainfo.geometry();
    let digest = *signed.metainfo.digest();
    let hashes: Vec<PieceHash> = (0..3).map(|at| *signed.metainfo.hash(PieceIndex(at)).unwrap()).collect();
    let mut altered = vec![
        // The digest, its algorithm, the length (with the same number of pieces), the piece length.
        Metainfo::new(Digest::sha256(b"other"), geometry, hashes.clone()),
        Metainfo::new(Digest::of(shoal_core::Algorithm::Sha512, b""), geometry, hashes.clone()),
        Metainfo::new(digest, Geometry::for_blob(2 * MIB + 2).unwrap(), hashes.clone()),
        Metainfo::new(
            digest,
            Geometry::new(geometry.length(), PieceLength::new(2 << 20).unwrap()).unwrap(),
            hashes[..2].to_vec(),
        ),
    ];
    for at in 0..hashes.len() {
        let mut hashes = hashes.clone();
        hashes[at].0[31] ^= 1;
        altered.push(Metainfo::new(digest, geometry, hashes));
    }
    let mut swapped = hashes;
    swapped.swap(0, 2);
    altered.push(Metainfo::new(digest, geometry, swapped));

    for metainfo in altered {
        let forged = SignedMetainfo { metainfo: metainfo.unwrap(), proof: signed.proof.clone() };
        let error = agent.verify_at(&forged, UnixTime::now()).unwrap_err();
        assert!(matches!(error, ProofError::Signature { .. }), "{:?}: {error}", forged.metainfo);
    }
}

#[test]
fn a_signature_without_its_domain_is_refused() {
    let Cluster { origin, agent, .. } = cluster();
    let mut signed = signed_by(&origin);
    signed.proof.signature = Bytes::copy_from_slice(origin.0.key.sign(&signed.metainfo.encode()).as_ref());
    assert!(matches!(agent.verify_at(&signed, UnixTime::now()), Err(ProofError::Signature { .. })));
}

#[test]
fn a_cut_or_damaged_proof_is_refused() {
    let Cluster { origin, agent, .. } = cluster();
    let signed = signed_by(&origin);
    for at in 0..signed.proof.certificate.len() {
        let mut damaged = signed.proof.certificate.to_vec();
        damaged[at] ^= 1;
        let proof = Proof { certificate: damaged.into(), signature: signed.proof.signature.clone() };
        assert!(
            agent.verify(&SignedMetainfo { proof, ..signed.clone() }).is_err(),
            "byte {at} does not count"
        );
        let certificate = signed.proof.certificate.slice(..at);
        let proof = Proof { certificate, signature: signed.proof.signature.clone() };
        assert!(agent.verify(&SignedMetainfo { proof, ..signed.clone() }).is_err(), "{at} bytes are enough");
    }
    for end in 0..signed.proof.signature.len() {
        let signature = signed.proof.signature.slice(..end);
        let proof = Proof { certificate: signed.proof.certificate.clone(), signature };
        assert!(agent.verify(&SignedMetainfo { proof, ..signed.clone() }).is_err(), "{end} bytes are enough");
    }
}

#[test]
fn an_expired_certificate_is_refused() {
    let Cluster { authority, agent, .. } = cluster();
    let now = OffsetDateTime::now_utc();
    let past = Validity { not_before: now - Duration::hours(2), not_after: now - Duration::hours(1) };
    let future = Validity { not_before: now + Duration::hours(1), not_after: now + Duration::hours(2) };
    for validity in [past, future] {
        let origin = authority.issue_valid(Role::Origin, "o", validity).unwrap();
        let error = agent.verify_at(&signed_by(&origin), UnixTime::now()).unwrap_err();
        assert!(
            matches!(&error, ProofError::Certificate { source, .. } if matches!(**source, CertificateError::Untrusted(_))),
            "{error:?}"
        );
        // In its time, it would have been believed.
        let then = (validity.not_before + Duration::minutes(1) - OffsetDateTime::UNIX_EPOCH).unsigned_abs();
        agent.verify_at(&signed_by(&origin), UnixTime::since_unix_epoch(then)).unwrap();

        let directory = tempfile::tempdir().unwrap();
        origin.save(directory.path()).unwrap();
        let error = Identity::load(&Config::at(directory.path())).unwrap_err();
        assert!(error.to_string().contains("cert.pem") && error.to_string().contains("clock"), "{error}");
    }
}

#[test]
fn no_certificate_outlives_its_authority() {
    let Cluster { authority, .. } = cluster();
    let now = OffsetDateTime::now_utc();
    let endless = Validity { not_before: now, not_after: now + Duration::days(36500) };
    let node = authority.issue_valid(Role::Agent, "a", endless).unwrap();
    let certificate = node.certificate();
    let parsed = trust::parse(&certificate).unwrap();
    assert!(parsed.validity().not_after.to_datetime() <= now + Duration::days(3650));
}

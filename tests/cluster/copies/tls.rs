//! A registry with a private authority that wants to see certificates.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::rig::{Index, Stock, User};
use crate::process::Processes;

/// An authority, and the files of what it issued.
struct Authority {
    folder: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), parameters.self_signed(&key).unwrap().pem()).unwrap();
        Self { folder, issuer: Issuer::new(parameters, key) }
    }

    fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Certificate and key for a name or an address.
    fn issue(&self, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let parameters = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        let file = |end: &str| self.folder.path().join(format!("{name}{end}"));
        std::fs::write(file(".pem"), certificate.pem()).unwrap();
        std::fs::write(file("-key.pem"), key.serialize_pem()).unwrap();
        (file(".pem"), file("-key.pem"))
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_authority_and_a_certificate_are_shown_and_asked_for() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (certificate, key) = authority.issue("127.0.0.1");
    let (own, own_key) = authority.issue("client");
    let keys =
        format!(", tls: {{certificate: {certificate:?}, key: {key:?}, clientcas: [{:?}]}}", authority.ca());
    let Some(stock) = Stock::start_with(&keys).await else { return };
    let cluster = Processes::start().await;
    let index = Index::push(&cluster.origin.client(), "team/app", "1").await;
    let user = User::logged_in(&[stock.address]);
    let from = format!("{}/team/app:1", cluster.origin.registry());
    user.does(&["pull", &from, "oci:folder"]);

    let (ca, other, to) = (authority.ca(), other.ca(), format!("{}/private/app:1", stock.address));
    let push = ["push", "oci:folder", &to, "--ca"];
    let whole = [&push[..], &[text(&ca), "--cert", text(&own), "--key", text(&own_key)]].concat();
    assert_eq!(user.does(&whole)["digest"], index.digest());
    // The origin of the same copy speaks no TLS.
    let plain = format!("--insecure-http={}", cluster.origin.registry());
    let back = format!("{}/back/app:1", cluster.origin.registry());
    let access = ["--ca", text(&ca), "--cert", text(&own), "--key", text(&own_key), &plain];
    assert_eq!(user.does(&[&["copy", &to, &back], &access[..]].concat())["digest"], index.digest());

    // TLS 1.3 tells a client after the handshake, so it may hear of its certificate or only of the end.
    user.fails(&[&push[..], &[text(&ca)]].concat());
    let strange = [&push[..], &[text(&other), "--cert", text(&own), "--key", text(&own_key)]].concat();
    let (_, said) = user.fails(&strange);
    assert!(said.contains("not trusted"), "{said}");
}

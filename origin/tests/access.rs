//! The origin's registry over TLS: client certificates on the wire, from the configuration file down to the rules.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use shoal_core::Role;
use shoal_identity::Authority;
use shoal_origin::{BindError, Config, Origin, TlsError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An authority for servers and clients.
struct Ca {
    pem: String,
    roots: RootCertStore,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate, and its key.
struct Issued {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Ca {
    fn new(name: &str) -> Self {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        Self { pem: certificate.pem(), roots, issuer: Issuer::new(parameters, key) }
    }

    fn issue(&self, name: &str) -> Issued {
        let mut parameters = CertificateParams::new(vec![name.to_owned()]).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        Issued { certificate: parameters.signed_by(&key, &self.issuer).unwrap(), key }
    }

    /// A client that believes this authority, and shows `certificate`.
    fn client(&self, certificate: Option<&Issued>) -> ClientConfig {
        let builder = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
            .with_root_certificates(self.roots.clone());
        match certificate {
            None => builder.with_no_client_auth(),
            Some(Issued { certificate, key }) => {
                let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
                builder.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap()
            }
        }
    }
}

fn config(folder: &Path, other: &Value) -> Config {
    let mut config = json!({
        "listen": "127.0.0.1:0", "api_listen": "127.0.0.1:0",
        // Nobody listens there: an origin takes requests before a tracker knows it.
        "tracker": ["https://127.0.0.1:1"],
        "identity": { "directory": "" },
        "store": { "directory": folder.join("store") },
        "transfer": { "listen": "127.0.0.1:0" },
    });
    for (key, value) in other.as_object().unwrap() {
        config[key] = value.clone();
    }
    serde_json::from_value(config).unwrap()
}

async fn bind(folder: &Path, other: &Value) -> Result<Origin, BindError> {
    let identity = Authority::generate("test").unwrap().issue(Role::Origin, "origin").unwrap();
    Origin::bind(config(folder, other), identity, &prometheus::Registry::new()).await
}

/// The status line of the answer; `None` if the connection ends without one.
async fn ask(address: SocketAddr, client: ClientConfig, request: &str) -> Option<String> {
    let tcp = TcpStream::connect(address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let mut tls = connector.connect("origin".try_into().unwrap(), tcp).await.ok()?;
    let request =
        format!("{request} HTTP/1.1\r\nhost: origin\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    tls.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    tls.read_to_string(&mut answer).await.ok()?;
    answer.lines().next().map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_is_checked_on_the_wire_and_its_name_by_the_rules() {
    shoal_identity::install_crypto_provider();
    let folder = tempfile::tempdir().unwrap();
    let (ca, other_ca) = (Ca::new("clients"), Ca::new("strangers"));
    let server = ca.issue("origin");
    for (name, content) in [
        ("ca.pem", ca.pem.clone()),
        ("cert.pem", server.certificate.pem()),
        ("key.pem", server.key.serialize_pem()),
    ] {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    let file = |name| folder.path().join(name);
    let tls = json!({ "certificate": file("cert.pem"), "key": file("key.pem"), "client_ca": file("ca.pem") });
    let auth = json!({
        "certificate": { "identity": "common_name" },
        "rules": [
            { "repositories": "team/*", "identities": ["alice"], "allow": ["pull", "push"] },
            { "repositories": "team/*", "identities": ["bob"], "allow": ["pull"] },
        ],
    });
    let origin = bind(folder.path(), &json!({ "tls": tls, "auth": auth })).await.unwrap();
    let address = origin.registry_address();

    let (alice, bob, mallory) = (ca.issue("alice"), ca.issue("bob"), other_ca.issue("alice"));
    let (push, pull) = ("POST /v2/team/app/blobs/uploads/", "GET /v2/team/app/manifests/latest");
    for (client, request, expected) in [
        (Some(&alice), push, Some("HTTP/1.1 202 Accepted")),
        (Some(&alice), pull, Some("HTTP/1.1 404 Not Found")),
        (Some(&alice), "GET /v2/", Some("HTTP/1.1 200 OK")),
        (Some(&alice), "GET /v2/other/tags/list", Some("HTTP/1.1 403 Forbidden")),
        (Some(&bob), pull, Some("HTTP/1.1 404 Not Found")),
        (Some(&bob), push, Some("HTTP/1.1 403 Forbidden")),
        (None, pull, Some("HTTP/1.1 403 Forbidden")),
        (None, "GET /v2/", Some("HTTP/1.1 403 Forbidden")),
        // The same name by another authority does not get past the handshake.
        (Some(&mallory), pull, None),
    ] {
        let answer = ask(address, ca.client(client), request).await;
        assert_eq!(answer.as_deref(), expected, "{request}");
    }
    origin.shutdown().await;

    // Without the rules' method, the authority is a gate: a certificate, or no connection.
    let origin = bind(folder.path(), &json!({ "tls": tls })).await.unwrap();
    let address = origin.registry_address();
    assert_eq!(ask(address, ca.client(None), "GET /v2/").await, None);
    let answer = ask(address, ca.client(Some(&bob)), "GET /v2/").await;
    assert_eq!(answer.as_deref(), Some("HTTP/1.1 200 OK"));
    origin.shutdown().await;

    let no_authority = json!({ "certificate": file("cert.pem"), "key": file("key.pem") });
    let refused = bind(folder.path(), &json!({ "tls": no_authority, "auth": auth })).await;
    assert!(matches!(refused, Err(BindError::Tls(TlsError::NoClientCa))));
    let swapped = json!({ "certificate": file("key.pem"), "key": file("cert.pem") });
    let refused = bind(folder.path(), &json!({ "tls": swapped })).await.unwrap_err().to_string();
    assert!(refused.contains("key.pem"), "{refused}");
}

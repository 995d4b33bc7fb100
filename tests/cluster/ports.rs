//! Every port that speaks TLS, and every kind of certificate that is not good there: refused, and the log says why.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, Issuer, KeyPair, PKCS_ED25519, SanType};
use rustls::pki_types::PrivateKeyDer;
use time::{Duration, OffsetDateTime};

use crate::process::{Process, Processes, issue, shoal};
use crate::security::{QUESTION, answer_over_tls, end_over_quic, is_refused_by_tls, trusting};
use crate::support::eventually;

/// What a caller shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Nothing,
    OtherAuthority,
    /// One that is called like ours.
    SameName,
    Expired,
    NotYetValid,
    Revoked,
    NoRole,
    Tracker,
}

/// A port, and who listens there.
struct Port<'a> {
    name: &'static str,
    process: &'a Process,
    address: SocketAddr,
    over: Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    Http,
    Tcp,
    Quic,
}

impl Shown {
    const ALL: [Self; 8] = [
        Self::Nothing,
        Self::OtherAuthority,
        Self::SameName,
        Self::Expired,
        Self::NotYetValid,
        Self::Revoked,
        Self::NoRole,
        Self::Tracker,
    ];

    /// What the log says of it.
    fn reason(self) -> &'static str {
        match self {
            Self::Nothing => "no certificate",
            Self::OtherAuthority => "UnknownIssuer",
            Self::SameName => "BadSignature",
            Self::Expired => "expired",
            Self::NotYetValid => "not valid yet",
            Self::Revoked => "is revoked",
            Self::NoRole => "does not name a node",
            Self::Tracker => "tracker",
        }
    }

    fn client(self, folder: &Path, alpn: &[u8]) -> rustls::ClientConfig {
        let hour = Duration::hours(1);
        let now = OffsetDateTime::now_utc();
        let always = (now - hour, now + hour);
        let of = |ca: &str, uri: &str, times| Some(certificate(&folder.join(ca), uri, times));
        let shown = match self {
            Self::Nothing => None,
            Self::OtherAuthority => of("other-ca", "spiffe://shoal/agent/x", always),
            Self::SameName => of("same-name-ca", "spiffe://shoal/agent/x", always),
            Self::Expired => of("ca", "spiffe://shoal/agent/x", (now - hour * 2, now - hour)),
            Self::NotYetValid => of("ca", "spiffe://shoal/agent/x", (now + hour, now + hour * 2)),
            Self::Revoked => Some(issued(&folder.join("revoked/identity"))),
            Self::NoRole => of("ca", "spiffe://shoal/king/x", always),
            Self::Tracker => of("ca", "spiffe://shoal/tracker/x", always),
        };
        let mut config = trusting();
        if let Some((certificate, key)) = shown {
            config = rustls::ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_client_auth_cert(vec![certificate], key)
                .unwrap();
            config.dangerous().set_certificate_verifier(Arc::new(crate::security::Anyone));
        }
        config.alpn_protocols = vec![alpn.to_vec()];
        config
    }
}

type Credentials = (rustls::pki_types::CertificateDer<'static>, PrivateKeyDer<'static>);

/// A certificate that the authority in the folder signed and `shoal ca` would not have.
fn certificate(ca: &Path, uri: &str, (from, until): (OffsetDateTime, OffsetDateTime)) -> Credentials {
    let read = |name: &str| std::fs::read_to_string(ca.join(name)).unwrap();
    let authority =
        Issuer::from_ca_cert_pem(&read("ca.pem"), KeyPair::from_pem(&read("ca-key.pem")).unwrap());
    let mut parameters = CertificateParams::new(vec!["shoal".to_owned()]).unwrap();
    parameters.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
    (parameters.not_before, parameters.not_after) = (from, until);
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let certificate = parameters.signed_by(&key, &authority.unwrap()).unwrap();
    (certificate.der().clone(), PrivateKeyDer::Pkcs8(key.serialize_der().into()))
}

fn issued(directory: &Path) -> Credentials {
    use rustls::pki_types::pem::PemObject as _;
    let certificate = rustls::pki_types::CertificateDer::from_pem_file(directory.join("cert.pem")).unwrap();
    (certificate, PrivateKeyDer::from_pem_file(directory.join("key.pem")).unwrap())
}

impl Port<'_> {
    /// Whether the caller got through to what the port is for.
    async fn lets_in(&self, shown: Shown, folder: &Path) -> bool {
        match self.over {
            Over::Http => {
                let question = if self.name == "tracker" { "POST /v1/leave" } else { QUESTION };
                let answer = answer_over_tls(self.address, shown.client(folder, b"http/1.1"), question).await;
                answer.is_some_and(|answer| !answer.starts_with("HTTP/1.1 403"))
            }
            Over::Tcp => {
                answer_over_tls(self.address, shown.client(folder, b"shoal/1"), QUESTION).await.is_some_and(
                    // A peer that is let go is told so by a frame; one that is let in breaks the protocol with this probe.
                    |answer| !answer.is_empty() && shown != Shown::Tracker,
                )
            }
            Over::Quic => {
                let end = end_over_quic(self.address, shown.client(folder, b"shoal/1")).await;
                !is_refused_by_tls(&end) && shown != Shown::Tracker
            }
        }
    }

    async fn says(&self, shown: Shown, seen: usize) {
        eventually(&format!("{} says {:?}", self.name, shown.reason()), async || {
            let complaints = self.process.complaints();
            let says = |line: &&String| line.contains("refused") && line.contains(shown.reason());
            complaints[seen..].iter().find(says).map(drop)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_port_refuses_every_bad_certificate_and_says_why() {
    let cluster = Processes::enrolling("1h", |folder| {
        let init = |name: &str, cluster| {
            let directory = folder.join(name);
            shoal(&["ca", "init", "--directory", directory.to_str().unwrap(), "--cluster", cluster]);
        };
        init("other-ca", "elsewhere");
        init("same-name-ca", "shoal");
        issue(folder, shoal_core::Role::Agent, "revoked");
        shoal(&["ca", "revoke", "--ca", folder.join("ca").to_str().unwrap(), "--name", "revoked"]);
    })
    .await;
    let agent = cluster.joining_agent("agent", &cluster.token("agent")).await;
    for name in ["tracker", "origin", "agent"] {
        let list = cluster.folder(name).join("identity/revoked.list");
        eventually("the revocation list", async || list.exists().then_some(())).await;
    }
    let url = |url: &str| url.strip_prefix("https://").unwrap().parse().unwrap();
    let port = |name, process, address, over| Port { name, process, address, over };
    let ports = [
        port("tracker", &cluster.tracker, url(cluster.tracker_url()), Over::Http),
        port("origin API", &cluster.origin, url(cluster.origin_url()), Over::Http),
        port("origin's peer port, TCP", &cluster.origin, cluster.origin.peers(), Over::Tcp),
        port("origin's peer port, QUIC", &cluster.origin, cluster.origin.peers(), Over::Quic),
        port("agent's peer port, TCP", &agent, agent.peers(), Over::Tcp),
        port("agent's peer port, QUIC", &agent, agent.peers(), Over::Quic),
    ];
    let folder = cluster.folder("");
    for shown in Shown::ALL {
        for port in &ports {
            // Trackers ask origins: there no role of the cluster is a wrong one.
            if shown == Shown::Tracker && port.name == "origin API" {
                continue;
            }
            let seen = port.process.complaints().len();
            assert!(!port.lets_in(shown, &folder).await, "{} let in {shown:?}", port.name);
            port.says(shown, seen).await;
        }
    }
}

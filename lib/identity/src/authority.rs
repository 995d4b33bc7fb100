//! The cluster's certificate authority: makes node keys, and says in a certificate what each node may do.
//!
//! It signs nodes directly (no intermediates), and never for longer than it is valid itself.

use std::fmt;
use std::path::Path;
use std::time::SystemTime;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, SanType, SubjectPublicKeyInfo,
};
use rustls_pki_types::CertificateDer;
use shoal_core::{PeerId, Role};
use time::{Duration, OffsetDateTime};
use x509_parser::certificate::X509Certificate;

use crate::error::IdentityError;
use crate::files::{self, FileError, PemFile, Secrecy};
use crate::node::{Identity, NodeFiles};
use crate::revocation::{Outcast, RevocationError, Revocations};
use crate::spiffe::{self, SpiffeId};
use crate::statement::{self, Kind};
use crate::token::{Grant, JoinToken, TokenError, TokenOrder};
use crate::trust::{self, CertificateError};
use crate::{Peer, request};

/// A cluster's certificate authority (key and certificate).
pub struct Authority {
    cluster: String,
    id: PeerId,
    certificate: String,
    der: CertificateDer<'static>,
    not_after: OffsetDateTime,
    issuer: Issuer<'static, KeyPair>,
}

/// From when to when a certificate counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Validity {
    pub(crate) not_before: OffsetDateTime,
    pub(crate) not_after: OffsetDateTime,
}

impl Authority {
    /// A new CA in memory. A cluster's name is 1 to 64 of `a-z 0-9 . _ -`.
    pub fn generate(cluster: &str) -> Result<Self, IdentityError> {
        spiffe::check_cluster(cluster)?;
        let issue = |source| IdentityError::Issue { subject: cluster.to_owned(), source };
        let key = KeyPair::generate_for(&PKCS_ED25519).map_err(issue)?;
        let validity = Validity::from_now(AUTHORITY_LIFETIME);
        let parameters = authority_parameters(cluster, validity);
        let certificate = parameters.self_signed(&key).map_err(issue)?;
        let (der, text) = (certificate.der().clone(), certificate.pem());
        let id = trust::key_of(&trust::parse(&der)?)?;
        let issuer = Issuer::new(parameters, key);
        let not_after = validity.not_after;
        Ok(Self { cluster: cluster.to_owned(), id, certificate: text, der, not_after, issuer })
    }

    /// Writes `ca.pem` and `ca-key.pem` (mode 0600); never overwrites.
    pub fn save(&self, directory: &Path) -> Result<(), IdentityError> {
        let key = self.issuer.key().serialize_pem();
        let files = [
            (files::AUTHORITY_CERTIFICATE, Secrecy::Public, self.certificate.as_str()),
            (files::AUTHORITY_KEY, Secrecy::Private, key.as_str()),
        ];
        Ok(files::create_all(directory, &files)?)
    }

    /// Reads them, and checks that they belong together.
    pub fn load(directory: &Path) -> Result<Self, IdentityError> {
        let file = PemFile::read(directory, files::AUTHORITY_CERTIFICATE, files::CA_INIT)?;
        let key_file = PemFile::read(directory, files::AUTHORITY_KEY, files::CA_INIT)?;
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&key_file.key()?, &PKCS_ED25519)
            .map_err(|_| key_file.not_a_key())?;
        let certificate = file.certificate()?;
        let refused = |source| file.refused(source);
        let parsed = trust::parse(&certificate).map_err(refused)?;
        if !parsed.is_ca() {
            return Err(refused(CertificateError::NotAnAuthority).into());
        }
        let id = trust::key_of(&parsed).map_err(refused)?;
        if id.public_key() != key.public_key_raw() {
            return Err(FileError::KeyMismatch { key: key_file.path, certificate: file.path }.into());
        }
        let cluster = common_name(&parsed);
        spiffe::check_cluster(&cluster)
            .map_err(|source| FileError::Cluster { path: file.path.clone(), source })?;
        let not_after = parsed.validity().not_after.to_datetime();
        let issuer = Issuer::from_ca_cert_der(&certificate, key)
            .map_err(|source| IdentityError::Issue { subject: cluster.clone(), source })?;
        drop(parsed);
        Ok(Self { cluster, id, certificate: file.text, der: certificate, not_after, issuer })
    }

    /// A new node key with a certificate for that role. A name is 1 to 253 of `A-Z a-z 0-9 . _ -`.
    pub fn issue(&self, role: Role, name: &str) -> Result<Identity, IdentityError> {
        self.issue_valid(role, name, Validity::from_now(NODE_LIFETIME))
    }

    /// As [`Authority::issue`], valid as long as the caller says, and not beyond the authority.
    pub(crate) fn issue_valid(
        &self,
        role: Role,
        name: &str,
        validity: Validity,
    ) -> Result<Identity, IdentityError> {
        let subject = SpiffeId::new(&self.cluster, role, name)?;
        let key = KeyPair::generate_for(&PKCS_ED25519)
            .map_err(|source| IdentityError::Issue { subject: subject.to_string(), source })?;
        let certificate = self.sign(&subject, &key, validity)?;
        Ok(Identity::assemble(NodeFiles {
            authorities: PemFile::new(files::AUTHORITY_CERTIFICATE, self.certificate.clone()),
            certificate: PemFile::new(files::NODE_CERTIFICATE, certificate),
            key: PemFile::new(files::NODE_KEY, key.serialize_pem()),
        })?)
    }

    /// The cluster that it speaks for.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Its key, in the form that nodes are named by.
    #[must_use]
    pub fn id(&self) -> PeerId {
        self.id
    }

    /// Its certificate.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// A token with which nodes can join. `now` begins its time.
    pub fn token(&self, order: TokenOrder, now: SystemTime) -> Result<JoinToken, TokenError> {
        let claims = order.claims(&self.cluster, &self.der, now)?;
        let text = statement::seal(Kind::TOKEN, &claims, self.issuer.key()).expect(SIGNS);
        JoinToken::parse(&text)
    }

    /// What this authority allows with that token, if it is one of its own and in its time. How often it was used is for
    /// the caller to know.
    pub fn check_token(&self, token: &JoinToken, now: SystemTime) -> Result<Grant, TokenError> {
        token.grant(&self.cluster, &[self.id], now)
    }

    /// The first certificate (PEM) of a node that holds the key of this request (PKCS #10, DER), and who it is.
    ///
    /// Role and name are those of the grant, whatever the request says.
    pub fn enrol(
        &self,
        grant: &Grant,
        request: &[u8],
        lifetime: std::time::Duration,
    ) -> Result<(Peer, String), IdentityError> {
        let id = request::holder(request)?;
        let SpiffeId { role, name, .. } = grant.subject(&self.cluster, &id)?;
        let node = Peer { id, role, name };
        let certificate = self.renew(&node, lifetime)?;
        Ok((node, certificate))
    }

    /// A further certificate (PEM) for a node that has one.
    pub fn renew(&self, node: &Peer, lifetime: std::time::Duration) -> Result<String, IdentityError> {
        let subject = SpiffeId::new(&self.cluster, node.role, &node.name)?;
        let issue = |source| IdentityError::Issue { subject: subject.to_string(), source };
        let info = [ED25519_INFO, node.id.public_key()].concat();
        let key = SubjectPublicKeyInfo::from_der(&info).map_err(issue)?;
        let lifetime = lifetime.try_into().unwrap_or(AUTHORITY_LIFETIME).min(AUTHORITY_LIFETIME);
        self.sign(&subject, &key, Validity::from_now(lifetime))
    }

    /// Whether a certificate is old enough to be renewed: half of its life is over. Who asks more often is out of order.
    #[must_use]
    pub fn may_renew(certificate: &CertificateDer<'_>, now: SystemTime) -> bool {
        trust::validity_of(certificate).is_ok_and(|(from, until)| {
            i64::try_from(crate::token::seconds(now)).is_ok_and(|now| now >= from + (until - from) / 2)
        })
    }

    /// The revocation list that comes after `last`.
    pub fn revoke(
        &self,
        last: Option<&Revocations>,
        outcast: Outcast,
        now: SystemTime,
    ) -> Result<Revocations, RevocationError> {
        let claims = Revocations::after(last, &self.cluster, outcast, now)?;
        let text = statement::seal(Kind::REVOCATIONS, &claims, self.issuer.key()).expect(SIGNS);
        Revocations::read(&text, &self.cluster, &[self.id])
    }

    /// The revocation list beside the authority's key: `None` before the first.
    pub fn load_revocations(&self, directory: &Path) -> Result<Option<Revocations>, IdentityError> {
        let path = directory.join(files::REVOCATIONS);
        let Some(text) = files::read_optional(&path, Revocations::MAX_LENGTH as u64)? else {
            return Ok(None);
        };
        let list = Revocations::read(&text, &self.cluster, &[self.id]);
        Ok(Some(list.map_err(|source| FileError::Revocations { path, source })?))
    }

    /// Writes a list there, in place of the last.
    pub fn save_revocations(&self, list: &Revocations, directory: &Path) -> Result<(), IdentityError> {
        let line = format!("{}\n", list.text());
        Ok(files::replace(directory, files::REVOCATIONS, Secrecy::Public, &line)?)
    }

    /// The same authority, as if it spoke for another cluster.
    #[cfg(test)]
    pub(crate) fn renamed(self, cluster: &str) -> Self {
        Self { cluster: cluster.to_owned(), ..self }
    }

    /// A certificate, PEM.
    fn sign(
        &self,
        subject: &SpiffeId,
        key: &impl rcgen::PublicKeyData,
        validity: Validity,
    ) -> Result<String, IdentityError> {
        if self.not_after <= OffsetDateTime::now_utc() {
            return Err(IdentityError::AuthorityExpired { cluster: self.cluster.clone() });
        }
        let validity = Validity { not_after: validity.not_after.min(self.not_after), ..validity };
        let certificate = node_parameters(subject, validity)
            .and_then(|parameters| parameters.signed_by(key, &self.issuer))
            .map_err(|source| IdentityError::Issue { subject: subject.to_string(), source })?;
        Ok(certificate.pem())
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl Validity {
    fn from_now(lifetime: Duration) -> Self {
        let now = OffsetDateTime::now_utc();
        // A tenth of a short life, so that most of it is still to come.
        Self { not_before: now - BACKDATED.min(lifetime / 10), not_after: now + lifetime }
    }
}

fn authority_parameters(cluster: &str, validity: Validity) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.not_before = validity.not_before;
    parameters.not_after = validity.not_after;
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, cluster);
    // Signs nodes, and no further authority.
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    parameters
}

fn node_parameters(subject: &SpiffeId, validity: Validity) -> Result<CertificateParams, rcgen::Error> {
    let mut parameters = CertificateParams::default();
    parameters.not_before = validity.not_before;
    parameters.not_after = validity.not_after;
    // For people who look at the certificate: programs read the URI name. A node's name may be too long to stand here.
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::OrganizationName, subject.cluster.as_str());
    parameters.distinguished_name.push(DnType::CommonName, subject.role.as_str());
    parameters.subject_alt_names =
        vec![SanType::URI(subject.to_string().try_into()?), SanType::DnsName(DNS_NAME.try_into()?)];
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    parameters.use_authority_key_identifier_extension = true;
    Ok(parameters)
}

fn common_name(certificate: &X509Certificate<'_>) -> String {
    let name = certificate.subject().iter_common_name().next();
    name.and_then(|name| name.as_str().ok()).unwrap_or_default().to_owned()
}

/// The DNS name that all nodes share, for TLS clients that must send one; nobody checks it.
const DNS_NAME: &str = "shoal";
/// A cluster outlives its nodes; replacing the authority touches every node, so it is a rare event.
const AUTHORITY_LIFETIME: Duration = Duration::days(3650);
/// For nodes whose certificates nobody renews: a year bounds how long a forgotten key is good.
const NODE_LIFETIME: Duration = Duration::days(365);
/// RFC 8410, section 4: what stands before the 32 bytes of a key.
const ED25519_INFO: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const SIGNS: &str = "an Ed25519 key signs any message, and what it signed is read again";
/// A new certificate works at once on a host whose clock is a little behind.
const BACKDATED: Duration = Duration::minutes(5);

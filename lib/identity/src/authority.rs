//! The cluster's certificate authority: makes node keys, and says in a certificate what each node may do.
//!
//! It signs nodes directly (no intermediates), and never for longer than it is valid itself.

use std::fmt;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, SanType,
};
use shoal_core::Role;
use time::{Duration, OffsetDateTime};
use x509_parser::certificate::X509Certificate;

use crate::error::IdentityError;
use crate::files::{self, FileError, PemFile, Secrecy};
use crate::node::{Identity, NodeFiles};
use crate::spiffe::{self, SpiffeId};
use crate::trust::{self, CertificateError};

/// A cluster's certificate authority (key and certificate).
pub struct Authority {
    cluster: String,
    certificate: String,
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
        let certificate = parameters.self_signed(&key).map_err(issue)?.pem();
        let issuer = Issuer::new(parameters, key);
        Ok(Self { cluster: cluster.to_owned(), certificate, not_after: validity.not_after, issuer })
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
        if trust::key_of(&parsed).map_err(refused)?.public_key() != key.public_key_raw() {
            return Err(FileError::KeyMismatch { key: key_file.path, certificate: file.path }.into());
        }
        let cluster = common_name(&parsed);
        spiffe::check_cluster(&cluster)
            .map_err(|source| FileError::Cluster { path: file.path.clone(), source })?;
        let not_after = parsed.validity().not_after.to_datetime();
        let issuer = Issuer::from_ca_cert_der(&certificate, key)
            .map_err(|source| IdentityError::Issue { subject: cluster.clone(), source })?;
        Ok(Self { cluster, certificate: file.text, not_after, issuer })
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
        if self.not_after <= OffsetDateTime::now_utc() {
            return Err(IdentityError::AuthorityExpired { cluster: self.cluster.clone() });
        }
        let validity = Validity { not_after: validity.not_after.min(self.not_after), ..validity };
        let (certificate, key) = self
            .sign(&subject, validity)
            .map_err(|source| IdentityError::Issue { subject: subject.to_string(), source })?;
        Ok(Identity::assemble(NodeFiles {
            authorities: PemFile::new(files::AUTHORITY_CERTIFICATE, self.certificate.clone()),
            certificate: PemFile::new(files::NODE_CERTIFICATE, certificate),
            key: PemFile::new(files::NODE_KEY, key),
        })?)
    }

    /// The same authority, as if it spoke for another cluster.
    #[cfg(test)]
    pub(crate) fn renamed(self, cluster: &str) -> Self {
        Self { cluster: cluster.to_owned(), ..self }
    }

    /// A new key and its certificate, PEM.
    fn sign(&self, subject: &SpiffeId, validity: Validity) -> Result<(String, String), rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let certificate = node_parameters(subject, validity)?.signed_by(&key, &self.issuer)?;
        Ok((certificate.pem(), key.serialize_pem()))
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
        Self { not_before: now - BACKDATED, not_after: now + lifetime }
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
/// There is no revocation: a year bounds how long a stolen key is good, and spares most hosts a renewal.
const NODE_LIFETIME: Duration = Duration::days(365);
/// A new certificate works at once on a host whose clock is a little behind.
const BACKDATED: Duration = Duration::minutes(5);

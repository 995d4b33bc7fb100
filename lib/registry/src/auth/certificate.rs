//! Client certificates: which name of it is the client's. That it is a good one the TLS listener has checked.

use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{CertificateName, Refusal};

/// Request extension: the client's certificate (DER), which the listener has checked to be of its authority.
#[derive(Clone, Debug)]
pub struct ClientCertificate(pub Vec<u8>);

impl ClientCertificate {
    /// The client's name. A certificate with none or several of the kind is nobody's: which one would count is a
    /// question that its issuer should not have left open.
    pub(super) fn identity(&self, name: CertificateName) -> Result<String, Refusal> {
        let unreadable = |_| Refusal::Nobody("client certificate is not readable");
        let (_, certificate) = X509Certificate::from_der(&self.0).map_err(unreadable)?;
        let names = match name {
            CertificateName::CommonName => common_names(&certificate),
            CertificateName::Uri => uris(&certificate),
        };
        match <[String; 1]>::try_from(names) {
            Ok([name]) if !name.is_empty() => Ok(name),
            _ => Err(Refusal::Nobody(match name {
                CertificateName::CommonName => "client certificate has not exactly one common name",
                CertificateName::Uri => "client certificate has not exactly one URI",
            })),
        }
    }
}

fn common_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = certificate.subject().iter_common_name();
    // One that is not text counts too: it must not hide beside one that is.
    names.map(|name| name.as_str().unwrap_or_default().to_owned()).collect()
}

fn uris(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return vec![] };
    let uri = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    };
    names.value.general_names.iter().filter_map(uri).collect()
}

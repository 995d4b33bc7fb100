//! The two HTTP clients of a registry.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Certificate, Client, ClientBuilder, Identity, redirect};

use crate::config::EndpointConfig;
use crate::error::UpstreamError;
use crate::reach::Reach;
use shoal_core::causes;

pub(super) struct Clients {
    /// Speaks to the registry.
    pub(super) registry: Client,
    /// Speaks to everybody else.
    pub(super) elsewhere: Client,
    nearest: Arc<AtomicU8>,
}

/// Resolves names, but to no address that is nearer than the registry's.
struct Screen(Arc<AtomicU8>);

impl Clients {
    pub(super) fn new(config: &EndpointConfig) -> Result<Self, UpstreamError> {
        // An error says that a provider is there already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let nearest = Arc::new(AtomicU8::new(Reach::Public as u8));
        let authorities = config.ca.as_deref().map(authorities).transpose()?.unwrap_or_default();
        let mut registry = builder(config).tls_certs_merge(authorities.clone());
        if let Some(identity) = identity(config)? {
            registry = registry.identity(identity);
        }
        let screen = Arc::new(Screen(Arc::clone(&nearest)));
        let elsewhere = builder(config).tls_certs_merge(authorities).dns_resolver(screen);
        let build = |builder: ClientBuilder| {
            builder.build().map_err(|error| {
                UpstreamError::Setup(format!("no HTTP client can be made: {}", causes(&error)))
            })
        };
        Ok(Self { registry: build(registry)?, elsewhere: build(elsewhere)?, nearest })
    }

    /// The registry answered from there.
    pub(super) fn seen_at(&self, address: Option<SocketAddr>) -> Reach {
        let reach = address.map_or(Reach::Public, |address| Reach::of(address.ip()));
        self.nearest.store(reach as u8, Ordering::Relaxed);
        reach
    }

    /// How near the registry is, as it was seen last.
    pub(super) fn nearest(&self) -> Reach {
        Reach::from_u8(self.nearest.load(Ordering::Relaxed))
    }
}

fn builder(config: &EndpointConfig) -> ClientBuilder {
    Client::builder()
        .user_agent(USER_AGENT)
        .no_proxy()
        .redirect(redirect::Policy::none())
        .referer(false)
        .connect_timeout(config.connect_timeout)
        .tcp_keepalive(KEEPALIVE)
        .pool_max_idle_per_host(MAX_IDLE)
        .pool_idle_timeout(IDLE)
}

fn read(path: &Path) -> Result<Vec<u8>, UpstreamError> {
    std::fs::read(path)
        .map_err(|error| UpstreamError::Setup(format!("{}: cannot be read: {error}", path.display())))
}

fn authorities(path: &Path) -> Result<Vec<Certificate>, UpstreamError> {
    let found = Certificate::from_pem_bundle(&read(path)?).unwrap_or_default();
    match found.is_empty() {
        true => Err(UpstreamError::Setup(format!("{}: holds no certificate in PEM", path.display()))),
        false => Ok(found),
    }
}

fn identity(config: &EndpointConfig) -> Result<Option<Identity>, UpstreamError> {
    let (certificate, key) = match (&config.certificate, &config.key) {
        (None, None) => return Ok(None),
        (Some(certificate), Some(key)) => (certificate, key),
        _ => {
            return Err(UpstreamError::Setup(
                "a certificate and its key go together: name both or none".into(),
            ));
        }
    };
    let mut pem = read(key)?;
    pem.push(b'\n');
    pem.extend(read(certificate)?);
    Identity::from_pem(&pem).map(Some).map_err(|error| {
        let (certificate, key) = (certificate.display(), key.display());
        UpstreamError::Setup(format!(
            "{certificate} and {key} are no certificate and key in PEM: {}",
            causes(&error)
        ))
    })
}

impl Resolve for Screen {
    fn resolve(&self, name: Name) -> Resolving {
        let nearest = Reach::from_u8(self.0.load(Ordering::Relaxed));
        Box::pin(async move {
            let name = name.as_str().to_owned();
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let far: Vec<_> =
                found.into_iter().filter(|address| Reach::of(address.ip()) <= nearest).collect();
            if far.is_empty() {
                let reason = format!("{name} has no address that is as far from this host as the registry");
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason).into());
            }
            Ok(Box::new(far.into_iter()) as Addrs)
        })
    }
}

const USER_AGENT: &str = concat!("shoal/", env!("CARGO_PKG_VERSION"));
/// A host that went away without a word is noticed by the system.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// As many as blobs are moved at a time, and some.
const MAX_IDLE: usize = 16;
/// Before servers and firewalls let go of them, mostly.
const IDLE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_name_leads_nearer_than_the_registry_is() {
        let resolve = |nearest: Reach| {
            let screen = Screen(Arc::new(AtomicU8::new(nearest as u8)));
            screen.resolve("localhost".parse().unwrap())
        };
        let Err(error) = resolve(Reach::Public).await else { panic!("a name of this host was resolved") };
        assert!(error.to_string().contains("no address that is as far"), "{error}");
        assert!(resolve(Reach::Loopback).await.is_ok_and(|mut found| found.next().is_some()));
    }

    #[test]
    fn files_that_are_none_are_named() {
        let config = EndpointConfig { ca: Some("/nonexistent/ca.pem".into()), ..EndpointConfig::default() };
        let Err(error) = Clients::new(&config) else { panic!("there is no such file") };
        assert!(error.to_string().contains("/nonexistent/ca.pem"), "{error}");
        let config = EndpointConfig { certificate: Some("cert.pem".into()), ..EndpointConfig::default() };
        let Err(error) = Clients::new(&config) else { panic!("the key is missing") };
        assert!(error.to_string().contains("go together"), "{error}");
    }
}

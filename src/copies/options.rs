//! What the commands about images have in common: how registries are reached, and what is copied.

use std::path::PathBuf;

use clap::Args;
use shoal_core::RepositoryName;
use shoal_images::Sessions;
use shoal_upstream::{Credentials, DockerConfig, EndpointConfig, Platform, Registry, RegistryHost, Scheme};

/// How registries are reached, and who asks.
#[derive(Debug, Args)]
pub(super) struct AccessOptions {
    /// Speak plain HTTP, with that host only if one is named: whoever is on the way reads and changes what is sent. May be
    /// repeated. Not needed for loopback addresses, unless --ca or --cert are there.
    #[arg(long, value_name = "HOST", num_args = 0..=1, require_equals = true, default_missing_value = "*")]
    insecure_http: Vec<String>,
    /// PEM file with authorities to trust beside the system's.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// PEM file with the certificate to show to the registry.
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// PEM file with the key of --cert.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// The file with credentials, of the form of docker's config.json. [default: that of docker, then that of podman]
    #[arg(long, env = "SHOAL_CREDS_FILE", value_name = "FILE")]
    creds_file: Option<PathBuf>,
    /// Another host that gives the registry's tokens, and may be shown the password. May be repeated.
    #[arg(long, value_name = "HOST", value_parser = RegistryHost::parse)]
    token_host: Vec<RegistryHost>,
}

/// What is copied, and how.
#[derive(Debug, Args)]
pub(super) struct MoveOptions {
    /// Copy the images for all platforms: the default.
    #[arg(long, conflicts_with = "platform")]
    all: bool,
    /// Copy the image for one platform only: os/architecture[/variant], such as linux/amd64. Its digest is another one.
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    /// Copy what refers to the image too: signatures, attestations.
    #[arg(long)]
    referrers: bool,
    /// How many blobs move at a time.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=16), value_name = "N")]
    parallel: u8,
    /// Print the outcome as JSON.
    #[arg(long)]
    pub(super) json: bool,
}

impl MoveOptions {
    pub(super) fn options(&self) -> shoal_images::Options {
        let platform = self.platform.clone().filter(|_| !self.all);
        shoal_images::Options { platform, referrers: self.referrers, parallel: self.parallel.into() }
    }
}

impl AccessOptions {
    /// A client of the registry, with the credentials for that repository.
    pub(super) async fn registry(
        &self,
        host: &RegistryHost,
        repository: &RepositoryName,
    ) -> anyhow::Result<Registry> {
        let plain = self.insecure_http.iter().any(|named| named == "*" || named == host.as_str());
        let config = EndpointConfig {
            scheme: if plain { Scheme::Http } else { Scheme::Automatic },
            ca: self.ca.clone(),
            certificate: self.cert.clone(),
            key: self.key.clone(),
            token_hosts: self.token_host.clone(),
            ..EndpointConfig::default()
        };
        let credentials = self.credentials(host, repository).await?;
        Ok(Registry::new(host.clone(), &config, credentials)?)
    }

    async fn credentials(
        &self,
        host: &RegistryHost,
        repository: &RepositoryName,
    ) -> anyhow::Result<Credentials> {
        if let Some(file) = &self.creds_file {
            return Ok(DockerConfig::load(file)?.credentials(host, repository).await?.unwrap_or_default());
        }
        for file in DockerConfig::usual_places(|name| {
            std::env::var_os(name).filter(|text| !text.is_empty()).map(PathBuf::from)
        }) {
            if !file.exists() {
                continue;
            }
            if let Some(found) = DockerConfig::load(&file)?.credentials(host, repository).await? {
                return Ok(found);
            }
        }
        Ok(Credentials::Anonymous)
    }
}

/// Where uploads are noted that a killed process leaves half done (XDG base directory specification).
pub(super) fn sessions() -> Option<Sessions> {
    let set = |name: &str| std::env::var_os(name).filter(|text| !text.is_empty()).map(PathBuf::from);
    let state = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")))?;
    Sessions::open(&state.join("shoal/uploads"))
}

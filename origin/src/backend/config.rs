//! `[[backend]]`: which object stores there are, and which repositories are written to each.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use serde::Deserialize;
use shoal_core::causes;

use super::metrics::BackendMetrics;
use super::objects::Objects;

/// One backend, by what it is.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum BackendConfig {
    /// Amazon S3, and what speaks its language.
    S3(S3Config),
    /// Google Cloud Storage.
    Gcs(GcsConfig),
    /// Azure Blob Storage.
    Azure(AzureConfig),
    /// A directory: a share that all origins mount.
    Directory(DirectoryBackendConfig),
}

/// A bucket of S3. Credentials come as every client of AWS finds them: from the environment (`AWS_ACCESS_KEY_ID`, …), by web
/// identity (IRSA), from the container or from the instance.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3Config {
    /// What logs, metrics and markers on disk call it: renamed, it is read through and written to once more.
    pub name: String,
    /// Which repositories are written there, as patterns (`team/*`, `**`); all by default. The first backend that fits counts.
    #[serde(default)]
    pub repositories: Vec<String>,
    /// The bucket.
    pub bucket: String,
    /// Before every key.
    #[serde(default)]
    pub prefix: String,
    /// Where the bucket is; `AWS_REGION` unless set, and else `us-east-1`.
    #[serde(default)]
    pub region: Option<String>,
    /// Another server than Amazon's.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// Whether that may be `http://`. Loopback may in any case.
    #[serde(default)]
    pub allow_http: bool,
    /// Whether the bucket is a part of the host's name and not of the path.
    #[serde(default)]
    pub virtual_hosted: bool,
}

/// A bucket of Google Cloud Storage. Credentials come from the environment (`GOOGLE_APPLICATION_CREDENTIALS`, …) or from the instance.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GcsConfig {
    /// As of [`S3Config`].
    pub name: String,
    /// As of [`S3Config`].
    #[serde(default)]
    pub repositories: Vec<String>,
    /// The bucket.
    pub bucket: String,
    /// Before every key.
    #[serde(default)]
    pub prefix: String,
}

/// A container of Azure Blob Storage. Credentials come from the environment (`AZURE_STORAGE_ACCOUNT_KEY`, …), by workload identity or
/// from the instance.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AzureConfig {
    /// As of [`S3Config`].
    pub name: String,
    /// As of [`S3Config`].
    #[serde(default)]
    pub repositories: Vec<String>,
    /// The storage account.
    pub account: String,
    /// The container.
    pub container: String,
    /// Before every key.
    #[serde(default)]
    pub prefix: String,
}

/// A directory of this host. It has to be there, and is never made: a share that is not mounted is a backend that is away.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectoryBackendConfig {
    /// As of [`S3Config`].
    pub name: String,
    /// As of [`S3Config`].
    #[serde(default)]
    pub repositories: Vec<String>,
    /// Below the mount point, rather than the mount point itself, which is there without the mount as well.
    pub path: PathBuf,
}

/// Why backends cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BackendConfigError {
    /// Two have one name, or one has none.
    #[error(
        "backend.name {0:?}: each [[backend]] needs a name of its own, of up to 64 letters, digits, `-` and `_`"
    )]
    Name(String),
    /// A pattern cannot be read.
    #[error("backend {name}: repositories: {source}")]
    Pattern {
        /// Which backend.
        name: String,
        /// What is wrong with it.
        source: globset::Error,
    },
    /// Clear text beyond this host.
    #[error("backend {name}: endpoint {endpoint} is not https://: set allow_http = true if that is meant")]
    ClearText {
        /// Which backend.
        name: String,
        /// Its endpoint.
        endpoint: String,
    },
    /// Its client cannot be made.
    #[error("backend {name}: {reason}")]
    Client {
        /// Which backend.
        name: String,
        /// What the library said.
        reason: String,
    },
    /// Two metrics of one name.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl BackendConfig {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::S3(S3Config { name, .. })
            | Self::Gcs(GcsConfig { name, .. })
            | Self::Azure(AzureConfig { name, .. })
            | Self::Directory(DirectoryBackendConfig { name, .. }) => name,
        }
    }

    /// Which repositories are written there; nothing: all.
    pub(super) fn repositories(&self) -> Result<Option<GlobSet>, BackendConfigError> {
        let (Self::S3(S3Config { repositories, .. })
        | Self::Gcs(GcsConfig { repositories, .. })
        | Self::Azure(AzureConfig { repositories, .. })
        | Self::Directory(DirectoryBackendConfig { repositories, .. })) = self;
        if repositories.is_empty() {
            return Ok(None);
        }
        let wrong = |source| BackendConfigError::Pattern { name: self.name().to_owned(), source };
        let mut globs = GlobSetBuilder::new();
        for pattern in repositories {
            globs.add(GlobBuilder::new(pattern).literal_separator(true).build().map_err(wrong)?);
        }
        globs.build().map(Some).map_err(wrong)
    }

    pub(super) fn open(
        &self,
        timeout: Duration,
        metrics: BackendMetrics,
    ) -> Result<Objects, BackendConfigError> {
        let (prefix, root) = match self {
            Self::S3(S3Config { prefix, .. })
            | Self::Gcs(GcsConfig { prefix, .. })
            | Self::Azure(AzureConfig { prefix, .. }) => (prefix.as_str(), None),
            Self::Directory(DirectoryBackendConfig { path, .. }) => ("", Some(path.clone())),
        };
        Ok(Objects::new(self.name(), (self.store(timeout)?, prefix), root, timeout, metrics))
    }

    fn store(&self, timeout: Duration) -> Result<Arc<dyn ObjectStore>, BackendConfigError> {
        // Bodies may take long; what sends nothing for that time is cut, and whoever waits for an answer has a limit of its own.
        let client = ClientOptions::new()
            .with_timeout_disabled()
            .with_connect_timeout(CONNECT_TIMEOUT.min(timeout))
            .with_read_timeout(timeout);
        let retry = RetryConfig { max_retries: 1, retry_timeout: timeout, ..RetryConfig::default() };
        let failed = |error: object_store::Error| BackendConfigError::Client {
            name: self.name().to_owned(),
            reason: causes(&error),
        };
        Ok(match self {
            Self::S3(config) => Arc::new(config.builder(client)?.with_retry(retry).build().map_err(failed)?),
            Self::Gcs(config) => Arc::new(
                GoogleCloudStorageBuilder::from_env()
                    .with_bucket_name(&config.bucket)
                    .with_client_options(client)
                    .with_retry(retry)
                    .build()
                    .map_err(failed)?,
            ),
            Self::Azure(config) => Arc::new(
                MicrosoftAzureBuilder::from_env()
                    .with_account(&config.account)
                    .with_container_name(&config.container)
                    .with_client_options(client)
                    .with_retry(retry)
                    .build()
                    .map_err(failed)?,
            ),
            Self::Directory(config) => {
                let store = LocalFileSystem::new_with_prefix(&config.path).map_err(failed)?;
                Arc::new(store.with_fsync(true))
            }
        })
    }
}

impl S3Config {
    fn builder(&self, client: ClientOptions) -> Result<AmazonS3Builder, BackendConfigError> {
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(&self.bucket)
            .with_virtual_hosted_style_request(self.virtual_hosted);
        if let Some(region) = &self.region {
            builder = builder.with_region(region);
        }
        let mut allow_http = self.allow_http;
        if let Some(endpoint) = &self.endpoint {
            allow_http |= is_loopback(endpoint);
            if !endpoint.starts_with("https://") && !allow_http {
                return Err(BackendConfigError::ClearText {
                    name: self.name.clone(),
                    endpoint: endpoint.clone(),
                });
            }
            builder = builder.with_endpoint(endpoint);
        }
        Ok(builder.with_client_options(client.with_allow_http(allow_http)))
    }
}

/// Each has a name, and its own.
pub(super) fn check_names(configs: &[BackendConfig]) -> Result<(), BackendConfigError> {
    let mut names = HashSet::new();
    for name in configs.iter().map(BackendConfig::name) {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let is_right = (1..=MAX_NAME_LENGTH).contains(&name.len()) && name.bytes().all(is_name);
        if !is_right || !names.insert(name) {
            return Err(BackendConfigError::Name(name.to_owned()));
        }
    }
    Ok(())
}

fn is_loopback(endpoint: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(endpoint) else { return false };
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => {
            let host = host.trim_matches(|c| c == '[' || c == ']');
            host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        None => false,
    }
}

/// It is a label of metrics and a part of a file's name.
const MAX_NAME_LENGTH: usize = 64;
/// A server that is there accepts within that.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<BackendConfig, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn names_patterns_and_clear_text_are_checked() {
        let one = parse("kind = \"directory\"\nname = \"a\"\npath = \"/a\"").unwrap();
        assert!(check_names(std::slice::from_ref(&one)).is_ok());
        assert!(matches!(check_names(&[one.clone(), one]), Err(BackendConfigError::Name(_))));
        for name in ["", "a/b", "a.b"] {
            let wrong = parse(&format!("kind = \"directory\"\nname = {name:?}\npath = \"/a\"")).unwrap();
            assert!(check_names(&[wrong]).is_err(), "{name}");
        }
        let unknown = parse("kind = \"directory\"\nname = \"a\"\npath = \"/a\"\nbucket = \"b\"");
        assert!(unknown.unwrap_err().to_string().contains("bucket"));
        let pattern = parse("kind = \"gcs\"\nname = \"a\"\nbucket = \"b\"\nrepositories = [\"a[\"]").unwrap();
        assert!(matches!(pattern.repositories(), Err(BackendConfigError::Pattern { .. })));
    }

    #[test]
    fn clear_text_is_for_loopback_or_for_whoever_says_so() {
        for (endpoint, allow, is_right) in [
            ("http://127.0.0.1:9000", false, true),
            ("http://[::1]:9000", false, true),
            ("http://s3.example", false, false),
            ("http://s3.example", true, true),
            ("https://s3.example", false, true),
            ("http://127.0.0.1.example", false, false),
        ] {
            let text = format!(
                "kind = \"s3\"\nname = \"a\"\nbucket = \"b\"\nendpoint = {endpoint:?}\nallow_http = {allow}"
            );
            let BackendConfig::S3(config) = parse(&text).unwrap() else { panic!() };
            assert_eq!(config.builder(ClientOptions::new()).is_ok(), is_right, "{endpoint}");
        }
    }
}

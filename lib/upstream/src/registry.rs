//! A registry, as whoever asks it sees it. Cheap to clone; one for each registry is enough.

use std::fmt;
use std::sync::Arc;

use http::header::USER_AGENT;
use http::{HeaderValue, Method, StatusCode};
use reqwest::Url;
use shoal_core::RepositoryName;

use crate::config::EndpointConfig;
use crate::credentials::Credentials;
use crate::error::UpstreamError;
use crate::reference::RegistryHost;
use crate::token::Scope;
use crate::transport::{Call, Transport};

/// A registry that can be asked.
#[derive(Clone)]
pub struct Registry {
    host: RegistryHost,
    pub(crate) transport: Arc<Transport>,
    /// What writes call themselves.
    mark: Option<HeaderValue>,
}

impl Registry {
    /// A client of that registry. Reads the files that the configuration names; asks nobody yet.
    pub fn new(
        host: RegistryHost,
        config: &EndpointConfig,
        credentials: Credentials,
    ) -> Result<Self, UpstreamError> {
        let transport = Arc::new(Transport::new(&host, config, credentials)?);
        Ok(Self { host, transport, mark: None })
    }

    /// The same client, whose puts of manifests and deletes come under that `User-Agent`: the registry tells others of it.
    pub fn marked(mut self, user_agent: &str) -> Result<Self, UpstreamError> {
        let mark = HeaderValue::from_str(user_agent);
        self.mark = Some(mark.map_err(|error| UpstreamError::Setup(format!("user agent: {error}")))?);
        Ok(self)
    }

    pub(crate) fn sign(&self, call: Call) -> Call {
        match &self.mark {
            Some(mark) => call.header(USER_AGENT, mark.clone()),
            None => call,
        }
    }

    /// Which registry.
    #[must_use]
    pub fn host(&self) -> &RegistryHost {
        &self.host
    }

    /// Whether a registry answers there, and lets us in (`GET /v2/`).
    pub async fn ping(&self) -> Result<(), UpstreamError> {
        let url = self.url("v2/")?;
        self.transport.expect(&Call::new(Method::GET, url, Scope::none()), &[StatusCode::OK]).await.map(drop)
    }

    /// How many pulls the registry said last that are left before it refuses more; `None`: it never said.
    #[must_use]
    pub fn pulls_left(&self) -> Option<u64> {
        self.transport.pulls_left()
    }

    /// `path` is made of validated names.
    pub(crate) fn url(&self, path: &str) -> Result<Url, UpstreamError> {
        let base = self.transport.base();
        base.join(path).map_err(|error| UpstreamError::malformed(path, error.to_string()))
    }

    pub(crate) fn path(
        &self,
        repository: &RepositoryName,
        rest: impl fmt::Display,
    ) -> Result<Url, UpstreamError> {
        self.url(&format!("v2/{repository}/{rest}"))
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registry({})", self.host)
    }
}

//! Posts the events of one webhook, one after the other.

use std::path::PathBuf;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Certificate, Client, Url, redirect};
use shoal_core::{PeerId, causes};
use tokio_util::sync::CancellationToken;

use super::Notification;
use super::config::{WebhookConfig, WebhookError};
use super::envelope::{MEDIA_TYPE, envelope};
use crate::queue::Queue;

/// How one webhook is told.
pub(super) struct Delivery {
    client: Client,
    url: Url,
    authorization: Option<PathBuf>,
    origin: PeerId,
}

impl Delivery {
    pub(super) fn new(config: &WebhookConfig, origin: PeerId) -> Result<Self, WebhookError> {
        let name = || config.name.clone();
        let url = Url::parse(&config.url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let url = url.ok_or_else(|| WebhookError::Url { name: name() })?;
        let mut headers = HeaderMap::new();
        for (header, value) in &config.headers {
            let wrong = || WebhookError::Header { name: name(), header: header.clone() };
            let (key, mut value) =
                (HeaderName::try_from(header), HeaderValue::try_from(value).map_err(|_| wrong())?);
            value.set_sensitive(true);
            headers.insert(key.map_err(|_| wrong())?, value);
        }
        let client = Client::builder()
            .default_headers(headers)
            .timeout(config.timeout)
            // What is posted is for that address.
            .redirect(redirect::Policy::none())
            .user_agent(concat!("shoal/", env!("CARGO_PKG_VERSION")))
            .tls_certs_merge(authorities(config)?);
        let client = client.build().map_err(|source| WebhookError::Client { name: name(), source })?;
        Ok(Self { client, url, authorization: config.authorization_file.clone(), origin })
    }

    /// Until it is to stop.
    pub(super) async fn run(self, queue: Queue<Notification>, stop: CancellationToken) {
        loop {
            let notification = tokio::select! {
                () = stop.cancelled() => return,
                taken = queue.take() => taken,
            };
            let posted = tokio::select! {
                // It is posted again after the restart: perhaps a second time.
                () = stop.cancelled() => return,
                posted = self.post(&notification.job) => posted,
            };
            match posted {
                Ok(()) => notification.done().await,
                Err(error) => notification.failed(&error).await,
            }
        }
    }

    async fn post(&self, notification: &Notification) -> Result<(), String> {
        let body = envelope(notification, self.origin).to_string();
        let mut request = self.client.post(self.url.clone()).header(CONTENT_TYPE, MEDIA_TYPE).body(body);
        if let Some(path) = &self.authorization {
            let read = tokio::fs::read_to_string(path).await;
            let secret = read.map_err(|error| format!("authorization_file {}: {error}", path.display()))?;
            request = request.header(AUTHORIZATION, secret.trim());
        }
        // The address may have a secret in it, and the library's errors would show it.
        let answer = request.send().await.map_err(|error| causes(&error.without_url()))?;
        if answer.status().is_success() { Ok(()) } else { Err(format!("it answered {}", answer.status())) }
    }
}

fn authorities(config: &WebhookConfig) -> Result<Vec<Certificate>, WebhookError> {
    let Some(path) = &config.ca else { return Ok(Vec::new()) };
    let wrong =
        |reason: String| WebhookError::Authority { name: config.name.clone(), path: path.clone(), reason };
    let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let found = Certificate::from_pem_bundle(&pem).map_err(|error| wrong(error.to_string()))?;
    if found.is_empty() {
        return Err(wrong("there is no certificate in it".to_owned()));
    }
    Ok(found)
}

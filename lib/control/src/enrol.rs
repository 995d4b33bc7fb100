//! How a node without a certificate gets its first: it asks trackers, one after the other, until one enrols it.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use data_encoding::BASE64;
use shoal_identity::{Config, Identity, IdentityError, Joining};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::error::ControlError;
use crate::message::{CertificateReply, EnrolRequest, path};
use crate::servers::{Servers, Start};
use crate::tracker::post;

/// Why a node has no identity.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// Files, token or certificate are not right.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// No tracker enrols it.
    #[error("cannot join the cluster")]
    Tracker(#[from] ControlError),
    /// The process ends.
    #[error("shutting down")]
    Stopped,
}

/// The identity in the directory of the configuration; where there is none, or its time is over, and the configuration has
/// a token, a new certificate from a tracker.
///
/// Trackers that are away are asked again, for as long as the token is good; one that refuses is believed.
pub async fn open(config: &Config) -> Result<Identity, EnrolError> {
    let here = config.clone();
    match block(move || Identity::load(&here)).await? {
        Err(error) if error.asks_to_join() && config.join.is_some() => join(config).await,
        Err(error) => Err(error.explained(config).into()),
        Ok(identity) => Ok(identity),
    }
}

async fn join(config: &Config) -> Result<Identity, EnrolError> {
    let (here, trackers) = (config.clone(), config.join.iter().flat_map(|join| join.trackers.clone()));
    let joining = block(move || Joining::begin(&here, SystemTime::now())).await??;
    let servers = Servers::proven_by(joining.client_config(&[b"h2", b"http/1.1"]), trackers.collect())?;
    tracing::info!(peer = %joining.id(), role = %joining.token().role(), "joining the cluster");
    let request = EnrolRequest {
        token: joining.token().as_str().to_owned(),
        request: BASE64.encode(&joining.request()?),
    };
    let certificate = ask(&servers, &request, &joining).await?;
    let identity = block(move || joining.finish(&certificate)).await??;
    tracing::info!(peer = %identity.id(), name = identity.name(), "joined the cluster");
    Ok(identity)
}

async fn ask(servers: &Servers, request: &EnrolRequest, joining: &Joining) -> Result<String, EnrolError> {
    let call =
        post(path::ENROL, request, CertificateReply::MAX_LENGTH, "certificate of this node".to_owned());
    let read = |reply: Bytes| Ok(serde_json::from_slice::<CertificateReply>(&reply)?.certificate);
    let mut wait = FIRST_RETRY;
    loop {
        let error = match servers.ask(&call, Start::First, read).await {
            Ok((certificate, _)) => return Ok(certificate),
            Err(error) => error,
        };
        let passes =
            matches!(error, ControlError::Unavailable { .. } | ControlError::Denied { status: 429, .. });
        if !passes || joining.token().check_time(SystemTime::now()).is_err() {
            return Err(error.into());
        }
        tracing::warn!(error = &error as &dyn std::error::Error, retry = ?wait, "not enrolled yet");
        sleep(wait.mul_f64(rand::random_range(0.75..=1.0))).await;
        wait = (wait * 2).min(MAX_RETRY);
    }
}

async fn block<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, EnrolError> {
    spawn_blocking(work).await.map_err(|_| EnrolError::Stopped)
}

/// The first wait after a failure; doubled for each more.
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// The longest: a tracker that is back has its nodes within that time.
const MAX_RETRY: Duration = Duration::from_secs(15);

//! Questions that one origin answers for all: the first in the order of a key that is well, which may be this one.

use std::time::Duration;

use shoal_control::cluster::message::{UpstreamPause, Use};
use shoal_control::{ClusterClient, ControlError};
use shoal_core::{Digest, RepositoryName};
use shoal_driver::TransferError;

use super::Cluster;
use super::behind::{At, skipped};

/// Who answers.
pub(crate) enum Routed<T> {
    /// This origin.
    Here,
    /// Another, and this is it.
    There(Result<T, TransferError>),
}

impl Cluster {
    /// Asks the first that is well; whoever goes away is followed by the next.
    pub(crate) async fn at_owner<T, F>(
        &self,
        key: &Digest,
        ask: impl Fn(ClusterClient, usize) -> F,
    ) -> Routed<T>
    where
        F: Future<Output = Result<T, ControlError>> + Send,
    {
        for place in self.fetchers(key) {
            if place == self.own {
                return Routed::Here;
            }
            let answer = tokio::select! {
                answer = ask(self.client.clone(), place) => answer,
                () = self.members.went_away(place) => continue,
            };
            match answer.map_err(|error| self.judge(place, error)) {
                Ok(answer) => return Routed::There(Ok(answer)),
                Err(At::Absent) => return Routed::There(Err(TransferError::NotFound)),
                Err(At::Says(error)) => return Routed::There(Err(error)),
                Err(At::Away(error)) => skipped(&error),
            }
        }
        Routed::Here
    }

    /// Whether this origin is the first for that key.
    pub(crate) fn is_owner(&self, key: &Digest) -> bool {
        self.fetchers(key).first() == Some(&self.own)
    }

    /// Tells everybody that an upstream is not to be asked for that long. Who does not hear it hears it from the upstream.
    pub(crate) async fn tell_of_pause(&self, upstream: &str, asked: Duration) {
        let for_ms = u64::try_from(asked.as_millis()).unwrap_or(u64::MAX);
        let pause = UpstreamPause { upstream: upstream.to_owned(), for_ms };
        self.ask_others(|client, place| {
            let pause = pause.clone();
            async move { client.pause_upstream(place, &pause).await }
        })
        .await;
    }

    /// What all others know of when manifests of a repository were pulled; `None` where one of them does not say.
    pub(crate) async fn uses_elsewhere(&self, repository: &RepositoryName) -> Option<Vec<Use>> {
        if self.members.well().count() < self.rendezvous.len() {
            return None;
        }
        let asked = |client: ClusterClient, place| {
            let repository = repository.clone();
            async move { client.upstream_uses(place, &repository).await }
        };
        let answers: Result<Vec<_>, _> = self.ask_others(asked).await.into_iter().collect();
        Some(answers.ok()?.into_iter().flatten().collect())
    }
}

//! How a question about a blob goes through the trackers.
//!
//! They are asked in order; one that takes long is waited for on while the next is asked. What an owner says counts at once,
//! and so does whoever names an agent or says that the cluster has no such blob. One that is no owner and knows nobody may
//! only not have been told: its answer is kept until the owners that may yet answer have failed, or the time is over.

use std::time::Instant as StdInstant;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use shoal_core::{Digest, PeerAddress, Role};
use tokio::time::{Duration, Instant, sleep_until};

use super::standing::Plan;
use super::{Found, TrackerClient};
use crate::error::{ControlError, Nonsense};
use crate::rendezvous::Places;
use crate::servers::{Call, REQUEST_TIMEOUT, Server};

/// After that long the next is asked as well: an answer takes milliseconds, or as long as an origin takes.
const PATIENCE: Duration = Duration::from_millis(500);

/// What is known while the question is on its way.
struct Question {
    plan: Plan,
    /// Owners that have not failed.
    open: Places,
    /// What one that is no owner said.
    kept: Option<(Found, Server)>,
}

/// What follows from an answer.
enum Verdict {
    /// That is the answer.
    Final(Result<(Found, Server), ControlError>),
    /// It was of no use; the next is asked at once.
    Next(ControlError),
    /// It is kept; owners may say more.
    Kept,
}

impl TrackerClient {
    pub(super) fn plan(&self, digest: &Digest) -> Plan {
        self.standings.plan(&self.rendezvous, &self.id, digest, StdInstant::now())
    }

    pub(super) async fn ask_owners(
        &self,
        call: &Call<'_>,
        plan: Plan,
        read: impl Fn(Bytes) -> Result<Found, Nonsense>,
    ) -> Result<(Found, Server), ControlError> {
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        // Those that were learned of come last: they are asked while no configured one answers.
        let learned = self.rendezvous.len()..self.servers.urls().len();
        let mut left = plan.order.clone().into_iter().chain(learned).peekable();
        let mut question = Question::new(plan);
        let (mut asked, mut last) = (FuturesUnordered::new(), None);
        let mut waiting: Vec<(usize, Instant)> = Vec::new();
        // Until when the one that was asked last has the question to itself.
        let mut patience = None;
        loop {
            if patience.is_none()
                && let Some(place) = left.next_if(|&place| question.may_help(place))
            {
                waiting.push((place, Instant::now()));
                asked.push(self.ask_place(call, place, deadline, &read));
                patience = Some(Instant::now() + PATIENCE);
            }
            if asked.is_empty() {
                break;
            }
            let more = left.peek().is_some_and(|&place| question.may_help(place));
            tokio::select! {
                biased;
                () = sleep_until(deadline) => break,
                Some((place, outcome)) = asked.next() => {
                    waiting.retain(|(waiting, _)| *waiting != place);
                    self.note(place, &outcome);
                    match question.judge(place, outcome) {
                        Verdict::Final(answer) => return answer,
                        Verdict::Next(error) => last = Some(error),
                        Verdict::Kept => {}
                    }
                    if question.open.is_empty() && question.kept.is_some() {
                        break;
                    }
                    patience = None;
                }
                () = sleep_until(patience.unwrap_or(deadline)), if more => {
                    waiting.iter().for_each(|(place, _)| self.standings.slow(*place, StdInstant::now()));
                    patience = None;
                }
            }
        }
        for (place, since) in waiting {
            if since.elapsed() >= PATIENCE {
                self.standings.failed(place, StdInstant::now());
            }
        }
        question.kept.ok_or_else(|| last.unwrap_or_else(|| self.servers.nobody(call)))
    }

    /// The same for a question that is answered when there is news, or after `wait`: by one at a time, for each would wait.
    pub(super) async fn ask_patiently(
        &self,
        call: &Call<'_>,
        plan: Plan,
        wait: Duration,
        read: impl Fn(Bytes) -> Result<Found, Nonsense>,
    ) -> Result<(Found, Server), ControlError> {
        let learned = self.rendezvous.len()..self.servers.urls().len();
        let mut last = None;
        for place in plan.order.into_iter().chain(learned) {
            let outcome = self.servers.ask_at(call, place, REQUEST_TIMEOUT + wait, &read).await;
            self.note(place, &outcome);
            match outcome {
                Err(error) if !error.is_final() => last = Some(error),
                outcome => return outcome,
            }
        }
        Err(last.unwrap_or_else(|| self.servers.nobody(call)))
    }

    async fn ask_place(
        &self,
        call: &Call<'_>,
        place: usize,
        deadline: Instant,
        read: &impl Fn(Bytes) -> Result<Found, Nonsense>,
    ) -> (usize, Result<(Found, Server), ControlError>) {
        let timeout = deadline.saturating_duration_since(Instant::now());
        (place, self.servers.ask_at(call, place, timeout, read).await)
    }

    fn note<T>(&self, place: usize, outcome: &Result<T, ControlError>) {
        match outcome {
            Err(error) if !error.is_final() => self.standings.failed(place, StdInstant::now()),
            _ => self.standings.answered(place),
        }
    }
}

impl Question {
    fn new(plan: Plan) -> Self {
        Self { open: plan.owners, plan, kept: None }
    }

    fn may_help(&self, place: usize) -> bool {
        self.kept.is_none() || self.open.contains(place)
    }

    fn judge(&mut self, place: usize, outcome: Result<(Found, Server), ControlError>) -> Verdict {
        match outcome {
            Ok(found) if self.plan.owns(place) || names_an_agent(&found.0.peers) => Verdict::Final(Ok(found)),
            Ok(found) => {
                self.kept.get_or_insert(found);
                Verdict::Kept
            }
            Err(error) if error.is_final() => Verdict::Final(Err(error)),
            Err(error) => {
                self.open = self.open.without(Places::NONE.with_if(place, self.plan.owns(place)));
                tracing::debug!(error = &error as &dyn std::error::Error, "asking the next tracker");
                Verdict::Next(error)
            }
        }
    }
}

fn names_an_agent(peers: &[PeerAddress]) -> bool {
    peers.iter().any(|peer| peer.role == Role::Agent)
}

#[cfg(test)]
mod tests;

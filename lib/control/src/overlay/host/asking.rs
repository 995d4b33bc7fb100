//! Questions for blobs: those of this node, and those of others.

use libp2p::kad::{GetProvidersOk, QueryId, QueryResult};
use libp2p::request_response::{Event, Message, ResponseChannel};
use shoal_core::PeerId;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinError;

use crate::overlay::answer::Holder;
use crate::overlay::behaviour::key;
use crate::overlay::gate::{libp2p_id, shoal_id};
use crate::overlay::host::Host;
use crate::overlay::question::{Answer, Held, Question};

/// Questions of others that are answered at a time; one more is not answered, and asked of another node. Each looks into the
/// store, and some bring 2 MiB of metainfo.
const MAX_ANSWERING: usize = 64;
/// Origins that are asked beside the holders that are found: they have what no agent has.
const MAX_ORIGINS: usize = 2;

impl Host {
    pub(super) fn find(&mut self, question: Question, replies: mpsc::Sender<Answer>) {
        let digest = question.digest;
        let Some(find) = self.queries.begin(question, replies) else { return };
        for origin in self.book.origins(MAX_ORIGINS) {
            self.ask_for(find, origin);
        }
        let query = self.swarm.behaviour_mut().kad.get_providers(key(&digest));
        self.queries.searches(find, query);
    }

    pub(super) fn ask(&mut self, peer: PeerId, question: Question, reply: oneshot::Sender<Answer>) {
        let request = self.swarm.behaviour_mut().questions.send_request(&libp2p_id(&peer), question);
        self.queries.asks_alone(request, reply);
    }

    /// Asks who was found while the search still knows where that is.
    pub(super) fn on_search(&mut self, query: QueryId, result: QueryResult) {
        let QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders { providers, .. })) = result else {
            return;
        };
        let Some(find) = self.queries.search(query) else { return };
        for peer in providers.iter().filter_map(shoal_id) {
            self.ask_for(find, peer);
        }
    }

    fn ask_for(&mut self, find: u64, peer: PeerId) {
        if peer == self.identity.id() {
            return;
        }
        if let Some(question) = self.queries.question(find, peer) {
            let request = self.swarm.behaviour_mut().questions.send_request(&libp2p_id(&peer), question);
            self.queries.asks(find, request);
        }
    }

    pub(super) fn on_question(&mut self, event: Event<Question, Answer>) {
        match event {
            Event::Message { message: Message::Request { request, channel, .. }, .. } => {
                self.look_up(request, channel);
            }
            Event::Message { peer, message: Message::Response { request_id, response }, .. } => {
                let answer = self.settle(&peer, response);
                self.queries.answered(request_id, Some(answer));
            }
            Event::OutboundFailure { request_id, error, peer, .. } => {
                tracing::debug!(%peer, %error, "a node of the overlay gave no answer");
                self.queries.answered(request_id, None);
            }
            Event::InboundFailure { .. } | Event::ResponseSent { .. } => {}
        }
    }

    /// What a connection proves is put in the place of what the answer says of it.
    fn settle(&self, peer: &libp2p::PeerId, mut answer: Answer) -> Answer {
        let connected = shoal_id(peer).and_then(|id| Some((id, self.book.connected(&id)?)));
        let Some((id, connected)) = connected else { return Answer::default() };
        if let Some(Held { address, .. }) = &mut answer.held {
            address.id = id;
            address.role = connected.role;
            for reached in &mut address.addresses {
                if reached.ip().is_unspecified() {
                    reached.set_ip(connected.address.ip());
                }
            }
        }
        answer
    }

    fn look_up(&mut self, question: Question, channel: ResponseChannel<Answer>) {
        if self.answering.len() >= MAX_ANSWERING {
            self.metrics.questions.with_label_values(&["busy"]).inc();
            return;
        }
        let Question { repository, digest, metainfo } = question;
        let (looked, address) = ((self.library)(repository, digest), self.address.borrow().clone());
        self.answering.spawn(async move {
            let Some(Holder { metainfo: signed, lent }) = looked.await else {
                return (channel, Answer::default());
            };
            let lent_ms = u64::try_from(lent.as_millis()).unwrap_or(u64::MAX);
            let held = Some(Held { address, lent_ms });
            (channel, Answer { held, metainfo: metainfo.then_some(signed) })
        });
    }

    pub(super) fn send_answer(&mut self, answered: Result<(ResponseChannel<Answer>, Answer), JoinError>) {
        let Ok((channel, answer)) = answered else { return };
        let result = if answer.held.is_some() { "held" } else { "unknown" };
        self.metrics.questions.with_label_values(&[result]).inc();
        // Who asked may have gone.
        let _ = self.swarm.behaviour_mut().questions.send_response(channel, answer);
    }
}

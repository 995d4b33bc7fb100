//! The questions that are under way: whom to tell what comes back. Bounded, and left by whoever does not wait any more.

use std::collections::{HashMap, HashSet};

use libp2p::kad::QueryId;
use libp2p::request_response::OutboundRequestId;
use shoal_core::PeerId;
use tokio::sync::{mpsc, oneshot};

use crate::overlay::question::{Answer, Question};

/// Everything that is under way.
#[derive(Debug, Default)]
pub(crate) struct Queries {
    finds: HashMap<u64, Find>,
    next: u64,
    searches: HashMap<QueryId, u64>,
    asked: HashMap<OutboundRequestId, Asked>,
}

/// A search for the holders of a blob.
#[derive(Debug)]
struct Find {
    question: Question,
    replies: mpsc::Sender<Answer>,
    asked: HashSet<PeerId>,
    waiting: usize,
    is_searching: bool,
}

#[derive(Debug)]
enum Asked {
    ByFind(u64),
    Alone(oneshot::Sender<Answer>),
}

/// Searches at once: beyond that the agent itself takes no more blobs.
const MAX_FINDS: usize = 1024;
/// Nodes that are asked in one search: twice what a fetch connects to, for some may be gone.
pub(crate) const MAX_ASKED: usize = 24;

impl Queries {
    /// Begins a search, if there is room.
    pub(crate) fn begin(&mut self, question: Question, replies: mpsc::Sender<Answer>) -> Option<u64> {
        self.finds.retain(|_, find| !find.replies.is_closed());
        if self.finds.len() >= MAX_FINDS {
            return None;
        }
        self.next += 1;
        let find = Find { question, replies, asked: HashSet::new(), waiting: 0, is_searching: false };
        self.finds.insert(self.next, find);
        Some(self.next)
    }

    /// Kademlia looks for holders.
    pub(crate) fn searches(&mut self, find: u64, query: QueryId) {
        if let Some(state) = self.finds.get_mut(&find) {
            state.is_searching = true;
            self.searches.insert(query, find);
        }
    }

    /// Which search that is.
    pub(crate) fn search(&self, query: QueryId) -> Option<u64> {
        self.searches.get(&query).copied()
    }

    /// Kademlia has found all that it will.
    pub(crate) fn search_ended(&mut self, query: QueryId) {
        let Some(find) = self.searches.remove(&query) else { return };
        if let Some(state) = self.finds.get_mut(&find) {
            state.is_searching = false;
        }
        self.end_if_done(find);
    }

    /// What to ask that node for the search, if it is to be asked at all.
    pub(crate) fn question(&mut self, find: u64, peer: PeerId) -> Option<Question> {
        let state = self.finds.get_mut(&find)?;
        let is_new = state.asked.len() < MAX_ASKED && !state.replies.is_closed() && state.asked.insert(peer);
        is_new.then(|| state.question.clone())
    }

    /// The node was asked for the search.
    pub(crate) fn asks(&mut self, find: u64, request: OutboundRequestId) {
        if let Some(state) = self.finds.get_mut(&find) {
            state.waiting += 1;
            self.asked.insert(request, Asked::ByFind(find));
        }
    }

    /// The node was asked, and one waits for just that.
    pub(crate) fn asks_alone(&mut self, request: OutboundRequestId, reply: oneshot::Sender<Answer>) {
        self.asked.insert(request, Asked::Alone(reply));
    }

    /// What came of a question; `None`: nothing, which whoever waits hears by the end of the wait.
    pub(crate) fn answered(&mut self, request: OutboundRequestId, answer: Option<Answer>) {
        match self.asked.remove(&request) {
            Some(Asked::Alone(reply)) => {
                if let Some(answer) = answer {
                    // Who asked may have gone.
                    let _ = reply.send(answer);
                }
            }
            Some(Asked::ByFind(find)) => {
                if let Some(state) = self.finds.get_mut(&find) {
                    state.waiting -= 1;
                    if let Some(answer) = answer {
                        // It has room for each that is asked.
                        let _ = state.replies.try_send(answer);
                    }
                }
                self.end_if_done(find);
            }
            None => {}
        }
    }

    /// Ends a search of which nothing more will come: whoever waits hears that by the end of the replies.
    pub(crate) fn end_if_done(&mut self, find: u64) {
        if self.finds.get(&find).is_some_and(|state| !state.is_searching && state.waiting == 0) {
            self.finds.remove(&find);
        }
    }
}

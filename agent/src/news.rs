//! The search of one fetch for more peers: a question to the tracker that waits there until somebody new comes.
//!
//! The engine asks now and then for as long as it lacks peers, and is told soon that nobody new is known, so that it can
//! judge whether there is hope; who comes later is named to it when he comes. As long as the engine asks, the next
//! question follows the last at once, so nobody is missed between two of them.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use shoal_control::Seen;
use shoal_core::PeerAddress;
use tokio::time::{Instant, sleep_until};

/// A question under way.
pub(crate) type Question<'a> = Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;

/// What came of a question.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) peers: Vec<PeerAddress>,
    /// What the next question says, to be answered when there is somebody else.
    pub(crate) seen: Option<Seen>,
}

/// Where the search stands.
pub(crate) struct Watch<'a> {
    question: Option<Question<'a>>,
    seen: Option<Seen>,
    /// The engine asked since the question began.
    again: bool,
    /// When the engine is told that nobody new is known, if the question is open still.
    patience: Option<Instant>,
}

/// What the engine is to hear.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// An answer.
    Peers(Vec<PeerAddress>),
    /// None so far.
    Nobody,
}

impl<'a> Watch<'a> {
    /// How long a question waits at the tracker. 25 s: an engine that lacks peers asks again within 20, and no proxy cuts
    /// what is silent so long.
    pub(crate) const WAIT: Duration = Duration::from_secs(25);
    /// How long the engine waits for an answer. 1 s: a tracker that knows somebody says so within milliseconds.
    const PATIENCE: Duration = Duration::from_secs(1);

    /// `seen` is of the answer that the fetch began with.
    pub(crate) fn new(seen: Option<Seen>) -> Self {
        Self { question: None, seen, again: false, patience: None }
    }

    /// The engine lacks peers.
    pub(crate) fn ask(&mut self, question: impl FnOnce(Option<Seen>) -> Question<'a>) {
        if self.question.is_some() {
            self.again = true;
        } else {
            self.question = Some(question(self.seen));
        }
        self.patience.get_or_insert_with(|| Instant::now() + Self::PATIENCE);
    }

    /// What the engine is to hear next; pends while nothing is asked. May be dropped and called again.
    pub(crate) async fn next(&mut self, question: impl FnOnce(Option<Seen>) -> Question<'a>) -> News {
        let patience = self.patience;
        let answered = async {
            match &mut self.question {
                Some(question) => question.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Answer { peers, seen } = answered => {
                (self.seen, self.patience) = (seen, None);
                self.question = std::mem::take(&mut self.again).then(|| question(seen));
                News::Peers(peers)
            }
            () = sleep_until(patience.unwrap_or_else(Instant::now)), if patience.is_some() => {
                self.patience = None;
                News::Nobody
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use futures_util::FutureExt as _;
    use tokio::sync::mpsc;

    use super::*;

    /// A tracker that answers when the test says so, and notes with what it was asked.
    struct Tracker {
        asked: RefCell<Vec<Option<Seen>>>,
        answers: tokio::sync::Mutex<mpsc::Receiver<Answer>>,
    }

    impl Tracker {
        fn new() -> (&'static Self, mpsc::Sender<Answer>) {
            let (sender, answers) = mpsc::channel(8);
            let tracker = Self { asked: RefCell::default(), answers: answers.into() };
            (Box::leak(Box::new(tracker)), sender)
        }

        fn question(&'static self, seen: Option<Seen>) -> Question<'static> {
            self.asked.borrow_mut().push(seen);
            let answers = &self.answers;
            async move { answers.lock().await.recv().await.unwrap_or_default() }.boxed()
        }
    }

    fn seen(arrivals: u64) -> Option<Seen> {
        Some(Seen { tracker: 7, arrivals })
    }

    fn answer(arrivals: u64) -> Answer {
        Answer { peers: Vec::new(), seen: seen(arrivals) }
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_is_named_at_once_and_before_that_nobody_is_soon() {
        let (tracker, answers) = Tracker::new();
        let mut watch = Watch::new(seen(1));
        assert!(watch.next(|seen| tracker.question(seen)).now_or_never().is_none(), "nothing is asked");
        let began = Instant::now();
        watch.ask(|seen| tracker.question(seen));
        assert_eq!(watch.next(|seen| tracker.question(seen)).await, News::Nobody);
        assert_eq!(began.elapsed(), Watch::PATIENCE);
        assert!(watch.next(|seen| tracker.question(seen)).now_or_never().is_none(), "said once");
        answers.send(answer(2)).await.unwrap();
        assert_eq!(watch.next(|seen| tracker.question(seen)).await, News::Peers(vec![]));
        assert_eq!(*tracker.asked.borrow(), [seen(1)], "the engine has asked once");
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_engine_asks_one_question_follows_the_other_and_says_what_was_seen() {
        let (tracker, answers) = Tracker::new();
        let mut watch = Watch::new(None);
        watch.ask(|seen| tracker.question(seen));
        assert_eq!(watch.next(|seen| tracker.question(seen)).await, News::Nobody);
        watch.ask(|seen| tracker.question(seen));
        assert_eq!(watch.next(|seen| tracker.question(seen)).await, News::Nobody);
        answers.send(answer(5)).await.unwrap();
        assert_eq!(watch.next(|seen| tracker.question(seen)).await, News::Peers(vec![]));
        assert_eq!(*tracker.asked.borrow(), [None, seen(5)]);
        answers.send(answer(6)).await.unwrap();
        assert_eq!(watch.next(|seen| tracker.question(seen)).await, News::Peers(vec![]));
        assert_eq!(tracker.asked.borrow().len(), 2, "it did not ask again");
        watch.ask(|seen| tracker.question(seen));
        assert_eq!(*tracker.asked.borrow(), [None, seen(5), seen(6)]);
    }
}

//! One at a time for each tag: writers of this origin, so that they do not get into each other's way, and readers, so that
//! many who ask at once cost one round of questions.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use shoal_control::cluster::message::TagName;
use tokio::sync::{Mutex, MutexGuard};

/// The turns of all tags. Tags share them by chance: those wait for each other without need.
pub(super) struct Turns<T> {
    turns: Vec<Mutex<T>>,
    hasher: RandomState,
}

/// Questions that others may wait for.
pub(super) struct Rounds<A> {
    turns: Turns<Option<Last<A>>>,
    clock: AtomicU64,
}

/// The last answer of a turn.
struct Last<A> {
    name: TagName,
    began: u64,
    answer: A,
}

impl<T: Default> Turns<T> {
    /// How many there are: a slow tag then holds up few others, in 100 KiB or so.
    const COUNT: usize = 1024;

    pub(super) fn new() -> Self {
        let turns = std::iter::repeat_with(Mutex::default).take(Self::COUNT).collect();
        Self { turns, hasher: RandomState::new() }
    }

    pub(super) async fn turn(&self, name: &TagName) -> MutexGuard<'_, T> {
        let turn = self.hasher.hash_one(name) % Self::COUNT as u64;
        self.turns[usize::try_from(turn).unwrap_or(0)].lock().await
    }
}

impl<A: Clone> Rounds<A> {
    pub(super) fn new() -> Self {
        Self { turns: Turns::new(), clock: AtomicU64::new(0) }
    }

    /// The answer to a question that is put after this call, by whomever: one that was put before may be out of date.
    pub(super) async fn ask(&self, name: &TagName, question: impl Future<Output = A>) -> A {
        let came = self.clock.fetch_add(1, Ordering::SeqCst);
        let mut last = self.turns.turn(name).await;
        if let Some(last) = &*last
            && last.name == *name
            && last.began > came
        {
            return last.answer.clone();
        }
        let began = self.clock.fetch_add(1, Ordering::SeqCst);
        let answer = question.await;
        *last = Some(Last { name: name.clone(), began, answer: answer.clone() });
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use shoal_core::{RepositoryName, Tag};
    use tokio::sync::Semaphore;

    use super::*;

    fn name(tag: &str) -> TagName {
        TagName { repository: RepositoryName::parse("app").unwrap(), tag: Tag::parse(tag).unwrap() }
    }

    #[tokio::test]
    async fn who_comes_while_somebody_asks_shares_the_next_question_and_not_that_one() {
        let (rounds, gate) = (Arc::new(Rounds::new()), Arc::new(Semaphore::new(0)));
        let asked = Arc::new(AtomicUsize::new(0));
        let ask = || {
            let (rounds, gate, asked) = (rounds.clone(), gate.clone(), asked.clone());
            tokio::spawn(async move {
                let question = async {
                    let number = asked.fetch_add(1, Ordering::SeqCst);
                    gate.acquire().await.unwrap().forget();
                    number
                };
                rounds.ask(&name("latest"), question).await
            })
        };
        let first = ask();
        while asked.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let later: Vec<_> = (0..20).map(|_| ask()).collect();
        while rounds.clock.load(Ordering::SeqCst) < 22 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(100);
        assert_eq!(first.await.unwrap(), 0);
        for later in later {
            assert_eq!(later.await.unwrap(), 1);
        }
        assert_eq!(ask().await.unwrap(), 2, "an answer is not kept for who comes after it");
        assert_eq!(rounds.ask(&name("other"), async { 7 }).await, 7);
    }
}

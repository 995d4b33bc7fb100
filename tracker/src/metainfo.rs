//! Metainfo, and which repositories it may be found in: kept in memory, looked up at the origins.
//!
//! Metainfo never changes, so it is kept for as long as there is room. Whether a blob is in a repository may change: a yes
//! is good for a minute, and for longer only while no origin can be asked; a no for a second. However many ask the same
//! at once, one question goes to the origins. Checking signatures and encoding happen on a blocking thread.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lru::LruCache;
use shoal_control::message::{FindReply, FindRequest};
use shoal_control::{ControlError, OriginClient, ServerUrl};
use shoal_core::{Digest, PeerId, SignedMetainfo};
use shoal_identity::Identity;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::config::Config;
use crate::flight::Flights;
use crate::metrics::{Metrics, gauge};

/// Finds metainfo.
#[derive(Debug)]
pub(crate) struct Library {
    identity: Identity,
    origins: OriginClient,
    origin_timeout: Duration,
    lookups: Semaphore,
    flights: Flights<FindRequest, Answer>,
    shelf: Mutex<Shelf>,
    metrics: Metrics,
}

/// What there is to say of a blob in a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is there; the metainfo as the wire has it.
    Found(Arc<str>),
    /// It is not there, say the origins.
    NotFound,
    /// Nobody can say now.
    Unavailable(String),
}

/// What is kept.
#[derive(Debug)]
struct Shelf {
    metainfo: LruCache<Digest, Arc<str>>,
    /// Of blobs that an origin still receives, each until then.
    outlines: LruCache<Digest, (Arc<str>, Instant)>,
    bytes: usize,
    capacity: usize,
    access: LruCache<FindRequest, Access>,
    lifetimes: Lifetimes,
}

/// How long a metainfo holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    ForGood,
    /// It is the outline of a blob that an origin still receives.
    ForNow,
}

/// How long what the origins said is believed.
#[derive(Clone, Copy, Debug)]
struct Lifetimes {
    allowed: Duration,
    refused: Duration,
    /// In place of `allowed` while no origin can be asked.
    grace: Duration,
}

/// What the origins said of a blob in a repository.
#[derive(Clone, Copy, Debug)]
enum Access {
    /// It is there: said at `said`, and not to be asked again before `recheck`.
    Allowed { said: Instant, recheck: Instant },
    /// It is not there, as far as is known until then.
    Refused { until: Instant },
}

impl Library {
    pub(crate) fn new(config: &Config, identity: Identity, origins: OriginClient, metrics: Metrics) -> Self {
        let lifetimes = Lifetimes {
            allowed: config.access_lifetime,
            refused: config.refusal_lifetime,
            grace: config.access_grace,
        };
        let capacity = usize::try_from(config.metainfo_cache.as_u64()).unwrap_or(usize::MAX);
        Self {
            identity,
            origins,
            origin_timeout: config.origin_timeout,
            lookups: Semaphore::new(config.max_origin_lookups.min(Semaphore::MAX_PERMITS)),
            flights: Flights::new(),
            shelf: Mutex::new(Shelf::new(capacity, config.access_cache_entries, lifetimes)),
            metrics,
        }
    }

    /// From memory, or else from one of the origins, whose APIs are at `origins` by then.
    pub(crate) async fn find(
        &self,
        request: &FindRequest,
        origins: impl FnOnce() -> Vec<ServerUrl>,
    ) -> Answer {
        if let Some(answer) = self.shelf().answer(Instant::now(), request) {
            return answer;
        }
        // Whoever held this flight before may have left an answer between the look above and this one.
        let look = || async {
            let known = self.shelf().answer(Instant::now(), request);
            match known {
                Some(answer) => answer,
                None => self.ask(request, origins()).await,
            }
        };
        self.flights.join(request, look).await
    }

    async fn ask(&self, request: &FindRequest, origins: Vec<ServerUrl>) -> Answer {
        let outcome = match tokio::time::timeout(self.origin_timeout, self.lookups.acquire()).await {
            Ok(_permit) => self.ask_origins(request, origins).await,
            Err(_) => Err("too many questions to origins are under way".to_owned()),
        };
        let mut shelf = self.shelf();
        let (answer, result) = match outcome {
            Ok(Some((text, holds))) => (shelf.allow(Instant::now(), request, text, holds), "found"),
            Ok(None) => (shelf.refuse(Instant::now(), request), "not_found"),
            Err(reason) => (shelf.make_do(Instant::now(), request, reason), "failed"),
        };
        self.metrics.origin_lookups.with_label_values(&[result]).inc();
        self.metrics.metainfo_bytes.set(gauge(shelf.bytes));
        answer
    }

    /// The metainfo as the wire has it, and for how long it holds; `None` if the origins say that there is none.
    async fn ask_origins(
        &self,
        request: &FindRequest,
        origins: Vec<ServerUrl>,
    ) -> Result<Option<(Arc<str>, Holds)>, String> {
        if origins.is_empty() {
            return Err("no origin has announced itself".to_owned());
        }
        let client = self.origins.with_origins(origins, self.origin_timeout);
        match client.metainfo(request.repository.as_ref(), &request.digest).await {
            Ok((signed, bearer)) => {
                let holds = if signed.metainfo.is_complete() { Holds::ForGood } else { Holds::ForNow };
                let text = self.verify(signed, bearer).await?;
                Ok(Some((text, holds)))
            }
            Err(ControlError::NotFound { .. }) => Ok(None),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "no origin answers");
                Err("no origin answers".to_owned())
            }
        }
    }

    /// Agents check for themselves; this keeps what they would refuse from being kept and handed to all of them.
    async fn verify(&self, signed: SignedMetainfo, bearer: Option<PeerId>) -> Result<Arc<str>, String> {
        let identity = self.identity.clone();
        let check = move || {
            identity.verify(&signed)?;
            Ok(FindReply::encode_metainfo(&signed).into())
        };
        let checked: Result<Result<_, shoal_identity::IdentityError>, _> =
            tokio::task::spawn_blocking(check).await;
        match checked {
            Ok(Ok(text)) => Ok(text),
            Ok(Err(error)) => {
                self.metrics.metainfo_refused.inc();
                let bearer = bearer.map(|id| id.to_string());
                let error = &error as &dyn std::error::Error;
                tracing::error!(
                    bearer,
                    error,
                    "metainfo refused: an origin sent what no origin of this cluster signed"
                );
                Err("the origin's metainfo does not verify".to_owned())
            }
            Err(_) => Err("the tracker is shutting down".to_owned()),
        }
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        // A panic could leave `bytes` too high, and then less is kept; nothing wrong is ever served.
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    /// What an entry takes beyond its text, about.
    const OVERHEAD: usize = 200;

    fn new(capacity: usize, access_entries: usize, lifetimes: Lifetimes) -> Self {
        let access = LruCache::sparse(NonZeroUsize::new(access_entries).unwrap_or(NonZeroUsize::MIN));
        let outlines = LruCache::sparse(MAX_OUTLINES);
        Self { metainfo: LruCache::unbounded(), outlines, bytes: 0, capacity, access, lifetimes }
    }

    /// What is known well enough to be said without asking.
    fn answer(&mut self, now: Instant, request: &FindRequest) -> Option<Answer> {
        match self.access.get(request) {
            Some(Access::Refused { until }) if now < *until => return Some(Answer::NotFound),
            Some(Access::Allowed { recheck, .. }) if now < *recheck => {}
            // In no repository in particular: that the metainfo is here is the answer.
            _ if request.repository.is_none() => {}
            _ => return None,
        }
        let known = self.metainfo.get(&request.digest).cloned();
        known.or_else(|| self.outline(now, &request.digest)).map(Answer::Found)
    }

    /// What was said of a blob that an origin receives, if that was a moment ago.
    fn outline(&mut self, now: Instant, digest: &Digest) -> Option<Arc<str>> {
        let (text, until) = self.outlines.get(digest)?;
        (now < *until).then(|| Arc::clone(text))
    }

    fn allow(&mut self, now: Instant, request: &FindRequest, text: Arc<str>, holds: Holds) -> Answer {
        let recheck = now + self.lifetimes.allowed;
        self.access.put(request.clone(), Access::Allowed { said: now, recheck });
        match holds {
            Holds::ForGood => self.keep(request.digest, Arc::clone(&text)),
            Holds::ForNow => {
                self.outlines.put(request.digest, (Arc::clone(&text), now + OUTLINE_LIFETIME));
            }
        }
        Answer::Found(text)
    }

    fn refuse(&mut self, now: Instant, request: &FindRequest) -> Answer {
        self.access.put(request.clone(), Access::Refused { until: now + self.lifetimes.refused });
        Answer::NotFound
    }

    /// No origin can be asked: what one said some time ago must do, and the next who asks does not wait for them again.
    fn make_do(&mut self, now: Instant, request: &FindRequest, reason: String) -> Answer {
        let Lifetimes { refused, grace, .. } = self.lifetimes;
        match (self.access.get_mut(request), self.metainfo.get(&request.digest)) {
            (Some(Access::Allowed { said, recheck }), Some(text)) if now < *said + grace => {
                *recheck = now + refused;
                Answer::Found(Arc::clone(text))
            }
            _ => Answer::Unavailable(reason),
        }
    }

    fn keep(&mut self, digest: Digest, text: Arc<str>) {
        self.bytes += text.len() + Self::OVERHEAD;
        if let Some(old) = self.metainfo.put(digest, text) {
            self.bytes -= old.len() + Self::OVERHEAD;
        }
        while self.bytes > self.capacity {
            let Some((_, text)) = self.metainfo.pop_lru() else { break };
            self.bytes -= text.len() + Self::OVERHEAD;
        }
    }
}

/// How long the outline of a blob that arrives is handed out without a look at the origin. 2 s: a fleet asks once, and who is
/// late hears soon that the blob is whole.
const OUTLINE_LIFETIME: Duration = Duration::from_secs(2);
/// Outlines are some hundred bytes each, and so many blobs arrive at no cluster at once.
const MAX_OUTLINES: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

#[cfg(test)]
mod tests {
    use shoal_core::RepositoryName;

    use super::*;

    const LIFETIMES: Lifetimes = Lifetimes {
        allowed: Duration::from_secs(60),
        refused: Duration::from_secs(1),
        grace: Duration::from_secs(3600),
    };

    fn shelf() -> (Shelf, Instant) {
        (Shelf::new(10_000, 100, LIFETIMES), Instant::now())
    }

    fn request(repository: &str, number: u8) -> FindRequest {
        let repository = (!repository.is_empty()).then(|| RepositoryName::parse(repository).unwrap());
        FindRequest { repository, digest: Digest::Sha256([number; 32]), news: None }
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn a_yes_is_good_for_its_repository_and_its_time() {
        let (mut shelf, now) = shelf();
        let found = shelf.allow(now, &request("app", 1), "text".into(), Holds::ForGood);
        assert_eq!(shelf.answer(now + seconds(59), &request("app", 1)), Some(found.clone()));
        assert_eq!(shelf.answer(now + seconds(60), &request("app", 1)), None);
        assert_eq!(shelf.answer(now, &request("secret", 1)), None, "another repository is asked for anew");
        assert_eq!(shelf.answer(now + seconds(99), &request("", 1)), Some(found), "any repository will do");
    }

    #[test]
    fn an_outline_is_good_for_two_seconds_and_takes_nothing_from_a_metainfo() {
        let (mut shelf, now) = shelf();
        let outline = shelf.allow(now, &request("app", 1), "outline".into(), Holds::ForNow);
        assert_eq!(shelf.answer(now + seconds(1), &request("app", 1)), Some(outline));
        assert_eq!(shelf.answer(now + seconds(2), &request("app", 1)), None);
        let found = shelf.allow(now + seconds(2), &request("app", 1), "text".into(), Holds::ForGood);
        shelf.allow(now + seconds(2), &request("other", 1), "outline".into(), Holds::ForNow);
        assert_eq!(shelf.answer(now + seconds(9), &request("app", 1)), Some(found));
    }

    #[test]
    fn a_no_is_good_for_a_second() {
        let (mut shelf, now) = shelf();
        shelf.refuse(now, &request("app", 1));
        assert_eq!(shelf.answer(now + seconds(1) / 2, &request("app", 1)), Some(Answer::NotFound));
        assert_eq!(shelf.answer(now + seconds(1), &request("app", 1)), None);
    }

    #[test]
    fn a_no_takes_back_a_yes() {
        let (mut shelf, now) = shelf();
        shelf.allow(now, &request("app", 1), "text".into(), Holds::ForGood);
        shelf.refuse(now + seconds(60), &request("app", 1));
        let away = shelf.make_do(now + seconds(62), &request("app", 1), "away".to_owned());
        assert_eq!(away, Answer::Unavailable("away".to_owned()));
    }

    #[test]
    fn an_old_yes_does_while_origins_are_away() {
        let (mut shelf, now) = shelf();
        let found = shelf.allow(now, &request("app", 1), "text".into(), Holds::ForGood);
        let late = now + seconds(600);
        assert_eq!(shelf.make_do(late, &request("app", 1), "away".to_owned()), found);
        assert_eq!(shelf.answer(late, &request("app", 1)), Some(found), "the next does not wait for them");
        assert_eq!(shelf.answer(late + seconds(1), &request("app", 1)), None, "they are asked again soon");
        for (at, request) in [(now + seconds(3600), request("app", 1)), (now, request("other", 1))] {
            let answer = shelf.make_do(at, &request, "away".to_owned());
            assert_eq!(answer, Answer::Unavailable("away".to_owned()));
        }
    }

    #[test]
    fn the_least_recently_used_metainfo_makes_room() {
        let (mut shelf, now) = shelf();
        let text: Arc<str> = "m".repeat(3000).into();
        for number in 0..3 {
            shelf.allow(now, &request("", number), Arc::clone(&text), Holds::ForGood);
        }
        assert!(shelf.answer(now, &request("", 0)).is_some());
        shelf.allow(now, &request("", 3), Arc::clone(&text), Holds::ForGood);
        let kept: Vec<_> =
            (0..4).filter(|&number| shelf.answer(now, &request("", number)).is_some()).collect();
        assert_eq!(kept, [0, 2, 3]);
        assert_eq!(shelf.bytes, 3 * (3000 + Shelf::OVERHEAD));
        shelf.allow(now, &request("", 3), text, Holds::ForGood);
        assert_eq!(shelf.bytes, 3 * (3000 + Shelf::OVERHEAD), "keeping the same again takes no room");
    }
}

//! The task that keeps this tracker and the store alike.
//!
//! After each connection it first listens to what the others say, then reads all that is there, then writes what this tracker heard
//! and the store lacks: whatever was missed while it was away is known on both sides after that. Nobody waits for it.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use shoal_core::PeerId;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::message::{read_message, read_record};
use super::outbox::Taken;
use super::store::{PAGE, Read, Store, StoreError, Written, pump, whole};
use super::{Config, Shared};
use crate::state::replica::{Event, Followed, Said, Version};

/// What the task owns.
pub(super) struct Link {
    shared: Arc<Shared>,
    config: Config,
}

/// A connection, and what it is owed.
struct Session<'a> {
    link: &'a Link,
    store: Store,
    /// Nodes of which something was missed: they are read anew.
    missed: HashSet<PeerId>,
}

impl Link {
    pub(super) fn new(shared: Arc<Shared>, config: Config) -> Self {
        Self { shared, config }
    }

    pub(super) async fn run(self) {
        let mut failures = 0;
        loop {
            let began = Instant::now();
            let Err(error) = self.connect().await;
            self.shared.disconnected();
            failures = if began.elapsed() > LONG { 1 } else { failures + 1 };
            let retry = backoff(failures).mul_f64(rand::random_range(0.5..=1.0));
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                failures,
                ?retry,
                "state is not shared: the tracker goes on with what it is told itself"
            );
            sleep(retry).await;
        }
    }

    async fn connect(&self) -> Result<Infallible, StoreError> {
        let Config { redis, lease, limits } = &self.config;
        let store = Store::connect(redis, *lease, limits.max_holdings_per_node).await?;
        let (sender, mut messages) = mpsc::channel(MAX_MESSAGES);
        let pump = pump(store.subscribe().await?, sender);
        // From now on nothing is missed.
        self.shared.outbox().open();
        let mut session = Session { link: self, store, missed: HashSet::new() };
        tokio::select! {
            error = pump => Err(error),
            outcome = session.run(&mut messages) => outcome,
        }
    }
}

impl Session<'_> {
    async fn run(&mut self, messages: &mut mpsc::Receiver<Vec<u8>>) -> Result<Infallible, StoreError> {
        let shared = &self.link.shared;
        self.compare().await?;
        shared.connected();
        let mut pings = interval(self.link.config.redis.timeout.max(MIN_PING));
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(message) = messages.recv() => {
                    self.follow(&message);
                    while let Ok(message) = messages.try_recv() {
                        self.follow(&message);
                    }
                    self.read_missed().await?;
                }
                () = shared.wait_for_events() => self.write_events().await?,
                _ = pings.tick() => self.store.ping().await?,
            }
        }
    }

    /// Reads everything, and writes what this tracker heard and the store lacks.
    async fn compare(&mut self) -> Result<(), StoreError> {
        let shared = &self.link.shared;
        shared.metrics.comparisons.inc();
        self.missed.clear();
        let (mut there, mut from) = (HashMap::new(), 0);
        // Those that others made up have no record, or come last.
        while from < self.link.config.limits.max_nodes.saturating_mul(2) {
            let (count, ids) = self.store.list(from).await?;
            for ids in ids.chunks(READS) {
                self.read(ids, &mut there).await?;
            }
            from += PAGE;
            if from >= count {
                break;
            }
        }
        let heard = shared.state().heard(Instant::now().into_std());
        let lacking =
            heard.into_iter().filter(|(id, version)| there.get(id).is_none_or(|known| known < version));
        let whole: Vec<_> = lacking.map(|(id, version)| Event { id, version, said: Said::Whole }).collect();
        for events in whole.chunks(READS) {
            self.write(events.to_vec()).await?;
        }
        Ok(())
    }

    fn follow(&mut self, message: &[u8]) {
        let shared = &self.link.shared;
        shared.metrics.messages.inc();
        let event = match read_message(message) {
            Ok(event) => event,
            Err(error) => return shared.refuse("message", None, &error),
        };
        let id = event.id;
        match shared.follow(event) {
            Followed::Gap => drop(self.missed.insert(id)),
            Followed::Full => shared.metrics.refused.with_label_values(&["limit"]).inc(),
            Followed::Taken | Followed::Older => {}
        }
    }

    async fn read_missed(&mut self) -> Result<(), StoreError> {
        if self.missed.len() > MAX_MISSED {
            return self.compare().await;
        }
        let missed: Vec<_> = self.missed.drain().collect();
        for ids in missed.chunks(READS) {
            self.read(ids, &mut HashMap::new()).await?;
        }
        Ok(())
    }

    /// Reads nodes; `versions` learns which are there.
    async fn read(
        &mut self,
        ids: &[PeerId],
        versions: &mut HashMap<PeerId, Version>,
    ) -> Result<(), StoreError> {
        let shared = &self.link.shared;
        for (id, read) in ids.iter().zip(self.store.read(ids).await?) {
            let record = match read {
                Read::Missing => continue,
                Read::Impossible => {
                    shared.metrics.refused.with_label_values(&["record"]).inc();
                    continue;
                }
                Read::Found { left, fields } => read_record(*id, left, &fields),
            };
            match record {
                Ok(Some(record)) => {
                    versions.insert(*id, record.version);
                    if shared.adopt(record) == Followed::Full {
                        shared.metrics.refused.with_label_values(&["limit"]).inc();
                    }
                }
                Ok(None) => {}
                Err(error) => shared.refuse("record", Some(*id), &error),
            }
        }
        Ok(())
    }

    async fn write_events(&mut self) -> Result<(), StoreError> {
        let (taken, waiting) = {
            let mut outbox = self.link.shared.outbox();
            (outbox.take(), outbox.len())
        };
        self.link.shared.metrics.waiting.set(crate::metrics::gauge(waiting));
        match taken {
            Taken::Nothing => Ok(()),
            Taken::Everything => self.compare().await,
            Taken::Events(events) => self.write(events).await,
        }
    }

    /// Writes what nodes said, and all of those of whom the store lacks what that builds on.
    async fn write(&mut self, events: Vec<Event>) -> Result<(), StoreError> {
        let (events, mut wholes): (Vec<_>, Vec<_>) =
            events.into_iter().partition(|event| !matches!(event.said, Said::Whole));
        let answers = self.store.write(&events).await?;
        self.link.shared.metrics.written.inc_by(answers.len() as u64);
        wholes.extend(
            events
                .into_iter()
                .zip(answers)
                .filter(|(_, answer)| *answer == Written::Gap)
                .map(|(event, _)| event),
        );
        for event in wholes {
            self.write_whole(event).await?;
        }
        Ok(())
    }

    async fn write_whole(&mut self, event: Event) -> Result<(), StoreError> {
        let record = self.link.shared.state().record(Instant::now().into_std(), &event.id);
        let event = match record {
            Some(record) => whole(record),
            // It has left, or fallen silent.
            None => Event { said: Said::Left, ..event },
        };
        self.store.write(&[event]).await.map(drop)
    }
}

/// Twice as long for each failure, up to the longest.
fn backoff(failures: u32) -> Duration {
    (FIRST_RETRY * (1 << failures.saturating_sub(1).min(10))).min(MAX_RETRY)
}

/// Nodes that are read, or written as a whole, in one round trip.
const READS: usize = 32;
/// Of more nodes that something was missed of, everything is read anew.
const MAX_MISSED: usize = 1024;
/// Messages that wait to be read: those of 20 s of 15,000 nodes, 8 MB of usual ones.
const MAX_MESSAGES: usize = 16_384;
/// A server that hangs is noticed by its next answer, or by that to a ping.
const MIN_PING: Duration = Duration::from_millis(100);
/// After a connection that long the next failure counts as the first.
const LONG: Duration = Duration::from_secs(30);
/// The first wait after a failure.
const FIRST_RETRY: Duration = Duration::from_millis(200);
/// The longest: nodes have then long been told to tell every tracker.
const MAX_RETRY: Duration = Duration::from_secs(5);

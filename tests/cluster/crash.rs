//! An origin is killed at any instant of pushing, tagging and deleting, and started again, time after time.
//!
//! Some clients work at once, each in a repository of its own, with layers in common. The instant is counted in their
//! requests and parts of bodies, or in those that change what there is (the end of an upload, a tag, a delete), then varied
//! by as much time as such a request takes. After each start what the origin shows is held against what the clients know.
//! `CRASH_ROUNDS` and `CRASH_SEED` choose another run.

mod audit;
mod disk;
mod fuse;
mod journal;
mod writer;

use std::time::Duration;

use futures_util::future::join_all;
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

use crate::process::{Process, Processes};
use audit::{Audit, Scope};
use fuse::{Durations, Fuse, Step};
use journal::Journal;
use writer::{Mountable, Writer};

/// How many clients work at once.
const CLIENTS: usize = 3;
/// The longest life of an origin, in steps: three or four images of each client.
const MAX_STEPS: i64 = 400;

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_instant_loses_nothing_acknowledged_and_shows_nothing_half_written() {
    let rounds = from_environment("CRASH_ROUNDS", 12);
    let seed = from_environment("CRASH_SEED", 1);
    println!("CRASH_SEED={seed} CRASH_ROUNDS={rounds}");
    let mut run = Run::start(seed).await;
    for round in 1..=rounds {
        run.live_and_die().await;
        run.audit(Scope::Touched).await;
        println!("round {round}: {}", run.summary());
    }
    run.audit(Scope::Everything).await;
    run.end();
}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// An origin and its clients, over all its lives.
struct Run {
    cluster: Processes,
    origin: Option<Process>,
    http: reqwest::Client,
    random: SmallRng,
    mountable: Mountable,
    journals: Vec<Journal>,
    durations: Durations,
}

const ORIGIN: &str = "killed";

impl Run {
    async fn start(seed: u64) -> Self {
        let cluster = Processes::start().await;
        let origin = Some(cluster.another_origin(ORIGIN));
        let journals = (0..CLIENTS).map(|number| Journal::new(format!("team-{number}/app"))).collect();
        Self {
            cluster,
            origin,
            http: reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build().unwrap(),
            random: SmallRng::seed_from_u64(seed),
            mountable: Mountable::default(),
            journals,
            durations: Durations::default(),
        }
    }

    /// The clients work, the origin is killed and started again.
    async fn live_and_die(&mut self) {
        let origin = self.origin.take().unwrap();
        let fuse = self.fuse();
        let mut clients = Vec::new();
        for journal in std::mem::take(&mut self.journals) {
            let writer = Writer {
                http: self.http.clone(),
                address: origin.registry(),
                fuse: fuse.clone(),
                random: SmallRng::seed_from_u64(self.random.next_u64()),
                mountable: self.mountable.clone(),
                journal,
            };
            clients.push(tokio::spawn(writer.run()));
        }
        let clients = join_all(clients);
        tokio::pin!(clients);
        tokio::select! {
            () = fuse.burnt() => {}
            // A client ends before the origin only by a panic.
            ended = &mut clients => panic!("the clients ended: {ended:?}"),
        }
        // Not a wait for something: the instant is to be any.
        let longest = self.durations.typical(fuse.counted());
        tokio::time::sleep(longest.mul_f64(self.random.random())).await;
        assert!(origin.complaints().is_empty(), "{:?}", origin.complaints());
        origin.kill();
        self.journals = clients.await.into_iter().map(Result::unwrap).collect();
        self.origin = Some(self.cluster.another_origin(ORIGIN));
    }

    /// Mostly the origin dies in what changes what there is, and often in what does so in several steps.
    fn fuse(&mut self) -> Fuse {
        let (counted, steps) = match self.random.random_range(0..6) {
            0 | 1 => (None, MAX_STEPS),
            2 => (Some(Step::Ending), MAX_STEPS / 20),
            3 => (Some(Step::Tagging), MAX_STEPS / 20),
            _ => (Some(Step::Deleting), MAX_STEPS / 40),
        };
        Fuse::new(counted, self.random.random_range(1..=steps), self.durations.clone())
    }

    async fn audit(&mut self, scope: Scope) {
        let origin = self.origin.as_ref().unwrap();
        let audits = self
            .journals
            .iter_mut()
            .map(|journal| Audit { http: &self.http, address: origin.registry(), journal }.run(scope));
        join_all(audits).await;
        assert!(origin.complaints().is_empty(), "{:?}", origin.complaints());
        disk::check_leftovers(&self.cluster.folder(ORIGIN), &self.journals);
    }

    /// With the origin gone for good, every byte on disk is looked at.
    fn end(mut self) {
        self.origin.take().unwrap().kill();
        disk::check_blobs(&self.cluster.folder(ORIGIN), &self.journals);
    }

    fn summary(&self) -> String {
        let sum = |count: fn(&Journal) -> usize| self.journals.iter().map(count).sum::<usize>();
        format!(
            "{} operations, {} blobs, {} manifests, {} tags, {} sessions lost, deletes: {}",
            sum(|journal| journal.acknowledged),
            sum(|journal| journal.blobs.len()),
            sum(|journal| journal.manifests.len()),
            sum(|journal| journal.tags.values().filter(|values| values[0].is_some()).count()),
            sum(|journal| journal.sessions_lost),
            !self.journals.iter().any(|journal| journal.cannot_delete),
        )
    }
}

//! With tasks and a clock, which is paused: it moves when all wait.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shoal_swarm::{Moment, Priority};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::{Went, counters, rate, total};
use crate::limit::{Limiter, Limits, PRIORITIES};

/// Takes chunks until the end.
async fn taker(limiter: Limiter, priority: Priority, chunk: u32, epoch: Instant, went: Arc<Mutex<Went>>) {
    loop {
        let bytes = limiter.take(priority, chunk).await;
        went.lock().unwrap().note(Moment(epoch.elapsed()), priority, bytes);
    }
}

async fn crowd(limits: &Limits, chunk: u32, each: usize, time: Duration) -> Went {
    let (limiter, epoch) = (Limiter::new(limits, counters()), Instant::now());
    let went = Arc::<Mutex<Went>>::default();
    let mut takers = JoinSet::new();
    for priority in PRIORITIES.into_iter().cycle().take(3 * each) {
        takers.spawn(taker(limiter.clone(), priority, chunk, epoch, Arc::clone(&went)));
    }
    sleep(time).await;
    takers.shutdown().await;
    Arc::into_inner(went).unwrap().into_inner().unwrap()
}

fn is_pending(future: &mut (impl Future + Unpin)) -> bool {
    futures_util::FutureExt::now_or_never(future).is_none()
}

#[tokio::test(start_paused = true)]
async fn tasks_get_the_rate_and_not_a_byte_more() {
    for (bytes_per_second, chunk) in [(1_000_000, 65_536), (300_000_000, 65_536), (77_777_777, 262_144)] {
        let limits = total(bytes_per_second);
        let went = crowd(&limits, chunk, 4, Duration::from_secs(5)).await;
        went.check(&limits);
        let bytes = went.bytes(|_| true);
        assert!(
            bytes * 1_000 >= bytes_per_second * 5 * 999,
            "{bytes} bytes in 5 s of {bytes_per_second} a second"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn each_priority_has_its_rate() {
    let limits = Limits {
        reader: rate(2_000_000),
        prefetch: rate(1_000_000),
        repair: rate(500_000),
        ..total(30_000_000)
    };
    let went = crowd(&limits, 65_536, 2, Duration::from_secs(5)).await;
    went.check(&limits);
    for (priority, rate) in PRIORITIES.into_iter().zip([2_000_000, 1_000_000, 500_000]) {
        let bytes = went.bytes(|other| other == priority);
        assert!(bytes * 1_000 >= rate * 5 * 999, "{priority:?}: {bytes}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_limited_does_not_wait() {
    let (limiter, begun) = (Limiter::unlimited(), Instant::now());
    for _ in 0..1_000 {
        assert_eq!(limiter.take(Priority::Repair, u32::MAX).await, u32::MAX);
    }
    assert!(Limiter::new(&Limits::default(), counters()).shared.is_none());
    assert_eq!(Limiter::new(&total(1_000_000), counters()).take(Priority::Reader, 0).await, 0);
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn who_goes_away_leaves_its_place_and_its_bytes() {
    let limiter = Limiter::new(&total(1_000_000), counters());
    // The bucket is empty, and it takes 10 ms to fill it.
    assert_eq!(limiter.take(Priority::Reader, 65_536).await, 10_000);
    let mut first = Box::pin(limiter.take(Priority::Reader, 65_536));
    let mut second = Box::pin(limiter.take(Priority::Repair, 65_536));
    assert!(is_pending(&mut first) && is_pending(&mut second));
    drop(first);
    assert_eq!(timeout(Duration::from_millis(6), second).await, Ok(5_000), "it keeps the time now");

    let mut third = Box::pin(limiter.take(Priority::Reader, 5_000));
    assert!(is_pending(&mut third));
    sleep(Duration::from_millis(6)).await;
    let fourth = limiter.reserve(Priority::Prefetch, 5_000);
    let mut fourth = Box::pin(fourth);
    assert!(is_pending(&mut fourth), "the third was given what there is");
    drop(third);
    assert_eq!(timeout(Duration::ZERO, fourth).await.unwrap().bytes(), 5_000);
}

#[tokio::test(start_paused = true)]
async fn what_is_reserved_and_not_spent_is_there_for_others() {
    let limiter = Limiter::new(&total(1_000_000), counters());
    let permit = limiter.reserve(Priority::Reader, 10_000).await;
    let other = limiter.clone();
    let waiting = tokio::spawn(async move { other.take(Priority::Repair, 8_000).await });
    tokio::task::yield_now().await;
    permit.spend(1_000);
    assert_eq!(timeout(Duration::from_millis(1), waiting).await.unwrap().unwrap(), 8_000);
    drop(limiter.reserve(Priority::Reader, 1_000).await);
    assert_eq!(limiter.take(Priority::Reader, 1_000).await, 1_000);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_comes_late_goes_first() {
    let limiter = Limiter::new(&total(1_000_000), counters());
    assert_eq!(limiter.take(Priority::Repair, 10_000).await, 10_000);
    let mut repair = Box::pin(limiter.take(Priority::Repair, 5_000));
    let mut reader = Box::pin(limiter.take(Priority::Reader, 5_000));
    assert!(is_pending(&mut repair) && is_pending(&mut reader));
    tokio::select! {
        biased;
        _ = &mut repair => panic!("repair went first"),
        bytes = &mut reader => assert_eq!(bytes, 5_000),
    }
    assert_eq!(repair.await, 5_000);
}

#[tokio::test(start_paused = true)]
async fn time_that_was_waited_is_counted_also_in_vain() {
    let waited = counters();
    let limiter = Limiter::new(&total(1_000_000), waited.clone());
    assert_eq!(limiter.take(Priority::Reader, 10_000).await, 10_000);
    assert!(timeout(Duration::from_millis(3), limiter.take(Priority::Prefetch, 5_000)).await.is_err());
    assert_eq!(limiter.take(Priority::Reader, 5_000).await, 5_000);
    let seconds = waited.map(|waited| (waited.get() * 1_000.0).round());
    assert_eq!(seconds, [2.0, 3.0, 0.0]);
}

#[tokio::test(start_paused = true)]
async fn beyond_the_places_others_wait_for_one() {
    let limiter = Limiter::new(&total(300_000_000), counters());
    let mut takers = JoinSet::new();
    for _ in 0..Limiter::MAX_WAITING + 100 {
        let limiter = limiter.clone();
        takers.spawn(async move { limiter.take(Priority::Reader, 10_000).await });
    }
    let mut bytes = 0;
    while let Some(taken) = takers.join_next().await {
        bytes += taken.unwrap();
        let state = limiter.shared.as_ref().unwrap().state.lock().unwrap();
        assert!(state.waiting.len() <= Limiter::MAX_WAITING);
    }
    assert_eq!(bytes as usize, (Limiter::MAX_WAITING + 100) * 10_000);
    let state = limiter.shared.as_ref().unwrap().state.lock().unwrap();
    assert!(state.waiting.is_empty() && state.keeper.is_none());
}

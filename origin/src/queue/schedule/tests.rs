use std::collections::HashSet;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn backoff(tries: u32) -> Backoff {
    Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(1), tries }
}

fn schedule(order: Order) -> Schedule {
    Schedule::new(order, backoff(3), 10)
}

#[test]
fn jobs_go_as_they_come_and_once() {
    let mut jobs = schedule(Order::Any);
    for key in ["a", "b", "a"] {
        jobs.add(5, key).unwrap();
    }
    assert_eq!(jobs.take(4), None);
    assert_eq!(jobs.take(5), Some(("a".to_owned(), 0)));
    assert_eq!(jobs.take(5), Some(("b".to_owned(), 0)));
    assert_eq!(jobs.take(5), None);
    assert_eq!(jobs.done(6, "a"), None);
    assert_eq!(jobs.counts(), Counts { waiting: 0, taken: 1, dead: 0 });
}

#[test]
fn what_comes_again_while_it_is_done_is_done_again() {
    let mut jobs = schedule(Order::Any);
    jobs.add(0, "a").unwrap();
    jobs.take(0).unwrap();
    jobs.add(1, "a").unwrap();
    assert_eq!(jobs.take(1), None, "nobody else is to do it at the same time");
    assert!(jobs.done(2, "a").is_some());
    assert_eq!(jobs.take(2), Some(("a".to_owned(), 0)));
    assert!(jobs.done(3, "a").is_none());
    assert!(!jobs.has("a"));
}

#[test]
fn what_fails_waits_and_is_given_up_in_the_end_until_it_comes_again() {
    let mut jobs = schedule(Order::Any);
    jobs.add(0, "a").unwrap();
    jobs.take(0).unwrap();
    assert_eq!(jobs.failed(0, "a", "no", 1.0).unwrap().due, 100);
    assert_eq!((jobs.take(99), jobs.next_due()), (None, Some(100)));
    assert_eq!(jobs.take(100), Some(("a".to_owned(), 1)));
    jobs.failed(100, "a", "no", 1.0).unwrap();
    jobs.take(300).unwrap();
    assert!(jobs.failed(300, "a", "never", 1.0).unwrap().dead);
    assert_eq!(jobs.next_due(), None);
    let dead: Vec<_> = jobs.dead().map(|(key, entry)| (key, entry.error.clone().unwrap())).collect();
    assert_eq!(dead, [("a", "never".to_owned())]);
    jobs.add(400, "a").unwrap();
    assert_eq!(jobs.counts(), Counts { waiting: 1, taken: 0, dead: 0 });
    assert_eq!(jobs.take(400), Some(("a".to_owned(), 0)));
}

#[test]
fn a_strict_queue_waits_for_its_head() {
    let mut jobs = schedule(Order::Strict);
    for key in ["a", "b"] {
        jobs.add(0, key).unwrap();
    }
    jobs.take(0).unwrap();
    assert_eq!(jobs.take(0), None);
    jobs.failed(0, "a", "no", 1.0).unwrap();
    assert_eq!((jobs.take(50), jobs.next_due()), (None, Some(100)));
    assert_eq!(jobs.take(100), Some(("a".to_owned(), 1)));
    assert_eq!(jobs.done(100, "a"), None);
    assert_eq!(jobs.take(100), Some(("b".to_owned(), 0)));
}

#[test]
fn it_takes_no_more_than_it_may_and_what_it_has_comes_all_the_same() {
    let mut jobs = Schedule::new(Order::Any, backoff(0), 2);
    jobs.add(0, "a").unwrap();
    jobs.add(0, "b").unwrap();
    assert_eq!(jobs.add(0, "c"), Err(Full));
    assert!(jobs.add(0, "b").is_ok());
}

#[test]
fn a_clock_that_went_back_holds_nothing_up_for_long() {
    let mut jobs = schedule(Order::Any);
    jobs.restore(1000, "a", Entry { due: 900_000, ..new_entry(7, 800_000) });
    assert_eq!(jobs.next_due(), Some(2000));
    assert_eq!(jobs.add(1000, "b").unwrap().number, 8);
}

#[derive(Clone, Debug)]
enum Step {
    Add(u8),
    Take,
    Done(u8),
    Failed(u8),
    LetGo(u8),
    Restart,
    Wait(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..12u8).prop_map(Step::Add),
        4 => Just(Step::Take),
        2 => (0..12u8).prop_map(Step::Done),
        2 => (0..12u8).prop_map(Step::Failed),
        1 => (0..12u8).prop_map(Step::LetGo),
        1 => Just(Step::Restart),
        2 => (0..2000u16).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Whatever happens, what was added and not done is there, nobody does a job that another is at, and what is kept on
    /// disk is enough to go on from.
    #[test]
    fn no_job_is_lost(steps in prop::collection::vec(step(), 0..200), strict: bool) {
        let order = if strict { Order::Strict } else { Order::Any };
        let mut jobs = Schedule::new(order, backoff(3), 10);
        let (mut now, mut taken) = (0, HashSet::new());
        let mut kept: HashMap<String, Entry> = HashMap::new();
        for step in steps {
            match step {
                Step::Add(key) => {
                    let key = key.to_string();
                    match jobs.add(now, &key) {
                        Ok(entry) => { kept.insert(key, entry); }
                        Err(Full) => prop_assert_eq!(kept.len(), 10),
                    }
                }
                Step::Take => if let Some((key, _)) = jobs.take(now) {
                    prop_assert!(kept.contains_key(&key));
                    prop_assert!(taken.insert(key));
                    prop_assert!(!strict || taken.len() == 1);
                },
                Step::Done(key) => if taken.remove(&key.to_string()) {
                    match jobs.done(now, &key.to_string()) {
                        Some(entry) => kept.insert(key.to_string(), entry),
                        None => kept.remove(&key.to_string()),
                    };
                },
                Step::Failed(key) => if taken.remove(&key.to_string()) {
                    kept.insert(key.to_string(), jobs.failed(now, &key.to_string(), "no", 0.5).unwrap());
                },
                Step::LetGo(key) => if taken.remove(&key.to_string()) {
                    jobs.let_go(&key.to_string());
                },
                Step::Restart => {
                    jobs = Schedule::new(order, backoff(3), 10);
                    taken.clear();
                    for (key, entry) in &kept {
                        jobs.restore(now, key, entry.clone());
                    }
                }
                Step::Wait(wait) => now += u64::from(wait),
            }
            let Counts { waiting, taken: at_work, dead } = jobs.counts();
            prop_assert_eq!(at_work, taken.len());
            prop_assert_eq!(waiting + at_work + dead, kept.len());
            prop_assert_eq!(dead, jobs.dead().count());
        }
        // All that is not dead can be taken in the end.
        for key in taken {
            if let Some(entry) = jobs.done(now, &key) { kept.insert(key, entry); } else { kept.remove(&key); }
        }
        while let Some((key, _)) = jobs.take(now + 10_000) {
            prop_assert!(jobs.done(now + 10_000, &key).is_none());
            kept.remove(&key);
        }
        prop_assert_eq!(jobs.counts(), Counts { waiting: 0, taken: 0, dead: kept.len() });
    }
}

use std::time::Duration;

use prometheus::Registry;
use tokio::time::timeout;

use super::*;

const BACKOFF: Backoff =
    Backoff { first: Duration::from_millis(20), longest: Duration::from_millis(50), tries: 2 };

fn options() -> QueueOptions {
    QueueOptions { name: "numbers".into(), order: Order::Any, backoff: BACKOFF, limit: 3 }
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    async fn open(&self) -> Queue<u32> {
        let path = self.0.path().join("queues");
        // The thread of the one before lets go of the file in a moment.
        for _ in 0..200 {
            if let Ok(journal) = Journal::open(&path) {
                let metrics = QueueMetrics::register(&Registry::new()).unwrap();
                return Queue::open(&journal, options(), metrics).unwrap();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the journal does not open");
    }
}

async fn take(queue: &Queue<u32>) -> Taken<u32> {
    timeout(Duration::from_secs(30), queue.take()).await.expect("a job is due")
}

#[tokio::test]
async fn what_is_not_done_is_there_after_a_restart() {
    let place = Place::new();
    let queue = place.open().await;
    for number in 1..=3 {
        queue.add(&number.to_string(), number).await.unwrap();
    }
    assert!(matches!(queue.add("4", 4).await, Err(QueueError::Full { limit: 3, .. })));
    let (one, two) = (take(&queue).await, take(&queue).await);
    assert_eq!((one.job, two.job), (1, 2));
    one.done().await;
    // Nobody says what became of the second.
    drop((two, queue));
    let queue = place.open().await;
    assert!(!queue.has("1"));
    assert_eq!((queue.status().waiting, queue.status().dead), (2, 0));
    let (two, three) = (take(&queue).await, take(&queue).await);
    assert_eq!((two.job, three.job), (2, 3));
}

#[tokio::test]
async fn what_fails_is_tried_again_then_given_up_and_revived() {
    let place = Place::new();
    let queue = place.open().await;
    queue.add("7", 7).await.unwrap();
    take(&queue).await.failed("away").await;
    assert!(queue.has("7"));
    let again = take(&queue).await;
    assert_eq!((again.job, again.tries), (7, 1));
    again.failed("still away").await;
    assert!(queue.has("7"), "given up is not done");
    drop(queue);
    let queue = place.open().await;
    let dead = queue.status().newest_dead;
    assert_eq!((dead.len(), dead[0].tries, dead[0].error.as_str()), (1, 2, "still away"));
    assert_eq!(queue.revive().await.unwrap(), 1);
    assert_eq!((take(&queue).await.job, queue.status().dead), (7, 0));
}

#[tokio::test]
async fn the_newest_of_a_key_is_what_is_done_and_not_lost() {
    let place = Place::new();
    let queue = place.open().await;
    queue.add("tag", 1).await.unwrap();
    queue.add("tag", 2).await.unwrap();
    let taken = take(&queue).await;
    assert_eq!(taken.job, 2);
    queue.add("tag", 3).await.unwrap();
    taken.done().await;
    drop(queue);
    let queue = place.open().await;
    assert_eq!(take(&queue).await.job, 3);
}

#[tokio::test]
async fn a_job_that_is_dropped_is_taken_by_another() {
    let place = Place::new();
    let queue = place.open().await;
    queue.add("1", 1).await.unwrap();
    drop(take(&queue).await);
    assert_eq!(take(&queue).await.tries, 0);
    assert!(queue.has("1"));
}

#[tokio::test]
async fn what_is_for_later_or_put_off_is_not_taken_before_and_has_not_failed() {
    let place = Place::new();
    let queue = place.open().await;
    queue.add_after("late", 1, Duration::from_millis(300)).await.unwrap();
    queue.add("now", 2).await.unwrap();
    let now = take(&queue).await;
    assert_eq!(now.job, 2);
    now.put_off(Duration::from_millis(900));
    assert!(timeout(Duration::from_millis(100), queue.take()).await.is_err());
    let late = take(&queue).await;
    assert_eq!((late.job, late.tries), (1, 0));
    late.done().await;
    let again = take(&queue).await;
    assert_eq!((again.job, again.tries), (2, 0));
    // Whoever adds it anew does not wait for its time.
    again.put_off(Duration::from_secs(3600));
    queue.add("now", 3).await.unwrap();
    assert_eq!(take(&queue).await.job, 3);
}

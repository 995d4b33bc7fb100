//! Two clusters that replicate to each other.

use shoal::image::Image;

use super::relay::{Relay, idle, rule};
use crate::process::{Process, Processes};
use crate::support::{REPOSITORY, eventually};

struct Pair {
    east: Processes,
    west: Processes,
    /// The way to each.
    to_east: Relay,
    to_west: Relay,
}

impl Pair {
    async fn start() -> Self {
        let (to_east, to_west) = (Relay::start().await, Relay::start().await);
        let east = Processes::start_with(&rule(&to_west, "")).await;
        let west = Processes::start_with(&rule(&to_east, "")).await;
        to_east.lead_to(&east.origin);
        to_west.lead_to(&west.origin);
        Self { east, west, to_east, to_west }
    }

    async fn idle(&self) {
        idle(&self.east.origin).await;
        idle(&self.west.origin).await;
    }

    fn away(&self, is_away: bool) {
        self.to_east.away(is_away);
        self.to_west.away(is_away);
    }
}

async fn push(origin: &Process, tag: &str, seed: u64) -> Image {
    let image = Image::generate(200_000, 2, seed);
    origin.client().push(REPOSITORY, tag, &image, |_| ()).await.unwrap();
    image
}

/// Waits until a tag is that image, and pulls all of it.
async fn is_there(origin: &Process, tag: &str, image: &Image) {
    let client = origin.client();
    eventually("the image", async || {
        let manifest = client.pull_manifest(REPOSITORY, tag).await.ok()?;
        (manifest == image.manifest).then_some(())
    })
    .await;
    for layer in &image.layers {
        client.pull_blob(REPOSITORY, &layer.digest, |_| ()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pushed_at_one_is_at_the_other_and_does_not_come_back() {
    let pair = Pair::start().await;
    let first = push(&pair.east.origin, "v1", 1).await;
    is_there(&pair.west.origin, "v1", &first).await;
    pair.idle().await;
    let tag = format!("{REPOSITORY}:v1");
    assert_eq!((pair.to_west.puts(), pair.to_east.puts()), (vec![tag.clone()], vec![]));

    // The other moves the tag, and it goes the other way, once.
    let second = push(&pair.west.origin, "v1", 2).await;
    is_there(&pair.east.origin, "v1", &second).await;
    pair.idle().await;
    assert_eq!((pair.to_west.puts(), pair.to_east.puts()), (vec![tag.clone()], vec![tag]));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_move_a_tag_at_once_end_with_one_image() {
    let pair = Pair::start().await;
    for round in 0..3u64 {
        let tag = format!("latest-{round}");
        pair.away(true);
        let images = [
            push(&pair.east.origin, &tag, 10 + round).await,
            push(&pair.west.origin, &tag, 20 + round).await,
        ];
        pair.away(false);
        pair.idle().await;
        let named = async |origin: &Process| origin.client().pull_manifest(REPOSITORY, &tag).await.unwrap();
        // A write may have come while the other queue was looked at.
        eventually("one image", async || {
            pair.idle().await;
            (named(&pair.east.origin).await == named(&pair.west.origin).await).then_some(())
        })
        .await;
        let winner = named(&pair.east.origin).await;
        let winner = images.iter().find(|image| image.manifest == winner).unwrap();
        is_there(&pair.east.origin, &tag, winner).await;
        is_there(&pair.west.origin, &tag, winner).await;
    }
    pair.idle().await;
    let (to_west, to_east) = (pair.to_west.puts().len(), pair.to_east.puts().len());
    assert!(to_west + to_east <= 9, "three writes a round at most: {to_west} and {to_east}");
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_that_cross_each_other_are_noticed_and_end() {
    let pair = Pair::start().await;
    let first = push(&pair.east.origin, "v1", 30).await;
    is_there(&pair.west.origin, "v1", &first).await;
    pair.idle().await;
    let relays = [&pair.to_east, &pair.to_west];
    relays.iter().for_each(|relay| relay.hold_tags(true));
    push(&pair.east.origin, "v1", 31).await;
    push(&pair.west.origin, "v1", 32).await;
    // Both have looked at each other, and their writes are under way.
    eventually("two writes", async || relays.iter().all(|relay| relay.tags_held() == 1).then_some(())).await;
    relays.iter().for_each(|relay| relay.hold_tags(false));
    let named = async |origin: &Process| origin.client().pull_manifest(REPOSITORY, "v1").await.unwrap();
    eventually("one image", async || {
        pair.idle().await;
        (named(&pair.east.origin).await == named(&pair.west.origin).await).then_some(())
    })
    .await;
    let noticed =
        |origin: &Process| origin.complaints().iter().any(|line| line.contains("wrote a tag at once"));
    assert!(noticed(&pair.east.origin) != noticed(&pair.west.origin), "one of them sends it again");
    assert_eq!(pair.to_east.puts().len() + pair.to_west.puts().len(), 4, "one, two that crossed, one again");
}

//! Agents have an image before anybody pulls it: by zone and share, by hand, on a push, and when another registry says so.

use std::process::Command;

use serde_json::{Value, json};
use shoal::image::{Image, MANIFEST_TYPE};
use shoal_core::Digest;

use crate::process::{Process, Processes, free_port, shoal};
use crate::support::{REPOSITORY, eventually};

/// Four agents in two zones, and a tracker to which they announce themselves often.
struct Fleet {
    cluster: Processes,
    agents: Vec<(&'static str, Process)>,
}

const SOON: &str = "announce_interval = \"300ms\"\nlease = \"5s\"\n";

impl Fleet {
    async fn start(origin_tables: &str) -> Self {
        let cluster = Processes::with_both(SOON, origin_tables).await;
        let mut agents = Vec::new();
        for (name, zone) in [("a", "berlin/1"), ("b", "berlin/2"), ("c", "paris"), ("d", "paris")] {
            agents.push((zone, cluster.agent_at(name, "127.0.0.1:0", &format!("zone = {zone:?}")).await));
        }
        Self { cluster, agents }
    }

    fn origin(&self) -> &Process {
        &self.cluster.origin
    }

    /// How many blobs agents of a zone have fetched for an order.
    async fn fetched(&self, zone: &str) -> Vec<f64> {
        let mut fetched = Vec::new();
        for (_, agent) in self.agents.iter().filter(|(at, _)| at.starts_with(zone)) {
            fetched.push(agent.metric("shoal_prefetched_blobs_total{result=\"whole\"}").await);
        }
        fetched
    }
}

async fn push(origin: &Process, tag: &str, seed: u64) -> Image {
    let image = Image::generate(6 << 20, 3, seed);
    origin.client().push(REPOSITORY, tag, &image, |_| ()).await.unwrap();
    image
}

fn prefetch(origin: &Process, arguments: &[&str]) -> Value {
    let admin = origin.admin_address().to_string();
    let text = shoal(&[&["prefetch", "--admin", &admin, "--json"], arguments].concat());
    serde_json::from_str(&text).unwrap()
}

/// All that an agent ever received of pieces.
async fn received(agent: &Process) -> f64 {
    let text = agent.admin("metrics").await.1;
    let lines = text.lines().filter(|line| line.starts_with("shoal_piece_bytes_received_total{"));
    lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

async fn pull(agent: &Process, tag: &str, image: &Image) {
    let client = agent.client();
    assert_eq!(client.pull_manifest(REPOSITORY, tag).await.unwrap(), image.manifest);
    for layer in &image.layers {
        client.pull_blob(REPOSITORY, &layer.digest, |_| ()).await.unwrap();
    }
    client.pull_blob(REPOSITORY, &Digest::sha256(&image.config), |_| ()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agents_of_a_zone_have_what_they_pull_later_and_others_do_not() {
    let fleet = Fleet::start("").await;
    let image = push(fleet.origin(), "v1", 1).await;
    let done = prefetch(fleet.origin(), &[&format!("{REPOSITORY}:v1"), "--zone", "berlin", "--wait"]);
    assert_eq!((&done["agents"], &done["complete"]), (&json!(2), &json!(true)), "{done}");
    assert_eq!(done["blobs"], 5, "three layers, the configuration, the manifest");
    assert_eq!((fleet.fetched("berlin").await, fleet.fetched("paris").await), (vec![5.0; 2], vec![0.0; 2]));
    for (_, agent) in fleet.agents.iter().filter(|(zone, _)| zone.starts_with("berlin")) {
        let before = received(agent).await;
        assert!(before > 6e6, "{before}");
        pull(agent, "v1", &image).await;
        assert_eq!(received(agent).await, before, "nothing came from anybody");
    }
    let all = prefetch(fleet.origin(), &[]);
    assert_eq!(all[0]["image"], format!("{REPOSITORY}:v1"), "{all}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_is_so_many_agents_and_what_is_not_there_is_said() {
    let mut fleet = Fleet::start("").await;
    push(fleet.origin(), "v1", 2).await;
    let image = format!("{REPOSITORY}:v1");
    let done = prefetch(fleet.origin(), &[&image, "--share", "25%", "--wait"]);
    assert_eq!(done["agents"], 1, "{done}");
    let fetched = async |fleet: &Fleet| fleet.fetched("").await.iter().filter(|&&blobs| blobs > 0.0).count();
    assert_eq!(fetched(&fleet).await, 1);
    let done = prefetch(fleet.origin(), &[&image, "--zone", "paris", "--share", "50%", "--wait"]);
    assert_eq!(done["agents"], 1, "{done}");

    for (arguments, expected) in [
        (&["prefetch", "team/none:1"][..], "not in this cluster"),
        (&["prefetch", &image, "--zone", "rome"][..], "no tracker knows an agent there"),
        (&["prefetch", &image, "--share", "0%"][..], "1% to 100%"),
        (&["prefetch", "Not/Valid"][..], "valid"),
    ] {
        let admin = fleet.origin().admin_address().to_string();
        let output = Command::new(env!("CARGO_BIN_EXE_shoal"))
            .args(arguments)
            .args(["--admin", &admin])
            .output()
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && error.contains(expected), "{arguments:?}: {error}");
    }

    // A tracker that has forgotten everything hears of what holds.
    push(fleet.origin(), "v2", 3).await;
    for (_, agent) in &fleet.agents {
        agent.freeze();
    }
    let ordered = prefetch(fleet.origin(), &[&format!("{REPOSITORY}:v2")]);
    assert_eq!(ordered["agents"], 4, "{ordered}");
    fleet.cluster.start_tracker();
    for (_, agent) in &fleet.agents {
        agent.thaw();
    }
    eventually("all of it at all", async || {
        let all = prefetch(fleet.origin(), &[]);
        let found = all.as_array().unwrap().iter().find(|found| found["id"] == ordered["id"])?;
        (found["complete"] == true && found["agents"] == 4).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_and_a_notification_have_agents_fetch_what_rules_name() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "Bearer of-harbor\n").unwrap();
    let (port, path) = (free_port(), secret.path());
    let tables = format!(
        "[[preheat]]\nrepositories = [\"{REPOSITORY}\"]\ntags = [\"v*\"]\nzone = \"paris\"\n\
         [[preheat]]\nrepositories = [\"harbor/**\"]\nzone = \"berlin\"\n\
         [notifications]\nlisten = \"127.0.0.1:{port}\"\nauthorization_file = {path:?}\nprefix = \"harbor/\"\n"
    );
    let fleet = Fleet::start(&tables).await;
    push(fleet.origin(), "latest", 4).await;
    push(fleet.origin(), "v1", 5).await;
    eventually("the push at all of a zone", async || {
        (fleet.fetched("paris").await == [5.0; 2]).then_some(())
    })
    .await;
    assert_eq!(fleet.fetched("berlin").await, [0.0; 2]);

    // Into a repository of which a rule says nothing by this tag, then told of by its digest.
    let image = Image::generate(100_000, 1, 6);
    fleet.origin().client().push("harbor/library/app", "x", &image, |_| ()).await.unwrap();
    eventually("the push at the other zone", async || {
        (fleet.fetched("berlin").await == [3.0; 2]).then_some(())
    })
    .await;
    let event = json!({ "events": [
        { "action": "pull", "target": { "mediaType": MANIFEST_TYPE, "repository": "library/app", "tag": "x" } },
        { "action": "push", "target": { "mediaType": MANIFEST_TYPE, "repository": "library/app", "tag": "x",
            "digest": Digest::sha256(&image.manifest) } },
    ]});
    let notify = async |secret: &str, body: String| {
        let request = reqwest::Client::new().post(format!("http://127.0.0.1:{port}/registry/notifications"));
        request.header("authorization", secret).body(body).send().await.unwrap().status().as_u16()
    };
    assert_eq!(notify("Bearer other", event.to_string()).await, 401);
    assert_eq!(notify("Bearer of-harbor", "{".to_owned()).await, 400);
    assert_eq!(notify("Bearer of-harbor", event.to_string()).await, 200);
    // It is there; so the order is one that all have carried out as soon as they hear of it.
    eventually("the notified image", async || (fleet.fetched("berlin").await == [6.0; 2]).then_some(()))
        .await;
    assert_eq!(fleet.fetched("paris").await, [5.0; 2]);
}

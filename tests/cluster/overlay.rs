//! Pulls that go on without trackers and origins, by the overlay; and whom the overlay does not let in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use prometheus::Registry;
use shoal::client::Client;
use shoal::image::{Image, Layer};
use shoal_control::overlay::{Config, Holder, Library, MAX_LENT, Member, Overlay};
use shoal_core::{Digest, PeerAddress, Role, SignedMetainfo, Zone};
use shoal_identity::{Authority, Identity};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::faults::push;
use crate::process::{Process, Processes, free_port};
use crate::support::{MIB, REPOSITORY, blob_path, eventually};

const PEERS: &str = "shoal_overlay_peers";
const RECORDS: &str = "shoal_overlay_records";
const REFUSED: &str = "shoal_overlay_refused_total";

/// Where an agent listens for the overlay, and whom it joins.
fn table(port: u16, join: &[u16]) -> String {
    let join: Vec<String> = join.iter().map(|port| format!("dns://localhost:{port}")).collect();
    format!("[overlay]\nlisten = \"127.0.0.1:{port}\"\njoin = {join:?}\n")
}

/// Agents that all take part, of which each has met the first.
pub(crate) async fn agents(cluster: &Processes, names: &[&str]) -> (Vec<Process>, u16) {
    let meeting = free_port();
    let mut agents = Vec::new();
    for name in names {
        let table = if agents.is_empty() { table(meeting, &[]) } else { table(free_port(), &[meeting]) };
        agents.push(cluster.agent_with(name, "capacity = \"100%\"\n", &table).await);
    }
    for agent in &agents {
        eventually("neighbours", async || (agent.metric(PEERS).await >= 1.0).then_some(())).await;
    }
    (agents, meeting)
}

/// How long the first byte took; the rest is read, and checked.
async fn pull(client: &Client, layer: Layer) -> Duration {
    let asked = Instant::now();
    let response = client.get(&blob_path(&layer.digest)).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut body = response.bytes_stream();
    let first = body.next().await.unwrap().unwrap();
    let first_byte = asked.elapsed();
    let mut all = first.to_vec();
    while let Some(chunk) = body.next().await {
        all.extend_from_slice(&chunk.unwrap());
    }
    assert_eq!(Digest::sha256(&all), layer.digest);
    first_byte
}

#[tokio::test(flavor = "multi_thread")]
async fn with_all_trackers_and_origins_killed_a_blob_that_agents_hold_begins_within_two_seconds() {
    let cluster = Processes::start().await;
    let layer = push(&cluster.origin.client(), 64 * MIB, 61).await;
    let (agents, _) = agents(&cluster, &["seeker", "first", "second", "third"]).await;
    let (seeker, holders) = agents.split_first().unwrap();
    for holder in holders {
        holder.client().pull_blob(REPOSITORY, &layer.digest, |_| ()).await.unwrap();
    }
    eventually("records of all three", async || (seeker.metric(RECORDS).await >= 3.0).then_some(())).await;
    cluster.tracker.kill();
    cluster.origin.kill();
    let first_byte = pull(&seeker.client(), layer).await;
    println!("first byte after {first_byte:?}");
    assert!(first_byte < Duration::from_secs(2), "first byte after {first_byte:?}");
    // Which repository may see it was the origins' word, and is said by those who heard it.
    let other = seeker.client().get(&format!("v2/other/app/blobs/{}", layer.digest)).await.unwrap();
    assert_eq!(other.status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_tracker_costs_no_more_than_patience() {
    let cluster = Processes::start().await;
    let layer = push(&cluster.origin.client(), 4 * MIB, 62).await;
    let (agents, _) = agents(&cluster, &["seeker", "holder"]).await;
    agents[1].client().pull_blob(REPOSITORY, &layer.digest, |_| ()).await.unwrap();
    eventually("the record", async || (agents[0].metric(RECORDS).await >= 1.0).then_some(())).await;
    cluster.tracker.freeze();
    cluster.origin.freeze();
    let first_byte = pull(&agents[0].client(), layer).await;
    assert!(first_byte < Duration::from_secs(2), "first byte after {first_byte:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_knows_only_other_agents_pulls_what_they_have() {
    let cluster = Processes::start().await;
    let image = Image::generate(4 * MIB, 2, 63);
    cluster.origin.client().push(REPOSITORY, "latest", &image, |_| ()).await.unwrap();
    let (agents, meeting) = agents(&cluster, &["meeting", "holder"]).await;
    let holder = agents[1].client();
    assert_eq!(holder.pull_manifest(REPOSITORY, "latest").await.unwrap(), image.manifest);
    for layer in &image.layers {
        holder.pull_blob(REPOSITORY, &layer.digest, |_| ()).await.unwrap();
    }
    let lonely = cluster.agent_alone("lonely", &table(free_port(), &[meeting])).await;
    let digest = Digest::sha256(&image.manifest).to_string();
    let client = lonely.client();
    let manifest = eventually("the manifest by its digest", async || {
        client.pull_manifest(REPOSITORY, &digest).await.ok()
    })
    .await;
    assert_eq!(manifest, image.manifest);
    for layer in &image.layers {
        let pulled =
            eventually("a layer", async || client.pull_blob(REPOSITORY, &layer.digest, |_| ()).await.ok());
        assert_eq!(pulled.await.bytes, layer.length());
    }
    // What a tag means only origins say.
    let tag = client.get(&format!("v2/{REPOSITORY}/manifests/latest")).await.unwrap();
    assert_eq!(tag.status(), 404);
}

/// A node in this process, of whatever authority, that says of everything that it has it.
async fn outsider(identity: Identity, joins: u16, signed: Option<SignedMetainfo>) -> (Overlay, Registry) {
    let mut config = Config::new(([127, 0, 0, 1], 0).into());
    config.join = vec![format!("127.0.0.1:{joins}")];
    let library: Library = Arc::new(move |_, _| {
        let held = signed.clone().map(|metainfo| Holder { metainfo, lent: MAX_LENT });
        Box::pin(std::future::ready(held))
    });
    let address = PeerAddress {
        id: identity.id(),
        role: identity.role(),
        addresses: vec![([127, 0, 0, 1], 9).into()],
        zone: Zone::default(),
    };
    let address = tokio::sync::watch::channel(address).1;
    let member = Member { identity, address, library, trackers: None, tracker_url: None };
    let metrics = Registry::new();
    (Overlay::start(&config, member, &metrics).await.unwrap(), metrics)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_of_the_cluster_nobody_joins_and_noise_does_no_harm() {
    let cluster = Processes::start().await;
    let (agents, port) = agents(&cluster, &["meeting", "friend"]).await;
    let meeting = &agents[0];
    // An authority of the same name, so that even the pre-shared key is right.
    let stranger = Authority::generate("shoal").unwrap().issue(Role::Origin, "stranger").unwrap();
    let (stranger, _) = outsider(stranger, port, None).await;
    let refused = format!("{REFUSED}{{what=\"connection\"}}");
    let refused = eventually("the refusal", async || {
        let count = meeting.metric(&refused).await;
        (count > 0.0).then_some(count)
    })
    .await;
    assert!(refused >= 1.0 && stranger.peers() == 0);

    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let before = meeting.memory();
    for round in 0..50u8 {
        let mut connection = TcpStream::connect(address).await.unwrap();
        let noise: Vec<u8> = (0..65_536u32).map(|at| (at as u8).wrapping_mul(31) ^ round).collect();
        // It may be closed in the middle of that, and is at its end.
        let _ = connection.write_all(&noise).await;
        let _ = connection.shutdown().await;
        let mut answer = Vec::new();
        let _ =
            tokio::time::timeout(Duration::from_secs(10), connection.read_to_end(&mut answer)).await.unwrap();
    }
    assert!(meeting.memory() < before + 32 * MIB, "{} MiB more", (meeting.memory() - before) / MIB);
    assert_eq!(meeting.metric(PEERS).await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_forges_metainfo_is_reported_and_the_pull_goes_on_with_others() {
    let cluster = Processes::start().await;
    let layer = push(&cluster.origin.client(), 4 * MIB, 64).await;
    let (agents, port) = agents(&cluster, &["seeker", "holder"]).await;
    let authority = Authority::load(&cluster.folder("ca")).unwrap();
    let liar = authority.issue(Role::Agent, "liar").unwrap();
    let metainfo = shoal_core::Metainfo::of(b"something else").unwrap();
    let forged = SignedMetainfo { proof: liar.sign(&metainfo), metainfo };
    let (liar, _) = outsider(liar, port, Some(forged)).await;
    liar.handle().used(layer.digest);
    let seeker = &agents[0];
    eventually("the liar's record", async || (seeker.metric(RECORDS).await >= 1.0).then_some(())).await;
    agents[1].client().pull_blob(REPOSITORY, &layer.digest, |_| ()).await.unwrap();
    eventually("both records", async || (seeker.metric(RECORDS).await >= 2.0).then_some(())).await;
    cluster.tracker.kill();
    cluster.origin.kill();
    let client = seeker.client();
    eventually("the blob", async || client.pull_blob(REPOSITORY, &layer.digest, |_| ()).await.ok()).await;
    // Whether the liar was asked is chance; if it was, it is out, and it never is one of those who gave something.
    let complaints = seeker.complaints();
    let refused = seeker.metric(&format!("{REFUSED}{{what=\"metainfo\"}}")).await;
    let named = complaints.iter().any(|line| line.contains("metainfo from the overlay refused"));
    assert_eq!(refused > 0.0, named, "{complaints:?}");
}

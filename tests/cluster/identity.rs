//! How nodes come by their certificates, how these are renewed, and how nodes are kept out: with real processes.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use shoal_identity::{Config, Identity};

use crate::faults::push;
use crate::process::{Process, Processes, shoal};
use crate::support::{MIB, REPOSITORY, eventually};

fn identity(folder: &Path) -> Identity {
    Identity::load(&Config::at(folder.join("identity"))).unwrap()
}

async fn pull(agent: &Process, digest: &shoal_core::Digest) -> anyhow::Result<()> {
    agent.client().pull_blob(REPOSITORY, digest, |_| ()).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_joins_by_a_token_and_pulls_and_the_token_is_spent() {
    let cluster = Processes::enrolling("1h", |_| ()).await;
    let layer = push(&cluster.origin.client(), 4 * MIB, 81).await;
    let token = cluster.token("host-1");
    let agent = cluster.joining_agent("host-1", &token).await;
    pull(&agent, &layer.digest).await.unwrap();

    let folder = cluster.folder("host-1");
    let joined = identity(&folder);
    assert_eq!((joined.name(), joined.role()), ("host-1", shoal_core::Role::Agent));
    let key = std::fs::metadata(folder.join("identity/key.pem")).unwrap();
    assert_eq!(key.permissions().mode() & 0o777, 0o600);

    let said = cluster.refused_agent("host-2", &token);
    assert!(said.contains("join token was used by the 1 nodes"), "{said}");
    eventually("the tracker's log of it", async || {
        let complaints = cluster.tracker.complaints();
        let wanted =
            |line: &&String| line.contains("\"port\":\"enrolment\"") && line.contains("join token was used");
        complaints.iter().find(wanted).map(drop)
    })
    .await;
    // With its certificate a node needs its token no more.
    assert!(agent.terminate().await);
    let agent = cluster.joining_agent("host-1", &token).await;
    assert_eq!(identity(&folder).id(), joined.id());
    drop(agent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_neither_certificate_nor_token_says_what_to_do() {
    let cluster = Processes::enrolling("1h", |_| ()).await;
    let said = cluster.refused_agent("nobody", "not-a-token");
    assert!(said.contains("not a token"), "{said}");
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("agent.toml");
    let directory = home.path().join("identity");
    let config = format!(
        "tracker = []\norigins = []\n[store]\ndirectory = {:?}\n[transfer]\nlisten = \"127.0.0.1:0\"\n[identity]\ndirectory = {directory:?}\n",
        home.path()
    );
    std::fs::write(&file, config).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_shoal"))
        .args(["agent", "--config", file.to_str().unwrap()])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && said.contains("shoal ca issue") && said.contains("identity.join"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_renewed_under_nodes_that_go_on() {
    let cluster = Processes::enrolling("6s", |_| ()).await;
    let agent = cluster.joining_agent("short", &cluster.token("short")).await;
    let folder = cluster.folder("short");
    let first = identity(&folder);
    let renewed = eventually("a renewal", async || {
        let now = Identity::load(&Config::at(folder.join("identity"))).ok()?;
        (now.expires() > first.expires()).then_some(now)
    })
    .await;
    assert_eq!(renewed.id(), first.id(), "a renewal keeps the key");
    eventually("the end of the first certificate", async || {
        (SystemTime::now() > first.expires() + Duration::from_secs(1)).then_some(())
    })
    .await;
    // Every connection that a new agent makes with this one, and this one with the origin, is new.
    let layer = push(&cluster.origin.client(), 8 * MIB, 82).await;
    pull(&agent, &layer.digest).await.unwrap();
    let other = cluster.joining_agent("late", &cluster.token("late")).await;
    pull(&other, &layer.digest).await.unwrap();
    assert!(agent.terminate().await);
}

/// A node that is revoked is let go of within an announce interval, and whatever it asks is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_node_loses_its_connections_and_gets_no_new_ones() {
    let cluster = Processes::enrolling("1h", |_| ()).await;
    let [good, bad] = [
        cluster.joining_agent("good", &cluster.token("good")).await,
        cluster.joining_agent("bad", &cluster.token("bad")).await,
    ];
    let layer = push(&cluster.origin.client(), 4 * MIB, 83).await;
    for agent in [&good, &bad] {
        pull(agent, &layer.digest).await.unwrap();
    }
    let id = identity(&cluster.folder("bad")).id().to_string();
    let revoked = Instant::now();
    let said = shoal(&["ca", "revoke", "--ca", cluster.folder("ca").to_str().unwrap(), "--name", "bad"]);
    assert!(said.contains(&id), "{said}");
    eventually("the end of its connections", async || {
        let complaints = cluster.origin.complaints();
        complaints.iter().find(|line| line.contains("peer expelled") && line.contains(&id)).map(drop)
    })
    .await;
    let took = revoked.elapsed();
    assert!(took < Duration::from_secs(10), "it took {took:?}");

    let next = push(&cluster.origin.client(), MIB, 84).await;
    pull(&bad, &next.digest).await.unwrap_err();
    eventually("refusals that say why", async || {
        let complaints = cluster.tracker.complaints();
        complaints.iter().find(|line| line.contains("is revoked") && line.contains(&id)).map(drop)
    })
    .await;
    pull(&good, &next.digest).await.unwrap();
}

//! An agent that keeps a record of its engine, and `shoal replay`, which reads it.

use serde_json::Value;

use crate::faults::push;
use crate::process::{Processes, shoal};
use crate::support::{MIB, REPOSITORY};

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_did_is_replayed_from_its_record() {
    let cluster = Processes::start().await;
    let layer = push(&cluster.origin.client(), 24 * MIB, 71).await;
    let record = cluster.folder("recorded").join("engine.jsonl");
    let agent = cluster
        .agent_with("recorded", "capacity = \"100%\"\n", &format!("[transfer.record]\nfile = {record:?}\n"))
        .await;
    agent.client().pull_blob(REPOSITORY, &layer.digest, |_| ()).await.unwrap();
    assert!(agent.terminate().await);

    let record = record.to_str().unwrap();
    let diagnosis: Value = serde_json::from_str(&shoal(&["replay", record, "--json"])).unwrap();
    assert_eq!(diagnosis["ending"], "stopped");
    let swarm = &diagnosis["swarms"][0];
    assert_eq!(swarm["digest"], layer.digest.to_string());
    assert_eq!(swarm["from_origins"]["bytes"], layer.length());
    assert!(swarm["completed_at"].is_number(), "{swarm}");
    let text = shoal(&["replay", record]);
    assert!(
        text.contains(&format!("blob {}", layer.digest)) && text.contains("from origins 25 (24.0 MiB)"),
        "{text}"
    );
}

//! A tracker of the cluster that lies about blobs: agents believe only what an origin signed, and say who told them.

use std::borrow::Cow;
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use shoal_control::OriginClient;
use shoal_control::message::{FindReply, path};
use shoal_core::{Metainfo, PieceIndex, Role, SignedMetainfo};
use shoal_http::Server;
use shoal_identity::{Authority, Config, Identity};

use crate::faults::push;
use crate::process::{Processes, issue};
use crate::support::{MIB, REPOSITORY, eventually};

type Told = Arc<Mutex<String>>;

async fn find(State(told): State<Told>) -> Json<Value> {
    let metainfo = told.lock().unwrap().clone();
    Json(
        serde_json::to_value(FindReply { metainfo: Cow::Owned(metainfo), peers: vec![], seen: None })
            .unwrap(),
    )
}

fn altered(signed: &SignedMetainfo) -> SignedMetainfo {
    let (digest, geometry) = (*signed.metainfo.digest(), *signed.metainfo.geometry());
    let mut hashes: Vec<_> =
        (0..geometry.piece_count()).map(|at| *signed.metainfo.hash(PieceIndex(at)).unwrap()).collect();
    hashes[0].0[0] ^= 1;
    SignedMetainfo { metainfo: Metainfo::new(digest, geometry, hashes).unwrap(), ..signed.clone() }
}

fn signed_by(signer: &Identity, signed: &SignedMetainfo) -> SignedMetainfo {
    SignedMetainfo { proof: signer.sign(&signed.metainfo), metainfo: signed.metainfo.clone() }
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_metainfo_is_refused_and_its_bearer_named() {
    let cluster = Processes::start().await;
    let layer = push(&cluster.origin.client(), 2 * MIB, 91).await;
    let member = |role, name: &str| {
        issue(&cluster.folder(""), role, name);
        Identity::load(&Config::at(cluster.folder(name).join("identity"))).unwrap()
    };
    let (liar, rogue) = (member(Role::Tracker, "liar"), member(Role::Agent, "rogue"));
    let origins = OriginClient::new(&rogue, vec![cluster.origin_url().to_owned()]).unwrap();
    let (signed, bearer) = origins.metainfo(None, &layer.digest).await.unwrap();
    assert!(bearer.is_some(), "an answer comes from somebody");

    let told = Told::default();
    let taken = || async { Json(json!({ "interval_ms": 60_000, "send_all": false })) };
    let router = Router::new()
        .route(path::FIND, post(find))
        .route(path::ANNOUNCE, post(taken))
        .with_state(Arc::clone(&told));
    let tls = liar.server_config(&[b"h2", b"http/1.1"]);
    let server = Server::bind(([127, 0, 0, 1], 0).into(), Some(tls), shoal_http::Limits::default());
    let server = server.await.unwrap();
    let url = format!("https://{}", server.local_address());
    let _running = server.serve(router);
    let agent = cluster.agent_asking("asker", &url).await;

    let stranger = Authority::generate("shoal").unwrap().issue(Role::Origin, "origin").unwrap();
    let forgeries = [
        ("altered", altered(&signed), "is not what"),
        ("signed by an agent", signed_by(&rogue, &signed), "only origins may sign"),
        ("signed by another cluster's origin", signed_by(&stranger, &signed), "its signer is not accepted"),
    ];
    for (count, (what, forged, reason)) in (1..).zip(forgeries) {
        *told.lock().unwrap() = FindReply::encode_metainfo(&forged);
        agent.client().pull_blob(REPOSITORY, &layer.digest, |_| ()).await.expect_err(what);
        assert!(agent.metric("shoal_metainfo_refused_total").await >= f64::from(count), "{what}");
        let says = |line: &&String| {
            line.contains("metainfo refused")
                && line.contains(reason)
                && line.contains(&liar.id().to_string())
        };
        let log = async || agent.complaints().iter().find(says).map(drop);
        eventually(what, log).await;
    }
    assert_eq!(agent.metric("shoal_piece_bytes_received_total").await, 0.0);
}

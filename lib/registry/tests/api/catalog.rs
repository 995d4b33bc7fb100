use http::StatusCode;
use serde_json::Value;
use shoal_registry::Config;

use crate::rig::{Fault, Reply, Rig};

#[track_caller]
fn names(reply: &Reply) -> Vec<String> {
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(reply.header("content-type"), "application/json");
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    serde_json::from_value(body["repositories"].clone()).unwrap()
}

async fn rig() -> Rig {
    let rig = Rig::new();
    for repository in ["b", "a/0", "a", "a-b", "a/b/c", "tags/list"] {
        rig.push_image(repository, "latest").await;
    }
    // Without a manifest it is no repository yet.
    rig.push_blob("only-a-blob", b"layer").await;
    rig
}

#[tokio::test]
async fn every_repository_that_has_manifests_is_listed() {
    assert!(names(&Rig::new().get("/v2/_catalog").await).is_empty());
    let rig = rig().await;
    let reply = rig.get("/v2/_catalog").await;
    assert!(!reply.headers.contains_key("link"));
    assert_eq!(names(&reply), ["a/0", "a", "a/b/c", "a-b", "b", "tags/list"]);
    assert_eq!(rig.head("/v2/_catalog").await.headers, reply.headers);
}

#[tokio::test]
async fn pages_follow_each_other_and_miss_nothing() {
    let rig = rig().await;
    let all = names(&rig.get("/v2/_catalog").await);
    for n in 1..=7 {
        let (mut path, mut seen) = (format!("/v2/_catalog?n={n}"), vec![]);
        loop {
            let reply = rig.get(&path).await;
            let page = names(&reply);
            assert!(page.len() <= n);
            seen.extend(page);
            let Some(link) = reply.headers.get("link") else { break };
            let link = link.to_str().unwrap();
            path = link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap().to_owned();
        }
        assert_eq!(seen, all, "{n}");
    }
}

#[tokio::test]
async fn limits_are_exact_and_odd_ones_refused() {
    let pushed = rig().await;
    let rig = Rig::on(pushed.driver.clone(), Config { max_catalog_page: 4, ..Config::default() });
    for (query, expected) in [
        ("", 4),
        ("?n=0", 0),
        ("?n=3", 3),
        ("?n=1000000000", 4),
        ("?last=a-b", 2),
        ("?last=zz", 0),
        ("?last=", 4),
    ] {
        assert_eq!(names(&rig.get(&format!("/v2/_catalog{query}")).await).len(), expected, "{query}");
    }
    for n in ["-1", "abc", "", "1.5", "1000000000000000000000000000000"] {
        let reply = rig.get(&format!("/v2/_catalog?n={n}")).await;
        reply.expect_error(StatusCode::BAD_REQUEST, "PAGINATION_NUMBER_INVALID");
    }
    let reply = rig.get("/v2/_catalog?last=../..").await;
    reply.expect_error(StatusCode::BAD_REQUEST, "NAME_INVALID");
}

#[tokio::test]
async fn storage_that_cannot_list_repositories_says_so() {
    let rig = rig().await;
    rig.driver.fail("list", Fault::Unsupported);
    rig.get("/v2/_catalog").await.expect_error(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED");
}

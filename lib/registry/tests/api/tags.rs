use http::StatusCode;
use serde_json::{Value, json};
use shoal_registry::Config;

use crate::rig::{OCI_MANIFEST, Reply, Rig, digest_of, image};

async fn rig() -> Rig {
    let rig = Rig::new();
    for tag in ["b", "a", "C", "a.1", "current", "index", "link"] {
        rig.push_image("x/y", tag).await;
    }
    rig
}

#[track_caller]
fn tags(reply: Reply) -> Vec<String> {
    let reply = reply.expect(StatusCode::OK);
    assert_eq!(reply.header("content-type"), "application/json");
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(body["name"], "x/y");
    body["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn tags_are_listed_in_order() {
    let rig = rig().await;
    let reply = rig.get("/v2/x/y/tags/list").await;
    assert!(!reply.headers.contains_key("link"));
    assert_eq!(tags(reply), ["C", "a", "a.1", "b", "current", "index", "link"]);
    let reply = rig.head("/v2/x/y/tags/list").await.expect(StatusCode::OK);
    assert_ne!(reply.header("content-length"), "0");
}

#[tokio::test]
async fn pages_follow_each_other_until_there_is_no_link() {
    let rig = rig().await;
    let (mut path, mut pages) = ("/v2/x/y/tags/list?n=3".to_owned(), vec![]);
    loop {
        let reply = rig.get(&path).await;
        let link = reply.headers.get("link").map(|link| link.to_str().unwrap().to_owned());
        pages.push(tags(reply));
        let Some(link) = link else { break };
        path = link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap().to_owned();
    }
    assert_eq!(pages, [vec!["C", "a", "a.1"], vec!["b", "current", "index"], vec!["link"]]);
}

#[tokio::test]
async fn limits_are_exact_and_odd_ones_refused() {
    let rig = rig().await;
    for (query, expected) in [
        ("n=0", 0),
        ("n=1", 1),
        ("n=7", 7),
        ("n=1000000000", 7),
        ("last=a.1", 4),
        ("last=zz", 0),
        ("last=a.0&n=1", 1),
        ("last=../..", 7),
    ] {
        let reply = rig.get(&format!("/v2/x/y/tags/list?{query}")).await;
        let last_page = expected != 1;
        assert_eq!(!reply.headers.contains_key("link"), last_page, "{query}");
        assert_eq!(tags(reply).len(), expected, "{query}");
    }
    for n in ["-1", "abc", "", "1.5", "+1", "1000000000000000000000000000000"] {
        let reply = rig.get(&format!("/v2/x/y/tags/list?n={}", n.replace('+', "%2B"))).await;
        reply.expect_error(StatusCode::BAD_REQUEST, "PAGINATION_NUMBER_INVALID");
    }
}

#[tokio::test]
async fn an_unknown_repository_has_no_list_and_one_without_tags_an_empty_one() {
    let rig = Rig::new();
    rig.get("/v2/x/y/tags/list").await.expect_error(StatusCode::NOT_FOUND, "NAME_UNKNOWN");
    for content in [&b"{}"[..], b"layer"] {
        rig.push_blob("x/y", content).await;
    }
    let document = image(OCI_MANIFEST);
    let path = format!("/v2/x/y/manifests/{}", digest_of(&document));
    rig.put_manifest(&path, OCI_MANIFEST, &document).await.expect(StatusCode::CREATED);
    let reply = rig.get("/v2/x/y/tags/list").await.expect(StatusCode::OK);
    assert_eq!(serde_json::from_slice::<Value>(&reply.body).unwrap(), json!({"name": "x/y", "tags": []}));
}

#[tokio::test]
async fn a_page_is_never_longer_than_the_registry_allows() {
    let pushed = rig().await;
    let rig = Rig::on(pushed.driver.clone(), Config { max_tags_page: 2, ..Config::default() });
    let reply = rig.get("/v2/x/y/tags/list?n=1000000000").await;
    assert_eq!(reply.header("link"), "</v2/x/y/tags/list?last=a&n=2>; rel=\"next\"");
    assert_eq!(tags(reply), ["C", "a"]);
}

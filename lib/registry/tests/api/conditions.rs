//! Tags that are put on a condition, and tags that are put once.

use axum::body::Body;
use http::StatusCode;
use serde_json::{Value, json};
use shoal_registry::{Config, TagRule};

use crate::rig::{OCI_MANIFEST, Reply, Rig, digest_of};

async fn put(rig: &Rig, tag: &str, document: &Value, headers: &[(&str, &str)]) -> Reply {
    let headers = [&[("content-type", OCI_MANIFEST)], headers].concat();
    rig.send("PUT", &format!("/v2/a/manifests/{tag}"), &headers, document.to_string()).await
}

/// The document of a pushed image, and another one.
async fn two(rig: &Rig) -> [Value; 2] {
    let one = rig.push_image("a", "one").await;
    let mut other = one.clone();
    other["annotations"] = json!({"version": "2"});
    [one, other]
}

fn rules(text: &str) -> Config {
    let tags: Vec<TagRule> = serde_json::from_str(text).unwrap();
    Config { tags, ..Config::default() }
}

#[tokio::test]
async fn a_tag_is_put_only_where_it_names_what_the_client_expects() {
    let rig = Rig::new();
    let [one, other] = two(&rig).await;
    let (of_one, of_other) = (format!("\"{}\"", digest_of(&one)), format!("\"{}\"", digest_of(&other)));
    let refused = |reply: Reply| {
        let errors = reply.expect_error(StatusCode::PRECONDITION_FAILED, "PRECONDITION_FAILED");
        errors[0]["detail"]["current"].clone()
    };
    assert_eq!(refused(put(&rig, "new", &one, &[("if-match", "*")]).await), Value::Null);
    assert_eq!(refused(put(&rig, "new", &one, &[("if-match", &of_one)]).await), Value::Null);
    put(&rig, "new", &one, &[("if-none-match", "*")]).await.expect(StatusCode::CREATED);
    let current = json!(digest_of(&one).to_string());
    assert_eq!(refused(put(&rig, "new", &other, &[("if-none-match", "*")]).await), current);
    assert_eq!(refused(put(&rig, "new", &other, &[("if-match", &of_other)]).await), current);
    rig.get(&format!("/v2/a/manifests/{}", digest_of(&other)))
        .await
        .expect_error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN");
    put(&rig, "new", &other, &[("if-match", &of_one)]).await.expect(StatusCode::CREATED);
    assert_eq!(rig.get("/v2/a/manifests/new").await.header("etag"), of_other);
    put(&rig, "new", &one, &[("if-match", "*")]).await.expect(StatusCode::CREATED);
}

#[tokio::test]
async fn conditions_that_mean_nothing_are_refused() {
    let rig = Rig::new();
    let [one, _] = two(&rig).await;
    for headers in [[("if-match", "")], [("if-none-match", "\"x\"")]] {
        put(&rig, "new", &one, &headers).await.expect_error(StatusCode::BAD_REQUEST, "UNSUPPORTED");
    }
    put(&rig, &digest_of(&one).to_string(), &one, &[("if-match", "*")])
        .await
        .expect_error(StatusCode::BAD_REQUEST, "UNSUPPORTED");
    rig.get("/v2/a/manifests/new").await.expect_error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn an_immutable_tag_names_what_it_was_pushed_for_first() {
    let rig = Rig::with_config(rules(
        r#"[{"repositories": "**", "tags": "latest", "immutable": false},
            {"repositories": "a", "immutable": true}]"#,
    ));
    let [one, other] = two(&rig).await;
    put(&rig, "one", &one, &[]).await.expect(StatusCode::CREATED);
    let refused = put(&rig, "one", &other, &[]).await.expect_error(StatusCode::CONFLICT, "DENIED");
    let text = refused[0].to_string();
    let named = digest_of(&one).to_string();
    for part in ["rule 2 of registry.tags", &named, "push under another tag"] {
        assert!(text.contains(part), "{text}");
    }
    // What the client expects comes first.
    put(&rig, "one", &other, &[("if-none-match", "*")])
        .await
        .expect_error(StatusCode::PRECONDITION_FAILED, "PRECONDITION_FAILED");
    let of_one = format!("\"{}\"", digest_of(&one));
    put(&rig, "one", &other, &[("if-match", &of_one)]).await.expect_error(StatusCode::CONFLICT, "DENIED");
    for path in ["/v2/a/manifests/one".to_owned(), format!("/v2/a/manifests/{}", digest_of(&one))] {
        let reply = rig.send("DELETE", &path, &[], Body::empty()).await;
        reply.expect_error(StatusCode::CONFLICT, "DENIED");
    }
    assert_eq!(rig.get("/v2/a/manifests/one").await.header("etag"), of_one);
    for document in [&one, &other] {
        put(&rig, "latest", document, &[]).await.expect(StatusCode::CREATED);
    }
    rig.send("DELETE", "/v2/a/manifests/latest", &[], Body::empty()).await.expect(StatusCode::ACCEPTED);
}

#[tokio::test]
async fn an_immutable_tag_that_may_be_deleted_is_put_anew_after_that() {
    let rig = Rig::with_config(rules(r#"[{"repositories": "a", "immutable": true, "delete": true}]"#));
    let [one, other] = two(&rig).await;
    put(&rig, "one", &other, &[]).await.expect_error(StatusCode::CONFLICT, "DENIED");
    let path = format!("/v2/a/manifests/{}", digest_of(&one));
    rig.send("DELETE", &path, &[], Body::empty()).await.expect(StatusCode::ACCEPTED);
    put(&rig, "one", &other, &[]).await.expect(StatusCode::CREATED);
}

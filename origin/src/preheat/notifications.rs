//! `POST /registry/notifications`: another registry says what was pushed to it, in the CNCF registry's envelope, as Harbor's preheat
//! for Kraken does; and agents are told to fetch it, where a rule says so.
//!
//! What is not of use here is passed over: senders tell of everything, and send again what is refused.

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::Deserialize;
use shoal_core::{Digest, Reference, RepositoryName, Tag};
use shoal_upstream::MediaType;

use super::{NotificationsConfig, Preheat};

/// What the handler needs.
struct Endpoint {
    config: NotificationsConfig,
    preheat: Preheat,
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(default)]
    events: Vec<Notified>,
}

#[derive(Deserialize)]
struct Notified {
    #[serde(default)]
    action: String,
    #[serde(default)]
    target: Target,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Target {
    media_type: String,
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

/// An image that was pushed.
#[derive(Debug, PartialEq, Eq)]
struct Pushed {
    repository: RepositoryName,
    /// What the rules look at.
    reference: Reference,
    /// Which manifest it was then.
    digest: Option<Reference>,
}

/// The one path.
pub(crate) fn router(config: NotificationsConfig, preheat: Preheat) -> Router {
    Router::new()
        .route("/registry/notifications", post(notified))
        .layer(DefaultBodyLimit::max(MAX_LENGTH))
        .with_state(Arc::new(Endpoint { config, preheat }))
}

async fn notified(State(endpoint): State<Arc<Endpoint>>, headers: HeaderMap, body: Bytes) -> Response {
    let refuse = |status: StatusCode, why: &'static str| (status, why).into_response();
    if let Some(path) = &endpoint.config.authorization_file
        && !is_authorized(path, &headers).await
    {
        return refuse(StatusCode::UNAUTHORIZED, "the Authorization header is not what it should be\n");
    }
    let Ok(Envelope { events }) = serde_json::from_slice(&body) else {
        return refuse(StatusCode::BAD_REQUEST, "this is no envelope of a registry's events\n");
    };
    if events.len() > MAX_EVENTS {
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, "there are more events than fit into one envelope\n");
    }
    for event in &events {
        let Some(Pushed { repository, reference, digest }) = pushed(event, &endpoint.config.prefix) else {
            continue;
        };
        if endpoint.preheat.queue(&repository, &reference, digest.as_ref()).await.is_err() {
            return refuse(StatusCode::SERVICE_UNAVAILABLE, "too much waits already: send it again later\n");
        }
    }
    StatusCode::OK.into_response()
}

/// By their hashes, so that the time says nothing.
async fn is_authorized(path: &Path, headers: &HeaderMap) -> bool {
    let secret = match tokio::fs::read_to_string(path).await {
        Ok(secret) => secret,
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "nobody may notify: notifications.authorization_file cannot be read");
            return false;
        }
    };
    let shown = headers.get(header::AUTHORIZATION).map(|value| Digest::sha256(value.as_bytes()));
    shown == Some(Digest::sha256(secret.trim().as_bytes()))
}

fn pushed(event: &Notified, prefix: &str) -> Option<Pushed> {
    let Target { media_type, repository, tag, digest } = &event.target;
    if event.action != "push" || media_type.parse::<MediaType>().is_err() {
        return None;
    }
    let repository = RepositoryName::parse(&format!("{prefix}{repository}")).ok()?;
    let digest = digest.as_deref().and_then(|digest| Digest::parse(digest).ok()).map(Reference::Digest);
    let tag = tag.as_deref().and_then(|tag| Tag::parse(tag).ok()).map(Reference::Tag);
    let reference = tag.or_else(|| digest.clone())?;
    Some(Pushed { repository, reference, digest })
}

/// A registry sends one event, or some that came at once.
const MAX_EVENTS: usize = 1000;
/// As many, of a KiB each.
const MAX_LENGTH: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn read(event: Value) -> Option<Pushed> {
        pushed(&serde_json::from_value(event).unwrap(), "harbor/")
    }

    #[test]
    fn what_a_registry_says_of_a_push_is_read() {
        let (manifest, digest) = ("application/vnd.oci.image.manifest.v1+json", Digest::sha256(b"x"));
        let event = |action: &str, media_type: &str, tag: Value| {
            json!({ "id": "1", "action": action, "target": {
                "mediaType": media_type, "size": 7, "digest": digest, "repository": "team/app", "tag": tag,
            }})
        };
        let found = read(event("push", manifest, json!("v1"))).unwrap();
        assert_eq!(
            (found.repository.as_str(), found.reference.to_string()),
            ("harbor/team/app", "v1".into())
        );
        assert_eq!(found.digest, Some(Reference::Digest(digest)));
        assert_eq!(read(event("push", manifest, Value::Null)).unwrap().reference, Reference::Digest(digest));
        assert_eq!(read(event("pull", manifest, json!("v1"))), None);
        assert_eq!(read(event("push", "application/octet-stream", json!("v1"))), None);
        assert_eq!(read(json!({})), None);
    }

    proptest! {
        #[test]
        fn names_that_are_none_are_passed_over(repository: String, tag: String, digest: String) {
            let target = json!({ "mediaType": "application/vnd.oci.image.index.v1+json", "repository": repository,
                "tag": tag, "digest": digest });
            read(json!({ "action": "push", "target": target }));
        }
    }
}

//! The envelope of the CNCF registry's notifications, which receivers of all kinds read.

use std::time::SystemTime;

use serde_json::{Map, Value, json};
use shoal_core::PeerId;
use shoal_registry::event::{Action, Target};

use super::Notification;
use super::config::name_of;

/// What the body is.
pub(super) const MEDIA_TYPE: &str = "application/vnd.docker.distribution.events.v2+json";

/// One event in its envelope.
pub(super) fn envelope(notification: &Notification, origin: PeerId) -> Value {
    let Notification { id, at, event } = notification;
    let mut target = event.target.as_ref().map(describe).unwrap_or_default();
    target.insert("repository".to_owned(), json!(event.repository.as_str()));
    if let Some(tag) = &event.tag {
        target.insert("tag".to_owned(), json!(tag.as_str()));
    }
    if let Action::Mount { from } = &event.action {
        target.insert("fromRepository".to_owned(), json!(from.as_str()));
    }
    let client = &event.client;
    let address = client.address.map(|address| address.to_string()).unwrap_or_default();
    let actor = client.name.as_ref().map_or_else(|| json!({}), |name| json!({ "name": name }));
    json!({ "events": [{
        "id": id,
        "timestamp": timestamp(*at),
        "action": name_of(&event.action),
        "target": target,
        "request": {
            "id": id,
            "addr": address,
            "host": client.host,
            "method": client.method,
            "useragent": client.user_agent,
        },
        "actor": actor,
        "source": { "addr": client.host, "instanceID": origin.to_string() },
    }]})
}

fn describe(target: &Target) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("digest".to_owned(), json!(target.digest.to_string()));
    fields.insert("url".to_owned(), json!(target.path));
    if let Some(content) = &target.content {
        fields.insert("mediaType".to_owned(), json!(content.media_type));
        // Receivers read either.
        fields.insert("size".to_owned(), json!(content.length));
        fields.insert("length".to_owned(), json!(content.length));
    }
    fields
}

fn timestamp(at: SystemTime) -> String {
    humantime::format_rfc3339_nanos(at).to_string()
}

/// A random UUID (RFC 9562, version 4).
pub(super) fn new_id(random: u128) -> String {
    let version = random & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{version:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shoal_core::{Digest, RepositoryName, Tag};
    use shoal_registry::event::{Client, Content, Event};

    use super::*;

    fn notification(action: Action) -> Notification {
        let content = Some(Content { media_type: "application/x".to_owned(), length: 7 });
        let digest = Digest::sha256(b"manifest");
        let target = Target { digest, content, path: "/v2/app/manifests/x".to_owned(), is_manifest: true };
        let client = Client {
            method: "PUT".to_owned(),
            host: "registry.example".to_owned(),
            address: Some(([192, 0, 2, 1], 5000).into()),
            user_agent: "docker/27".to_owned(),
            name: Some("ci".to_owned()),
        };
        let event = Event {
            action,
            repository: RepositoryName::parse("app").unwrap(),
            tag: Some(Tag::parse("v1").unwrap()),
            target: Some(target),
            client,
        };
        Notification { id: "one".to_owned(), at: SystemTime::UNIX_EPOCH + Duration::from_millis(1500), event }
    }

    fn origin() -> PeerId {
        PeerId::parse("12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN").unwrap()
    }

    #[test]
    fn receivers_of_the_cncf_registry_find_what_they_read() {
        let event = &envelope(&notification(Action::Push), origin())["events"][0];
        let digest = Digest::sha256(b"manifest").to_string();
        let expected = json!({
            "id": "one", "timestamp": "1970-01-01T00:00:01.500000000Z", "action": "push",
            "target": { "mediaType": "application/x", "digest": digest, "size": 7, "length": 7,
                "repository": "app", "url": "/v2/app/manifests/x", "tag": "v1" },
            "request": { "id": "one", "addr": "192.0.2.1:5000", "host": "registry.example", "method": "PUT",
                "useragent": "docker/27" },
            "actor": { "name": "ci" },
            "source": { "addr": "registry.example", "instanceID": origin().to_string() },
        });
        assert_eq!(*event, expected);
    }

    #[test]
    fn a_mount_says_from_where() {
        let from = RepositoryName::parse("base").unwrap();
        let event = &envelope(&notification(Action::Mount { from }), origin())["events"][0];
        assert_eq!((&event["action"], &event["target"]["fromRepository"]), (&json!("mount"), &json!("base")));
    }

    #[test]
    fn an_id_is_a_uuid_of_version_4() {
        assert_eq!(new_id(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(new_id(0), "00000000-0000-4000-8000-000000000000");
    }
}

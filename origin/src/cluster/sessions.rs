//! Uploads of which a part comes to another origin than the one where they began.
//!
//! The id of a session ends with a mark of its origin. Others hand requests about it over by the internal API, as they come.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use data_encoding::BASE64;
use shoal_control::cluster::message::header::{CALLER, CALLER_ADDRESS, CALLER_HOST};
use shoal_control::cluster::message::path;
use shoal_control::{ClusterClient, ServerUrl};
use shoal_core::{Digest, causes};
use shoal_registry::elsewhere::{Elsewhere, Unreachable, Vouched};
use shoal_registry::event::ClientAddress;
use tower::ServiceExt as _;

use super::Cluster;
use super::members::Members;

/// The uploads of a cluster, wherever they began.
pub(crate) struct Sessions {
    client: ClusterClient,
    members: Members,
    own: usize,
    /// Of each origin, by its place.
    marks: Vec<u32>,
}

impl Sessions {
    pub(crate) fn of(cluster: &Cluster) -> Self {
        let (client, members) = (cluster.client.clone(), cluster.members.clone());
        let marks = client.urls().iter().map(mark_of).collect();
        Self { client, members, own: cluster.own, marks }
    }
}

#[async_trait]
impl Elsewhere for Sessions {
    fn mark(&self) -> u32 {
        self.marks[self.own]
    }

    fn knows(&self, mark: u32) -> bool {
        self.marks.contains(&mark)
    }

    async fn hand_over(&self, mark: u32, request: Request, caller: Vouched) -> Result<Response, Unreachable> {
        let place = self.marks.iter().position(|known| *known == mark);
        let place = place.ok_or_else(|| Unreachable("no origin of this cluster".to_owned()))?;
        let (mut parts, body) = request.into_parts();
        let address = parts.extensions.get().map(|ClientAddress(address)| *address);
        describe(&mut parts.headers, caller, address);
        let body = reqwest::Body::wrap_stream(body.into_data_stream());
        let answer = tokio::select! {
            answer = self.client.hand_over(place, Request::from_parts(parts, body)) => answer,
            () = self.members.went_away(place) => return Err(Unreachable("it is away".to_owned())),
        };
        let answer = answer.map_err(|error| {
            self.members.failed(place);
            Unreachable(causes(&error))
        })?;
        let (mut parts, body) = answer.into_parts();
        remove_of_connection(&mut parts.headers);
        Ok(Response::from_parts(parts, Body::new(body)))
    }
}

/// What belongs to the connection stays behind; what the other origin could not know goes along.
fn describe(headers: &mut HeaderMap, Vouched(caller): Vouched, address: Option<SocketAddr>) {
    remove_of_connection(headers);
    let host = headers.remove(header::HOST);
    let caller = caller.and_then(|name| HeaderValue::try_from(BASE64.encode(name.as_bytes())).ok());
    let address = address.and_then(|address| HeaderValue::try_from(address.to_string()).ok());
    for (name, value) in [(CALLER, caller), (CALLER_ADDRESS, address), (CALLER_HOST, host)] {
        // A client's own words are no origin's.
        headers.remove(name);
        if let Some(value) = value {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

fn remove_of_connection(headers: &mut HeaderMap) {
    for name in OF_CONNECTION {
        headers.remove(name);
    }
}

/// A request about an upload of this origin that came to another.
pub(super) async fn handed_over(State(cluster): State<Arc<Cluster>>, mut request: Request) -> Response {
    let Some(registry) = cluster.registry.get() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "this origin is not up yet").into_response();
    };
    let bad = |what: &'static str| (StatusCode::BAD_REQUEST, what).into_response();
    let uri = request.uri().path_and_query().and_then(|path| path.as_str().strip_prefix(path::REGISTRY));
    let Some(Ok(uri)) = uri.map(str::parse::<Uri>) else { return bad("no path of the registry") };
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    let caller = match headers.remove(CALLER).map(|caller| BASE64.decode(caller.as_bytes())) {
        None => None,
        Some(Ok(name)) => match String::from_utf8(name) {
            Ok(name) => Some(name),
            Err(_) => return bad("the caller has no name"),
        },
        Some(Err(_)) => return bad("the caller has no name"),
    };
    let address = headers.remove(CALLER_ADDRESS).and_then(|address| address.to_str().ok()?.parse().ok());
    if let Some(host) = headers.remove(CALLER_HOST) {
        headers.insert(header::HOST, host);
    }
    request.extensions_mut().insert(Vouched(caller));
    if let Some(address) = address {
        request.extensions_mut().insert(ClientAddress(address));
    }
    registry.clone().oneshot(request).await.into_response()
}

/// The same at all origins, and another for each.
fn mark_of(url: &ServerUrl) -> u32 {
    let digest = Digest::sha256(url.as_str().as_bytes());
    u32::from_be_bytes(*digest.as_bytes().first_chunk().expect("a digest is longer than four bytes"))
}

/// Headers that are about one connection (RFC 9110, 7.6.1), and an expectation that the first origin has met.
const OF_CONNECTION: [HeaderName; 8] = [
    header::CONNECTION,
    header::EXPECT,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

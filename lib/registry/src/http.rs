//! The HTTP API: the OCI distribution-spec v1.1 over the storage layer.
//!
//! One fallback handler reads the path by hand, since repository names have slashes; a table says which resource
//! answers which method. Whatever goes wrong is an [`ApiError`], and so JSON. Handlers hold no state of their own.

mod access;
mod base;
mod blobs;
mod catalog;
mod conditions;
mod elsewhere;
mod error;
mod manifests;
mod names;
mod pages;
mod pull_body;
mod range;
mod referrers;
mod request_body;
mod route;
mod tags;
mod telling;
mod uploads;

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http::header::{ALLOW, CONTENT_ENCODING, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::{Method, StatusCode};
use shoal_driver::StorageDriver;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::auth::{Caller, Guard};
use crate::elsewhere::Elsewhere;
use crate::event::Watcher;
use crate::storage::{Repository, Storage};
use crate::{Config, Observer};
use error::{ApiError, Code};
use names::{Namespaces, Target};
use request_body::RequestBody;
use route::{Resource, Route};

/// What all requests share.
pub(crate) struct Api {
    config: Config,
    namespaces: Namespaces,
    storage: Storage,
    observer: Arc<dyn Observer>,
    watcher: Option<Arc<dyn Watcher>>,
    others: Option<Arc<dyn Elsewhere>>,
    /// Writes: they end properly even where their client goes away.
    writes: TaskTracker,
}

/// One request, as far as it is read.
struct Exchange {
    api: Arc<Api>,
    parts: Parts,
    query: Vec<(String, String)>,
    caller: Caller,
    /// When it came in.
    arrived: Instant,
}

/// The HTTP API as a router.
pub(crate) fn router(api: Arc<Api>, guard: Arc<Guard>) -> axum::Router {
    axum::Router::new().fallback(serve).with_state((api, guard, None))
}

/// The same for clients that can name no upstream: whoever says none means that one.
pub(crate) fn router_of(api: Arc<Api>, guard: Arc<Guard>, namespace: String) -> axum::Router {
    axum::Router::new().fallback(serve).with_state((api, guard, Some(namespace.into())))
}

/// The namespace is what is meant where none is said.
type Served = (Arc<Api>, Arc<Guard>, Option<Arc<str>>);

async fn serve(State((api, guard, namespace)): State<Served>, request: Request) -> Response {
    let span = tracing::info_span!("request", method = %request.method(), path = request.uri().path());
    let answer = answer((api, guard, namespace), request).instrument(span).await;
    let mut response = answer.unwrap_or_else(IntoResponse::into_response);
    let headers = response.headers_mut();
    headers.insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn answer((api, guard, namespace): Served, request: Request) -> Result<Response, ApiError> {
    let (mut parts, body) = request.into_parts();
    let route = Route::parse(parts.uri.path())?;
    let Query(mut query) = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri).map_err(|_| {
        ApiError::new(StatusCode::BAD_REQUEST, Code::Unsupported, "the query is not readable")
    })?;
    if let Some(namespace) = namespace.filter(|_| !query.iter().any(|(name, _)| name == "ns")) {
        query.push(("ns".to_owned(), namespace.to_string()));
    }
    // Where no passes are given, this is an address like any other that is none.
    if route.resource == Some(Resource::Pass) && !guard.gives_passes() {
        return Err(route::no_such_route());
    }
    let caller = access::admit(&api, &guard, &mut parts, &query, &route).await?;
    let body = RequestBody::new(body);
    let exchange = Exchange { api, parts, query, caller, arrived: Instant::now() };
    if route.resource == Some(Resource::Pass) {
        exchange.check_method(&route)?;
        return access::give_pass(&exchange.caller).await;
    }
    exchange.check_access(&route)?;
    exchange.check_method(&route)?;
    exchange.check_encoding()?;
    exchange.dispatch(route, body).await
}

impl Api {
    pub(crate) fn new(config: Config, driver: Arc<dyn StorageDriver>, observer: Arc<dyn Observer>) -> Self {
        let storage = Storage::new(driver, &config);
        let namespaces = Namespaces::new(&config.namespaces);
        Self {
            config,
            namespaces,
            storage,
            observer,
            watcher: None,
            others: None,
            writes: TaskTracker::new(),
        }
    }

    pub(crate) fn watch(&mut self, watcher: Arc<dyn Watcher>) {
        self.watcher = Some(watcher);
    }

    pub(crate) fn share(&mut self, others: Arc<dyn Elsewhere>) {
        self.storage.mark_uploads(others.mark());
        self.others = Some(others);
    }

    pub(crate) fn storage(&self) -> &Storage {
        &self.storage
    }

    pub(crate) async fn drain(&self) {
        self.writes.close();
        self.writes.wait().await;
    }

    /// Runs a write to its end, also when the client goes away and nobody waits for the answer any more: a writer
    /// that is dropped halfway would leave a session that nobody can take up.
    async fn finish<F>(&self, write: F) -> Result<Response, ApiError>
    where
        F: Future<Output = Result<Response, ApiError>> + Send + 'static,
    {
        self.writes.spawn(write.in_current_span()).await.unwrap_or_else(|error| {
            tracing::error!(%error, "a write ended without an answer");
            Err(ApiError::internal())
        })
    }
}

impl Exchange {
    async fn dispatch(self, route: Route, body: RequestBody) -> Result<Response, ApiError> {
        let Some(resource) = route.resource else {
            return Ok(base::answer());
        };
        if resource == Resource::Catalog {
            return catalog::list(self).await;
        }
        let target = self.api.namespaces.resolve(self.query("ns"), &route.name)?;
        self.check_mirror(&target)?;
        let namespace = target.namespace.clone();
        let mut response = self.dispatch_to(resource, target, body).await?;
        if let Some(namespace) = namespace {
            response.headers_mut().insert(NAMESPACE, ascii(&namespace));
        }
        Ok(response)
    }

    async fn dispatch_to(
        self,
        resource: Resource,
        target: Target,
        body: RequestBody,
    ) -> Result<Response, ApiError> {
        if let Resource::Upload(id) = &resource
            && let Some((others, mark)) = self.elsewhere(id)
        {
            return elsewhere::hand_over(self, &*others, mark, body).await;
        }
        match (resource, self.parts.method.as_str()) {
            (Resource::Manifest(reference), "PUT") => manifests::put(self, target, &reference, body).await,
            (Resource::Manifest(reference), "DELETE") => manifests::delete(self, target, &reference).await,
            (Resource::Manifest(reference), _) => manifests::pull(self, target, &reference).await,
            (Resource::Blob(digest), "DELETE") => blobs::delete(self, target, &digest).await,
            (Resource::Blob(digest), _) => blobs::pull(self, target, &digest).await,
            (Resource::Uploads, _) => uploads::start(self, target, body).await,
            (Resource::Upload(id), "PATCH") => uploads::append(self, target, &id, body).await,
            (Resource::Upload(id), "PUT") => uploads::finish(self, target, &id, body).await,
            (Resource::Upload(id), "DELETE") => uploads::cancel(self, target, &id).await,
            (Resource::Upload(id), _) => uploads::status(self, target, &id).await,
            (Resource::Referrers(subject), _) => referrers::list(self, target, &subject).await,
            (Resource::Tags | Resource::Catalog | Resource::Pass, _) => tags::list(self, target).await,
        }
    }

    fn check_method(&self, route: &Route) -> Result<(), ApiError> {
        let (method, allowed) = (&self.parts.method, route.methods());
        let reads = matches!(*method, Method::GET | Method::HEAD);
        if !allowed.contains(&method.as_str()) {
            let message = format!("{method} is not supported here");
            let allowed = HeaderValue::from_str(&allowed.join(", ")).expect("method names are ASCII");
            return Err(ApiError::unsupported(message).with_header(ALLOW, allowed));
        }
        if self.api.storage.is_read_only() && !reads {
            return Err(ApiError::unsupported(
                "this registry is read only for now: it serves pulls and takes no writes",
            ));
        }
        if !self.api.config.delete && *method == Method::DELETE && route.is_content() {
            return Err(ApiError::unsupported("deletes are switched off in this registry"));
        }
        Ok(())
    }

    /// Pushes to what is an upstream's would be overwritten by what it has, or hide it. Deletes are fine: it is pulled again.
    fn check_mirror(&self, target: &Target) -> Result<(), ApiError> {
        if matches!(self.parts.method, Method::GET | Method::HEAD | Method::DELETE) {
            return Ok(());
        }
        let name = target.repository.as_str();
        let is_below = |prefix: &str| {
            name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        match self.api.config.mirrors.iter().find(|(prefix, _)| is_below(prefix)) {
            None => Ok(()),
            Some((prefix, upstream)) => Err(ApiError::unsupported(format!(
                "repositories below {prefix}/ are those of {upstream} and are pulled from there alone: push to {upstream} itself, or under another name here"
            ))),
        }
    }

    /// Bodies are kept as they come: one that would have to be decoded first has another digest.
    fn check_encoding(&self) -> Result<(), ApiError> {
        let encoding = self.parts.headers.get(CONTENT_ENCODING);
        if encoding.is_none_or(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Ok(());
        }
        let message = "Content-Encoding is not supported: send the bytes that have the digest";
        Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::Unsupported, message))
    }

    /// The first value of a query parameter.
    fn query(&self, key: &str) -> Option<&str> {
        self.query.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// All values of a query parameter.
    fn all(&self, key: &str) -> impl Iterator<Item = &str> {
        self.query.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    fn header(&self, name: HeaderName) -> Option<&str> {
        self.parts.headers.get(name).and_then(|value| value.to_str().ok())
    }

    fn is_head(&self) -> bool {
        self.parts.method == Method::HEAD
    }

    fn repository(&self, target: &Target) -> Repository {
        self.api.storage.repository(target.repository.clone())
    }
}

/// A response without a body, with these headers.
fn empty<const N: usize>(status: StatusCode, headers: [(HeaderName, String); N]) -> Response {
    with_body(status, headers, Body::empty())
}

/// "You have it already". Without a length: that of no body would be taken for the content's (RFC 9110, 8.6).
fn not_modified<const N: usize>(headers: [(HeaderName, String); N]) -> Response {
    with_body(
        StatusCode::NOT_MODIFIED,
        headers,
        Body::from_stream(stream::empty::<Result<Bytes, Infallible>>()),
    )
}

fn with_body<const N: usize>(status: StatusCode, headers: [(HeaderName, String); N], body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    for (name, value) in headers {
        response.headers_mut().insert(name, ascii(&value));
    }
    response
}

/// A header's value, of what was validated.
fn ascii(value: &impl ToString) -> HeaderValue {
    HeaderValue::from_str(&value.to_string()).expect("made of validated names, digests and numbers")
}

const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");
const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const TAG: HeaderName = HeaderName::from_static("oci-tag");
const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");

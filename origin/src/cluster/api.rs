//! What this origin answers the others: from its own store and files, asking nobody.

use std::io::Error as IoError;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Extension, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use data_encoding::BASE64;
use futures_util::{StreamExt as _, stream};
use shoal_control::ErrorReply;
use shoal_control::cluster::message::{
    BlobName, BlobQuery, Copy, CopyState, LinkAnswer, LinkDeletion, LinkName, LinkRecord, LinkState,
    MAX_COPY_LENGTH, MAX_LACKING, MAX_TAG_WRITES, MetadataRecord, Probe, Probed, RefillQuery, TagAcceptance,
    TagBallot, TagEntry, TagName, TagPromise, TagRecord, TagVote, path,
};
use shoal_control::message::{HashesQuery, HashesReply, MetainfoQuery};
use shoal_core::{Digest, PeerAddress, RepositoryName, Role, SignedMetainfo};
use shoal_driver::{ByteRange, TransferError};
use shoal_http::{ClientCertificate, RemoteAddress};
use tokio::sync::mpsc;

use super::Cluster;
use super::copies::CopyError;
use super::sessions::handed_over;
use crate::records::link_of;
use crate::transferer::reader;

type Asked = State<Arc<Cluster>>;
type Answer<T> = Result<Json<T>, Refusal>;

/// Why there is no answer.
struct Refusal(StatusCode, String);

impl Cluster {
    /// For the other origins alone.
    pub(crate) fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route(path::PROBE, post(probe))
            .route(path::COPY, post(copy))
            .route(path::LACKING, post(lacking))
            .route(path::BLOB, get(blob))
            .route(path::METAINFO, get(metainfo))
            .route(path::REFILL, get(refill))
            .route(path::REFILL_LENGTH, post(refill_length))
            .route(path::REFILL_HASHES, post(refill_hashes))
            .route(path::LINK, post(link))
            .route(path::PUT_LINK, post(put_link))
            .route(path::DELETE_LINK, post(delete_link))
            .route(path::FORGET_LINK, post(forget_link))
            .route(path::TAG, post(tag))
            .route(path::PROMISE_TAG, post(promise_tag))
            .route(path::ACCEPT_TAG, post(accept_tag))
            .route(path::FORGET_TAG, post(forget_tag))
            .route(path::TAGS, post(tags))
            .route(path::METADATA, get(metadata))
            .route(&format!("{}/{{*rest}}", path::REGISTRY), any(handed_over))
            .layer(DefaultBodyLimit::max(MAX_COPY_LENGTH))
            .layer(middleware::from_fn_with_state(self.clone(), admit))
            .with_state(self)
    }
}

/// Whoever may write here can sign what it likes anyhow: an origin, and nobody else.
async fn admit(
    State(cluster): Asked,
    Extension(ClientCertificate(certificate)): Extension<ClientCertificate>,
    request: Request,
    next: Next,
) -> Response {
    match cluster.identity.peer(&certificate) {
        Ok(peer) if peer.role == Role::Origin => next.run(request).await,
        Ok(peer) => {
            Refusal(StatusCode::FORBIDDEN, format!("role {} is no origin", peer.role)).into_response()
        }
        Err(error) => Refusal(StatusCode::FORBIDDEN, error.to_string()).into_response(),
    }
}

async fn probe(State(cluster): Asked, Json(Probe {}): Json<Probe>) -> Json<Probed> {
    Json(Probed { members: cluster.fingerprint })
}

async fn copy(
    State(cluster): Asked,
    Extension(RemoteAddress(remote)): Extension<RemoteAddress>,
    Json(copy): Json<Copy>,
) -> Answer<CopyState> {
    let bad = |error: String| Refusal(StatusCode::BAD_REQUEST, error);
    let metainfo = BASE64.decode(copy.metainfo.as_bytes()).map_err(|error| bad(error.to_string()))?;
    let metainfo = SignedMetainfo::decode(metainfo.into()).map_err(|error| bad(error.to_string()))?;
    let mut source: PeerAddress = copy.source;
    for address in source.addresses.iter_mut().filter(|address| address.ip().is_unspecified()) {
        address.set_ip(remote.ip().to_canonical());
    }
    Ok(Json(cluster.copies.copy(metainfo, source, copy.reason).await?))
}

async fn lacking(State(cluster): Asked, Json(digests): Json<Vec<Digest>>) -> Answer<Vec<Digest>> {
    if digests.len() > MAX_LACKING {
        return Err(Refusal(StatusCode::BAD_REQUEST, format!("more than {MAX_LACKING} digests")));
    }
    let lacking = digests.into_iter().filter(|digest| cluster.store.blob(digest).is_none());
    Ok(Json(lacking.collect()))
}

async fn metainfo(State(cluster): Asked, Query(query): Query<MetainfoQuery>) -> Response {
    match cluster.signed(&query.digest) {
        Some(signed) => {
            ([(header::CONTENT_TYPE, "application/octet-stream")], signed.encode()).into_response()
        }
        None => not_here(&query.digest).into_response(),
    }
}

async fn blob(State(cluster): Asked, Query(query): Query<BlobQuery>) -> Result<Body, Refusal> {
    let blob = cluster.store.blob(&query.digest).ok_or_else(|| not_here(&query.digest))?;
    let length = blob.metainfo().length();
    let end = query.end.unwrap_or(length).min(length);
    Ok(Body::from_stream(blob.reader(query.start.min(end)..end).into_stream()))
}

/// Whoever asks has found nobody who holds it, and has come to this origin as the one that is to fetch it.
async fn refill(State(cluster): Asked, Query(query): Query<RefillQuery>) -> Result<Body, Refusal> {
    let entry = cluster.refill.open(query.repository.as_ref(), &query.digest).await;
    let entry = entry.map_err(TransferError::from)?;
    let range = ByteRange { start: query.start, end: query.end };
    Ok(Body::from_stream(reader(&entry, range).into_stream()))
}

async fn refill_length(State(cluster): Asked, Json(name): Json<BlobName>) -> Answer<u64> {
    let length = cluster.refill.stat(name.repository.as_ref(), &name.digest).await;
    Ok(Json(length.map_err(TransferError::from)?))
}

async fn refill_hashes(State(cluster): Asked, Json(query): Json<HashesQuery>) -> Answer<HashesReply> {
    Ok(Json(cluster.refill.hashes(&query).await.map_err(TransferError::from)?))
}

async fn link(State(cluster): Asked, Json(name): Json<LinkName>) -> Answer<Option<LinkState>> {
    Ok(Json(cluster.records.link_state(&link_of(&name)).await?))
}

async fn put_link(State(cluster): Asked, Json(record): Json<LinkRecord>) -> Answer<LinkAnswer> {
    Ok(Json(cluster.put_own_link(&record).await?))
}

async fn delete_link(State(cluster): Asked, Json(deletion): Json<LinkDeletion>) -> Answer<LinkAnswer> {
    Ok(Json(cluster.delete_own_link(&deletion).await?))
}

async fn forget_link(State(cluster): Asked, Json(deletion): Json<LinkDeletion>) -> Answer<bool> {
    Ok(Json(cluster.forget_link(&deletion).await?))
}

async fn tag(State(cluster): Asked, Json(name): Json<TagName>) -> Answer<Option<TagVote>> {
    Ok(Json(cluster.records.vote(&name).await?))
}

async fn promise_tag(State(cluster): Asked, Json(ballot): Json<TagBallot>) -> Answer<TagPromise> {
    Ok(Json(cluster.records.promise(&ballot).await?))
}

async fn accept_tag(State(cluster): Asked, Json(record): Json<TagRecord>) -> Answer<TagAcceptance> {
    if record.vote.value.before.len() > MAX_TAG_WRITES {
        let error = format!("more than {MAX_TAG_WRITES} writes before a tag's last one");
        return Err(Refusal(StatusCode::BAD_REQUEST, error));
    }
    Ok(Json(cluster.records.accept(&record).await?))
}

async fn forget_tag(State(cluster): Asked, Json(ballot): Json<TagBallot>) -> Answer<bool> {
    Ok(Json(cluster.records.forget_tag(&ballot).await?))
}

async fn tags(State(cluster): Asked, Json(repository): Json<RepositoryName>) -> Answer<Vec<TagEntry>> {
    Ok(Json(cluster.records.tag_entries(&repository).await?))
}

/// One record a line, as fast as it is taken.
async fn metadata(State(cluster): Asked) -> Body {
    let (sender, receiver) = mpsc::channel(RECORDS_AHEAD);
    let (records, stop) = (cluster.records.clone(), cluster.stop.clone());
    cluster.tasks.spawn(async move {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            sent = records.send_all(sender) => if let Err(error) = sent {
                // The list ends without its end, so whoever takes it knows.
                tracing::error!(%error, "cannot read all metadata");
            }
        }
    });
    let lines = stream::unfold(receiver, |mut receiver| async move {
        let record: MetadataRecord = receiver.recv().await?;
        let line = serde_json::to_vec(&record).map_err(IoError::from);
        Some((
            line.map(|mut line| {
                line.push(b'\n');
                line
            }),
            receiver,
        ))
    });
    Body::from_stream(lines.boxed())
}

fn not_here(digest: &Digest) -> Refusal {
    Refusal(StatusCode::NOT_FOUND, format!("{digest} is not here"))
}

impl From<TransferError> for Refusal {
    fn from(error: TransferError) -> Self {
        match error {
            TransferError::NotFound => Self(StatusCode::NOT_FOUND, "not here".to_owned()),
            TransferError::Unavailable(reason) => Self(StatusCode::SERVICE_UNAVAILABLE, reason),
            other => {
                tracing::error!(error = %other, "cannot answer another origin");
                Self(StatusCode::INTERNAL_SERVER_ERROR, other.to_string())
            }
        }
    }
}

impl From<CopyError> for Refusal {
    fn from(error: CopyError) -> Self {
        let status = match error {
            CopyError::Unproved(_) => StatusCode::FORBIDDEN,
            CopyError::Incomplete => StatusCode::BAD_REQUEST,
            CopyError::Busy | CopyError::Failed(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self(status, error.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(ErrorReply { error: self.1 })).into_response()
    }
}

/// How many records are read from the disk before they are taken.
const RECORDS_AHEAD: usize = 64;

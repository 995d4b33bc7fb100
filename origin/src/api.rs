//! The internal API: trackers and agents ask what blobs and tags there are. Only over mutual TLS, only the cluster.
//!
//! A blob is told of only through the repository's link, so an agent can serve a repository no more than the origin
//! would. Messages: `shoal_control`.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, Query, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, extract::Request};
use shoal_control::ErrorReply;
use shoal_control::message::{
    HashesQuery, HashesReply, Known, MetainfoQuery, TagQuery, TagReply, TagsQuery, TagsReply, path,
};
use shoal_control::overlay::{Holder, Library, MAX_LENT};
use shoal_core::{Digest, Metainfo, RepositoryName, Role, SignedMetainfo};
use shoal_driver::{Freshness, Link, LinkKind, ResolvedTag, TransferError, Transferer};
use shoal_http::ClientCertificate;
use shoal_identity::Identity;
use shoal_store::Store;

use crate::cluster::Cluster;
use crate::records::Records;
use crate::refill::Refill;
use crate::upstream::PullThrough;

/// What the handlers answer from.
pub(crate) struct Api {
    pub(crate) identity: Identity,
    pub(crate) store: Store,
    pub(crate) records: Arc<Records>,
    /// This origin, or the cluster that it is one of.
    pub(crate) transferer: Arc<dyn Transferer>,
    pub(crate) cluster: Option<Arc<Cluster>>,
    pub(crate) refill: Refill,
    pub(crate) through: Option<PullThrough>,
}

impl Api {
    pub(crate) fn router(self) -> Router {
        let cluster = self.cluster.clone().map(Cluster::router).unwrap_or_default();
        let through = self.through.as_ref().map(|through| through.router(&self.identity)).unwrap_or_default();
        let api = Arc::new(self);
        Router::new()
            .route("/v1/metainfo", get(metainfo))
            .route(path::HASHES, get(hashes))
            .route("/v1/tag", get(tag))
            .route("/v1/tags", get(tags))
            .layer(middleware::from_fn_with_state(api.clone(), admit))
            .with_state(api)
            .merge(cluster)
            .merge(through)
    }

    /// This origin's own, or that of another; of a blob that comes from behind the cluster the outline, and then it is fetched.
    async fn metainfo(&self, query: MetainfoQuery) -> Result<SignedMetainfo, TransferError> {
        let MetainfoQuery { digest, repository } = query;
        if let Some(signed) = signed(&self.identity, &self.store, &digest) {
            return Ok(signed);
        }
        let held = match &self.cluster {
            Some(cluster) => cluster.find_metainfo(&digest).await,
            None => Err(TransferError::NotFound),
        };
        let Err(error) = held else { return held };
        // More than there can be: nothing is waited for.
        let query = HashesQuery { digest, repository, known: u32::MAX };
        let reply = self.behind(&query, error).await?;
        match reply.read().map_err(|error| TransferError::Unavailable(error.to_string()))? {
            Known::Whole(signed) => Ok(signed),
            Known::Hashes(_) => {
                let metainfo = Metainfo::outline(digest, reply.geometry);
                let proof = self.identity.sign(&metainfo);
                Ok(SignedMetainfo { metainfo, proof })
            }
        }
    }

    /// What is known of a blob whose metainfo was an outline.
    async fn hashes(&self, query: &HashesQuery) -> Result<HashesReply, TransferError> {
        if let Some(signed) = signed(&self.identity, &self.store, &query.digest) {
            return Ok(HashesReply::whole(&signed));
        }
        match (self.behind(query, TransferError::NotFound).await, &self.cluster) {
            // Somebody has it whole by now, and is not the one that fetches.
            (Err(_), Some(cluster)) => Ok(HashesReply::whole(&cluster.find_metainfo(&query.digest).await?)),
            (reply, _) => reply,
        }
    }

    async fn behind(&self, query: &HashesQuery, error: TransferError) -> Result<HashesReply, TransferError> {
        match &self.cluster {
            Some(cluster) => cluster.hashes_behind(query, error).await,
            None => Ok(self.refill.hashes(query).await?),
        }
    }
}

/// The same answers for the overlay: what this origin has, where it is linked.
pub(crate) fn library(
    identity: Identity,
    store: Store,
    records: Arc<Records>,
    transferer: Arc<dyn Transferer>,
) -> Library {
    Arc::new(move |repository, digest| {
        let (identity, store) = (identity.clone(), store.clone());
        let (records, transferer) = (records.clone(), transferer.clone());
        Box::pin(async move {
            if let Some(repository) = &repository {
                is_linked((&records, &*transferer), repository, &digest).await.ok()?;
            }
            let metainfo = signed(&identity, &store, &digest)?;
            Some(Holder { metainfo, lent: MAX_LENT })
        })
    })
}

/// What of that digest is linked in the repository.
pub(crate) async fn is_linked(
    (records, transferer): (&Records, &dyn Transferer),
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<LinkKind, TransferError> {
    let link = |kind| Link { repository: repository.clone(), kind, digest: *digest };
    for link in [link(LinkKind::Layer), link(LinkKind::Revision)] {
        if records.link(&link).await.is_ok() {
            return Ok(link.kind);
        }
    }
    let mut missing = TransferError::NotFound;
    // A blob of an upstream is linked since its manifest came: what is not linked at all is more likely a manifest.
    for link in [link(LinkKind::Revision), link(LinkKind::Layer)] {
        match transferer.find_link(&link).await {
            Ok(_) => return Ok(link.kind),
            Err(TransferError::NotFound) => {}
            Err(error) => missing = error,
        }
    }
    Err(missing)
}

/// Signed afresh: the proof carries the certificate of today, not that of the day of the push.
pub(crate) fn signed(identity: &Identity, store: &Store, digest: &Digest) -> Option<SignedMetainfo> {
    let metainfo = store.blob(digest)?.metainfo().clone();
    let proof = identity.sign(&metainfo);
    Some(SignedMetainfo { metainfo, proof })
}

/// Lets in whoever has a certificate of this cluster with a role of its own; says in the log who is not.
async fn admit(
    State(api): State<Arc<Api>>,
    Extension(ClientCertificate(certificate)): Extension<ClientCertificate>,
    request: Request,
    next: Next,
) -> Response {
    match api.identity.peer(&certificate) {
        Ok(peer) if matches!(peer.role, Role::Agent | Role::Origin | Role::Tracker) => {
            next.run(request).await
        }
        Ok(peer) => refuse(StatusCode::FORBIDDEN, format!("role {} may not ask an origin", peer.role)),
        Err(error) => {
            tracing::warn!(%error, "refused a client of the origin's API");
            refuse(StatusCode::FORBIDDEN, error.to_string())
        }
    }
}

async fn metainfo(State(api): State<Arc<Api>>, Query(query): Query<MetainfoQuery>) -> Response {
    if let Some(repository) = &query.repository {
        match (is_linked((&api.records, &*api.transferer), repository, &query.digest).await, &api.through) {
            (Ok(LinkKind::Revision), Some(through)) => through.note_use(repository, &query.digest),
            (Ok(_), _) => {}
            (Err(error), _) => {
                return answer(&error, &format!("{} in repository {repository}", query.digest));
            }
        }
    }
    let what = query.digest.to_string();
    match api.metainfo(query).await {
        Ok(signed) => ([(header::CONTENT_TYPE, "application/octet-stream")], signed.encode()).into_response(),
        Err(error) => answer(&error, &what),
    }
}

async fn hashes(State(api): State<Arc<Api>>, Query(query): Query<HashesQuery>) -> Response {
    if let Some(repository) = &query.repository
        && let Err(error) = is_linked((&api.records, &*api.transferer), repository, &query.digest).await
    {
        return answer(&error, &format!("{} in repository {repository}", query.digest));
    }
    match api.hashes(&query).await {
        Ok(reply) => Json(reply).into_response(),
        Err(error) => answer(&error, &query.digest.to_string()),
    }
}

async fn tag(State(api): State<Arc<Api>>, Query(query): Query<TagQuery>) -> Response {
    match api.transferer.resolve_tag(&query.repository, &query.tag).await {
        Ok(ResolvedTag { digest, freshness }) => {
            Json(TagReply { digest, unconfirmed: freshness != Freshness::Current }).into_response()
        }
        Err(error) => answer(&error, &format!("tag {}:{}", query.repository, query.tag)),
    }
}

async fn tags(State(api): State<Arc<Api>>, Query(query): Query<TagsQuery>) -> Response {
    match api.transferer.list_tags(&query.repository).await {
        Ok(tags) => Json(TagsReply { tags }).into_response(),
        Err(error) => answer(&error, &format!("repository {}", query.repository)),
    }
}

fn answer(error: &TransferError, what: &str) -> Response {
    match error {
        TransferError::NotFound => refuse(StatusCode::NOT_FOUND, format!("{what} is not here")),
        TransferError::Unavailable(reason) => {
            refuse(StatusCode::SERVICE_UNAVAILABLE, format!("{what}: {reason}"))
        }
        other => {
            tracing::error!(error = %other, what, "cannot answer");
            refuse(StatusCode::INTERNAL_SERVER_ERROR, format!("{what}: {other}"))
        }
    }
}

fn refuse(status: StatusCode, error: String) -> Response {
    (status, Json(ErrorReply { error })).into_response()
}

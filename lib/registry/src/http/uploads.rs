//! Upload sessions: start, append, finish, cancel, status, and mounts (distribution-spec, "Pushing blobs").
//!
//! Bytes go to the session part by part as they come. Whatever stops a request, what came before is kept, and the
//! client goes on from the offset that the answer, or a GET of the session, tells.

use axum::response::Response;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderName, HeaderValue, LOCATION, RANGE};
use shoal_core::{Algorithm, Digest};
use shoal_driver::UploadId;

use super::error::{ApiError, Code};
use super::names::Target;
use super::request_body::RequestBody;
use super::{CONTENT_DIGEST, Exchange, UPLOAD_ID, empty};
use crate::event::Action;
use crate::storage::{BlobError, Descriptor, Upload, UploadError};

/// POST: a session; or the blob at once, by `?digest=` with the bytes as body, or by `?mount=&from=`.
pub(super) async fn start(
    exchange: Exchange,
    target: Target,
    body: RequestBody,
) -> Result<Response, ApiError> {
    if let Some(mounted) = mount(&exchange, &target).await? {
        return Ok(created(&target, &mounted));
    }
    let digest = exchange.query("digest").map(Digest::parse).transpose().map_err(ApiError::invalid_digest)?;
    let announced = announced_algorithm(&exchange)?;
    let uploads = exchange.repository(&target).uploads(exchange.owner());
    let api = exchange.api.clone();
    let write = async move {
        let algorithm = digest.map_or(announced, |digest| digest.algorithm());
        let upload = uploads.create(algorithm).await?;
        match digest {
            Some(digest) => receive_last(&exchange, &target, upload, body, &digest, OnFailure::Discard).await,
            None => {
                let place = Place { target: &target, id: upload.id(), algorithm };
                let offset = upload.suspend().await?;
                Ok(session(StatusCode::ACCEPTED, place, offset))
            }
        }
    };
    api.finish(write).await
}

/// PATCH: the next chunk, or a stream of unknown length.
pub(super) async fn append(
    exchange: Exchange,
    target: Target,
    id: &str,
    mut body: RequestBody,
) -> Result<Response, ApiError> {
    let id = parse_id(id)?;
    let coming = Coming::of(&exchange)?;
    let algorithm = announced_algorithm(&exchange)?;
    let uploads = exchange.repository(&target).uploads(exchange.owner());
    let write = async move {
        let place = Place { target: &target, id, algorithm };
        let mut upload = uploads.resume(id, algorithm).await?;
        let received = receive(&mut upload, &mut body, coming, place).await;
        let offset = upload.suspend().await?;
        received?;
        Ok(session(StatusCode::ACCEPTED, place, offset))
    };
    exchange.api.finish(write).await
}

/// PUT: the end, perhaps with the last bytes.
pub(super) async fn finish(
    exchange: Exchange,
    target: Target,
    id: &str,
    body: RequestBody,
) -> Result<Response, ApiError> {
    let id = parse_id(id)?;
    let digest =
        exchange.query("digest").ok_or_else(|| ApiError::invalid_digest("the query has no digest"))?;
    let digest = Digest::parse(digest).map_err(ApiError::invalid_digest)?;
    let uploads = exchange.repository(&target).uploads(exchange.owner());
    let api = exchange.api.clone();
    let write = async move {
        let upload = uploads.resume(id, digest.algorithm()).await?;
        receive_last(&exchange, &target, upload, body, &digest, OnFailure::Keep).await
    };
    api.finish(write).await
}

/// DELETE: ends a session without a blob.
pub(super) async fn cancel(exchange: Exchange, target: Target, id: &str) -> Result<Response, ApiError> {
    let id = parse_id(id)?;
    let uploads = exchange.repository(&target).uploads(exchange.owner());
    let write = async move {
        uploads.resume(id, Algorithm::Sha256).await?.cancel().await?;
        Ok(empty(StatusCode::NO_CONTENT, []))
    };
    exchange.api.finish(write).await
}

/// GET and HEAD: how far a session is.
pub(super) async fn status(exchange: Exchange, target: Target, id: &str) -> Result<Response, ApiError> {
    let id = parse_id(id)?;
    let algorithm = announced_algorithm(&exchange)?;
    let uploads = exchange.repository(&target).uploads(exchange.owner());
    let status = async move {
        let offset = uploads.offset(id).await?;
        Ok(session(StatusCode::NO_CONTENT, Place { target: &target, id, algorithm }, offset))
    };
    exchange.api.finish(status).await
}

/// Mounts what `?mount=&from=` names. `None` where the client has to upload it: it asked for no mount, or the source
/// does not have the blob or is not the client's to read, which look the same.
async fn mount(exchange: &Exchange, target: &Target) -> Result<Option<Descriptor>, ApiError> {
    let (Some(digest), Some(from)) = (exchange.query("mount"), exchange.query("from")) else {
        return Ok(None);
    };
    let digest = Digest::parse(digest).map_err(ApiError::invalid_digest)?;
    let source = exchange.api.namespaces.resolve(exchange.query("ns"), from)?;
    if !exchange.may_mount_from(&source) {
        return Ok(None);
    }
    let action = Action::Mount { from: source.repository.clone() };
    let source = exchange.repository(&source);
    match exchange.repository(target).blobs().mount(&source, &digest).await {
        Ok(blob) => {
            exchange.teller(target, &action).tell_of_blob(action, &blob).await;
            Ok(Some(blob))
        }
        Err(BlobError::Unknown(_)) => Ok(None),
        Err(BlobError::Driver(error)) => Err(UploadError::from(error).into()),
    }
}

/// What becomes of a session whose last bytes do not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnFailure {
    /// Its client goes on with it.
    Keep,
    /// No client was told of it: it would only take room.
    Discard,
}

/// Takes the rest of a blob and makes it one.
async fn receive_last(
    exchange: &Exchange,
    target: &Target,
    mut upload: Upload,
    mut body: RequestBody,
    digest: &Digest,
    on_failure: OnFailure,
) -> Result<Response, ApiError> {
    let coming = Coming::of(exchange)?;
    let place = Place { target, id: upload.id(), algorithm: announced_algorithm(exchange)? };
    if let Err(error) = receive(&mut upload, &mut body, coming, place).await {
        match on_failure {
            OnFailure::Keep => _ = upload.suspend().await?,
            OnFailure::Discard => upload.cancel().await?,
        }
        return Err(error);
    }
    let blob = upload.commit(digest).await?;
    exchange.api.observer.pushed(blob.size);
    exchange.teller(target, &Action::Push).tell_of_blob(Action::Push, &blob).await;
    Ok(created(target, &blob))
}

/// Writes a body to the session, if it belongs where the session stands.
async fn receive(
    upload: &mut Upload,
    body: &mut RequestBody,
    Coming { chunk, length }: Coming,
    place: Place<'_>,
) -> Result<(), ApiError> {
    let start = upload.offset();
    if chunk.is_some_and(|chunk| chunk.start != start) {
        return Err(wrong_offset(place, upload));
    }
    if let Some(length) = length {
        upload.expect(length).await?;
    }
    let expected = chunk.map(|chunk| chunk.length);
    while let Some(part) = body.next().await? {
        let received = upload.offset() - start + part.len() as u64;
        if expected.is_some_and(|expected| received > expected) {
            return Err(wrong_length());
        }
        upload.write(part).await?;
    }
    let complete = expected.is_none_or(|expected| upload.offset() - start == expected);
    if complete { Ok(()) } else { Err(wrong_length()) }
}

/// Where a client finds its session.
#[derive(Clone, Copy)]
struct Place<'a> {
    target: &'a Target,
    id: UploadId,
    /// What the client announced. The address carries it, so that each part is hashed as it comes.
    algorithm: Algorithm,
}

impl Place<'_> {
    fn url(self) -> String {
        let announced = [(DIGEST_ALGORITHM, self.algorithm.as_str())];
        let query = if self.algorithm == Algorithm::Sha256 { &[][..] } else { &announced[..] };
        self.target.url(&format!("blobs/uploads/{}", self.id), query)
    }
}

/// The algorithm of the digest to come (`?digest-algorithm=`); SHA-256 where the client says nothing. A wrong one costs a
/// second reading of the bytes.
fn announced_algorithm(exchange: &Exchange) -> Result<Algorithm, ApiError> {
    let announced = exchange.query(DIGEST_ALGORITHM).map(Algorithm::parse).transpose();
    Ok(announced.map_err(ApiError::invalid_digest)?.unwrap_or(Algorithm::Sha256))
}

/// What a request says about its body.
#[derive(Clone, Copy, Debug)]
struct Coming {
    chunk: Option<Chunk>,
    /// In bytes; `None` for a stream.
    length: Option<u64>,
}

impl Coming {
    fn of(exchange: &Exchange) -> Result<Self, ApiError> {
        let chunk = Chunk::of(exchange)?;
        let length = exchange.header(CONTENT_LENGTH).and_then(|length| length.parse().ok());
        Ok(Self { chunk, length: length.or(chunk.map(|chunk| chunk.length)) })
    }
}

/// Where a chunk belongs, by its `Content-Range: <start>-<end>`: inclusive, without a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Chunk {
    start: u64,
    length: u64,
}

impl Chunk {
    /// `None` for a stream, which goes on where the session stands.
    fn of(exchange: &Exchange) -> Result<Option<Self>, ApiError> {
        let Some(text) = exchange.header(CONTENT_RANGE) else { return Ok(None) };
        let invalid = || range_invalid("Content-Range must be <start>-<end>, as many bytes as the body has");
        let chunk = Self::parse(text).ok_or_else(invalid)?;
        match exchange.header(CONTENT_LENGTH) {
            Some(length) if length.parse() != Ok(chunk.length) => Err(invalid()),
            _ => Ok(Some(chunk)),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u64>().ok().filter(|_| digits)
        };
        let (start, end) = text.split_once('-')?;
        let (start, end) = (number(start)?, number(end)?);
        Some(Self { start, length: end.checked_sub(start)?.checked_add(1)? })
    }
}

fn parse_id(text: &str) -> Result<UploadId, ApiError> {
    UploadId::parse(text)
        .ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, Code::BlobUploadUnknown, "no upload has that id"))
}

fn created(target: &Target, blob: &Descriptor) -> Response {
    let headers = [
        (LOCATION, target.blob_url(blob.digest)),
        (CONTENT_DIGEST, blob.digest.to_string()),
        (CONTENT_LENGTH, "0".to_owned()),
    ];
    empty(StatusCode::CREATED, headers)
}

fn session(status: StatusCode, place: Place<'_>, offset: u64) -> Response {
    let mut response = empty(status, standing(place, offset));
    if status != StatusCode::NO_CONTENT {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(0));
    }
    response
}

/// Where a session is and how far. For no bytes the range is `0-0`, as the CNCF registry has it.
fn standing(place: Place<'_>, offset: u64) -> [(HeaderName, String); 3] {
    let range = format!("0-{}", offset.saturating_sub(1));
    [(LOCATION, place.url()), (UPLOAD_ID, place.id.to_string()), (RANGE, range)]
}

fn wrong_offset(place: Place<'_>, upload: &Upload) -> ApiError {
    let error = range_invalid(format!("the upload stands at {}", upload.offset()));
    standing(place, upload.offset()).into_iter().fold(error, |error, (name, value)| {
        error.with_header(name, HeaderValue::from_str(&value).expect("made of validated names and numbers"))
    })
}

fn wrong_length() -> ApiError {
    let message = "the body is not as long as its Content-Range says";
    ApiError::new(StatusCode::BAD_REQUEST, Code::SizeInvalid, message)
}

fn range_invalid(message: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, Code::RangeInvalid, message)
}

const DIGEST_ALGORITHM: &str = "digest-algorithm";

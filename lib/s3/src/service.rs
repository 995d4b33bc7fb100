//! The S3 protocol over a bucket: each operation that the registry's driver uses, in S3's words.
//!
//! What is not here is answered `NotImplemented` by `s3s`, which also reads requests and proves their signatures.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use s3s::auth::SimpleAuth;
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::dto::*;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3, S3ErrorCode, S3Request, S3Response, S3Result};
use shoal_driver::StorageDriver;

use crate::config::{Access, Config, ConfigError};
use crate::error::refusal;
use crate::keys::{Keys, Named};
use crate::listing::{Entry, Page};
use crate::objects::{Bucket, MAX_KEYS, Wanted, page_length};
use crate::parts::{MAX_PART_LENGTH, Memory};
use crate::repositories::Repositories;
use crate::uploads::{Part as WrittenPart, Uploads};

/// The largest XML body that is read: a deletion of 1,000 keys or a list of 10,000 parts stays below it.
const MAX_XML_LENGTH: usize = 4 * 1024 * 1024;

/// The S3 API over a driver, for a listener whose requests are taken as `access` says.
///
/// # Errors
/// If the root directory cannot be the beginning of a key.
pub fn router(
    driver: Arc<dyn StorageDriver>,
    config: &Config,
    access: Access,
) -> Result<Router, ConfigError> {
    let bucket = Bucket {
        name: config.bucket.clone(),
        keys: config.keys()?,
        driver,
        uploads: Uploads::new(),
        repositories: Repositories::new(),
        memory: Memory::new(),
    };
    let mut limits = S3Config::default();
    limits.xml_max_body_size = MAX_XML_LENGTH;
    let mut builder = S3ServiceBuilder::new(Face(bucket));
    builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(limits))));
    if let Access::Signed { access_key, secret_key } = access {
        builder.set_auth(SimpleAuth::from_single(access_key, secret_key.0));
    }
    let service = builder.build();
    Ok(Router::new().fallback(move |request| answer(service.clone(), request)))
}

async fn answer(service: S3Service, request: Request) -> Response {
    match service.call(request.map(s3s::Body::http_body_unsync)).await {
        Ok(response) => response.map(Body::new),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// A bucket, as `s3s` asks it.
struct Face(Bucket);

#[async_trait::async_trait]
impl S3 for Face {
    async fn head_bucket(
        &self,
        request: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        self.0.check(&request.input.bucket)?;
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let named = self.0.existing(&request.input.bucket, &request.input.key)?;
        let info = self.0.stat(&named).await?;
        Ok(S3Response::new(HeadObjectOutput {
            content_length: Some(signed(info.size)),
            last_modified: Some(info.modified.into()),
            ..HeadObjectOutput::default()
        }))
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let named = self.0.existing(&request.input.bucket, &request.input.key)?;
        let is_partial = request.input.range.is_some();
        let opened = self.0.open(&named, request.input.range).await?;
        let range = &opened.range;
        let content_range = is_partial
            .then(|| format!("bytes {}-{}/{}", range.start, range.end.saturating_sub(1), opened.length));
        Ok(S3Response::new(GetObjectOutput {
            content_length: Some(signed(range.end - range.start)),
            content_range,
            accept_ranges: Some("bytes".into()),
            last_modified: Some(opened.modified.into()),
            body: Some(opened.body),
            ..GetObjectOutput::default()
        }))
    }

    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let input = request.input;
        let named = self.0.writable(&input.bucket, &input.key)?;
        if input.if_match.is_some() || input.if_none_match.is_some() || input.write_offset_bytes.is_some() {
            return Err(refusal(S3ErrorCode::NotImplemented, "objects are written without conditions"));
        }
        self.0.put(&named, input.body, input.content_length).await?;
        Ok(S3Response::new(PutObjectOutput::default()))
    }

    async fn copy_object(
        &self,
        request: S3Request<CopyObjectInput>,
    ) -> S3Result<S3Response<CopyObjectOutput>> {
        let from = self.source(&request.input.copy_source)?;
        let to = self.0.writable(&request.input.bucket, &request.input.key)?;
        self.0.move_upload(&from, &to).await?;
        let result = CopyObjectResult { last_modified: Some(now()), ..CopyObjectResult::default() };
        Ok(S3Response::new(CopyObjectOutput {
            copy_object_result: Some(result),
            ..CopyObjectOutput::default()
        }))
    }

    async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.0.check(&request.input.bucket)?;
        // What cannot be there is deleted.
        if let Some(named) = self.0.keys.parse(&request.input.key) {
            self.0.delete(&[named]).await?;
        }
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        self.0.check(&request.input.bucket)?;
        let delete = request.input.delete;
        if delete.objects.len() > MAX_KEYS {
            return Err(refusal(
                S3ErrorCode::MalformedXML,
                format!("at most {MAX_KEYS} keys are deleted at once"),
            ));
        }
        let all: Vec<_> = delete.objects.iter().filter_map(|object| self.0.keys.parse(&object.key)).collect();
        self.0.delete(&all).await?;
        let deleted =
            |object: ObjectIdentifier| DeletedObject { key: Some(object.key), ..DeletedObject::default() };
        let deleted = (delete.quiet != Some(true)).then(|| delete.objects.into_iter().map(deleted).collect());
        Ok(S3Response::new(DeleteObjectsOutput { deleted, ..DeleteObjectsOutput::default() }))
    }

    async fn list_objects(
        &self,
        request: S3Request<ListObjectsInput>,
    ) -> S3Result<S3Response<ListObjectsOutput>> {
        let input = request.input;
        let page =
            self.list(&input.bucket, &input.prefix, &input.delimiter, &input.marker, input.max_keys).await?;
        let page = Listed::of(&self.0.keys, page);
        Ok(S3Response::new(ListObjectsOutput {
            name: Some(input.bucket),
            prefix: input.prefix.or(Some(String::new())),
            delimiter: input.delimiter,
            marker: input.marker,
            max_keys: input.max_keys,
            is_truncated: Some(page.next.is_some()),
            next_marker: page.next,
            contents: Some(page.contents),
            common_prefixes: Some(page.common_prefixes),
            ..ListObjectsOutput::default()
        }))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        let after = input.continuation_token.clone().or_else(|| input.start_after.clone());
        let page = self.list(&input.bucket, &input.prefix, &input.delimiter, &after, input.max_keys).await?;
        let page = Listed::of(&self.0.keys, page);
        let count = page.contents.len() + page.common_prefixes.len();
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: input.prefix.or(Some(String::new())),
            delimiter: input.delimiter,
            start_after: input.start_after,
            continuation_token: input.continuation_token,
            max_keys: input.max_keys,
            key_count: i32::try_from(count).ok(),
            is_truncated: Some(page.next.is_some()),
            next_continuation_token: page.next,
            contents: Some(page.contents),
            common_prefixes: Some(page.common_prefixes),
            ..ListObjectsV2Output::default()
        }))
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let named = self.0.writable(&request.input.bucket, &request.input.key)?;
        let upload = self.0.begin_upload(named).await?;
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(request.input.bucket),
            key: Some(request.input.key),
            upload_id: Some(upload.id.to_string()),
            ..CreateMultipartUploadOutput::default()
        }))
    }

    async fn upload_part(
        &self,
        request: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let input = request.input;
        let named = self.0.writable(&input.bucket, &input.key)?;
        let upload = self.0.uploads.find(&input.upload_id, &named)?;
        self.0.expect(input.content_length).await?;
        let held = self.0.memory.hold(input.body, input.content_length, MAX_PART_LENGTH).await?;
        let part = self.0.append(&upload, input.part_number, &held).await?;
        Ok(S3Response::new(UploadPartOutput {
            e_tag: Some(ETag::Strong(part.tag)),
            ..UploadPartOutput::default()
        }))
    }

    async fn upload_part_copy(
        &self,
        request: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        let input = request.input;
        let named = self.0.writable(&input.bucket, &input.key)?;
        let upload = self.0.uploads.find(&input.upload_id, &named)?;
        let from = self.source(&input.copy_source)?;
        let range = input.copy_source_range.as_deref().map(Range::parse).transpose();
        let range = range.map_err(|error| refusal(S3ErrorCode::InvalidArgument, error.to_string()))?;
        let part = self.0.append_copy(&upload, input.part_number, &from, range).await?;
        let result = CopyPartResult {
            e_tag: Some(ETag::Strong(part.tag)),
            last_modified: Some(now()),
            ..CopyPartResult::default()
        };
        Ok(S3Response::new(UploadPartCopyOutput {
            copy_part_result: Some(result),
            ..UploadPartCopyOutput::default()
        }))
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = request.input;
        let named = self.0.writable(&input.bucket, &input.key)?;
        let upload = self.0.uploads.find(&input.upload_id, &named)?;
        let parts = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
        let tag =
            |part: &CompletedPart| part.e_tag.as_ref().map_or_else(String::new, |tag| tag.value().to_owned());
        let parts: Vec<_> = parts.iter().map(|part| (part.part_number.unwrap_or(0), tag(part))).collect();
        self.0.complete(&upload, &parts).await?;
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(ETag::Strong(input.upload_id)),
            ..CompleteMultipartUploadOutput::default()
        }))
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let named = self.0.writable(&request.input.bucket, &request.input.key)?;
        let upload = self.0.uploads.find(&request.input.upload_id, &named)?;
        self.0.abort(&upload).await?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }

    async fn list_multipart_uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let input = request.input;
        self.0.check(&input.bucket)?;
        let prefix = input.prefix.clone().unwrap_or_default();
        let limit = page_length(input.max_uploads)?;
        let mut found = self.0.uploads.all(|named| self.0.keys.key(&named.path).starts_with(&prefix));
        // The registry's driver asks for the one upload of one key. A page behind the first is not kept for anybody.
        let is_truncated = found.len() > limit;
        found.truncate(limit);
        let uploads = found.iter().map(|upload| MultipartUpload {
            key: Some(self.0.keys.key(&upload.named.path)),
            upload_id: Some(upload.id.to_string()),
            ..MultipartUpload::default()
        });
        Ok(S3Response::new(ListMultipartUploadsOutput {
            bucket: Some(input.bucket),
            prefix: input.prefix,
            max_uploads: input.max_uploads,
            is_truncated: Some(is_truncated),
            uploads: Some(uploads.collect()),
            ..ListMultipartUploadsOutput::default()
        }))
    }

    async fn list_parts(&self, request: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        let input = request.input;
        let named = self.0.writable(&input.bucket, &input.key)?;
        let upload = self.0.uploads.find(&input.upload_id, &named)?;
        let limit = page_length(input.max_parts)?;
        let after = input.part_number_marker.unwrap_or(0);
        let mut parts = upload.session.lock().await.parts();
        parts.retain(|part| part.number > after);
        let is_truncated = parts.len() > limit;
        parts.truncate(limit);
        Ok(S3Response::new(ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            max_parts: input.max_parts,
            part_number_marker: input.part_number_marker,
            is_truncated: Some(is_truncated),
            next_part_number_marker: parts.last().map(|part| part.number),
            parts: Some(parts.into_iter().map(shown).collect()),
            ..ListPartsOutput::default()
        }))
    }
}

impl Face {
    /// The object that a copy reads.
    fn source(&self, source: &CopySource) -> S3Result<Named> {
        match source {
            CopySource::Bucket { bucket, key, version_id: None } => self.0.existing(bucket, key),
            _ => Err(refusal(S3ErrorCode::NotImplemented, "copies are made within the bucket")),
        }
    }

    async fn list(
        &self,
        bucket: &str,
        prefix: &Option<String>,
        delimiter: &Option<String>,
        after: &Option<String>,
        max_keys: Option<i32>,
    ) -> S3Result<Page> {
        self.0.check(bucket)?;
        let (prefix, delimiter) = (prefix.as_deref().unwrap_or(""), delimiter.as_deref());
        self.0.list(&Wanted { prefix, delimiter, after: after.as_deref(), max_keys }).await
    }
}

/// A page in S3's words.
struct Listed {
    contents: Vec<Object>,
    common_prefixes: Vec<CommonPrefix>,
    /// Where the next page goes on, if there is one.
    next: Option<String>,
}

impl Listed {
    fn of(keys: &Keys, page: Page) -> Self {
        let mut listed = Self { contents: Vec::new(), common_prefixes: Vec::new(), next: None };
        for entry in page.entries {
            let last = match entry {
                Entry::Object(named, info) => {
                    let key = keys.key(&named.path);
                    listed.contents.push(Object {
                        key: Some(key.clone()),
                        size: Some(signed(info.size)),
                        last_modified: Some(info.modified.into()),
                        ..Object::default()
                    });
                    key
                }
                Entry::Folder(path) => {
                    let prefix = format!("{}/", keys.key(&path));
                    listed.common_prefixes.push(CommonPrefix { prefix: Some(prefix.clone()) });
                    prefix
                }
            };
            listed.next = Some(last);
        }
        listed.next = listed.next.filter(|_| page.is_truncated);
        listed
    }
}

fn shown(part: WrittenPart) -> Part {
    Part {
        part_number: Some(part.number),
        size: Some(signed(part.length)),
        e_tag: Some(ETag::Strong(part.tag)),
        last_modified: Some(now()),
        ..Part::default()
    }
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

/// S3 counts bytes in signed numbers.
fn signed(length: u64) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

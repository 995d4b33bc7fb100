//! Answers that are too long to be held: taken as they come.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream};
use reqwest::{Method, StatusCode};

use super::{Call, Servers, read_capped};
use crate::error::{ControlError, Failure};
use crate::message::ErrorReply;

impl Servers {
    /// Sends a request to a server as it is, below `prefix`, and gives the answer as it comes. Neither has a limit of time here.
    pub(crate) async fn forward_to(
        &self,
        prefix: &'static str,
        request: http::Request<reqwest::Body>,
        index: usize,
    ) -> Result<http::Response<reqwest::Body>, ControlError> {
        let (parts, body) = request.into_parts();
        let mut url = self.urls()[index].with_path(&format!("{prefix}{}", parts.uri.path()));
        url.set_query(parts.uri.query());
        let sent =
            self.http.client().request(parts.method, url).headers(parts.headers).body(body).send().await;
        let call = Call {
            method: Method::GET,
            path: prefix,
            query: Vec::new(),
            body: Bytes::new(),
            max_reply: 0,
            what: "upload".to_owned(),
        };
        let failed =
            |error: reqwest::Error| self.unavailable(&call, index, Failure::Connection(error.without_url()));
        Ok(sent.map_err(failed)?.into())
    }

    /// The body of a `GET` as it comes. The answer's head, and then each part, may take `timeout`.
    pub(crate) async fn stream_at(
        &self,
        path: &'static str,
        query: Vec<(&'static str, &str)>,
        what: String,
        index: usize,
        timeout: Duration,
    ) -> Result<impl Stream<Item = Result<Bytes, ControlError>> + Send + use<>, ControlError> {
        let call = Call { method: Method::GET, path, query, body: Bytes::new(), max_reply: 0, what };
        let late = || self.unavailable(&call, index, Failure::OutOfTime);
        let sent = tokio::time::timeout(timeout, self.request(&call, index).send()).await;
        let response = sent
            .map_err(|_| late())?
            .map_err(|error| self.unavailable(&call, index, Failure::Connection(error.without_url())))?;
        if response.status() != StatusCode::OK {
            let status = response.status();
            let body = tokio::time::timeout(timeout, read_capped(response, ErrorReply::MAX_LENGTH)).await;
            let body = body.ok().and_then(Result::ok).flatten().unwrap_or_default();
            return Err(self.refusal(&call, index, status, &body));
        }
        let (what, url) = (call.what.clone(), self.url(index));
        Ok(stream::try_unfold(response, move |mut response| {
            let (what, url) = (what.clone(), url.clone());
            async move {
                let cut = |source| ControlError::Unavailable { what, url, source };
                match tokio::time::timeout(timeout, response.chunk()).await {
                    Err(_) => Err(cut(Failure::OutOfTime)),
                    Ok(Err(error)) => Err(cut(Failure::Connection(error.without_url()))),
                    Ok(Ok(chunk)) => Ok(chunk.map(|chunk| (chunk, response))),
                }
            }
        }))
    }
}

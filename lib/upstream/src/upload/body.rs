//! The content as bodies of requests: one pass over it, cut into parts; opened anew only after a break.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::StreamExt;
use http::StatusCode;
use reqwest::{Body, Response};
use tokio::sync::mpsc;

use super::{ByteStream, Content, Watch};
use crate::error::UpstreamError;
use crate::registry::Registry;
use crate::transport::Call;

/// Reads the content in order.
pub(super) struct Reader<'a> {
    content: &'a dyn Content,
    /// What is open, and where it stands; what was read of the next part already.
    open: Option<(ByteStream, u64)>,
    rest: Bytes,
}

impl<'a> Reader<'a> {
    pub(super) fn new(content: &'a dyn Content) -> Self {
        Self { content, open: None, rest: Bytes::new() }
    }

    /// Sends `length` bytes from `offset` on as the body of a call; an answer of another status is an error.
    pub(super) async fn send(
        &mut self,
        registry: &Registry,
        call: Call,
        (offset, length): (u64, u64),
        watch: &dyn Watch,
        statuses: &[u16],
    ) -> Result<Response, UpstreamError> {
        let what = call.what();
        self.seek(offset).await.map_err(|source| UpstreamError::Content { what: what.clone(), source })?;
        let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
        let moved = Arc::new(AtomicU64::new(0));
        let body = body(receiver, Arc::clone(&moved));
        let sending = registry.transport.send_body(&call, length, body, || moved.load(Ordering::Relaxed));
        let mut failed = None;
        let outcome = {
            let feeding = self.feed(length, sender, |sent| watch.at(offset + sent));
            let (mut sending, mut feeding) = (std::pin::pin!(sending), std::pin::pin!(feeding));
            tokio::select! {
                // An answer that comes early ends the feeding: the registry has had enough.
                outcome = &mut sending => outcome,
                fed = &mut feeding => {
                    failed = fed.err();
                    sending.await
                }
            }
        };
        if outcome.is_err() || moved.load(Ordering::Relaxed) < length {
            // It is not known what went.
            self.open = None;
        }
        if let Some(source) = failed {
            return Err(UpstreamError::Content { what, source });
        }
        let statuses: Vec<_> =
            statuses.iter().filter_map(|&status| StatusCode::from_u16(status).ok()).collect();
        let judged = registry.transport.judge(&what, outcome?, &statuses).await;
        if judged.is_err() {
            self.open = None;
        }
        judged
    }

    async fn seek(&mut self, offset: u64) -> io::Result<()> {
        if self.open.as_ref().is_none_or(|(_, at)| *at != offset) {
            self.open = None;
            self.rest = Bytes::new();
            self.open = Some((self.content.open(offset).await?, offset));
        }
        Ok(())
    }

    /// Passes on `length` bytes. Who listens no more is no error of the content.
    async fn feed(
        &mut self,
        length: u64,
        sender: mpsc::Sender<io::Result<Bytes>>,
        told: impl Fn(u64),
    ) -> io::Result<()> {
        let mut sent = 0;
        while sent < length {
            let mut chunk = match self.read().await {
                Ok(chunk) => chunk,
                Err(error) => {
                    // The request is broken off: a body that merely ended would be taken for the whole.
                    let _ = sender.send(Err(io::ErrorKind::BrokenPipe.into())).await;
                    return Err(error);
                }
            };
            let left = usize::try_from(length - sent).unwrap_or(usize::MAX);
            if chunk.len() > left {
                self.rest = chunk.split_off(left);
            }
            let count = chunk.len() as u64;
            if let Some((_, at)) = &mut self.open {
                *at += count;
            }
            if sender.send(Ok(chunk)).await.is_err() {
                return Ok(());
            }
            sent += count;
            told(sent);
        }
        Ok(())
    }

    async fn read(&mut self) -> io::Result<Bytes> {
        if !self.rest.is_empty() {
            return Ok(std::mem::take(&mut self.rest));
        }
        let ended =
            || io::Error::new(io::ErrorKind::UnexpectedEof, "the content is shorter than it should be");
        let (stream, _) = self.open.as_mut().ok_or_else(ended)?;
        stream.next().await.ok_or_else(ended)?
    }
}

fn body(receiver: mpsc::Receiver<io::Result<Bytes>>, moved: Arc<AtomicU64>) -> Body {
    Body::wrap_stream(futures_util::stream::unfold((receiver, moved), async |(mut receiver, moved)| {
        let chunk = receiver.recv().await?;
        if let Ok(chunk) = &chunk {
            moved.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        }
        Some((chunk, (receiver, moved)))
    }))
}

/// Files and registries give some tens of KiB at a time: enough to keep a connection busy.
const CHUNKS_AHEAD: usize = 8;

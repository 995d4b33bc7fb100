//! A connection over QUIC: messages on the control stream, each piece on a stream of its own.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use quinn::{RecvStream, SendStream};
use shoal_core::Buffer;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Fault, WRITE_LENGTH, hear};
use crate::arrival::Arrivals;
use crate::frames::{FrameError, FrameReader};
use crate::quic::{Line, Link, Stop, is_reset, stop};
use crate::requests::Wanted;
use crate::wire::{Frame, PieceHeader, WireError};

/// How the reading of a piece's bytes came out.
enum Body {
    Whole(Bytes),
    /// The sender gave it up.
    Reset,
    /// Nobody needs it any more, or the connection is gone.
    Abandoned,
}

/// Runs until the connection has ended.
pub(super) async fn run(line: Line, messages: mpsc::Receiver<Frame>, arrivals: &Arc<Arrivals>) -> Fault {
    let Line { link, input, output } = line;
    let mut pieces = JoinSet::new();
    let fault = tokio::select! {
        fault = read(input, arrivals) => fault,
        fault = write(output, messages) => fault,
        fault = accept(&link, arrivals, &mut pieces) => fault,
    };
    // What a stream reports is often only that the connection is gone; the connection says why.
    let fault = link.end().map_or(fault, |error| Fault::Lost(error.into()));
    link.close(fault.reason());
    // Pieces that are here in full are still stored and noted; the others end with the link.
    while pieces.join_next().await.is_some() {}
    fault
}

async fn read(mut input: FrameReader<RecvStream>, arrivals: &Arrivals) -> Fault {
    loop {
        let heard = match input.next().await {
            Ok(Some(Frame::Message(message))) => hear(arrivals, message).await,
            Ok(Some(frame)) => Err(FrameError::from(WireError::OutOfPlace(frame.kind())).into()),
            Ok(None) => Err(FrameError::from(WireError::Ended).into()),
            Err(error) => Err(error.into()),
        };
        if let Err(fault) = heard {
            return fault;
        }
    }
}

async fn write(mut output: SendStream, mut messages: mpsc::Receiver<Frame>) -> Fault {
    let mut bytes = BytesMut::new();
    while let Some(frame) = messages.recv().await {
        frame.encode(&mut bytes);
        while bytes.len() < WRITE_LENGTH
            && let Ok(frame) = messages.try_recv()
        {
            frame.encode(&mut bytes);
        }
        if let Err(error) = output.write_all(&bytes).await {
            return FrameError::Stream(error.into()).into();
        }
        bytes.clear();
    }
    Fault::LetGo
}

async fn accept(link: &Link, arrivals: &Arc<Arrivals>, pieces: &mut JoinSet<Result<(), Fault>>) -> Fault {
    loop {
        tokio::select! {
            stream = link.accept_piece() => match stream {
                Ok(stream) => {
                    let arrivals = Arc::clone(arrivals);
                    pieces.spawn(async move { take(&arrivals, stream).await });
                }
                Err(error) => return Fault::Lost(error.into()),
            },
            Some(taken) = pieces.join_next() => match taken {
                Ok(Ok(())) => {}
                Ok(Err(fault)) => return fault,
                Err(error) => tracing::error!(%error, peer = %arrivals.connection.peer, "piece task failed"),
            },
        }
    }
}

/// Takes one stream to its end. An error is the peer's fault.
async fn take(arrivals: &Arrivals, stream: RecvStream) -> Result<(), Fault> {
    let mut input = FrameReader::new(stream);
    let Some(header) = read_header(&mut input).await? else { return Ok(()) };
    let (stream, start) = input.into_rest();
    let Some(wanted) = arrivals.begin(&header)? else {
        stop(stream, Stop::Unwanted);
        return Ok(());
    };
    let cancelled = pin!(wanted.cancelled.clone().cancelled_owned());
    let body = tokio::select! {
        biased;
        () = cancelled => Body::Abandoned,
        body = read_body(arrivals, &wanted, stream, start, &header) => body?,
    };
    match body {
        Body::Whole(bytes) => arrivals.keep(wanted, header, bytes).await,
        Body::Reset => arrivals.given_up(header).await,
        Body::Abandoned => {}
    }
    Ok(())
}

/// The head of the stream; `None` where the sender gave it up at once, or the connection is gone.
async fn read_header(input: &mut FrameReader<RecvStream>) -> Result<Option<PieceHeader>, Fault> {
    match timeout(HEADER_TIMEOUT, input.next()).await {
        Err(_) => Err(Fault::NoHeader),
        Ok(Ok(Some(Frame::Piece(header)))) => Ok(Some(header)),
        Ok(Ok(Some(frame))) => Err(FrameError::from(WireError::OutOfPlace(frame.kind())).into()),
        Ok(Ok(None)) => Err(Fault::NoHeader),
        Ok(Err(FrameError::Wire(WireError::Ended))) => Err(Fault::NoHeader),
        Ok(Err(error @ FrameError::Wire(_))) => Err(error.into()),
        // The control stream tells if it is the connection.
        Ok(Err(FrameError::Stream(_))) => Ok(None),
    }
}

/// Reads exactly the piece, into one buffer of its length. `start` was read together with the header.
async fn read_body(
    arrivals: &Arrivals,
    wanted: &Wanted,
    mut stream: RecvStream,
    start: BytesMut,
    header: &PieceHeader,
) -> Result<Body, Fault> {
    let PieceHeader { digest, piece, length } = *header;
    let wrong_end = || Fault::PieceEnd { digest, piece };
    let length = length as usize;
    if start.len() > length {
        return Err(wrong_end());
    }
    let mut bytes = Buffer::with_capacity(length);
    bytes.extend_from_slice(&start);
    arrivals.pace(wanted, start.len()).await;
    let mut rest = (&mut stream).take((length - start.len()) as u64);
    while bytes.len() < length {
        match rest.read_buf(&mut *bytes).await {
            Ok(0) => return Err(wrong_end()),
            Ok(read) => arrivals.pace(wanted, read).await,
            Err(error) if is_reset(&error) => return Ok(Body::Reset),
            Err(_) => return Ok(Body::Abandoned),
        }
    }
    // The end mostly comes with the last bytes; it is not waited for.
    let after: Option<io::Result<usize>> =
        stream.read(&mut [0]).map(|read| Ok(read?.unwrap_or(0))).now_or_never();
    if let Some(Ok(1..)) = after {
        return Err(wrong_end());
    }
    stop(stream, Stop::Done);
    Ok(Body::Whole(bytes.freeze()))
}

/// How long a stream may be open without saying which piece it carries; longer than any packet loss that the
/// connection survives.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

//! A connection over TCP: one stream a direction, on which messages go between the chunks of pieces.

use std::io::{self, IoSlice};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use shoal_core::Buffer;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Fault, WRITE_LENGTH, hear};
use crate::arrival::Arrivals;
use crate::frames::{FrameError, FrameReader};
use crate::link::Lost;
use crate::requests::Wanted;
use crate::tcp::{Input, Line, Link, Outgoing, hang_up};
use crate::wire::{CloseReason, Frame, MAX_CHUNK_LENGTH, PieceHeader, WireError};

/// A piece of which chunks arrive.
struct Incoming {
    header: PieceHeader,
    /// `None` where nobody needs it (any more): its bytes are left out.
    wanted: Option<Wanted>,
    bytes: Buffer,
    left: usize,
}

/// A piece of which chunks go out.
struct Sending {
    piece: Outgoing,
    /// What of it was handed over and did not go yet.
    part: Bytes,
    /// Bytes that did not go yet.
    left: usize,
}

/// What becomes of a piece that is being sent.
enum Turn {
    /// So many bytes go.
    Go(usize),
    /// The rest does not.
    Drop,
}

/// What goes out.
struct Writer<W> {
    output: W,
    messages: mpsc::Receiver<Frame>,
    pieces: mpsc::Receiver<Outgoing>,
    /// Frames that were encoded and not written yet.
    frames: BytesMut,
    sending: Option<Sending>,
    patience: Duration,
}

/// Runs until the connection has ended.
pub(super) async fn run(
    line: Line,
    messages: mpsc::Receiver<Frame>,
    arrivals: &Arc<Arrivals>,
    patience: Duration,
) -> Fault {
    let Line { link, mut input, output, pieces } = line;
    let mut kept = JoinSet::new();
    let writer = Writer { output, messages, pieces, frames: BytesMut::new(), sending: None, patience };
    let mut write = pin!(writer.run(&link));
    let fault = tokio::select! {
        fault = read(&mut input, arrivals, &mut kept) => {
            link.close(fault.reason());
            if !matches!(fault, Fault::Lost(_)) {
                hang_up(input, write).await;
            }
            fault
        }
        written = &mut write => match written {
            Ok(()) => {
                hang_up(input, std::future::ready(Ok::<_, Fault>(()))).await;
                Fault::LetGo
            }
            Err(fault) => {
                link.close(fault.reason());
                fault
            }
        },
    };
    drain(kept).await;
    fault
}

/// Pieces that are here in full are still stored and noted.
async fn drain(mut kept: JoinSet<()>) {
    while kept.join_next().await.is_some() {}
}

async fn read(input: &mut FrameReader<Input>, arrivals: &Arc<Arrivals>, kept: &mut JoinSet<()>) -> Fault {
    let mut incoming = None;
    loop {
        if let Err(fault) = read_frame(input, arrivals, kept, &mut incoming).await {
            return fault;
        }
        while let Some(ended) = kept.try_join_next() {
            if let Err(error) = ended {
                tracing::error!(%error, peer = %arrivals.connection.peer, "piece task failed");
            }
        }
    }
}

async fn read_frame(
    input: &mut FrameReader<Input>,
    arrivals: &Arc<Arrivals>,
    kept: &mut JoinSet<()>,
    incoming: &mut Option<Incoming>,
) -> Result<(), Fault> {
    let frame = input.next().await?.ok_or(FrameError::Wire(WireError::Ended))?;
    match (frame, incoming.take()) {
        (Frame::Message(message), piece) => {
            *incoming = piece;
            hear(arrivals, message).await
        }
        (Frame::Piece(header), None) => {
            *incoming = Some(Incoming::begin(arrivals, header)?);
            Ok(())
        }
        (Frame::Chunk(length), Some(mut piece)) => {
            piece.take(arrivals, input, length as usize).await?;
            if piece.left > 0 {
                *incoming = Some(piece);
            } else if let Incoming { header, wanted: Some(wanted), bytes, .. } = piece {
                let arrivals = Arc::clone(arrivals);
                kept.spawn(async move { arrivals.keep(wanted, header, bytes.freeze()).await });
            }
            Ok(())
        }
        (Frame::Dropped, Some(piece)) => {
            if piece.is_wanted() {
                arrivals.given_up(piece.header).await;
            }
            Ok(())
        }
        (Frame::Close(reason), _) => Err(Fault::Lost(Lost::Closed(reason))),
        (frame, _) => Err(FrameError::from(WireError::OutOfPlace(frame.kind())).into()),
    }
}

impl Incoming {
    fn begin(arrivals: &Arrivals, header: PieceHeader) -> Result<Self, Fault> {
        let wanted = arrivals.begin(&header)?;
        let left = header.length as usize;
        let bytes = if wanted.is_some() { Buffer::with_capacity(left) } else { Buffer::default() };
        // One that is left out has the length that it claims: at most 4 GiB, of which nothing is kept.
        Ok(Self { header, wanted, bytes, left })
    }

    fn is_wanted(&self) -> bool {
        self.wanted.as_ref().is_some_and(|wanted| !wanted.cancelled.is_cancelled())
    }

    async fn take(
        &mut self,
        arrivals: &Arrivals,
        input: &mut FrameReader<Input>,
        length: usize,
    ) -> Result<(), Fault> {
        if length == 0 || length > self.left {
            let PieceHeader { digest, piece, .. } = self.header;
            return Err(Fault::PieceEnd { digest, piece });
        }
        match self.wanted.take_if(|wanted| !wanted.cancelled.is_cancelled()) {
            Some(wanted) => {
                input.read_into(&mut self.bytes, length).await?;
                arrivals.pace(&wanted, length).await;
                self.wanted = Some(wanted);
            }
            None => {
                (self.wanted, self.bytes) = (None, Buffer::default());
                input.skip(length).await?;
            }
        }
        self.left -= length;
        Ok(())
    }
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    /// Writes until this side ends the connection, and then says why; an error ends it at once.
    async fn run(mut self, link: &Link) -> Result<(), Fault> {
        loop {
            if let Some(reason) = link.reason() {
                return self.close(reason).await;
            }
            self.gather();
            if self.sending.is_some() || !self.frames.is_empty() {
                self.write(link).await?;
                continue;
            }
            within(self.patience, self.output.flush()).await?;
            tokio::select! {
                biased;
                () = link.ending() => {}
                frame = self.messages.recv() => match frame {
                    Some(frame) => frame.encode(&mut self.frames),
                    None => return self.close(link.reason().unwrap_or(CloseReason::Idle)).await,
                },
                Some(piece) = self.pieces.recv() => self.begin(piece),
            }
        }
    }

    /// What waits to be said goes first, then the head of the next piece.
    fn gather(&mut self) {
        while self.frames.len() < WRITE_LENGTH
            && let Ok(frame) = self.messages.try_recv()
        {
            frame.encode(&mut self.frames);
        }
        if self.sending.is_none()
            && let Ok(piece) = self.pieces.try_recv()
        {
            self.begin(piece);
        }
    }

    fn begin(&mut self, piece: Outgoing) {
        if !piece.sent.is_closed() {
            Frame::Piece(piece.header).encode(&mut self.frames);
            let left = piece.header.length as usize;
            self.sending = Some(Sending { piece, part: Bytes::new(), left });
        }
    }

    /// Writes the frames, and behind them the next chunk of the piece that is being sent.
    async fn write(&mut self, link: &Link) -> Result<(), Fault> {
        let mut chunk = Bytes::new();
        if let Some(mut sending) = self.sending.take() {
            match self.wait_for_turn(&mut sending, link).await? {
                Turn::Go(length) => {
                    chunk = sending.part.split_to(length);
                    sending.left -= length;
                    Frame::Chunk(length as u32).encode(&mut self.frames);
                    self.sending = Some(sending);
                }
                Turn::Drop => Frame::Dropped.encode(&mut self.frames),
            }
        }
        within(self.patience, write_both(&mut self.output, &mut self.frames, chunk)).await?;
        if let Some(sending) = self.sending.take_if(|sending| sending.left == 0) {
            // An error means that whoever sent it has gone.
            let _ = sending.piece.sent.send(());
        }
        Ok(())
    }

    /// Until some bytes of the piece are there and may go, or no more of it is to. What is said meanwhile goes out.
    async fn wait_for_turn(&mut self, sending: &mut Sending, link: &Link) -> Result<Turn, Fault> {
        let Self { output, messages, frames, patience, .. } = self;
        let Sending { piece: Outgoing { parts, priority, egress, sent, .. }, part, left } = sending;
        let mut turn = pin!(async {
            if part.is_empty() {
                *part = parts.recv().await.filter(|part| !part.is_empty() && part.len() <= *left)?;
            }
            Some(egress.take(*priority, part.len().min(MAX_CHUNK_LENGTH) as u32).await)
        });
        let mut is_flushed = false;
        loop {
            tokio::select! {
                biased;
                () = sent.closed() => return Ok(Turn::Drop),
                length = &mut turn => return Ok(length.map_or(Turn::Drop, |length| Turn::Go(length as usize))),
                () = link.ending() => return Ok(Turn::Drop),
                Some(frame) = messages.recv() => frame.encode(frames),
                // There is nothing to do but to wait: what went before is not to wait too.
                () = std::future::ready(()), if !is_flushed => {}
            }
            within(*patience, write_both(output, frames, Bytes::new())).await?;
            within(*patience, output.flush()).await?;
            is_flushed = true;
        }
    }

    async fn close(mut self, reason: CloseReason) -> Result<(), Fault> {
        if self.sending.take().is_some() {
            Frame::Dropped.encode(&mut self.frames);
        }
        Frame::Close(reason).encode(&mut self.frames);
        within(self.patience, write_both(&mut self.output, &mut self.frames, Bytes::new())).await?;
        within(self.patience, self.output.shutdown()).await
    }
}

/// A peer that takes nothing for so long is let go.
async fn within(patience: Duration, write: impl Future<Output = io::Result<()>>) -> Result<(), Fault> {
    match timeout(patience, write).await {
        Ok(written) => Ok(written.map_err(FrameError::from)?),
        Err(_) => Err(Fault::Slow(patience)),
    }
}

async fn write_both(
    output: &mut (impl AsyncWrite + Unpin),
    frames: &mut BytesMut,
    mut chunk: Bytes,
) -> io::Result<()> {
    while frames.has_remaining() || chunk.has_remaining() {
        let written = output.write_vectored(&[IoSlice::new(frames), IoSlice::new(&chunk)]).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let of_frames = written.min(frames.len());
        frames.advance(of_frames);
        chunk.advance(written - of_frames);
    }
    Ok(())
}

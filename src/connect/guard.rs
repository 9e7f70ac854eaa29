//! A stream to a server whose requests for authentication are judged before the driver sees them.
//!
//! It lies between the wire and the driver. Until the server lets the client in, it reads one
//! message at a time, never a byte beyond it, and hands it on only when [`Judge`] has nothing
//! against it: so no password and no hash goes out before. After that it passes everything through.
//!
//! What it holds is bounded by libpq's limits for these messages.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsStream};

use super::demands::{Judge, Next, Refused, malformed};
use crate::error::Error;

const AUTHENTICATION: u8 = b'R';
const ERROR: u8 = b'E';
/// Bytes of tag and length.
const HEADER_BYTES: usize = 5;
/// Most bytes of an Authentication message, with its length.
const MOST_AUTHENTICATION: usize = 2_000;
/// Most bytes of an error, with its length.
const MOST_ERROR: usize = 30_000;
/// Most bytes that one read takes.
const PIECE_BYTES: usize = 2_048;

/// A stream with a judge.
pub(crate) struct Guarded<S> {
    stream: S,
    judge: Judge,
    phase: Phase,
    /// The message that is read or handed on.
    message: Vec<u8>,
}

enum Phase {
    /// A message is incomplete.
    Reading,
    /// So many of its bytes were handed on.
    HandingOn(usize, Then),
    /// Nothing is judged any more.
    Through,
}

#[derive(Clone, Copy)]
enum Then {
    NextMessage,
    Through,
}

impl<S> Guarded<S> {
    pub(super) fn new(stream: S, judge: Judge) -> Self {
        Self {
            stream,
            judge,
            phase: Phase::Reading,
            message: Vec::new(),
        }
    }

    /// A server that has closed the connection may have said why. So until it lets the client in, a
    /// failure to write counts as written: as in libpq, the next read says what happened.
    fn or_read<T>(&self, written: Poll<io::Result<T>>, all: T) -> Poll<io::Result<T>> {
        match (written, &self.phase) {
            (Poll::Ready(Err(_)), Phase::Reading | Phase::HandingOn(..)) => Poll::Ready(Ok(all)),
            (written, _) => written,
        }
    }

    /// Takes the message, once it is whole.
    fn judged(&mut self) -> Result<Phase, Refused> {
        let then = match self.message.split_first_chunk::<HEADER_BYTES>() {
            Some(([AUTHENTICATION, ..], body)) => match self.judge.take(body)? {
                Next::More => Then::NextMessage,
                Next::Done => Then::Through,
            },
            // The driver reads the error; nothing follows.
            _ => Then::Through,
        };
        Ok(Phase::HandingOn(0, then))
    }
}

/// Bytes that are missing until the header, or the whole message, is there.
fn missing(message: &[u8]) -> Result<usize, Refused> {
    let Some(([tag, length @ ..], body)) = message.split_first_chunk::<HEADER_BYTES>() else {
        return Ok(HEADER_BYTES.saturating_sub(message.len()));
    };
    let (least, most) = match *tag {
        AUTHENTICATION => (8, MOST_AUTHENTICATION),
        ERROR => (5, MOST_ERROR),
        tag => return Err(malformed(format!("0x{tag:02X}"))),
    };
    let whole = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if !(least..=most).contains(&whole) {
        // As libpq: the words of a server that speaks so, in its own language.
        if *tag == ERROR {
            return Err(overloaded());
        }
        return Err(malformed(format!("a message of {whole} bytes")));
    }
    Ok(whole.saturating_sub(4).saturating_sub(body.len()))
}

/// A server that cannot start a process for the connection says so as version 2 of the protocol
/// did: without a length.
fn overloaded() -> Refused {
    Refused {
        error: Error::transient("the server could not start a process for the connection")
            .with_hint("Its log says why: too little memory, or too many processes."),
        tls_may_help: false,
    }
}

impl<S: AsyncRead + Unpin> Guarded<S> {
    /// Reads on until the message is whole; the server may close the connection instead.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Phase, io::Error>> {
        loop {
            let missing = missing(&self.message).map_err(io::Error::other)?;
            if missing == 0 {
                return Poll::Ready(self.judged().map_err(io::Error::other));
            }
            let mut bytes = [0; PIECE_BYTES];
            let mut room = ReadBuf::new(&mut bytes);
            let mut piece = room.take(missing);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut piece))?;
            if piece.filled().is_empty() {
                // The driver sees the end too, and half a message never.
                return Poll::Ready(Ok(Phase::Through));
            }
            self.message.extend_from_slice(piece.filled());
        }
    }

    fn hand_on(&mut self, from: usize, then: Then, buf: &mut ReadBuf<'_>) {
        let rest = self.message.get(from..).unwrap_or_default();
        let piece = rest.get(..buf.remaining()).unwrap_or(rest);
        buf.put_slice(piece);
        let to = from.saturating_add(piece.len());
        self.phase = match then {
            _ if to < self.message.len() => Phase::HandingOn(to, then),
            Then::NextMessage => {
                self.message.clear();
                Phase::Reading
            }
            Then::Through => {
                self.message = Vec::new();
                Phase::Through
            }
        };
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Phase::Reading = this.phase {
            this.phase = ready!(this.poll_message(cx))?;
        }
        match this.phase {
            Phase::HandingOn(from, then) => {
                this.hand_on(from, then, buf);
                Poll::Ready(Ok(()))
            }
            Phase::Reading | Phase::Through => Pin::new(&mut this.stream).poll_read(cx, buf),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.or_read(written, buf.len())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(cx);
        this.or_read(flushed, ())
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl<S: TlsStream + Unpin> TlsStream for Guarded<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.stream.channel_binding()
    }
}

#[cfg(test)]
mod tests;

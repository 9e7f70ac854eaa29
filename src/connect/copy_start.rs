//! Takes a Sync too many out of what the driver sends when a COPY begins.
//!
//! The driver begins `COPY ... FROM STDIN` with Bind, Execute and Sync, and ends it with CopyDone
//! (or CopyFail) and Sync. A server that has begun to read rows ignores the first Sync. A server
//! that does not get so far (the table stays locked, or the transaction has failed) answers both of
//! them. The driver takes the second answer for that of the next statement: from then on each
//! statement has the answer of the one before it, a COMMIT too.
//!
//! So the first Sync goes out as a Flush. That has the same length, and asks for the same answer.

use std::collections::HashSet;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsStream};

/// Tags of messages to the server.
const PARSE: u8 = b'P';
const BIND: u8 = b'B';
const SYNC: u8 = b'S';
const FLUSH: u8 = b'H';

/// Bytes of a tag and a length; the startup message has no tag.
const HEAD: usize = 5;
const STARTUP_HEAD: usize = 4;

/// Bytes at the beginning of a Bind in which portal and statement are named.
const NAMES: usize = 100;

/// A wire to the server, without that Sync.
pub(super) struct CopyStart<W> {
    wire: W,
    messages: Messages,
    /// What the driver has given away and the wire has not taken yet.
    waiting: BytesMut,
}

impl<W> CopyStart<W> {
    /// Nothing has been sent by this wire yet.
    pub(super) fn new(wire: W) -> Self {
        Self {
            wire,
            messages: Messages::default(),
            waiting: BytesMut::new(),
        }
    }
}

/// The messages to the server, one after the other.
#[derive(Debug, Default)]
struct Messages {
    /// Whether the startup message has gone by.
    is_started: bool,
    /// Head of the message that goes by, and of its body what is of interest.
    seen: Vec<u8>,
    /// Bytes of its body that are to come; `None` while its head goes by.
    left: Option<usize>,
    /// Names of prepared statements that begin a COPY. The driver uses no name twice.
    copies: HashSet<Vec<u8>>,
    /// Whether such a statement was bound, and its Sync is to come.
    begins_copy: bool,
}

impl Messages {
    /// Places in the next bytes of the tags that become Flush.
    fn syncs_of_copies(&mut self, mut bytes: &[u8]) -> Vec<usize> {
        let all = bytes.len();
        let mut found = Vec::new();
        while let Some((byte, rest)) = bytes.split_first() {
            let Some(left) = self.left else {
                let is_tag = self.is_started && self.seen.is_empty();
                if is_tag && *byte == SYNC && std::mem::take(&mut self.begins_copy) {
                    found.push(all - bytes.len());
                }
                self.head(*byte);
                bytes = rest;
                continue;
            };
            let (body, rest) = bytes.split_at(left.min(bytes.len()));
            self.body(body);
            bytes = rest;
        }
        found
    }

    /// The next byte of a head.
    fn head(&mut self, byte: u8) {
        self.seen.push(byte);
        let wanted = if self.is_started { HEAD } else { STARTUP_HEAD };
        let Some((_, length)) = self.seen.split_last_chunk::<4>() else {
            return;
        };
        if self.seen.len() == wanted {
            let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
            // The length counts itself.
            self.left = Some(length.saturating_sub(4));
            self.body(&[]);
        }
    }

    /// The next bytes of a body.
    fn body(&mut self, bytes: &[u8]) {
        let wanted = match self.seen.first() {
            Some(&PARSE) if self.is_started => bytes.len(),
            Some(&BIND) if self.is_started => NAMES.min(bytes.len()),
            _ => 0,
        };
        self.seen.extend(bytes.iter().take(wanted));
        let left = self.left.unwrap_or_default() - bytes.len();
        self.left = (left > 0).then_some(left);
        if left == 0 {
            self.note();
        }
    }

    /// The message has gone by.
    fn note(&mut self) {
        let seen = std::mem::take(&mut self.seen);
        if !std::mem::replace(&mut self.is_started, true) {
            return;
        }
        let mut texts = seen
            .get(HEAD..)
            .unwrap_or_default()
            .split(|byte| *byte == 0);
        let mut text = || texts.next().unwrap_or_default();
        match seen.first() {
            Some(&PARSE) => {
                let (name, sql) = (text(), text());
                if sql.starts_with(b"COPY ") && sql.ends_with(b" FROM STDIN") {
                    self.copies.insert(name.to_vec());
                }
            }
            Some(&BIND) => {
                let (_portal, statement) = (text(), text());
                self.begins_copy = self.copies.contains(statement);
            }
            _ => {}
        }
    }
}

impl<W: AsyncWrite + Unpin> CopyStart<W> {
    /// Writes what waits.
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            let written = ready!(Pin::new(&mut self.wire).poll_write(cx, &self.waiting))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.waiting.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for CopyStart<W> {
    /// Takes all bytes as soon as none wait.
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_waiting(cx))?;
        let syncs = this.messages.syncs_of_copies(buf);
        let mut written = 0;
        if syncs.is_empty()
            && let Poll::Ready(result) = Pin::new(&mut this.wire).poll_write(cx, buf)
        {
            written = result?;
        }
        this.waiting
            .extend_from_slice(buf.get(written..).unwrap_or_default());
        for at in syncs {
            if let Some(tag) = this.waiting.get_mut(at) {
                *tag = FLUSH;
            }
        }
        // The bytes are taken, whether or not the wire has room for them.
        match this.poll_waiting(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(buf.len())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_waiting(cx))?;
        Pin::new(&mut this.wire).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_waiting(cx))?;
        Pin::new(&mut this.wire).poll_shutdown(cx)
    }
}

impl<W: AsyncRead + Unpin> AsyncRead for CopyStart<W> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().wire).poll_read(cx, buf)
    }
}

impl<W: TlsStream + Unpin> TlsStream for CopyStart<W> {
    fn channel_binding(&self) -> ChannelBinding {
        self.wire.channel_binding()
    }
}

#[cfg(test)]
mod tests {
    use postgres_protocol::message::frontend;
    use tokio::io::AsyncWriteExt;

    use super::*;

    fn bind(statement: &str, out: &mut BytesMut) {
        let no_values: [i32; 0] = [];
        let bound = frontend::bind("", statement, [], no_values, |_, _| unreachable!(), [], out);
        assert!(bound.is_ok());
        frontend::execute("", 0, out).unwrap();
        frontend::sync(out);
    }

    /// A session that prepares a statement and then uses it twice, and the same as it should go
    /// out.
    fn session(sql: &str, is_copy: bool) -> (BytesMut, BytesMut) {
        let mut out = BytesMut::new();
        frontend::startup_message([("user", "S")], &mut out).unwrap();
        frontend::query("SELECT 'S'", &mut out).unwrap();
        frontend::parse("s10", "SELECT 1", [], &mut out).unwrap();
        frontend::parse("s1", sql, [], &mut out).unwrap();
        frontend::sync(&mut out);
        let mut expected = out.clone();
        for _ in 0..2 {
            for bytes in [&mut out, &mut expected] {
                bind("s1", bytes);
            }
            if is_copy {
                let sync = expected.len() - HEAD;
                expected[sync] = FLUSH;
            }
            for bytes in [&mut out, &mut expected] {
                frontend::CopyData::new(&b"S\0\0\0\x04"[..])
                    .unwrap()
                    .write(bytes);
                frontend::copy_done(bytes);
                frontend::sync(bytes);
                bind("s10", bytes);
            }
        }
        (out, expected)
    }

    #[tokio::test]
    async fn only_the_sync_of_a_copy_that_begins_becomes_a_flush() {
        for (sql, is_copy) in [
            ("COPY t (a) FROM STDIN", true),
            ("COPY t (a) TO STDOUT", false),
            ("SELECT 'COPY t FROM STDIN'", false),
        ] {
            let (out, expected) = session(sql, is_copy);
            // However the bytes are cut, and however few the wire takes at a time.
            for cut in [1, 2, 3, 7, 64, out.len()] {
                for room in [1, 5, out.len()] {
                    let (wire, mut server) = tokio::io::duplex(room);
                    let mut wire = CopyStart::new(wire);
                    let sent = async {
                        for piece in out.chunks(cut) {
                            wire.write_all(piece).await.unwrap();
                        }
                        wire.shutdown().await.unwrap();
                    };
                    let mut received = Vec::new();
                    let read = tokio::io::AsyncReadExt::read_to_end(&mut server, &mut received);
                    let ((), read) = tokio::join!(sent, read);
                    read.unwrap();
                    assert!(received == expected, "{sql}, cut {cut}, room {room}");
                }
            }
        }
    }
}

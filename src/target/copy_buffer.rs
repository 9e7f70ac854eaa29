//! What goes to the server as COPY data: small rows gathered into large messages, large values in
//! pieces.
//!
//! A message for each row costs a system call on both sides; a large value copied into a buffer
//! costs its size in memory.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::SinkExt;
use tokio_postgres::{CopyInSink, Error};

use crate::connect::Connection;
use crate::connect::pipeline::{Sent, send};

/// A COPY that is under way.
pub(crate) type Copy = Pin<Box<CopyInSink<Bytes>>>;

/// Bytes of COPY data a message.
const PIECE_BYTES: usize = 256 * 1024;

/// Rows in COPY's text format that wait to be sent. Large values are borrowed until then.
#[derive(Debug, Default)]
pub struct CopyBuffer<'a> {
    bytes: Vec<u8>,
    /// Large values with their places in `bytes`, in order.
    large: Vec<(usize, Large<'a>)>,
}

#[derive(Debug, Clone, Copy)]
enum Large<'a> {
    /// To be escaped.
    Value(&'a [u8]),
    /// COPY data as it is.
    Data(&'a [u8]),
}

impl<'a> CopyBuffer<'a> {
    /// Appends a short text that needs no escapes.
    pub(crate) fn push(&mut self, text: &[u8]) {
        self.bytes.extend_from_slice(text);
    }

    /// Appends a value with COPY's escapes.
    pub(crate) fn push_value(&mut self, value: &'a [u8]) {
        if value.len() < PIECE_BYTES {
            escape(value, &mut self.bytes);
        } else {
            self.large.push((self.bytes.len(), Large::Value(value)));
        }
    }

    /// Appends what is COPY data already.
    pub(crate) fn push_data(&mut self, data: &'a [u8]) {
        if data.len() < PIECE_BYTES {
            self.bytes.extend_from_slice(data);
        } else {
            self.large.push((self.bytes.len(), Large::Data(data)));
        }
    }

    /// Appends a value; `None` is NULL.
    pub(crate) fn push_cell(&mut self, value: Option<&'a [u8]>) {
        match value {
            None => self.push(b"\\N"),
            Some(text) => self.push_value(text),
        }
    }

    /// Appends a row of values.
    pub(crate) fn push_row(&mut self, values: impl Iterator<Item = Option<&'a [u8]>>) {
        let mut separator: &[u8] = b"";
        for value in values {
            self.push(separator);
            separator = b"\t";
            self.push_cell(value);
        }
        self.push(b"\n");
    }

    /// Whether it is time to send.
    fn is_full(&self) -> bool {
        self.bytes.len() >= PIECE_BYTES || !self.large.is_empty()
    }

    /// Sends everything and is empty then.
    async fn send(&mut self, copy: &mut Copy) -> Result<(), Error> {
        let mut sent = 0;
        let mut escaped = Vec::new();
        for (at, large) in self.large.drain(..) {
            send_slice(copy, self.bytes.get(sent..at)).await?;
            sent = at;
            match large {
                Large::Data(data) => {
                    send_slice(copy, Some(data)).await?;
                }
                Large::Value(value) => {
                    for piece in value.chunks(PIECE_BYTES) {
                        escaped.clear();
                        escape(piece, &mut escaped);
                        copy.feed(Bytes::copy_from_slice(&escaped)).await?;
                    }
                }
            }
        }
        send_slice(copy, self.bytes.get(sent..)).await?;
        self.bytes.clear();
        Ok(())
    }
}

/// Sends data in messages of bounded size.
async fn send_slice(copy: &mut Copy, data: Option<&[u8]>) -> Result<(), Error> {
    for piece in data.unwrap_or_default().chunks(PIECE_BYTES * 2) {
        copy.feed(Bytes::copy_from_slice(piece)).await?;
    }
    Ok(())
}

/// Sends what begins a COPY, which fails, and nothing stays of it, unless it is finished.
///
/// What is sent next goes behind its end. So whoever waits for the answer of something else that
/// was sent since then waits without an end.
pub(crate) async fn send_copy(
    conn: &Connection,
    sql: &str,
) -> Result<Sent<'static, Result<Copy, Error>>, Error> {
    let statement = conn.statement(sql, &[]).await?;
    Ok(send(conn, |client| async move {
        client.copy_in(&statement).await.map(Box::pin)
    }))
}

/// Begins a COPY, as [`send_copy`] does.
pub(crate) async fn begin_copy(conn: &Connection, sql: &str) -> Result<Copy, Error> {
    send_copy(conn, sql).await?.answer().await
}

/// Sends rows that `append` writes.
pub(crate) async fn fill_copy<'a, T>(
    copy: &mut Copy,
    rows: impl Iterator<Item = T>,
    append: impl Fn(T, &mut CopyBuffer<'a>),
) -> Result<(), Error> {
    let mut buffer = CopyBuffer::default();
    for row in rows {
        append(row, &mut buffer);
        if buffer.is_full() {
            buffer.send(copy).await?;
        }
    }
    buffer.send(copy).await
}

/// Sends the end of a COPY; the answer says whether the server took the rows.
pub(crate) fn end_copy(conn: &Connection, mut copy: Copy) -> Sent<'static, Result<(), Error>> {
    send(
        conn,
        |_| async move { copy.as_mut().finish().await.map(drop) },
    )
}

/// Gathers COPY data that comes in pieces of any size, and sends it.
#[derive(Debug, Default)]
pub(crate) struct Gathered(Vec<u8>);

impl Gathered {
    /// Adds the next piece; what is large enough is sent.
    pub(crate) async fn add(&mut self, copy: &mut Copy, piece: &[u8]) -> Result<(), Error> {
        if piece.len() >= PIECE_BYTES {
            self.send(copy).await?;
            return send_slice(copy, Some(piece)).await;
        }
        self.0.extend_from_slice(piece);
        if self.0.len() >= PIECE_BYTES {
            self.send(copy).await?;
        }
        Ok(())
    }

    /// Sends the rest.
    pub(crate) async fn send(&mut self, copy: &mut Copy) -> Result<(), Error> {
        send_slice(copy, Some(&self.0)).await?;
        self.0.clear();
        Ok(())
    }
}

/// Appends a value with COPY's escapes (manual, COPY, "Text Format").
fn escape(text: &[u8], out: &mut Vec<u8>) {
    let needs_one = |byte: &u8| matches!(byte, b'\\' | b'\n' | b'\r' | b'\t');
    // Few values do. Without an early end the compiler can look at many bytes at once.
    if !text.iter().fold(false, |any, byte| any | needs_one(byte)) {
        out.extend_from_slice(text);
        return;
    }
    for &byte in text {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            byte => out.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_what_copy_would_read_otherwise() {
        let mut out = Vec::new();
        escape(b"a\\N\tb\nc\r\xc3\xa4 \\.", &mut out);
        assert_eq!(out, b"a\\\\N\\tb\\nc\\r\xc3\xa4 \\\\.");
    }

    #[test]
    fn large_values_keep_their_places_and_are_not_copied() {
        let large = vec![b'x'; PIECE_BYTES];
        let mut buffer = CopyBuffer::default();
        buffer.push(b"1\t");
        buffer.push_value(b"a\tb");
        assert!(!buffer.is_full());
        buffer.push_value(&large);
        buffer.push(b"\n");
        assert!(buffer.is_full());
        assert_eq!(buffer.bytes, b"1\ta\\tb\n");
        assert!(
            matches!(buffer.large.as_slice(), [(6, Large::Value(value))] if value.len() == large.len())
        );
    }
}

//! Whole handshakes, in pieces of every size, and bytes that no server sends.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::demands::{Channel, Demands};
use super::*;

/// What a server sends to let a client in by md5, and what follows.
const HANDSHAKE: &[u8] =
    b"R\0\0\0\x0C\0\0\0\x05abcdR\0\0\0\x08\0\0\0\0S\0\0\0\x08a\0b\0Z\0\0\0\x05Ix";

/// Hands out at most `piece` bytes at a time.
struct Pieces {
    bytes: &'static [u8],
    piece: usize,
    /// What was asked for at most.
    taken: usize,
}

impl AsyncRead for Pieces {
    fn poll_read(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let piece = this.piece.min(buf.remaining()).min(this.bytes.len());
        let (now, rest) = this.bytes.split_at(piece);
        buf.put_slice(now);
        this.bytes = rest;
        this.taken += piece;
        Poll::Ready(Ok(()))
    }
}

fn guarded(bytes: &'static [u8], piece: usize) -> Guarded<Pieces> {
    let judge = Judge::new(Demands::default(), Channel::Open);
    let pieces = Pieces {
        bytes,
        piece,
        taken: 0,
    };
    Guarded::new(pieces, judge)
}

#[tokio::test]
async fn every_byte_comes_through_in_order() {
    for piece in 1..=HANDSHAKE.len() {
        for most in 1..=HANDSHAKE.len() {
            let mut stream = guarded(HANDSHAKE, piece);
            let mut found = Vec::new();
            let mut bytes = vec![0; most];
            loop {
                match stream.read(&mut bytes).await.unwrap() {
                    0 => break,
                    read => found.extend_from_slice(&bytes[..read]),
                }
            }
            assert_eq!(found, HANDSHAKE, "pieces of {piece}, at most {most}");
        }
    }
}

#[tokio::test]
async fn nothing_is_read_beyond_the_message_that_is_judged() {
    let mut stream = guarded(HANDSHAKE, usize::MAX);
    let mut bytes = [0; 100];
    for (read, taken) in [(13, 13), (9, 22)] {
        assert_eq!(stream.read(&mut bytes).await.unwrap(), read);
        assert_eq!(stream.stream.taken, taken);
    }
}

#[tokio::test]
async fn an_error_of_the_server_comes_through() {
    let error = b"E\0\0\0\x08Mno\0\0";
    for piece in 1..=error.len() {
        let mut found = Vec::new();
        guarded(error, piece).read_to_end(&mut found).await.unwrap();
        assert_eq!(found, error);
    }
}

#[tokio::test]
async fn what_no_server_sends_ends_the_connection_before_it_is_read() {
    for (bytes, expected, taken) in [
        (&b"HTTP/1.1 400 Bad Request"[..], "found 0x48", 5),
        (b"N\0\0\0\x05\0", "found 0x4E", 5),
        (b"R\0\0\0\x04", "found a message of 4 bytes", 5),
        (b"R\0\0\0\x07\0\0\0", "found a message of 7 bytes", 5),
        (b"R\0\0\x07\xD1\0\0\0\0", "found a message of 2001 bytes", 5),
        (
            b"R\x7F\xFF\xFF\xFF\0\0\0\0",
            "found a message of 2147483647 bytes",
            5,
        ),
        (
            b"R\xFF\xFF\xFF\xFF\0\0\0\0",
            "found a message of 4294967295 bytes",
            5,
        ),
        (b"R\0\0\0\0", "found a message of 0 bytes", 5),
        (b"E\0\0\0\x04", "could not start a process", 5),
        (b"E\0\0\x75\x31", "could not start a process", 5),
        (b"En'a pas pu", "could not start a process", 5),
        (
            b"Ecould not fork new process",
            "could not start a process for the connection",
            5,
        ),
        (b"R\0\0\0\x08\0\0\0\x63", "found message 99", 9),
    ] {
        for piece in [1, 3, usize::MAX] {
            let mut stream = guarded(bytes, piece);
            let error = stream.read_to_end(&mut Vec::new()).await.unwrap_err();
            let refused = error
                .get_ref()
                .and_then(|inner| inner.downcast_ref::<Refused>());
            let shown = format!("{:?}", refused.unwrap().error);
            assert!(
                shown.starts_with("Transient: ") && shown.contains(expected),
                "{shown}"
            );
            assert_eq!(stream.stream.taken, taken, "{shown}");
        }
    }
}

#[tokio::test]
async fn a_connection_that_ends_within_a_message_ends_for_the_driver() {
    for length in 0..13 {
        let mut found = Vec::new();
        guarded(&HANDSHAKE[..length], 4)
            .read_to_end(&mut found)
            .await
            .unwrap();
        assert!(found.is_empty(), "half a message is not handed on");
    }
}

/// The server has said why, and closed the connection before it was asked.
struct Closed(&'static [u8]);

impl AsyncRead for Closed {
    fn poll_read(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let (now, rest) = this.0.split_at(buf.remaining().min(this.0.len()));
        buf.put_slice(now);
        this.0 = rest;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Closed {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        _buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn what_the_server_said_before_it_closed_the_connection_is_read() {
    let error = b"E\0\0\0\x08Mno\0\0";
    let judge = || Judge::new(Demands::default(), Channel::Open);
    let mut stream = Guarded::new(Closed(error), judge());
    stream.write_all(b"startup").await.unwrap();
    stream.flush().await.unwrap();
    let mut found = Vec::new();
    stream.read_to_end(&mut found).await.unwrap();
    assert_eq!(found, error);
    // Once the client is in, a failure is one.
    let mut stream = Guarded::new(Closed(b"R\0\0\0\x08\0\0\0\0"), judge());
    stream.read_to_end(&mut Vec::new()).await.unwrap();
    assert!(stream.write_all(b"query").await.is_err());
}

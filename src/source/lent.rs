//! A wire that is lent to the driver for the handshake of a replication connection and then taken
//! back.
//!
//! Two things differ from the bare wire: `replication=database` is added to the startup message,
//! which the driver cannot send; and the driver is given one message at a time and nothing after
//! the first ReadyForQuery, so that no byte which the server sends later can stay behind in the
//! driver's buffer.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsStream};

use crate::connect::wire::Wire;

/// Version 3.0 of the protocol, as in a startup message.
const PROTOCOL_3_0: [u8; 4] = 196_608_u32.to_be_bytes();

/// Tag of ReadyForQuery.
const READY_FOR_QUERY: u8 = b'Z';

/// The owner's handle.
pub(super) struct Owner(Arc<Mutex<Option<Wire>>>);

impl Owner {
    /// Takes the wire back; the driver's side of it is dead from now on.
    pub(super) fn take_back(self) -> Option<Wire> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The driver's side.
pub(super) struct Lent {
    wire: Arc<Mutex<Option<Wire>>>,
    startup: Startup,
    incoming: Incoming,
}

/// Lends the wire.
pub(super) fn lend(wire: Wire) -> (Owner, Lent) {
    let wire = Arc::new(Mutex::new(Some(wire)));
    let lent = Lent {
        wire: Arc::clone(&wire),
        startup: Startup::Awaited,
        incoming: Incoming::default(),
    };
    (Owner(wire), lent)
}

enum Startup {
    /// The driver's first write is the startup message.
    Awaited,
    /// The changed message, and how much of it has been written.
    Writing(Vec<u8>, usize),
    Done,
}

/// Where in the server's messages the driver is.
#[derive(Default)]
struct Incoming {
    header: [u8; 5],
    header_bytes: usize,
    body_left: usize,
    ended: bool,
}

impl Incoming {
    /// Bytes that may be read without going beyond the current header or body; 0 when nothing may
    /// be read.
    fn allowance(&self) -> usize {
        match self.body_left {
            _ if self.ended => 0,
            0 => self.header.len() - self.header_bytes,
            left => left,
        }
    }

    /// Notes what was read, never more than the allowance.
    fn note(&mut self, bytes: &[u8]) {
        if self.body_left > 0 {
            self.body_left = self.body_left.saturating_sub(bytes.len());
        } else {
            let place = self.header.iter_mut().skip(self.header_bytes);
            for (to, from) in place.zip(bytes) {
                *to = *from;
            }
            self.header_bytes += bytes.len();
            if self.header_bytes < self.header.len() {
                return;
            }
            let [_, length @ ..] = self.header;
            // The driver refuses a wrong length; here it only must not lead beyond the message.
            self.body_left = usize::try_from(u32::from_be_bytes(length))
                .map_or(0, |length| length.saturating_sub(4));
        }
        if self.body_left == 0 {
            let [tag, ..] = self.header;
            self.ended = tag == READY_FOR_QUERY;
            self.header_bytes = 0;
        }
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the connection was taken back")
}

/// The startup message with one more parameter.
fn with_replication(message: &[u8]) -> io::Result<Vec<u8>> {
    let wrong = || io::Error::other("expected a startup message");
    let (&length, rest) = message.split_first_chunk::<4>().ok_or_else(wrong)?;
    let whole = usize::try_from(u32::from_be_bytes(length)) == Ok(message.len());
    let (version, parameters) = rest.split_first_chunk::<4>().ok_or_else(wrong)?;
    let Some((0, parameters)) = parameters.split_last() else {
        return Err(wrong());
    };
    if !whole || *version != PROTOCOL_3_0 {
        return Err(wrong());
    }
    let mut changed = vec![0; 4];
    changed.extend_from_slice(version);
    changed.extend_from_slice(parameters);
    changed.extend_from_slice(b"replication\0database\0\0");
    let length = u32::try_from(changed.len()).map_err(|_| wrong())?;
    for (to, from) in changed.iter_mut().zip(length.to_be_bytes()) {
        *to = from;
    }
    Ok(changed)
}

impl Lent {
    fn poll_wire<T>(
        &self,
        poll: impl FnOnce(Pin<&mut Wire>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match self
            .wire
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut()
        {
            Some(wire) => poll(Pin::new(wire)),
            None => Poll::Ready(Err(gone())),
        }
    }
}

impl AsyncRead for Lent {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let allowance = this.incoming.allowance();
        if allowance == 0 {
            // After ReadyForQuery the driver has all that it needs: no task waits for this.
            return Poll::Pending;
        }
        let allowance = allowance.min(buf.remaining());
        let mut piece = ReadBuf::new(buf.initialize_unfilled_to(allowance));
        ready!(this.poll_wire(|wire| wire.poll_read(cx, &mut piece)))?;
        let read = piece.filled().len();
        this.incoming.note(piece.filled());
        buf.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Lent {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if matches!(this.startup, Startup::Awaited) {
            this.startup = Startup::Writing(with_replication(buf)?, 0);
        }
        let Lent { wire, startup, .. } = this;
        let mut wire = wire.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(wire) = wire.as_mut() else {
            return Poll::Ready(Err(gone()));
        };
        let Startup::Writing(message, written) = startup else {
            return Pin::new(wire).poll_write(cx, buf);
        };
        while let Some(rest) = message.get(*written..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut *wire).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                bytes => *written += bytes,
            }
        }
        *startup = Startup::Done;
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_wire(|wire| wire.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_wire(|wire| wire.poll_shutdown(cx))
    }
}

impl TlsStream for Lent {
    fn channel_binding(&self) -> ChannelBinding {
        match self
            .wire
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
        {
            Some(wire) => wire.channel_binding(),
            None => ChannelBinding::none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn startup_message_gets_one_more_parameter() {
        let message = b"\0\0\0\x13\0\x03\0\0user\0cdc\0\0";
        let mut message = message.to_vec();
        message[3] = u8::try_from(message.len()).unwrap();
        let changed = with_replication(&message).unwrap();
        assert_eq!(usize::from(changed[3]), changed.len());
        assert_eq!(&changed[8..], b"user\0cdc\0replication\0database\0\0");
    }

    #[test]
    fn other_first_messages_are_refused() {
        for message in [
            &b""[..],
            b"\0\0\0\x08\0\x03\0\0",
            b"\0\0\0\x09\x04\xd2\x16\x2f\0",
            b"\0\0\0\x0A\0\x03\0\0\0",
        ] {
            assert!(with_replication(message).is_err(), "{message:?}");
        }
    }

    #[test]
    fn nothing_is_read_beyond_the_first_ready_for_query() {
        let stream = b"R\0\0\0\x08\0\0\0\0N\0\0\0\x04Z\0\0\0\x05IS\0\0\0\x06abS";
        for most in 1..20 {
            let mut incoming = Incoming::default();
            let mut at = 0;
            while incoming.allowance() > 0 {
                let piece = incoming.allowance().min(most);
                incoming.note(&stream[at..at + piece]);
                at += piece;
            }
            assert_eq!(&stream[..at], &stream[..20], "in pieces of {most}");
        }
    }
}

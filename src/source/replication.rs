//! The replication connection: a walsender's other end, on a socket of our own.
//!
//! tokio-postgres authenticates (TLS, SCRAM with channel binding) on a wire that is lent to it;
//! then `cdc` takes the wire back and speaks the protocol itself, with `protocol/`
//! ([`Replication`]). That rests on `Config::connect_raw` of the pinned version; `tests/transport`
//! checks it.
//!
//! Invariants: received bytes stay in one buffer until they were decoded, so [`Replication::fill`]
//! may be dropped at any await. Bytes to send stay in another buffer until they are sent, so a
//! status update that was dropped half way is finished by the next one.
//! [`Replication::simple_query`] must not be dropped half way.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf, BufMut, BytesMut};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::error::from_report;
pub(crate) use crate::connect::cancel::CancelRequest;
use crate::connect::server::{Instance, Session};
use crate::connect::wire::Wire;
use crate::error::{Error, Result};
use crate::lsn::{Lsn, PgTimestamp};
use crate::progress::SourceIdentity;
pub use crate::protocol::frame::StreamFrame;
use crate::protocol::frame::{self, Backend, Frame, MAX_FRAME_BYTES, StandbyStatus};
use crate::sql;

mod open;

/// Most bytes that one [`Replication::fill`] reads.
const FILL_BYTES: usize = 1 << 20;
/// Room that the buffer keeps; more is given back after a large row. Well above what frames of
/// usual size need, so that nothing is allocated while they are streamed.
const KEEP_BYTES: usize = 8 * FILL_BYTES;
/// How long the server may take to accept a status update. A walsender reads while it writes, so
/// this is long.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the polite end of the connection may take.
const FINISH_TIMEOUT: Duration = Duration::from_secs(1);

/// Rows of a result; `None` is NULL.
pub(crate) type Rows = Vec<Vec<Option<String>>>;

/// What IDENTIFY_SYSTEM answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemIdentity {
    /// Identifier of the cluster, the same for its physical standbys.
    pub system_identifier: String,
    /// Timeline.
    pub timeline: i32,
    /// Position up to which the WAL is flushed.
    pub wal_flush: Lsn,
    /// Database of the connection.
    pub database: String,
}

impl SystemIdentity {
    /// Which source this is.
    pub(crate) fn source(&self) -> SourceIdentity {
        SourceIdentity {
            system_identifier: self.system_identifier.clone(),
            timeline: self.timeline,
            database: self.database.clone(),
        }
    }
}

/// A connection to a walsender.
pub struct Replication {
    wire: Wire,
    received: BytesMut,
    /// Bytes at the start of `received` that the last frame took; they are removed when the next
    /// one is asked for.
    consumed: usize,
    to_send: BytesMut,
    last_fill_was_full: bool,
    session: Session,
    cancel: CancelRequest,
    /// Its status names no flushed position.
    apart: bool,
}

impl std::fmt::Debug for Replication {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Replication(backend {})", self.session.backend_pid)
    }
}

impl Replication {
    /// Process id of the walsender.
    pub fn backend_pid(&self) -> i32 {
        self.session.backend_pid
    }

    /// server_version_num.
    pub fn server_version(&self) -> u32 {
        self.session.server_version
    }

    /// Whether the server is a standby.
    pub(crate) fn in_recovery(&self) -> bool {
        self.session.in_recovery
    }

    /// The server that this connection is with.
    pub(crate) fn instance(&self) -> Instance {
        self.session.instance
    }

    /// Ends, from outside, a command that this connection waits for.
    pub(crate) fn cancel_token(&self) -> CancelRequest {
        self.cancel.clone()
    }

    /// Runs a command and returns the rows of its last result.
    ///
    /// Not to be dropped half way: the next command would take the answer for its own.
    ///
    /// # Errors
    /// What the server says, by its SQLSTATE; transient if the connection is lost.
    pub async fn simple_query(&mut self, sql: &str) -> Result<Rows> {
        self.send_query(sql).await?;
        let mut rows = Rows::new();
        let mut failure = None;
        loop {
            match self.message().await {
                Ok(Answer::NewResult) => rows.clear(),
                Ok(Answer::Row(row)) => rows.push(row),
                Ok(Answer::Ended) => {}
                Ok(Answer::Failed(error)) => failure = Some(error),
                Ok(Answer::Ready) => break,
                Ok(Answer::Streaming) => {
                    return Err(Error::protocol(
                        "expected a result, found the start of a stream",
                    ));
                }
                // After a fatal error the server closes the connection: the error says more than
                // the end.
                Err(lost) => return Err(failure.unwrap_or(lost)),
            }
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(rows),
        }
    }

    /// Asks the server who it is and how far its WAL is flushed.
    ///
    /// # Errors
    /// As [`Self::simple_query`].
    pub async fn identify_system(&mut self) -> Result<SystemIdentity> {
        let rows = self.simple_query("IDENTIFY_SYSTEM").await?;
        let mut values = rows.into_iter().flatten();
        let mut next = || values.next().flatten();
        let identity = (|| {
            Some(SystemIdentity {
                system_identifier: next()?,
                timeline: next()?.parse().ok()?,
                wal_flush: next()?.parse().ok()?,
                database: next()?,
            })
        })();
        identity.ok_or_else(|| Error::protocol("could not read the answer to IDENTIFY_SYSTEM"))
    }

    /// Starts streaming from a slot: pgoutput, proto_version 1, at `at` or at the slot's own
    /// position (0/0).
    ///
    /// # Errors
    /// What the server says: the slot does not exist (42704), is in use (55006), is invalidated
    /// (55000).
    pub async fn start(&mut self, slot: &str, at: Lsn, publication: &str) -> Result<()> {
        // The replication grammar knows quotes that are doubled, but no E'' and no backslashes. The
        // value is a list of identifiers.
        let publications = sql::ident(publication).replace('\'', "''");
        let command = format!(
            "START_REPLICATION SLOT {} LOGICAL {at} (proto_version '1', publication_names '{publications}')",
            sql::ident(slot)
        );
        let doing = || format!("could not start streaming from slot \"{slot}\"");
        self.send_query(&command).await?;
        let mut failure = None;
        loop {
            match self.message().await {
                Ok(Answer::Streaming) => return Ok(()),
                Ok(Answer::Failed(error)) => failure = Some(error),
                Ok(Answer::Ready) => break,
                Ok(_) => {}
                Err(lost) => return Err(failure.unwrap_or(lost).context(doing())),
            }
        }
        let nothing = || Error::protocol("the server did not start to stream");
        Err(failure.unwrap_or_else(nothing).context(doing()))
    }

    /// Waits for bytes of the server and takes what is there, up to a megabyte. May be dropped at
    /// any time.
    ///
    /// # Errors
    /// Transient: the connection is lost.
    pub async fn fill(&mut self) -> Result<()> {
        self.make_room();
        let mut taken = 0;
        let outcome = poll_fn(|cx| {
            while taken < FILL_BYTES {
                let mut room = (&mut self.received).limit(FILL_BYTES - taken);
                match pin!(self.wire.read_buf(&mut room)).poll(cx) {
                    Poll::Ready(Ok(0)) => break,
                    Poll::Ready(Ok(bytes)) => taken += bytes,
                    Poll::Ready(Err(error)) if taken == 0 => return Poll::Ready(Err(error)),
                    Poll::Pending if taken == 0 => return Poll::Pending,
                    // What was read is handed out first; an error shows again at the next read.
                    Poll::Ready(Err(_)) | Poll::Pending => break,
                }
            }
            Poll::Ready(Ok(()))
        })
        .await;
        self.last_fill_was_full = taken >= FILL_BYTES;
        match outcome {
            Ok(()) if taken > 0 => Ok(()),
            Ok(()) => Err(Error::transient(
                "the server closed the replication connection",
            )),
            Err(error) => {
                Err(Error::transient("the replication connection is lost").with_source(error))
            }
        }
    }

    /// Whether the last [`Self::fill`] stopped at its limit: more is waiting, so the stream is
    /// behind.
    pub fn last_fill_was_full(&self) -> bool {
        self.last_fill_was_full
    }

    /// The next frame of the stream that is in the buffer as a whole; `None` if [`Self::fill`] must
    /// get more.
    ///
    /// # Errors
    /// What the server says; transient if the stream is malformed.
    pub fn next_frame(&mut self) -> Result<Option<StreamFrame<'_>>> {
        loop {
            self.discard_consumed();
            let Some(bytes) = self.complete_frame()? else {
                return Ok(None);
            };
            self.consumed = bytes;
            // Decoded twice, since a frame that is returned borrows the buffer for the rest of the
            // function.
            let tag = self.received.first().copied().unwrap_or_default();
            if !matches!(tag, b'N' | b'S' | b'Z') {
                break;
            }
            note_aside(Backend::decode(self.consumed_frame()?)?);
        }
        match Backend::decode(self.consumed_frame()?)? {
            Backend::CopyData(data) => StreamFrame::decode(data).map(Some),
            // At its shutdown the server ends the command without ending the copy.
            Backend::CopyDone | Backend::CommandComplete => Ok(Some(StreamFrame::CopyDone)),
            Backend::ErrorResponse(report) => Err(from_report(&report)),
            other => Err(Error::protocol(format!(
                "expected a frame of the stream, found {other:?}"
            ))),
        }
    }

    /// Tells the server how far the stream has got here. For the slot only `flushed` counts.
    ///
    /// # Errors
    /// Transient: the connection is lost, or the server does not take it within 10 s.
    pub async fn send_status(
        &mut self,
        written: Lsn,
        flushed: Lsn,
        applied: Lsn,
        reply_requested: bool,
    ) -> Result<()> {
        let flushed = if self.apart { Lsn::ZERO } else { flushed };
        self.add_status(StandbyStatus {
            written,
            flushed,
            applied,
            time: now(),
            reply_requested,
        });
        self.flush().await
    }

    /// With `apart`, no commit of the source waits for this connection from now on. Without it,
    /// commits may wait again, if the server's settings say so.
    ///
    /// A walsender whose last status named no flushed position is no synchronous standby, whatever
    /// its name (13 to 18: SyncRepGetCandidateStandbys; pg_receivewal and pg_basebackup rely on
    /// that). The slot does not move while the connection stands apart.
    pub(crate) fn stand_apart(&mut self, apart: bool) {
        self.apart = apart;
    }

    /// wal_sender_timeout of this connection; zero is off.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn sender_timeout(&mut self) -> Result<Duration> {
        let rows = self
            .simple_query(
                "SELECT setting FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout'",
            )
            .await?;
        let text = rows
            .first()
            .and_then(|row| row.first())
            .and_then(Option::as_deref)
            .unwrap_or("60000");
        Ok(Duration::from_millis(text.parse().unwrap_or(60_000)))
    }

    /// Moves the slot of a connection that stands apart, with the next status: it counts as a
    /// standby only until the server has read a second status, which is sent together with the
    /// first.
    pub(crate) fn move_slot(&mut self, written: Lsn, flushed: Lsn) {
        if self.apart {
            self.add_status(StandbyStatus {
                written,
                flushed,
                applied: flushed,
                time: now(),
                reply_requested: false,
            });
        }
    }

    fn add_status(&mut self, status: StandbyStatus) {
        self.to_send.extend_from_slice(&status.encode());
    }

    /// Ends the stream and the session politely, within a second; then the socket is closed in any
    /// case.
    pub async fn finish(mut self) {
        let end = async {
            frontend::copy_done(&mut self.to_send);
            frontend::terminate(&mut self.to_send);
            self.flush().await?;
            self.wire
                .shutdown()
                .await
                .map_err(|error| Error::transient("lost").with_source(error))
        };
        // Nothing depends on it: the server notices the closed socket too.
        let _ = timeout(FINISH_TIMEOUT, end).await;
    }

    async fn send_query(&mut self, sql: &str) -> Result<()> {
        frontend::query(sql, &mut self.to_send)
            .map_err(|error| Error::configuration("cannot send a command").with_source(error))?;
        self.flush().await
    }

    async fn flush(&mut self) -> Result<()> {
        let write = async {
            while self.to_send.has_remaining() {
                if self.wire.write_buf(&mut self.to_send).await? == 0 {
                    return Err(io::Error::from(io::ErrorKind::WriteZero));
                }
            }
            self.wire.flush().await
        };
        match timeout(SEND_TIMEOUT, write).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                Err(Error::transient("the replication connection is lost").with_source(error))
            }
            Err(_) => Err(Error::transient(format!(
                "the server took nothing on the replication connection for {} s",
                SEND_TIMEOUT.as_secs()
            ))),
        }
    }

    /// The next message of an answer.
    async fn message(&mut self) -> Result<Answer> {
        loop {
            self.discard_consumed();
            let Some(bytes) = self.complete_frame()? else {
                self.fill().await?;
                continue;
            };
            self.consumed = bytes;
            match Backend::decode(self.consumed_frame()?)? {
                Backend::RowDescription { .. } => return Ok(Answer::NewResult),
                Backend::DataRow(row) => {
                    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
                    return Ok(Answer::Row(
                        row.0.into_iter().map(|value| value.map(text)).collect(),
                    ));
                }
                Backend::CommandComplete | Backend::EmptyQueryResponse => return Ok(Answer::Ended),
                Backend::ReadyForQuery => return Ok(Answer::Ready),
                Backend::ErrorResponse(report) => return Ok(Answer::Failed(from_report(&report))),
                Backend::CopyBothResponse => return Ok(Answer::Streaming),
                Backend::CopyData(_) | Backend::CopyDone => {
                    return Err(Error::protocol(
                        "expected an answer, found a piece of a stream",
                    ));
                }
                aside @ (Backend::NoticeResponse(_) | Backend::ParameterStatus { .. }) => {
                    note_aside(aside)
                }
            }
        }
    }

    fn complete_frame(&self) -> Result<Option<usize>> {
        let length = frame::length(&self.received, MAX_FRAME_BYTES)?;
        Ok(length.filter(|bytes| *bytes <= self.received.len()))
    }

    fn consumed_frame(&self) -> Result<Frame<'_>> {
        frame::split(&self.received, MAX_FRAME_BYTES)?
            .ok_or_else(|| Error::protocol("expected a whole frame in the buffer"))
    }

    fn discard_consumed(&mut self) {
        let bytes = self.consumed.min(self.received.len());
        self.received.advance(bytes);
        self.consumed = 0;
    }

    /// Room for the next read. A large row gets its room at once: growing step by step would take
    /// up to twice as much.
    fn make_room(&mut self) {
        self.discard_consumed();
        let frame = frame::length(&self.received, MAX_FRAME_BYTES)
            .ok()
            .flatten();
        let missing = frame.unwrap_or(0).saturating_sub(self.received.len());
        if self.received.capacity() > KEEP_BYTES && self.received.len() + missing <= FILL_BYTES {
            let mut smaller = BytesMut::with_capacity(2 * FILL_BYTES);
            smaller.extend_from_slice(&self.received);
            self.received = smaller;
        }
        self.received.reserve(missing.max(FILL_BYTES));
    }
}

/// A message of the server in answer to a command.
enum Answer {
    NewResult,
    Row(Vec<Option<String>>),
    Ended,
    Failed(Error),
    Ready,
    Streaming,
}

/// Logs a notice; ignores other asynchronous messages.
fn note_aside(message: Backend<'_>) {
    if let Backend::NoticeResponse(report) = message {
        let (severity, sqlstate) = (report.severity, report.sqlstate);
        tracing::debug!(
            severity,
            sqlstate,
            message = report.message,
            "notice from the source"
        );
    }
}

fn now() -> PgTimestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    PgTimestamp::from_unix_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

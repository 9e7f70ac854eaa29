//! Frames: the messages of the connection, and what a replication stream carries inside of
//! CopyData.
//!
//! Comes in: the receive buffer. Goes out: one message at a time, borrowed from it; and the encoded
//! standby status update. Only what a replication connection sees after authentication is known
//! here; the handshake is the driver's.

use std::fmt;

use super::reader::Reader;
use crate::error::{Error, Result};
use crate::lsn::{Lsn, PgTimestamp};

/// Largest frame that is accepted. PostgreSQL builds a message in a buffer of at most 1 GiB; the
/// slack is for headers.
pub const MAX_FRAME_BYTES: usize = (1 << 30) + (1 << 20);

/// Bytes of a frame before its body: the tag and an Int32 length that counts itself.
const HEADER_BYTES: usize = 5;

/// One message: its type and its body, not yet decoded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Byte that names the type.
    pub tag: u8,
    /// Everything after the length.
    pub body: &'a [u8],
}

impl Frame<'_> {
    /// Bytes that the frame takes in the buffer.
    pub fn bytes(&self) -> usize {
        HEADER_BYTES + self.body.len()
    }
}

/// Prints no body: it may hold a row.
impl fmt::Debug for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Frame({:?}, {} bytes)",
            char::from(self.tag),
            self.body.len()
        )
    }
}

/// Bytes of the frame at the start of `buffer`, its header included; `None` if the header is not
/// complete yet.
///
/// # Errors
/// A length below 4 or a frame of more than `max_bytes`: the stream is out of step and cannot
/// continue.
pub(crate) fn length(buffer: &[u8], max_bytes: usize) -> Result<Option<usize>> {
    let Some(([tag, length @ ..], _)) = buffer.split_first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let length = i32::from_be_bytes(*length);
    match usize::try_from(length) {
        Ok(bytes) if bytes >= 4 && bytes < max_bytes => Ok(Some(bytes + 1)),
        _ => Err(Error::protocol(format!(
            "expected a length of 4 to {max_bytes} bytes for message {:?} (0x{tag:02X}), found {length}",
            char::from(*tag)
        ))),
    }
}

/// The frame at the start of `buffer`; `None` if it is not complete yet.
///
/// # Errors
/// As [`length`].
pub fn split(buffer: &[u8], max_bytes: usize) -> Result<Option<Frame<'_>>> {
    let Some(bytes) = length(buffer, max_bytes)? else {
        return Ok(None);
    };
    let frame = buffer.get(..bytes).and_then(|frame| {
        let (header, body) = frame.split_at_checked(HEADER_BYTES)?;
        Some(Frame {
            tag: *header.first()?,
            body,
        })
    });
    Ok(frame)
}

/// A message of the server.
#[derive(Debug, PartialEq, Eq)]
pub enum Backend<'a> {
    /// `W`: both sides send CopyData from now on.
    CopyBothResponse,
    /// `d`: a piece of the stream.
    CopyData(CopyData<'a>),
    /// `c`: the server ends the stream.
    CopyDone,
    /// `E`: an error.
    ErrorResponse(Report),
    /// `N`: a warning or notice.
    NoticeResponse(Report),
    /// `S`: a setting that the server reports.
    ParameterStatus {
        /// Name of the setting.
        name: &'a [u8],
        /// Its value.
        value: &'a [u8],
    },
    /// `Z`: the next command may be sent.
    ReadyForQuery,
    /// `T`: a result set begins.
    RowDescription {
        /// Number of columns.
        columns: usize,
    },
    /// `D`: a row of a result set.
    DataRow(DataRow<'a>),
    /// `C`: a command has ended.
    CommandComplete,
    /// `I`: the command was empty.
    EmptyQueryResponse,
}

/// The bytes inside of a CopyData message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CopyData<'a>(pub &'a [u8]);

impl fmt::Debug for CopyData<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CopyData({} bytes)", self.0.len())
    }
}

/// The values of a row of a result set; `None` is NULL.
#[derive(PartialEq, Eq)]
pub struct DataRow<'a>(pub Vec<Option<&'a [u8]>>);

impl fmt::Debug for DataRow<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataRow({} columns)", self.0.len())
    }
}

/// What the server says in an error or a notice. Its detail may quote a row: it is for
/// `source/error.rs`, which decides.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// ERROR, FATAL, PANIC, WARNING, NOTICE ... (never translated).
    pub severity: String,
    /// SQLSTATE.
    pub sqlstate: String,
    /// Primary message.
    pub message: String,
    /// Detail.
    pub detail: Option<String>,
    /// Hint.
    pub hint: Option<String>,
}

impl<'a> Backend<'a> {
    /// Reads the body of a frame.
    ///
    /// # Errors
    /// A message that is malformed, or none that a replication connection may get.
    pub fn decode(frame: Frame<'a>) -> Result<Self> {
        let body = |message| Reader::new(message, frame.body, HEADER_BYTES);
        match frame.tag {
            b'd' => Ok(Self::CopyData(CopyData(frame.body))),
            b'W' => Ok(Self::CopyBothResponse),
            b'c' => body("CopyDone").finish().map(|()| Self::CopyDone),
            b'E' => report(body("ErrorResponse")).map(Self::ErrorResponse),
            b'N' => report(body("NoticeResponse")).map(Self::NoticeResponse),
            b'S' => parameter_status(body("ParameterStatus")),
            b'Z' => ready_for_query(body("ReadyForQuery")),
            b'T' => row_description(body("RowDescription")),
            b'D' => data_row(body("DataRow")),
            b'C' => command_complete(body("CommandComplete")),
            b'I' => body("EmptyQueryResponse")
                .finish()
                .map(|()| Self::EmptyQueryResponse),
            tag => Err(Error::protocol(format!(
                "unrecognized message type {:?} (0x{tag:02X})",
                char::from(tag)
            ))),
        }
    }
}

fn report(mut reader: Reader<'_>) -> Result<Report> {
    let mut report = Report::default();
    let mut translated_severity = None;
    loop {
        let field = reader.u8("field type")?;
        if field == 0 {
            break;
        }
        let text = String::from_utf8_lossy(reader.cstr("field")?).into_owned();
        match field {
            b'S' => translated_severity = Some(text),
            b'V' => report.severity = text,
            b'C' => report.sqlstate = text,
            b'M' => report.message = text,
            b'D' => report.detail = Some(text),
            b'H' => report.hint = Some(text),
            // Position, context, file and line: not needed here. Unknown types are to be ignored.
            _ => {}
        }
    }
    reader.finish()?;
    if report.severity.is_empty() {
        report.severity = translated_severity.unwrap_or_default();
    }
    Ok(report)
}

fn parameter_status(mut reader: Reader<'_>) -> Result<Backend<'_>> {
    let name = reader.cstr("name")?;
    let value = reader.cstr("value")?;
    reader.finish()?;
    Ok(Backend::ParameterStatus { name, value })
}

fn ready_for_query(mut reader: Reader<'_>) -> Result<Backend<'_>> {
    reader.u8("transaction status")?;
    reader.finish()?;
    Ok(Backend::ReadyForQuery)
}

fn row_description(mut reader: Reader<'_>) -> Result<Backend<'_>> {
    // A name of no bytes with its end, and 18 bytes of facts, none of which is needed here.
    let columns = reader.count16("number of columns", 19)?;
    for _ in 0..columns {
        reader.cstr("column name")?;
        reader.bytes(18, "column")?;
    }
    reader.finish()?;
    Ok(Backend::RowDescription { columns })
}

fn data_row(mut reader: Reader<'_>) -> Result<Backend<'_>> {
    let columns = reader.count16("number of columns", 4)?;
    let mut values = Vec::with_capacity(columns);
    for _ in 0..columns {
        let start = reader.clone();
        values.push(match reader.i32("length of a value")? {
            -1 => None,
            length => {
                let length = usize::try_from(length).map_err(|_| {
                    start.error(format_args!(
                        "expected a length of -1 or more, found {length}"
                    ))
                })?;
                Some(reader.bytes(length, "value")?)
            }
        });
    }
    reader.finish()?;
    Ok(Backend::DataRow(DataRow(values)))
}

fn command_complete(mut reader: Reader<'_>) -> Result<Backend<'_>> {
    reader.cstr("command tag")?;
    reader.finish()?;
    Ok(Backend::CommandComplete)
}

/// A piece of the replication stream.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum StreamFrame<'a> {
    /// `w`: a message of the output plugin.
    WalData {
        /// Position of the WAL that the payload stems from.
        start: Lsn,
        /// Position that the server has reached, as it says (for a logical stream mostly the same
        /// as `start`).
        end: Lsn,
        /// Server's clock when it was sent.
        send_time: PgTimestamp,
        /// One pgoutput message.
        payload: &'a [u8],
    },
    /// `k`: no data, but a new position.
    Keepalive {
        /// Position up to which everything was sent on this connection.
        wal_end: Lsn,
        /// Server's clock when it was sent.
        send_time: PgTimestamp,
        /// Whether the server cuts the connection unless it gets an answer soon.
        reply_requested: bool,
    },
    /// The server has ended the stream.
    CopyDone,
}

impl fmt::Debug for StreamFrame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WalData { start, payload, .. } => {
                write!(f, "WalData({start}, {} bytes)", payload.len())
            }
            Self::Keepalive {
                wal_end,
                reply_requested,
                ..
            } => write!(
                f,
                "Keepalive({wal_end}, reply_requested: {reply_requested})"
            ),
            Self::CopyDone => f.write_str("CopyDone"),
        }
    }
}

impl<'a> StreamFrame<'a> {
    /// Reads what is inside of a CopyData message.
    ///
    /// # Errors
    /// A frame that is malformed or of another type than `w` and `k`.
    pub fn decode(data: CopyData<'a>) -> Result<Self> {
        let Some((tag, fields)) = data.0.split_first() else {
            return Err(Error::protocol(
                "expected a frame inside of CopyData, found nothing",
            ));
        };
        match tag {
            b'w' => {
                let mut reader = Reader::new("XLogData", fields, 1);
                Ok(Self::WalData {
                    start: reader.lsn("start")?,
                    end: reader.lsn("end")?,
                    send_time: reader.time("send time")?,
                    payload: reader.rest(),
                })
            }
            b'k' => {
                let mut reader = Reader::new("keepalive", fields, 1);
                let keepalive = Self::Keepalive {
                    wal_end: reader.lsn("wal_end")?,
                    send_time: reader.time("send time")?,
                    reply_requested: reader.u8("reply_requested")? != 0,
                };
                reader.finish()?;
                Ok(keepalive)
            }
            tag => Err(Error::protocol(format!(
                "unrecognized frame type {:?} (0x{tag:02X}) in the replication stream",
                char::from(*tag)
            ))),
        }
    }
}

/// A standby status update: how far the stream has got on this side. For a slot only `flushed`
/// counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StandbyStatus {
    /// Received.
    pub written: Lsn,
    /// Durable: what the slot may forget.
    pub flushed: Lsn,
    /// Visible to readers.
    pub applied: Lsn,
    /// This side's clock.
    pub time: PgTimestamp,
    /// Whether the server shall answer at once.
    pub reply_requested: bool,
}

impl StandbyStatus {
    /// Bytes of a status update with its CopyData frame.
    pub(crate) const BYTES: usize = HEADER_BYTES + 34;

    /// The update as a CopyData message, ready to be sent.
    pub(crate) fn encode(&self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        let fields = [
            &b"d\0\0\0\x26r"[..],
            &self.written.0.to_be_bytes(),
            &self.flushed.0.to_be_bytes(),
            &self.applied.0.to_be_bytes(),
            &self.time.0.to_be_bytes(),
            &[u8::from(self.reply_requested)],
        ];
        for (to, from) in out.iter_mut().zip(fields.into_iter().flatten()) {
            *to = *from;
        }
        out
    }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;

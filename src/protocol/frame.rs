//! Frames: the messages of the connection, and what a replication stream carries inside of CopyData.
//!
//! Comes in: the receive buffer. Goes out: one message at a time, borrowed from it; and the encoded standby
//! status update. Only what a replication connection sees after authentication is known here; the handshake
//! is the driver's.

use std::fmt;

use super::reader::Reader;
use crate::error::{Error, Result};
use crate::lsn::{Lsn, PgTimestamp};

/// Largest frame that is accepted. PostgreSQL builds a message in a buffer of at most 1 GiB; the slack is for headers.
pub const MAX_FRAME_BYTES: usize = (1 << 30) + (1 << 20);

/// Bytes of a frame before its body: the tag and an Int32 length that counts itself.
const HEADER_BYTES: usize = 5;

/// One message: its type and its body, not yet looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Byte that tells the type.
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
        write!(f, "Frame({:?}, {} bytes)", char::from(self.tag), self.body.len())
    }
}

/// Bytes of the frame at the start of `buffer`, its header included; `None` if the header is not complete yet.
///
/// # Errors
/// A length below 4 or a frame of more than `max_bytes`: the stream is out of step and cannot go on.
pub fn length(buffer: &[u8], max_bytes: usize) -> Result<Option<usize>> {
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

/// What the server says in an error or a notice. Its detail may quote a row: it is for `source/error.rs`, which decides.
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
            // Position, context, file and line: of no use here. Types to come are to be ignored.
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
    // A name of no bytes with its end, and 18 bytes of facts, of which nothing is needed here.
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
                    start.error(format_args!("expected a length of -1 or more, found {length}"))
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
        /// Position that the server has reached, as it says (for a logical stream mostly the same as `start`).
        end: Lsn,
        /// Server's clock when it was sent.
        send_time: PgTimestamp,
        /// One pgoutput message.
        payload: &'a [u8],
    },
    /// `k`: nothing to tell, but the position moves on.
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
            } => write!(f, "Keepalive({wal_end}, reply_requested: {reply_requested})"),
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

/// A standby status update: how far the stream has got on this side. For a slot only `flushed` counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StandbyStatus {
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
    pub const BYTES: usize = HEADER_BYTES + 34;

    /// The update as a CopyData message, ready to be sent.
    pub fn encode(&self) -> [u8; Self::BYTES] {
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn framed(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[tag][..], &length.to_be_bytes(), body].concat()
    }

    fn decode(tag: u8, body: &[u8]) -> Result<Backend<'_>> {
        Backend::decode(Frame { tag, body })
    }

    #[test]
    fn frames_are_split_one_after_the_other() {
        let buffer = [framed(b'd', b"abc"), framed(b'c', b""), framed(b'Z', b"I")].concat();
        let mut rest = &buffer[..];
        let mut found = Vec::new();
        while let Some(frame) = split(rest, MAX_FRAME_BYTES).unwrap() {
            found.push((frame.tag, frame.body));
            rest = &rest[frame.bytes()..];
        }
        assert_eq!(found, [(b'd', &b"abc"[..]), (b'c', b""), (b'Z', b"I")]);
        assert!(rest.is_empty());
    }

    #[test]
    fn a_frame_cut_at_any_byte_waits_for_more() {
        let buffer = framed(b'd', b"abc");
        for end in 0..buffer.len() {
            assert_eq!(
                split(&buffer[..end], MAX_FRAME_BYTES).unwrap(),
                None,
                "cut at {end}"
            );
        }
    }

    #[test]
    fn lengths_out_of_bounds_are_refused_before_the_body_is_there() {
        for length in [i32::MIN, -1, 0, 3, 100, i32::MAX] {
            let header = [&b"d"[..], &length.to_be_bytes()].concat();
            let error = split(&header, 100).unwrap_err();
            assert_eq!(
                error.message(),
                format!("expected a length of 4 to 100 bytes for message 'd' (0x64), found {length}")
            );
        }
        assert_eq!(length(b"d\0\0\0\x04", 100).unwrap(), Some(5));
        // The largest row that a server can send, with what is around it; no more.
        for (bytes, taken) in [(0x4000_0400, true), (0x4010_0000, false), (i32::MAX, false)] {
            let header = [&b"d"[..], &bytes.to_be_bytes()].concat();
            assert_eq!(length(&header, MAX_FRAME_BYTES).is_ok(), taken, "{bytes}");
        }
    }

    #[test]
    fn messages_of_the_server_are_read() {
        for (tag, body, expected) in [
            (b'W', &b"\0\0\0"[..], Backend::CopyBothResponse),
            (b'd', b"k...", Backend::CopyData(CopyData(b"k..."))),
            (b'c', b"", Backend::CopyDone),
            (b'Z', b"I", Backend::ReadyForQuery),
            (b'C', b"SELECT 1\0", Backend::CommandComplete),
            (b'I', b"", Backend::EmptyQueryResponse),
            (
                b'S',
                b"TimeZone\0UTC\0",
                Backend::ParameterStatus {
                    name: b"TimeZone",
                    value: b"UTC",
                },
            ),
            (
                b'T',
                b"\0\x01a\0\0\0\0\0\0\0\0\0\0\x19\xFF\xFF\xFF\xFF\xFF\xFF\0\0",
                Backend::RowDescription { columns: 1 },
            ),
            (
                b'D',
                b"\0\x02\0\0\0\x01x\xFF\xFF\xFF\xFF",
                Backend::DataRow(DataRow(vec![Some(b"x"), None])),
            ),
        ] {
            assert_eq!(decode(tag, body).unwrap(), expected);
            // CopyData and CopyBothResponse are not looked into; the others miss every byte that is cut off.
            for end in 0..body.len() {
                assert!(matches!(tag, b'd' | b'W') || decode(tag, &body[..end]).is_err());
            }
        }
    }

    #[test]
    fn errors_of_the_server_are_read_field_by_field() {
        let body = b"SFEHLER\0VERROR\0C55006\0Mslot is active\0Dd\0Hh\0Fslot.c\0\0";
        let report = Report {
            severity: "ERROR".into(),
            sqlstate: "55006".into(),
            message: "slot is active".into(),
            detail: Some("d".into()),
            hint: Some("h".into()),
        };
        assert_eq!(
            decode(b'E', body).unwrap(),
            Backend::ErrorResponse(report.clone())
        );
        assert_eq!(decode(b'N', body).unwrap(), Backend::NoticeResponse(report));
        for end in 0..body.len() {
            assert!(decode(b'E', &body[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn malformed_messages_are_refused() {
        for (tag, body, text) in [
            (b'?', &b""[..], "unrecognized message type '?' (0x3F)"),
            (
                b'Z',
                b"II",
                "malformed ReadyForQuery message: expected the end of the message, found 1 more bytes at offset 6",
            ),
            (
                b'D',
                b"\x7F\xFF",
                "malformed DataRow message: a number of columns of 32767 does not fit into the 0 bytes after it, at offset 5",
            ),
            (
                b'D',
                b"\0\x01\xFF\xFF\xFF\xFE",
                "malformed DataRow message: expected a length of -1 or more, found -2 at offset 7",
            ),
            (
                b'S',
                b"a\0b",
                "malformed ParameterStatus message: expected a zero byte at the end of value that begins at offset 7",
            ),
        ] {
            assert_eq!(decode(tag, body).unwrap_err().message(), text);
        }
    }

    const WAL_DATA: &[u8] = b"w\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03payload";
    const KEEPALIVE: &[u8] = b"k\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\x01";

    #[test]
    fn stream_frames_are_read() {
        assert_eq!(
            StreamFrame::decode(CopyData(WAL_DATA)).unwrap(),
            StreamFrame::WalData {
                start: Lsn(1),
                end: Lsn(2),
                send_time: PgTimestamp(3),
                payload: b"payload",
            }
        );
        let keepalive = StreamFrame::decode(CopyData(KEEPALIVE)).unwrap();
        assert_eq!(
            keepalive,
            StreamFrame::Keepalive {
                wal_end: Lsn(1),
                send_time: PgTimestamp(2),
                reply_requested: true,
            }
        );
    }

    #[test]
    fn stream_frames_that_are_cut_or_too_long_are_refused() {
        for end in 0..25 {
            assert!(
                StreamFrame::decode(CopyData(&WAL_DATA[..end])).is_err(),
                "cut at {end}"
            );
        }
        for end in 0..KEEPALIVE.len() {
            assert!(
                StreamFrame::decode(CopyData(&KEEPALIVE[..end])).is_err(),
                "cut at {end}"
            );
        }
        assert!(StreamFrame::decode(CopyData(&[KEEPALIVE, b"\0"].concat())).is_err());
        let error = StreamFrame::decode(CopyData(b"x")).unwrap_err();
        assert_eq!(
            error.message(),
            "unrecognized frame type 'x' (0x78) in the replication stream"
        );
    }

    #[test]
    fn a_status_update_is_a_copy_data_message() {
        let bytes = StandbyStatus {
            written: Lsn(3),
            flushed: Lsn(2),
            applied: Lsn(1),
            time: PgTimestamp(-1),
            reply_requested: true,
        }
        .encode();
        let expected = b"d\0\0\0\x26r\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x01\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01";
        assert_eq!(bytes, *expected);
        assert_eq!(
            split(&bytes, MAX_FRAME_BYTES).unwrap().unwrap().bytes(),
            bytes.len()
        );
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(tag: u8, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(Some(frame)) = split(&bytes, 100) {
                prop_assert!(frame.bytes() <= bytes.len());
            }
            let _ = decode(tag, &bytes);
            let _ = StreamFrame::decode(CopyData(&bytes));
        }
    }
}

//! Frames, whole, cut, damaged and shown.

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
        // The bodies of CopyData and CopyBothResponse are not decoded; the others miss every byte
        // that is cut off.
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
    // A pooler in between may leave the severity out that is never translated.
    let Backend::ErrorResponse(report) = decode(b'E', b"SFATAL\0C57P01\0Mx\0\0").unwrap() else {
        panic!("not an error");
    };
    assert_eq!(report.severity, "FATAL");
}

#[test]
fn debug_output_holds_no_value() {
    let frame = Frame {
        tag: b'D',
        body: b"secret",
    };
    let stream = StreamFrame::WalData {
        start: Lsn(1),
        end: Lsn(2),
        send_time: PgTimestamp(3),
        payload: b"secret",
    };
    for (shown, expected) in [
        (format!("{frame:?}"), "Frame('D', 6 bytes)"),
        (format!("{:?}", CopyData(b"secret")), "CopyData(6 bytes)"),
        (
            format!("{:?}", DataRow(vec![Some(b"secret")])),
            "DataRow(1 columns)",
        ),
        (format!("{stream:?}"), "WalData(0/1, 6 bytes)"),
        (
            format!("{:?}", StreamFrame::decode(CopyData(KEEPALIVE)).unwrap()),
            "Keepalive(0/1, reply_requested: true)",
        ),
        (format!("{:?}", StreamFrame::CopyDone), "CopyDone"),
    ] {
        assert_eq!(shown, expected);
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

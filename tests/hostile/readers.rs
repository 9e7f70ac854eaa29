//! The readers of bytes that come from outside, each as a function that takes any bytes and asserts
//! what must hold for them. Shared by `tests/hostile.rs` and the targets of cargo-fuzz in `fuzz/`.

use std::collections::BTreeMap;

use cdc::conninfo::{Conninfo, Environment};
use cdc::protocol::frame::{self, Backend, StreamFrame};
use cdc::protocol::pgoutput::{self, Message};
use cdc::protocol::tuple::Tuple;
use cdc::row::Cell;

/// Frames are accepted up to this size here, so that the refusal of longer ones is reached as well.
const MAX_FRAME_BYTES: usize = 1 << 16;

/// Splits frames off the bytes and reads each of them, and what is inside of it, until they end or
/// are refused.
pub fn frames(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(Some(frame)) = frame::split(rest, MAX_FRAME_BYTES) {
        // Five bytes at least: this ends.
        assert!((5..=rest.len()).contains(&frame.bytes()));
        rest = &rest[frame.bytes()..];
        match Backend::decode(frame) {
            Ok(Backend::CopyData(data)) => {
                if let Ok(StreamFrame::WalData { payload, .. }) = StreamFrame::decode(data) {
                    message(payload);
                }
            }
            // Each value takes four bytes of the message: nothing is allocated on the word of a
            // count alone.
            Ok(Backend::DataRow(row)) => assert!(row.0.capacity() * 4 <= frame.body.len()),
            Ok(_) | Err(_) => {}
        }
    }
}

/// Reads one pgoutput message.
pub fn message(payload: &[u8]) {
    match pgoutput::decode(payload) {
        Ok(Message::Relation(relation)) => {
            assert!(relation.columns.capacity() * 10 <= payload.len());
        }
        Ok(Message::Truncate { relations, .. }) => {
            assert!(relations.capacity() * 4 <= payload.len())
        }
        Ok(Message::Insert { new, .. }) => row(new, payload),
        Ok(Message::Update { old, new, .. }) => {
            row(new, payload);
            if let Some(old) = old {
                row(old.tuple(), payload);
            }
        }
        Ok(Message::Delete { old, .. }) => row(old.tuple(), payload),
        Ok(_) | Err(_) => {}
    }
}

/// A row that was accepted has as many values as it says, all of them out of the message.
fn row(tuple: Tuple<'_>, payload: &[u8]) {
    assert_eq!(tuple.cells().count(), tuple.columns());
    let bytes: usize = tuple.cells().filter_map(Cell::text).map(<[u8]>::len).sum();
    assert!(bytes <= tuple.bytes() && tuple.bytes() <= payload.len());
}

/// Reads a connection string; the text after the first line stands for the service file and the
/// password file.
pub fn conninfo(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (line, file) = text.split_once('\n').unwrap_or((&text, ""));
    let files = ["/home/os/.pgpass", "/home/os/.pg_service.conf"]
        .map(|path| (path.to_owned(), file.to_owned()));
    let environment = Environment {
        variables: BTreeMap::new(),
        files: BTreeMap::from(files),
        user: Some("os".to_owned()),
        home: Some("/home/os".to_owned()),
        socket_directory: None,
    };
    if let Ok(conninfo) = Conninfo::parse(line, &environment) {
        assert!(!conninfo.hosts.is_empty());
        assert!(conninfo.hosts.len() <= text.len() + 1);
    }
}

//! What pgoutput sends of a transaction, written from the protocol's description and not with the crate.
//!
//! Under DEFAULT and USING INDEX an update brings its old identity (`K`) only if that changed, or if a part of it is
//! stored out of line; under FULL every update and delete brings the whole old row (`O`). Old rows are never left out in
//! part; of a new row the values that are out of line and were not assigned are.

use crate::source::{Event, Identity, Kind, Mark, Note, SoftDelete, Stored, Which};

/// OID of `labels`.
pub const LABELS: u32 = 16400;
/// OID of `elsewhere`.
const ELSEWHERE: u32 = 16500;

/// A transaction's name and its place in the WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub commit_lsn: u64,
    pub end_lsn: u64,
    pub xid: u32,
    pub time: i64,
}

/// After which of a transaction's messages what was read so far is taken as a chunk: one bit a message, from the first again
/// after sixteen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cuts(pub u16);

impl Cuts {
    pub fn after(self, message: usize) -> bool {
        self.0 & (1 << (message % 16)) != 0
    }
}

/// The columns of `labels`: name, type, OID of the type.
pub fn columns(kind: Kind) -> Vec<(&'static str, &'static str, u32)> {
    let mut columns = vec![
        ("id", "integer", 23),
        ("code", "text", 25),
        ("label", "text", 25),
        ("note", "text", 25),
    ];
    match kind.soft_delete {
        SoftDelete::Timestamp => columns.push(("deleted_at", "timestamp with time zone", 1184)),
        SoftDelete::Boolean => columns.push(("deleted", "boolean", 16)),
        SoftDelete::Absent => {}
    }
    columns
}

/// Columns that are part of the replica identity; all are under FULL.
fn in_identity(kind: Kind, column: &str) -> bool {
    match kind.identity {
        Identity::PrimaryKey => column == "id",
        Identity::PrimaryKeyIsKey | Identity::IndexIsKey => column == "code",
        Identity::Index => column == "code" || column == "id",
        Identity::Full | Identity::FullAlone => true,
    }
}

fn is_full(kind: Kind) -> bool {
    matches!(kind.identity, Identity::Full | Identity::FullAlone)
}

/// The messages of a transaction. `described` tells whether this connection has had the tables' descriptions.
pub fn transaction(kind: Kind, place: Place, events: &[Event], described: &mut bool) -> Vec<Vec<u8>> {
    let mut messages = vec![begin(place)];
    for event in events {
        if !std::mem::replace(described, true) {
            messages.push(labels(kind));
            messages.push(elsewhere());
        }
        messages.push(change(kind, event));
    }
    messages.push(commit(place));
    messages
}

fn begin(place: Place) -> Vec<u8> {
    let mut bytes = b"B".to_vec();
    bytes.extend(place.commit_lsn.to_be_bytes());
    bytes.extend(place.time.to_be_bytes());
    bytes.extend(place.xid.to_be_bytes());
    bytes
}

fn commit(place: Place) -> Vec<u8> {
    let mut bytes = b"C\0".to_vec();
    bytes.extend(place.commit_lsn.to_be_bytes());
    bytes.extend(place.end_lsn.to_be_bytes());
    bytes.extend(place.time.to_be_bytes());
    bytes
}

fn relation(oid: u32, name: &str, identity: u8, columns: &[(bool, &str, u32)]) -> Vec<u8> {
    let mut bytes = b"R".to_vec();
    bytes.extend(oid.to_be_bytes());
    bytes.extend(b"public\0");
    bytes.extend(name.as_bytes());
    bytes.extend([0, identity]);
    bytes.extend(u16::try_from(columns.len()).unwrap().to_be_bytes());
    for (in_identity, name, type_oid) in columns {
        bytes.push(u8::from(*in_identity));
        bytes.extend(name.as_bytes());
        bytes.push(0);
        bytes.extend(type_oid.to_be_bytes());
        bytes.extend((-1_i32).to_be_bytes());
    }
    bytes
}

fn labels(kind: Kind) -> Vec<u8> {
    let identity = match kind.identity {
        Identity::PrimaryKey | Identity::PrimaryKeyIsKey => b'd',
        Identity::Index | Identity::IndexIsKey => b'i',
        Identity::Full | Identity::FullAlone => b'f',
    };
    let columns: Vec<_> = columns(kind)
        .into_iter()
        .map(|(name, _, oid)| (in_identity(kind, name), name, oid))
        .collect();
    relation(LABELS, "labels", identity, &columns)
}

fn elsewhere() -> Vec<u8> {
    relation(ELSEWHERE, "elsewhere", b'd', &[(false, "n", 23)])
}

fn change(kind: Kind, event: &Event) -> Vec<u8> {
    let header = |tag: u8| [&[tag], LABELS.to_be_bytes().as_slice()].concat();
    match event {
        Event::Insert(new) => {
            let mut bytes = header(b'I');
            new_tuple(kind, new, Which::default(), &mut bytes);
            bytes
        }
        Event::Update { old, new, unchanged } => {
            let mut bytes = header(b'U');
            let identity_told = (in_identity(kind, "id") && old.id != new.id)
                || (in_identity(kind, "code") && (old.code != new.code || old.out.code));
            if is_full(kind) || identity_told {
                old_tuple(kind, old, &mut bytes);
            }
            new_tuple(kind, new, *unchanged, &mut bytes);
            bytes
        }
        Event::Delete(old) => {
            let mut bytes = header(b'D');
            old_tuple(kind, old, &mut bytes);
            bytes
        }
        Event::Truncate => {
            let mut bytes = b"T\0\0\0\x01\0".to_vec();
            bytes.extend(LABELS.to_be_bytes());
            bytes
        }
        Event::Elsewhere => {
            let mut bytes = b"I".to_vec();
            bytes.extend(ELSEWHERE.to_be_bytes());
            bytes.extend(b"N\0\x01t\0\0\0\x011");
            bytes
        }
    }
}

fn old_tuple(kind: Kind, row: &Stored, bytes: &mut Vec<u8>) {
    bytes.push(if is_full(kind) { b'O' } else { b'K' });
    let columns = columns(kind);
    bytes.extend(u16::try_from(columns.len()).unwrap().to_be_bytes());
    for (name, _, _) in columns {
        let value = if in_identity(kind, name) {
            text(kind, row, name)
        } else {
            None
        };
        cell(value.as_deref(), bytes);
    }
}

fn new_tuple(kind: Kind, row: &Stored, unchanged: Which, bytes: &mut Vec<u8>) {
    bytes.push(b'N');
    let columns = columns(kind);
    bytes.extend(u16::try_from(columns.len()).unwrap().to_be_bytes());
    for (name, _, _) in columns {
        if (name == "code" && unchanged.code) || (name == "note" && unchanged.note) {
            bytes.push(b'u');
        } else {
            cell(text(kind, row, name).as_deref(), bytes);
        }
    }
}

fn cell(value: Option<&str>, bytes: &mut Vec<u8>) {
    match value {
        None => bytes.push(b'n'),
        Some(text) => {
            bytes.push(b't');
            bytes.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
            bytes.extend(text.as_bytes());
        }
    }
}

/// A value as text. Long values stand here under a short name: what is left out is decided by their storage.
pub fn text(kind: Kind, row: &Stored, column: &str) -> Option<String> {
    match column {
        "id" => Some(row.id.to_string()),
        "code" => row.code.map(|code| format!("C{code}")),
        "label" => Some(format!("label {}", row.label)),
        "note" => {
            let Note { number, large } = row.note;
            Some(format!("{} {number}", if large { "long note" } else { "note" }))
        }
        _ => match (row.mark, kind.soft_delete) {
            (Mark::Null, _) | (_, SoftDelete::Absent) => None,
            (Mark::False, _) => Some("f".to_owned()),
            (Mark::Dead, SoftDelete::Boolean) => Some("t".to_owned()),
            (Mark::Dead, SoftDelete::Timestamp) => Some("2026-01-01 00:00:00+00".to_owned()),
        },
    }
}

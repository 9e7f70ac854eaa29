//! What pgoutput sends of a transaction, written from the protocol's description and not with the
//! crate.
//!
//! Under DEFAULT and USING INDEX an update brings its old identity (`K`) only if that changed, or
//! if a part of it is stored out of line; under FULL every update and delete brings the whole old
//! row (`O`). Old rows are never left out in part; of a new row the values that are out of line and
//! were not assigned are.

use crate::source::{Event, Identity, Kind, Mark, Note, SoftDelete, Stored, Which};
use crate::text::Text;

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

/// A column: name, type, OID of the type.
type Column = (&'static str, &'static str, u32);

/// The columns of `labels`.
pub fn columns(kind: Kind) -> &'static [Column] {
    const TIMESTAMP: &[Column] = &[
        ("id", "integer", 23),
        ("code", "text", 25),
        ("label", "text", 25),
        ("note", "text", 25),
        ("deleted_at", "timestamp with time zone", 1184),
    ];
    const BOOLEAN: &[Column] = &[
        TIMESTAMP[0],
        TIMESTAMP[1],
        TIMESTAMP[2],
        TIMESTAMP[3],
        ("deleted", "boolean", 16),
    ];
    match kind.soft_delete {
        SoftDelete::Timestamp => TIMESTAMP,
        SoftDelete::Boolean => BOOLEAN,
        SoftDelete::Absent => &TIMESTAMP[..4],
    }
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

/// The messages of a transaction, which may be told more than once.
pub struct Messages {
    begin: Vec<u8>,
    /// What the tables are like, and what `labels` is like while a column of it has another name.
    descriptions: [Vec<u8>; 2],
    altered: Vec<u8>,
    changes: Vec<Vec<u8>>,
    commit: Vec<u8>,
}

impl Messages {
    pub fn new(kind: Kind, place: Place, events: &[Event]) -> Self {
        Self {
            begin: begin(place),
            descriptions: [labels(kind, "label"), elsewhere()],
            altered: labels(kind, "was_label"),
            changes: events.iter().map(|event| change(kind, event)).collect(),
            commit: commit(place),
        }
    }

    /// All of them in order; `described` tells whether this connection has had the tables'
    /// descriptions.
    pub fn tell(&self, described: &mut bool, altered: bool) -> Vec<&[u8]> {
        let describes = !self.changes.is_empty() && !*described;
        *described |= describes;
        let [labels, elsewhere] = &self.descriptions;
        let labels = if altered { &self.altered } else { labels };
        let descriptions = [labels, elsewhere].into_iter().filter(|_| describes);
        std::iter::once(&self.begin)
            .chain(descriptions)
            .chain(&self.changes)
            .chain([&self.commit])
            .map(Vec::as_slice)
            .collect()
    }
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

fn labels(kind: Kind, label: &str) -> Vec<u8> {
    let identity = match kind.identity {
        Identity::PrimaryKey | Identity::PrimaryKeyIsKey => b'd',
        Identity::Index | Identity::IndexIsKey => b'i',
        Identity::Full | Identity::FullAlone => b'f',
    };
    let columns: Vec<_> = columns(kind)
        .iter()
        .map(|&(name, _, oid)| {
            let told = if name == "label" { label } else { name };
            (in_identity(kind, name), told, oid)
        })
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
        Event::Update {
            old,
            new,
            unchanged,
        } => {
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
    for &(name, _, _) in columns {
        let value = if in_identity(kind, name) {
            text(kind, row, name)
        } else {
            None
        };
        cell(value, bytes);
    }
}

fn new_tuple(kind: Kind, row: &Stored, unchanged: Which, bytes: &mut Vec<u8>) {
    bytes.push(b'N');
    let columns = columns(kind);
    bytes.extend(u16::try_from(columns.len()).unwrap().to_be_bytes());
    for &(name, _, _) in columns {
        if (name == "code" && unchanged.code) || (name == "note" && unchanged.note) {
            bytes.push(b'u');
        } else {
            cell(text(kind, row, name), bytes);
        }
    }
}

fn cell(value: Option<Text>, bytes: &mut Vec<u8>) {
    match value {
        None => bytes.push(b'n'),
        Some(text) => {
            let text = text.as_bytes();
            bytes.push(b't');
            bytes.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
            bytes.extend(text);
        }
    }
}

/// A value as text. Long values stand here under a short name: what is left out is decided by their
/// storage.
pub fn text(kind: Kind, row: &Stored, column: &str) -> Option<Text> {
    let numbered = |name, number| Some(Text::of(name, Some(number)));
    match column {
        "id" => numbered("", u32::from(row.id)),
        "code" => row.code.and_then(|code| numbered("C", u32::from(code))),
        "label" => numbered("label ", row.label),
        "note" => {
            let Note { number, large } = row.note;
            numbered(if large { "long note " } else { "note " }, number)
        }
        _ => match (row.mark, kind.soft_delete) {
            (Mark::Null, _) | (_, SoftDelete::Absent) => None,
            (Mark::False, _) => Some(Text::of("f", None)),
            (Mark::Dead, SoftDelete::Boolean) => Some(Text::of("t", None)),
            (Mark::Dead, SoftDelete::Timestamp) => Some(Text::of("2026-01-01 00:00:00+00", None)),
        },
    }
}

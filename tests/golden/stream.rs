//! A recorded stream: its messages, and each of them as a line of text that is the same in every
//! recording.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use cdc::lsn::Lsn;
use cdc::protocol::frame::{self, Backend, MAX_FRAME_BYTES, StreamFrame};
use cdc::protocol::pgoutput::{Message, OldTuple, Relation};
use cdc::protocol::tuple::Tuple;
use cdc::row::Cell;

/// Values longer than this are shown by their length.
const LONG_BYTES: usize = 100;
/// The first OID of what users make; those below are the same on every server.
const FIRST_OF_USERS: u32 = 16_384;

/// The pgoutput messages of a stream of CopyData messages.
pub fn payloads(stream: &[u8]) -> Vec<&[u8]> {
    let mut rest = stream;
    let mut payloads = Vec::new();
    while let Some(frame) = frame::split(rest, MAX_FRAME_BYTES).unwrap() {
        rest = &rest[frame.bytes()..];
        let Backend::CopyData(data) = Backend::decode(frame).unwrap() else {
            panic!("{frame:?} is no CopyData message");
        };
        match StreamFrame::decode(data).unwrap() {
            StreamFrame::WalData { payload, .. } => payloads.push(payload),
            other => panic!("{other:?} is no message of the plugin"),
        }
    }
    assert!(rest.is_empty(), "the recording ends within a frame");
    payloads
}

/// Reads a stream from its start; knows the names of what the messages call by OID.
#[derive(Default)]
pub struct Reading {
    relations: BTreeMap<u32, (String, Vec<(String, bool)>)>,
    types: BTreeMap<u32, String>,
    begun_at: Lsn,
    last_end: Lsn,
}

impl Reading {
    /// The message as a line, or some.
    pub fn line(&mut self, message: &Message<'_>) -> String {
        match message {
            Message::Begin(begin) => {
                assert!(
                    begin.final_lsn >= self.last_end,
                    "a commit record lies before the end of the last"
                );
                self.begun_at = begin.final_lsn;
                "begin\n".to_owned()
            }
            Message::Commit(commit) => {
                assert_eq!(commit.commit_lsn, self.begun_at);
                assert!(commit.end_lsn > commit.commit_lsn);
                self.last_end = commit.end_lsn;
                "commit\n\n".to_owned()
            }
            Message::Origin { origin_lsn, name } => {
                format!("origin {} at {origin_lsn}\n", String::from_utf8_lossy(name))
            }
            Message::Type { oid, schema, name } => {
                let name = format!("{schema}.{name}");
                self.types.insert(*oid, name.clone());
                format!("type {name}\n")
            }
            Message::Relation(relation) => self.relation(relation),
            Message::Insert { relation, new } => {
                format!(
                    "insert {}: {}\n",
                    self.name(*relation),
                    self.row(*relation, *new)
                )
            }
            Message::Update { relation, old, new } => format!(
                "update {}:{} {}\n",
                self.name(*relation),
                old.map(|old| self.old(*relation, old)).unwrap_or_default(),
                self.row(*relation, *new)
            ),
            Message::Delete { relation, old } => {
                format!(
                    "delete {}:{}\n",
                    self.name(*relation),
                    self.old(*relation, *old)
                )
            }
            Message::Truncate {
                relations,
                cascade,
                restart_identity,
            } => {
                let names: Vec<&str> = relations.iter().map(|oid| self.name(*oid)).collect();
                let mut line = format!("truncate {}", names.join(", "));
                line.push_str(if *cascade { " cascade" } else { "" });
                line.push_str(if *restart_identity {
                    " restart identity"
                } else {
                    ""
                });
                line + "\n"
            }
            Message::Logical { .. } => panic!("logical messages are not asked for"),
        }
    }

    fn relation(&mut self, relation: &Relation<'_>) -> String {
        let name = format!("{}.{}", relation.schema, relation.name);
        let mut line = format!("relation {name}, identity {:?}:", relation.replica_identity);
        for column in &relation.columns {
            let type_name = match self.types.get(&column.type_oid) {
                Some(name) => name.clone(),
                None if column.type_oid < FIRST_OF_USERS => column.type_oid.to_string(),
                None => panic!("no Type message came for column {}", column.name),
            };
            let mark = if column.in_identity { "*" } else { "" };
            let _ = write!(line, " {mark}{} {type_name}", column.name);
            if column.typmod >= 0 {
                let _ = write!(line, "({})", column.typmod);
            }
        }
        let columns = relation.columns.iter();
        let columns = columns.map(|column| (column.name.to_owned(), column.in_identity));
        self.relations
            .insert(relation.oid, (name, columns.collect()));
        line + "\n"
    }

    fn name(&self, relation: u32) -> &str {
        &self.relations[&relation].0
    }

    fn old(&self, relation: u32, old: OldTuple<'_>) -> String {
        match old {
            OldTuple::Key(tuple) => format!(" key ({})", self.row(relation, tuple)),
            OldTuple::Old(tuple) => format!(" old ({})", self.row(relation, tuple)),
        }
    }

    fn row(&self, relation: u32, tuple: Tuple<'_>) -> String {
        let columns = &self.relations[&relation].1;
        assert_eq!(tuple.columns(), columns.len());
        let values = columns.iter().zip(tuple.cells()).map(|((name, _), cell)| {
            let value = match cell {
                Cell::Null => "NULL".to_owned(),
                Cell::Unchanged => "unchanged".to_owned(),
                Cell::Text(text) if text.len() > LONG_BYTES => format!("{} bytes", text.len()),
                Cell::Text(text) => format!("'{}'", String::from_utf8_lossy(text)),
            };
            format!("{name}={value}")
        });
        values.collect::<Vec<_>>().join(" ")
    }
}

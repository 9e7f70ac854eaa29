//! Messages of the output plugin pgoutput, proto_version 1: whole transactions in commit order,
//! values as text.
//!
//! Comes in: the payload of one WalData frame. Goes out: one [`Message`], borrowed from it.
//!
//! Reference: PostgreSQL manual, "Logical Replication Message Formats" (the same on 13 to 18).
//! Whether the positions and times make sense is for the caller to judge.

use super::reader::Reader;
use super::tuple::Tuple;
use crate::error::{Error, Result};
use crate::facts::ReplicaIdentity;
use crate::lsn::{Lsn, PgTimestamp};

/// Tag of a new row image.
const NEW: u8 = b'N';
/// Tag of the replica identity's old values.
const KEY: u8 = b'K';
/// Tag of a whole old row (replica identity FULL).
const OLD: u8 = b'O';

/// A message of pgoutput.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message<'a> {
    /// `B`: a transaction begins.
    Begin(Begin),
    /// `C`: the transaction ends.
    Commit(Commit),
    /// `O`: the transaction came to the source by replication.
    Origin {
        /// Position of the commit at the server of origin.
        origin_lsn: Lsn,
        /// Name of the origin.
        name: &'a [u8],
    },
    /// `R`: describes a table before its first change, and again after any change of it.
    Relation(Relation<'a>),
    /// `Y`: names a type that is not built in.
    Type {
        /// OID of the type.
        oid: u32,
        /// Schema; empty for pg_catalog.
        schema: &'a str,
        /// Name (of a domain: its base type's).
        name: &'a str,
    },
    /// `I`: a row was inserted.
    Insert {
        /// OID of the relation.
        relation: u32,
        /// The row.
        new: Tuple<'a>,
    },
    /// `U`: a row was updated.
    Update {
        /// OID of the relation.
        relation: u32,
        /// What the replica identity says of the old row, if it changed or is FULL.
        old: Option<OldTuple<'a>>,
        /// The new row; TOASTed values that did not change are not in it.
        new: Tuple<'a>,
    },
    /// `D`: a row was deleted.
    Delete {
        /// OID of the relation.
        relation: u32,
        /// What the replica identity says of it.
        old: OldTuple<'a>,
    },
    /// `T`: tables were truncated.
    Truncate {
        /// OIDs of the relations.
        relations: Vec<u32>,
        /// CASCADE.
        cascade: bool,
        /// RESTART IDENTITY.
        restart_identity: bool,
    },
    /// `M`: a message of pg_logical_emit_message (only sent if asked for).
    Logical {
        /// Whether it belongs to the transaction.
        transactional: bool,
        /// Its position.
        lsn: Lsn,
        /// Its prefix.
        prefix: &'a [u8],
        /// Number of bytes of its content, which is not needed here.
        content_bytes: usize,
    },
}

/// Begin: the first message of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begin {
    /// LSN of the commit record.
    pub final_lsn: Lsn,
    /// Commit time.
    pub commit_time: PgTimestamp,
    /// Top-level transaction id.
    pub xid: u32,
}

/// Commit: the last message of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// LSN of the commit record.
    pub commit_lsn: Lsn,
    /// End of the transaction: the position that is acknowledged.
    pub end_lsn: Lsn,
    /// Commit time.
    pub commit_time: PgTimestamp,
}

/// Relation: what the stream says of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation<'a> {
    /// OID.
    pub oid: u32,
    /// Schema; `pg_catalog` for the empty name on the wire.
    pub schema: &'a str,
    /// Name.
    pub name: &'a str,
    /// Replica identity.
    pub replica_identity: ReplicaIdentity,
    /// Published columns in the order of every tuple.
    pub columns: Vec<RelationColumn<'a>>,
}

/// A column of a relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelationColumn<'a> {
    /// Whether it is part of the replica identity (under FULL each column is).
    pub in_identity: bool,
    /// Name.
    pub name: &'a str,
    /// OID of its type.
    pub type_oid: u32,
    /// Type modifier; -1 for none.
    pub typmod: i32,
}

/// An old row image. Both kinds have all published columns; in a key image the columns outside of
/// the identity are NULL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldTuple<'a> {
    /// `K`: only the identity's values.
    Key(Tuple<'a>),
    /// `O`: the whole row.
    Old(Tuple<'a>),
}

impl<'a> OldTuple<'a> {
    /// The values, of either kind.
    pub fn tuple(self) -> Tuple<'a> {
        match self {
            Self::Key(tuple) | Self::Old(tuple) => tuple,
        }
    }
}

/// Reads one message.
///
/// # Errors
/// A message that is malformed, has bytes left over, or is of a type that proto_version 1 does not
/// have.
pub fn decode(payload: &[u8]) -> Result<Message<'_>> {
    let Some((tag, fields)) = payload.split_first() else {
        return Err(Error::protocol(
            "expected a pgoutput message, found nothing",
        ));
    };
    let reader = |message| Reader::new(message, fields, 1);
    match tag {
        b'B' => begin(reader("Begin")),
        b'C' => commit(reader("Commit")),
        b'O' => origin(reader("Origin")),
        b'R' => relation(reader("Relation")),
        b'Y' => type_name(reader("Type")),
        b'I' => insert(reader("Insert")),
        b'U' => update(reader("Update")),
        b'D' => delete(reader("Delete")),
        b'T' => truncate(reader("Truncate")),
        b'M' => logical(reader("Message")),
        tag => Err(Error::protocol(format!(
            "unrecognized message type {:?} (0x{tag:02X}) at offset 0 of a pgoutput message",
            char::from(*tag)
        ))),
    }
}

fn begin(mut reader: Reader<'_>) -> Result<Message<'_>> {
    let begin = Begin {
        final_lsn: reader.lsn("final_lsn")?,
        commit_time: reader.time("commit time")?,
        xid: reader.u32("xid")?,
    };
    reader.finish()?;
    Ok(Message::Begin(begin))
}

fn commit(mut reader: Reader<'_>) -> Result<Message<'_>> {
    let start = reader.clone();
    let flags = reader.u8("flags")?;
    if flags != 0 {
        return Err(start.error(format_args!("expected no flags, found 0x{flags:02X}")));
    }
    let commit = Commit {
        commit_lsn: reader.lsn("commit_lsn")?,
        end_lsn: reader.lsn("end_lsn")?,
        commit_time: reader.time("commit time")?,
    };
    reader.finish()?;
    Ok(Message::Commit(commit))
}

fn origin(mut reader: Reader<'_>) -> Result<Message<'_>> {
    let origin_lsn = reader.lsn("origin_lsn")?;
    let name = reader.cstr("name")?;
    reader.finish()?;
    Ok(Message::Origin { origin_lsn, name })
}

/// The name of a schema; the empty name stands for pg_catalog.
fn schema<'a>(reader: &mut Reader<'a>) -> Result<&'a str> {
    let name = reader.name("schema")?;
    Ok(if name.is_empty() { "pg_catalog" } else { name })
}

fn relation(mut reader: Reader<'_>) -> Result<Message<'_>> {
    let oid = reader.u32("oid")?;
    let schema = schema(&mut reader)?;
    let name = reader.name("name")?;
    let start = reader.clone();
    let replica_identity = match reader.u8("replica identity")? {
        b'd' => ReplicaIdentity::Default,
        b'n' => ReplicaIdentity::Nothing,
        b'f' => ReplicaIdentity::Full,
        b'i' => ReplicaIdentity::Index,
        byte => {
            return Err(start.error(format_args!(
                "expected a replica identity 'd', 'n', 'f' or 'i', found 0x{byte:02X}"
            )));
        }
    };
    let count = reader.count16("number of columns", 10)?;
    let mut columns = Vec::with_capacity(count);
    for _ in 0..count {
        columns.push(RelationColumn {
            in_identity: reader.u8("column flags")? & 1 != 0,
            name: reader.name("column name")?,
            type_oid: reader.u32("column type")?,
            typmod: reader.i32("column type modifier")?,
        });
    }
    reader.finish()?;
    Ok(Message::Relation(Relation {
        oid,
        schema,
        name,
        replica_identity,
        columns,
    }))
}

fn type_name(mut reader: Reader<'_>) -> Result<Message<'_>> {
    let oid = reader.u32("oid")?;
    let schema = schema(&mut reader)?;
    let name = reader.name("name")?;
    reader.finish()?;
    Ok(Message::Type { oid, schema, name })
}

fn insert(mut reader: Reader<'_>) -> Result<Message<'_>> {
    let relation = reader.u32("relation")?;
    let new = new_tuple(&mut reader)?;
    reader.finish()?;
    Ok(Message::Insert { relation, new })
}

fn update(mut reader: Reader<'_>) -> Result<Message<'_>> {
    let relation = reader.u32("relation")?;
    let old = match reader.rest().first() {
        Some(&(KEY | OLD)) => Some(old_tuple(&mut reader)?),
        _ => None,
    };
    let new = new_tuple(&mut reader)?;
    reader.finish()?;
    Ok(Message::Update { relation, old, new })
}

fn delete(mut reader: Reader<'_>) -> Result<Message<'_>> {
    let relation = reader.u32("relation")?;
    let old = old_tuple(&mut reader)?;
    reader.finish()?;
    Ok(Message::Delete { relation, old })
}

fn new_tuple<'a>(reader: &mut Reader<'a>) -> Result<Tuple<'a>> {
    let start = reader.clone();
    match reader.u8("kind of tuple")? {
        NEW => Tuple::decode(reader),
        byte => Err(start.error(format_args!("expected a new tuple 'N', found 0x{byte:02X}"))),
    }
}

fn old_tuple<'a>(reader: &mut Reader<'a>) -> Result<OldTuple<'a>> {
    let start = reader.clone();
    match reader.u8("kind of tuple")? {
        KEY => Tuple::decode(reader).map(OldTuple::Key),
        OLD => Tuple::decode(reader).map(OldTuple::Old),
        byte => Err(start.error(format_args!(
            "expected a tuple 'K' or 'O', found 0x{byte:02X}"
        ))),
    }
}

fn truncate(mut reader: Reader<'_>) -> Result<Message<'_>> {
    // The options are between the count and the relations; a check with 4 bytes for each is still
    // right.
    let count = reader.count32("number of relations", 4)?;
    let options = reader.u8("options")?;
    let mut relations = Vec::with_capacity(count);
    for _ in 0..count {
        relations.push(reader.u32("relation")?);
    }
    reader.finish()?;
    Ok(Message::Truncate {
        relations,
        cascade: options & 1 != 0,
        restart_identity: options & 2 != 0,
    })
}

fn logical(mut reader: Reader<'_>) -> Result<Message<'_>> {
    let transactional = reader.u8("flags")? & 1 != 0;
    let lsn = reader.lsn("lsn")?;
    let prefix = reader.cstr("prefix")?;
    let content_bytes = reader.count32("length of the content", 1)?;
    reader.bytes(content_bytes, "content")?;
    reader.finish()?;
    Ok(Message::Logical {
        transactional,
        lsn,
        prefix,
        content_bytes,
    })
}

#[cfg(test)]
#[path = "pgoutput_tests.rs"]
mod tests;

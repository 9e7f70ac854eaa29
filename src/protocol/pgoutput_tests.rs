//! Tests of the pgoutput decoder, with an encoder of their own that shares no code with it.

use proptest::prelude::*;

use super::*;
use crate::row::Cell;

/// A value as the encoder takes it.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Null,
    Unchanged,
    Text(Vec<u8>),
}

impl Value {
    fn cell(&self) -> Cell<'_> {
        match self {
            Self::Null => Cell::Null,
            Self::Unchanged => Cell::Unchanged,
            Self::Text(text) => Cell::Text(text),
        }
    }
}

fn text(text: &str) -> Value {
    Value::Text(text.as_bytes().to_vec())
}

#[derive(Default)]
struct Encoder(Vec<u8>);

impl Encoder {
    fn new(tag: u8) -> Self {
        Self(vec![tag])
    }
    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
    fn u8(self, value: u8) -> Self {
        self.raw(&[value])
    }
    fn i16(self, value: usize) -> Self {
        self.raw(&i16::try_from(value).unwrap().to_be_bytes())
    }
    fn u32(self, value: u32) -> Self {
        self.raw(&value.to_be_bytes())
    }
    fn u64(self, value: u64) -> Self {
        self.raw(&value.to_be_bytes())
    }
    fn cstr(self, value: &str) -> Self {
        self.raw(value.as_bytes()).u8(0)
    }
    fn tuple(mut self, tag: u8, values: &[Value]) -> Self {
        self = self.u8(tag).i16(values.len());
        for value in values {
            self = match value {
                Value::Null => self.u8(b'n'),
                Value::Unchanged => self.u8(b'u'),
                Value::Text(text) => self
                    .u8(b't')
                    .u32(u32::try_from(text.len()).unwrap())
                    .raw(text),
            };
        }
        self
    }
}

fn begin_bytes() -> Vec<u8> {
    Encoder::new(b'B').u64(7).u64(8).u32(u32::MAX).0
}

fn commit_bytes() -> Vec<u8> {
    Encoder::new(b'C').u8(0).u64(7).u64(9).u64(8).0
}

fn relation_bytes() -> Vec<u8> {
    Encoder::new(b'R')
        .u32(16_384)
        .cstr("public")
        .cstr("labels")
        .u8(b'd')
        .i16(2)
        .raw(b"\x01id\0")
        .u32(2950)
        .u32(u32::MAX)
        .raw(b"\0gr\xC3\xB6\xC3\x9Fe\0")
        .u32(1043)
        .u32(54)
        .0
}

fn update_bytes(old: u8) -> Vec<u8> {
    Encoder::new(b'U')
        .u32(5)
        .tuple(old, &[text("1"), Value::Null])
        .tuple(b'N', &[text("2"), Value::Unchanged])
        .0
}

fn delete_bytes() -> Vec<u8> {
    Encoder::new(b'D')
        .u32(5)
        .tuple(b'K', &[text("1"), Value::Null])
        .0
}

fn truncate_bytes() -> Vec<u8> {
    Encoder::new(b'T').u32(2).u8(3).u32(5).u32(6).0
}

fn logical_bytes() -> Vec<u8> {
    Encoder::new(b'M')
        .u8(1)
        .u64(7)
        .cstr("cdc")
        .u32(3)
        .raw(b"abc")
        .0
}

fn every_message() -> Vec<Vec<u8>> {
    vec![
        begin_bytes(),
        commit_bytes(),
        Encoder::new(b'O').u64(7).cstr("origin").0,
        relation_bytes(),
        Encoder::new(b'Y').u32(16_400).cstr("").cstr("mood").0,
        Encoder::new(b'I')
            .u32(5)
            .tuple(b'N', &[text("1"), Value::Null])
            .0,
        update_bytes(b'K'),
        update_bytes(b'O'),
        delete_bytes(),
        truncate_bytes(),
        logical_bytes(),
    ]
}

fn cells(tuple: Tuple<'_>) -> Vec<Cell<'_>> {
    tuple.cells().collect()
}

#[test]
fn begin_and_commit_carry_positions_and_times() {
    let begin = Begin {
        final_lsn: Lsn(7),
        commit_time: PgTimestamp(8),
        xid: u32::MAX,
    };
    assert_eq!(decode(&begin_bytes()).unwrap(), Message::Begin(begin));
    let commit = Commit {
        commit_lsn: Lsn(7),
        end_lsn: Lsn(9),
        commit_time: PgTimestamp(8),
    };
    assert_eq!(decode(&commit_bytes()).unwrap(), Message::Commit(commit));
}

#[test]
fn relation_describes_the_table() {
    let relation = Relation {
        oid: 16_384,
        schema: "public",
        name: "labels",
        replica_identity: ReplicaIdentity::Default,
        columns: vec![
            RelationColumn {
                in_identity: true,
                name: "id",
                type_oid: 2950,
                typmod: -1,
            },
            RelationColumn {
                in_identity: false,
                name: "größe",
                type_oid: 1043,
                typmod: 54,
            },
        ],
    };
    assert_eq!(
        decode(&relation_bytes()).unwrap(),
        Message::Relation(relation)
    );
}

#[test]
fn empty_schema_is_pg_catalog() {
    let bytes = Encoder::new(b'Y').u32(1).cstr("").cstr("mood").0;
    let expected = Message::Type {
        oid: 1,
        schema: "pg_catalog",
        name: "mood",
    };
    assert_eq!(decode(&bytes).unwrap(), expected);
}

#[test]
fn update_tells_key_from_old_row_from_neither() {
    for (tag, full) in [(b'K', false), (b'O', true)] {
        let bytes = update_bytes(tag);
        let Message::Update {
            relation: 5,
            old: Some(old),
            new,
        } = decode(&bytes).unwrap()
        else {
            panic!("not an update with an old tuple");
        };
        assert_eq!(matches!(old, OldTuple::Old(_)), full);
        assert_eq!(cells(old.tuple()), [Cell::Text(b"1"), Cell::Null]);
        assert_eq!(cells(new), [Cell::Text(b"2"), Cell::Unchanged]);
    }
    let bytes = Encoder::new(b'U').u32(5).tuple(b'N', &[text("2")]).0;
    assert!(matches!(
        decode(&bytes).unwrap(),
        Message::Update { old: None, .. }
    ));
}

#[test]
fn delete_truncate_and_logical_message_are_read() {
    let bytes = delete_bytes();
    let Message::Delete { relation: 5, old } = decode(&bytes).unwrap() else {
        panic!("not a delete");
    };
    assert!(matches!(old, OldTuple::Key(_)));
    assert_eq!(
        decode(&truncate_bytes()).unwrap(),
        Message::Truncate {
            relations: vec![5, 6],
            cascade: true,
            restart_identity: true,
        }
    );
    assert_eq!(
        decode(&logical_bytes()).unwrap(),
        Message::Logical {
            transactional: true,
            lsn: Lsn(7),
            prefix: b"cdc",
            content_bytes: 3,
        }
    );
    for (options, expected) in [(0, (false, false)), (1, (true, false)), (2, (false, true))] {
        let bytes = Encoder::new(b'T').u32(1).u8(options).u32(5).0;
        let Message::Truncate {
            cascade,
            restart_identity,
            ..
        } = decode(&bytes).unwrap()
        else {
            panic!("not a truncate");
        };
        assert_eq!((cascade, restart_identity), expected);
    }
    let bytes = Encoder::new(b'M').u8(0).u64(7).cstr("cdc").u32(0).0;
    assert!(matches!(
        decode(&bytes).unwrap(),
        Message::Logical {
            transactional: false,
            content_bytes: 0,
            ..
        }
    ));
}

#[test]
fn a_message_cut_at_any_byte_or_with_a_byte_more_is_refused() {
    for mut bytes in every_message() {
        decode(&bytes).unwrap();
        for end in 0..bytes.len() {
            assert!(
                decode(&bytes[..end]).is_err(),
                "{:?} cut at {end}",
                char::from(bytes[0])
            );
        }
        bytes.push(0);
        assert!(
            decode(&bytes).is_err(),
            "{:?} with a byte more",
            char::from(bytes[0])
        );
    }
}

#[test]
fn malformed_messages_tell_where_and_what() {
    let wrong_flags = Encoder::new(b'C').u8(2).u64(7).u64(9).u64(8).0;
    let wrong_identity = Encoder::new(b'R')
        .u32(1)
        .cstr("s")
        .cstr("t")
        .u8(b'x')
        .i16(0)
        .0;
    let many_columns = Encoder::new(b'R')
        .u32(1)
        .cstr("s")
        .cstr("t")
        .u8(b'd')
        .i16(32_767)
        .0;
    let not_utf8 = Encoder::new(b'R').u32(1).raw(b"\xFF\0t\0d\0\0").0;
    let many_tables = Encoder::new(b'T').u32(0x7FFF_FFFF).u8(0).u32(5).0;
    let negative_tables = Encoder::new(b'T').u32(u32::MAX).u8(0).u32(5).0;
    for (bytes, text) in [
        (&b""[..], "expected a pgoutput message, found nothing"),
        (
            b"S",
            "unrecognized message type 'S' (0x53) at offset 0 of a pgoutput message",
        ),
        (
            b"B\0\0\0",
            "malformed Begin message: expected 8 bytes for final_lsn at offset 1, found 3",
        ),
        (
            &wrong_flags,
            "malformed Commit message: expected no flags, found 0x02 at offset 1",
        ),
        (
            &wrong_identity,
            "malformed Relation message: expected a replica identity 'd', 'n', 'f' or 'i', found 0x78 at offset 9",
        ),
        (
            &many_columns,
            "malformed Relation message: a number of columns of 32767 does not fit into the 0 bytes after it, at offset 10",
        ),
        (
            &not_utf8,
            "malformed Relation message: expected UTF-8 for schema at offset 5",
        ),
        (
            b"I\0\0\0\x05K",
            "malformed Insert message: expected a new tuple 'N', found 0x4B at offset 5",
        ),
        (
            b"D\0\0\0\x05N",
            "malformed Delete message: expected a tuple 'K' or 'O', found 0x4E at offset 5",
        ),
        (
            &many_tables,
            "malformed Truncate message: a number of relations of 2147483647 does not fit into the 5 bytes after it, at offset 1",
        ),
        (
            &negative_tables,
            "malformed Truncate message: expected a number of relations of 0 or more, found -1 at offset 1",
        ),
    ] {
        let error = decode(bytes).unwrap_err();
        assert_eq!(error.message(), text);
        assert!(error.is_transient());
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(Value::Unchanged),
        prop::collection::vec(1..=255_u8, 0..20).prop_map(Value::Text),
    ]
}

fn any_values() -> impl Strategy<Value = Vec<Value>> {
    prop::collection::vec(any_value(), 0..12)
}

proptest! {
    #[test]
    fn random_bytes_never_panic(tag in prop::sample::select(&b"BCORYIUDTM?"[..]), bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(&[&[tag][..], &bytes].concat());
    }

    #[test]
    fn a_flipped_byte_never_panics(which in 0..11_usize, at: prop::sample::Index, byte: u8) {
        let mut bytes = every_message().swap_remove(which);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = decode(&bytes);
    }

    #[test]
    fn what_was_encoded_is_decoded(relation: u32, old in any_values(), new in any_values(), kind in 0..3_u8) {
        let mut encoder = Encoder::new(b'U').u32(relation);
        if kind > 0 {
            encoder = encoder.tuple(if kind == 1 { b'K' } else { b'O' }, &old);
        }
        let bytes = encoder.tuple(b'N', &new).0;
        let Message::Update { relation: found, old: found_old, new: found_new } = decode(&bytes).unwrap() else {
            panic!("not an update");
        };
        prop_assert_eq!(found, relation);
        prop_assert_eq!(cells(found_new), new.iter().map(Value::cell).collect::<Vec<_>>());
        prop_assert_eq!(found_new.columns(), new.len());
        let expected_old = (kind > 0).then(|| old.iter().map(Value::cell).collect::<Vec<_>>());
        prop_assert_eq!(found_old.map(|old| cells(old.tuple())), expected_old);
        prop_assert_eq!(kind == 2, matches!(found_old, Some(OldTuple::Old(_))));
    }
}

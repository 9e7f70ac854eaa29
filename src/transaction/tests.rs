//! Rules of the assembler.

use super::*;
use crate::facts::ReplicaIdentity;
use crate::protocol::pgoutput::decode;
use crate::read_model::Remembering;
use crate::read_model::tests::labels_table;
use crate::settings::ReadModelSettings;
use crate::shape::ShapeColumn;

fn cstr(text: &str) -> Vec<u8> {
    [text.as_bytes(), b"\0"].concat()
}

pub(crate) fn begin(lsn: u64) -> Vec<u8> {
    [
        b"B".as_slice(),
        &lsn.to_be_bytes(),
        &5i64.to_be_bytes(),
        &77u32.to_be_bytes(),
    ]
    .concat()
}

pub(crate) fn commit(lsn: u64) -> Vec<u8> {
    [
        b"C\0".as_slice(),
        &lsn.to_be_bytes(),
        &(lsn + 8).to_be_bytes(),
        &5i64.to_be_bytes(),
    ]
    .concat()
}

pub(crate) fn relation(label: &str) -> Vec<u8> {
    let mut bytes = [
        b"R".as_slice(),
        &16400u32.to_be_bytes(),
        &cstr("public"),
        &cstr("labels"),
        b"d\0\x05",
    ]
    .concat();
    for (flag, name, oid) in [
        (1u8, "id", 2950u32),
        (0, "code", 1043),
        (0, label, 1043),
        (0, "display_name", 1043),
        (0, "deleted_at", 1184),
    ] {
        bytes.push(flag);
        bytes.extend(cstr(name));
        bytes.extend(oid.to_be_bytes());
        bytes.extend((-1i32).to_be_bytes());
    }
    bytes
}

pub(crate) fn insert(id: &str) -> Vec<u8> {
    let mut bytes = [b"I".as_slice(), &16400u32.to_be_bytes(), b"N\0\x05"].concat();
    for value in [id, "MR", "Mr.", "Mister"] {
        bytes.push(b't');
        bytes.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
        bytes.extend(value.as_bytes());
    }
    bytes.push(b'n');
    bytes
}

pub(crate) fn model() -> Arc<ReadModel> {
    let table = labels_table(ReplicaIdentity::Default);
    let settings = ReadModelSettings::labels();
    let model = ReadModel::bind(&settings, &table, &["id".to_owned()], Remembering::Map).unwrap();
    Arc::new(model)
}

fn assembler() -> Assembler {
    let mut assembler = Assembler::new(Lsn::ZERO);
    assembler.add(Some(model()));
    assembler
}

/// Two read models of one table.
fn pair() -> Assembler {
    let mut assembler = assembler();
    assembler.add(Some(model()));
    assembler
}

/// The read models of a transaction's changes, and those that it breaks.
fn told(transaction: &Transaction) -> (Vec<usize>, Vec<usize>) {
    (
        transaction.changes.iter().map(|(of, _)| of.0).collect(),
        transaction
            .broken
            .iter()
            .map(|broken| broken.index.0)
            .collect(),
    )
}

fn take(assembler: &mut Assembler, messages: &[Vec<u8>]) -> Result<Vec<Transaction>> {
    let mut transactions = Vec::new();
    for bytes in messages {
        transactions.extend(assembler.take(&decode(bytes)?)?);
    }
    Ok(transactions)
}

#[test]
fn a_transaction_is_handed_on_at_its_commit_and_never_before() {
    let mut assembler = assembler();
    assert!(!assembler.is_open());
    assert!(
        take(
            &mut assembler,
            &[begin(100), relation("label"), insert("1")]
        )
        .unwrap()
        .is_empty()
    );
    assert!(assembler.is_open() && assembler.bytes() > 0);
    let transactions = take(
        &mut assembler,
        &[commit(100), begin(200), insert("2"), commit(200)],
    )
    .unwrap();
    assert_eq!(
        transactions
            .iter()
            .map(|t| t.changes.len())
            .collect::<Vec<_>>(),
        [1, 1]
    );
    assert_eq!(transactions[0].end_lsn, Lsn(108));
    assert_eq!(transactions[0].id.xid, 77);
}

#[test]
fn a_large_transaction_comes_in_chunks_of_which_the_last_one_ends_it() {
    let mut assembler = assembler();
    assert!(assembler.take_chunk().is_empty());
    take(
        &mut assembler,
        &[begin(100), relation("label"), insert("1"), insert("2")],
    )
    .unwrap();
    let id = assembler.open_transaction().unwrap();
    assert_eq!(assembler.take_chunk().len(), 2);
    assert_eq!((assembler.bytes(), assembler.take_chunk().len()), (0, 0));
    let end = take(
        &mut assembler,
        &[insert("3"), relation("text"), insert("4"), commit(100)],
    )
    .unwrap();
    assert_eq!(
        (
            end[0].changes.len(),
            end[0].broken.len(),
            end[0].has_changes
        ),
        (0, 1, true)
    );
    assert_eq!((end[0].id, assembler.open_transaction()), (id, None));
}

#[test]
fn messages_out_of_order_are_errors_of_the_connection() {
    for messages in [
        vec![commit(100)],
        vec![begin(100), begin(200)],
        vec![begin(100), commit(200)],
        vec![insert("1")],
        vec![begin(100), insert("1")],
    ] {
        assert!(
            take(&mut assembler(), &messages)
                .unwrap_err()
                .is_transient()
        );
    }
}

#[test]
fn an_altered_table_breaks_its_read_model_from_that_transaction_on() {
    let mut assembler = assembler();
    let first = [begin(100), relation("label"), insert("1"), commit(100)];
    assert_eq!(take(&mut assembler, &first).unwrap()[0].changes.len(), 1);
    let second = [
        begin(200),
        insert("2"),
        relation("text"),
        insert("3"),
        commit(200),
    ];
    let broken = take(&mut assembler, &second).unwrap().remove(0);
    assert_eq!((broken.changes.len(), broken.broken.len()), (0, 1));
    assert!(broken.broken[0].error.to_string().contains("\"label\""));
    assembler.suspended(ModelIndex(0));
    let third = take(&mut assembler, &[begin(300), insert("4"), commit(300)])
        .unwrap()
        .remove(0);
    assert_eq!(
        (third.changes.len(), third.broken.len(), third.has_changes),
        (0, 0, true)
    );
}

#[test]
fn a_transaction_that_was_applied_before_breaks_nothing_and_is_not_mapped() {
    let mut assembler = Assembler::new(Lsn(200));
    assembler.add(Some(model()));
    let old_layout = [begin(100), relation("text"), insert("1"), commit(100)];
    let applied = take(&mut assembler, &old_layout).unwrap().remove(0);
    assert_eq!(
        (told(&applied), applied.has_changes),
        ((vec![], vec![]), true)
    );
    assert!(assembler.is_active(ModelIndex(0)));
    // A Relation message between two transactions breaks nothing either.
    assert!(
        take(&mut assembler, &[relation("text")])
            .unwrap()
            .is_empty()
    );
    let begun = [begin(199), relation("text"), insert("2")];
    take(&mut assembler, &begun).unwrap();
    assert_eq!((assembler.bytes(), assembler.take_chunk().len()), (0, 0));
    let rest = [
        commit(199),
        begin(200),
        relation("label"),
        insert("3"),
        commit(200),
    ];
    let next = take(&mut assembler, &rest).unwrap();
    assert_eq!(told(&next[1]), (vec![0], vec![]));

    // The table still has the layout that does not fit.
    let mut assembler = Assembler::new(Lsn(200));
    assembler.add(Some(model()));
    take(&mut assembler, &old_layout).unwrap();
    let next = take(&mut assembler, &[begin(200), insert("2"), commit(200)]).unwrap();
    assert_eq!(told(&next[0]), (vec![], vec![0]));
}

#[test]
fn every_transaction_says_that_a_read_model_is_broken_until_that_is_stored() {
    let mut assembler = pair();
    let first = [begin(100), relation("text"), insert("1"), commit(100)];
    let broken = take(&mut assembler, &first).unwrap().remove(0);
    assert_eq!(told(&broken), (vec![], vec![0, 1]));
    for lsn in [200, 300] {
        let next = take(&mut assembler, &[begin(lsn), commit(lsn)])
            .unwrap()
            .remove(0);
        assert_eq!(told(&next), (vec![], vec![0, 1]));
        assert!(
            next.broken
                .iter()
                .all(|broken| broken.commit_lsn == Lsn(100))
        );
    }
    assert_eq!(assembler.taking_part(), [ModelIndex(0), ModelIndex(1)]);
    assembler.suspended(ModelIndex(0));
    assert_eq!(assembler.taking_part(), [ModelIndex(1)]);
    let next = take(&mut assembler, &[begin(400), insert("4"), commit(400)]).unwrap();
    assert_eq!(told(&next[0]), (vec![], vec![1]));
    assembler.suspended(ModelIndex(1));
    assembler.activate(ModelIndex(1), model());
    assembler.suspended(ModelIndex(1));
    assert!(assembler.is_active(ModelIndex(1)), "it has joined again");
}

#[test]
fn a_read_model_that_leaves_takes_its_part_of_the_open_transaction_along() {
    let mut assembler = pair();
    take(
        &mut assembler,
        &[begin(100), relation("label"), insert("1")],
    )
    .unwrap();
    assembler.deactivate(ModelIndex(0));
    let active: Vec<_> = (0..3)
        .map(|place| assembler.is_active(ModelIndex(place)))
        .collect();
    assert_eq!(active, [false, true, false]);
    let end = take(&mut assembler, &[insert("2"), commit(100)]).unwrap();
    assert_eq!(told(&end[0]), (vec![1, 1], vec![]));

    let mut assembler = pair();
    let both = [
        begin(100),
        relation("label"),
        insert("1"),
        relation("text"),
        insert("2"),
    ];
    take(&mut assembler, &both).unwrap();
    assembler.deactivate(ModelIndex(1));
    let end = take(&mut assembler, &[commit(100)]).unwrap();
    assert_eq!(
        told(&end[0]),
        (vec![], vec![0]),
        "that it is broken is told of the other one alone"
    );
}

#[test]
fn a_read_model_that_comes_back_takes_part_without_another_description() {
    let mut assembler = pair();
    let first = [begin(100), relation("label"), insert("1"), commit(100)];
    take(&mut assembler, &first).unwrap();
    assembler.deactivate(ModelIndex(0));
    assembler.activate(ModelIndex(0), model());
    assert!(assembler.is_active(ModelIndex(0)));
    let second = take(&mut assembler, &[begin(200), insert("2"), commit(200)]).unwrap();
    assert_eq!(told(&second[0]), (vec![0, 1], vec![]));

    // It came back to a table that it does not fit: the description that comes before the next
    // change decides.
    for (label, expected) in [("label", (vec![0], vec![])), ("text", (vec![], vec![0]))] {
        let mut assembler = self::assembler();
        take(&mut assembler, &[begin(100), relation("text"), commit(100)]).unwrap();
        assembler.deactivate(ModelIndex(0));
        assembler.activate(ModelIndex(0), model());
        let messages = [begin(200), relation(label), insert("1"), commit(200)];
        let next = take(&mut assembler, &messages).unwrap();
        assert_eq!(told(&next[0]), expected, "{label}");
    }
}

/// The table as the catalogs list it now, with this name for its third column.
fn now(label: &str, number: i16) -> (TableName, Shape) {
    let model = model();
    let columns = model.used_columns().map(|column| ShapeColumn {
        name: if column.name == "label" {
            label.to_owned()
        } else {
            column.name.clone()
        },
        number: if column.name == "label" {
            number
        } else {
            column.number
        },
        type_oid: column.type_oid,
        streamed: true,
    });
    let mut columns: Vec<_> = columns.collect();
    columns.sort_by_key(|column| column.number);
    let shape = Shape {
        parts: None,
        oid: Some(model.source_oid),
        columns,
    };
    (model.settings.source.clone(), shape)
}

fn label_number() -> i16 {
    model().columns[1].number
}

#[test]
fn what_was_mapped_by_a_description_has_to_be_proved_once() {
    let mut assembler = pair();
    assert!(assembler.take_unproved().is_empty());
    take(&mut assembler, &[begin(100), relation("label")]).unwrap();
    assert!(
        assembler.take_unproved().is_empty(),
        "nothing was mapped by it"
    );
    take(&mut assembler, &[insert("1"), commit(100)]).unwrap();
    let table = model().settings.source.clone();
    assert_eq!(
        assembler.take_unproved(),
        std::slice::from_ref(&table),
        "once for both read models"
    );
    assert!(assembler.prove(&[now("label", label_number())]).is_empty());
    take(&mut assembler, &[begin(200), insert("2"), commit(200)]).unwrap();
    assert!(assembler.take_unproved().is_empty());
    // The same message again may describe another table.
    take(
        &mut assembler,
        &[begin(300), relation("label"), insert("3"), commit(300)],
    )
    .unwrap();
    assert_eq!(assembler.take_unproved(), std::slice::from_ref(&table));
    assembler.deactivate(ModelIndex(0));
    assembler.deactivate(ModelIndex(1));
    assert!(assembler.take_unproved().is_empty(), "it is nobody's");
    // A read model that comes back has been bound since.
    assembler.activate(ModelIndex(1), model());
    take(&mut assembler, &[begin(400), insert("4"), commit(400)]).unwrap();
    assert_eq!(assembler.take_unproved(), [table]);
}

#[test]
fn rows_of_other_columns_break_their_read_model_from_the_first_of_them_on() {
    for (case, shapes) in [
        ("made again", vec![now("label", label_number() + 10)]),
        ("renamed", vec![now("text", label_number())]),
        ("gone", vec![]),
    ] {
        let mut assembler = pair();
        take(
            &mut assembler,
            &[begin(100), relation("label"), insert("1"), commit(100)],
        )
        .unwrap();
        assembler.deactivate(ModelIndex(1));
        take(
            &mut assembler,
            &[
                begin(200),
                insert("2"),
                commit(200),
                begin(300),
                insert("3"),
            ],
        )
        .unwrap();
        let broken = assembler.prove(&shapes);
        let found: Vec<_> = broken
            .iter()
            .map(|broken| (broken.index, broken.commit_lsn))
            .collect();
        assert_eq!(found, [(ModelIndex(0), Lsn(100))], "{case}");
        assert!(assembler.prove(&shapes).is_empty());
        let end = take(&mut assembler, &[insert("4"), commit(300)]).unwrap();
        assert_eq!(
            told(&end[0]),
            (vec![], vec![0]),
            "{case}: in the open transaction too"
        );
    }
}

//! Base line of what lies between decoder and target: messages become changes of a read model,
//! final states become COPY text.
//!
//! `cargo bench --bench changes` prints time, changes/s and allocations for 10,000 changes of the
//! labels read model.
#![allow(missing_docs, clippy::panic)]

#[path = "support/messages.rs"]
mod messages;

use std::hint::black_box;
use std::sync::Arc;

use cdc::facts::{KeyColumn, KeyIndex, LookupColumn, LookupTable, SourceColumn, SourceTable};
use cdc::fold::Fold;
use cdc::lsn::Lsn;
use cdc::protocol::pgoutput::decode;
use cdc::read_model::{ModelId, ReadModel, Remembering};
use cdc::settings::ReadModelSettings;
use cdc::target::copy_buffer::CopyBuffer;
use cdc::target::model::TargetModel;
use cdc::target::write::rows::{Part, arrays, copy_row};
use cdc::transaction::{Assembler, Transaction};
use divan::counter::{BytesCount, ItemsCount};
use divan::{AllocProfiler, Bencher};

/// Allocations are counted beside the times.
#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

const CHANGES: usize = 10_000;

fn main() {
    divan::main();
}

/// Messages of transactions of so many changes.
fn stream(tag: u8, in_one: usize) -> Vec<Vec<u8>> {
    let mut messages = vec![];
    for (number, commit_lsn) in (0..CHANGES).zip(100..) {
        if number % in_one == 0 {
            messages.push(messages::begin(commit_lsn));
            if number == 0 {
                messages.push(messages::relation());
            }
        }
        messages.push(messages::change(tag, number));
        if (number + 1) % in_one == 0 {
            let began_at = commit_lsn + 1 - u64::try_from(in_one).unwrap_or_default();
            messages.push(messages::commit(began_at));
        }
    }
    messages
}

fn assemble(messages: &[Vec<u8>], model: &Arc<ReadModel>) -> Vec<Transaction> {
    let mut assembler = Assembler::new(Lsn::ZERO);
    assembler.add(Some(Arc::clone(model)));
    let mut transactions = Vec::with_capacity(CHANGES);
    for message in messages {
        let taken = decode(message).and_then(|message| assembler.take(&message));
        transactions.extend(taken.unwrap_or_default());
    }
    transactions
}

/// Messages, without their frames, become transactions of the read model.
#[divan::bench(args = [(b'I', 1), (b'I', 100), (b'U', 100)])]
fn assemble_transactions(bencher: Bencher<'_, '_>, (tag, in_one): (u8, usize)) {
    let (messages, model) = (stream(tag, in_one), read_model());
    assert_eq!(changes(&assemble(&messages, &model)), CHANGES);
    bencher
        .counter(BytesCount::new(
            messages.iter().map(Vec::len).sum::<usize>(),
        ))
        .counter(ItemsCount::new(CHANGES))
        .bench_local(|| assemble(black_box(&messages), &model));
}

/// Final states become the text of COPY into the stage.
#[divan::bench(args = [b'I', b'U'])]
fn encode_for_copy(bencher: Bencher<'_, '_>, tag: u8) {
    let (fold, model) = (folded(tag), target_model());
    bencher.counter(ItemsCount::new(CHANGES)).bench_local(|| {
        let mut out = CopyBuffer::default();
        for row in fold.finals() {
            copy_row(&model, row, Part::Whole, &[], &mut out);
        }
        out
    });
}

/// Final states become the arrays of the one statement of a small batch.
#[divan::bench(args = [b'I', b'U'])]
fn encode_for_statement(bencher: Bencher<'_, '_>, tag: u8) {
    let (fold, model) = (folded(tag), target_model());
    bencher
        .counter(ItemsCount::new(CHANGES))
        .bench_local(|| arrays(&model, fold.all()));
}

fn changes(transactions: &[Transaction]) -> usize {
    transactions.iter().map(|one| one.changes.len()).sum()
}

fn folded(tag: u8) -> Fold {
    let mut fold = Fold::default();
    let transactions = assemble(&stream(tag, 100), &read_model());
    for (_, change) in transactions.into_iter().flat_map(|one| one.changes) {
        fold.add(change);
    }
    assert_eq!(fold.len(), CHANGES);
    fold
}

fn read_model() -> Arc<ReadModel> {
    let text = 1043;
    let columns = messages::COLUMNS
        .iter()
        .zip(1..)
        .map(|((name, type_oid), number)| SourceColumn {
            name: (*name).to_owned(),
            number,
            type_oid: *type_oid,
            type_name: String::new(),
            bare_type_name: String::new(),
            not_null: false,
            toastable: *type_oid == text,
            generated: false,
            builtin: true,
            collatable: *type_oid == text,
            boolean: false,
        });
    let settings = ReadModelSettings::labels();
    let table = SourceTable::ordinary(
        messages::OID,
        settings.source.clone(),
        columns.collect(),
        &["id"],
    );
    let bound = ReadModel::bind(&settings, &table, &table.primary_key, Remembering::Map);
    Arc::new(bound.unwrap_or_else(|error| panic!("{error}")))
}

fn target_model() -> TargetModel {
    let columns = ["code", "label", "display_name", "updated_at"].map(|name| LookupColumn {
        name: name.to_owned(),
        type_oid: 1043,
        type_name: String::new(),
        bare_type_name: String::new(),
        declared_type_name: String::new(),
        collation: None,
        collatable: true,
        not_null: true,
        has_default: false,
        generated: false,
    });
    let lookup = LookupTable {
        oid: 1,
        name: ReadModelSettings::labels().target,
        kind: 'r',
        persistence: 'p',
        has_parts: false,
        columns: columns.to_vec(),
        unique_indexes: vec![KeyIndex {
            name: String::new(),
            primary: true,
            columns: vec![KeyColumn {
                name: "code".to_owned(),
                equality: String::new(),
            }],
        }],
        triggers: Vec::new(),
        referenced_by: Vec::new(),
        row_security_applies: false,
        missing_privileges: Vec::new(),
    };
    TargetModel::bind(ModelId(1), "cdc", read_model(), &lookup)
        .unwrap_or_else(|error| panic!("{error}"))
}

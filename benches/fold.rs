//! Base line of the fold: changes become one final state for each source row.
//!
//! `cargo bench --bench fold`
#![allow(missing_docs)]

use cdc::fold::Fold;
use cdc::read_model::{Change, Image};
use cdc::row::{Cell, Row};
use divan::counter::ItemsCount;
use divan::{AllocProfiler, Bencher};

/// Allocations are counted beside the times.
#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

/// Changes of one batch.
const CHANGES: usize = 10_000;

fn main() {
    divan::main();
}

fn image(id: usize, value: usize) -> Image {
    let (id, value) = (format!("{id:032x}"), format!("label {value}"));
    Image {
        identity: Row::from_cells([Cell::Text(id.as_bytes())]),
        live: true,
        values: Row::from_cells([
            Cell::Text(b"MR"),
            Cell::Text(value.as_bytes()),
            Cell::Text(b"Mister"),
        ]),
    }
}

fn run(bencher: Bencher, change: impl Fn(usize) -> Change + Sync) {
    bencher
        .counter(ItemsCount::new(CHANGES))
        .with_inputs(|| (0..CHANGES).map(&change).collect::<Vec<_>>())
        .bench_values(|changes| {
            let mut fold = Fold::default();
            for change in changes {
                fold.add(change);
            }
            fold
        });
}

/// Inserts of distinct rows.
#[divan::bench]
fn inserts(bencher: Bencher) {
    run(bencher, |n| Change::Insert(image(n, n)));
}

/// Updates of distinct rows.
#[divan::bench]
fn updates(bencher: Bencher) {
    run(bencher, |n| Change::Update {
        old: None,
        new: image(n, n),
    });
}

/// Updates over 100 hot rows: each row's last state remains.
#[divan::bench]
fn updates_of_hot_rows(bencher: Bencher) {
    run(bencher, |n| Change::Update {
        old: None,
        new: image(n % 100, n),
    });
}

/// From final states to the text of COPY is measured with the writer; this is the way into them.
#[divan::bench]
fn finals(bencher: Bencher) {
    bencher
        .counter(ItemsCount::new(CHANGES))
        .with_inputs(|| {
            let mut fold = Fold::default();
            for n in 0..CHANGES {
                fold.add(Change::Update {
                    old: None,
                    new: image(n, n),
                });
            }
            fold
        })
        .bench_refs(|fold| fold.finals().count());
}

//! Base line of the decoder: frames are split, unpacked and decoded, and every value is looked at.
//!
//! `cargo bench --bench decoder` prints time, bytes/s, changes/s and allocations for a receive
//! buffer of 10,000 changes.
#![allow(missing_docs)]

#[path = "support/messages.rs"]
#[allow(dead_code)]
mod messages;

use std::hint::black_box;

use cdc::protocol::frame::{self, Backend, Frame, MAX_FRAME_BYTES, StreamFrame};
use cdc::protocol::pgoutput::{self, Message};
use cdc::protocol::tuple::Tuple;
use cdc::row::{Cell, Row};
use divan::counter::{BytesCount, ItemsCount};
use divan::{AllocProfiler, Bencher};

/// Allocations are counted beside the times.
#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

const CHANGES: usize = 10_000;

fn main() {
    divan::main();
}

fn framed(payload: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(payload.len() + 4 + 25).unwrap_or_default();
    out.extend_from_slice(b"d");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(b"w");
    out.extend_from_slice(&[0; 24]);
    out.extend_from_slice(payload);
}

fn changes(tag: u8) -> Vec<u8> {
    let mut out = Vec::new();
    for number in 0..CHANGES {
        framed(&messages::change(tag, number), &mut out);
    }
    out
}

/// Splits and decodes the whole buffer; gives each new row to `see` and returns the number of
/// changes.
fn decode_all(mut buffer: &[u8], mut see: impl FnMut(Tuple<'_>)) -> usize {
    let mut count = 0;
    while let Ok(Some(frame)) = frame::split(buffer, MAX_FRAME_BYTES) {
        buffer = buffer.get(frame.bytes()..).unwrap_or_default();
        let Some(new) = new_row(frame) else { continue };
        see(new);
        count += 1;
    }
    assert_eq!(count, CHANGES);
    count
}

fn new_row(frame: Frame<'_>) -> Option<Tuple<'_>> {
    let Ok(Backend::CopyData(data)) = Backend::decode(frame) else {
        return None;
    };
    let Ok(StreamFrame::WalData { payload, .. }) = StreamFrame::decode(data) else {
        return None;
    };
    match pgoutput::decode(payload) {
        Ok(Message::Insert { new, .. } | Message::Update { new, .. }) => Some(new),
        _ => None,
    }
}

#[divan::bench(args = [b'I', b'U'])]
fn decode_and_read_each_value(bencher: Bencher<'_, '_>, tag: u8) {
    let buffer = changes(tag);
    bencher
        .counter(BytesCount::new(buffer.len()))
        .counter(ItemsCount::new(CHANGES))
        .bench(|| {
            decode_all(black_box(&buffer), |tuple| {
                black_box(
                    tuple
                        .cells()
                        .filter_map(Cell::text)
                        .map(<[u8]>::len)
                        .sum::<usize>(),
                );
            })
        });
}

#[divan::bench(args = [b'I'])]
fn decode_into_rows(bencher: Bencher<'_, '_>, tag: u8) {
    let buffer = changes(tag);
    bencher
        .counter(BytesCount::new(buffer.len()))
        .counter(ItemsCount::new(CHANGES))
        .bench_local(|| {
            let mut rows: Vec<Row> = Vec::with_capacity(CHANGES);
            decode_all(black_box(&buffer), |tuple| {
                rows.push(Row::from_cells(tuple.cells()));
            });
            rows
        });
}

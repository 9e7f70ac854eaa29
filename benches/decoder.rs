//! Base line of the decoder: frames are split, unpacked and decoded, and every value is looked at.
//!
//! `cargo bench --bench decoder` prints time, bytes/s and changes/s for a receive buffer of 10,000 changes.
#![allow(missing_docs)]

use std::hint::black_box;

use cdc::protocol::frame::{self, Backend, Frame, MAX_FRAME_BYTES, StreamFrame};
use cdc::protocol::pgoutput::{self, Message};
use cdc::protocol::tuple::Tuple;
use cdc::row::{Row, RowBuilder};
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};

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

/// A row like the labels table's: id, code, label, display name, three time stamps, an author and a NULL.
fn tuple(number: usize, out: &mut Vec<u8>) {
    let id = format!("6f1c2a34-0000-4000-8000-{number:012}");
    let code = format!("L{number:06}");
    let time = "2026-03-01 10:00:00.123456+00";
    out.extend_from_slice(b"N\0\x09");
    for text in [
        &id,
        &code,
        "Label of a row",
        "Label as it is shown",
        time,
        time,
        time,
        "someone",
    ] {
        out.push(b't');
        out.extend_from_slice(&u32::try_from(text.len()).unwrap_or_default().to_be_bytes());
        out.extend_from_slice(text.as_bytes());
    }
    out.push(b'n');
}

fn changes(tag: u8) -> Vec<u8> {
    let mut out = Vec::new();
    for number in 0..CHANGES {
        let mut payload = vec![tag, 0, 0, 0x40, 0];
        tuple(number, &mut payload);
        framed(&payload, &mut out);
    }
    out
}

/// Splits and decodes the whole buffer; gives each new row to `see` and returns the number of changes.
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
                        .filter_map(|cell| cell.text())
                        .map(<[u8]>::len)
                        .sum::<usize>(),
                );
            })
        });
}

#[divan::bench(args = [b'I'])]
fn decode_into_rows(bencher: Bencher<'_, '_>, tag: u8) {
    let buffer = changes(tag);
    let mut builder = RowBuilder::default();
    bencher
        .counter(BytesCount::new(buffer.len()))
        .counter(ItemsCount::new(CHANGES))
        .bench_local(|| {
            let mut rows: Vec<Row> = Vec::with_capacity(CHANGES);
            decode_all(black_box(&buffer), |tuple| {
                tuple.cells().for_each(|cell| builder.push(cell));
                rows.push(builder.finish());
            });
            rows
        });
}

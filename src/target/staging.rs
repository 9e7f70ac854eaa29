//! Final states as text: for COPY into the stage, or as arrays for the one statement of a small batch.
//!
//! A stage row is: identity at the start, identity now, state, projected values, and for each column that the stream may
//! leave out whether it did. Values stay the stream's text; the server's input functions read them.

use crate::fold::Final;
use crate::row::{Cell, Row};
use crate::target::model::TargetModel;

/// State of a stage row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Live,
    Dead,
    Gone,
}

impl State {
    fn text(self) -> &'static str {
        match self {
            Self::Live => "l",
            Self::Dead => "d",
            Self::Gone => "g",
        }
    }
}

/// Calls `cell` for each value of the stage row, in the order of [`TargetModel::stage_columns`].
fn each_cell(model: &TargetModel, row: &Final, mut cell: impl FnMut(Option<&[u8]>)) {
    let identity = model.model.identity.len();
    let nulls = |cell: &mut dyn FnMut(Option<&[u8]>), count: usize| (0..count).for_each(|_| cell(None));
    let values =
        |cell: &mut dyn FnMut(Option<&[u8]>), row: &Row| row.cells().for_each(|value| cell(value.text()));
    match &row.start {
        Some(start) => values(&mut cell, start),
        None => nulls(&mut cell, identity),
    }
    // A dead row without a value that could be left out later need not be remembered.
    let kept = row
        .now
        .as_ref()
        .filter(|now| now.live || model.model.keeps_dead_rows());
    let Some(now) = kept else {
        nulls(&mut cell, identity);
        cell(Some(State::Gone.text().as_bytes()));
        nulls(&mut cell, model.model.columns.len());
        model.toastable().for_each(|_| cell(Some(b"f")));
        return;
    };
    values(&mut cell, &now.identity);
    cell(Some(
        if now.live { State::Live } else { State::Dead }.text().as_bytes(),
    ));
    values(&mut cell, &now.values);
    let left_out: Vec<bool> = now.values.cells().map(|value| value == Cell::Unchanged).collect();
    for column in model.toastable() {
        let flag = column
            .checked_sub(1)
            .and_then(|at| left_out.get(at))
            .copied()
            .unwrap_or(false);
        cell(Some(if flag { b"t" } else { b"f" }));
    }
}

/// Appends the stage row in COPY's text format.
pub fn copy_row(model: &TargetModel, row: &Final, out: &mut Vec<u8>) {
    let mut first = true;
    each_cell(model, row, |value| {
        if !std::mem::take(&mut first) {
            out.push(b'\t');
        }
        match value {
            None => out.extend_from_slice(b"\\N"),
            Some(text) => copy_text(text, out),
        }
    });
    out.push(b'\n');
}

/// Appends a value with COPY's escapes (manual, COPY, "Text Format").
fn copy_text(text: &[u8], out: &mut Vec<u8>) {
    for &byte in text {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            byte => out.push(byte),
        }
    }
}

/// One array of values for each column of the stage; `None` if a value is not UTF-8 (it goes by COPY then, and the
/// server judges it).
pub fn arrays(model: &TargetModel, rows: &[Final]) -> Option<Vec<Vec<Option<String>>>> {
    let width = model.stage_width();
    let mut arrays: Vec<Vec<Option<String>>> = vec![Vec::with_capacity(rows.len()); width];
    let mut valid = true;
    for row in rows {
        let mut columns = arrays.iter_mut();
        each_cell(model, row, |value| {
            let value = value.map(|bytes| String::from_utf8(bytes.to_vec()));
            let value = value.and_then(|text| text.map_err(|_| valid = false).ok());
            if let Some(column) = columns.next() {
                column.push(value);
            }
        });
    }
    valid.then_some(arrays)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copy_text_escapes_what_copy_would_read_otherwise() {
        let mut out = Vec::new();
        copy_text(b"a\\N\tb\nc\r\xc3\xa4 \\.", &mut out);
        assert_eq!(out, b"a\\\\N\\tb\\nc\\r\xc3\xa4 \\\\.");
    }
}

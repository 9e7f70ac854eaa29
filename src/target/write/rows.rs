//! Final states as text: for COPY into the stage, or as arrays for the one statement of a small
//! batch.
//!
//! A stage row is: identity at the start, identity now, state, projected values, and for each
//! column that the stream may leave out, whether it did so. Values stay the stream's text; the
//! server's input functions read them. A row with a value that they reject is staged with its
//! identity and key alone.

use crate::fold::{Final, Share};
use crate::row::{Cell, Row};
use crate::target::copy_buffer::CopyBuffer;
use crate::target::model::TargetModel;

/// State of a stage row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Live,
    Dead,
    Gone,
    /// A type of the lookup rejects it.
    Rejected,
    /// Dead, and a type of the lookup rejects it: its values are not remembered. Later chunks of a
    /// large transaction must know of it; the merge functions do not
    /// ([`TargetModel::forget_rejected_dead`]).
    Forgotten,
}

/// What of a row is staged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Everything.
    Whole,
    /// Identity and key of a live row that cannot be staged whole. For a dead row the identity
    /// alone.
    Key,
    /// The same without the key.
    Identity,
}

impl State {
    fn text(self) -> &'static str {
        match self {
            Self::Live => "l",
            Self::Dead => "d",
            Self::Gone => "g",
            Self::Rejected => "x",
            Self::Forgotten => "y",
        }
    }
}

/// Calls `cell` for each value of the stage row, in the order of [`TargetModel::stage_columns`].
fn each_cell<'a>(
    model: &TargetModel,
    row: Final<'a>,
    part: Part,
    mut cell: impl FnMut(Option<&'a [u8]>),
) {
    let identity = model.model.identity.len();
    let nulls =
        |cell: &mut dyn FnMut(Option<&'a [u8]>), count: usize| (0..count).for_each(|_| cell(None));
    let values = |cell: &mut dyn FnMut(Option<&'a [u8]>), row: &'a Row| {
        row.cells().for_each(|value| cell(value.text()))
    };
    match row.start {
        Some(start) => values(&mut cell, start),
        None => nulls(&mut cell, identity),
    }
    // A dead row without a value that could be left out later need not be remembered.
    let remembers = model.model.keeps_dead_rows();
    let Some(now) = row.now.filter(|now| now.live || remembers) else {
        nulls(&mut cell, identity);
        cell(Some(State::Gone.text().as_bytes()));
        nulls(&mut cell, model.model.columns.len());
        model.toastable().for_each(|_| cell(Some(b"f")));
        return;
    };
    values(&mut cell, now.identity);
    let state = match (part, now.live) {
        (Part::Whole, true) => State::Live,
        (Part::Whole, false) => State::Dead,
        (Part::Key | Part::Identity, true) => State::Rejected,
        (Part::Key | Part::Identity, false) => State::Forgotten,
    };
    cell(Some(state.text().as_bytes()));
    let staged = |column: usize| match part {
        Part::Whole => true,
        Part::Key => now.live && model.is_key(column),
        Part::Identity => false,
    };
    for (column, value) in now.values.cells().enumerate() {
        cell(value.text().filter(|_| staged(column)));
    }
    let toastable = now.values.cells().enumerate();
    for (column, value) in toastable.filter(|(column, _)| model.is_toastable(*column)) {
        let left_out = value == Cell::Unchanged && staged(column);
        cell(Some(if left_out { b"t" } else { b"f" }));
    }
}

/// The final states nearly in the order of the lookup's key index. They are staged in this order:
/// lookups and writes, row by row, then go through one page after the other (a third less for
/// updates of a table that is in the server's memory).
pub(super) fn in_key_order<'a>(
    model: &TargetModel,
    rows: impl Iterator<Item = Final<'a>>,
) -> Vec<Final<'a>> {
    let mut rows: Vec<_> = rows.collect();
    rows.sort_by_cached_key(|row| row.now.and_then(|now| model.sort_key(now.values)));
    rows
}

/// Appends the stage row, or part of it, in COPY's text format; `why` goes into the last columns.
pub fn copy_row<'a>(
    model: &TargetModel,
    row: Final<'a>,
    part: Part,
    why: &[Option<&'a str>],
    out: &mut CopyBuffer<'a>,
) {
    let mut first = true;
    let mut put = |value: Option<&'a [u8]>| {
        if !std::mem::take(&mut first) {
            out.push(b"\t");
        }
        out.push_cell(value);
    };
    each_cell(model, row, part, &mut put);
    for name in why {
        put(name.map(str::as_bytes));
    }
    out.push(b"\n");
}

/// Whether a row that the source's COPY wrote as `line` is live.
pub(super) fn is_live_line(model: &TargetModel, line: &[u8]) -> bool {
    let state = line
        .split(|byte| *byte == b'\t')
        .nth(model.identity_width());
    state != Some(State::Dead.text().as_bytes())
}

/// Appends part of a row that the source's COPY wrote as `line`: its identity, its state and, if
/// asked for, its key. Appends nothing of a dead row, which is not remembered.
pub(super) fn copy_line_in_part<'a>(
    model: &TargetModel,
    line: &'a [u8],
    part: Part,
    why: &[Option<&'a str>],
    out: &mut CopyBuffer<'a>,
) {
    if !is_live_line(model, line) {
        return;
    }
    let identity = model.identity_width();
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut fields = line.split(|byte| *byte == b'\t');
    for field in fields.by_ref().take(identity) {
        out.push_data(field);
        out.push(b"\t");
    }
    // The state that it had.
    fields.next();
    out.push(State::Rejected.text().as_bytes());
    for (column, field) in fields.enumerate() {
        out.push(b"\t");
        let staged = part == Part::Key && model.is_key(column);
        out.push_data(if staged { field } else { b"\\N" });
    }
    for name in why {
        out.push(b"\t");
        out.push_cell(name.map(str::as_bytes));
    }
    out.push(b"\n");
}

/// One array of values for each column of the stage. `None` if those are too many for one
/// statement, or a value is not UTF-8 (it goes by COPY then, and the server judges it).
pub fn arrays(model: &TargetModel, rows: Share<'_>) -> Option<Vec<Vec<Option<String>>>> {
    if !model.fits_one_statement() {
        return None;
    }
    let width = model.stage_width();
    let mut arrays: Vec<Vec<Option<String>>> = vec![Vec::with_capacity(rows.len()); width];
    let mut valid = true;
    for row in in_key_order(model, rows.finals()) {
        let mut columns = arrays.iter_mut();
        each_cell(model, row, Part::Whole, |value| {
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
    use crate::fold::Fold;
    use crate::read_model::{Change, Image};
    use crate::target::model::tests::labels;

    #[test]
    fn rows_are_staged_in_the_order_of_their_keys_those_without_one_first() {
        let mut fold = Fold::default();
        for (id, code) in [("1", "C"), ("2", "A"), ("3", ""), ("4", "B")] {
            let of = |text: &'static str| Cell::Text(text.as_bytes());
            let values = [
                if code.is_empty() {
                    Cell::Null
                } else {
                    of(code)
                },
                of("Mr."),
                of("Mister"),
            ];
            fold.add(Change::Insert(Image {
                identity: Row::from_cells([of(id)]),
                live: true,
                values: Row::from_cells(values),
            }));
        }
        fold.add(Change::Delete(Row::from_cells([Cell::Text(b"5")])));
        let rows = in_key_order(&labels(), fold.finals());
        let keys = rows
            .iter()
            .map(|row| row.now.and_then(|now| now.values.cell(0).text()));
        let expected = [None, None, Some("A"), Some("B"), Some("C")];
        assert_eq!(
            keys.collect::<Vec<_>>(),
            expected.map(|key| key.map(str::as_bytes))
        );
    }
}

//! A row of text values in one allocation: what the decoder hands on and the fold keeps.
//!
//! Layout: for each cell a little-endian `u32`, the length of its text, or one of two marks (NULL, unchanged),
//! followed by the text's bytes. Two rows are equal exactly if their cells are, byte for byte, so a row can
//! be the key of a map.

use std::fmt;

/// Mark of a NULL in place of a length.
const NULL: u32 = u32::MAX;
/// Mark of an unchanged out-of-line value in place of a length.
const UNCHANGED: u32 = u32::MAX - 1;

/// Bytes from which on a row takes its builder's buffer over, rather than being copied beside it.
const LARGE: usize = 1 << 20;

/// One value of a row, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell<'a> {
    /// SQL NULL.
    Null,
    /// An out-of-line (TOASTed) value that the update did not change; the stream does not carry it.
    Unchanged,
    /// The value as the source's own text, in the client encoding UTF8.
    Text(&'a [u8]),
}

impl<'a> Cell<'a> {
    /// The text, unless the cell is NULL or unchanged.
    pub fn text(self) -> Option<&'a [u8]> {
        match self {
            Self::Text(text) => Some(text),
            Self::Null | Self::Unchanged => None,
        }
    }
}

/// A row of cells in one allocation.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Row(Box<[u8]>);

impl Row {
    /// A row of these cells.
    pub fn from_cells<'a>(cells: impl IntoIterator<Item = Cell<'a>>) -> Self {
        let mut builder = RowBuilder::default();
        for cell in cells {
            builder.push(cell);
        }
        builder.finish()
    }

    /// The cells from first to last.
    pub fn cells(&self) -> Cells<'_> {
        Cells(&self.0)
    }

    /// The cell at `index`, counted from 0; NULL beyond the end.
    pub fn cell(&self, index: usize) -> Cell<'_> {
        self.cells().nth(index).unwrap_or(Cell::Null)
    }

    /// Whether any cell is an unchanged out-of-line value.
    pub fn has_unchanged(&self) -> bool {
        self.cells().any(|cell| cell == Cell::Unchanged)
    }

    /// Bytes that the row takes in memory.
    pub fn bytes(&self) -> usize {
        self.0.len() + size_of::<Self>()
    }
}

/// Prints the shape only: a row's values never reach a log line.
impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Row({} cells, {} bytes)", self.cells().count(), self.0.len())
    }
}

/// Iterator over a row's cells.
#[derive(Debug, Clone)]
pub struct Cells<'a>(&'a [u8]);

impl<'a> Iterator for Cells<'a> {
    type Item = Cell<'a>;

    fn next(&mut self) -> Option<Cell<'a>> {
        let (length, rest) = self.0.split_first_chunk::<4>()?;
        match u32::from_le_bytes(*length) {
            NULL => {
                self.0 = rest;
                Some(Cell::Null)
            }
            UNCHANGED => {
                self.0 = rest;
                Some(Cell::Unchanged)
            }
            length => {
                let (text, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
                self.0 = rest;
                Some(Cell::Text(text))
            }
        }
    }
}

/// Builds rows one after the other in a buffer that is reused.
#[derive(Debug, Default)]
pub struct RowBuilder(Vec<u8>);

impl RowBuilder {
    /// Adds a cell.
    ///
    /// A value is at most 1 GB on the wire (the decoder checks it), so its length fits.
    pub fn push(&mut self, cell: Cell<'_>) {
        match cell {
            Cell::Null => self.0.extend_from_slice(&NULL.to_le_bytes()),
            Cell::Unchanged => self.0.extend_from_slice(&UNCHANGED.to_le_bytes()),
            Cell::Text(text) => {
                let length = u32::try_from(text.len()).unwrap_or(UNCHANGED - 1);
                self.0.extend_from_slice(&length.to_le_bytes());
                self.0.extend_from_slice(text);
            }
        }
    }

    /// The row of the cells pushed since the last call.
    pub fn finish(&mut self) -> Row {
        if self.0.len() >= LARGE {
            return Row(std::mem::take(&mut self.0).into_boxed_slice());
        }
        let row = Row(self.0.as_slice().into());
        self.0.clear();
        row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_come_back_as_they_were_pushed() {
        let cells = [
            Cell::Text(b"MR"),
            Cell::Null,
            Cell::Unchanged,
            Cell::Text(b""),
            Cell::Text(b"\xc3\xa4"),
        ];
        let row = Row::from_cells(cells);
        assert_eq!(row.cells().collect::<Vec<_>>(), cells);
        assert_eq!(row.cell(3), Cell::Text(b""));
        assert_eq!(row.cell(9), Cell::Null);
        assert!(row.has_unchanged());
        assert_ne!(row, Row::from_cells([Cell::Text(b"MR")]));
    }

    #[test]
    fn a_large_row_takes_its_buffer_over_and_the_next_one_begins_anew() {
        let large = vec![b'x'; LARGE];
        let mut builder = RowBuilder::default();
        for text in [large.as_slice(), b"small", b""] {
            builder.push(Cell::Text(text));
            let row = builder.finish();
            assert_eq!(row.cells().collect::<Vec<_>>(), [Cell::Text(text)]);
            assert_eq!(row.bytes(), 4 + text.len() + size_of::<Row>());
        }
    }

    #[test]
    fn only_a_text_has_a_text() {
        assert_eq!(Cell::Text(b"MR").text(), Some(b"MR".as_slice()));
        assert_eq!((Cell::Null.text(), Cell::Unchanged.text()), (None, None));
        assert!(!Row::from_cells([Cell::Null, Cell::Text(b"u")]).has_unchanged());
    }

    #[test]
    fn debug_output_holds_no_value() {
        assert_eq!(
            format!("{:?}", Row::from_cells([Cell::Text(b"secret")])),
            "Row(1 cells, 10 bytes)"
        );
    }
}

//! A row of text values in one allocation: what the decoder hands on and the fold keeps.
//!
//! Layout: for each cell a little-endian `u32`, the length of its text, or one of two marks (NULL,
//! unchanged), followed by the text's bytes. Two rows are equal exactly if their cells are, byte
//! for byte, so a row can be the key of a map.

use std::fmt;

/// Mark of a NULL in place of a length.
const NULL: u32 = u32::MAX;
/// Mark of an unchanged out-of-line value in place of a length.
const UNCHANGED: u32 = u32::MAX - 1;

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

    /// Bytes that the cell takes in a row.
    fn bytes(self) -> usize {
        size_of::<u32>() + self.text().map_or(0, <[u8]>::len)
    }

    /// Appends the cell to a row's bytes.
    ///
    /// A value is at most 1 GB on the wire (the decoder checks it), so its length fits.
    fn append(self, row: &mut Vec<u8>) {
        let (mark, text): (u32, &[u8]) = match self {
            Self::Null => (NULL, b""),
            Self::Unchanged => (UNCHANGED, b""),
            Self::Text(text) => (u32::try_from(text.len()).unwrap_or(UNCHANGED - 1), text),
        };
        row.extend_from_slice(&mark.to_le_bytes());
        row.extend_from_slice(text);
    }
}

/// A row of cells in one allocation.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Row(Box<[u8]>);

impl Row {
    /// A row of these cells. The iterator runs twice, so that there is one allocation, of the right
    /// size.
    pub fn from_cells<'a>(cells: impl IntoIterator<Item = Cell<'a>, IntoIter: Clone>) -> Self {
        let cells = cells.into_iter();
        let mut row = Vec::with_capacity(cells.clone().map(Cell::bytes).sum());
        cells.for_each(|cell| cell.append(&mut row));
        Self(row.into_boxed_slice())
    }

    /// The cells from first to last.
    pub fn cells(&self) -> Cells<'_> {
        Cells(&self.0)
    }

    /// The cell at `index`, counted from 0; NULL beyond the end.
    pub(crate) fn cell(&self, index: usize) -> Cell<'_> {
        self.cells().nth(index).unwrap_or(Cell::Null)
    }

    /// Whether any cell is an unchanged out-of-line value.
    pub(crate) fn has_unchanged(&self) -> bool {
        self.cells().any(|cell| cell == Cell::Unchanged)
    }

    /// Bytes that the row takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.0.len() + size_of::<Self>()
    }
}

/// Prints the shape only: a row's values never reach a log line.
impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Row({} cells, {} bytes)",
            self.cells().count(),
            self.0.len()
        )
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
    fn a_row_is_as_large_as_its_texts_and_a_mark_for_each_cell() {
        let large = vec![b'x'; 1 << 20];
        for (cells, bytes) in [
            (vec![], 0),
            (vec![Cell::Null, Cell::Unchanged], 8),
            (vec![Cell::Text(b""), Cell::Text(b"MR")], 10),
            (vec![Cell::Text(&large), Cell::Null], large.len() + 8),
        ] {
            let row = Row::from_cells(cells.iter().copied());
            assert_eq!(row.bytes(), bytes + size_of::<Row>());
            assert_eq!(row.cells().collect::<Vec<_>>(), cells);
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

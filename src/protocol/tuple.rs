//! TupleData: one row image on the wire, checked once and then read without errors.
//!
//! Layout: Int16 number of columns; for each column one byte, `n` (NULL), `u` (unchanged TOASTed
//! value, not sent) or `t` (text: Int32 length, bytes). `cdc` never asks for binary values (`b`),
//! so one is an error.
//!
//! Text is passed through as it is: it is the source's own text in the client encoding. Only a zero
//! byte is refused: no PostgreSQL text holds one, and the target could not store it.

use std::fmt;

use super::reader::Reader;
use crate::error::Result;
use crate::row::Cell;

/// Byte that marks a NULL.
const NULL: u8 = b'n';
/// Byte that marks an unchanged out-of-line value.
const UNCHANGED: u8 = b'u';
/// Byte that marks a value as text.
const TEXT: u8 = b't';
/// Byte that marks a binary value.
const BINARY: u8 = b'b';

/// A row image, borrowed from the message. Only checked bytes get in, so that its cells can be read
/// without errors.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Tuple<'a> {
    columns: usize,
    values: &'a [u8],
}

impl<'a> Tuple<'a> {
    /// Checks the tuple at the reader's place and steps over it.
    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self> {
        let columns = reader.count16("number of columns", 1)?;
        let start = reader.rest();
        for _ in 0..columns {
            check_value(reader)?;
        }
        let length = start.len() - reader.rest().len();
        let values = start.get(..length).unwrap_or_default();
        Ok(Self { columns, values })
    }

    /// Number of columns: the published ones of the relation.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The values from first to last.
    pub fn cells(&self) -> TupleCells<'a> {
        TupleCells(self.values)
    }

    /// Bytes that the values take in the message.
    pub fn bytes(&self) -> usize {
        self.values.len()
    }
}

fn check_value(reader: &mut Reader<'_>) -> Result<()> {
    let start = reader.clone();
    match reader.u8("kind of value")? {
        NULL | UNCHANGED => Ok(()),
        TEXT => {
            let length = reader.count32("length of a value", 1)?;
            if reader.bytes(length, "value")?.contains(&0) {
                return Err(start.error(format_args!("expected text without zero bytes")));
            }
            Ok(())
        }
        BINARY => Err(start.error(format_args!("expected text, found a binary value"))),
        kind => Err(start.error(format_args!(
            "expected a value of kind 'n', 'u' or 't', found 0x{kind:02X}"
        ))),
    }
}

/// Prints the shape only: a row's values never reach a log line.
impl fmt::Debug for Tuple<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Tuple({} columns, {} bytes)",
            self.columns,
            self.values.len()
        )
    }
}

/// Iterator over a tuple's values.
#[derive(Clone)]
pub struct TupleCells<'a>(&'a [u8]);

impl fmt::Debug for TupleCells<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TupleCells({} bytes)", self.0.len())
    }
}

impl<'a> Iterator for TupleCells<'a> {
    type Item = Cell<'a>;

    fn next(&mut self) -> Option<Cell<'a>> {
        let (kind, rest) = self.0.split_first()?;
        let (cell, rest) = match *kind {
            NULL => (Cell::Null, rest),
            UNCHANGED => (Cell::Unchanged, rest),
            _ => {
                let (length, rest) = rest.split_first_chunk::<4>()?;
                let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
                let (text, rest) = rest.split_at_checked(length)?;
                (Cell::Text(text), rest)
            }
        };
        self.0 = rest;
        Some(cell)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8]) -> Result<Tuple<'_>> {
        let mut reader = Reader::new("Insert", bytes, 0);
        let tuple = Tuple::decode(&mut reader)?;
        reader.finish()?;
        Ok(tuple)
    }

    const MIXED: &[u8] = b"\0\x04nut\0\0\0\x02MRt\0\0\0\0";

    #[test]
    fn values_come_in_order() {
        let tuple = decode(MIXED).unwrap();
        assert_eq!(tuple.columns(), 4);
        assert_eq!(
            tuple.cells().collect::<Vec<_>>(),
            [
                Cell::Null,
                Cell::Unchanged,
                Cell::Text(b"MR"),
                Cell::Text(b"")
            ]
        );
        assert_eq!(decode(b"\0\0").unwrap().cells().count(), 0);
    }

    #[test]
    fn malformed_tuples_are_refused() {
        for (bytes, text) in [
            (
                &b"\xFF\xFF"[..],
                "expected a number of columns of 0 or more, found -1 at offset 0",
            ),
            (
                b"\0\x02n",
                "a number of columns of 2 does not fit into the 1 bytes after it, at offset 0",
            ),
            (
                b"\x7F\xFFn",
                "a number of columns of 32767 does not fit into the 1 bytes after it, at offset 0",
            ),
            (
                b"\0\x01x",
                "expected a value of kind 'n', 'u' or 't', found 0x78 at offset 2",
            ),
            (
                b"\0\x01b\0\0\0\x01a",
                "expected text, found a binary value at offset 2",
            ),
            (
                b"\0\x01t\xFF\xFF\xFF\xFF",
                "expected a length of a value of 0 or more, found -1 at offset 3",
            ),
            (
                b"\0\x01t\x7F\xFF\xFF\xFFa",
                "a length of a value of 2147483647 does not fit into the 1 bytes after it, at offset 3",
            ),
            (
                b"\0\x01t\0\0\0\x02a\0",
                "expected text without zero bytes at offset 2",
            ),
            (
                b"\0\x01nn",
                "expected the end of the message, found 1 more bytes at offset 3",
            ),
        ] {
            let error = decode(bytes).unwrap_err();
            assert_eq!(error.message(), format!("malformed Insert message: {text}"));
        }
    }

    #[test]
    fn a_tuple_cut_at_any_byte_is_refused() {
        for end in 0..MIXED.len() {
            assert!(decode(&MIXED[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn debug_output_holds_no_value() {
        let tuple = decode(MIXED).unwrap();
        assert_eq!(format!("{tuple:?}"), "Tuple(4 columns, 14 bytes)");
        assert_eq!(format!("{:?}", tuple.cells()), "TupleCells(14 bytes)");
    }
}

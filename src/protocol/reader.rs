//! Checked reads from the bytes of one message.

use crate::error::{Error, Result};
use crate::lsn::{Lsn, PgTimestamp};

/// Reads a message's fields one after the other and knows where it is.
#[derive(Clone)]
pub(super) struct Reader<'a> {
    message: &'static str,
    rest: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    /// Reads `bytes`, the first of which has `offset` in the message that errors name.
    pub(super) fn new(message: &'static str, bytes: &'a [u8], offset: usize) -> Self {
        Self {
            message,
            rest: bytes,
            offset,
        }
    }

    /// Bytes that have not been read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// An error at the place that was reached.
    pub(super) fn error(&self, text: std::fmt::Arguments<'_>) -> Error {
        Error::protocol(format!(
            "malformed {} message: {text} at offset {}",
            self.message, self.offset
        ))
    }

    fn too_short(&self, expected: usize, field: &str) -> Error {
        let (offset, found) = (self.offset, self.rest.len());
        Error::protocol(format!(
            "malformed {} message: expected {expected} bytes for {field} at offset {offset}, found {found}",
            self.message
        ))
    }

    pub(super) fn bytes(&mut self, length: usize, field: &str) -> Result<&'a [u8]> {
        let Some((bytes, rest)) = self.rest.split_at_checked(length) else {
            return Err(self.too_short(length, field));
        };
        self.advance(length, rest);
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self, field: &str) -> Result<[u8; N]> {
        let Some((bytes, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(self.too_short(N, field));
        };
        self.advance(N, rest);
        Ok(*bytes)
    }

    fn advance(&mut self, length: usize, rest: &'a [u8]) {
        self.offset += length;
        self.rest = rest;
    }

    pub(super) fn u8(&mut self, field: &str) -> Result<u8> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    pub(super) fn i32(&mut self, field: &str) -> Result<i32> {
        self.array(field).map(i32::from_be_bytes)
    }

    pub(super) fn u32(&mut self, field: &str) -> Result<u32> {
        self.array(field).map(u32::from_be_bytes)
    }

    pub(super) fn lsn(&mut self, field: &str) -> Result<Lsn> {
        self.array(field).map(u64::from_be_bytes).map(Lsn)
    }

    pub(super) fn time(&mut self, field: &str) -> Result<PgTimestamp> {
        self.array(field).map(i64::from_be_bytes).map(PgTimestamp)
    }

    /// An Int16 that counts things, each of which takes at least `least_bytes`.
    pub(super) fn count16(&mut self, field: &str, least_bytes: usize) -> Result<usize> {
        let start = self.clone();
        let count = i16::from_be_bytes(self.array(field)?);
        start.count(i64::from(count), field, least_bytes, self.rest.len())
    }

    /// An Int32 that counts things, each of which takes at least `least_bytes`.
    pub(super) fn count32(&mut self, field: &str, least_bytes: usize) -> Result<usize> {
        let start = self.clone();
        let count = self.i32(field)?;
        start.count(i64::from(count), field, least_bytes, self.rest.len())
    }

    fn count(&self, found: i64, field: &str, least_bytes: usize, left: usize) -> Result<usize> {
        let Ok(count) = usize::try_from(found) else {
            return Err(self.error(format_args!(
                "expected a {field} of 0 or more, found {found}"
            )));
        };
        if count.saturating_mul(least_bytes) > left {
            return Err(self.error(format_args!(
                "a {field} of {count} does not fit into the {left} bytes after it,"
            )));
        }
        Ok(count)
    }

    /// Bytes up to the next zero byte, which is skipped.
    pub(super) fn cstr(&mut self, field: &str) -> Result<&'a [u8]> {
        let Some(length) = self.rest.iter().position(|byte| *byte == 0) else {
            return Err(self.error(format_args!(
                "expected a zero byte at the end of {field} that begins"
            )));
        };
        let bytes = self.bytes(length, field)?;
        self.u8(field)?;
        Ok(bytes)
    }

    /// A zero-terminated name in UTF-8.
    pub(super) fn name(&mut self, field: &str) -> Result<&'a str> {
        let start = self.clone();
        let bytes = self.cstr(field)?;
        std::str::from_utf8(bytes)
            .map_err(|_| start.error(format_args!("expected UTF-8 for {field}")))
    }

    /// Ends the message: nothing may be left.
    pub(super) fn finish(self) -> Result<()> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(self.error(format_args!(
                "expected the end of the message, found {left} more bytes"
            ))),
        }
    }
}

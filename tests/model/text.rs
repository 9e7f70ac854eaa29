//! Short texts without an allocation of their own: there are many histories, and most of what
//! happens in them is text.

use std::fmt::{self, Write as _};

/// A text of at most 23 bytes, none of which is zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text {
    /// Filled up with zeros, so that texts are ordered by their bytes.
    bytes: [u8; 23],
    length: u8,
}

impl Text {
    /// A name, with a number behind it.
    pub fn of(name: &str, number: Option<u32>) -> Self {
        let mut text = Self::from(name.as_bytes());
        if let Some(number) = number {
            write!(text, "{number}").expect("it is short");
        }
        text
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl From<&[u8]> for Text {
    fn from(from: &[u8]) -> Self {
        let mut bytes = [0; 23];
        bytes[..from.len()].copy_from_slice(from);
        Self {
            bytes,
            length: u8::try_from(from.len()).unwrap(),
        }
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let start = usize::from(self.length);
        let end = start + more.len();
        self.bytes
            .get_mut(start..end)
            .ok_or(fmt::Error)?
            .copy_from_slice(more.as_bytes());
        self.length = u8::try_from(end).unwrap();
        Ok(())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self.as_bytes()))
    }
}

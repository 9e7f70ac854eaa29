//! The progress of copies in the last line of a terminal, which is overwritten each time, below the
//! lines of the log.
//!
//! Everything that goes to stderr passes here: the line is cleared before a log line is written,
//! and shown again below it. If stderr is not a terminal, no line is shown, and bytes pass
//! unchanged. The thread of `stderr.rs` writes it.

use std::io::{self, Write};

use crate::telemetry::{Newlines, escaped};

/// Longest text: terminals are rarely narrower, and one that is does not wrap it.
const MOST_CHARACTERS: usize = 99;

/// Go to the beginning of the line, and clear it (ECMA-48).
const CLEAR: &[u8] = b"\r\x1b[K";

/// What would not fit is cut by the terminal, so that the line stays one line.
const NO_WRAP: &[u8] = b"\x1b[?7l";
const WRAP: &[u8] = b"\x1b[?7h";

/// The last line of the terminal.
#[derive(Debug)]
pub(super) struct Line {
    on: bool,
    /// The text of the line; empty if there is none.
    shown: String,
}

impl Line {
    /// A line that shows nothing yet; `on` if there is a terminal for it.
    pub(super) fn new(on: bool) -> Self {
        Self {
            on,
            shown: String::new(),
        }
    }

    /// Shows this text in place of what is shown; an empty one clears.
    pub(super) fn show(&mut self, out: &mut impl Write, text: &str) -> io::Result<()> {
        if !self.on || (text.is_empty() && self.shown.is_empty()) {
            return Ok(());
        }
        let clear = if self.shown.is_empty() { &[] } else { CLEAR };
        self.shown = escaped(text, Newlines::Escaped)
            .chars()
            .take(MOST_CHARACTERS)
            .collect();
        out.write_all(&[clear, &self.drawn()].concat())?;
        out.flush()
    }

    /// Writes whole lines above it.
    pub(super) fn write(&self, out: &mut impl Write, lines: &[u8]) -> io::Result<()> {
        if self.shown.is_empty() {
            out.write_all(lines)?;
        } else {
            // At once: nothing of another process comes in between.
            out.write_all(&[CLEAR, lines, &self.drawn()].concat())?;
        }
        out.flush()
    }

    fn drawn(&self) -> Vec<u8> {
        if self.shown.is_empty() {
            Vec::new()
        } else {
            [NO_WRAP, self.shown.as_bytes(), WRAP].concat()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a terminal shows: lines, the last of them without an end.
    fn screen(bytes: &[u8]) -> Vec<String> {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let text = text.replace("\x1b[?7l", "").replace("\x1b[?7h", "");
        text.split('\n')
            .map(|line| line.rsplit("\r\x1b[K").next().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn lines_of_the_log_stand_above_it() {
        let mut line = Line::new(true);
        let mut out = Vec::new();
        line.write(&mut out, b"INFO one\n").unwrap();
        assert_eq!(out, b"INFO one\n");
        line.show(&mut out, "labels: 10 rows").unwrap();
        assert_eq!(screen(&out), ["INFO one", "labels: 10 rows"]);
        line.write(&mut out, b"INFO two\n").unwrap();
        assert_eq!(screen(&out), ["INFO one", "INFO two", "labels: 10 rows"]);
        line.show(&mut out, "labels: 20 rows").unwrap();
        assert_eq!(screen(&out), ["INFO one", "INFO two", "labels: 20 rows"]);
        line.show(&mut out, "").unwrap();
        assert_eq!(screen(&out), ["INFO one", "INFO two", ""]);
        let before = out.len();
        line.write(&mut out, b"INFO three\n").unwrap();
        assert_eq!(out.get(before..), Some(&b"INFO three\n"[..]));
    }

    #[test]
    fn it_is_one_line_without_control_characters() {
        let mut line = Line::new(true);
        let mut out = Vec::new();
        line.show(&mut out, &format!("a\nb\x1b[2J{}", "c".repeat(200)))
            .unwrap();
        assert_eq!(screen(&out).len(), 1);
        assert_eq!(line.shown.chars().count(), MOST_CHARACTERS);
        assert!(line.shown.starts_with("a\\nb\\u{1b}[2Jc"));
    }

    #[test]
    fn without_a_terminal_nothing_is_shown() {
        let mut line = Line::new(false);
        let mut out = Vec::new();
        line.show(&mut out, "labels").unwrap();
        line.write(&mut out, b"{}\n").unwrap();
        assert_eq!(out, b"{}\n");
    }
}

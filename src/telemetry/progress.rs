//! Shows the progress of copies in the last line of the terminal, if there is one.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::status::{Copy, progress_line};
use crate::telemetry::stderr;

/// Whether stderr is a terminal that can show the line.
static ON: AtomicBool = AtomicBool::new(false);

/// From now on there is a terminal to show it on.
pub(super) fn turn_on() {
    ON.store(true, Ordering::Relaxed);
}

/// Whether there is a terminal to show it on.
pub(crate) fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// Shows how far these copies are, by name; none clears the line.
pub(crate) fn show<'a>(copies: impl IntoIterator<Item = (&'a str, &'a Copy)>) {
    if is_on() {
        stderr::show(progress_line(copies));
    }
}

/// Clears it.
pub(crate) fn clear() {
    if is_on() {
        stderr::show(String::new());
    }
}

/// Writes to stderr, above the line. Each write is one or more whole lines.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Above;

impl Write for Above {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        stderr::write(lines)?;
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

//! What goes to stdout and stderr: results that survive a closed pipe, errors in one form.

use std::io::{self, ErrorKind, Write};

use crate::error::{Error, Result};
use crate::telemetry::escaped;

/// Writes a command's result to stdout; that the reader has closed the pipe (`cdc status | head -1`) is no error.
///
/// # Errors
///
/// Transient, if stdout cannot be written otherwise (disk full).
pub fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Error::transient("could not write to standard output").with_source(error))
        }
        _ => Ok(()),
    }
}

/// Writes a line to stderr for the user; nothing can be done if that fails.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Writes the error to stderr.
pub fn print_error(error: &Error) {
    note(&rendered(error));
}

/// The error as PostgreSQL prints its own: `error:`, `detail:` and `hint:` lines.
pub fn rendered(error: &Error) -> String {
    let mut text = format!("error: {}", escaped(&error.to_string(), false));
    for (label, part) in [("detail", error.detail()), ("hint", error.hint())] {
        if let Some(part) = part {
            // A list of several lines stands below its label.
            let blank = if part.starts_with('\n') { "" } else { " " };
            text.push_str(&format!("\n{label}:{blank}{}", escaped(part, true)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_printed_as_postgresql_prints_them() {
        let error = Error::transient("could not start streaming")
            .with_source(io::Error::other("refused"))
            .with_detail("One.\nTwo.")
            .with_hint("Stop the other cdc.");
        assert_eq!(
            rendered(&error),
            "error: could not start streaming: refused\ndetail: One.\nTwo.\nhint: Stop the other cdc."
        );
    }

    #[test]
    fn a_server_cannot_write_control_characters_to_the_terminal() {
        let error = Error::transient("no\x1b[2J\nerror: forged").with_detail("a\x07");
        assert_eq!(
            rendered(&error),
            "error: no\\u{1b}[2J\\nerror: forged\ndetail: a\\u{7}"
        );
    }
}

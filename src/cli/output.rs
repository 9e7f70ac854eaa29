//! What goes to stdout and stderr: results that survive a closed pipe, errors in one form and
//! without passwords.

use std::io::{self, ErrorKind, Write};

use crate::error::{Error, Result};
use crate::telemetry::progress::Above;
use crate::telemetry::{Newlines, escaped};

/// Writes a command's result to stdout; that the reader has closed the pipe (`cdc status | head
/// -1`) is no error.
///
/// # Errors
///
/// Transient, if stdout cannot be written otherwise (disk full).
pub(crate) fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Error::transient("could not write to standard output").with_source(error))
        }
        _ => Ok(()),
    }
}

/// Writes a line to stderr for the user; nothing can be done if that fails.
pub(crate) fn note(text: &str) {
    let _ = Above.write_all(format!("{text}\n").as_bytes());
}

/// Writes the error to stderr.
pub(crate) fn print_error(error: &Error) {
    note(&rendered(error));
}

/// The text with passwords of URLs and of `password=` masked.
///
/// No error of ours holds one; this is for the words of the user that clap repeats (`cdc run
/// postgres://a:b@c`), and a net below the rest. It rather masks too much.
pub(crate) fn masked(text: &str) -> String {
    text.split_inclusive('\n')
        .map(|line| masked_pairs(&masked_urls(line)))
        .collect()
}

/// `scheme://user:anything@` up to the last `@` of the line.
fn masked_urls(line: &str) -> String {
    let masked = line.split_once("://").and_then(|(scheme, rest)| {
        let (userinfo, host) = rest.rsplit_once('@')?;
        let (user, _) = userinfo.split_once(':')?;
        Some(format!("{scheme}://{user}:****@{host}"))
    });
    masked.unwrap_or_else(|| line.to_owned())
}

/// The value after each `password=`, as far as the next blank, quote or `&`; of a quoted value as
/// far as its quote.
fn masked_pairs(line: &str) -> String {
    let mut masked = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("password=") {
        masked.push_str(before);
        masked.push_str("password=****");
        rest = match after.strip_prefix('\'') {
            Some(quoted) => quoted
                .find('\'')
                .and_then(|end| quoted.get(end..))
                .unwrap_or("\n"),
            None => {
                let end = after.find(|c: char| c.is_whitespace() || matches!(c, '\'' | '"' | '&'));
                end.and_then(|end| after.get(end..)).unwrap_or_default()
            }
        };
    }
    masked.push_str(rest);
    masked
}

/// The error as PostgreSQL prints its own: `error:`, `detail:` and `hint:` lines.
pub(crate) fn rendered(error: &Error) -> String {
    let mut text = format!("error: {}", escaped(&error.to_string(), Newlines::Escaped));
    for (label, part) in [("detail", error.detail()), ("hint", error.hint())] {
        if let Some(part) = part {
            // A list of several lines is below its label.
            let blank = if part.starts_with('\n') { "" } else { " " };
            text.push_str(&format!(
                "\n{label}:{blank}{}",
                escaped(part, Newlines::Kept)
            ));
        }
    }
    masked(&text)
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

    #[test]
    fn passwords_are_masked_wherever_they_stand() {
        for (text, expected) in [
            (
                "a 'postgres://ann:pw@db/x' b",
                "a 'postgres://ann:****@db/x' b",
            ),
            ("postgres://ann:p w@x/y@db", "postgres://ann:****@db"),
            ("postgres://ann@db", "postgres://ann@db"),
            ("'host=a password=pw'\nnext", "'host=a password=****'\nnext"),
            ("password='p w' user=a", "password=****' user=a"),
            ("password='p w", "password=****\n"),
            (
                "?password=pw&sslpassword=pw&a=b",
                "?password=****&sslpassword=****&a=b",
            ),
            ("nothing", "nothing"),
        ] {
            assert_eq!(masked(text), expected, "{text}");
        }
    }
}

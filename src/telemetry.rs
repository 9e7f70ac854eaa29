//! Logs: text on a terminal, with the progress of copies below it (`line`); JSON elsewhere; always
//! to stderr.
//!
//! Level and filters come from `--log-level` or `CDC_LOG`, else from the configuration file, and
//! can be replaced while the process runs. Control characters in messages and fields are escaped: a
//! server's message must not be able to forge a line or steer a terminal.

mod line;
pub(crate) mod progress;
pub(crate) mod stderr;

use std::fmt;
use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing::field::Field;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::error::{Error, Result};

/// How lines of the log are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// One line for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging; to be called once.
///
/// `level` is a level for `cdc` (others log warnings), or filters as
/// `tracing_subscriber::EnvFilter` reads them.
///
/// # Errors
///
/// Configuration, if the filters cannot be read.
pub(crate) fn init(level: Option<&str>, format: Option<LogFormat>) -> Result<()> {
    let filter = filter(level)?;
    let terminal = std::io::stderr().is_terminal();
    let format = format.unwrap_or(if terminal {
        LogFormat::Text
    } else {
        LogFormat::Json
    });
    let dumb = std::env::var_os("TERM").is_none_or(|value| value == "dumb");
    let shows_progress = terminal && !dumb && format == LogFormat::Text;
    if shows_progress {
        progress::turn_on();
    }
    stderr::start(shows_progress);
    let (filter, handle) = reload::Layer::new(filter);
    let registry = tracing_subscriber::registry().with(filter);
    let started = match format {
        LogFormat::Text => {
            let colour =
                terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            let layer = tracing_subscriber::fmt::layer()
                .with_writer(|| progress::Above)
                .with_ansi(colour)
                .with_target(false)
                .fmt_fields(debug_fn(write_field).delimited(" "));
            registry.with(layer).try_init()
        }
        LogFormat::Json => {
            let layer = tracing_subscriber::fmt::layer()
                .json()
                .flatten_event(true)
                .with_current_span(true)
                .with_span_list(false)
                .with_writer(|| progress::Above);
            registry.with(layer).try_init()
        }
    };
    started.map_err(|error| {
        Error::configuration("cannot start the log a second time").with_source(error)
    })?;
    // It is empty: the log was started for the first time.
    let _ = FILTER.set(handle);
    Ok(())
}

/// The filters in force.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// From now on this level, or these filters, say what is logged. Where no log was started, nothing
/// happens.
///
/// # Errors
///
/// Configuration, if the filters cannot be read; then the old ones stay.
pub(crate) fn set_level(level: &str) -> Result<()> {
    let filter = filter(Some(level))?;
    if let Some(handle) = FILTER.get() {
        handle.reload(filter).map_err(|error| {
            Error::transient("could not change the log level").with_source(error)
        })?;
    }
    Ok(())
}

/// Whether this is a level, or filters.
///
/// # Errors
///
/// Configuration, with what is allowed.
pub(crate) fn check_level(level: &str) -> Result<()> {
    filter(Some(level)).map(|_| ())
}

/// `level` as filters; a bare level is for `cdc` alone.
fn filter(level: Option<&str>) -> Result<EnvFilter> {
    let level = level
        .map(str::trim)
        .filter(|level| !level.is_empty())
        .unwrap_or("info");
    let bare = ["off", "error", "warn", "info", "debug", "trace"]
        .contains(&level.to_ascii_lowercase().as_str());
    let filters = if bare {
        format!("warn,cdc={level}")
    } else {
        format!("warn,cdc=info,{level}")
    };
    // The filter's own error says the same thing twice, and less than the hint.
    EnvFilter::builder().parse(&filters).map_err(|_| {
        Error::configuration(format!("cannot read the log level {level:?}"))
            .with_hint("Use error, warn, info, debug, trace, or filters such as cdc::source=debug (--log-level, CDC_LOG, log_level).")
    })
}

fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let value = format!("{value:?}");
    match field.name() {
        "message" => writer.write_str(&escaped(&value, Newlines::Escaped)),
        name => write!(writer, "{name}={}", escaped(&value, Newlines::Escaped)),
    }
}

/// What becomes of the newlines of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Newlines {
    /// They stay.
    Kept,
    /// They are written as `\n`.
    Escaped,
}

/// The text with control characters written as `\n`, `\u{1b}` and so on.
pub(crate) fn escaped(text: &str, newlines: Newlines) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && !(newlines == Newlines::Kept && c == '\n') {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_level_is_for_cdc_alone() {
        for (level, expected) in [
            (None, "cdc=info,warn"),
            (Some("DEBUG"), "cdc=debug,warn"),
            (Some("cdc::source=trace"), "cdc::source=trace,cdc=info,warn"),
            (Some(""), "cdc=info,warn"),
        ] {
            assert_eq!(filter(level).unwrap().to_string(), expected);
        }
        assert!(filter(Some("cdc=loud")).is_err());
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(
            escaped("a\nb\x1b[0m\u{9b}é", Newlines::Escaped),
            "a\\nb\\u{1b}[0m\\u{9b}é"
        );
        assert_eq!(escaped("a\nb", Newlines::Kept), "a\nb");
    }
}

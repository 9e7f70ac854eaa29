//! Configuration: flags over environment over file over defaults, made into [`Settings`] that can
//! only be valid.
//!
//! In: flags, environment variables and files. Out: [`Settings`] and warnings, or one error with
//! every mistake that could be found at once. The way: each layer becomes a `raw::Raw`, the layers
//! are laid over each other, `build` judges the result.
//!
//! No message shows a URL or a password; a mistake is reported by its place.

mod build;
mod effective;
mod environment;
mod file;
mod raw;
mod units;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::conninfo::Conninfo;
use crate::error::{Error, Result};
use crate::settings::Settings;

pub(crate) use effective::Effective;

/// A commented example of the file; `cdc config --example` prints it.
pub(crate) const EXAMPLE: &str = include_str!("example.toml");

/// The file that is read if none is named and it exists.
const DEFAULT_FILE: &str = "cdc.toml";

/// Flags that say what else the file and the environment say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flags {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--source-url`.
    pub source_url: Option<String>,
    /// `--target-url`.
    pub target_url: Option<String>,
    /// `--log-level`, or CDC_LOG in its place.
    pub log_level: Option<String>,
}

/// The configuration in effect.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    /// What all layers come to.
    pub settings: Settings,
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// Values that are allowed but should be checked, as sentences.
    pub warnings: Vec<String>,
}

impl Loaded {
    /// Logs the warnings.
    pub(crate) fn log_warnings(&self) {
        for warning in &self.warnings {
            tracing::warn!(warning = %warning, "configuration");
        }
    }
}

/// Reads everything from this process's environment and files.
///
/// # Errors
///
/// Configuration, with all mistakes at once where possible.
pub(crate) fn load(flags: &Flags) -> Result<Loaded> {
    load_with(flags, &environment::variables(), Path::new(DEFAULT_FILE))
}

/// Reads one connection string as [`load`] does: with these variables, and with the password,
/// service and certificate files that they or the string name.
///
/// # Errors
///
/// As [`Conninfo::parse`].
pub fn read_conninfo(text: &str, variables: &BTreeMap<String, String>) -> Result<Conninfo> {
    let mut environment = environment::conninfo_environment(variables);
    environment::conninfo(text, &mut environment, &mut Vec::new())
}

fn load_with(
    flags: &Flags,
    variables: &BTreeMap<String, String>,
    default_file: &Path,
) -> Result<Loaded> {
    let mut mistakes = Mistakes::default();
    let mut warnings = environment::misspelled(variables);
    let path = config_path(flags, variables, default_file);
    let from_file = match &path {
        Some(path) => file::read(path, &mut mistakes, &mut warnings)?,
        None => raw::Raw::default(),
    };
    let raw = raw::Raw::from_flags(flags)
        .over(environment::raw(variables, &mut mistakes))
        .over(from_file);
    let settings = build::build(raw, variables, &mut mistakes, &mut warnings);
    match (settings, mistakes.into_error()) {
        (Some(settings), None) => Ok(Loaded {
            settings,
            file: path,
            warnings,
        }),
        (_, Some(error)) => Err(error),
        // `build` gives nothing only after it has noted a mistake.
        (None, None) => Err(Error::configuration("the configuration is not complete")),
    }
}

/// `--config`, else CDC_CONFIG, else ./cdc.toml if it exists.
fn config_path(
    flags: &Flags,
    variables: &BTreeMap<String, String>,
    default_file: &Path,
) -> Option<PathBuf> {
    let named = flags.config.clone().or_else(|| {
        variables
            .get("CDC_CONFIG")
            .filter(|file| !file.is_empty())
            .map(PathBuf::from)
    });
    named.or_else(|| default_file.is_file().then(|| default_file.to_owned()))
}

/// Mistakes of the configuration, gathered so that all of them are reported together.
#[derive(Debug, Default)]
pub(crate) struct Mistakes(Vec<Mistake>);

#[derive(Debug)]
struct Mistake {
    text: String,
    detail: Option<String>,
    hint: Option<String>,
}

impl Mistakes {
    fn note(&mut self, text: impl Into<String>) {
        self.0.push(Mistake {
            text: text.into(),
            detail: None,
            hint: None,
        });
    }

    fn note_with_hint(&mut self, text: impl Into<String>, hint: impl Into<String>) {
        self.0.push(Mistake {
            text: text.into(),
            detail: None,
            hint: Some(hint.into()),
        });
    }

    fn note_error(&mut self, origin: &str, error: &Error) {
        self.0.push(Mistake {
            text: format!("{origin}: {error}"),
            detail: error.detail().map(str::to_owned),
            hint: error.hint().map(str::to_owned),
        });
    }

    /// The value, or a mistake in its place.
    fn take<T>(&mut self, origin: &str, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.note_error(origin, &error)).ok()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn into_error(mut self) -> Option<Error> {
        if self.0.len() > 1 {
            let list: Vec<String> = self.0.iter().map(Mistake::line).collect();
            let message = format!("the configuration has {} mistakes", list.len());
            return Some(Error::configuration(message).with_detail(list.concat()));
        }
        let Mistake { text, detail, hint } = self.0.pop()?;
        let mut error = Error::configuration(text);
        if let Some(detail) = detail {
            error = error.with_detail(detail);
        }
        Some(match hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        })
    }
}

impl Mistake {
    /// As one entry of a list.
    fn line(&self) -> String {
        let mut line = format!("\n  {}", self.text);
        for more in [&self.detail, &self.hint].into_iter().flatten() {
            line.push_str(&format!("\n    {more}"));
        }
        line
    }
}

#[cfg(test)]
mod tests;

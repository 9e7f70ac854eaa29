//! Finds PostgreSQL's server programs.
//!
//! In: a directory or major version asked for, the environment, the file system. Out: a directory
//! that holds `initdb`, `pg_ctl` and `postgres`. What the user names is taken or refused, never
//! replaced by a guess.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Error, Result};

/// Programs without which no server can be created.
const NEEDED: [&str; 3] = ["initdb", "pg_ctl", "postgres"];

/// Where Debian and Ubuntu keep one directory for each major version.
const DEBIAN: &str = "/usr/lib/postgresql";

/// A directory with PostgreSQL's server programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    directory: PathBuf,
    major: u32,
}

impl Programs {
    /// Finds the programs: `explicit`, else `CDC_PG_BIN` (with a version: `CDC_PG_BIN_<major>`),
    /// else the `PATH`, `pg_config --bindir`, and the newest version below `/usr/lib/postgresql`.
    ///
    /// # Errors
    /// Configuration: nothing is installed, not in that version, or the directory named lacks a
    /// program.
    pub fn find(explicit: Option<&Path>, major: Option<u32>) -> Result<Self> {
        let variable = match major {
            Some(major) => format!("CDC_PG_BIN_{major}"),
            None => "CDC_PG_BIN".to_owned(),
        };
        let named = explicit.map(Path::to_path_buf).or_else(|| {
            let value = std::env::var_os(variable).filter(|value| !value.is_empty());
            value.map(PathBuf::from)
        });
        if let Some(directory) = named {
            let found = Self::at(&directory)?;
            return match major {
                Some(major) if major != found.major => Err(Error::configuration(format!(
                    "expected PostgreSQL {major} in directory \"{}\", found {}",
                    directory.display(),
                    found.major
                ))),
                _ => Ok(found),
            };
        }
        places()
            .iter()
            .filter_map(|directory| Self::at(directory).ok())
            .find(|found| major.is_none_or(|major| major == found.major))
            .ok_or_else(|| not_found(major))
    }

    /// The programs in this directory.
    ///
    /// # Errors
    /// Configuration: a program is missing or cannot be run.
    pub(crate) fn at(directory: &Path) -> Result<Self> {
        // Links are followed: initdb looks for its siblings and its share directory from where it
        // really is.
        let directory = std::fs::canonicalize(directory.join("postgres"))
            .ok()
            .and_then(|program| program.parent().map(Path::to_path_buf))
            .unwrap_or_else(|| directory.to_path_buf());
        for program in NEEDED {
            if !directory.join(program).is_file() {
                return Err(Error::configuration(format!(
                    "cannot find program \"{program}\" in directory \"{}\"",
                    directory.display()
                ))
                .with_hint("Name the directory that holds initdb, pg_ctl and postgres."));
            }
        }
        let major = major_version(&directory.join("postgres"))?;
        Ok(Self { directory, major })
    }

    /// The major version, for example 15.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// The directory itself.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The path of a program.
    pub fn path(&self, program: &str) -> PathBuf {
        self.directory.join(program)
    }
}

/// Directories to look into when none is named, best first.
fn places() -> Vec<PathBuf> {
    let mut places = Vec::new();
    if let Some(path) = std::env::var_os("PATH") {
        places.extend(
            std::env::split_paths(&path).filter(|directory| directory.join("postgres").is_file()),
        );
    }
    if let Some(directory) = output(Command::new("pg_config").arg("--bindir")) {
        places.push(PathBuf::from(directory));
    }
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir(DEBIAN)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            Some((
                entry.file_name().to_str()?.parse().ok()?,
                entry.path().join("bin"),
            ))
        })
        .collect();
    versions.sort_by_key(|(major, _)| std::cmp::Reverse(*major));
    places.extend(versions.into_iter().map(|(_, directory)| directory));
    places
}

/// Reads `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
fn major_version(postgres: &Path) -> Result<u32> {
    output(Command::new(postgres).arg("--version"))
        .and_then(|text| {
            let version = text.split_whitespace().nth(2)?;
            let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().ok()
        })
        .ok_or_else(|| {
            Error::configuration(format!(
                "could not ask \"{}\" for its version",
                postgres.display()
            ))
        })
}

fn output(command: &mut Command) -> Option<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

fn not_found(major: Option<u32>) -> Error {
    let what = match major {
        Some(major) => format!("cannot find the server programs of PostgreSQL {major}"),
        None => "cannot find PostgreSQL's server programs".to_owned(),
    };
    Error::configuration(what)
        .with_detail("Looked for initdb, pg_ctl and postgres in PATH, pg_config --bindir and /usr/lib/postgresql.")
        .with_hint("Install them (Debian, Ubuntu: apt-get install postgresql), or name their directory with --pg-bin or CDC_PG_BIN.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_without_the_programs_is_refused_by_name() {
        let error = Programs::find(Some(Path::new("/nowhere")), None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot find program \"initdb\" in directory \"/nowhere\""
        );
    }
}

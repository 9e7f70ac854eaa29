//! The server's programs, each run under the account that the server has.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::account::Account;
use super::programs::Programs;
use crate::error::{Error, Result};

/// What every run of a program needs.
#[derive(Debug)]
pub(super) struct Tools {
    pub(super) programs: Programs,
    pub(super) account: Account,
    /// The server's own directory.
    pub(super) directory: PathBuf,
}

impl Tools {
    /// Makes the data directory of a server; with a password TCP demands it.
    pub(super) fn initdb(&self, data: &Path, password: Option<&str>) -> Result<()> {
        let mut command = self.command("initdb");
        command
            .arg("-D")
            .arg(data)
            .args(["-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync"])
            .args(["--auth-local=trust", "--auth-host"])
            .arg(if password.is_some() {
                "scram-sha-256"
            } else {
                "trust"
            });
        if let Some(password) = password {
            let file = self.directory.join("password");
            fs::write(&file, password).map_err(|error| could_not_write(&file, error))?;
            self.account.own(&file)?;
            command.arg("--pwfile").arg(&file);
            let result = self.run(&mut command);
            let _ = fs::remove_file(&file);
            return result;
        }
        self.run(&mut command)
    }

    /// A server program under the right account, cut off from our environment's PostgreSQL
    /// settings.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.path(program));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        command
            .env("LC_ALL", "C")
            .env("HOME", &self.directory)
            .current_dir(&self.directory)
            .stdin(Stdio::null());
        self.account.apply(&mut command);
        command
    }

    /// Runs it to its end.
    pub(super) fn run(&self, command: &mut Command) -> Result<()> {
        let output = command
            .output()
            .map_err(|error| could_not_run(command, error))?;
        if output.status.success() {
            return Ok(());
        }
        let program = Path::new(command.get_program())
            .file_name()
            .unwrap_or_default();
        Err(Error::configuration(format!(
            "could not run {}: {}",
            program.to_string_lossy(),
            output.status
        ))
        .with_detail(last_lines(&String::from_utf8_lossy(&output.stderr))))
    }
}

/// The end of a log, for an error.
pub(super) fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines
        .get(lines.len().saturating_sub(12)..)
        .unwrap_or_default()
        .join("\n")
}

pub(super) fn could_not_write(path: &Path, error: std::io::Error) -> Error {
    Error::transient(format!("could not write \"{}\"", path.display())).with_source(error)
}

/// Root's servers run under another account, which may not enter the folders on the way to the
/// program.
pub(super) fn could_not_run(command: &Command, error: std::io::Error) -> Error {
    let program = Path::new(command.get_program()).display();
    let denied = error.kind() == std::io::ErrorKind::PermissionDenied;
    let failed = Error::configuration(format!("could not run \"{program}\"")).with_source(error);
    if !denied {
        return failed;
    }
    failed.with_hint(
        "Servers that root starts run as the user postgres (or nobody): that user must be able to enter every folder of this path. \
         Put the server programs elsewhere, or name others with CDC_PG_BIN.",
    )
}

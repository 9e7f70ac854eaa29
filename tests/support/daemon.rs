//! A `cdc run` whose configuration file the test replaces, and that is asked to read it again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tokio_postgres::Client;

use crate::support::{Cdc, Pair, Signal, value, wait_in_step, wait_log, wait_until};

/// What the log says once a reload is over.
const OVER: [&str; 2] = [
    "\"message\":\"configuration reloaded",
    "could not reload the configuration",
];

/// A running `cdc` with its file.
#[derive(Debug)]
pub struct Daemon {
    pub cdc: Cdc,
    pub file: PathBuf,
}

impl Daemon {
    /// Starts `cdc run` on this pair.
    pub fn run(pair: &Pair) -> Self {
        Self::start(Cdc::command(pair, &["run"]))
    }

    /// The same, and waits until it streams.
    pub async fn streaming(pair: &Pair, source: &Client, target: &Client) -> Self {
        let daemon = Self::run(pair);
        wait_in_step(source, target).await;
        wait_log(&daemon.cdc, "\"message\":\"streaming\"").await;
        daemon
    }

    /// Starts a command of [`Cdc::command`], whose last argument is the file.
    pub fn start(mut command: Command) -> Self {
        let file = command.get_args().last().map(PathBuf::from).unwrap();
        Self {
            cdc: Cdc::start(&mut command),
            file,
        }
    }

    /// Replaces the file in one step, as careful people do.
    pub fn write(&self, config: &str) {
        let new = self.file.with_extension("new");
        fs::write(&new, config).unwrap();
        fs::rename(&new, &self.file).unwrap();
    }

    /// Asks for a reload.
    pub fn hang_up(&mut self) {
        self.cdc.kill(Signal::Hup);
    }

    /// How many reloads are over.
    pub fn reloads(&self) -> usize {
        let log = self.cdc.log();
        log.lines().filter(|line| is_over(line)).count()
    }

    /// Asks for a reload with the file as it is; returns the line of the log that says how it went.
    pub async fn reload(&mut self) -> String {
        let before = self.reloads();
        self.hang_up();
        wait_until("the reload is over", async || {
            let log = self.cdc.log();
            let line = log.lines().filter(|line| is_over(line)).nth(before);
            line.map(str::to_owned)
                .ok_or_else(|| "it is not".to_owned())
        })
        .await
    }

    /// The same with this file.
    pub async fn reload_with(&mut self, config: &str) -> String {
        self.write(config);
        self.reload().await
    }
}

fn is_over(line: &str) -> bool {
    OVER.iter().any(|over| line.contains(over))
}

/// What `tests/engine` finds of the session that streams from this slot: another one has another
/// process at the source.
pub async fn walsender(source: &Client, pair: &Pair) -> String {
    let pid = format!(
        "SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{}'",
        pair.slot
    );
    value(source, &pid).await
}

/// The file without a `[source]` table's URL, and one with it: the environment gives the URLs
/// otherwise, and overrides the file.
pub fn with_url_of_source(config: &str, url: &str) -> String {
    config.replacen("[source]\n", &format!("[source]\nurl = '{url}'\n"), 1)
}

/// Removes the file of a daemon.
pub fn remove(file: &Path) {
    fs::remove_file(file).unwrap();
}

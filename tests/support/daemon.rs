//! A `cdc run` whose configuration file the test replaces, and that is asked to read it again.

use std::fs;
use std::path::PathBuf;
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

    /// Starts a command of [`Cdc::command`] in a directory of its own that has its file as
    /// `cdc.toml`, which no argument names.
    pub fn start_in_directory(command: &Command) -> Self {
        let given = command.get_args().last().map(PathBuf::from).unwrap();
        let directory = given.with_extension("directory");
        fs::create_dir(&directory).unwrap();
        let file = directory.join("cdc.toml");
        fs::rename(&given, &file).unwrap();
        let variables = command.get_envs();
        let variables = variables.filter_map(|(name, value)| Some((name, value?)));
        let mut there = Command::new(command.get_program());
        there
            .arg("run")
            .env_clear()
            .envs(variables)
            .current_dir(directory);
        Self {
            cdc: Cdc::start(&mut there),
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

/// The walsender that streams from this slot: another session has another one.
pub async fn walsender(source: &Client, pair: &Pair) -> String {
    let pid = format!(
        "SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{}'",
        pair.slot
    );
    value(source, &pid).await
}

/// The file with the source's URL. The environment overrides it.
pub fn with_url_of_source(config: &str, url: &str) -> String {
    config.replacen("[source]\n", &format!("[source]\nurl = '{url}'\n"), 1)
}

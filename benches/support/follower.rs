//! Who follows the stream into a target database: a `cdc run` of its own, or a subscription.
//!
//! Slot, publication, subscription and files have the follower's name. It begins with a first copy,
//! is halted, and goes on.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio_postgres::Client;

use super::measure;

/// Longest wait for anything: at full size a catch-up may last an hour.
const DEADLINE: Duration = Duration::from_secs(3 * 3600);

/// Distance of looks at what is waited for.
const LOOK: Duration = Duration::from_millis(3);

/// Which kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// `cdc` with these `[[read_model]]` sections, and synchronous_commit on or off.
    Cdc {
        /// The sections.
        read_models: String,
        /// As PostgreSQL's setting.
        synchronous_commit: &'static str,
    },
    /// PostgreSQL's own, of a publication of its name.
    Subscription,
}

impl Kind {
    /// `cdc` that commits as native replication does.
    pub fn cdc(read_models: impl Into<String>) -> Self {
        Self::Cdc {
            read_models: read_models.into(),
            synchronous_commit: "off",
        }
    }
}

/// One of them, with its target database.
pub struct Follower {
    /// Name of slot, publication and subscription.
    pub name: String,
    /// A session in the target database.
    pub target: Client,
    /// How it reaches the source.
    pub source_url: String,
    /// How it reaches the target.
    pub target_url: String,
    kind: Kind,
    directory: PathBuf,
    process: Option<Child>,
}

impl Follower {
    /// Nothing is followed yet. `directory` is for configuration and log.
    pub fn new(
        name: &str,
        kind: Kind,
        (source_url, target_url): (String, String),
        target: Client,
        directory: PathBuf,
    ) -> Self {
        Self {
            name: name.to_owned(),
            target,
            source_url,
            target_url,
            kind,
            directory,
            process: None,
        }
    }

    /// Begins for the first time: copies the tables, then follows.
    pub async fn begin(&mut self) -> Result<()> {
        match &self.kind {
            Kind::Cdc { .. } => self.spawn(),
            Kind::Subscription => {
                let (name, connection) = (&self.name, &self.source_url);
                let create = format!(
                    "CREATE SUBSCRIPTION {name} CONNECTION '{connection}' PUBLICATION {name}"
                );
                Ok(self.target.batch_execute(&create).await?)
            }
        }
    }

    /// Goes on after [`Self::halt`].
    pub async fn go_on(&mut self) -> Result<()> {
        match &self.kind {
            Kind::Cdc { .. } => self.spawn(),
            Kind::Subscription => self.alter("ENABLE").await,
        }
    }

    /// Stops; nobody reads the slot afterwards.
    pub async fn halt(&mut self, source: &Client) -> Result<()> {
        match self.process.take() {
            Some(mut child) => {
                let pid = child.id().to_string();
                Command::new("/bin/sh")
                    .args(["-c", "kill -s TERM \"$0\"", &pid])
                    .status()?;
                child.wait()?;
            }
            None => self.alter("DISABLE").await?,
        }
        self.wait_active(source, false).await
    }

    async fn alter(&self, what: &str) -> Result<()> {
        let alter = format!("ALTER SUBSCRIPTION {} {what}", self.name);
        Ok(self.target.batch_execute(&alter).await?)
    }

    /// Waits until somebody reads the slot, or nobody does.
    pub async fn wait_active(&mut self, source: &Client, active: bool) -> Result<()> {
        let query = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1 AND active";
        let statement = source.prepare(query).await?;
        let started = Instant::now();
        loop {
            let count: i64 = source.query_one(&statement, &[&self.name]).await?.get(0);
            if (count > 0) == active {
                return Ok(());
            }
            self.check_alive(started)?;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits until the first copy of everything is in the target.
    pub async fn wait_copied(&mut self) -> Result<()> {
        let query = match &self.kind {
            Kind::Cdc { read_models, .. } => format!(
                "SELECT count(*) FILTER (WHERE state = 'in_step') = {} FROM cdc.read_model",
                read_models.matches("[[read_model]]").count()
            ),
            Kind::Subscription => {
                "SELECT count(*) > 0 AND bool_and(srsubstate = 'r') FROM pg_subscription_rel"
                    .to_owned()
            }
        };
        // Before the bookkeeping is whole the query may fail.
        self.wait(&query, true).await
    }

    /// Waits until this query of the target tells true.
    pub async fn wait_until(&mut self, query: &str) -> Result<()> {
        self.wait(query, false).await
    }

    async fn wait(&mut self, query: &str, may_fail: bool) -> Result<()> {
        let started = Instant::now();
        loop {
            // Planned each time: a plan for an empty table would soon be in the way of what is
            // measured.
            match self.target.query_one(query, &[]).await {
                Ok(row) if row.get(0) => return Ok(()),
                Err(error) if !may_fail => return Err(error.into()),
                _ => {}
            }
            self.check_alive(started)?;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Process, where it is one of its own.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Peak of the resident memory in MB, where it is a process of its own.
    pub fn peak_mb(&self) -> f64 {
        self.pid().map_or(0.0, measure::peak_mb)
    }

    /// Removes what would stay at the source, and stops.
    pub async fn remove(&mut self, source: &Client) -> Result<()> {
        if self.kind == Kind::Subscription {
            let drop = format!("DROP SUBSCRIPTION {}", self.name);
            return Ok(self.target.batch_execute(&drop).await?);
        }
        if self.process.is_some() {
            self.halt(source).await?;
        }
        source
            .execute("SELECT pg_drop_replication_slot($1::text)", &[&self.name])
            .await?;
        Ok(())
    }

    /// Runs another command of `cdc` with the same configuration, while this one goes on.
    pub async fn command(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = self.cdc(arguments)?;
        command.stdin(Stdio::null());
        Ok(tokio::task::spawn_blocking(move || command.output()).await??)
    }

    fn check_alive(&mut self, since: Instant) -> Result<()> {
        if since.elapsed() > DEADLINE {
            bail!("{}: not there after {DEADLINE:?}", self.name);
        }
        if let Some(child) = &mut self.process
            && let Some(status) = child.try_wait()?
        {
            let log = fs::read_to_string(self.file("log")).unwrap_or_default();
            bail!("{} has ended: {status}\n{log}", self.name);
        }
        Ok(())
    }

    fn file(&self, kind: &str) -> PathBuf {
        self.directory.join(format!("{}.{kind}", self.name))
    }

    fn spawn(&mut self) -> Result<()> {
        let log = File::create(self.file("log"))?;
        let child = self
            .cdc(&["run"])?
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("could not start cdc")?;
        self.process = Some(child);
        Ok(())
    }

    fn cdc(&self, arguments: &[&str]) -> Result<Command> {
        let Kind::Cdc {
            read_models,
            synchronous_commit,
        } = &self.kind
        else {
            bail!("{} is a subscription", self.name);
        };
        let config = self.file("toml");
        fs::write(
            &config,
            format!("[source]\nslot = \"{}\"\n{read_models}", self.name),
        )?;
        let level = std::env::var("CDC_LOG").unwrap_or_else(|_| "info".to_owned());
        let mut command = Command::new(env!("CARGO_BIN_EXE_cdc"));
        command
            .args(arguments)
            .arg("--config")
            .arg(config)
            .env_clear()
            .env("HOME", "/nonexistent")
            .env("CDC_LOG", level)
            .env("CDC_SOURCE_URL", &self.source_url)
            .env("CDC_TARGET_URL", &self.target_url)
            .env("CDC_SYNCHRONOUS_COMMIT", synchronous_commit)
            .env("CDC_RESYNC_SCHEDULE", "off");
        Ok(command)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        if let Some(child) = &mut self.process {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

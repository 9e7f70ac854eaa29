//! The consumers that are compared: `cdc`, and PostgreSQL's own subscription without and with a trigger.
//!
//! Each has a target database of its own. A consumer is prepared (first copy, slot), halted, and started again.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cdc::cluster::Cluster;
use tokio_postgres::{Client, NoTls};

/// Longest wait for anything.
const DEADLINE: Duration = Duration::from_secs(300);

/// What consumes the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// `cdc` with synchronous_commit = off, as native replication has it.
    Cdc,
    /// `cdc` as it is by default.
    CdcDurable,
    /// A subscription of the master's rows.
    Native,
    /// A subscription with a trigger that keeps the lookup.
    Trigger,
}

/// All of them.
pub const SUBJECTS: [Subject; 4] = [
    Subject::Cdc,
    Subject::Native,
    Subject::Trigger,
    Subject::CdcDurable,
];

const LOOKUP: &str = "
CREATE TABLE labels_lookup (code varchar(10) PRIMARY KEY, label varchar(50) NOT NULL, display_name varchar(50) NOT NULL);";

/// What a plain subscription fills: found by id, joined by code.
const PLAIN: &str = "
CREATE TABLE labels (id uuid PRIMARY KEY, code varchar(10) NOT NULL, label varchar(50) NOT NULL, display_name varchar(50) NOT NULL);
CREATE INDEX labels_code ON labels (code);";

/// The least that keeps a lookup of live rows beside a subscription.
const TRIGGER: &str = "
CREATE TABLE labels (id uuid PRIMARY KEY, code varchar(10) NOT NULL, label varchar(50) NOT NULL,
    display_name varchar(50) NOT NULL, deleted_at timestamptz);
CREATE FUNCTION keep_lookup() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' AND OLD.deleted_at IS NULL THEN
        IF TG_OP = 'DELETE' THEN
            DELETE FROM public.labels_lookup WHERE code = OLD.code;
            RETURN NULL;
        ELSIF NEW.deleted_at IS NOT NULL OR NEW.code <> OLD.code THEN
            DELETE FROM public.labels_lookup WHERE code = OLD.code;
        END IF;
    END IF;
    IF TG_OP <> 'DELETE' AND NEW.deleted_at IS NULL THEN
        INSERT INTO public.labels_lookup VALUES (NEW.code, NEW.label, NEW.display_name)
        ON CONFLICT (code) DO UPDATE SET label = EXCLUDED.label, display_name = EXCLUDED.display_name;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER keep_lookup AFTER INSERT OR UPDATE OR DELETE ON labels FOR EACH ROW EXECUTE FUNCTION keep_lookup();
ALTER TABLE labels ENABLE REPLICA TRIGGER keep_lookup;";

impl Subject {
    /// Name in the table that is printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cdc => "cdc",
            Self::CdcDurable => "cdc (on)",
            Self::Native => "native",
            Self::Trigger => "trigger",
        }
    }

    /// Name of target database, slot and subscription in a scenario.
    fn key(self, scenario: usize) -> String {
        let name = match self {
            Self::Cdc => "cdc",
            Self::CdcDurable => "durable",
            Self::Native => "native",
            Self::Trigger => "trigger",
        };
        format!("{name}_{scenario}")
    }

    fn is_cdc(self) -> bool {
        matches!(self, Self::Cdc | Self::CdcDurable)
    }

    /// Columns for the subscription.
    fn columns(self) -> &'static str {
        if self == Self::Trigger {
            "id, code, label, display_name, deleted_at"
        } else {
            "id, code, label, display_name"
        }
    }

    /// What is read at the target.
    pub fn table(self) -> &'static str {
        if self == Self::Native {
            "labels"
        } else {
            "labels_lookup"
        }
    }
}

/// The two servers and how the consumers reach them.
pub struct Servers {
    /// With the master table.
    pub source: Cluster,
    /// With the lookups.
    pub target: Cluster,
    /// Whether connections go over TCP.
    pub tcp: bool,
}

impl Servers {
    /// Connection string of a database at the source.
    pub fn source_url(&self, database: &str) -> String {
        Self::url(&self.source, self.tcp, database)
    }

    fn url(cluster: &Cluster, tcp: bool, database: &str) -> String {
        if tcp {
            cluster.tcp_url(database)
        } else {
            cluster.url(database)
        }
    }
}

/// One consumer in one scenario.
pub struct Consumer<'a> {
    /// Which.
    pub subject: Subject,
    servers: &'a Servers,
    source_database: String,
    /// Name of slot, database and subscription.
    pub key: String,
    /// A session in the target database.
    pub target: Client,
    process: Option<Child>,
}

impl<'a> Consumer<'a> {
    /// Makes the target database with its tables; nothing is consumed yet.
    pub async fn new(
        servers: &'a Servers,
        subject: Subject,
        scenario: usize,
        source: &Client,
    ) -> Result<Self> {
        let key = subject.key(scenario);
        servers.target.create_database(&key)?;
        let target = connect(&servers.target.url(&key)).await?;
        target.batch_execute(LOOKUP).await?;
        match subject {
            Subject::Native => target.batch_execute(PLAIN).await?,
            Subject::Trigger => target.batch_execute(TRIGGER).await?,
            Subject::Cdc | Subject::CdcDurable => {}
        }
        if !subject.is_cdc() {
            let publish = format!(
                "CREATE PUBLICATION {key} FOR TABLE labels ({})",
                subject.columns()
            );
            source.batch_execute(&publish).await?;
        }
        Ok(Self {
            subject,
            servers,
            source_database: format!("source_{scenario}"),
            key,
            target,
            process: None,
        })
    }

    /// Begins for the first time: copies the table, then follows.
    pub async fn begin(&mut self) -> Result<()> {
        if self.subject.is_cdc() {
            return self.spawn();
        }
        let connection = self.servers.source_url(&self.source_database);
        let key = &self.key;
        let create = format!("CREATE SUBSCRIPTION {key} CONNECTION '{connection}' PUBLICATION {key}");
        Ok(self.target.batch_execute(&create).await?)
    }

    /// Goes on after [`Self::halt`].
    pub async fn go_on(&mut self) -> Result<()> {
        if self.subject.is_cdc() {
            return self.spawn();
        }
        Ok(self
            .target
            .batch_execute(&format!("ALTER SUBSCRIPTION {} ENABLE", self.key))
            .await?)
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
            None => {
                self.target
                    .batch_execute(&format!("ALTER SUBSCRIPTION {} DISABLE", self.key))
                    .await?
            }
        }
        self.wait_active(source, false).await
    }

    /// Waits until somebody reads the slot, or nobody does.
    pub async fn wait_active(&mut self, source: &Client, active: bool) -> Result<()> {
        let query = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1 AND active";
        let statement = source.prepare(query).await?;
        let started = Instant::now();
        loop {
            let count: i64 = source.query_one(&statement, &[&self.key]).await?.get(0);
            if (count > 0) == active {
                return Ok(());
            }
            self.check_alive(started)?;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits until the first copy is in the target and the stream has begun.
    pub async fn wait_copied(&mut self) -> Result<()> {
        let query = if self.subject.is_cdc() {
            // The view comes with the bookkeeping, a moment after the start.
            "SELECT to_regclass('cdc.freshness') IS NOT NULL AND
                    query_to_xml('SELECT 1 FROM cdc.read_model WHERE state = ''in_step''', false, false, '')::text LIKE '%<row%'"
        } else {
            "SELECT count(*) > 0 AND bool_and(srsubstate = 'r') FROM pg_subscription_rel"
        };
        let started = Instant::now();
        loop {
            // Before the bookkeeping is whole the query may fail.
            match self.target.query_one(query, &[]).await {
                Ok(row) if row.get::<_, bool>(0) => return Ok(()),
                _ => self.check_alive(started)?,
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }

    /// Waits until a row with this code can be read.
    pub async fn wait_for(&mut self, code: &str) -> Result<()> {
        let query = format!("SELECT count(*) FROM {} WHERE code = $1", self.subject.table());
        let statement = self.target.prepare(&query).await?;
        let started = Instant::now();
        loop {
            let count: i64 = self.target.query_one(&statement, &[&code]).await?.get(0);
            if count > 0 {
                return Ok(());
            }
            self.check_alive(started)?;
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }

    /// Whether the target holds what the source says it must.
    pub async fn compare(&self, source: &Client) -> Result<()> {
        let live = if self.subject == Subject::Native {
            "true"
        } else {
            "deleted_at IS NULL"
        };
        let hash = |table: &str, condition: &str| {
            format!(
                "SELECT count(*), coalesce(sum(hashtextextended(concat_ws('|', code, label, display_name), 0)), 0)::text
                 FROM {table} WHERE {condition}"
            )
        };
        let expected = source.query_one(&hash("labels", live), &[]).await?;
        let found = self
            .target
            .query_one(&hash(self.subject.table(), "true"), &[])
            .await?;
        let read = |row: &tokio_postgres::Row| (row.get::<_, i64>(0), row.get::<_, String>(1));
        if read(&expected) != read(&found) {
            bail!(
                "{}: expected (rows, hash) {:?}, found {:?}",
                self.key,
                read(&expected),
                read(&found)
            );
        }
        Ok(())
    }

    /// Process of the consumer, where it is one of its own.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Removes what would stay at the source.
    pub async fn remove(mut self, source: &Client) -> Result<()> {
        if self.subject.is_cdc() {
            if self.process.is_some() {
                self.halt(source).await?;
            }
            source
                .execute("SELECT pg_drop_replication_slot($1::text)", &[&self.key])
                .await?;
        } else {
            self.target
                .batch_execute(&format!("DROP SUBSCRIPTION {}", self.key))
                .await?;
        }
        Ok(())
    }

    fn check_alive(&mut self, since: Instant) -> Result<()> {
        if since.elapsed() > DEADLINE {
            bail!("{}: not there after {DEADLINE:?}", self.key);
        }
        if let Some(child) = &mut self.process
            && let Some(status) = child.try_wait()?
        {
            let log = fs::read_to_string(self.log()).unwrap_or_default();
            bail!("{} has ended: {status}\n{log}", self.key);
        }
        Ok(())
    }

    fn log(&self) -> std::path::PathBuf {
        self.servers.source.socket_dir().join(format!("{}.log", self.key))
    }

    fn spawn(&mut self) -> Result<()> {
        let config = self
            .servers
            .source
            .socket_dir()
            .join(format!("{}.toml", self.key));
        let text = format!(
            "[source]\nslot = \"{}\"\n[[read_model]]\nsource = \"public.labels\"\ntarget = \"public.labels_lookup\"\n\
             key = [\"code\"]\ncolumns = [\"code\", \"label\", \"display_name\"]\nsoft_delete = \"deleted_at\"\n",
            self.key
        );
        fs::write(&config, text)?;
        let log = File::create(self.log())?;
        let durable = if self.subject == Subject::Cdc { "off" } else { "on" };
        let level = std::env::var("CDC_LOG").unwrap_or_else(|_| "info".to_owned());
        let child = Command::new(env!("CARGO_BIN_EXE_cdc"))
            .arg("run")
            .arg("--config")
            .arg(config)
            .env_clear()
            .env("HOME", "/nonexistent")
            .env("CDC_LOG", level)
            .env("CDC_SOURCE_URL", self.servers.source_url(&self.source_database))
            .env(
                "CDC_TARGET_URL",
                Servers::url(&self.servers.target, self.servers.tcp, &self.key),
            )
            .env("CDC_SYNCHRONOUS_COMMIT", durable)
            .env("CDC_RESYNC_SCHEDULE", "off")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("could not start cdc")?;
        self.process = Some(child);
        Ok(())
    }
}

impl Drop for Consumer<'_> {
    fn drop(&mut self) {
        if let Some(child) = &mut self.process {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A session that lives as long as its client.
pub async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    // Whoever uses the client sees the error.
    tokio::spawn(async move { drop(connection.await) });
    Ok(client)
}

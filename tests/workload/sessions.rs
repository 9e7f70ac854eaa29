//! The workload: concurrent sessions with random transactions over `labels`, made from a seed.
//!
//! A statement that fails (a code or an id that somebody else has, a deadlock) rolls its
//! transaction or its savepoint back; a lost connection is made again. So the sessions go on
//! whatever happens to the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Error, NoTls, SimpleQueryMessage};

use super::journal::{Entry, Journal};

/// Ids are few, so that they come again after their rows are gone.
const IDS: u32 = 120;
/// As many codes as `codes` holds, see [`super::stage`].
pub const CODES: u32 = 24;

/// More rows than `cdc` writes in one statement.
const BULK: u32 = 700;

/// What the workload may do.
#[derive(Debug, Clone, Copy, Default)]
pub struct Habits {
    /// Codes are checked at commit, so that two rows can swap theirs in one statement.
    pub deferrable: bool,
    /// Labels of some kilobytes.
    pub large: bool,
    /// One statement in so many changes [`BULK`] rows; 0 is never.
    pub bulk: u32,
    /// One statement in so many is TRUNCATE; 0 is never.
    pub truncate: u32,
    /// So many sessions that they must not wait for each other for long.
    pub crowded: bool,
}

/// Connects; unlike the harness's `pg` it may fail.
pub async fn connect(url: &str) -> Result<Client, Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(client)
}

/// Ends a transaction; returns its id if it has one.
async fn end(client: &Client, how: &str) -> Result<Option<String>, Error> {
    let messages = client
        .simple_query(&format!("SELECT txid_current_if_assigned(); {how}"))
        .await?;
    Ok(messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    }))
}

/// The running sessions.
#[derive(Debug)]
pub struct Sessions {
    stop: Arc<AtomicBool>,
    /// Transactions that were committed, as far as the sessions know.
    pub committed: Arc<AtomicU64>,
    /// What they were.
    pub journal: Arc<Journal>,
    handles: Vec<JoinHandle<()>>,
}

impl Sessions {
    /// Starts so many sessions.
    pub fn start(url: &str, name: &str, seed: u64, number: u32, habits: Habits) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let committed = Arc::new(AtomicU64::new(0));
        let journal = Arc::new(Journal::default());
        let handles = (0..number).map(|session| {
            let session = Session {
                url: url.to_owned(),
                rng: Rng::with_seed(seed.wrapping_mul(31).wrapping_add(u64::from(session))),
                number: session,
                // Names of prepared transactions belong to the whole server.
                prepared: format!("'{name}_{session}'"),
                habits,
                stop: Arc::clone(&stop),
                committed: Arc::clone(&committed),
                journal: Arc::clone(&journal),
                statements: Vec::new(),
            };
            tokio::spawn(session.run())
        });
        Self {
            handles: handles.collect(),
            stop,
            committed,
            journal,
        }
    }

    /// Lets each finish its transaction.
    pub async fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        for handle in self.handles {
            handle.await.unwrap();
        }
    }
}

struct Session {
    url: String,
    rng: Rng,
    number: u32,
    prepared: String,
    habits: Habits,
    stop: Arc<AtomicBool>,
    committed: Arc<AtomicU64>,
    journal: Arc<Journal>,
    /// What the open transaction has run.
    statements: Vec<String>,
}

impl Session {
    async fn run(mut self) {
        while !self.stopped() {
            // The server may be away for a while.
            if self.connected().await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    async fn connected(&mut self) -> Result<(), Error> {
        let client = connect(&self.url).await?;
        // A copy waits for every open transaction.
        let patience = if self.habits.crowded { "50ms" } else { "500ms" };
        client
            .batch_execute(&format!(
                "SET deadlock_timeout = '20ms'; SET lock_timeout = '{patience}'; SET statement_timeout = '10s'"
            ))
            .await?;
        // A transaction that was prepared when the connection broke would hold its locks for ever.
        let _ = client
            .batch_execute(&format!("ROLLBACK PREPARED {}", self.prepared))
            .await;
        while !self.stopped() {
            match self.transaction(&client).await {
                Ok(()) => {
                    self.committed.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) if client.is_closed() || error.as_db_error().is_none() => {
                    return Err(error);
                }
                Err(error) => {
                    if std::env::var_os("CDC_TEST_VERBOSE").is_some() {
                        eprintln!("session {}: {error:?}", self.number);
                    }
                    client.batch_execute("ROLLBACK").await?;
                }
            }
            if self.rng.bool() {
                tokio::time::sleep(Duration::from_millis(self.rng.u64(0..5))).await;
            }
        }
        Ok(())
    }

    async fn transaction(&mut self, client: &Client) -> Result<(), Error> {
        self.statements.clear();
        client.batch_execute("BEGIN").await?;
        let statements = match self.rng.u32(0..100) {
            0..=49 => 1,
            50..=94 => self.rng.u32(2..6),
            _ => self.rng.u32(10..40),
        };
        for _ in 0..statements {
            if self.rng.u32(0..8) == 0 {
                self.savepoint(client).await?;
            } else {
                let statement = self.statement();
                self.execute(client, statement).await?;
            }
        }
        match self.rng.u32(0..100) {
            0..=7 => client.batch_execute("ROLLBACK").await,
            8..=10 => {
                let name = self.prepared.clone();
                let xid = end(client, &format!("PREPARE TRANSACTION {name}")).await?;
                let commit = self.rng.bool();
                let how = if commit { "COMMIT" } else { "ROLLBACK" };
                client
                    .batch_execute(&format!("{how} PREPARED {name}"))
                    .await?;
                self.note(xid.filter(|_| commit));
                Ok(())
            }
            _ => {
                let xid = end(client, "COMMIT").await?;
                self.note(xid);
                Ok(())
            }
        }
    }

    /// Runs a statement and remembers it, also if it fails: a savepoint may be rolled back to
    /// behind it.
    async fn execute(&mut self, client: &Client, statement: String) -> Result<(), Error> {
        let done = client.batch_execute(&statement).await;
        // What the server cannot read (class 42) would otherwise be rolled back like a conflict,
        // and never be tried.
        if let Err(error) = &done
            && error
                .code()
                .is_some_and(|code| code.code().starts_with("42"))
        {
            panic!("{statement}: {error:?}");
        }
        self.statements.push(statement);
        done
    }

    /// The open transaction was committed; without an id it wrote nothing.
    fn note(&mut self, xid: Option<String>) {
        if let Some(xid) = xid {
            self.journal.add(Entry {
                session: self.number,
                xid,
                statements: std::mem::take(&mut self.statements),
            });
        }
    }

    async fn savepoint(&mut self, client: &Client) -> Result<(), Error> {
        self.execute(client, "SAVEPOINT s".to_owned()).await?;
        let mut failed = false;
        for _ in 0..self.rng.u32(1..4) {
            let statement = self.statement();
            if let Err(error) = self.execute(client, statement).await {
                if error.as_db_error().is_none() {
                    return Err(error);
                }
                failed = true;
                break;
            }
        }
        let end = if failed || self.rng.bool() {
            "ROLLBACK TO SAVEPOINT s"
        } else {
            "RELEASE SAVEPOINT s"
        };
        self.execute(client, end.to_owned()).await
    }

    fn statement(&mut self) -> String {
        if self.habits.truncate > 0 && self.rng.u32(0..self.habits.truncate) == 0 {
            return "TRUNCATE labels".to_owned();
        }
        if self.habits.bulk > 0 && self.rng.u32(0..self.habits.bulk) == 0 {
            return self.bulk();
        }
        let live = self.some("deleted_at IS NULL");
        let dead = self.some("deleted_at IS NOT NULL");
        let (label, name) = (self.label(), self.name());
        match self.rng.u32(0..100) {
            0..=21 => self.insert(),
            22..=35 => {
                format!("UPDATE labels SET label = {label}, updated_at = now() WHERE id = {live}")
            }
            36..=43 => format!("UPDATE labels SET deleted_at = now() WHERE id = {live}"),
            44..=51 => self.restore(),
            52..=59 => {
                let code = self.free_code();
                format!("UPDATE labels SET code = {code} WHERE id = {live}")
            }
            60..=67 => self.rotate(),
            68..=73 => self.take_over(),
            74..=76 => format!("DELETE FROM labels WHERE id = {live}"),
            77..=80 => format!("DELETE FROM labels WHERE id = {dead}"),
            81..=83 => self.come_again(),
            84..=86 => format!("UPDATE labels SET label = label, code = code WHERE id = {live}"),
            87..=89 => {
                format!("UPDATE labels SET updated_at = now(), updated_by = id WHERE id = {live}")
            }
            90..=93 => {
                let id = self.id();
                format!("UPDATE labels SET id = {id} WHERE id = {live}")
            }
            94 => {
                let id = self.id();
                format!("UPDATE labels SET id = {id}, label = {label} WHERE id = {dead}")
            }
            95..=96 => format!(
                "UPDATE labels SET display_name = {name}, label = {label} WHERE id = {dead}"
            ),
            97 => format!("UPDATE labels SET display_name = {name}"),
            98 => format!(
                "DELETE FROM labels WHERE deleted_at IS NOT NULL; UPDATE labels SET display_name = {name} WHERE id = {live}"
            ),
            _ => "DELETE FROM labels WHERE deleted_at < now() - interval '1 second'".to_owned(),
        }
    }

    /// A random row's id, chosen by the seed and not by the server.
    fn some(&mut self, which: &str) -> String {
        let salt = self.rng.u32(..);
        format!("(SELECT id FROM labels WHERE {which} ORDER BY md5(id::text || '{salt}') LIMIT 1)")
    }

    fn id(&mut self) -> String {
        format!("'00000000-0000-4000-8000-{:012x}'", self.rng.u32(0..IDS))
    }

    fn free_code(&mut self) -> String {
        if self.rng.u32(0..10) == 0 {
            return format!("'C{:02}'", self.rng.u32(0..CODES));
        }
        let salt = self.rng.u32(..);
        format!(
            "(SELECT code FROM codes c WHERE NOT EXISTS (SELECT FROM labels l WHERE l.code = c.code AND deleted_at IS NULL) \
             ORDER BY md5(code || '{salt}') LIMIT 1)"
        )
    }

    fn label(&mut self) -> String {
        if self.habits.large && self.rng.u32(0..3) == 0 {
            let blocks = self.rng.u32(70..200);
            let salt = self.rng.u32(..);
            return format!(
                "(SELECT string_agg(md5(n::text || '{salt}'), '') FROM generate_series(1, {blocks}) n)"
            );
        }
        self.name()
    }

    fn name(&mut self) -> String {
        let number = self.rng.u32(0..100_000);
        match self.rng.u32(0..8) {
            0 => format!("'O''Brien | {number}'"),
            1 => format!("E'Zoë \\\\ \\t\\n {number}'"),
            2 => "''".to_owned(),
            3 => format!("'😀 new-tuple: ' || {number}"),
            _ => format!("'Label {number}'"),
        }
    }

    fn insert(&mut self) -> String {
        let (id, code, label, name) = (self.id(), self.free_code(), self.label(), self.name());
        let deleted = if self.rng.u32(0..8) == 0 {
            "now()"
        } else {
            "NULL"
        };
        let conflict = if self.rng.u32(0..4) == 0 {
            ""
        } else {
            " ON CONFLICT (id) DO NOTHING"
        };
        format!(
            "INSERT INTO labels (id, code, label, display_name, deleted_at) VALUES ({id}, {code}, {label}, {name}, {deleted}){conflict}"
        )
    }

    fn bulk(&mut self) -> String {
        let number = self.rng.u32(..);
        match self.rng.u32(0..10) {
            0..=3 => format!(
                "INSERT INTO labels (id, code, label, display_name) \
                 SELECT ('00000000-0000-4000-9000-' || lpad(n::text, 12, '0'))::uuid, 'B' || n, 'Bulk', '{number}' \
                 FROM generate_series(1, {BULK}) n ON CONFLICT (id) DO NOTHING"
            ),
            4..=6 => format!("UPDATE labels SET label = 'Bulk {number}' WHERE code LIKE 'B%'"),
            7 if self.habits.deferrable => format!(
                "UPDATE labels SET code = 'B' || (substr(code, 2)::int % {BULK} + 1) WHERE code LIKE 'B%' AND deleted_at IS NULL"
            ),
            7..=8 => "UPDATE labels SET deleted_at = now() WHERE code LIKE 'B%'".to_owned(),
            _ => "DELETE FROM labels WHERE code LIKE 'B%'".to_owned(),
        }
    }

    /// A dead row comes back under its code, if nobody has it meanwhile.
    fn restore(&mut self) -> String {
        let salt = self.rng.u32(..);
        format!(
            "UPDATE labels SET deleted_at = NULL WHERE id = (SELECT id FROM labels d WHERE deleted_at IS NOT NULL \
             AND NOT EXISTS (SELECT FROM labels l WHERE l.code = d.code AND l.deleted_at IS NULL) ORDER BY md5(id::text || '{salt}') LIMIT 1)"
        )
    }

    /// Two to four rows pass their codes on.
    fn rotate(&mut self) -> String {
        let salt = self.rng.u32(..);
        let rows = if self.rng.bool() {
            2
        } else {
            self.rng.u32(3..5)
        };
        if self.habits.deferrable {
            return format!(
                "WITH chosen AS (SELECT id, code, row_number() OVER (ORDER BY md5(id::text || '{salt}')) n, count(*) OVER () k FROM \
                 (SELECT id, code FROM labels WHERE deleted_at IS NULL ORDER BY md5(id::text || '{salt}') LIMIT {rows}) s) \
                 UPDATE labels l SET code = o.code FROM chosen m JOIN chosen o ON o.n = m.n % m.k + 1 WHERE l.id = m.id"
            );
        }
        let aside = self.number;
        Self::block(&format!(
            "SELECT * INTO a FROM labels WHERE deleted_at IS NULL ORDER BY md5(id::text || '{salt}') LIMIT 1;
             SELECT * INTO b FROM labels WHERE deleted_at IS NULL AND id <> a.id ORDER BY md5(id::text || '{salt}') LIMIT 1;
             IF b.id IS NOT NULL THEN
                 UPDATE labels SET code = '~{aside}' WHERE id = a.id;
                 UPDATE labels SET code = a.code WHERE id = b.id;
                 UPDATE labels SET code = b.code WHERE id = a.id;
             END IF;"
        ))
    }

    /// A row dies, softly or for good, and another one gets its code.
    fn take_over(&mut self) -> String {
        let salt = self.rng.u32(..);
        let end = if self.rng.u32(0..3) == 0 {
            "DELETE FROM labels WHERE id = a.id"
        } else {
            "UPDATE labels SET deleted_at = now() WHERE id = a.id"
        };
        let heir = if self.rng.bool() {
            format!(
                "INSERT INTO labels (id, code, label, display_name) VALUES ({}, a.code, {}, a.display_name)",
                self.id(),
                self.label()
            )
        } else {
            format!(
                "UPDATE labels SET code = a.code WHERE id = (SELECT id FROM labels WHERE deleted_at IS NULL AND id <> a.id ORDER BY md5(id::text || '{salt}') LIMIT 1)"
            )
        };
        Self::block(&format!(
            "SELECT * INTO a FROM labels WHERE deleted_at IS NULL ORDER BY md5('{salt}' || id::text) LIMIT 1;
             IF a.id IS NOT NULL THEN {end}; {heir}; END IF;"
        ))
    }

    /// A row is deleted and inserted again under the same id, with another code.
    fn come_again(&mut self) -> String {
        let salt = self.rng.u32(..);
        let (code, label) = (self.free_code(), self.label());
        Self::block(&format!(
            "SELECT * INTO a FROM labels ORDER BY md5('{salt}' || id::text) LIMIT 1;
             IF a.id IS NOT NULL THEN
                 DELETE FROM labels WHERE id = a.id;
                 INSERT INTO labels (id, code, label, display_name) VALUES (a.id, {code}, {label}, a.display_name);
             END IF;"
        ))
    }

    fn block(body: &str) -> String {
        format!("DO $block$ DECLARE a labels; b labels; BEGIN {body} END $block$")
    }
}

//! A stage for one scenario: two databases, the oracle's slot, a workload, and a reader that looks
//! at the lookups all the time. [`Stage::finish`] lets it come to rest and checks every look
//! against the oracle.

use std::fmt::Write as _;
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cdc::cluster::Cluster;
use fastrand::Rng;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{ConnectOptions, Row};
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use super::journal::Journal;
use super::oracle::{Failure, History, Lookups, Sample, line};
use super::sessions::{CODES, Habits, Sessions};
use super::support::{
    self, Cdc, LABELS_MODEL, Pair, SOURCE_SQL, Signal, TARGET_SQL, database_pair, database_pair_on,
    pg, value,
};

/// Transactions that are enough for a workload: a good part of them changes labels.
const ENOUGH: u64 = 100;

/// How long the lookups may take to come to rest: more than the longest delay between two tries of
/// `cdc`.
const REST: Duration = Duration::from_secs(40);
/// How long one resync may take beside the workload.
const RESYNC: Duration = Duration::from_secs(60);
/// Concurrent sessions of the workload, and of a crowded one.
const SESSIONS: u32 = 4;
const CROWD: u32 = 16;

const SEED_INDEX: &str =
    "CREATE UNIQUE INDEX labels_code_live ON labels (code) WHERE deleted_at IS NULL;";

/// End of the seed's CREATE TABLE.
const SEED_END: &str = "deleted_at timestamptz\n);";

/// Whether both read models were copied: until then one may show its rows while the table was
/// truncated before the other's turn.
const ALL_COPIED: &str = "CREATE FUNCTION all_copied() RETURNS boolean LANGUAGE plpgsql STABLE AS $$
    DECLARE
        copied boolean := false;
    BEGIN
        IF to_regclass('cdc.read_model') IS NOT NULL THEN
            EXECUTE 'SELECT count(*) = 2 AND bool_and(state <> ''new'') FROM cdc.read_model' INTO copied;
        END IF;
        RETURN copied;
    END $$";

/// The second read model of [`Plan::by_id`].
const BY_ID: &str =
    "CREATE TABLE labels_by_id (id uuid PRIMARY KEY, code varchar(10) NOT NULL, label text)";
const BY_ID_MODEL: &str = r#"
[[read_model]]
source = "public.labels"
target = "public.labels_by_id"
key = ["id"]
columns = ["id", "code", "label"]
soft_delete = "deleted_at"
"#;

/// How codes are kept unique among live rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unique {
    /// The seed's partial unique index: checked at once.
    #[default]
    AtOnce,
    /// A partial exclusion constraint, checked at commit: a unique constraint cannot be partial.
    AtCommit,
    /// Not at all.
    Never,
}

/// By what the stream names an old row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Identity {
    /// The primary key.
    #[default]
    PrimaryKey,
    /// REPLICA IDENTITY FULL beside a primary key.
    Full,
    /// REPLICA IDENTITY FULL without a primary key; only with [`Unique::AtOnce`].
    FullAlone,
    /// REPLICA IDENTITY USING INDEX, with another column in it.
    Index,
}

/// What the tables and the workload are like.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plan {
    pub unique: Unique,
    pub identity: Identity,
    /// The source table has partitions; only with [`Unique::Never`] and the primary key.
    pub partitioned: bool,
    /// Labels are out-of-line texts of some kilobytes.
    pub large: bool,
    /// A second read model of the same table, by id.
    pub by_id: bool,
    /// Both tables in one database.
    pub one_database: bool,
    /// One statement in so many changes hundreds of rows; 0 is never.
    pub bulk: u32,
    /// One statement in so many is TRUNCATE; 0 is never.
    pub truncate: u32,
    /// More sessions than usual.
    pub crowded: bool,
}

impl Plan {
    /// Any plan.
    pub fn any(rng: &mut Rng) -> Self {
        let unique = match rng.u32(0..5) {
            0..=1 => Unique::AtOnce,
            2..=3 => Unique::AtCommit,
            _ => Unique::Never,
        };
        let partitioned = unique == Unique::Never && rng.bool();
        let identity = match rng.u32(0..6) {
            _ if partitioned => Identity::PrimaryKey,
            0 => Identity::Full,
            1 => Identity::Index,
            2 if unique == Unique::AtOnce => Identity::FullAlone,
            _ => Identity::PrimaryKey,
        };
        Self {
            unique,
            identity,
            partitioned,
            large: rng.bool(),
            by_id: rng.u32(0..3) == 0,
            one_database: false,
            bulk: if rng.u32(0..4) == 0 { 100 } else { 0 },
            truncate: [0, 400, 1500][rng.usize(0..3)],
            crowded: false,
        }
    }
}

/// The seed of this run.
pub fn seed() -> u64 {
    number("CDC_TEST_SEED", fastrand::u64(..1 << 32))
}

/// Seconds of workload in each scenario.
pub fn seconds() -> Duration {
    Duration::from_secs(number("CDC_TEST_SECONDS", 4))
}

/// A number from the environment.
pub fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text}")),
        Err(_) => default,
    }
}

/// Everything of one scenario.
pub struct Stage {
    pub pair: Pair,
    /// For what the scenario itself chooses at random.
    pub rng: Rng,
    /// Ends the workload's time.
    pub until: Instant,
    name: &'static str,
    seed: u64,
    /// The statements that made the source's tables.
    tables: String,
    lookups: Lookups,
    sessions: Option<Sessions>,
    reader: Option<Reader>,
    log: Arc<Mutex<String>>,
}

impl Stage {
    /// On the shared servers.
    pub async fn set(name: &'static str, seed: u64, plan: Plan) -> Self {
        Self::set_in(name, seed, plan, database_pair().await).await
    }

    /// On these servers.
    pub async fn set_on(
        name: &'static str,
        seed: u64,
        plan: Plan,
        source: &Cluster,
        target: &Cluster,
    ) -> Self {
        let mut pair = database_pair_on(source, target).await;
        if plan.one_database {
            pair.target_url = pair.source_url.clone();
            pair.target_database = pair.source_database.clone();
        }
        Self::set_in(name, seed, plan, pair).await
    }

    /// Makes tables and the oracle's slot, then starts workload and reader; `cdc` is not started
    /// yet.
    async fn set_in(name: &'static str, seed: u64, plan: Plan, mut pair: Pair) -> Self {
        eprintln!("{name}: CDC_TEST_SEED={seed} {plan:?}");
        let source = pg(&pair.source_url).await;
        let target = pg(&pair.target_url).await;
        let lookups = Lookups { by_id: plan.by_id };
        target
            .batch_execute(&wide(TARGET_SQL, plan.large))
            .await
            .unwrap();
        if plan.by_id {
            target.batch_execute(BY_ID).await.unwrap();
            target.batch_execute(ALL_COPIED).await.unwrap();
            pair.config.push_str(LABELS_MODEL);
            pair.config.push_str(BY_ID_MODEL);
        }
        // Before the first row: the oracle's history begins with an empty table, as does the
        // lookup.
        value(
            &source,
            &format!(
                "SELECT pg_create_logical_replication_slot('{}', 'test_decoding')",
                oracle(&pair)
            ),
        )
        .await;
        let tables = source_sql(plan);
        source.batch_execute(&tables).await.unwrap();
        let habits = Habits {
            deferrable: plan.unique != Unique::AtOnce,
            large: plan.large,
            bulk: plan.bulk,
            truncate: plan.truncate,
            crowded: plan.crowded,
        };
        let number = if plan.crowded { CROWD } else { SESSIONS };
        let sessions = Sessions::start(&pair.source_url, &pair.slot, seed, number, habits);
        let reader = Reader::start(&pair.target_url, lookups);
        Self {
            pair,
            rng: Rng::with_seed(seed),
            until: Instant::now() + seconds(),
            name,
            seed,
            tables,
            lookups,
            sessions: Some(sessions),
            reader: Some(reader),
            log: Arc::default(),
        }
    }

    /// Whether the workload's time is over, and it has done something, however slow the machine.
    pub fn is_over(&self) -> bool {
        let committed = |sessions: &Sessions| sessions.committed.load(Ordering::Relaxed);
        Instant::now() >= self.until
            && self
                .sessions
                .as_ref()
                .is_none_or(|all| committed(all) >= ENOUGH)
    }

    /// Waits for some of these milliseconds.
    pub async fn pause(&mut self, milliseconds: std::ops::Range<u64>) {
        tokio::time::sleep(Duration::from_millis(self.rng.u64(milliseconds))).await;
    }

    /// Kills a `cdc` and keeps its log.
    pub async fn kill(&self, mut cdc: Cdc) {
        cdc.stop(Signal::Kill).await;
        self.keep(&cdc);
    }

    fn keep(&self, cdc: &Cdc) {
        let mut log = self.log.lock().unwrap();
        let _ = writeln!(log, "--- log of cdc, process {}\n{}", cdc.pid(), cdc.log());
    }

    /// Starts a command of `cdc` that is killed when it is dropped.
    pub fn begin(&self, arguments: &[&str]) -> Cdc {
        Cdc::start(&mut Cdc::command(&self.pair, arguments))
    }

    /// Runs a command of `cdc` beside everything else.
    pub async fn command(&self, arguments: &[&str]) -> Output {
        let mut command = tokio::process::Command::from(Cdc::command(&self.pair, arguments));
        let output = command.kill_on_drop(true).output();
        match tokio::time::timeout(RESYNC, output).await {
            Ok(output) => output.unwrap(),
            Err(_) => panic!("cdc {arguments:?} does not end"),
        }
    }

    /// Ends the workload, waits until the lookups are at rest, and checks everything that was seen.
    pub async fn finish(mut self, cdcs: Vec<Cdc>) {
        let sessions = self.sessions.take().unwrap();
        let committed = sessions.committed.load(Ordering::Relaxed);
        let journal = Arc::clone(&sessions.journal);
        sessions.finish().await;
        let quiet = Instant::now();
        let source = pg(&self.pair.source_url).await;
        end_prepared(&source).await;
        let history = History::read(&source, &oracle(&self.pair), self.lookups).await;
        assert_eq!(
            history.last_lines(),
            live(&source, self.lookups).await,
            "the oracle itself is wrong, seed {}",
            self.seed
        );
        let mut reader = self.reader.take().unwrap();
        let rest = reader.wait_for(history.last_hash(), quiet + REST).await;
        let (samples, looks) = reader.finish().await;
        cdcs.iter().for_each(|cdc| self.keep(cdc));
        let outcome = history.check(&samples);
        let seed = self.seed;
        let states = match outcome {
            Ok(states) => states,
            Err(Failure { why, commit }) => panic!(
                "{}: CDC_TEST_SEED={seed}: {why}\n{}",
                self.name,
                self.sql(&history, commit, &journal)
            ),
        };
        if rest.is_none() {
            let last = samples
                .last()
                .map_or_else(String::new, |last| history.difference(last));
            panic!(
                "{}: CDC_TEST_SEED={seed}: at rest after {REST:?} the lookups are not the newest state ({} commits):\n{last}\n{}",
                self.name,
                history.commits(),
                self.sql(&history, history.commits(), &journal)
            );
        }
        let rest = rest.unwrap().saturating_duration_since(quiet);
        self.no_false_alarm();
        self.leave(cdcs, &source).await;
        eprintln!(
            "{}: {committed} transactions, {} of them changed labels; {looks} looks, {} different, {states} states seen; at rest {:.0?} after the last commit",
            self.name,
            history.commits(),
            samples.len(),
            rest,
        );
        assert!(history.commits() > 20, "the workload does nothing");
    }

    /// The last commits up to this one, for psql.
    fn sql(&self, history: &History, commit: usize, journal: &Journal) -> String {
        format!(
            "as SQL, CDC_TEST_SEED={}:\n\n{}\n{}",
            self.seed,
            self.tables.trim(),
            history.sql(commit, journal)
        )
    }

    /// A source that lost nothing is no reason to copy anew, and nothing in this workload can be
    /// refused.
    fn no_false_alarm(&self) {
        let log = self.log.lock().unwrap().clone();
        for alarm in ["the stream cannot continue", "is suspended", "panicked"] {
            let line = log
                .lines()
                .find(|line| line.contains(alarm) && !line.contains("first copy"));
            if let Some(line) = line {
                panic!("{}: CDC_TEST_SEED={}: {line}", self.name, self.seed);
            }
        }
    }

    /// A running `cdc` finds no difference, leaves when asked to, and nothing temporary stays.
    async fn leave(&self, cdcs: Vec<Cdc>, source: &Client) {
        let output = self.command(&["resync", "--dry-run"]).await;
        assert!(
            output.status.success(),
            "{}: CDC_TEST_SEED={}: dry run: {output:?}",
            self.name,
            self.seed
        );
        for mut cdc in cdcs {
            let status = cdc.stop(Signal::Term).await;
            assert!(status.success(), "{}: cdc ended with {status}", self.name);
        }
        let database = &self.pair.source_database;
        support::wait_until("only the two slots are left", async || {
            let slots = support::rows(
                source,
                &format!("SELECT slot_name, active FROM pg_replication_slots WHERE database = '{database}' ORDER BY slot_name"),
            )
            .await;
            let expected = [format!("{}|f", self.pair.slot), format!("{}|f", oracle(&self.pair))];
            if slots == expected { Ok(()) } else { Err(format!("{slots:?}")) }
        })
        .await;
        // The shared server need not keep the WAL any longer.
        value(
            source,
            &format!("SELECT pg_drop_replication_slot('{}')", oracle(&self.pair)),
        )
        .await;
        value(
            source,
            &format!("SELECT pg_drop_replication_slot('{}')", self.pair.slot),
        )
        .await;
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if std::thread::panicking() || std::env::var_os("CDC_TEST_VERBOSE").is_some() {
            eprintln!(
                "{}: replay with CDC_TEST_SEED={}\n{}",
                self.name,
                self.seed,
                self.log.lock().unwrap()
            );
        }
    }
}

fn oracle(pair: &Pair) -> String {
    format!("oracle_{}", pair.slot)
}

/// The demo's tables, with longer labels if asked for.
fn wide(sql: &str, large: bool) -> String {
    if large {
        sql.replace("label varchar(50)", "label text")
    } else {
        sql.to_owned()
    }
}

fn source_sql(plan: Plan) -> String {
    assert!(SOURCE_SQL.contains(SEED_INDEX) && SOURCE_SQL.contains(SEED_END));
    let mut sql = wide(SOURCE_SQL, plan.large);
    sql = match plan.unique {
        Unique::AtOnce => sql,
        Unique::AtCommit => sql.replace(
            SEED_INDEX,
            "ALTER TABLE labels ADD CONSTRAINT labels_code_live EXCLUDE USING btree (code WITH =) \
             WHERE (deleted_at IS NULL) DEFERRABLE INITIALLY DEFERRED;",
        ),
        Unique::Never => sql.replace(SEED_INDEX, ""),
    };
    if plan.partitioned {
        sql = sql.replace(
            SEED_END,
            "deleted_at timestamptz) PARTITION BY HASH (id);
             CREATE TABLE labels_even PARTITION OF labels FOR VALUES WITH (MODULUS 2, REMAINDER 0);
             CREATE TABLE labels_odd PARTITION OF labels FOR VALUES WITH (MODULUS 2, REMAINDER 1);",
        );
    }
    if plan.large {
        // Out of line, not compressed: unchanged ones are left out of the stream.
        for table in if plan.partitioned {
            vec!["labels", "labels_even", "labels_odd"]
        } else {
            vec!["labels"]
        } {
            let _ = write!(sql, "ALTER TABLE {table} ALTER label SET STORAGE EXTERNAL;");
        }
    }
    sql.push_str(match plan.identity {
        Identity::PrimaryKey => "",
        Identity::Full => "ALTER TABLE labels REPLICA IDENTITY FULL;",
        Identity::FullAlone => {
            "ALTER TABLE labels REPLICA IDENTITY FULL, DROP CONSTRAINT labels_pkey; CREATE UNIQUE INDEX ON labels (id);"
        }
        // The oracle takes the smallest id among rows with one code.
        Identity::Index if plan.unique == Unique::Never => {
            "CREATE UNIQUE INDEX labels_identity ON labels (id, created_at); ALTER TABLE labels REPLICA IDENTITY USING INDEX labels_identity;"
        }
        Identity::Index => {
            "CREATE UNIQUE INDEX labels_identity ON labels (created_at, id); ALTER TABLE labels REPLICA IDENTITY USING INDEX labels_identity;"
        }
    });
    let _ = write!(
        sql,
        "CREATE TABLE codes AS SELECT 'C' || lpad(n::text, 2, '0') AS code FROM generate_series(0, {}) n;",
        CODES - 1
    );
    sql
}

/// What the lookups should show, as the source says it now.
async fn live(source: &Client, lookups: Lookups) -> Vec<String> {
    let mut lines = read_source(
        source,
        "SELECT DISTINCT ON (code) 'c', code, label, display_name FROM labels WHERE deleted_at IS NULL ORDER BY code, id",
    )
    .await
    .unwrap();
    if lookups.by_id {
        lines.extend(
            read_source(
                source,
                "SELECT 'i', id, code, label FROM labels WHERE deleted_at IS NULL",
            )
            .await
            .unwrap(),
        );
    }
    lines.sort();
    lines
}

/// The same at the source.
async fn read_source(client: &Client, query: &str) -> Result<Vec<String>, tokio_postgres::Error> {
    let messages = client.simple_query(query).await?;
    Ok(messages
        .iter()
        .filter_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => {
                let values: Vec<&str> = (1..row.len())
                    .map(|column| row.get(column).unwrap())
                    .collect();
                Some(line(row.get(0).unwrap(), &values))
            }
            _ => None,
        })
        .collect())
}

/// Reads the lookups by another driver than the one that writes them.
async fn read(client: &mut PgConnection, query: &str) -> Result<Vec<String>, sqlx::Error> {
    let query = sqlx::raw_sql(sqlx::AssertSqlSafe(query.to_owned()));
    let rows = query.fetch_all(client).await?;
    let text = |row: &PgRow, column| row.try_get_unchecked::<String, usize>(column).unwrap();
    Ok(rows
        .iter()
        .map(|row| {
            let values: Vec<String> = (1..row.len()).map(|column| text(row, column)).collect();
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            line(&text(row, 0), &values)
        })
        .collect())
}

/// A connection that broke at the wrong moment leaves a prepared transaction behind.
async fn end_prepared(source: &Client) {
    for name in support::rows(
        source,
        "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()",
    )
    .await
    {
        let _ = source
            .batch_execute(&format!("ROLLBACK PREPARED '{name}'"))
            .await;
    }
}

/// Looks at the lookups all the time; keeps what differs from the look before.
struct Reader {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    handle: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    samples: Vec<Sample>,
    looks: u64,
}

impl Reader {
    fn start(url: &str, lookups: Lookups) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let handle = tokio::spawn(look(
            url.to_owned(),
            lookups,
            Arc::clone(&stop),
            Arc::clone(&seen),
        ));
        Self { stop, seen, handle }
    }

    /// When this state was first seen, without another one after it.
    async fn wait_for(&mut self, hash: u64, deadline: Instant) -> Option<Instant> {
        let start = Instant::now();
        let asked = self.seen.lock().unwrap().looks;
        loop {
            {
                let seen = self.seen.lock().unwrap();
                // At least one look that began after the question.
                if seen.looks > asked + 1
                    && let Some(last) = seen.samples.last().filter(|last| last.hash == hash)
                {
                    return Some(START.with(|start| *start) + last.at);
                }
            }
            if Instant::now() > deadline.max(start) {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn finish(self) -> (Vec<Sample>, u64) {
        // Some more looks: nothing may change any more.
        tokio::time::sleep(Duration::from_millis(100)).await;
        self.stop.store(true, Ordering::Relaxed);
        self.handle.await.unwrap();
        let seen = std::mem::take(&mut *self.seen.lock().unwrap());
        (seen.samples, seen.looks)
    }
}

thread_local! {
    /// Zero of the samples' times: each test has a thread of its own.
    static START: Instant = Instant::now();
}

/// How the other driver reaches the target: it does not read a URL without a host.
fn other_driver(url: &str) -> PgConnectOptions {
    let config: tokio_postgres::Config = url.parse().unwrap();
    let options = PgConnectOptions::new_without_pgpass()
        .port(config.get_ports()[0])
        .username(config.get_user().unwrap())
        .database(config.get_dbname().unwrap());
    match &config.get_hosts()[0] {
        tokio_postgres::config::Host::Tcp(name) => options.host(name),
        tokio_postgres::config::Host::Unix(directory) => options.socket(directory),
    }
}

async fn look(url: String, lookups: Lookups, stop: Arc<AtomicBool>, seen: Arc<Mutex<Seen>>) {
    let start = START.with(|start| *start);
    let mut query = "SELECT 'c', code, label, display_name FROM labels_lookup".to_owned();
    if lookups.by_id {
        query.push_str(" UNION ALL SELECT 'i', id::text, code, label FROM labels_by_id");
        query = format!("SELECT * FROM ({query}) l WHERE all_copied()");
    }
    query.push_str(" ORDER BY 1, 2");
    while !stop.load(Ordering::Relaxed) {
        // The target may be away for a while.
        let Ok(mut client) = other_driver(&url).connect().await else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        while !stop.load(Ordering::Relaxed) {
            let Ok(lines) = read(&mut client, &query).await else {
                break;
            };
            let sample = Sample::new(start.elapsed(), lines);
            {
                let mut seen = seen.lock().unwrap();
                seen.looks += 1;
                if seen
                    .samples
                    .last()
                    .is_none_or(|last| last.hash != sample.hash)
                {
                    seen.samples.push(sample);
                }
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

//! What every test with servers needs: two PostgreSQL servers for the test binary, a fresh pair of
//! databases for each test, and the built `cdc` as a child process.
//!
//! The servers live in statics, which are never dropped; they are removed when the test's process
//! ends, in whatever way (see `cdc::cluster`). Choose another version with `CDC_PG_BIN`, or
//! different ones for the two sides with `CDC_TEST_SOURCE_BIN` and `CDC_TEST_TARGET_BIN`
//! ([`Side::programs`]).

// Each test binary uses its own part of this module.
#![allow(dead_code)]
// Helpers assert by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::panic)]

pub mod couple;
pub mod daemon;
pub mod held;
mod pipeline;
mod process;
pub mod tags;
mod waits;

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cdc::cluster::{Cluster, Options};
use tokio_postgres::{Client, NoTls};

#[allow(unused_imports)]
pub use pipeline::{
    BLOCKED, IN_STEP, TO_VERSION_4, TO_VERSION_5, forget_healings, goes_on, lock_lookup, tear_down,
};
#[allow(unused_imports)]
pub use process::{Cdc, Signal};
#[allow(unused_imports)]
pub use waits::{
    count_log, on_free_slot, wait_equal, wait_in_step, wait_log, wait_rows, wait_until,
};

/// How long [`wait_until`] waits: a hang is told, a slow machine is not.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// The tables of the demo: `labels`, and `resources` with `labels_lookup`.
pub const SOURCE_SQL: &str = include_str!("../../sql/demo/source.sql");
/// See [`SOURCE_SQL`].
pub const TARGET_SQL: &str = include_str!("../../sql/demo/target.sql");

/// What a server stands for; that decides which version it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// It has the master tables.
    Source,
    /// It has the lookup tables.
    Target,
}

impl Side {
    /// Directory of the server programs that the environment names for this side; `None` leaves the
    /// choice to the cluster.
    pub fn programs(self) -> Option<PathBuf> {
        let variable = match self {
            Self::Source => "CDC_TEST_SOURCE_BIN",
            Self::Target => "CDC_TEST_TARGET_BIN",
        };
        std::env::var_os(variable)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    }
}

/// The server with the master tables, shared by the tests of this binary.
pub fn source() -> &'static Cluster {
    static SOURCE: OnceLock<Cluster> = OnceLock::new();
    SOURCE.get_or_init(|| own_cluster(Side::Source, "source"))
}

/// The server with the lookup tables, shared by the tests of this binary.
pub fn target() -> &'static Cluster {
    static TARGET: OnceLock<Cluster> = OnceLock::new();
    TARGET.get_or_init(|| own_cluster(Side::Target, "target"))
}

/// A server of its own, for a test that stops or kills it.
pub fn own_cluster(side: Side, name: &str) -> Cluster {
    Cluster::start(&Options {
        name: name.to_owned(),
        pg_bin: side.programs(),
        tcp: true,
        ..Options::default()
    })
    .unwrap()
}

/// A database on each of two servers.
#[derive(Debug, Clone)]
pub struct Pair {
    /// Connection string of the source.
    pub source_url: String,
    /// Connection string of the target.
    pub target_url: String,
    /// Name of the database at the source.
    pub source_database: String,
    /// Name of the database at the target.
    pub target_database: String,
    /// Replication slot for this test: slots are shared by all databases of a server.
    pub slot: String,
    /// The configuration file that [`Cdc`] is started with; it names the slot. Add to it what the
    /// test is about.
    pub config: String,
}

/// Two empty databases with names of their own, on the shared servers.
pub async fn database_pair() -> Pair {
    // Both servers start at once: a second saved in each test binary.
    std::thread::scope(|scope| {
        scope.spawn(source);
        target();
    });
    database_pair_on(source(), target()).await
}

/// Two empty databases with names of their own, on these servers.
pub async fn database_pair_on(source: &Cluster, target: &Cluster) -> Pair {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let source_database = format!("app_master_db_{number}");
    let target_database = format!("app_core_db_{number}");
    create_database(source, &source_database).await;
    create_database(target, &target_database).await;
    Pair {
        source_url: source.url(&source_database),
        target_url: target.url(&target_database),
        source_database,
        target_database,
        slot: format!("cdc_{number}"),
        config: format!("[source]\nslot = \"cdc_{number}\"\n"),
    }
}

/// As [`database_pair`], with the demo's tables and rows in both.
pub async fn labels_pair() -> (Pair, Client, Client) {
    let pair = database_pair().await;
    let (source, target) = seeded(&pair).await;
    (pair, source, target)
}

/// The same on servers of the test's own.
pub async fn labels_pair_on(source: &Cluster, target: &Cluster) -> (Pair, Client, Client) {
    let pair = database_pair_on(source, target).await;
    let (source, target) = seeded(&pair).await;
    (pair, source, target)
}

/// Puts the demo's tables and rows into both databases.
pub async fn seeded(pair: &Pair) -> (Client, Client) {
    let source = pg(&pair.source_url).await;
    let target = pg(&pair.target_url).await;
    seed_labels(&source).await;
    seed_reports(&target).await;
    (source, target)
}

/// An empty database at the shared target alone, for tests without a source.
pub async fn target_database() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    let name = format!("target_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    create_database(target(), &name).await;
    target().url(&name)
}

async fn create_database(cluster: &Cluster, name: &str) {
    // Not the blocking helper of the cluster: it would stop every other task of the test's runtime.
    pg(&cluster.url("postgres"))
        .await
        .batch_execute(&format!("CREATE DATABASE {name} TEMPLATE template0"))
        .await
        .unwrap();
}

/// A connection to this database; it is closed when the client is dropped.
pub async fn pg(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls)
        .await
        .unwrap_or_else(|error| panic!("could not connect to {url}: {error}"));
    tokio::spawn(async move {
        // The test sees the error on its next statement.
        let _ = connection.await;
    });
    client
}

/// Makes the master tables of the demo.
pub async fn seed_labels(client: &Client) {
    client.batch_execute(SOURCE_SQL).await.unwrap();
}

/// Makes the reporting tables of the demo, the lookup table among them.
pub async fn seed_reports(client: &Client) {
    client.batch_execute(TARGET_SQL).await.unwrap();
}

/// The rows of a query as text, one line a row, columns separated by `|`, NULL as `-`.
pub async fn rows(client: &Client, query: &str) -> Vec<String> {
    let messages = client
        .simple_query(query)
        .await
        .unwrap_or_else(|error| panic!("{query}: {error:?}"));
    messages
        .iter()
        .filter_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => Some(
                (0..row.len())
                    .map(|column| row.get(column).unwrap_or("-"))
                    .collect::<Vec<_>>()
                    .join("|"),
            ),
            _ => None,
        })
        .collect()
}

/// The first column of the first row, as text.
pub async fn value(client: &Client, query: &str) -> String {
    rows(client, query)
        .await
        .first()
        .cloned()
        .unwrap_or_else(|| panic!("no row: {query}"))
}

/// Says that a test is not run, since a program is missing that can be installed. That is a failure
/// where `CI` is `true`.
pub fn missing(what: &str) {
    // Not by a macro of the test harness, which shows nothing of a test that passes.
    let _ = writeln!(std::io::stderr(), "NOT RUN: {what}");
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{what}");
}

/// The server's version as a number: 150018 is 15.18.
pub async fn server_version(client: &Client) -> u32 {
    value(client, "SHOW server_version_num")
        .await
        .parse()
        .unwrap()
}

/// The built-in read model, written out as a section of the configuration.
pub const LABELS_MODEL: &str = "
[[read_model]]
source = 'public.labels'
target = 'public.labels_lookup'
key = ['code']
columns = ['code', 'label', 'display_name']
soft_delete = 'deleted_at'
synced_at = 'updated_at'
";

/// The lookup as the reports see it, by code.
pub async fn lookup(client: &Client) -> Vec<String> {
    rows(
        client,
        "SELECT code, label, display_name FROM labels_lookup ORDER BY code COLLATE \"C\"",
    )
    .await
}

/// The live rows of the master table, as the lookup should show them.
pub async fn live_labels(client: &Client) -> Vec<String> {
    rows(
        client,
        "SELECT code, label, display_name FROM labels WHERE deleted_at IS NULL ORDER BY code COLLATE \"C\"",
    )
    .await
}

//! Many copies beside many writers, on a server that waits for its disk: each copy is the table as
//! of its slot's position, and reading it has marked no committed row as aborted at the source
//! (`source/settled.rs`). A second slot, which reads no table, tells what was committed. The
//! writers are stopped as soon as a slot is made, since a commit is half done for less than a
//! millisecond: without the wait one copy in ten goes wrong then, else one in some hundred.
//! `CDC_TEST_COPIES` makes it longer; `make campaign-copies` does.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cdc::cluster::{Cluster, Options};
use cdc::conninfo::Conninfo;
use cdc::lsn::Lsn;
use cdc::source::slot;
use cdc::source::snapshot::Snapshot;
use cdc::sql::TableName;
use fastrand::Rng;
use futures_util::TryStreamExt;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use super::place::{client, on_socket, replication};
use crate::support::{Side, rows, wait_until};

const WRITERS: usize = 16;
const ROWS: u32 = 400;
const WITHIN: Duration = Duration::from_secs(60);

type Table = BTreeMap<u32, u32>;

fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text}")),
        Err(_) => default,
    }
}

/// Stops backends in the middle of whatever they do, and lets them go on after a while.
struct Freezer(Child);

impl Freezer {
    /// The backends of all writers.
    async fn of_writers(observer: &Client) -> Self {
        let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
        wait_until("the writers are connected", async || {
            let connected = rows(observer, sql).await.len();
            if connected == WRITERS {
                Ok(())
            } else {
                Err(format!("{connected} of them"))
            }
        })
        .await;
        Self::new(&rows(observer, sql).await)
    }

    fn new(backends: &[String]) -> Self {
        let script = "while read -r _; do kill -STOP $*; sleep 0.05; kill -CONT $*; done";
        let shell = Command::new("sh")
            .args(["-c", script, "sh"])
            .args(backends)
            .stdin(Stdio::piped())
            .spawn();
        Self(shell.unwrap())
    }

    fn freeze(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

/// Commits small transactions until it is told to stop; tells how many.
fn writer(conninfo: Conninfo, mut rng: Rng, stop: Arc<AtomicBool>) -> JoinHandle<u64> {
    tokio::spawn(async move {
        let client = client(&conninfo).await;
        let mut committed = 0;
        while !stop.load(Ordering::Relaxed) {
            // In the order of ids, so that there are no deadlocks.
            let mut ids: Vec<u32> = (0..rng.u32(1..4)).map(|_| rng.u32(0..ROWS)).collect();
            ids.sort_unstable();
            let mut sql = "BEGIN;".to_owned();
            for id in ids {
                let value = rng.u32(0..1_000_000);
                sql.push_str(&match rng.u32(0..4) {
                    0 => format!("DELETE FROM public.t WHERE id = {id};"),
                    _ => format!(
                        "INSERT INTO public.t VALUES ({id}, {value}) ON CONFLICT (id) DO UPDATE SET v = excluded.v;"
                    ),
                });
            }
            sql.push_str("COMMIT");
            match client.batch_execute(&sql).await {
                Ok(()) => committed += 1,
                Err(_) => client.batch_execute("ROLLBACK").await.unwrap(),
            }
        }
        committed
    })
}

/// The table as of the consistent point of a slot that was made for this copy.
async fn copy(conninfo: &Conninfo, number: u64, freezer: &mut Freezer) -> (Lsn, Table) {
    let observer = client(conninfo).await;
    // Before the slot is made, so that the first read comes early.
    let reader = client(conninfo).await;
    let mut replication = replication(conninfo).await;
    let slot = slot::create(
        &mut replication,
        &format!("copy_{number}"),
        slot::Kind::Temporary,
    )
    .await
    .unwrap();
    freezer.freeze();
    let snapshot = Snapshot::open(reader, &observer, &slot.snapshot_name, WITHIN)
        .await
        .unwrap();
    snapshot
        .lock_table(&TableName::new("public", "t"))
        .await
        .unwrap();
    let pieces: Vec<_> = snapshot
        .copy_out("COPY public.t TO STDOUT")
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    snapshot.close().await;
    replication.finish().await;
    let text = String::from_utf8(pieces.concat()).unwrap();
    let table = text.lines().map(|line| {
        let (id, value) = line.split_once('\t').unwrap();
        (id.parse().unwrap(), value.parse().unwrap())
    });
    (slot.consistent_point, table.collect())
}

/// Applies `INSERT: id[integer]:5 v[integer]:7` and the like.
fn apply(table: &mut Table, change: &str) {
    let (kind, columns) = change.split_once(": ").unwrap();
    let mut values = columns
        .split(' ')
        .map(|column| column.rsplit(':').next().unwrap().parse().unwrap());
    let id = values.next().unwrap();
    match kind {
        "DELETE" => table.remove(&id),
        _ => table.insert(id, values.next().unwrap()),
    };
}

/// Rows that differ: id, expected, found.
fn differences(expected: &Table, found: &Table) -> Vec<(u32, Option<u32>, Option<u32>)> {
    (0..ROWS)
        .map(|id| (id, expected.get(&id).copied(), found.get(&id).copied()))
        .filter(|(_, expected, found)| expected != found)
        .collect()
}

/// What the second slot streamed, compared with each copy at its position.
struct Streamed {
    table: Table,
    wrong: Vec<String>,
}

impl Streamed {
    async fn read(&mut self, conninfo: &Conninfo, copies: &[(Lsn, Table)]) {
        let client = client(conninfo).await;
        let query = "SELECT lsn, data FROM pg_logical_slot_get_changes('streamed', NULL, NULL, 'include-xids', '0', 'skip-empty-xacts', '1')";
        let mut copies = copies.iter().peekable();
        let mut changes: Vec<String> = Vec::new();
        for row in rows(&client, query).await {
            let (lsn, data) = row.split_once('|').unwrap();
            if let Some(change) = data.strip_prefix("table public.t: ") {
                changes.push(change.to_owned());
            } else if data == "COMMIT" {
                // The end of the commit: before the copy's position, or after it.
                let lsn: Lsn = lsn.parse().unwrap();
                while let Some((at, copied)) = copies.next_if(|(at, _)| *at < lsn) {
                    self.compare(*at, copied);
                }
                changes
                    .drain(..)
                    .for_each(|change| apply(&mut self.table, &change));
            }
        }
        copies.for_each(|(at, copied)| self.compare(*at, copied));
    }

    fn compare(&mut self, at: Lsn, copied: &Table) {
        let found = differences(&self.table, copied);
        if !found.is_empty() {
            self.wrong
                .push(format!("copy at {at}: id, expected, found: {found:?}"));
        }
    }
}

#[tokio::test]
async fn copies_beside_many_writers_lose_no_row_at_the_source() {
    let wanted = number("CDC_TEST_COPIES", 15);
    let seed = number("CDC_TEST_SEED", fastrand::u64(..1 << 32));
    let cluster = Cluster::start(&Options {
        name: "copies".to_owned(),
        pg_bin: Side::Source.programs(),
        // A commit is long in the WAL before it is visible.
        fsync: true,
        ..Options::default()
    })
    .unwrap();
    let conninfo = on_socket(&cluster);
    let observer = client(&conninfo).await;
    observer
        .batch_execute("CREATE TABLE public.t (id int PRIMARY KEY, v int NOT NULL)")
        .await
        .unwrap();
    let second = "SELECT pg_create_logical_replication_slot('streamed', 'test_decoding')";
    observer.batch_execute(second).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS)
        .zip(seed.wrapping_mul(31)..)
        .map(|(_, seed)| {
            let rng = Rng::with_seed(seed);
            writer(conninfo.clone(), rng, Arc::clone(&stop))
        })
        .collect();
    let started = Instant::now();
    let mut streamed = Streamed {
        table: Table::new(),
        wrong: Vec::new(),
    };
    let mut copies = Vec::new();
    let mut freezer = Freezer::of_writers(&observer).await;
    for number in 0..wanted {
        copies.push(copy(&conninfo, number, &mut freezer).await);
        // The WAL need not grow with the length of the test.
        if copies.len() == 50 {
            streamed.read(&conninfo, &copies).await;
            copies.clear();
        }
    }
    drop(freezer);
    let took = started.elapsed();
    stop.store(true, Ordering::Relaxed);
    let mut committed = 0;
    for writer in writers {
        committed += writer.await.unwrap();
    }
    streamed.read(&conninfo, &copies).await;
    let table = rows(&observer, "SELECT id, v FROM public.t").await;
    let table: Table = table
        .iter()
        .map(|row| row.split_once('|').unwrap())
        .map(|(id, value)| (id.parse().unwrap(), value.parse().unwrap()))
        .collect();
    let lost = differences(&streamed.table, &table);
    let rate = u128::from(wanted) * 60_000 / took.as_millis().max(1);
    eprintln!(
        "copies: CDC_TEST_SEED={seed}: {wanted} copies in {took:.0?} ({rate} a minute) beside {committed} transactions of {WRITERS} writers; \
         {} copies wrong, {} rows lost at the source",
        streamed.wrong.len(),
        lost.len()
    );
    assert!(committed > wanted, "the writers do nothing");
    assert!(
        streamed.wrong.is_empty() && lost.is_empty(),
        "CDC_TEST_SEED={seed}: lost at the source: {lost:?}; {:?}",
        streamed.wrong
    );
}

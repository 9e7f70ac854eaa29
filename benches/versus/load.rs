//! The scenarios: what stands in the master table before, and the load that the consumers must catch up with.
//!
//! Every load is SQL that runs at the source. Ids are hashes, so that neither side sees them in index order.

use anyhow::Result;
use tokio_postgres::Client;

/// The master table, as in the demo.
pub const SOURCE_TABLE: &str = "
CREATE TABLE labels (
    id uuid PRIMARY KEY, code varchar(10) NOT NULL, label varchar(50) NOT NULL, display_name varchar(50) NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(), created_by uuid, updated_at timestamptz NOT NULL DEFAULT now(),
    updated_by uuid, deleted_at timestamptz);
CREATE UNIQUE INDEX labels_code_live ON labels (code) WHERE deleted_at IS NULL;
CREATE FUNCTION row_id(n bigint) RETURNS uuid IMMUTABLE LANGUAGE sql AS 'SELECT md5(n::text)::uuid';";

/// The row that tells that a consumer has arrived at the end of the load.
pub const MARKER: &str = "END";

/// One line of the table that is printed.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Name on the command line.
    pub name: &'static str,
    /// What it is, for people.
    pub title: &'static str,
    /// What is done.
    pub kind: Kind,
    /// Changes at scale 1.
    pub changes: u64,
    /// Thousand changes a second of native replication on the reference machine, and the goal as its multiple.
    pub reference: Option<(u32, f64)>,
}

/// What is done in a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Inserts, so many a transaction; 0 is all in one.
    Inserts(u64),
    /// Updates of distinct rows.
    Updates(u64),
    /// Updates of a hundred rows, one a transaction.
    Hot,
    /// Two soft deletes to one restore.
    SoftDeletes(u64),
    /// No load: the rows are there before the consumer is.
    Copy,
    /// Commits at a steady rate while the consumer runs.
    Latency,
}

/// All scenarios in the order in which they run.
#[rustfmt::skip]
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "inserts-1", title: "inserts, 1/tx", kind: Kind::Inserts(1), changes: 50_000, reference: Some((182, 1.1)) },
    Scenario { name: "inserts-100", title: "inserts, 100/tx", kind: Kind::Inserts(100), changes: 50_000, reference: Some((464, 1.0)) },
    Scenario { name: "updates-100", title: "updates of distinct rows, 100/tx", kind: Kind::Updates(100), changes: 25_000, reference: Some((145, 1.5)) },
    Scenario { name: "hot-1", title: "updates of 100 rows, 1/tx", kind: Kind::Hot, changes: 25_000, reference: Some((107, 2.5)) },
    Scenario { name: "soft-10", title: "soft deletes and restores, 10/tx", kind: Kind::SoftDeletes(10), changes: 25_000, reference: Some((124, 2.0)) },
    Scenario { name: "one-tx", title: "inserts, one transaction", kind: Kind::Inserts(0), changes: 50_000, reference: Some((272, 1.0)) },
    Scenario { name: "copy", title: "first copy", kind: Kind::Copy, changes: 125_000, reference: Some((726, 1.0)) },
    Scenario { name: "latency", title: "latency at 200 commits/s", kind: Kind::Latency, changes: 600, reference: None },
];

impl Scenario {
    /// Number of changes at this scale; whole transactions.
    pub fn changes_at(&self, scale: f64) -> u64 {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let changes = (self.changes as f64 * scale).round() as u64;
        (changes / 300).max(1) * 300
    }

    /// Rows that stand in the master table before the consumers begin.
    pub fn rows_before(&self, changes: u64) -> u64 {
        match self.kind {
            Kind::Inserts(_) => 0,
            Kind::Updates(_) | Kind::SoftDeletes(_) | Kind::Copy => changes,
            Kind::Hot => 100,
            Kind::Latency => 1,
        }
    }
}

/// Fills the master table with the rows that stand there before.
pub async fn rows_before(source: &Client, rows: u64) -> Result<()> {
    source.batch_execute(&insert(1, rows)).await?;
    Ok(())
}

/// Commits the load, and after it the marker.
pub async fn commit_load(source: &Client, kind: Kind, changes: u64) -> Result<()> {
    let load = match kind {
        Kind::Inserts(0) => insert(1, changes),
        Kind::Inserts(each) => loop_of(changes / each, &insert_block(each)),
        Kind::Updates(each) => loop_of(
            changes / each,
            &format!("UPDATE labels SET label = 'new ' || t, updated_at = now() WHERE id IN
                      (SELECT row_id(n) FROM generate_series(t * {each} + 1, (t + 1) * {each}) n)"),
        ),
        Kind::Hot => loop_of(
            changes,
            "UPDATE labels SET label = 'new ' || t, updated_at = now() WHERE id = row_id(t * 37 % 100 + 1)",
        ),
        Kind::SoftDeletes(each) => loop_of(
            changes / each,
            &format!("UPDATE labels SET deleted_at = CASE WHEN t % 3 < 2 THEN now() END WHERE id IN
                      (SELECT row_id(n) FROM generate_series((t - t % 3 / 2 * 2) * {each} + 1, (t - t % 3 / 2 * 2 + 1) * {each}) n)"),
        ),
        Kind::Copy | Kind::Latency => return Ok(()),
    };
    source.batch_execute("SET synchronous_commit = off").await?;
    source.batch_execute(&load).await?;
    source.batch_execute("SET synchronous_commit = on").await?;
    let marker = format!(
        "INSERT INTO labels (id, code, label, display_name) VALUES (row_id(-1), '{MARKER}', 'end', 'end')"
    );
    source.batch_execute(&marker).await?;
    Ok(())
}

fn insert(from: u64, to: u64) -> String {
    format!(
        "INSERT INTO labels (id, code, label, display_name)
         SELECT row_id(n), 'C' || n, 'label ' || n, 'display name ' || n FROM generate_series({from}, {to}) n"
    )
}

fn insert_block(each: u64) -> String {
    format!(
        "INSERT INTO labels (id, code, label, display_name)
         SELECT row_id(n), 'C' || n, 'label ' || n, 'display name ' || n
         FROM generate_series(t * {each} + 1, (t + 1) * {each}) n"
    )
}

fn loop_of(transactions: u64, statement: &str) -> String {
    format!("DO $$ BEGIN FOR t IN 0..{transactions}::bigint - 1 LOOP {statement}; COMMIT; END LOOP; END $$")
}

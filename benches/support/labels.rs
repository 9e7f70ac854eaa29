//! The labels: master table, lookup, and the loads that must be caught up with.
//!
//! Every load is SQL that runs at the source. Ids are hashes, so that neither side sees them in
//! index order.

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

/// The lookup of `cdc`, as it makes it itself.
pub const LOOKUP: &str = "
CREATE TABLE labels_lookup (code varchar(10) PRIMARY KEY, label varchar(50) NOT NULL, display_name varchar(50) NOT NULL)
WITH (fillfactor = 50);";

/// Its section in the configuration.
pub const READ_MODEL: &str = "
[[read_model]]
source = \"public.labels\"
target = \"public.labels_lookup\"
key = [\"code\"]
columns = [\"code\", \"label\", \"display_name\"]
soft_delete = \"deleted_at\"
";

/// What a plain subscription fills: found by id, joined by code.
pub const PLAIN: &str = "
CREATE TABLE labels (id uuid PRIMARY KEY, code varchar(10) NOT NULL, label varchar(50) NOT NULL, display_name varchar(50) NOT NULL);
CREATE INDEX labels_code ON labels (code);";

/// What is published for a plain subscription.
pub const PLAIN_COLUMNS: &str = "id, code, label, display_name";

/// What is compared.
pub const COMPARED: &str = "code, label, display_name";

/// The row that tells that a consumer has arrived at the end of the load.
pub const MARKER: &str = "END";

/// Tells whether the end of the load has arrived in this table.
pub fn marker_is_in(table: &str) -> String {
    format!("SELECT count(*) > 0 FROM {table} WHERE code = '{MARKER}'")
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

impl Kind {
    /// Rows that stand in the master table before the consumers begin.
    pub fn rows_before(self, changes: u64) -> u64 {
        match self {
            Self::Inserts(_) => 0,
            Self::Updates(_) | Self::SoftDeletes(_) | Self::Copy => changes,
            Self::Hot => 100,
            Self::Latency => 1,
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
    commit(source, &load).await?;
    commit_marker(source).await
}

/// Commits a load without waiting for the disk.
pub async fn commit(source: &Client, load: &str) -> Result<()> {
    source.batch_execute("SET synchronous_commit = off").await?;
    source.batch_execute(load).await?;
    source.batch_execute("SET synchronous_commit = on").await?;
    Ok(())
}

/// Commits the row that ends a load.
pub async fn commit_marker(source: &Client) -> Result<()> {
    let marker = format!(
        "INSERT INTO labels (id, code, label, display_name) VALUES (row_id(-1), '{MARKER}', 'end', 'end')"
    );
    source.batch_execute(&marker).await?;
    Ok(())
}

/// Rows of these numbers, in one statement.
pub fn insert(from: u64, to: u64) -> String {
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

/// A statement with the number of its transaction as `t`, so many times.
pub fn loop_of(transactions: u64, statement: &str) -> String {
    format!(
        "DO $$ BEGIN FOR t IN 0..{transactions}::bigint - 1 LOOP {statement}; COMMIT; END LOOP; END $$"
    )
}

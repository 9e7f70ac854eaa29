//! Everything that the writer asks of the driver: each statement with its arguments, and what its
//! rows mean.
//!
//! A statement without arguments and results goes by `statement.rs`. An error that comes while a
//! read model's rows are written names the read model ([`in_read_model`]), never a value.

use tokio_postgres::Row;

use super::rows;
use crate::batch::{Position, Written};
use crate::connect::Connection;
use crate::connect::query::query;
use crate::error::{Class, Error, Result};
use crate::fold::{Final, Fold};
use crate::lsn::{Lsn, PgTimestamp};
use crate::read_model::ModelId;
use crate::sql::{TableName, fill};
use crate::target::copy_buffer::{CopyBuffer, copy_rows};
use crate::target::error::{RowError, copied_column, from_driver, words_are_the_servers};
use crate::target::model::{Joins, TargetModel};

/// Values of rows as arguments of one statement: an array for each column.
pub(super) type Arrays = Vec<Vec<Option<String>>>;

/// Creates the session's function that moves the checkpoint.
pub(super) async fn make_advance(conn: &mut Connection, schema: &str) -> Result<()> {
    let advance = fill(
        include_str!("../../../sql/target/write/advance.sql"),
        &[("schema", schema)],
    );
    let made = conn.batch_execute(&advance).await;
    made.map(|_| ()).map_err(from_driver)
}

/// Fences, and moves the checkpoint.
pub(super) async fn advance(conn: &mut Connection, epoch: i64, position: &Position) -> Result<()> {
    let last = position.last;
    query(
        "SELECT pg_temp.cdc_advance($1, $2, $3::text::timestamptz, $4, $5, $6::text::timestamptz)",
    )
    .kept()
    .bind(epoch)
    .bind(position.lsn.to_string())
    .bind(position.commit_time.map(timestamp))
    .bind(last.map(|last| last.commit_lsn.to_string()))
    .bind(last.map(|last| i64::from(last.xid)))
    .bind(last.map(|last| timestamp(last.commit_time)))
    .execute(conn)
    .await
    .map_err(from_driver)?;
    Ok(())
}

/// How the function of a small batch is called.
#[derive(Debug, Clone, Copy)]
pub(super) struct ApplyOptions<'a> {
    pub(super) epoch: i64,
    pub(super) position: &'a Position,
    /// Whether some rows lack a value that the stream left out.
    pub(super) resolve: bool,
    /// Most keys of written rows of each kind that are reported.
    pub(super) keys: i32,
}

/// Writes a small batch and its checkpoint.
pub(super) async fn apply(
    conn: &mut Connection,
    model: &TargetModel,
    options: ApplyOptions<'_>,
    arrays: Arrays,
) -> Result<Written> {
    let position = options.position;
    let last = position.last;
    let mut query = query(model.apply_call())
        .kept()
        .bind(options.epoch)
        .bind(position.lsn.to_string())
        .bind(position.commit_time.map(timestamp))
        .bind(last.map(|last| last.commit_lsn.to_string()))
        .bind(last.map(|last| i64::from(last.xid)))
        .bind(last.map(|last| timestamp(last.commit_time)))
        .bind(options.resolve)
        .bind(options.keys);
    for array in arrays {
        query = query.bind(array);
    }
    let row = query.row(conn).await;
    read_written(&row.map_err(|error| in_read_model(from_driver(error), model))?)
}

/// How a function that merges is called.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct MergeOptions {
    /// Whether rows that are not staged are gone.
    pub(super) clear: bool,
    /// Whether some rows lack a value that the stream left out.
    pub(super) resolve: bool,
    /// Most keys of written rows of each kind that are reported.
    pub(super) keys: i32,
}

/// Merges by the function that this statement calls ([`TargetModel::merge_call`],
/// [`TargetModel::merge_shadow_call`]).
pub(super) async fn merge(
    conn: &mut Connection,
    model: &TargetModel,
    sql: String,
    options: MergeOptions,
) -> Result<Written> {
    let row = query(sql)
        .kept()
        .bind(options.clear)
        .bind(options.resolve)
        .bind(options.keys)
        .row(conn)
        .await
        .map_err(|error| in_read_model(from_driver(error), model))?;
    read_written(&row)
}

/// The table from which the merged rows are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MergeFrom {
    /// The session's stage.
    Stage,
    /// A shadow, which holds an exact copy.
    Shadow,
}

/// How the isolating function is called.
#[derive(Debug, Clone, Copy)]
pub(super) struct IsolateOptions {
    pub(super) from: MergeFrom,
    pub(super) joins: Joins,
    pub(super) merge: MergeOptions,
    /// Whether the rows of this transaction that were rejected are tried once more.
    pub(super) again: bool,
    /// Position that is noted with rejected rows.
    pub(super) lsn: Lsn,
}

/// Merges without the rows that the target rejects (`sql/target/write/isolate.sql`).
pub(super) async fn isolate(
    conn: &mut Connection,
    model: &TargetModel,
    options: IsolateOptions,
) -> Result<Written> {
    let sql = model.isolate_call(options.joins, options.from == MergeFrom::Shadow);
    let row = query(sql)
        .kept()
        .bind(options.merge.clear)
        .bind(options.merge.resolve)
        .bind(options.merge.keys)
        .bind(model.isolates())
        .bind(options.again)
        .bind(options.lsn.to_string())
        .row(conn)
        .await
        .map_err(|error| in_read_model(from_driver(error), model))?;
    Ok(Written {
        rejected_rows: row.try_get(7).map_err(from_driver)?,
        ..read_written(&row)?
    })
}

fn read_written(row: &Row) -> Result<Written> {
    let keys = |at: usize| -> Result<Vec<String>> {
        let keys: Option<Vec<String>> = row.try_get(at).map_err(from_driver)?;
        Ok(keys.unwrap_or_default())
    };
    Ok(Written {
        inserted: row.try_get(0).map_err(from_driver)?,
        updated: row.try_get(1).map_err(from_driver)?,
        deleted: row.try_get(2).map_err(from_driver)?,
        total: row.try_get(3).map_err(from_driver)?,
        inserted_keys: keys(4)?,
        updated_keys: keys(5)?,
        deleted_keys: keys(6)?,
        ..Written::default()
    })
}

/// Checks deferred constraints now, and runs the statement `then`. An error comes with the table of
/// the violated constraint.
pub(super) async fn check_constraints(
    conn: &mut Connection,
    then: &str,
) -> Result<(), (Error, Option<TableName>)> {
    let sql = format!("SET CONSTRAINTS ALL IMMEDIATE; {then}");
    let checked = conn.batch_execute(&sql).await;
    checked.map(|_| ()).map_err(|error| {
        let table = RowError::of(&error)
            .and_then(|reason| Some(TableName::new(reason.schema?, reason.table?)));
        (from_driver(error), table)
    })
}

/// Fills a table like the stage by COPY.
pub(super) async fn copy_to_stage<'a>(
    conn: &mut Connection,
    model: &TargetModel,
    table: &str,
    rows: impl Iterator<Item = Final<'a>>,
) -> Result<()> {
    let sql = format!("COPY {table} ({}) FROM STDIN", model.stage_columns());
    let rows = rows::in_key_order(model, rows);
    copy(conn, &sql, rows.into_iter(), |row, out| {
        rows::copy_row(model, row, rows::Part::Whole, &[], out);
    })
    .await
}

/// Fills the stage by one statement.
pub(super) async fn insert_to_stage(
    conn: &mut Connection,
    model: &TargetModel,
    arrays: Arrays,
) -> Result<()> {
    let mut query = query(model.stage_statement()).kept();
    for array in arrays {
        query = query.bind(array);
    }
    query.execute(conn).await.map_err(from_driver)?;
    Ok(())
}

/// COPY of rows that `append` writes.
pub(super) async fn copy<'a, T>(
    conn: &mut Connection,
    sql: &str,
    rows: impl Iterator<Item = T>,
    append: impl Fn(T, &mut CopyBuffer<'a>),
) -> Result<()> {
    copy_rows(conn, sql, rows, append)
        .await
        .map_err(from_driver)
}

/// Why the target rejects what was copied.
#[derive(Debug)]
pub(super) struct Rejection {
    pub(super) reason: RowError,
    /// Column of the stage whose value it did not read.
    pub(super) stage_column: Option<String>,
}

/// The same; a rejection by the target is not an error of this function, but part of its result.
pub(super) async fn try_copy<'a, T>(
    conn: &mut Connection,
    sql: &str,
    rows: impl Iterator<Item = T>,
    append: impl Fn(T, &mut CopyBuffer<'a>),
) -> Result<Result<(), Rejection>> {
    let Err(error) = copy_rows(conn, sql, rows, append).await else {
        return Ok(Ok(()));
    };
    match RowError::of(&error) {
        Some(reason) => Ok(Err(Rejection {
            reason,
            stage_column: copied_column(&error),
        })),
        None => Err(from_driver(error)),
    }
}

/// Folds the chunk's rows into the stage; `cleared` is whether a chunk before held a TRUNCATE.
pub(super) async fn fold_chunk(
    conn: &mut Connection,
    model: &TargetModel,
    fold: &Fold,
    cleared: bool,
) -> Result<()> {
    query(model.fold_chunk_call())
        .kept()
        .bind(fold.clear())
        .bind(cleared)
        .bind(fold.has_unchanged())
        .execute(conn)
        .await
        .map_err(|error| in_read_model(from_driver(error), model))?;
    Ok(())
}

/// Live rows in the stage with a value that a type of the lookup rejects, and the SQLSTATE of one
/// of them.
pub(super) async fn count_rejected(
    conn: &mut Connection,
    model: &TargetModel,
) -> Result<(i64, Option<String>)> {
    query(model.count_rejected())
        .tuple(conn)
        .await
        .map_err(from_driver)
}

/// Whether the shadow holds rows with a value that a type of the lookup rejects.
pub(super) async fn shadow_has_rejected(
    conn: &mut Connection,
    model: &TargetModel,
) -> Result<bool> {
    let sql = format!(
        "SELECT EXISTS (SELECT FROM {} s WHERE s.state = 'x')",
        model.shadow()
    );
    query(sql).value(conn).await.map_err(from_driver)
}

/// Whether map and lookup are so small that it is cheaper to read them once for this many rows.
pub(super) async fn are_small_beside(
    conn: &mut Connection,
    model: &TargetModel,
    rows: usize,
) -> Result<bool> {
    query(model.are_small_beside(rows))
        .value(conn)
        .await
        .map_err(from_driver)
}

/// The time of the transaction that is open, as text.
pub(super) async fn transaction_time(conn: &mut Connection) -> Result<String> {
    query("SELECT pg_catalog.now()::text")
        .value(conn)
        .await
        .map_err(from_driver)
}

/// How many locks the server has room for.
pub(super) async fn locks(conn: &mut Connection) -> Result<i64> {
    query(
        "SELECT current_setting('max_locks_per_transaction')::bigint \
         * (current_setting('max_connections')::bigint + current_setting('max_prepared_transactions')::bigint)",
    )
    .value(conn)
    .await
    .map_err(from_driver)
}

/// The session's tables of the read models of these numbers, quoted.
pub(super) async fn session_tables(conn: &mut Connection, ids: &[ModelId]) -> Result<Vec<String>> {
    let numbers: Vec<i32> = ids.iter().map(|id| id.0).collect();
    query(
        "SELECT pg_catalog.format('pg_temp.%I', c.relname) FROM pg_catalog.pg_class c \
         WHERE c.relnamespace = pg_catalog.pg_my_temp_schema() AND c.relkind = 'r' \
         AND pg_catalog.split_part(c.relname, '_', 2) = ANY ($1::integer[]::text[])"
            .to_owned(),
    )
    .bind(numbers)
    .values_of(conn)
    .await
    .map_err(from_driver)
}

/// Adds the read model's name to an error that occurred while its rows were written.
///
/// Some errors do not pass by themselves: a trigger's function lacks a table or privilege, a column
/// is generated, a publication at the target sends a lookup without an identity, a page is damaged.
/// Such an error suspends this read model, so that the others continue.
pub(super) fn in_read_model(error: Error, model: &TargetModel) -> Error {
    const FINAL: [&str; 8] = ["42", "0A", "2F", "38", "39", "55000", "XX001", "XX002"];
    let sqlstate = error.sqlstate().unwrap_or_default();
    let is_final = FINAL.iter().any(|class| sqlstate.starts_with(class));
    // A code that PostgreSQL does not know, such as a trigger may raise, is tried again without
    // limit.
    let unknown = !sqlstate.is_empty()
        && error.class() == Class::Transient
        && !words_are_the_servers(sqlstate);
    let error = if is_final {
        error.with_class(Class::Broken)
    } else {
        error
    };
    match error.class() {
        class if unknown || matches!(class, Class::Rejected | Class::Broken) => {
            error.context(format!("read model \"{}\"", model.model.settings.name()))
        }
        _ => error,
    }
}

/// A time stamp as text with its zone, exact to the microsecond.
pub(super) fn timestamp(time: PgTimestamp) -> String {
    match jiff::Timestamp::from_microsecond(time.unix_micros()) {
        Ok(time) => time.to_string(),
        Err(_) => "infinity".to_owned(),
    }
}

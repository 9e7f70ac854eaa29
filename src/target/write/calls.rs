//! Everything that the writer asks of the driver but COPY (`copying.rs`): each statement with its
//! arguments, and what its rows mean.
//!
//! A statement without arguments and results goes by `statement.rs`. An error that comes while a
//! read model's rows are written names the read model ([`in_read_model`]), never a value.

use tokio_postgres::Row;

use super::in_flight::{Answer, Awaited, Failure};
use super::models::Models;
use crate::batch::{Position, Written};
use crate::connect::Connection;
use crate::connect::pipeline::{Failed, Sent, script, send};
use crate::connect::query::{Query, query};
use crate::error::{Class, Error, Result};
use crate::fold::Fold;
use crate::lsn::{Lsn, PgTimestamp};
use crate::read_model::{ModelId, ModelIndex};
use crate::sql::{TableName, fill, literal};
use crate::target::bookkeeping::Bookkeeping;
use crate::target::error::{RowError, from_driver, words_are_the_servers};
use crate::target::model::{Joins, TargetModel};
use crate::target::statement::execute;

/// Values of rows as arguments of one statement: an array for each column.
pub(super) type Arrays = Vec<Vec<Option<String>>>;

/// The session's function that moves the checkpoint, and the one that counts.
pub(super) fn advance_function(schema: &str) -> String {
    let template = include_str!("../../../sql/target/write/advance.sql");
    fill(template, &[("schema", schema)])
}

/// Sends statements without arguments whose rows nobody reads, in one message.
pub(super) fn send_script(conn: &Connection, sql: String) -> Awaited<'static> {
    script(conn, sql).map(|answer| match answer {
        Ok(()) => Ok(Answer::Done),
        Err(failed) => Err(from_driver(failed.error).into()),
    })
}

/// What fences, and moves the checkpoint.
pub(super) fn advance_sql(epoch: i64, position: &Position) -> String {
    let text = |value: Option<String>| match value {
        Some(value) => literal(&value),
        None => "NULL".to_owned(),
    };
    let last = position.last;
    let arguments = [
        epoch.to_string(),
        literal(&position.lsn.to_string()),
        text(position.commit_time.map(timestamp)),
        text(last.map(|last| last.commit_lsn.to_string())),
        last.map_or("NULL".to_owned(), |last| last.xid.to_string()),
        text(last.map(|last| timestamp(last.commit_time))),
    ];
    format!("SELECT pg_temp.cdc_advance({})", arguments.join(", "))
}

/// Fences, and moves the checkpoint.
pub(super) async fn advance(conn: &mut Connection, epoch: i64, position: &Position) -> Result<()> {
    execute(conn, advance_sql(epoch, position)).await
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
    let row = async { query.kept(conn).await?.row(conn).await };
    read_written(
        &row.await
            .map_err(|error| in_read_model(from_driver(error), model))?,
    )
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
/// [`TargetModel::merge_shadow_call`]); the answer is read later.
pub(super) async fn send_merge<'a>(
    conn: &Connection,
    model: &'a TargetModel,
    sql: String,
    options: MergeOptions,
) -> Result<Awaited<'a>> {
    let merge = query(sql)
        .bind(options.clear)
        .bind(options.resolve)
        .bind(options.keys);
    send_call(conn, model, merge, read_written).await
}

/// Sends a call of a read model's function.
async fn send_call<'a>(
    conn: &Connection,
    model: &'a TargetModel,
    call: Query<'static>,
    read: fn(&Row) -> Result<Written>,
) -> Result<Awaited<'a>> {
    let ours = |error| in_read_model(from_driver(error), model);
    let call = call.kept(conn).await.map_err(ours)?;
    let row = send(conn, |client| async move { call.row(&client).await });
    Ok(row.map(move |row| {
        let row = row.map_err(ours)?;
        Ok(Answer::Written(read(&row)?))
    }))
}

/// What was written, as an answer says.
fn written(answer: Result<Answer, Failure>) -> Result<Written> {
    match answer.map_err(|failure| failure.error)? {
        Answer::Written(written) => Ok(written),
        _ => Ok(Written::default()),
    }
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
    let sent = send_isolate(conn, model, options).await?;
    written(sent.answer().await)
}

/// The same; the answer is read later.
pub(super) async fn send_isolate<'a>(
    conn: &Connection,
    model: &'a TargetModel,
    options: IsolateOptions,
) -> Result<Awaited<'a>> {
    let sql = model.isolate_call(options.joins, options.from == MergeFrom::Shadow);
    let isolate = query(sql)
        .bind(options.merge.clear)
        .bind(options.merge.resolve)
        .bind(options.merge.keys)
        .bind(model.isolates())
        .bind(options.again)
        .bind(options.lsn.to_string());
    send_call(conn, model, isolate, read_isolated).await
}

fn read_isolated(row: &Row) -> Result<Written> {
    Ok(Written {
        rejected_rows: row.try_get(7).map_err(from_driver)?,
        ..read_written(row)?
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

/// Checks deferred constraints now.
pub(super) const CHECK_CONSTRAINTS: &str = "SET CONSTRAINTS ALL IMMEDIATE";

/// Checks deferred constraints now, and runs the statements `then`. An error comes with the table
/// of the violated constraint.
pub(super) async fn check_constraints(
    conn: &mut Connection,
    then: &str,
) -> Result<(), (Error, Option<TableName>)> {
    let checked = script(conn, format!("{CHECK_CONSTRAINTS}; {then}"));
    let failed = |failed: Failed| {
        let table = violated_in(&failed);
        (from_driver(failed.error), table)
    };
    checked.answer().await.map_err(failed)
}

/// The same; the answer is read later. If the error names no lookup, it belongs to the read model
/// `only`, if that is the only one.
pub(super) fn send_check<'a>(
    conn: &Connection,
    models: &'a Models,
    only: Option<ModelIndex>,
    then: &str,
) -> Awaited<'a> {
    let sql = format!("{CHECK_CONSTRAINTS}; {then}");
    script(conn, sql).map(move |answer| match answer {
        Ok(()) => Ok(Answer::Done),
        Err(failed) => {
            let names = violated_in(&failed).and_then(|table| models.index_of(&table));
            let is_checked = failed.done > 0;
            let error = from_driver(failed.error);
            let belongs = names.or(only).filter(|_| !is_checked);
            let error = match belongs.map(|index| models.get(index)) {
                Some(Ok(model)) => in_read_model(error, model),
                _ => error,
            };
            Err(Failure { error, names })
        }
    })
}

/// The table of the violated constraint.
fn violated_in(failed: &Failed) -> Option<TableName> {
    let reason = RowError::of(&failed.error)?;
    Some(TableName::new(reason.schema?, reason.table?))
}

/// Sends rows for the stage as arguments of one statement.
pub(super) async fn send_to_stage<'a>(
    conn: &Connection,
    model: &'a TargetModel,
    arrays: Arrays,
) -> Result<Awaited<'a>> {
    let ours = |error| in_read_model(from_driver(error), model);
    let mut insert = query(model.stage_statement());
    for array in arrays {
        insert = insert.bind(array);
    }
    let insert = insert.kept(conn).await.map_err(ours)?;
    let rows = send(conn, |client| async move { insert.execute(&client).await });
    Ok(rows.map(move |rows| {
        rows.map_err(ours)?;
        Ok(Answer::Done)
    }))
}

/// Folds the chunk's rows into the stage; `cleared` is whether a chunk before held a TRUNCATE.
pub(super) async fn fold_chunk(
    conn: &mut Connection,
    model: &TargetModel,
    fold: &Fold,
    cleared: bool,
) -> Result<()> {
    let call = query(model.fold_chunk_call())
        .bind(fold.clear())
        .bind(cleared)
        .bind(fold.has_unchanged());
    let folded = async { call.kept(conn).await?.execute(conn).await };
    match folded.await {
        Ok(_) => Ok(()),
        Err(error) => Err(in_read_model(from_driver(error), model)),
    }
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

/// Asks whether map and lookup are so small that it is cheaper to read them once for this many
/// rows.
pub(super) fn ask_size(conn: &Connection, model: &TargetModel, rows: usize) -> Awaited<'static> {
    let query = query(model.are_small_beside(rows));
    send(conn, |client| async move { query.value(&client).await }).map(|answer| match answer {
        Ok(are_small) => Ok(Answer::AreSmall(are_small)),
        Err(error) => Err(from_driver(error).into()),
    })
}

/// Asks for the rejected rows of this read model.
pub(super) fn ask_rejected(
    conn: &Connection,
    bookkeeping: &Bookkeeping,
    id: ModelId,
) -> Awaited<'static> {
    let rejections = bookkeeping.send_rejections(conn, id);
    rejections.map(|answer| Ok(Answer::Rejected(answer?)))
}

/// Asks for the time of the transaction that is open, as text.
pub(super) fn ask_time(conn: &Connection) -> Sent<'static, Result<String>> {
    let query = query("SELECT pg_catalog.now()::text");
    send(conn, |client| async move { query.value(&client).await })
        .map(|answer| answer.map_err(from_driver))
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

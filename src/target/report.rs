//! Reads the bookkeeping for `status` and `teardown`; nothing is written, and a schema that is
//! missing is no error.

use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use crate::connect::Connection;
use crate::connect::query::query;
use crate::error::Result;
use crate::sql::{fill, ident};
use crate::status::{
    Bookkeeping, Checkpoint, Copy, LastComparison, LastResync, PipelineStatus, ReadModelStatus,
    Rejection, Resync,
};
use crate::target::bookkeeping::written_by_batches;
use crate::target::error::from_driver;
use crate::target::presence::{Presence, presence};

/// What the bookkeeping holds; `None` if there is none.
///
/// # Errors
/// Whatever the server or the connection reports.
pub(crate) async fn bookkeeping(
    conn: &mut Connection,
    schema: &str,
) -> Result<Option<Bookkeeping>> {
    if presence(&mut *conn, schema).await? != Presence::Ours {
        return Ok(None);
    }
    let schema = ident(schema);
    let (written, counted) = written_by_batches(conn, &schema).await?;
    let sql = |template| {
        let places = [
            ("schema", schema.as_str()),
            ("checkpoint", &written),
            ("counted", &counted),
        ];
        fill(template, &places)
    };
    let of = |template| query(sql(template));
    // They share a round trip.
    let (pipeline, models, resyncs, clock) = tokio::try_join!(
        of(include_str!("../../sql/target/status/pipeline.sql")).optional(conn),
        of(include_str!("../../sql/target/status/read_models.sql")).rows(conn),
        of(include_str!("../../sql/target/status/resyncs.sql")).rows(conn),
        of(include_str!("../../sql/target/status/clock.sql")).row(conn),
    )
    .map_err(from_driver)?;
    let mut read_models: Vec<ReadModelStatus> =
        models.iter().map(read_model).collect::<Result<_>>()?;
    add_rejections(&mut *conn, &schema, &mut read_models).await?;
    Ok(Some(Bookkeeping {
        now: get(&clock, "now")?,
        last_full_resync: get(&clock, "last_full_resync")?,
        pipeline: pipeline.as_ref().map(pipeline_status).transpose()?,
        checkpoint: pipeline.as_ref().map(checkpoint).transpose()?.flatten(),
        read_models,
        resyncs: resyncs.iter().map(resync).collect::<Result<_>>()?,
    }))
}

/// Rejected rows; an earlier version of the bookkeeping has none.
async fn add_rejections(
    conn: &mut Connection,
    schema: &str,
    read_models: &mut [ReadModelStatus],
) -> Result<()> {
    let exists: bool = query("SELECT pg_catalog.to_regclass($1) IS NOT NULL")
        .bind(format!("{schema}.rejection"))
        .value(conn)
        .await
        .map_err(from_driver)?;
    if !exists {
        return Ok(());
    }
    let sql = fill(
        include_str!("../../sql/target/status/rejections.sql"),
        &[("schema", schema)],
    );
    let rows = query(sql).rows(conn).await.map_err(from_driver)?;
    for row in &rows {
        let name: String = get(row, "name")?;
        if let Some(model) = read_models.iter_mut().find(|model| model.name == name) {
            model.rejected = get(row, "rows")?;
            model.rejections.push(rejection(row)?);
        }
    }
    Ok(())
}

fn rejection(row: &Row) -> Result<Rejection> {
    Ok(Rejection {
        identity: get(row, "identity")?,
        key: get(row, "key")?,
        shown: get(row, "shown")?,
        sqlstate: get(row, "sqlstate")?,
        constraint: get(row, "constraint_name")?,
        column: get(row, "column_name")?,
        lsn: get(row, "lsn")?,
        at: get(row, "rejected_at")?,
    })
}

/// Names of objects that are in the bookkeeping's schema, or depend on it, and were not created by
/// `cdc`.
///
/// # Errors
/// Whatever the server or the connection reports.
pub(crate) async fn foreign_objects(conn: &mut Connection, schema: &str) -> Result<Vec<String>> {
    let rows = query(include_str!("../../sql/target/facts/foreign_objects.sql"))
        .bind(schema)
        .rows(conn)
        .await
        .map_err(from_driver)?;
    rows.iter().map(|row| get(row, "name")).collect()
}

fn pipeline_status(row: &Row) -> Result<PipelineStatus> {
    Ok(PipelineStatus {
        alive: false,
        state: get(row, "state")?,
        state_since: get(row, "state_since")?,
        owner: get(row, "owner")?,
        heartbeat_age_seconds: get(row, "heartbeat_age_seconds")?,
        session_present: get(row, "session_present")?,
        healing: get(row, "healing")?,
        healing_since: get(row, "healing_since")?,
        healing_after: get(row, "healing_after")?,
        healings: get(row, "healings")?,
        error: get(row, "error")?,
        error_hint: get(row, "error_hint")?,
        waiting_for: get(row, "waiting_for")?,
    })
}

fn checkpoint(row: &Row) -> Result<Option<Checkpoint>> {
    let Some(lsn) = get(row, "lsn")? else {
        return Ok(None);
    };
    Ok(Some(Checkpoint {
        lsn,
        commit_time: get(row, "commit_time")?,
        applied_at: get(row, "applied_at")?,
        applied_age_seconds: get(row, "applied_age_seconds")?,
        lag_bytes: None,
        last_commit_lsn: get(row, "last_commit_lsn")?,
        last_commit_time: get(row, "last_commit_time")?,
    }))
}

fn read_model(row: &Row) -> Result<ReadModelStatus> {
    let copy_rows: Option<i64> = get(row, "copy_rows")?;
    let (estimate, bytes) = (get(row, "copy_estimate")?, get(row, "copy_bytes")?);
    let seconds = get(row, "copy_seconds")?;
    let repaired: Option<i64> = get(row, "last_resync_repaired")?;
    let last_resync_at: Option<String> = get(row, "last_resync_at")?;
    let compared_at: Option<String> = get(row, "compared_at")?;
    let differing: Option<i64> = get(row, "differing")?;
    Ok(ReadModelStatus {
        name: get(row, "name")?,
        source: get(row, "source")?,
        state: get(row, "state")?,
        since: get(row, "since")?,
        reason: get(row, "reason")?,
        hint: get(row, "hint")?,
        rows: get(row, "rows")?,
        age_seconds: None,
        last_change_at: get(row, "last_change_at")?,
        last_resync: last_resync_at.map(|at| LastResync {
            at,
            repaired: repaired.unwrap_or(0),
        }),
        last_comparison: compared_at.map(|at| LastComparison {
            at,
            differing: differing.unwrap_or(0),
        }),
        copy: copy_rows.map(|rows| Copy::new(rows, estimate, bytes, seconds)),
        waiting: get::<Option<i64>>(row, "waiting")?.unwrap_or(0),
        rejected: 0,
        rejections: Vec::new(),
    })
}

fn resync(row: &Row) -> Result<Resync> {
    let result: Option<String> = get(row, "result")?;
    Ok(Resync {
        id: get(row, "id")?,
        read_models: get(row, "read_models")?,
        dry_run: get(row, "dry_run")?,
        origin: get(row, "origin")?,
        state: get(row, "state")?,
        requested_at: get(row, "requested_at")?,
        started_at: get(row, "started_at")?,
        finished_at: get(row, "finished_at")?,
        waiting_for: get(row, "waiting_for")?,
        lsn: get(row, "lsn")?,
        result: result.and_then(|text| serde_json::from_str(&text).ok()),
        error: get(row, "error")?,
    })
}

fn get<'r, T: FromSql<'r>>(row: &'r Row, name: &str) -> Result<T> {
    row.try_get(name).map_err(from_driver)
}

//! What the writer asks of the driver to copy rows.

use super::in_flight::{Answer, Awaited};
use super::rows;
use crate::connect::Connection;
use crate::connect::pipeline::{Sent, script};
use crate::error::Result;
use crate::fold::Final;
use crate::target::copy_buffer::{self, Copy, CopyBuffer, end_copy};
use crate::target::error::{RowError, copied_column, from_driver};
use crate::target::model::TargetModel;
use crate::target::statement::execute;

/// Sends what begins a COPY.
pub(super) async fn send_copy(
    conn: &Connection,
    sql: &str,
) -> Result<Sent<'static, Result<Copy, tokio_postgres::Error>>> {
    copy_buffer::send_copy(conn, sql).await.map_err(from_driver)
}

/// A COPY that was sent has begun.
pub(super) async fn begun(
    copy: Sent<'static, Result<Copy, tokio_postgres::Error>>,
) -> Result<Copy> {
    copy.answer().await.map_err(from_driver)
}

/// Sends the rows of a COPY that has begun, and its end.
pub(super) async fn fill_copy<'a, 'r, T>(
    conn: &Connection,
    mut copy: Copy,
    rows: impl Iterator<Item = T>,
    append: impl Fn(T, &mut CopyBuffer<'r>),
) -> Result<Awaited<'a>> {
    let filled = copy_buffer::fill_copy(&mut copy, rows, append).await;
    filled.map_err(from_driver)?;
    Ok(end_copy(conn, copy).map(|answer| match answer {
        Ok(()) => Ok(Answer::Done),
        Err(error) => Err(from_driver(error).into()),
    }))
}

/// Fills a table like the stage by COPY.
pub(super) async fn copy_to_stage<'a>(
    conn: &mut Connection,
    model: &TargetModel,
    table: &str,
    rows: impl Iterator<Item = Final<'a>>,
) -> Result<()> {
    let rows = rows::in_key_order(model, rows);
    let copied = async {
        let mut copy = copy_buffer::begin_copy(conn, &stage_copy(model, table)).await?;
        copy_buffer::fill_copy(&mut copy, rows.into_iter(), |row, out| {
            rows::copy_row(model, row, rows::Part::Whole, &[], out);
        })
        .await?;
        end_copy(conn, copy).answer().await
    };
    copied.await.map_err(from_driver)
}

/// What copies into a table like the stage.
pub(super) fn stage_copy(model: &TargetModel, table: &str) -> String {
    format!("COPY {table} ({}) FROM STDIN", model.stage_columns())
}

/// Why the target rejects what was copied.
#[derive(Debug)]
pub(super) struct Rejection {
    pub(super) reason: RowError,
    /// Column of the stage whose value it did not read.
    pub(super) stage_column: Option<String>,
}

/// Whether a savepoint is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Savepoint {
    New,
    /// What came after it was undone.
    Again,
}

/// COPY of rows that `append` writes, behind the savepoint `piece`. If the target rejects one of
/// them, that is part of the result, and all are undone.
pub(super) async fn try_copy<'a, T>(
    conn: &mut Connection,
    (sql, savepoint): (&str, Savepoint),
    rows: impl Iterator<Item = T>,
    append: impl Fn(T, &mut CopyBuffer<'a>),
) -> Result<Result<(), Rejection>> {
    let saved = match savepoint {
        Savepoint::New => Some(script(conn, "SAVEPOINT piece".to_owned())),
        Savepoint::Again => None,
    };
    let begun = send_copy(conn, sql).await?;
    if let Some(saved) = saved {
        let saved = saved.answer().await;
        saved.map_err(|failed| from_driver(failed.error))?;
    }
    let copied = async {
        let mut copy = begun.answer().await?;
        copy_buffer::fill_copy(&mut copy, rows, append).await?;
        let copied = end_copy(conn, copy);
        // It fails if the COPY has failed.
        let released = script(conn, "RELEASE SAVEPOINT piece".to_owned());
        copied.answer().await?;
        released.answer().await.map_err(|failed| failed.error)
    };
    let Err(error) = copied.await else {
        return Ok(Ok(()));
    };
    let Some(reason) = RowError::of(&error) else {
        return Err(from_driver(error));
    };
    execute(conn, "ROLLBACK TO SAVEPOINT piece".to_owned()).await?;
    Ok(Err(Rejection {
        reason,
        stage_column: copied_column(&error),
    }))
}

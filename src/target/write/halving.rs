//! COPY of rows of which the lookup's types may refuse some: in halves, so that few bad rows among many cost little.
//!
//! A row that is found is written with its identity and key alone, in the state "refused", and with why; without the key if
//! the key itself is refused. A row whose identity is refused cannot be set apart: its error is returned.
//!
//! A dead row is not in the lookup, whatever it holds: one that is refused is not remembered, no more.

use sqlx::PgConnection;

use crate::error::{Error, Result};
use crate::fold::{Final, Fold};
use crate::target::copy_buffer::{CopyBuffer, copy_rows};
use crate::target::error::{Refusal, copied_column, from_sqlx, too_many};
use crate::target::model::{MOST_REJECTED, TargetModel};
use crate::target::statement::execute;
use crate::target::write::rows::{self, Part};
use crate::target::write::stage;

/// Rows that go into the stage or a shadow.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rows<'a> {
    /// Final states of a batch, for this table, which is like the stage.
    Finals(&'a [Final<'a>], &'a str),
    /// Lines that the source's COPY wrote, for the shadow.
    Lines(&'a [&'a [u8]]),
}

impl<'a> Rows<'a> {
    fn len(self) -> usize {
        match self {
            Self::Finals(rows, _) => rows.len(),
            Self::Lines(lines) => lines.len(),
        }
    }

    /// Whether the row at this place is live.
    fn is_live(self, model: &TargetModel, at: usize) -> bool {
        match self {
            Self::Finals(rows, _) => rows.get(at).is_some_and(Final::is_live),
            Self::Lines(lines) => lines.get(at).is_some_and(|line| rows::is_live_line(model, line)),
        }
    }

    fn copy_sql(self, model: &TargetModel, with_why: bool) -> String {
        let (table, columns) = match self {
            Self::Finals(_, table) => (table.to_owned(), model.stage_columns()),
            Self::Lines(_) => (model.shadow(), model.copy_columns()),
        };
        let why = if with_why { ", e1, e2, e3" } else { "" };
        format!("COPY {table} ({columns}{why}) FROM STDIN")
    }

    async fn copy(
        self,
        conn: &mut PgConnection,
        model: &TargetModel,
        (low, high): (usize, usize),
        remember_dead: bool,
    ) -> Result<(), sqlx::Error> {
        let sql = self.copy_sql(model, false);
        match self {
            Self::Finals(rows, _) => {
                let rows = rows.get(low..high).unwrap_or_default().iter();
                copy_rows(conn, &sql, rows, |row, out| {
                    let part = if remember_dead || row.is_live() {
                        Part::Whole
                    } else {
                        Part::Identity
                    };
                    rows::copy_row(model, *row, part, &[], out);
                })
                .await
            }
            Self::Lines(lines) => {
                let lines = lines.get(low..high).unwrap_or_default().iter();
                let lines = lines.filter(|line| remember_dead || rows::is_live_line(model, line));
                copy_rows(conn, &sql, lines, |line, out| out.push_data(line)).await
            }
        }
    }

    /// The row at this place in part; empty if nothing of it need be written.
    fn in_part(
        self,
        model: &TargetModel,
        at: usize,
        part: Part,
        why: &[Option<&'a str>],
        out: &mut CopyBuffer<'a>,
    ) {
        match self {
            Self::Finals(rows, _) => {
                if let Some(row) = rows.get(at) {
                    rows::copy_row(model, *row, part, why, out);
                }
            }
            Self::Lines(lines) => {
                if let Some(line) = lines.get(at) {
                    rows::copy_line_in_part(model, line, part, why, out);
                }
            }
        }
    }
}

/// Rows that a type of the lookup refuses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Those that the lookup should show.
    pub(crate) live: i64,
    /// Those that are only not remembered.
    pub(crate) dead: i64,
}

/// Fills the session's stage, or a table like it, within the transaction that is open; where the read model sets refused rows
/// apart, without what a type of the lookup refuses. `refused` counts over all calls.
pub(crate) async fn stage_taken(
    conn: &mut PgConnection,
    model: &TargetModel,
    table: &str,
    fold: &Fold,
    refused: &mut Refused,
) -> Result<()> {
    if !model.isolates() {
        return stage(conn, model, table, fold.finals()).await;
    }
    let rows = rows::in_key_order(model, fold.finals());
    copy(conn, model, Rows::Finals(&rows, table), refused).await
}

/// Copies the rows within the transaction that is open. `refused` counts over all calls.
///
/// # Errors
/// [`Class::Refused`](crate::error::Class::Refused) if more live rows are refused than are set apart.
pub(crate) async fn copy(
    conn: &mut PgConnection,
    model: &TargetModel,
    rows: Rows<'_>,
    refused: &mut Refused,
) -> Result<()> {
    let mut ranges = vec![(0, rows.len())];
    while let Some((low, high)) = ranges.pop() {
        if low == high {
            continue;
        }
        execute(conn, "SAVEPOINT piece".to_owned()).await?;
        // To find each of many would take longer than to remember them is worth.
        let remember_dead = refused.dead <= MOST_REJECTED;
        let Err(error) = rows.copy(conn, model, (low, high), remember_dead).await else {
            execute(conn, "RELEASE SAVEPOINT piece".to_owned()).await?;
            continue;
        };
        let Some(refusal) = Refusal::of(&error) else {
            return Err(from_sqlx(error));
        };
        execute(conn, "ROLLBACK TO SAVEPOINT piece".to_owned()).await?;
        if high - low > 1 {
            let middle = low.midpoint(high);
            ranges.push((middle, high));
            ranges.push((low, middle));
            continue;
        }
        if rows.is_live(model, low) {
            refused.live += 1;
            assert_few(refused.live, Some(&refusal.sqlstate))?;
        } else {
            refused.dead += 1;
        }
        copy_in_part(conn, model, rows, low, (refusal, error)).await?;
    }
    Ok(())
}

/// An error if these are more rows than are set apart; it names the SQLSTATE of one of them.
pub(crate) fn assert_few(rows: i64, sqlstate: Option<&str>) -> Result<()> {
    if rows <= MOST_REJECTED {
        return Ok(());
    }
    let which = sqlstate.map_or(String::new(), |sqlstate| {
        format!(", one of them with SQLSTATE {sqlstate}")
    });
    Err(too_many(format!("more than {MOST_REJECTED}{which}")))
}

async fn copy_in_part(
    conn: &mut PgConnection,
    model: &TargetModel,
    rows: Rows<'_>,
    at: usize,
    (refusal, error): (Refusal, sqlx::Error),
) -> Result<()> {
    let column = copied_column(&error)
        .and_then(|name| name.strip_prefix('p')?.parse().ok())
        .and_then(|number: usize| model.column_name(number));
    let column = column.or(refusal.column.as_deref());
    let why = [
        Some(refusal.sqlstate.as_str()),
        refusal.constraint.as_deref().or(refusal.data_type.as_deref()),
        column,
    ];
    let sql = rows.copy_sql(model, true);
    for part in [Part::Key, Part::Identity] {
        let copied = copy_rows(conn, &sql, std::iter::once(at), |at, out| {
            rows.in_part(model, at, part, &why, out);
        });
        match copied.await {
            Ok(()) => {
                execute(conn, "RELEASE SAVEPOINT piece".to_owned()).await?;
                return Ok(());
            }
            Err(again) if Refusal::of(&again).is_some() => {
                execute(conn, "ROLLBACK TO SAVEPOINT piece".to_owned()).await?;
            }
            Err(again) => return Err(from_sqlx(again)),
        }
    }
    Err(Error::from(refusal))
}

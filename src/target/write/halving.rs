//! COPY that survives bad rows: a range that fails is halved and tried again, so a few bad rows
//! among many cost little.
//!
//! A bad row is written with its identity and key alone, in the state "rejected", with the reason;
//! without the key if the key itself is rejected. A row whose identity is rejected cannot be
//! recorded: its error is returned.
//!
//! A dead row is not in the lookup, whatever it holds: if it is rejected, it is only forgotten.

use std::ops::Range;

use super::copying::{self, Rejection, Savepoint};
use super::rows::{self, Part};
pub(crate) use super::staged::RejectedCounts;
use crate::connect::Connection;
use crate::error::{Error, Result};
use crate::fold::{Final, Fold};
use crate::target::copy_buffer::CopyBuffer;
use crate::target::error::too_many;
use crate::target::model::{MOST_REJECTED, TargetModel};

/// Rows that go into the stage or a shadow.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rows<'a> {
    /// Final states of a batch, for this table, which is like the stage.
    Finals(&'a [Final<'a>], &'a str),
    /// Lines that the source's COPY wrote, for the shadow.
    Lines(&'a [&'a [u8]]),
}

/// Whether a row is copied with the columns that say why it is rejected.
#[derive(Debug, Clone, Copy)]
enum Why {
    Without,
    With,
}

/// A row that is copied in part.
#[derive(Debug, Clone, Copy)]
struct InPart<'w, 'a> {
    /// Its place.
    at: usize,
    part: Part,
    /// Why it is rejected.
    why: &'w [Option<&'a str>],
}

/// What becomes of dead rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DeadRows {
    /// Their values are copied, as far as the types take them.
    Remembered,
    /// They are not copied, or by their identity alone.
    Forgotten,
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
            Self::Lines(lines) => lines
                .get(at)
                .is_some_and(|line| rows::is_live_line(model, line)),
        }
    }

    fn copy_sql(self, model: &TargetModel, why: Why) -> String {
        let (table, columns) = match self {
            Self::Finals(_, table) => (table.to_owned(), model.stage_columns()),
            Self::Lines(_) => (model.shadow(), model.copy_columns()),
        };
        let why = match why {
            Why::Without => "",
            Why::With => ", e1, e2, e3",
        };
        format!("COPY {table} ({columns}{why}) FROM STDIN")
    }

    /// Copies the rows in this range. A rejection by a type of the lookup is part of the result.
    async fn copy(
        self,
        conn: &mut Connection,
        model: &TargetModel,
        range: Range<usize>,
        dead: DeadRows,
    ) -> Result<Result<(), Rejection>> {
        let sql = self.copy_sql(model, Why::Without);
        let what = (sql.as_str(), Savepoint::New);
        match self {
            Self::Finals(rows, _) => {
                let rows = rows.get(range).unwrap_or_default().iter();
                copying::try_copy(conn, what, rows, |row, out| {
                    let part = if dead == DeadRows::Remembered || row.is_live() {
                        Part::Whole
                    } else {
                        Part::Identity
                    };
                    rows::copy_row(model, *row, part, &[], out);
                })
                .await
            }
            Self::Lines(lines) => {
                let lines = lines.get(range).unwrap_or_default().iter();
                let lines = lines
                    .filter(|line| dead == DeadRows::Remembered || rows::is_live_line(model, line));
                copying::try_copy(conn, what, lines, |line, out| out.push_data(line)).await
            }
        }
    }

    /// Appends part of the row, or nothing if nothing of it needs to be written.
    fn in_part(self, model: &TargetModel, what: InPart<'_, 'a>, out: &mut CopyBuffer<'a>) {
        match self {
            Self::Finals(rows, _) => {
                if let Some(row) = rows.get(what.at) {
                    rows::copy_row(model, *row, what.part, what.why, out);
                }
            }
            Self::Lines(lines) => {
                if let Some(line) = lines.get(what.at) {
                    rows::copy_line_in_part(model, line, what.part, what.why, out);
                }
            }
        }
    }
}

/// Fills a table like the stage, within the open transaction. If the read model continues without
/// rejected rows, values that a type of the lookup rejects are left out. `rejected` counts over all
/// calls.
pub(crate) async fn stage_accepted(
    conn: &mut Connection,
    model: &TargetModel,
    table: &str,
    fold: &Fold,
    rejected: &mut RejectedCounts,
) -> Result<()> {
    if !model.isolates() {
        return copying::copy_to_stage(conn, model, table, fold.finals()).await;
    }
    let rows = rows::in_key_order(model, fold.finals());
    copy(conn, model, Rows::Finals(&rows, table), rejected).await
}

/// Copies the rows within the transaction that is open. `rejected` counts over all calls.
///
/// # Errors
/// [`Class::Rejected`](crate::error::Class::Rejected) if more live rows are rejected than are
/// remembered.
pub(crate) async fn copy(
    conn: &mut Connection,
    model: &TargetModel,
    rows: Rows<'_>,
    rejected: &mut RejectedCounts,
) -> Result<()> {
    let mut ranges = vec![(0, rows.len())];
    while let Some((low, high)) = ranges.pop() {
        if low == high {
            continue;
        }
        // Above this number, finding each one takes too long to be worth it.
        let dead = if rejected.dead <= MOST_REJECTED {
            DeadRows::Remembered
        } else {
            DeadRows::Forgotten
        };
        let Err(rejection) = rows.copy(conn, model, low..high, dead).await? else {
            continue;
        };
        if high - low > 1 {
            let middle = low.midpoint(high);
            ranges.push((middle, high));
            ranges.push((low, middle));
            continue;
        }
        if rows.is_live(model, low) {
            rejected.live += 1;
            assert_few(rejected.live, Some(&rejection.reason.sqlstate))?;
        } else {
            rejected.dead += 1;
        }
        copy_in_part(conn, model, rows, low, rejection).await?;
    }
    Ok(())
}

/// An error if there are more rejected rows than may be recorded; it names the SQLSTATE of one of
/// them.
pub(crate) fn assert_few(rows: i64, sqlstate: Option<&str>) -> Result<()> {
    if rows <= MOST_REJECTED {
        return Ok(());
    }
    let which = sqlstate.map_or(String::new(), |sqlstate| {
        format!(", one of them with SQLSTATE {sqlstate}")
    });
    Err(too_many(format!("more than {MOST_REJECTED}{which}")))
}

/// Copies what the types take of the row at this place, and why they reject it.
async fn copy_in_part(
    conn: &mut Connection,
    model: &TargetModel,
    rows: Rows<'_>,
    at: usize,
    rejection: Rejection,
) -> Result<()> {
    let reason = rejection.reason;
    let column = rejection
        .stage_column
        .and_then(|name| name.strip_prefix('p')?.parse().ok())
        .and_then(|number: usize| model.column_name(number));
    let column = column.or(reason.column.as_deref());
    let why = [
        Some(reason.sqlstate.as_str()),
        reason.constraint.as_deref().or(reason.data_type.as_deref()),
        column,
    ];
    let sql = rows.copy_sql(model, Why::With);
    for part in [Part::Key, Part::Identity] {
        let what = InPart {
            at,
            part,
            why: &why,
        };
        let again = (sql.as_str(), Savepoint::Again);
        let copied = copying::try_copy(conn, again, std::iter::once(what), |what, out| {
            rows.in_part(model, what, out);
        });
        if copied.await?.is_ok() {
            return Ok(());
        }
    }
    Err(Error::from(reason))
}

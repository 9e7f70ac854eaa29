//! The writer: a batch becomes lookup rows, map rows and the checkpoint, in one transaction of the target.
//!
//! A small batch of one read model is one statement and one commit. Anything else is a transaction that advances the
//! checkpoint first (fence and lock), stages each read model's final states (few by a statement, many by COPY) and merges
//! them; many rows that are new go past the stage (`new_rows.rs`). Exact copies are merged by the same function, with
//! the shadow in place of the stage. A batch with rows that the target refuses is written once more by the isolating run
//! (`isolate.rs`).
//!
//! Nothing else writes lookup rows.

use std::collections::HashSet;

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row};

use crate::batch::{Batch, Position, Written};
use crate::error::{Class, Error, Result};
use crate::fold::{Final, Fold, Share};
use crate::lsn::PgTimestamp;
use crate::sql::{TableName, fill, ident};
use crate::target::bookkeeping::{Bookkeeping, ModelState};
use crate::target::copy_buffer::copy_rows;
use crate::target::error::{Refusal, from_sqlx, words_are_the_servers};
use crate::target::model::TargetModel;

use crate::target::statement::{Transaction, execute};

mod chunks;
mod copies;
pub(crate) mod halving;
mod merge;
mod new_rows;
mod prepare;
mod rejected;

mod room;
pub mod rows;
mod sweep;

use chunks::Chunks;
use merge::{Owner, Staged};
use new_rows::NewRows;
use prepare::{Part as Prepare, Prepared};
use room::Room;
use rows::Part;
use sweep::Dead;

/// Most rows that go as arguments of one statement; above, COPY is cheaper.
const ONE_STATEMENT_ROWS: usize = 500;

/// Most bytes that go as arguments of one statement.
const ONE_STATEMENT_BYTES: usize = 1 << 20;

/// Most rows that are staged as arguments of one statement: `COPY` takes three writes, and the last one of a small one waits for
/// the acknowledgement of the one before, which a server delays by 40 ms (sqlx leaves Nagle's algorithm on).
const STAGED_BY_STATEMENT_ROWS: usize = 5000;

/// The session that writes.
#[derive(Debug)]
pub struct Writer {
    conn: PgConnection,
    bookkeeping: Bookkeeping,
    epoch: i64,
    models: Vec<Option<TargetModel>>,
    prepared: Prepared,
    room: Room,
    /// Read models with rows that are set apart.
    rejecting: HashSet<i32>,
    written_since_planning: i64,
    planned_rows: i64,
    culprit: Option<usize>,
    chunks: Chunks,
    new_rows: NewRows,
    dead: Dead,
    /// Most keys of written rows of each kind that are reported (all at log level debug).
    pub report_keys: i32,
}

impl Writer {
    /// Takes the claimed session.
    pub async fn new(mut conn: PgConnection, bookkeeping: Bookkeeping, epoch: i64) -> Result<Self> {
        let schema = ident(bookkeeping.schema_name());
        // A function is compiled when it is called first: most read models never need all of theirs.
        execute(&mut conn, "SET check_function_bodies = off".to_owned()).await?;
        let advance = fill(
            include_str!("../../../sql/target/advance.sql"),
            &[("schema", &schema)],
        );
        sqlx::raw_sql(AssertSqlSafe(advance))
            .execute(&mut conn)
            .await
            .map_err(from_sqlx)?;
        let room = Room::of(&mut conn).await?;
        Ok(Self {
            conn,
            room,
            bookkeeping,
            epoch,
            models: Vec::new(),
            prepared: Prepared::default(),
            rejecting: HashSet::new(),
            written_since_planning: 0,
            planned_rows: 0,
            culprit: None,
            chunks: Chunks::default(),
            new_rows: NewRows::default(),
            dead: Dead::default(),
            report_keys: 0,
        })
    }

    /// Sets the read model of this index.
    pub fn set_model(&mut self, index: usize, model: TargetModel) {
        if self.models.len() <= index {
            self.models.resize_with(index + 1, || None);
        }
        // Its columns may be others than before.
        self.prepared.forget(model.id);
        if let Some(place) = self.models.get_mut(index) {
            *place = Some(model);
        }
    }

    /// The session, for the bookkeeping.
    pub fn connection(&mut self) -> &mut PgConnection {
        &mut self.conn
    }

    /// The epoch under which this session writes.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// Writes a batch and its checkpoint. Rows that the target refuses are set apart, unless the read model stops at them.
    ///
    /// # Errors
    /// [`Class::Refused`] or [`Class::Broken`], naming no value, if a row cannot be written; nothing was written then, and
    /// [`Writer::culprit`] tells the read model.
    pub async fn apply(&mut self, batch: Batch) -> Result<Vec<(usize, Written)>> {
        let written = self.apply_batch(batch).await?;
        // One with many read models leaves more tables than there is room for.
        self.make_room(&[]).await?;
        Ok(written)
    }

    async fn apply_batch(&mut self, batch: Batch) -> Result<Vec<(usize, Written)>> {
        self.culprit = None;
        if batch.chunks > 0 {
            return self.apply_chunked(&batch).await;
        }
        self.abandon_chunks().await?;
        let indexes: Vec<usize> = batch.folds.iter().map(|(index, _)| *index).collect();
        self.make_room(&indexes).await?;
        self.sweep(&indexes).await?;
        let needs_plans = !batch.folds.iter().all(|(_, fold)| new_rows::are_all(fold));
        self.replan(&indexes, needs_plans).await?;
        self.prepare_missing(indexes).await?;
        for (index, fold) in &batch.folds {
            if fold.len() > ONE_STATEMENT_ROWS || fold.clear() {
                self.prepare_with(*index, &[Prepare::MergeReadOnce]).await?;
            }
        }
        if !self.has_rejected(&batch) {
            match self.apply_whole(&batch).await {
                Err(error) if error.class() == Class::Refused && self.isolates(&batch) => {
                    tracing::debug!(%error, "the batch is written again without the rows that are refused");
                }
                result => return result,
            }
        }
        self.apply_isolating(&batch).await
    }

    /// The way of a batch of which every row is taken.
    async fn apply_whole(&mut self, batch: &Batch) -> Result<Vec<(usize, Written)>> {
        let folds: Vec<&(usize, Fold)> = batch.folds.iter().filter(|(_, fold)| !fold.is_empty()).collect();
        let small = |fold: &Fold| {
            fold.len() <= ONE_STATEMENT_ROWS && fold.bytes() <= ONE_STATEMENT_BYTES && !fold.clear()
        };
        if let [(index, fold)] = folds.as_slice()
            && batch.suspended.is_empty()
            && small(fold)
            && let Some(written) = self.apply_small(*index, fold, &batch.position).await?
        {
            return Ok(vec![(*index, written)]);
        }
        let owner = Owner {
            models: &self.models,
            bookkeeping: &self.bookkeeping,
            epoch: self.epoch,
            keys: self.report_keys,
        };
        let mut tx = Transaction::begin(&mut self.conn).await?;
        let mut current = None;
        let mut staged = Vec::new();
        let result = async {
            merge::advance(tx.conn(), owner, batch).await?;
            let mut all = Vec::with_capacity(folds.len());
            for (index, fold) in &folds {
                current = Some(*index);
                let model = model_of(owner.models, *index)?;
                let how = (owner.keys, false);
                let rest = match self.new_rows.write(tx.conn(), model, fold, how).await? {
                    Some(written) => {
                        all.push((*index, written));
                        fold.known_rows()
                    }
                    None => fold.all(),
                };
                if !rest.is_empty() || rest.clear() {
                    self.dead.add(model, rest);
                    staged.push(stage_rows(tx.conn(), model, *index, rest).await?);
                }
            }
            let whole = (batch, folds.len() == 1);
            for (index, written) in merge::merge(tx.conn(), owner, &staged, whole, &mut current).await? {
                merge::add_written(&mut all, index, written, owner.keys);
            }
            Ok(all)
        }
        .await;
        let result = tx.end(result).await;
        if result.is_ok() {
            self.note_emptied(&staged);
        }
        self.note_written(result, current)
    }

    /// Remembers how much was written, or whose fault it is that nothing was.
    fn note_written(
        &mut self,
        result: Result<Vec<(usize, Written)>>,
        current: Option<usize>,
    ) -> Result<Vec<(usize, Written)>> {
        match &result {
            Ok(all) => {
                self.written_since_planning += all.iter().map(|(_, written)| written.changed()).sum::<i64>();
            }
            Err(error) => {
                if let Some(index) = current {
                    self.blame(index, error);
                }
            }
        }
        result
    }

    /// A small batch of one read model in one statement; `None` if its values do not fit into one.
    async fn apply_small(
        &mut self,
        index: usize,
        fold: &Fold,
        position: &Position,
    ) -> Result<Option<Written>> {
        let model = self.model(index)?;
        let Some(arrays) = rows::arrays(&model, fold.all()) else {
            return Ok(None);
        };
        self.dead.add(&model, fold.all());
        let how = (fold.has_unchanged(), self.report_keys);
        let written = apply_arrays(&mut self.conn, &model, (self.epoch, position), how, arrays).await;
        let written = written.inspect_err(|error| self.blame(index, error))?;
        self.written_since_planning += written.changed();
        Ok(Some(written))
    }

    fn blame(&mut self, index: usize, error: &Error) {
        self.culprit = matches!(error.class(), Class::Refused | Class::Broken).then_some(index);
    }

    /// The read model whose rows the last failed batch could not write, if it was one's fault.
    pub fn culprit(&self) -> Option<usize> {
        self.culprit
    }

    /// Stores a position that the stream passed without a change.
    pub async fn store(&mut self, position: &Position) -> Result<()> {
        self.abandon_chunks().await?;
        self.sweep_all().await?;
        advance(&mut self.conn, self.epoch, position).await
    }

    /// From here on a commit of this session is not durable at once.
    pub async fn commit_asynchronously(&mut self) -> Result<()> {
        execute(&mut self.conn, "SET synchronous_commit = off".to_owned()).await
    }

    /// Makes everything that this session has committed durable, where it commits asynchronously: WAL is flushed in order.
    pub async fn harden(&mut self) -> Result<()> {
        self.abandon_chunks().await?;
        let mut tx = Transaction::begin(&mut self.conn).await?;
        let result = async {
            execute(tx.conn(), "SET LOCAL synchronous_commit = on".to_owned()).await?;
            self.bookkeeping.beat(tx.conn(), self.epoch).await
        }
        .await;
        tx.end(result).await
    }

    /// Suspends the read models that the bookkeeping calls in step although they take no part in the stream, and returns them:
    /// a contradiction ends in a copy, never in silence.
    pub async fn audit(&mut self, taking_part: &[usize]) -> Result<Vec<usize>> {
        let stored = self.bookkeeping.models(&mut self.conn).await?;
        let mut found = Vec::new();
        for (index, model) in self.models.iter().enumerate() {
            let Some(model) = model else { continue };
            let in_step = stored
                .iter()
                .any(|stored| stored.id == model.id && stored.state == ModelState::InStep);
            if in_step && !taking_part.contains(&index) {
                let why = Error::broken("it is marked as in step, but takes no part in the stream");
                self.bookkeeping
                    .suspend(&mut self.conn, self.epoch, model.id, &why)
                    .await?;
                found.push(index);
            }
        }
        Ok(found)
    }

    /// Notes that leaves of these read models' tables, which the watch has never seen, have changes in the next batch. Where
    /// a large transaction is staged, the note commits with it.
    pub async fn note_leaves(&mut self, indexes: &[usize]) -> Result<()> {
        for model in indexes
            .iter()
            .filter_map(|index| self.models.get(*index)?.as_ref())
        {
            self.bookkeeping
                .note_leaf(&mut self.conn, self.epoch, model.id)
                .await?;
        }
        Ok(())
    }

    fn model(&self, index: usize) -> Result<TargetModel> {
        model_of(&self.models, index).cloned()
    }
}

/// Checks what is checked at the commit otherwise, and runs what comes `then`; an error comes with the table whose constraint it is.
async fn check_constraints(conn: &mut PgConnection, then: &str) -> Result<(), (Error, Option<TableName>)> {
    let sql = format!("SET CONSTRAINTS ALL IMMEDIATE; {then}");
    let checked = sqlx::raw_sql(AssertSqlSafe(sql)).execute(conn).await;
    checked.map(|_| ()).map_err(|error| {
        let table =
            Refusal::of(&error).and_then(|refusal| Some(TableName::new(refusal.schema?, refusal.table?)));
        (from_sqlx(error), table)
    })
}

/// The read model that keeps this lookup.
fn index_of(models: &[Option<TargetModel>], table: &TableName) -> Option<usize> {
    models.iter().position(|model| {
        model
            .as_ref()
            .is_some_and(|model| model.model.settings.target == *table)
    })
}

async fn advance(conn: &mut PgConnection, epoch: i64, position: &Position) -> Result<()> {
    let last = position.last;
    sqlx::query("SELECT pg_temp.cdc_advance($1, $2, $3::text::timestamptz, $4, $5, $6::text::timestamptz)")
        .bind(epoch)
        .bind(position.lsn.to_string())
        .bind(position.commit_time.map(timestamp))
        .bind(last.map(|last| last.commit_lsn.to_string()))
        .bind(last.map(|last| i64::from(last.xid)))
        .bind(last.map(|last| timestamp(last.commit_time)))
        .execute(conn)
        .await
        .map_err(from_sqlx)?;
    Ok(())
}

/// Puts final states of a read model into the session's stage.
async fn stage_rows(
    conn: &mut PgConnection,
    model: &TargetModel,
    index: usize,
    rows: Share<'_>,
) -> Result<Staged> {
    let few = rows.len() <= STAGED_BY_STATEMENT_ROWS && rows.bytes() <= ONE_STATEMENT_BYTES;
    let arrays = few.then(|| rows::arrays(model, rows)).flatten();
    match arrays {
        Some(arrays) => stage_arrays(conn, model, arrays).await,
        None => stage(conn, model, &model.stage(), rows.finals()).await,
    }
    .map_err(|error| name(error, model))?;
    let mut staged = Staged::none(index);
    staged.add(rows);
    Ok(staged)
}

/// Fills the session's stage of the read model, or a table like it, by COPY.
pub(crate) async fn stage<'a>(
    conn: &mut PgConnection,
    model: &TargetModel,
    table: &str,
    rows: impl Iterator<Item = Final<'a>>,
) -> Result<()> {
    let sql = format!("COPY {table} ({}) FROM STDIN", model.stage_columns());
    let rows = rows::in_key_order(model, rows);
    copy_rows(conn, &sql, rows.into_iter(), |row, out| {
        rows::copy_row(model, row, Part::Whole, &[], out);
    })
    .await
    .map_err(from_sqlx)
}

/// Stages rows as arguments of one statement.
async fn stage_arrays(
    conn: &mut PgConnection,
    model: &TargetModel,
    arrays: Vec<Vec<Option<String>>>,
) -> Result<()> {
    let mut query = sqlx::query(AssertSqlSafe(model.stage_statement()));
    for array in arrays {
        query = query.bind(array);
    }
    query.execute(conn).await.map_err(from_sqlx)?;
    Ok(())
}

/// The one statement of a small batch. `how` is: resolve, most keys that are told.
async fn apply_arrays(
    conn: &mut PgConnection,
    model: &TargetModel,
    (epoch, position): (i64, &Position),
    (resolve, keys): (bool, i32),
    arrays: Vec<Vec<Option<String>>>,
) -> Result<Written> {
    let last = position.last;
    let mut query = sqlx::query(AssertSqlSafe(model.apply_call()))
        .bind(epoch)
        .bind(position.lsn.to_string())
        .bind(position.commit_time.map(timestamp))
        .bind(last.map(|last| last.commit_lsn.to_string()))
        .bind(last.map(|last| i64::from(last.xid)))
        .bind(last.map(|last| timestamp(last.commit_time)))
        .bind(resolve)
        .bind(keys);
    for array in arrays {
        query = query.bind(array);
    }
    let row = query
        .fetch_one(conn)
        .await
        .map_err(|error| name(from_sqlx(error), model))?;
    read_written(&row)
}

async fn call(
    conn: &mut PgConnection,
    model: &TargetModel,
    sql: &str,
    clear: bool,
    resolve: bool,
    keys: i32,
) -> Result<Written> {
    let row = sqlx::query(AssertSqlSafe(sql.to_owned()))
        .bind(clear)
        .bind(resolve)
        .bind(keys)
        .fetch_one(conn)
        .await
        .map_err(|error| name(from_sqlx(error), model))?;
    read_written(&row)
}

fn read_written(row: &PgRow) -> Result<Written> {
    let keys = |at: usize| -> Result<Vec<String>> {
        Ok(row
            .try_get::<Option<Vec<String>>, _>(at)
            .map_err(from_sqlx)?
            .unwrap_or_default())
    };
    Ok(Written {
        inserted: row.try_get(0).map_err(from_sqlx)?,
        updated: row.try_get(1).map_err(from_sqlx)?,
        deleted: row.try_get(2).map_err(from_sqlx)?,
        total: row.try_get(3).map_err(from_sqlx)?,
        inserted_keys: keys(4)?,
        updated_keys: keys(5)?,
        deleted_keys: keys(6)?,
        ..Written::default()
    })
}

fn model_of(models: &[Option<TargetModel>], index: usize) -> Result<&TargetModel> {
    models.get(index).and_then(Option::as_ref).ok_or_else(|| {
        Error::new(
            Class::Transient,
            format!("read model {index} is not bound to its lookup"),
        )
    })
}

/// Says which read model an error belongs to that came while its rows were written.
///
/// What cannot pass by itself (a trigger's function that lacks a table or privilege, a generated column, a lookup without an identity
/// that a publication at the target sends, a damaged page) is this read model's own trouble, and must not hold up the others.
fn name(error: Error, model: &TargetModel) -> Error {
    const FINAL: [&str; 8] = ["42", "0A", "2F", "38", "39", "55000", "XX001", "XX002"];
    let sqlstate = error.sqlstate().unwrap_or_default();
    let is_final = FINAL.iter().any(|class| sqlstate.starts_with(class));
    // A code of somebody's own, as a trigger may raise it, is tried for ever.
    let unknown =
        !sqlstate.is_empty() && error.class() == Class::Transient && !words_are_the_servers(sqlstate);
    let error = if is_final {
        error.with_class(Class::Broken)
    } else {
        error
    };
    match error.class() {
        class if unknown || matches!(class, Class::Refused | Class::Broken) => {
            error.context(format!("read model \"{}\"", model.model.settings.name()))
        }
        _ => error,
    }
}

/// A time stamp as text with its zone, exact to the microsecond.
fn timestamp(time: PgTimestamp) -> String {
    match jiff::Timestamp::from_microsecond(time.unix_micros()) {
        Ok(time) => time.to_string(),
        Err(_) => "infinity".to_owned(),
    }
}

//! The writer: a batch becomes lookup rows, map rows and the checkpoint, in one transaction of the
//! target.
//!
//! In: batches of whole source transactions, folded ([`Batch`]); chunks of transactions that are
//! too large to be kept; exact copies. Out: what was written of each read model ([`Written`]).
//! Nothing else writes lookup rows. Every way passes the fence before its commit: a process that
//! was overtaken by another one changes nothing.
//!
//! # The ways
//!
//! `way::Way` picks the way of a batch, `way::RowsWay` that of one read model's rows within it.
//!
//! | way | taken when | statements | round trips | falls back to |
//! |---|---|---|---|---|
//! | small (`small.rs`) | at most 500 rows and 1 MiB of one read model with few columns; no TRUNCATE, no suspension, no rejected rows | one call of the function `apply`, which is one commit | 1 | whole, if a value is not UTF-8; isolating, if the target rejects a row |
//! | whole (`whole.rs`) | any other batch, if none of its read models has rejected rows | `BEGIN`, `cdc_advance`; for each read model: stage it, then merge it; check constraints and empty the stages; `COMMIT` | 2, and 1 more for each further `COPY` and each further 2 MiB of rows that are arguments | isolating, if the target rejects a row |
//! | new rows (`new_rows.rs`), within whole and chunks | more than 500 rows that are all new, or more than 5000 new ones among others, none with a value left out; in chunks only where all are new and none is staged | `COPY` to the map, `COPY` to the lookup; in chunks between `SAVEPOINT` and `RELEASE` | 3 with those of whole; 3 a chunk | the stage, by another transaction or behind the savepoint, and so do the next 1, 2, 4, ... 64 such batches |
//! | chunks (`chunks.rs`, `chunked.rs`) | the transaction is too large to be kept in memory | `BEGIN`; for each chunk: stage it, fold it into the stage; with the last one as whole; `COMMIT` | 3 a chunk; 4 at the end | isolating, by a savepoint before the merge |
//! | isolating (`whole.rs`, `rejected.rs`) | a read model of the batch has rejected rows, or the target has just rejected one | as whole, but each rejected value is found by halves (`halving.rs`), and the merge is the function `isolate`; of several, each has a savepoint | 3; of several read models, 3 for each and 1 more | nothing: too many rejected rows are an error |
//! | copies (`copies.rs`) | a copy, healing or resync has filled shadows | `BEGIN`, hold the shadows, `cdc_advance`; for each read model a savepoint and a merge from its shadow; `COMMIT` | 7, and 4 for each read model | isolating; without the rejected copy; checking after each |
//!
//! Whole and isolating are one function with two merges. One merge that isolates from the first
//! rejection on would serve both, but would need a savepoint before each read model of every batch
//! (a transaction number more) for a rare case: instead, a rejected batch is written once more.
//!
//! # Round trips
//!
//! The column counts those of a session that has prepared its statements; `tests/writer` checks
//! most of them. A statement is sent before the answer to the one before it has come, under these
//! rules (`in_flight.rs`):
//!
//! * Answers are read in order, and the first error is the one that counts.
//! * `BEGIN`, fence and checkpoint are one message: if `BEGIN` fails (an operator may cancel it),
//!   the server leaves the rest of the message out. What is sent behind it, before its answer has
//!   come, writes nothing that stays: a `COPY` that is never finished, a savepoint, a statement
//!   that fills the stage only while `cdc.in_batch` is set. Nothing is merged before that answer.
//! * `COMMIT` is in one message with the check of the constraints. That fails in a transaction that
//!   has failed, and the server leaves the `COMMIT` out: so it never stands for a ROLLBACK. If its
//!   own answer is lost, the next session reads the checkpoint.
//! * What could not be sent (its arguments cannot be encoded) is unknown to the server: its error
//!   is read before the `COMMIT` is sent.
//! * A savepoint that the writer may roll back to is sent when all before it has been answered: in
//!   a transaction that has failed none is set.
//! * Arguments are in memory until they are answered: no more than 2 MiB of rows are in flight.
//! * Where an answer decides what comes next, it is waited for: whether a piece of rows was
//!   rejected, whether a merge behind a savepoint was, whether rejected rows are tried again, and
//!   whether a read model leaves with the batch. The end of a transaction in chunks and of copies
//!   is such a place: their `COMMIT` is sent alone, after all answers.
//!
//! The next batch is not begun before the `COMMIT` of this one is answered: what it does depends on
//! what this one has learned (rejected rows, read models that leave), and no more than one batch
//! waits for its answer after a connection was lost.
//!
//! # Order of the files
//!
//! Each imports only files before it: `way`, `staged`, `rows`, `models`, `in_flight`, `calls`,
//! `copying`, `sweep`, `learned`, `context`, `room`, `needs`, `session`, `prepare`, `halving`,
//! `merge`, `stage`, `new_rows`, `rejected`; then the ways `small`, `whole`, `chunks`, `chunked`,
//! `copies`; then this one.

use crate::batch::{Batch, IndexedFold, MergePosition, Merged, Position, Written};
use crate::connect::Connection;
use crate::error::{Class, Error, Result};
use crate::read_model::ModelIndex;
use crate::target::bookkeeping::{Bookkeeping, ModelState};
use crate::target::model::TargetModel;
use crate::target::statement::Transaction;

mod calls;
mod chunked;
mod chunks;
mod context;
mod copies;
mod copying;
pub(crate) mod halving;
mod in_flight;
mod learned;
mod locked;
mod merge;
mod models;
mod needs;
mod new_rows;
mod prepare;
mod rejected;
mod room;
pub mod rows;
mod session;
mod small;
mod stage;
mod staged;
mod sweep;
mod way;
mod whole;

use chunks::Chunks;
use context::AllWritten;
use copies::Copies;
use locked::is_locked;
use merge::Merging;
use session::Session;
use way::{BatchFacts, Way};

/// The session that writes.
#[derive(Debug)]
pub struct Writer {
    session: Session,
    chunks: Chunks,
    /// Most keys of written rows of each kind that are reported (all at log level debug).
    pub report_keys: i32,
}

impl Writer {
    /// Takes the claimed session.
    pub async fn new(conn: Connection, bookkeeping: Bookkeeping, epoch: i64) -> Result<Self> {
        Ok(Self {
            session: Session::open(conn, bookkeeping, epoch).await?,
            chunks: Chunks::default(),
            report_keys: 0,
        })
    }

    /// Sets the read model of this index.
    pub fn set_model(&mut self, index: ModelIndex, model: TargetModel) {
        self.session.set_model(index, model);
    }

    /// The session, for the bookkeeping.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.session.conn
    }

    /// The epoch under which this session writes.
    pub fn epoch(&self) -> i64 {
        self.session.epoch
    }

    /// The read model whose rows the last failed batch could not write, if it was one's fault.
    pub fn culprit(&self) -> Option<ModelIndex> {
        self.session.culprit
    }

    /// Writes a batch and its checkpoint, without the rows that the target rejects, unless the read
    /// model stops at them.
    ///
    /// # Errors
    /// [`Class::Rejected`] or [`Class::Broken`], without values, if a row cannot be written. Then
    /// nothing was written, and [`Writer::culprit`] is the read model.
    pub async fn apply(&mut self, batch: Batch) -> Result<Vec<(ModelIndex, Written)>> {
        let written = self.apply_batch(&batch).await?;
        // A batch with many read models leaves more tables than there is room for.
        self.session.make_room(&[]).await?;
        Ok(written)
    }

    async fn apply_batch(&mut self, batch: &Batch) -> Result<AllWritten> {
        self.session.culprit = None;
        let facts = BatchFacts::of(batch);
        if facts.chunks == 0 {
            self.abandon_chunks().await?;
            self.session.prepare_batch(batch).await?;
        }
        let mut known = self.session.known(batch);
        let mut way = Way::of(&facts, &known);
        loop {
            self.session.culprit = None;
            let rejection = match self.go(way, batch).await {
                Ok(Some(written)) => return Ok(written),
                Ok(None) => {
                    known.can_be_arguments = false;
                    None
                }
                Err(error) if facts.chunks == 0 && is_locked(&error) => continue,
                Err(error) if error.class() == Class::Rejected => {
                    known.is_rejected = true;
                    Some(error)
                }
                Err(error) => return Err(error),
            };
            let next = Way::of(&facts, &known);
            match rejection {
                Some(error) if next == way => return Err(error),
                Some(error) => {
                    tracing::debug!(%error, "the batch is written again without the rows that are rejected");
                }
                None => {}
            }
            way = next;
        }
    }

    /// Writes the batch in this way. `None`, and nothing is written, if its values cannot be
    /// arguments.
    async fn go(&mut self, way: Way, batch: &Batch) -> Result<Option<AllWritten>> {
        let (session, keys) = (&mut self.session, self.report_keys);
        match way {
            Way::Small => return small::write(session, batch, keys).await,
            Way::Whole => whole::write(session, batch, Merging::Plain, keys).await,
            Way::Isolating => whole::write(session, batch, Merging::Isolating, keys).await,
            Way::Chunked => chunked::write(session, &mut self.chunks, batch, keys).await,
        }
        .map(Some)
    }

    /// Stages the next chunk of a transaction whose end is to come. The batch with the end says how
    /// many chunks there were.
    ///
    /// # Errors
    /// As [`Writer::apply`]; earlier chunks are lost then.
    pub async fn stage_chunk(&mut self, folds: &[IndexedFold]) -> Result<()> {
        self.session.culprit = None;
        let keys = self.report_keys;
        let staged = self.chunks.add(&mut self.session, folds, keys).await;
        if staged.is_err() {
            // The first error is the one to report; the server has rolled back a lost connection.
            let _ = self.abandon_chunks().await;
        }
        staged
    }

    /// Forgets what was staged of a transaction whose end does not come.
    pub async fn abandon_chunks(&mut self) -> Result<()> {
        self.chunks.abandon(&mut self.session).await
    }

    /// Merges exact copies: the lookups and maps become what the shadows hold, and the read models
    /// take part from here on. A read model whose rows the target rejects is left as it was, and
    /// its error is returned.
    pub async fn merge(
        &mut self,
        indexes: &[ModelIndex],
        position: &MergePosition,
        keys: i32,
    ) -> Result<Vec<Merged>> {
        self.abandon_chunks().await?;
        copies::merge(&mut self.session, Copies { indexes, position }, keys).await
    }

    /// Stores a position that the stream passed without a change.
    pub async fn store(&mut self, position: &Position) -> Result<()> {
        self.abandon_chunks().await?;
        self.session.sweep_all().await?;
        calls::advance(&mut self.session.conn, self.session.epoch, position).await
    }

    /// From here on a commit of this session is not durable at once.
    pub(crate) async fn commit_asynchronously(&mut self) -> Result<()> {
        self.session.execute("SET synchronous_commit = off").await
    }

    /// Makes everything that this session has committed durable, where it commits asynchronously:
    /// WAL is flushed in order.
    pub(crate) async fn harden(&mut self) -> Result<()> {
        self.abandon_chunks().await?;
        let session = &mut self.session;
        let mut tx =
            Transaction::begin_with(&mut session.conn, "SET LOCAL synchronous_commit = on").await?;
        let result = session.bookkeeping.beat(tx.conn(), session.epoch).await;
        tx.end(result).await
    }

    /// Suspends the read models that the bookkeeping calls in step although they take no part in
    /// the stream, and returns them: a contradiction ends in a copy, never in silence.
    pub(crate) async fn audit(&mut self, taking_part: &[ModelIndex]) -> Result<Vec<ModelIndex>> {
        let session = &mut self.session;
        let stored = session.bookkeeping.models(&mut session.conn).await?;
        let mut found = Vec::new();
        for (index, model) in session.models.bound() {
            let in_step = stored
                .iter()
                .any(|stored| stored.id == model.id && stored.state == ModelState::InStep);
            if in_step && !taking_part.contains(&index) {
                let why = Error::broken("it is marked as in step, but takes no part in the stream");
                session
                    .bookkeeping
                    .suspend(&mut session.conn, session.epoch, model.id, &why)
                    .await?;
                found.push(index);
            }
        }
        Ok(found)
    }

    /// Notes that leaves of these read models' tables, which the watch has never seen, have changes
    /// in the next batch. Where a large transaction is staged, the note commits with it.
    pub(crate) async fn note_leaves(&mut self, indexes: &[ModelIndex]) -> Result<()> {
        let session = &mut self.session;
        for id in session.models.ids(indexes) {
            session
                .bookkeeping
                .note_leaf(&mut session.conn, session.epoch, id)
                .await?;
        }
        Ok(())
    }

    /// Lets the server plan a read model's statements before its first change.
    pub async fn warm(&mut self, index: ModelIndex) -> Result<()> {
        self.session.warm(index).await
    }

    /// The same for those of these read models that changed last.
    pub(crate) async fn warm_few(&mut self, indexes: &[ModelIndex]) -> Result<()> {
        self.session.warm_few(indexes).await
    }
}

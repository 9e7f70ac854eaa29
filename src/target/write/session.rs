//! The session that writes: its connection and read models, what it has created for them, and what
//! it has learned.

use super::calls;
use super::context::{AllWritten, Parts, WriteTx};
use super::learned::Learned;
use super::models::Models;
use super::needs::Prepared;
use super::room::Room;
use super::staged::Staged;
use super::way::Known;
use crate::batch::{Batch, Written};
use crate::connect::Connection;
use crate::error::{Class, Error, Result};
use crate::read_model::ModelIndex;
use crate::sql::ident;
use crate::target::bookkeeping::Bookkeeping;
use crate::target::model::TargetModel;
use crate::target::statement::execute;

/// The session that writes.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) conn: Connection,
    pub(super) bookkeeping: Bookkeeping,
    /// The epoch under which it writes.
    pub(super) epoch: i64,
    pub(super) models: Models,
    pub(super) prepared: Prepared,
    pub(super) room: Room,
    pub(super) learned: Learned,
    /// The read model whose rows the last failed batch could not write.
    pub(super) culprit: Option<ModelIndex>,
}

impl Session {
    /// Takes the claimed connection.
    pub(super) async fn open(
        mut conn: Connection,
        bookkeeping: Bookkeeping,
        epoch: i64,
    ) -> Result<Self> {
        // A function is compiled when it is called first: most read models never need all of
        // theirs.
        let off = "SET check_function_bodies = off";
        let advance = calls::advance_function(&ident(bookkeeping.schema_name()));
        let made = calls::send_script(&conn, format!("{off}; {advance}"));
        let room = Room::of(&mut conn).await;
        made.answer().await.map_err(|failure| failure.error)?;
        let room = room?;
        Ok(Self {
            conn,
            bookkeeping,
            epoch,
            models: Models::default(),
            prepared: Prepared::default(),
            room,
            learned: Learned::default(),
            culprit: None,
        })
    }

    /// Sets the read model of this index.
    pub(super) fn set_model(&mut self, index: ModelIndex, model: TargetModel) {
        // Its columns may be others than before.
        self.prepared.forget(model.id);
        self.models.set(index, model);
    }

    /// Sends a statement and reads no rows.
    pub(super) async fn execute(&mut self, sql: impl Into<String>) -> Result<()> {
        execute(&mut self.conn, sql.into()).await
    }

    /// Writes within the transaction that is open, or by statements that are transactions of their
    /// own. At most `keys` keys of each kind are reported.
    pub(super) fn tx(&mut self, keys: i32) -> WriteTx<'_> {
        let parts = Parts {
            conn: &mut self.conn,
            models: &self.models,
            bookkeeping: &self.bookkeeping,
            epoch: self.epoch,
            learned: &mut self.learned,
        };
        WriteTx::of(parts, keys)
    }

    /// Opens a transaction and writes within it.
    pub(super) async fn begin(&mut self, keys: i32) -> Result<WriteTx<'_>> {
        let mut tx = self.tx(keys);
        tx.execute("BEGIN").await?;
        Ok(tx)
    }

    /// Remembers how much was written and which read models have rejected rows, or which read
    /// model's error kept all from being written.
    pub(super) fn note_written(
        &mut self,
        result: Result<AllWritten>,
        blamed: Option<ModelIndex>,
    ) -> Result<AllWritten> {
        match (&result, blamed) {
            (Ok(all), _) => {
                for (index, written) in all {
                    self.learned.note_rows(written.changed());
                    self.note_rejected(*index, written);
                }
            }
            (Err(error), Some(index)) => self.blame(index, error),
            (Err(_), None) => {}
        }
        result
    }

    /// Remembers whether the read model has rejected rows.
    pub(super) fn note_rejected(&mut self, index: ModelIndex, written: &Written) {
        if let Ok(model) = self.models.get(index) {
            self.learned
                .note_rejected(model.id, written.rejected_in_all > 0);
        }
    }

    /// Remembers that this read model's rows cannot be written, if that is what the error says.
    pub(super) fn blame(&mut self, index: ModelIndex, error: &Error) {
        self.culprit = matches!(error.class(), Class::Rejected | Class::Broken).then_some(index);
    }

    /// Notes that a transaction has committed: those of these read models that had many rows have
    /// truncated their tables.
    pub(super) fn note_emptied(&mut self, staged: &[Staged]) {
        for one in staged.iter().filter(|one| !one.size.is_small()) {
            if let Ok(model) = self.models.get(one.index) {
                self.learned.dead.forget(model.id);
            }
        }
    }

    /// Notes that the target has taken new rows of these read models past the stage.
    pub(super) fn note_passed(&mut self, indexes: &[ModelIndex]) {
        for id in self.models.ids(indexes) {
            self.learned.put_off.remove(id);
        }
    }

    /// Notes that the target has rejected new rows of this read model.
    pub(super) fn put_off(&mut self, index: ModelIndex) {
        for id in self.models.ids(&[index]) {
            self.learned.put_off.add(id);
        }
    }

    /// What is known of the batch before it is written.
    pub(super) fn known(&self, batch: &Batch) -> Known {
        let mut known = Known {
            can_be_arguments: true,
            ..Known::default()
        };
        for (index, fold) in &batch.folds {
            if let Ok(model) = self.models.get(*index) {
                known.can_be_arguments &= fold.is_empty() || model.fits_one_statement();
                known.has_rejected |= self.learned.has_rejected(model.id);
                known.isolates |= model.isolates();
            }
        }
        known
    }

    /// Vacuums the staging tables of those of these read models that have many dead rows.
    pub(super) async fn sweep(&mut self, indexes: &[ModelIndex]) -> Result<()> {
        let ids = self.models.ids(indexes);
        self.learned.dead.sweep(&mut self.conn, &ids).await
    }

    /// Vacuums all staging tables, if that was long ago.
    pub(super) async fn sweep_all(&mut self) -> Result<()> {
        let ids = self.prepared.staged();
        self.learned.dead.sweep_all(&mut self.conn, &ids).await
    }
}

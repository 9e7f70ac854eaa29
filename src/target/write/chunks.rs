//! A transaction that is too large to be kept in memory: it is staged chunk by chunk, in one
//! transaction of the target that stays open, and merged once, with the last chunk (`chunked.rs`).
//! No reader sees it before.
//!
//! The first chunks bypass the stage as long as they hold only new rows (`new_rows.rs`), as if each
//! were a batch of its own. Later ones of that kind are added to the stage as they are; any other
//! chunk is folded into it by the server (`sql/target/write/fold_chunk.sql`), by the rule of
//! [`Fold`].

use std::collections::HashSet;

use super::calls::{self, in_read_model};
use super::context::{AllWritten, WriteTx, add_written};
use super::halving::{self, RejectedCounts};
use super::needs::Need;
use super::new_rows;
use super::session::Session;
use super::staged::Staged;
use super::way::Size;
use crate::batch::IndexedFold;
use crate::connect::Connection;
use crate::error::Result;
use crate::fold::Fold;
use crate::read_model::{ModelId, ModelIndex};
use crate::target::model::{Joins, MOST_REJECTED, TargetModel};

/// What a read model with rows in chunks needs, whatever these rows are.
const NEEDS: [Need; 5] = [
    Need::MergeReadOnce,
    Need::Tries,
    Need::Isolate(Joins::LookedUp),
    Need::Isolate(Joins::ReadOnce),
    Need::Chunk,
];

/// The chunks that are staged and wait for the end of their transaction.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    pub(super) count: u64,
    pub(super) staged: Vec<Staged>,
    /// What went past the stage.
    pub(super) new_rows: AllWritten,
    /// Read models whose staging tables were created in the open transaction.
    made: HashSet<ModelId>,
}

impl Chunks {
    /// Forgets what is staged of a transaction whose end does not come.
    pub(super) async fn abandon(&mut self, session: &mut Session) -> Result<()> {
        let chunks = std::mem::take(self);
        if chunks.count == 0 {
            return Ok(());
        }
        for id in chunks.made {
            session.prepared.forget(id);
        }
        session.execute("ROLLBACK").await
    }

    /// Takes the next chunk. At most `keys` keys of each kind are reported.
    pub(super) async fn add(
        &mut self,
        session: &mut Session,
        folds: &[IndexedFold],
        keys: i32,
    ) -> Result<()> {
        if self.count == 0 {
            for (index, _) in folds {
                self.prepare(session, *index).await?;
            }
            session.execute("BEGIN").await?;
        }
        self.count += 1;
        for (index, fold) in folds.iter().filter(|(_, fold)| !fold.is_empty()) {
            self.prepare(session, *index).await?;
            let added = self.add_rows(&mut session.tx(keys), *index, fold).await;
            added.inspect_err(|error| session.blame(*index, error))?;
        }
        Ok(())
    }

    /// Creates the tables and functions for chunks of a read model, once a session.
    async fn prepare(&mut self, session: &mut Session, index: ModelIndex) -> Result<()> {
        let id = session.models.get(index)?.id;
        if self.count > 0 && NEEDS.iter().any(|need| !session.prepared.has(id, *need)) {
            self.made.insert(id);
        }
        // Also if the read model stops at a rejected row: another one of the transaction may have
        // some.
        session.prepare_with(index, &NEEDS).await
    }

    async fn add_rows(
        &mut self,
        tx: &mut WriteTx<'_>,
        index: ModelIndex,
        fold: &Fold,
    ) -> Result<()> {
        let is_staged = self.staged.iter().any(|one| one.index == index);
        match new_rows::write_chunk(tx, index, fold, is_staged).await? {
            Some(written) => add_written(&mut self.new_rows, index, written, tx.keys),
            None => self.add_to_stage(tx, index, fold).await?,
        }
        Ok(())
    }

    async fn add_to_stage(
        &mut self,
        tx: &mut WriteTx<'_>,
        index: ModelIndex,
        fold: &Fold,
    ) -> Result<()> {
        let model = tx.model(index)?;
        let mut staged = self.staged_of(index);
        let first = staged == Staged::none(index);
        let as_it_is = first || fold.only_new();
        let table = if as_it_is {
            model.stage()
        } else {
            model.chunk()
        };
        // Some rejected rows of earlier chunks may be right now.
        let mut rejected = RejectedCounts {
            live: 0,
            ..staged.rejected
        };
        halving::stage_accepted(tx.conn, model, &table, fold, &mut rejected)
            .await
            .map_err(|error| in_read_model(error, model))?;
        if !as_it_is {
            calls::fold_chunk(tx.conn, model, fold, staged.clear).await?;
        }
        staged.add(fold.all());
        staged.rejected.dead = rejected.dead;
        staged.rejected.live = if fold.clear() {
            0
        } else {
            staged.rejected.live
        } + rejected.live;
        // Some may be rejected again, others no longer: they are counted only if needed.
        if staged.rejected.live > MOST_REJECTED {
            staged.rejected.live = count_rejected(tx.conn, model).await?;
        }
        tx.learned.dead.add(model.id, Size::of(fold.all()));
        self.note(staged);
        Ok(())
    }

    /// What is staged of this read model.
    fn staged_of(&self, index: ModelIndex) -> Staged {
        let staged = self.staged.iter().find(|one| one.index == index);
        staged.copied().unwrap_or_else(|| Staged::none(index))
    }

    /// Notes what is staged of a read model; a new one is added at the end. They are merged in the
    /// order in which they came: one lookup may refer to another.
    fn note(&mut self, staged: Staged) {
        match self.staged.iter_mut().find(|one| one.index == staged.index) {
            Some(one) => *one = staged,
            None => self.staged.push(staged),
        }
    }
}

/// Live rows in the stage with a value that a type of the lookup rejects.
///
/// # Errors
/// [`Class::Rejected`](crate::error::Class::Rejected) if there are more of them than may be
/// recorded.
pub(super) async fn count_rejected(conn: &mut Connection, model: &TargetModel) -> Result<i64> {
    let (rows, sqlstate) = calls::count_rejected(conn, model).await?;
    halving::assert_few(rows, sqlstate.as_deref()).map_err(|error| in_read_model(error, model))?;
    Ok(rows)
}

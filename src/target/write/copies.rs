//! The merge of exact copies: by the functions that merge a stage, with the shadow in place of the
//! stage.
//!
//! A copy that the target rejects is left out, and the others are merged: the first attempts learn
//! which one it is.

use std::collections::VecDeque;

use super::calls::{
    self, IsolateOptions, MergeFrom, MergeOptions, check_constraints, in_read_model,
};
use super::context::WriteTx;
use super::in_flight::Step;
use super::locked::is_locked;
use super::merge::Merging;
use super::prepare::Purpose;
use super::rejected;
use super::session::Session;
use crate::batch::{MergePosition, Merged, Position, Suspended, Written};
use crate::error::{Class, Error, Result};
use crate::lsn::Lsn;
use crate::read_model::ModelIndex;
use crate::target::bookkeeping::ModelState;
use crate::target::model::{Joins, TargetModel};

/// More live rows than this in a copy are many: the tables that it filled are truncated.
const MANY_ROWS: i64 = 500;

/// Copies that are merged together, by their read models.
#[derive(Debug, Clone, Copy)]
pub(super) struct Copies<'a> {
    pub(super) indexes: &'a [ModelIndex],
    pub(super) position: &'a MergePosition,
}

/// When constraints that are deferred are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    /// Once, after all copies.
    AtTheEnd,
    /// After each copy too.
    AfterEach,
}

/// How the copies are tried, after what earlier attempts have shown.
#[derive(Debug)]
struct Attempt {
    merging: Merging,
    check: Check,
    /// Read models that are left out, and why.
    left_out: Vec<Suspended>,
}

/// How one copy is merged.
#[derive(Debug, Clone, Copy)]
struct CopyOptions {
    /// Whether what is written is not drift.
    heals: bool,
    check: Check,
    merging: Merging,
    lsn: Lsn,
}

/// Merges exact copies: the lookups and maps become what the shadows hold, and the read models take
/// part from here on. A read model whose rows the target rejects is left as it was, and its error
/// is returned. At most `keys` keys of each kind are reported.
pub(super) async fn merge(
    session: &mut Session,
    copies: Copies<'_>,
    keys: i32,
) -> Result<Vec<Merged>> {
    session.make_room(copies.indexes).await?;
    session.prepare_all(copies.indexes, Purpose::Copies).await?;
    let mut attempt = Attempt {
        merging: Merging::Plain,
        check: Check::AtTheEnd,
        left_out: Vec::new(),
    };
    loop {
        let mut tx = session.begin(keys).await?;
        let result = try_merge(&mut tx, copies, &attempt).await;
        match tx.end(result).await {
            (Ok(mut all), _) => {
                note_merged(session, &all);
                let left_out = attempt.left_out.into_iter();
                all.extend(left_out.map(|Suspended { index, error }| Merged {
                    index,
                    result: Err(error),
                }));
                session.make_room(&[]).await?;
                return Ok(all);
            }
            (Err(error), blamed) => attempt.learn(error, blamed)?,
        }
    }
}

impl Attempt {
    /// What the next attempt does otherwise.
    ///
    /// # Errors
    /// The same, if nothing is left to try.
    fn learn(&mut self, error: Error, blamed: Option<ModelIndex>) -> Result<()> {
        let is_rejection = error.class() == Class::Rejected;
        match blamed {
            _ if is_locked(&error) => {}
            // A constraint that is checked last was violated: the rows that do so are left out, or
            // ...
            // A deferred constraint was violated: the violating rows are left out, or ...
            _ if is_rejection && self.merging == Merging::Plain => {
                self.merging = Merging::Isolating
            }
            // ... if that does not help, one of the copies violates it: the others are merged
            // without that copy.
            Some(index) if self.why_left_out(index).is_none() => {
                self.left_out.push(Suspended { index, error })
            }
            // The constraint belongs to another table, which refers to one of them: each copy is
            // checked by itself.
            _ if is_rejection && self.check == Check::AtTheEnd => self.check = Check::AfterEach,
            _ => return Err(error),
        }
        Ok(())
    }

    fn why_left_out(&self, index: ModelIndex) -> Option<&Error> {
        let mut left_out = self.left_out.iter();
        left_out
            .find(|one| one.index == index)
            .map(|one| &one.error)
    }
}

fn note_merged(session: &mut Session, all: &[Merged]) {
    for Merged { index, result } in all {
        if let Ok(written) = result {
            session.note_rejected(*index, written);
            session.learned.note_rows(written.total);
        }
    }
}

async fn try_merge(
    tx: &mut WriteTx<'_>,
    copies: Copies<'_>,
    attempt: &Attempt,
) -> Result<Vec<Merged>> {
    let position = copies.position;
    let (MergePosition::Running(lsn, _) | MergePosition::Start { lsn, .. }) = *position;
    let options = CopyOptions {
        heals: matches!(position, MergePosition::Start { .. }),
        check: attempt.check,
        merging: attempt.merging,
        lsn,
    };
    begin(tx, copies).await?;
    let wanted = copies.indexes.iter().copied();
    let wanted: Vec<ModelIndex> = wanted
        .filter(|index| attempt.why_left_out(*index).is_none())
        .collect();
    let (mut all, isolated) = merge_each(tx, &wanted, options).await?;
    if options.heals {
        suspend_rejected(tx, &all, attempt).await?;
    }
    if all.len() > 1 {
        let tried = all.iter_mut().filter(|one| isolated.contains(&one.index));
        let tried = tried.filter_map(|one| Some((one.index, one.result.as_mut().ok()?)));
        rejected::try_again(tx, MergeFrom::Shadow, tried.collect(), lsn).await?;
        tx.blamed = None;
    }
    let emptied = emptied(tx, &all)?;
    if let Err((error, table)) = check_constraints(tx.conn, &emptied).await {
        tx.blamed = table.and_then(|table| tx.models.index_of(&table));
        return Err(error);
    }
    let whole = attempt.left_out.is_empty() && all.iter().all(|one| one.result.is_ok());
    if let (MergePosition::Running(lsn, Some(id)), true) = (position, whole) {
        tx.bookkeeping
            .mark_merged(tx.conn, tx.epoch, *id, *lsn)
            .await?;
    }
    Ok(all)
}

/// Holds the shadows, fences, and stores the position of the read models.
async fn begin(tx: &mut WriteTx<'_>, copies: Copies<'_>) -> Result<()> {
    let models = copies.indexes.iter().map(|index| tx.model(*index));
    let models: Vec<&TargetModel> = models.collect::<Result<_>>()?;
    // Before the checkpoint is locked.
    tx.bookkeeping.hold_shadows(tx.conn, &models).await?;
    match copies.position {
        MergePosition::Running(lsn, _) => {
            let position = Position {
                lsn: *lsn,
                commit_time: None,
                last: None,
            };
            calls::advance(tx.conn, tx.epoch, &position).await
        }
        MergePosition::Start { lsn, source, as_of } => {
            let at = (*lsn, as_of.map(calls::timestamp));
            tx.bookkeeping
                .finish_healing(tx.conn, tx.epoch, source, at)
                .await
        }
    }
}

/// The stream begins without the read models whose copies were rejected.
async fn suspend_rejected(tx: &mut WriteTx<'_>, all: &[Merged], attempt: &Attempt) -> Result<()> {
    let rejected = all
        .iter()
        .filter_map(|one| Some((one.index, one.result.as_ref().err()?)));
    let left_out = attempt.left_out.iter().map(|one| (one.index, &one.error));
    for (index, error) in rejected.chain(left_out) {
        let id = tx.model(index)?.id;
        tx.bookkeeping.suspend(tx.conn, tx.epoch, id, error).await?;
    }
    Ok(())
}

/// A read model's turn to be merged.
struct Turn {
    index: ModelIndex,
    /// The second turn: how many were merged before the first one, and why the copy was rejected.
    first: Option<(usize, Error)>,
}

/// Merges these read models' copies. Also returns which of them the isolating run has merged.
///
/// A copy that is rejected, possibly for lack of another lookup's rows, is tried again if others
/// were merged after it.
async fn merge_each(
    tx: &mut WriteTx<'_>,
    indexes: &[ModelIndex],
    options: CopyOptions,
) -> Result<(Vec<Merged>, Vec<ModelIndex>)> {
    let mut all: Vec<Merged> = Vec::with_capacity(indexes.len());
    let mut isolated = Vec::new();
    let mut merges = 0;
    let turns = indexes.iter().map(|index| Turn {
        index: *index,
        first: None,
    });
    let mut turns: VecDeque<Turn> = turns.collect();
    while let Some(Turn { index, first }) = turns.pop_front() {
        let is_first = first.is_none();
        if let Some((_, error)) = first.filter(|(merges_before, _)| *merges_before == merges) {
            all.push(Merged {
                index,
                result: Err(error),
            });
            continue;
        }
        let (merged, merging) = merge_one(tx, tx.model(index)?, options).await?;
        match merged {
            Err(error) if is_first && error.class() == Class::Rejected => turns.push_back(Turn {
                index,
                first: Some((merges, error)),
            }),
            merged => {
                merges += usize::from(merged.is_ok());
                all.push(Merged {
                    index,
                    result: merged,
                });
                isolated.extend((merging == Merging::Isolating).then_some(index));
            }
        }
    }
    Ok((all, isolated))
}

/// Merges one copy under a savepoint, and says by which run; a rejection by the target is part of
/// the result.
async fn merge_one<'a>(
    tx: &mut WriteTx<'a>,
    model: &'a TargetModel,
    options: CopyOptions,
) -> Result<(Result<Written>, Merging)> {
    tx.send("SAVEPOINT read_model");
    let isolates_at_once = options.merging == Merging::Isolating
        || tx.learned.has_rejected(model.id)
        || calls::shadow_has_rejected(tx.conn, model).await?;
    let mut merging = if isolates_at_once {
        Merging::Isolating
    } else {
        Merging::Plain
    };
    loop {
        let merged = merge_rows(tx, model, CopyOptions { merging, ..options }).await;
        let merged = tx.first_error(merged).await;
        if let Err(error) = &merged {
            if !matches!(error.class(), Class::Rejected | Class::Broken) {
                return merged.map(|written| (Ok(written), merging));
            }
            tx.execute("ROLLBACK TO SAVEPOINT read_model").await?;
            if error.class() == Class::Rejected && merging == Merging::Plain && model.isolates() {
                merging = Merging::Isolating;
                continue;
            }
        }
        tx.send("RELEASE SAVEPOINT read_model");
        return Ok((merged, merging));
    }
}

async fn merge_rows<'a>(
    tx: &mut WriteTx<'a>,
    model: &'a TargetModel,
    options: CopyOptions,
) -> Result<Written> {
    let (written, healed) = match options.merging {
        Merging::Plain => (merge_plainly(tx, model).await?, 0),
        Merging::Isolating => isolate(tx, model, options.lsn).await?,
    };
    if options.check == Check::AfterEach {
        check_constraints(tx.conn, "")
            .await
            .map_err(|(error, _)| in_read_model(error, model))?;
    }
    // Before the state is set: what is written is drift only if the read model was in step.
    let drift = (written.changed() - healed).max(0);
    let waiting = tx
        .bookkeeping
        .set_resynced(tx.conn, model.id, drift, options.heals)
        .await?;
    tx.bookkeeping
        .set_model_state(tx.conn, tx.epoch, model.id, ModelState::InStep, None)
        .await?;
    Ok(Written { waiting, ..written })
}

/// The options of every copy: rows that it does not hold are gone.
fn options_of(tx: &WriteTx<'_>) -> MergeOptions {
    MergeOptions {
        clear: true,
        resolve: false,
        keys: tx.keys,
    }
}

async fn merge_plainly<'a>(tx: &mut WriteTx<'a>, model: &'a TargetModel) -> Result<Written> {
    tx.send(model.make_map_identity_before());
    let options = options_of(tx);
    let merge = calls::send_merge(tx.conn, model, model.merge_shadow_call(), options).await?;
    tx.await_later(merge, Step::Any);
    tx.send(model.make_map_identity());
    tx.settle().await?;
    Ok(tx.take_written())
}

/// Merges without the rows that the target rejects. Returns also the number of those that were
/// rejected before and are taken now: they are no drift.
async fn isolate(tx: &mut WriteTx<'_>, model: &TargetModel, lsn: Lsn) -> Result<(Written, i64)> {
    tx.execute(model.make_map_identity()).await?;
    let mut before = Written::default();
    tx.bookkeeping
        .read_rejected(tx.conn, model.id, &mut before)
        .await?;
    let options = IsolateOptions {
        from: MergeFrom::Shadow,
        joins: Joins::ReadOnce,
        merge: options_of(tx),
        again: false,
        lsn,
    };
    let mut written = calls::isolate(tx.conn, model, options).await?;
    tx.bookkeeping
        .read_rejected(tx.conn, model.id, &mut written)
        .await?;
    let healed = (before.rejected_in_all - written.rejected_in_all).max(0);
    Ok((written, healed))
}

/// Statements that empty the tables that the merges have used; a rejected merge was rolled back.
fn emptied(tx: &WriteTx<'_>, all: &[Merged]) -> Result<String> {
    let mut statements = Vec::new();
    for Merged { index, result } in all {
        if let Ok(written) = result {
            let many = written.total + written.deleted > MANY_ROWS;
            statements.push(
                tx.model(*index)?
                    .empty_stage(many, Merging::Isolating.uses_tries()),
            );
        }
    }
    Ok(statements.join("; "))
}

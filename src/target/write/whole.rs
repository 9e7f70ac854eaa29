//! A batch of any size in one transaction: fence and checkpoint first, then each read model's rows
//! are staged, then all are merged.
//!
//! The plain and the isolating run differ in how they stage (the plain run can bypass the stage)
//! and in how they merge.
//!
//! Statements leave together as far as none depends on what another one answers: the first ones
//! with the rows that are staged, the last ones with the COMMIT. If one fails, so do the ones after
//! it, and the COMMIT is not carried out.

use super::context::{AllWritten, WriteTx, add_written};
use super::merge::{self, Ending, Merging, ToMerge};
use super::needs::Need;
use super::session::Session;
use super::staged::Staged;
use super::way::with_rows;
use super::{new_rows, rejected, stage};
use crate::batch::Batch;
use crate::error::Result;
use crate::read_model::ModelIndex;
use crate::target::model::Joins;

/// Writes the batch. At most `keys` keys of each kind are reported.
pub(super) async fn write(
    session: &mut Session,
    batch: &Batch,
    merging: Merging,
    keys: i32,
) -> Result<AllWritten> {
    if merging == Merging::Isolating {
        prepare_isolating(session, batch).await?;
    }
    let mut by_stage = Vec::new();
    loop {
        let mut tx = session.tx(keys);
        let mut done = Done::default();
        let result = stage_and_merge(&mut tx, (batch, &by_stage), merging, &mut done).await;
        let result = tx.first_error(result).await;
        let failed = tx.failed;
        let (result, blamed) = tx.end(result).await;
        match (&result, blamed) {
            (Ok(_), _) => {
                session.note_emptied(&done.staged);
                session.note_passed(&done.past_the_stage);
            }
            (Err(error), Some(index)) if new_rows::are_rejected(error, failed) => {
                tracing::debug!(%error, "the batch is written again, its new rows by the stage");
                session.put_off(index);
                by_stage.push(index);
                continue;
            }
            (Err(_), _) => {}
        }
        return session.note_written(result, blamed);
    }
}

/// What was done with the rows.
#[derive(Debug, Default)]
struct Done {
    /// The stage is emptied at the end.
    staged: Vec<Staged>,
    /// Read models whose new rows bypassed it.
    past_the_stage: Vec<ModelIndex>,
}

async fn prepare_isolating(session: &mut Session, batch: &Batch) -> Result<()> {
    let several = with_rows(batch).count() > 1;
    for (index, fold) in with_rows(batch) {
        let mut needs = vec![Need::Tries, Need::Isolate(rejected::joins_of(fold.clear()))];
        // Its rows may be tried once more after another lookup has changed.
        needs.extend(several.then_some(Need::Isolate(Joins::LookedUp)));
        session.prepare_with(*index, &needs).await?;
    }
    Ok(())
}

/// The new rows of the read models `by_stage` were rejected when they bypassed the stage.
async fn stage_and_merge(
    tx: &mut WriteTx<'_>,
    (batch, by_stage): (&Batch, &[ModelIndex]),
    merging: Merging,
    done: &mut Done,
) -> Result<AllWritten> {
    merge::begin_batch(tx, batch)?;
    let mut all = AllWritten::new();
    for (index, fold) in with_rows(batch) {
        tx.turn_to(*index)?;
        match merging {
            Merging::Plain => {
                let mut rest = fold.all();
                if !by_stage.contains(index)
                    && let Some(written) = new_rows::write(tx, *index, fold).await?
                {
                    done.past_the_stage.push(*index);
                    all.push((*index, written));
                    rest = fold.known_rows();
                }
                if !rest.is_empty() || rest.clear() {
                    done.staged.push(stage::stage(tx, *index, rest).await?);
                }
            }
            Merging::Isolating => done
                .staged
                .push(stage::stage_accepted(tx, *index, fold).await?),
        }
    }
    let what = ToMerge {
        batch,
        staged: &done.staged,
        only: only_one(batch),
        ending: Ending::Commits,
    };
    let merged = match merging {
        Merging::Plain => merge::merge(tx, what).await?,
        Merging::Isolating => rejected::merge(tx, what).await?,
    };
    for (index, written) in merged {
        add_written(&mut all, index, written, tx.keys);
    }
    Ok(all)
}

/// The read model that has rows in the batch, if there is one only.
fn only_one(batch: &Batch) -> Option<ModelIndex> {
    let mut folds = with_rows(batch);
    let (index, _) = folds.next()?;
    folds.next().is_none().then_some(*index)
}

//! A batch of any size in one transaction: fence and checkpoint first, then each read model's rows
//! are staged, then all are merged.
//!
//! The plain and the isolating run differ in how they stage (the plain run can bypass the stage)
//! and in how they merge.

use super::context::{AllWritten, WriteTx, add_written};
use super::merge::{self, Merging, ToMerge};
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
    let mut tx = session.begin(keys).await?;
    let mut staged = Vec::new();
    let result = stage_and_merge(&mut tx, batch, merging, &mut staged).await;
    let (result, blamed) = tx.end(result).await;
    if result.is_ok() {
        session.note_emptied(&staged);
    }
    session.note_written(result, blamed)
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

/// Notes in `staged` what it stages: the stage is emptied at the end.
async fn stage_and_merge(
    tx: &mut WriteTx<'_>,
    batch: &Batch,
    merging: Merging,
    staged: &mut Vec<Staged>,
) -> Result<AllWritten> {
    merge::advance(tx, batch).await?;
    let mut all = AllWritten::new();
    for (index, fold) in with_rows(batch) {
        tx.turn_to(*index)?;
        match merging {
            Merging::Plain => {
                let written = new_rows::write(tx, *index, fold).await?;
                let went_past = written.is_some();
                all.extend(written.map(|written| (*index, written)));
                let rest = if went_past {
                    fold.known_rows()
                } else {
                    fold.all()
                };
                if !rest.is_empty() || rest.clear() {
                    staged.push(stage::stage(tx, *index, rest).await?);
                }
            }
            Merging::Isolating => staged.push(stage::stage_accepted(tx, *index, fold).await?),
        }
    }
    let what = ToMerge {
        batch,
        staged,
        only: only_one(batch),
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

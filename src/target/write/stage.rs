//! Puts final states of a read model into its stage: few by a statement, many by COPY.

use super::calls::{self, in_read_model};
use super::context::WriteTx;
use super::copying;
use super::halving;
use super::in_flight::Step;
use super::merge::{ask_size, size_matters};
use super::rows::{self, Part};
use super::staged::Staged;
use super::way::Size;
use crate::error::Result;
use crate::fold::{Final, Fold, Share};
use crate::read_model::ModelIndex;
use crate::target::model::TargetModel;

/// Stages these rows of the read model.
///
/// # Errors
/// [`Class::Rejected`](crate::error::Class::Rejected) if a type of the lookup rejects a value.
pub(super) async fn stage(
    tx: &mut WriteTx<'_>,
    index: ModelIndex,
    rows: Share<'_>,
) -> Result<Staged> {
    let model = tx.model(index)?;
    tx.learned.dead.add(model.id, Size::of(rows));
    let mut staged = Staged::none(index);
    staged.add(rows);
    if size_matters(staged) {
        ask_size(tx, staged)?;
    }
    let few = staged.size.is_staged_by_statement();
    match few.then(|| rows::arrays(model, rows)).flatten() {
        Some(arrays) => {
            tx.make_room(staged.size.bytes).await?;
            let answer = calls::send_to_stage(tx.conn, model, arrays).await?;
            tx.await_later(answer, Step::Any);
        }
        None => copy(tx, model, rows.finals()).await?,
    }
    Ok(staged)
}

/// Stages rows by COPY.
async fn copy<'a>(
    tx: &mut WriteTx<'a>,
    model: &'a TargetModel,
    rows: impl Iterator<Item = Final<'_>>,
) -> Result<()> {
    let ours = |error| in_read_model(error, model);
    let rows = rows::in_key_order(model, rows);
    let sql = copying::stage_copy(model, &model.stage());
    let begun = copying::send_copy(tx.conn, &sql).await.map_err(ours)?;
    tx.settle().await?;
    let copy = copying::begun(begun).await.map_err(ours)?;
    let filled = copying::fill_copy(tx.conn, copy, rows.into_iter(), |row, out| {
        rows::copy_row(model, row, Part::Whole, &[], out);
    });
    let answer = filled.await.map_err(ours)?;
    let answer = answer.map(move |answer| answer.map_err(|failure| failure.map(ours)));
    tx.await_later(answer, Step::Any);
    Ok(())
}

/// Stages the rows of a batch. If the read model continues without rejected rows, values that a
/// type of the lookup rejects are left out.
pub(super) async fn stage_accepted(
    tx: &mut WriteTx<'_>,
    index: ModelIndex,
    fold: &Fold,
) -> Result<Staged> {
    let model = tx.model(index)?;
    let mut staged = Staged::none(index);
    staged.add(fold.all());
    tx.learned.dead.add(model.id, Size::of(fold.all()));
    if !model.isolates() {
        copy(tx, model, fold.finals()).await?;
        return Ok(staged);
    }
    halving::stage_accepted(tx.conn, model, &model.stage(), fold, &mut staged.rejected)
        .await
        .map_err(|error| in_read_model(error, model))?;
    Ok(staged)
}

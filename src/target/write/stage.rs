//! Puts final states of a read model into its stage: few by a statement, many by COPY.

use super::calls::{copy_to_stage, in_read_model, insert_to_stage};
use super::context::WriteTx;
use super::halving;
use super::rows;
use super::staged::Staged;
use super::way::Size;
use crate::connect::Connection;
use crate::error::Result;
use crate::fold::{Fold, Share};
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
    stage_share(tx.conn, model, rows)
        .await
        .map_err(|error| in_read_model(error, model))?;
    let mut staged = Staged::none(index);
    staged.add(rows);
    Ok(staged)
}

async fn stage_share(conn: &mut Connection, model: &TargetModel, rows: Share<'_>) -> Result<()> {
    let few = Size::of(rows).is_staged_by_statement();
    match few.then(|| rows::arrays(model, rows)).flatten() {
        Some(arrays) => insert_to_stage(conn, model, arrays).await,
        None => copy_to_stage(conn, model, &model.stage(), rows.finals()).await,
    }
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
    halving::stage_accepted(tx.conn, model, &model.stage(), fold, &mut staged.rejected)
        .await
        .map_err(|error| in_read_model(error, model))?;
    Ok(staged)
}

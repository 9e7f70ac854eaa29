//! The first looks of a session: before the read models are bound, and after.
//!
//! What is altered in between would be in neither of the watch's looks: so both must show what was
//! bound.

use tokio_postgres::Client;

use super::watched::{is_bound_to, resync_for, stored};
use super::{ask_for_resync, sources};
use crate::error::{Error, Result};
use crate::run::bind::Bound;
use crate::run::owner::Owner;
use crate::run::shared::Shared;
use crate::source;
use crate::source::watch::Look;
use crate::target::bookkeeping::{ModelState, Stored};

/// Looks at the source before anything is bound.
///
/// # Errors
/// As any query.
pub(crate) async fn look_before(shared: &Shared, client: &Client) -> Result<Vec<Look>> {
    let publication = &shared.settings.source.publication;
    source::watch::look(client, publication, &sources(shared)).await
}

/// Looks again, and compares with what was bound and with what the last session has stored: read
/// models that changed in a way that the stream does not bring are suspended, or a resync of them
/// is asked for.
///
/// # Errors
/// Transient if a table was altered in the meantime: the session begins again.
pub(crate) async fn compare_with_stored(
    shared: &Shared,
    client: &Client,
    owner: &mut Owner<'_>,
    bound: &mut [Bound],
    before: &[Look],
) -> Result<Vec<Look>> {
    let looks = look_before(shared, client).await?;
    let mut stored_before = owner.bookkeeping.watched(owner.conn).await?;
    for ((bound, look), before) in bound.iter_mut().zip(&looks).zip(before) {
        let model = bound.model.as_ref().ok().map(|model| &model.model);
        let used = model.map(|model| model.source_columns());
        if !look.is_same_table(before, used.as_deref())
            || !model.is_none_or(|model| is_bound_to(model, look))
        {
            return Err(Error::transient(format!(
                "table \"{}\" was altered while the session began",
                bound.settings.source
            )));
        }
        let before = stored_before.remove(&bound.id).unwrap_or_default();
        compare(shared, owner, bound, look, before).await?;
    }
    Ok(looks)
}

async fn compare(
    shared: &Shared,
    owner: &mut Owner<'_>,
    bound: &mut Bound,
    look: &Look,
    before: Stored,
) -> Result<()> {
    let Owner {
        conn,
        bookkeeping,
        epoch,
    } = owner;
    let used = bound
        .model
        .as_ref()
        .ok()
        .map(|model| model.model.source_columns());
    let now = stored(look, used.as_deref());
    if now == before {
        return Ok(());
    }
    let in_step = bound.state == ModelState::InStep;
    if in_step && before.published.is_some() && before.published != now.published {
        let error = Error::broken("its table's publication was changed, so changes may be missing");
        tracing::warn!(read_model = bound.settings.name(), %error, "read model is suspended and copied again");
        bookkeeping.suspend(conn, *epoch, bound.id, &error).await?;
        bound.state = ModelState::Suspended;
    } else if in_step && let Some(why) = resync_for(&before, &now) {
        ask_for_resync(shared, conn, *epoch, (&bound.settings.name(), why)).await?;
    }
    bookkeeping
        .set_watched(conn, (*epoch, bound.id), &now)
        .await
}

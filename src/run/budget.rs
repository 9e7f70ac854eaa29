//! The WAL budget: above `source.max_retained_wal` the slot is given up, so that the source's disk
//! does not fill.
//!
//! A guard looks at the slot as long as the process lives, whatever the session does: streaming
//! into a target that takes nothing, copying, waiting, or failing because the target is down. What
//! follows, in this order:
//!
//! ```text
//! guard sees too much -> session ends (asked first, then dropped)
//!                     -> "healing" is stored in the target -> slot is dropped
//! ```
//!
//! If the target can no longer be reached, the slot is dropped all the same. The next session finds
//! it missing, which heals too; a slot that another session creates in its place is ahead of the
//! checkpoint. A process that has not yet reached the target does not know whose the slot is.
//! Dropping takes the pipeline's lock like every session, so if another process owns the pipeline,
//! nothing is done.

use std::time::Duration;

use tokio::time::Instant;

use crate::connect::Connection;
use crate::error::{Class, Error, Result};
use crate::facts::Slot;
use crate::lsn::Lsn;
use crate::progress::SourceIdentity;
use crate::run::pressure::Pressure;
use crate::run::shared::Shared;
use crate::run::{fence, preflight};
use crate::settings::size_text;
use crate::source;

/// How often the guard looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// How long one look may take.
const LOOK_PATIENCE: Duration = Duration::from_secs(20);

/// How long a stream that keeps up may hold more: the server moves restart_lsn on only behind
/// records that it writes every 15 s, and not past an open transaction.
const LAZY_PATIENCE: Duration = Duration::from_secs(60);

/// How long it may take to store the reason at the target, and until the last session's lock is
/// released.
const GIVE_UP_PATIENCE: Duration = Duration::from_secs(5);

/// Looks at the slot until the process ends. If the source cannot be reached, it looks later.
pub(crate) async fn guard(shared: &Shared) {
    let mut in_force = shared.in_force.subscribe();
    let mut over_since: Option<Instant> = None;
    let mut client: Option<Connection> = None;
    loop {
        let limit = in_force.borrow_and_update().source.max_retained_wal;
        let Some(limit) = limit else {
            (over_since, client) = (None, None);
            shared.budget.set(Pressure::None);
            // Its sender is shared with us, so it cannot be closed.
            let _ = in_force.changed().await;
            continue;
        };
        match tokio::time::timeout(LOOK_PATIENCE, look(shared, &mut client)).await {
            Ok(Ok(seen)) => {
                let over = seen.as_ref().filter(|seen| seen.held > limit);
                over_since = over.and(over_since.or(Some(Instant::now())));
                let lasted = over_since.map_or(Duration::ZERO, |since| since.elapsed());
                let pressure = over.map_or(Pressure::None, |seen| judge(seen, limit, lasted));
                shared.budget.set(pressure);
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "the guard of the WAL budget could not look");
                client = None;
            }
            Err(_) => client = None,
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// What the pipeline's slot holds, in bytes.
struct Held {
    held: u64,
    /// From the position that was acknowledged last.
    unacknowledged: u64,
}

/// Above the limit for so long: what follows.
fn judge(seen: &Held, limit: u64, lasted: Duration) -> Pressure {
    let keeps_up = seen.unacknowledged <= limit;
    let patience = if keeps_up {
        LAZY_PATIENCE
    } else {
        LOOK_INTERVAL
    };
    if lasted < patience {
        return Pressure::High;
    }
    Pressure::Exceeded(over("the slot", seen.held, limit))
}

fn over(slot: &str, held: u64, limit: u64) -> String {
    format!(
        "{slot} held {} of WAL at the source, more than source.max_retained_wal ({})",
        size_text(held),
        size_text(limit)
    )
}

/// `None`: there is no slot, or this process may not judge it.
async fn look(shared: &Shared, client: &mut Option<Connection>) -> Result<Option<Held>> {
    let source = &shared.settings.source;
    let client = match client {
        Some(client) => client,
        None => client.insert(shared.source_session("guard").await?),
    };
    let Some(slot) = source::facts::slot(client, &source.slot).await? else {
        return Ok(None);
    };
    let end = source::facts::current_wal(client).await?;
    Ok(held(&slot, &source.conninfo.database, end))
}

/// A slot that is being created is given up by its creator; a slot of another plugin or database is
/// not ours.
fn held(slot: &Slot, database: &str, end: Lsn) -> Option<Held> {
    let ours =
        slot.plugin.as_deref() == Some("pgoutput") && slot.database.as_deref() == Some(database);
    let confirmed = slot.confirmed_flush_lsn.filter(|_| ours)?;
    Some(Held {
        held: u64::try_from(slot.held_bytes?).ok()?,
        unacknowledged: end.bytes_since(confirmed),
    })
}

/// Gives the slot up: stores the reason at the target, if that can be reached, and drops the slot.
/// Returns whether it did so. It does not if another process owns the pipeline, or if the slot is
/// not known to be this pipeline's.
pub(crate) async fn give_up(
    shared: &Shared,
    epoch: Option<i64>,
    owned: Option<&SourceIdentity>,
    why: &str,
) -> Result<bool> {
    let source = &shared.settings.source;
    if owned.is_none() {
        tracing::warn!(
            slot = source.slot,
            why,
            "the slot holds more than it may, but whether it is this pipeline's is known only once the target has been reached: it stays"
        );
        return Ok(false);
    }
    let told = match epoch {
        Some(epoch) => tokio::time::timeout(GIVE_UP_PATIENCE, tell(shared, epoch, why)).await,
        None => Ok(Err(Error::transient(
            "this process has not reached the target yet",
        ))),
    };
    let told = told.unwrap_or_else(|_| Err(Error::transient("the target does not answer")));
    if let Err(error) = &told
        && error.class() == Class::Fenced
    {
        return Ok(false);
    }
    let (mut replication, _) = preflight::connect(shared, owned).await?;
    let deadline = Instant::now() + GIVE_UP_PATIENCE;
    while !fence::try_lock(&mut replication, &source.slot).await? {
        if Instant::now() > deadline {
            tracing::debug!(
                slot = source.slot,
                "another process owns the pipeline: the slot is its own"
            );
            return Ok(false);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    source::slot::drop(&mut replication, &source.slot).await?;
    tracing::warn!(
        slot = source.slot,
        why,
        target_told = told.is_ok(),
        "dropped the slot to free WAL; every read model will be copied again, and readers keep the old rows until then"
    );
    shared.budget.set(Pressure::None);
    Ok(true)
}

/// The intent is stored before the slot is dropped.
async fn tell(shared: &Shared, epoch: i64, why: &str) -> Result<()> {
    let mut conn = shared.target_session("state").await?;
    shared
        .bookkeeping
        .intend_healing(&mut conn, epoch, why)
        .await
}

/// Carries out a part of a resync, which has a slot of its own, unless that slot holds too much.
pub(crate) async fn within<T>(
    shared: &Shared,
    slot: &str,
    part: impl Future<Output = Result<T>>,
) -> Result<T> {
    let limit = shared.in_force.settings().source.max_retained_wal;
    let Some(limit) = limit else {
        return part.await;
    };
    tokio::select! {
        biased;
        result = part => result,
        error = until_over(shared, slot, limit) => Err(error),
    }
}

async fn until_over(shared: &Shared, slot: &str, limit: u64) -> Error {
    let client = match shared.source_session("guard").await {
        Ok(client) => client,
        Err(error) => return error,
    };
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let held = match source::facts::slot(&client, slot).await {
            Ok(slot) => slot.and_then(|slot| slot.held_bytes).unwrap_or(0),
            Err(error) => return error,
        };
        if let Ok(held) = u64::try_from(held)
            && held > limit
        {
            return Error::transient(over("the slot of the copy", held, limit)).with_hint(
                "Raise source.max_retained_wal, or resync when the source writes less.",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_keeps_up_is_given_time() {
        let high = |seen: &Held, lasted| judge(seen, 1000, lasted) == Pressure::High;
        let stuck = Held {
            held: 2000,
            unacknowledged: 1500,
        };
        assert!(high(&stuck, Duration::ZERO), "once is never enough");
        assert!(!high(&stuck, LOOK_INTERVAL));
        let lazy = Held {
            held: 2000,
            unacknowledged: 10,
        };
        assert!(high(&lazy, LOOK_INTERVAL));
        assert!(!high(&lazy, LAZY_PATIENCE));
    }

    #[test]
    fn only_a_slot_of_ours_that_is_made_is_judged() {
        let slot = Slot {
            name: "cdc".to_owned(),
            plugin: Some("pgoutput".to_owned()),
            database: Some("master".to_owned()),
            active_pid: None,
            restart_lsn: Some(Lsn(100)),
            confirmed_flush_lsn: Some(Lsn(200)),
            wal_status: None,
            safe_wal_bytes: None,
            invalidation_reason: None,
            held_bytes: Some(900),
        };
        let seen = held(&slot, "master", Lsn(1000)).unwrap();
        assert_eq!((seen.held, seen.unacknowledged), (900, 800));
        assert!(held(&slot, "other", Lsn(1000)).is_none());
        let making = Slot {
            confirmed_flush_lsn: None,
            ..slot.clone()
        };
        assert!(held(&making, "master", Lsn(1000)).is_none());
        let lost = Slot {
            held_bytes: None,
            ..slot
        };
        assert!(held(&lost, "master", Lsn(1000)).is_none());
    }
}

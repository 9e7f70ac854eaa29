//! The creation of a slot, which waits for every open write transaction of the source. While it
//! waits, the bookkeeping says which transaction blocks it, and since when, so that `status` can
//! name it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::run::shared::Shared;
use crate::source;
use crate::source::replication::Replication;
use crate::source::slot::{CreatedSlot, Kind, Waits};

/// How long the target may take to note it.
const STORE_PATIENCE: Duration = Duration::from_secs(5);

/// How often the time that the creation may take is doubled. It waits for the transactions that
/// write when it begins, and then for those that write at that time: if long transactions overlap
/// all the time, no shorter time is ever enough.
const MOST_DOUBLINGS: u32 = 4;

/// A slot to be created.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    /// Name.
    pub name: &'a str,
    /// How long it lives.
    pub kind: Kind,
    /// How long it may take; longer, up to sixteen times, if it failed before.
    pub within: Duration,
    /// Whose copy it is for.
    pub epoch: i64,
    /// Number of the resync that it is for.
    pub resync: Option<i64>,
}

/// Creates a slot, as [`source::slot::create_within`]. Not to be dropped half way.
pub(crate) async fn create_slot(
    shared: &Shared,
    wanted: &Wanted<'_>,
    (replication, observer): (&mut Replication, &Client),
    stop: &CancellationToken,
) -> Result<CreatedSlot> {
    tracing::debug!(slot = wanted.name, kind = ?wanted.kind, "making a slot");
    let (tell, mut told) = watch::channel(None);
    let failed = shared.slots_failed.load(Ordering::Relaxed);
    let within = wanted.within * 2u32.pow(failed.min(MOST_DOUBLINGS));
    let result = {
        let waits = Waits {
            within,
            stop,
            tell: &tell,
        };
        let making =
            source::slot::create_within(replication, observer, wanted.name, wanted.kind, &waits);
        let noting = note(shared, wanted, &mut told);
        tokio::select! {
            biased;
            result = making => result,
            () = noting => Err(Error::transient("nobody notes what the slot waits for")),
        }
    };
    let failed = if result.is_ok() {
        0
    } else {
        failed.saturating_add(1)
    };
    shared.slots_failed.store(failed, Ordering::Relaxed);
    if let Ok(slot) = &result {
        tracing::debug!(slot = slot.name, lsn = %slot.consistent_point, "made a slot");
    }
    let noted = told.borrow().is_some();
    if noted && let Err(error) = store(shared, wanted, None).await {
        tracing::debug!(%error, "could not note that a copy waits no more");
    }
    result
}

/// Never ends. An entry that cannot be stored is left out: the copy does not depend on it.
async fn note(shared: &Shared, wanted: &Wanted<'_>, told: &mut watch::Receiver<Option<String>>) {
    let since = jiff::Timestamp::now()
        .strftime("%Y-%m-%d %H:%M:%S UTC")
        .to_string();
    while told.changed().await.is_ok() {
        let who = told.borrow_and_update().clone();
        let text = who.map(|who| format!("open transactions at the source, since {since}: {who}"));
        if let Some(text) = &text {
            tracing::info!(waiting_for = text, "a copy waits to begin");
        }
        if let Err(error) = store(shared, wanted, text.as_deref()).await {
            tracing::debug!(%error, "could not note what a copy waits for");
        }
    }
    std::future::pending().await
}

/// Uses a session of its own: the others must not be left in the middle of a statement, and may
/// block the copy.
async fn store(shared: &Shared, wanted: &Wanted<'_>, text: Option<&str>) -> Result<()> {
    let storing = async {
        let mut conn = shared.target_session("state").await?;
        shared
            .bookkeeping
            .set_copy_waiting(&mut conn, wanted.epoch, wanted.resync, text)
            .await
    };
    tokio::time::timeout(STORE_PATIENCE, storing)
        .await
        .unwrap_or_else(|_| Err(Error::transient("the target does not answer")))
}

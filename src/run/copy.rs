//! Exact copies: the source's rows under a slot's exported snapshot become shadows in the target.
//!
//! The snapshot holds exactly the transactions whose commit lies before the slot's consistent point
//! C. Before anything is read under it, catalogs included, the copy waits until no transaction that
//! the snapshot sees as committed is still listed as running (`source/settled.rs` says why: on the
//! server versions in use today, reading earlier damages the master).
//!
//! One transaction holds the snapshot and locks nothing; each table is read in one of its own
//! (`table.rs`). So a table that has to give way, or whose connection is lost, is read again under
//! the same snapshot. A table that cannot be read does not affect the others (`failure.rs`).

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::error::{Class, Error, Result};
use crate::read_model::{ModelId, ModelIndex, ReadModel};
use crate::retry::Backoff;
use crate::run::shared::Shared;
use crate::settings::ReadModelSettings;
use crate::source::snapshot::Snapshot;
use crate::target::bookkeeping::Backend;
use crate::target::model::TargetModel;
use crate::target::shadow::ShadowWriter;

mod failure;
mod progress;
mod table;

use failure::Failure;
use table::Tables;

/// How long a snapshot may take to settle; a hung synchronous standby makes it endless.
const SETTLE_PATIENCE: Duration = Duration::from_secs(60);

/// How often the transaction that holds the snapshot sends a sign of life: a firewall forgets idle
/// connections after some minutes.
const ALIVE_INTERVAL: Duration = Duration::from_secs(60);

/// Pauses between two rounds of tables that were all put off.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const MOST_PAUSE: Duration = Duration::from_secs(5);

/// How long tables that are put off again and again keep the others waiting, which are already
/// copied.
const MOST_WAITING: Duration = Duration::from_secs(30);

/// How long it may take to remove what a copy has left.
const TAKE_AWAY_PATIENCE: Duration = Duration::from_secs(3);

/// A read model to be copied.
#[derive(Debug, Clone)]
pub(crate) struct ToCopy {
    /// Its place in the configuration.
    pub index: ModelIndex,
    /// Its rule.
    pub settings: ReadModelSettings,
    /// Its binding, from before the slot was created; with its shadow once it is copied.
    pub model: TargetModel,
}

impl ToCopy {
    /// The read model as a stream takes it.
    pub(crate) fn joining(&self) -> (ModelIndex, Arc<ReadModel>) {
        (self.index, Arc::clone(&self.model.model))
    }

    /// It could not be copied.
    pub(crate) fn failed(&self, error: Error) -> FailedCopy {
        FailedCopy {
            id: self.model.id,
            name: self.settings.name(),
            error,
        }
    }
}

/// A read model that could not be copied.
#[derive(Debug, Clone)]
pub(crate) struct FailedCopy {
    /// Its number in the bookkeeping.
    pub id: ModelId,
    /// Its lookup.
    pub name: String,
    /// Why.
    pub error: Error,
}

/// The result of one read model's copy. A transient error says that another copy may succeed.
pub(crate) type Copied = (ToCopy, Result<()>);

/// Copies the read models into their shadows. A read model that fails by itself does not stop the
/// others.
///
/// The replication connection must stay idle in the meantime.
///
/// # Errors
/// Transient if the copy as a whole must start again: the snapshot or the target's session is lost.
pub(crate) async fn copy_all(
    shared: &Shared,
    snapshot_name: &str,
    models: Vec<ToCopy>,
    shadow: &mut ShadowWriter,
    stop: &CancellationToken,
) -> Result<Vec<Copied>> {
    let observer = shared.source_observer("observer").await?;
    let holder = shared.source_session("snapshot").await?;
    let holder = Snapshot::open(holder, &observer, snapshot_name, SETTLE_PATIENCE).await?;
    tracing::debug!("the snapshot has settled");
    let name = holder.export().await?;
    let mut tables = Tables::new(shared, name, observer, shadow, stop);
    let copied = tokio::select! {
        biased;
        copied = each_in_turn(&mut tables, models, stop) => copied,
        gone = hold(&holder) => match gone? {},
    };
    drop(tables);
    holder.close().await;
    copied
}

/// Keeps the snapshot; ends only if it is lost.
async fn hold(holder: &Snapshot) -> Result<Infallible> {
    loop {
        tokio::time::sleep(ALIVE_INTERVAL).await;
        holder
            .keep_alive()
            .await
            .map_err(|error| error.context("the copy's snapshot is lost"))?;
    }
}

/// One table after the other; one that is put off comes again after the others.
async fn each_in_turn(
    tables: &mut Tables<'_>,
    models: Vec<ToCopy>,
    stop: &CancellationToken,
) -> Result<Vec<Copied>> {
    let mut waiting = VecDeque::from(models);
    let mut copied = Vec::with_capacity(waiting.len());
    let mut backoff = Backoff::new(FIRST_PAUSE, MOST_PAUSE);
    // Tables in a row that were put off, and since when it is all of them.
    let (mut in_vain, mut since) = (0, None);
    while let Some(mut to_copy) = waiting.pop_front() {
        match tables.copy(&mut to_copy).await {
            Ok(()) => {
                copied.push((to_copy, Ok(())));
                (in_vain, since) = (0, None);
                backoff.reset();
            }
            Err(Failure::LeftOut(error)) => {
                let error = named(error, &to_copy);
                copied.push((to_copy, Err(error)));
            }
            Err(Failure::Ends(error)) => return Err(error),
            Err(Failure::PutOff(error)) => {
                let first: &mut Option<Instant> = &mut since;
                let all = in_vain >= waiting.len();
                if all && first.is_some_and(|since| since.elapsed() >= MOST_WAITING) {
                    let error = named(error, &to_copy);
                    copied.push((to_copy, Err(error)));
                    continue;
                }
                tracing::info!(read_model = to_copy.settings.name(), %error, "the table is copied later");
                in_vain += 1;
                waiting.push_back(to_copy);
                if all {
                    first.get_or_insert_with(Instant::now);
                    pause(backoff.next_delay(fastrand::f64()), stop).await;
                }
            }
        }
    }
    Ok(copied)
}

/// An event during the pause is noticed at the next try.
async fn pause(delay: Duration, stop: &CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = tokio::time::sleep(delay) => {}
    }
}

fn named(error: Error, to_copy: &ToCopy) -> Error {
    error.context(format_args!(
        "could not copy table \"{}\"",
        to_copy.settings.source
    ))
}

/// Why there is nothing to merge, if another copy of everything may succeed.
pub(crate) fn in_vain(copied: &[Copied]) -> Option<Error> {
    let mut errors = copied.iter().map(|(_, result)| result.as_ref().err());
    if errors.clone().any(|error| error.is_none()) {
        return None;
    }
    errors
        .find_map(|error| {
            error.filter(|error| !matches!(error.class(), Class::Broken | Class::Rejected))
        })
        .cloned()
}

/// Ends the session of a copy that was given up in the middle, and removes what it left. It uses a
/// session of its own, since the copy's may wait for something. If the target cannot be reached,
/// the rest is removed later.
pub(crate) async fn take_away(shared: &Shared, epoch: i64, copying: &Backend) {
    let taken = async {
        let mut conn = shared.target_session("cleaner").await?;
        shared
            .bookkeeping
            .end_copying(&mut conn, epoch, copying)
            .await
    };
    let taken = tokio::time::timeout(TAKE_AWAY_PATIENCE, taken).await;
    match taken.unwrap_or_else(|_| Err(Error::transient("the target has not answered"))) {
        Ok(()) => tracing::debug!("nothing of the copies is left"),
        Err(error) => tracing::debug!(%error, "what the copies have left stays for later"),
    }
}

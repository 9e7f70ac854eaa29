//! The copy of one table, in a transaction of its own under the snapshot that another one holds.
//!
//! ```text
//! import --> lock --> facts of now: what was bound?
//!        --> COPY begins --> partitions and texts of now: those of C? --> rows
//! ```
//!
//! The lock keeps the definition as it is, but not partitions from being attached, nor labels of an
//! enum from being renamed. A COPY reads the partitions of the moment when it begins, so these are
//! looked at after that.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::TryStreamExt;
use tokio_util::sync::CancellationToken;

use super::ToCopy;
use super::failure::Failure;
use super::progress::Progress;
use crate::connect::Connection;
use crate::error::{Class, Error};
use crate::read_model::follow::follow;
use crate::run::report::millis;
use crate::run::shared::Shared;
use crate::source;
use crate::source::as_read::AsRead;
use crate::source::copy_query::copy_query;
use crate::source::snapshot::{CopyOut, Snapshot};
use crate::sql::TableName;
use crate::target::shadow::{Counter, Filling, ShadowWriter};

/// How often the copy looks whether another session waits for its lock, and reports its progress.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Copies tables, one at a time.
pub(super) struct Tables<'a> {
    shared: &'a Shared,
    /// The snapshot as its holder has exported it.
    snapshot: String,
    observer: Connection,
    /// The connection that has read the table before.
    reader: Option<Connection>,
    shadow: &'a mut ShadowWriter,
    stop: &'a CancellationToken,
}

/// A table that is read under the lock.
struct Copying<'a> {
    to_copy: &'a ToCopy,
    snapshot: &'a Snapshot,
    /// What the text of its rows depended on at C.
    as_of_c: AsRead,
}

impl<'a> Tables<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        snapshot: String,
        observer: Connection,
        shadow: &'a mut ShadowWriter,
        stop: &'a CancellationToken,
    ) -> Self {
        Self {
            shared,
            snapshot,
            observer,
            reader: None,
            shadow,
            stop,
        }
    }

    /// Copies a table into a shadow, which the read model has from then on.
    pub(super) async fn copy(&mut self, to_copy: &mut ToCopy) -> Result<(), Failure> {
        if self.stop.is_cancelled() {
            return Err(Failure::Ends(stopped()));
        }
        // Before the table is locked.
        let taken = self
            .shadow
            .take(&self.shared.bookkeeping, &to_copy.model)
            .await;
        to_copy.model = taken.map_err(Failure::of_target)?;
        let to_copy = &*to_copy;
        let table = &to_copy.settings.source;
        let snapshot = self.begin_with(table).await?;
        let estimate = self.check_unaltered(to_copy).await?;
        let as_of_c = AsRead::read(snapshot.client(), table)
            .await
            .map_err(Failure::of_source)?;
        let copied = Counter::default();
        let mut progress = Progress::new(self.shared, to_copy, estimate, &copied);
        let copy = Copying {
            to_copy,
            snapshot: &snapshot,
            as_of_c,
        };
        let mut result = self.fill(&copy, &mut progress, Filling::AtOnce).await;
        if let Err(Failure::LeftOut(error)) = &result
            && error.class() == Class::Rejected
            && to_copy.model.isolates()
        {
            tracing::debug!(%error, "the rows are copied again in small pieces to find those that are rejected");
            copied.reset();
            self.shadow
                .take(&self.shared.bookkeeping, &to_copy.model)
                .await
                .map_err(Failure::of_target)?;
            result = self.fill(&copy, &mut progress, Filling::Carefully).await;
        }
        progress.end().await;
        result?;
        let (rows, bytes) = copied.read();
        tracing::info!(
            read_model = to_copy.settings.name(),
            rows,
            bytes,
            elapsed_ms = millis(progress.started.elapsed()),
            "copied"
        );
        // The rows that were read are right; the next table takes another connection if this one is
        // lost.
        self.reader = snapshot.end().await.ok();
        Ok(())
    }

    /// Begins a transaction under the snapshot, with the table locked: it has the files that it had
    /// at C.
    async fn begin_with(&mut self, table: &TableName) -> Result<Snapshot, Failure> {
        if self.observer.is_closed() {
            self.observer = self
                .shared
                .source_observer("observer")
                .await
                .map_err(Failure::PutOff)?;
        }
        let snapshot = self.begin().await?;
        snapshot.lock(table).await.map_err(Failure::of_source)?;
        let same_files = snapshot.has_same_files(table).await;
        if same_files.map_err(Failure::of_source)? {
            Ok(snapshot)
        } else {
            Err(altered())
        }
    }

    /// Begins a transaction under the snapshot.
    async fn begin(&mut self) -> Result<Snapshot, Failure> {
        let reader = match self.reader.take() {
            Some(reader) if !reader.is_closed() => reader,
            _ => self
                .shared
                .source_session("copy")
                .await
                .map_err(Failure::PutOff)?,
        };
        Snapshot::import(reader, &self.snapshot)
            .await
            .map_err(|error| match error.sqlstate() {
                // Its holder has ended: an invalid identifier up to 17, an undefined object from 18
                // on.
                Some("22023" | "42704") => Failure::Ends(error.with_class(Class::Transient)),
                _ => Failure::PutOff(error),
            })
    }

    /// The table as it is now, under our lock, must be the one that the read model was bound to
    /// before the slot was made: COPY goes by these catalogs, and not by those of the snapshot.
    /// Returns the estimated number of its rows.
    async fn check_unaltered(&self, to_copy: &ToCopy) -> Result<Option<i64>, Failure> {
        let table = source::facts::table(&self.observer, &to_copy.settings.source)
            .await
            .map_err(Failure::of_source)?
            .ok_or_else(altered)?;
        let role = &self.shared.settings.source.conninfo.user;
        let now = follow(&to_copy.settings, &table, &[], role).map_err(Failure::of_source)?;
        if now != *to_copy.model.model {
            return Err(altered());
        }
        Ok(table.estimate())
    }

    /// Begins to read. The driver returns with the first rows, which may take long to find among
    /// dead ones. Until then, too, the copy gives way to a session that waits for the table.
    async fn begin_copy(
        &mut self,
        snapshot: &Snapshot,
        to_copy: &ToCopy,
    ) -> Result<CopyOut, Failure> {
        let query = copy_query(&to_copy.model.model);
        let mut begun = std::pin::pin!(snapshot.copy_out(&query));
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(Failure::Ends(stopped())),
                rows = &mut begun => return rows.map_err(Failure::of_source),
                () = tokio::time::sleep(LOOK_INTERVAL) => {
                    if give_way(self.shared, snapshot, &mut self.observer, to_copy).await {
                        return Err(gave_way_to_others());
                    }
                }
            }
        }
    }

    /// Fills an empty shadow, unless another session waits for the table or the process is asked to
    /// stop.
    async fn fill(
        &mut self,
        copy: &Copying<'_>,
        progress: &mut Progress<'_>,
        filling: Filling,
    ) -> Result<(), Failure> {
        let Copying {
            to_copy,
            snapshot,
            as_of_c,
        } = copy;
        let table = &to_copy.settings.source;
        let rows = self.begin_copy(snapshot, to_copy).await?;
        let now = AsRead::read(&self.observer, table).await;
        if !as_of_c.holds(&now.map_err(Failure::of_source)?) {
            return Err(altered());
        }
        let by_source = AtomicBool::new(false);
        let rows = rows.map_err(|error| {
            by_source.store(true, Ordering::Relaxed);
            error
        });
        let filled = self
            .shadow
            .fill_by(filling, &to_copy.model, rows, progress.copied);
        let mut filled = std::pin::pin!(filled);
        let mut gave_way = false;
        let filled = loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(Failure::Ends(stopped())),
                filled = &mut filled => break filled,
                () = tokio::time::sleep(LOOK_INTERVAL) => {
                    gave_way = gave_way || give_way(self.shared, snapshot, &mut self.observer, to_copy).await;
                    progress.tell().await;
                }
            }
        };
        match filled {
            Ok(()) => {}
            Err(_) if gave_way => return Err(gave_way_to_others()),
            Err(error) if by_source.load(Ordering::Relaxed) => {
                return Err(Failure::of_source(error));
            }
            Err(error) => return Err(Failure::of_target(error)),
        }
        // A label of an enum may have another name since some rows were read.
        let now = AsRead::read(&self.observer, table).await;
        if as_of_c.texts_hold(&now.map_err(Failure::of_source)?) {
            Ok(())
        } else {
            Err(altered())
        }
    }
}

/// Releases the table if a session waits for it; returns whether it did. If it cannot ask now, it
/// asks later.
async fn give_way(
    shared: &Shared,
    snapshot: &Snapshot,
    observer: &mut Connection,
    to_copy: &ToCopy,
) -> bool {
    let gives_way = async {
        if observer.is_closed() {
            *observer = shared.source_observer("observer").await?;
        }
        let waits = snapshot.anybody_waits_for_us(observer).await?;
        if waits {
            // The target may take long to take the rows: the lock must not wait for that.
            snapshot.give_way(observer).await?;
        }
        Ok::<_, Error>(waits)
    };
    match gives_way.await {
        Ok(waits) => {
            if waits {
                tracing::info!(
                    read_model = to_copy.settings.name(),
                    "gave way to a session that waits for table \"{}\"",
                    to_copy.settings.source
                );
            }
            waits
        }
        Err(error) => {
            tracing::debug!(%error, "could not look who waits for the table");
            false
        }
    }
}

/// Another copy reads it as it is then.
fn altered() -> Failure {
    Failure::LeftOut(Error::transient("it was altered while it was being copied"))
}

fn gave_way_to_others() -> Failure {
    Failure::PutOff(Error::transient("gave way to a session that waits for it"))
}

fn stopped() -> Error {
    Error::new(Class::Interrupted, "stopped while copying")
}

//! First copy and healing: a new slot, and exact copies of every read model under its snapshot.

use std::time::{Duration, Instant};

use super::Session;
use crate::batch::{MergePosition, Merged, Written};
use crate::error::{Error, Result};
use crate::lsn::{Lsn, PgTimestamp};
use crate::read_model::ModelIndex;
use crate::retry::Healings;
use crate::run::copy::{Copied, ToCopy, copy_all, in_vain, take_away};
use crate::run::lessons::Lessons;
use crate::run::waiting::{Wanted, create_slot};
use crate::run::{clock, report, unreadable};
use crate::source;
use crate::source::slot::{CreatedSlot, Kind};
use crate::target::bookkeeping::Healing;
use crate::target::shadow::ShadowWriter;

/// How long the creation of the slot may wait for open write transactions of the source before it
/// is given up and tried again.
const SLOT_PATIENCE: Duration = Duration::from_secs(60);

/// How long it may take to drop a slot.
const DROP_PATIENCE: Duration = Duration::from_secs(3);

/// Why everything is copied for the first time.
pub(super) const FIRST_COPY: &str = "first copy";

/// Whether the server itself has ended the transaction: not by the loss of the connection, or its
/// own end.
fn was_rolled_back(error: &Error) -> bool {
    let sqlstate = error.sqlstate();
    sqlstate.is_some_and(|sqlstate| !sqlstate.starts_with("08") && !sqlstate.starts_with("57P"))
}

/// The slot of the copies.
struct NewSlot {
    made: CreatedSlot,
    /// A time of the source at which nothing was flushed beyond its consistent point.
    as_of: Option<PgTimestamp>,
}

/// How far the merge of the copies is. Once it is stored the slot is the stream's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Merge {
    NotStored,
    /// The answer to its COMMIT has not come.
    MayBeStored,
    Stored,
}

impl Session<'_> {
    /// First copy or healing: a new slot and exact copies of every read model, merged in one
    /// transaction.
    pub(super) async fn copy_everything(
        &mut self,
        why: &str,
        healings: Healings,
        lessons: &mut Lessons,
    ) -> Result<Lsn> {
        let started = Instant::now();
        self.begin_healing(why, healings).await?;
        lessons.owned = Some(self.source.clone());
        let names: Vec<String> = self
            .bound
            .iter()
            .map(|bound| bound.settings.name())
            .collect();
        report::resync_started(why, &names);
        self.drop_old_slot().await?;
        let slot = self.new_slot().await?;
        let mut merge = Merge::NotStored;
        let copied = self.copy_in_session(why, &slot, &mut merge).await;
        if merge == Merge::Stored {
            // Healed, whatever happens to the notes about it.
            lessons.gap = None;
        }
        let consistent_point = slot.made.consistent_point;
        let Ok(written) = copied else {
            if merge == Merge::NotStored {
                self.drop_failed_slot().await;
            }
            return copied.map(|_| consistent_point);
        };
        report::resync_completed(why, &written, consistent_point, started.elapsed());
        if why != FIRST_COPY {
            report::healed(why, started.elapsed());
        }
        self.read_states().await?;
        if self.has_unreadable().await? {
            return Err(unreadable::withdrawn());
        }
        Ok(consistent_point)
    }

    /// Says why everything is copied, and stores that it is before a slot is dropped or made: a
    /// crash in between heals again, and never from a server on an earlier timeline than the one
    /// that is copied here.
    async fn begin_healing(&mut self, why: &str, healings: Healings) -> Result<()> {
        let name = &self.shared.settings.source.slot;
        if why == FIRST_COPY {
            tracing::info!(slot = name, "first copy of every read model");
        } else {
            tracing::warn!(
                slot = name,
                why,
                "the stream cannot continue: every read model is copied again, readers keep the old rows until then"
            );
        }
        let epoch = self.writer.epoch();
        let healing = Healing {
            why,
            publication_oid: self.publication(),
            source: &self.source,
            in_a_row: healings.that_count().in_a_row.saturating_add(1),
        };
        self.shared
            .bookkeeping
            .begin_healing(self.writer.connection(), epoch, &healing)
            .await
    }

    /// Makes the slot that the stream goes on with.
    async fn new_slot(&mut self) -> Result<NewSlot> {
        let source = &self.shared.settings.source;
        let wanted = Wanted {
            name: &source.slot,
            kind: if source.failover {
                Kind::Failover
            } else {
                Kind::Permanent
            },
            within: SLOT_PATIENCE,
            epoch: self.writer.epoch(),
            resync: None,
        };
        let making = create_slot(
            self.shared,
            &wanted,
            (&mut self.replication, &self.client),
            &self.shared.stop,
        );
        let (made, mut as_of) = clock::beside(&self.client, making).await;
        let made = made?;
        Ok(NewSlot {
            as_of: as_of.at(made.consistent_point),
            made,
        })
    }

    /// The old slot is useless now, and holds WAL.
    pub(super) async fn drop_old_slot(&mut self) -> Result<()> {
        let name = &self.shared.settings.source.slot;
        if source::facts::slot(&self.client, name).await?.is_some() {
            source::slot::drop(&mut self.replication, name).await?;
            tracing::debug!(slot = name, "dropped the old slot");
        }
        Ok(())
    }

    /// The slot of a failed copy is useless, since its snapshot is lost. It would hold the source's
    /// WAL until the next try begins, which may be long if the target is down.
    async fn drop_failed_slot(&mut self) {
        let dropped = tokio::time::timeout(DROP_PATIENCE, self.drop_old_slot()).await;
        let error = match dropped {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(_) => Error::transient("the source has not answered"),
        };
        tracing::warn!(%error, "the slot of the failed copy stays until the next try");
    }

    /// [`Self::copy_and_merge`], in a target session for the copies. If it fails, nothing of them
    /// is left.
    async fn copy_in_session(
        &mut self,
        why: &str,
        slot: &NewSlot,
        merge: &mut Merge,
    ) -> Result<Vec<(String, Written)>> {
        let mut shadow = ShadowWriter::new(self.shared.target_session("copy").await?);
        let session = self.shared.bookkeeping.backend(shadow.connection()).await?;
        let copied = self.copy_and_merge(why, slot, &mut shadow, merge).await;
        drop(shadow);
        if copied.is_err() {
            take_away(self.shared, self.writer.epoch(), &session).await;
        }
        copied
    }

    /// Copies every read model under the slot's snapshot and merges the copies; tells what was
    /// written.
    async fn copy_and_merge(
        &mut self,
        why: &str,
        slot: &NewSlot,
        shadow: &mut ShadowWriter,
        merge: &mut Merge,
    ) -> Result<Vec<(String, Written)>> {
        let bookkeeping = &self.shared.bookkeeping;
        let consistent_point = slot.made.consistent_point;
        let to_copy = ModelIndex::number(&self.bound).filter_map(|(index, bound)| {
            let model = bound.model.as_ref().ok()?.clone();
            Some(ToCopy {
                index,
                settings: bound.settings.clone(),
                model,
            })
        });
        let copied = copy_all(
            self.shared,
            &slot.made.snapshot_name,
            to_copy.collect(),
            shadow,
            &self.shared.stop,
        )
        .await?;
        if let Some(error) = in_vain(&copied) {
            return Err(error);
        }
        let indexes = self.take_copied(&copied).await?;
        let position = MergePosition::Start {
            lsn: consistent_point,
            source: self.source.clone(),
            as_of: slot.as_of,
        };
        tracing::debug!(lsn = %consistent_point, "merging the copies");
        // If the answer to its COMMIT is lost it may be stored all the same.
        *merge = Merge::MayBeStored;
        let merged = self.writer.merge(&indexes, &position, 0).await;
        let merged = merged.inspect_err(|error| {
            if was_rolled_back(error) {
                *merge = Merge::NotStored;
            }
        })?;
        *merge = Merge::Stored;
        tracing::debug!(lsn = %consistent_point, "merged the copies");
        let written = self.written(merged);
        let all = written.len() == copied.len();
        self.note_copy(why, consistent_point, &written, all).await?;
        // A shadow that cannot be emptied now is emptied later: the copies are merged.
        let _ = shadow.give_back(bookkeeping).await;
        Ok(written)
    }

    /// The writer takes the read models that were copied; the others are suspended.
    async fn take_copied(&mut self, copied: &[Copied]) -> Result<Vec<ModelIndex>> {
        let bookkeeping = &self.shared.bookkeeping;
        let epoch = self.writer.epoch();
        let mut indexes = Vec::new();
        for (to_copy, result) in copied {
            match result {
                Ok(_) => {
                    self.writer.set_model(to_copy.index, to_copy.model.clone());
                    indexes.push(to_copy.index);
                }
                Err(error) => {
                    report::resync_failed(&to_copy.settings.name(), error);
                    bookkeeping
                        .suspend(self.writer.connection(), epoch, to_copy.model.id, error)
                        .await?;
                    if unreadable::is_of_a_value(error) {
                        bookkeeping
                            .note_unreadable(self.writer.connection(), epoch, to_copy.model.id)
                            .await?;
                    }
                }
            }
        }
        Ok(indexes)
    }

    /// What was written, by name.
    fn written(&self, merged: Vec<Merged>) -> Vec<(String, Written)> {
        let mut written = Vec::new();
        for Merged { index, result } in merged {
            let Some(bound) = index.of(&self.bound) else {
                continue;
            };
            match result {
                Ok(rows) => written.push((bound.settings.name(), rows)),
                Err(error) => report::resync_failed(&bound.settings.name(), &error),
            }
        }
        written
    }

    /// Notes what the copy has done; with `all`, resyncs that were requested in the meantime count
    /// as done.
    async fn note_copy(
        &mut self,
        why: &str,
        lsn: Lsn,
        written: &[(String, Written)],
        all: bool,
    ) -> Result<()> {
        let bookkeeping = &self.shared.bookkeeping;
        let epoch = self.writer.epoch();
        let conn = self.writer.connection();
        let origin = if why == FIRST_COPY {
            FIRST_COPY
        } else {
            "heal"
        };
        let result = report::result(written);
        bookkeeping
            .note_copy(conn, epoch, origin, lsn, &result)
            .await?;
        if all {
            bookkeeping
                .finish_requests(conn, epoch, lsn, &result)
                .await?;
        }
        Ok(())
    }

    /// Whether a table has to leave the publication before the stream begins.
    async fn has_unreadable(&mut self) -> Result<bool> {
        let unreadable = self
            .shared
            .bookkeeping
            .unreadable(self.writer.connection())
            .await?;
        let mut published = self.bound.iter().filter(|bound| bound.model.is_ok());
        Ok(published.any(|bound| unreadable.contains(&bound.id)))
    }

    /// Which read models take part, as stored after the merge.
    async fn read_states(&mut self) -> Result<()> {
        let stored = self
            .shared
            .bookkeeping
            .models(self.writer.connection())
            .await?;
        for bound in &mut self.bound {
            if let Some(stored) = stored.iter().find(|stored| stored.id == bound.id) {
                bound.state = stored.state;
            }
        }
        Ok(())
    }
}

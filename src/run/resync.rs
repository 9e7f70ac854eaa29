//! Resync: an exact copy beside the running stream, compared with the lookups at one position.
//!
//! ```text
//! copy      slot C --- rows as of C ---> shadow --- own stream from C --> near ---> P
//! stream    --------------------------------------------------------> paused at P --> on
//! ```
//!
//! The temporary slot exports a snapshot that holds exactly the commits before C. The shadow is
//! filled from it and catches up by the slot's own stream. Once it is near, the running stream
//! pauses at its position P. Then the shadow is brought to P: every commit before P, none at or
//! after it. A pause *at* C is impossible: when the slot is created, the stream has often passed C
//! already. What happens at P is in `settle.rs`.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::batch::Written;
use crate::error::{Class, Error, Result};
use crate::lsn::Lsn;
use crate::read_model::ModelId;
use crate::run::bind::{Binder, When};
use crate::run::budget::within;
use crate::run::catch_up::{CatchUp, stream_gone};
use crate::run::copy::{Copied, FailedCopy, ToCopy, copy_all, take_away};
use crate::run::messages::Command;
use crate::run::shared::Shared;
use crate::run::waiting::{Wanted, create_slot};
use crate::run::{publish, unreadable};
use crate::settings::ReadModelSettings;
use crate::source::slot::Kind;
use crate::target::bookkeeping::ModelState;
use crate::target::difference::Difference;
use crate::target::model::TargetModel;
use crate::target::shadow::ShadowWriter;

mod order;
mod settle;

pub(crate) use order::{Order, Ordered, Outcome};
use settle::Copies;

/// How long the creation of the temporary slot may wait for open write transactions of the source.
const SLOT_PATIENCE: Duration = Duration::from_secs(30);

/// Carries the order out. Nothing of it stays behind, whether it succeeds or not.
pub(crate) async fn resync(
    shared: &Shared,
    order: &Order,
    commands: &mpsc::Sender<Command>,
    stop: &CancellationToken,
) -> Result<Outcome> {
    let conn = shared.target_session("resync").await?;
    let mut shadow = ShadowWriter::new(conn);
    let session = shared.bookkeeping.backend(shadow.connection()).await?;
    let mut copying = Copying {
        shared,
        order,
        commands,
        stop,
        failed: Vec::new(),
    };
    // Not dropped half way at a stop: the creation of a slot is given up by itself, everything else
    // ends soon after.
    let result = copying.carry_out(&mut shadow).await;
    if result.is_err() {
        // The session may be in the middle of a statement.
        drop(shadow);
        take_away(shared, order.epoch, &session).await;
        return result;
    }
    // A shadow that a lost session cannot empty is emptied later.
    if shadow.give_back(&shared.bookkeeping).await.is_err() {
        return result;
    }
    for Ordered { id, .. } in &order.models {
        let ended =
            shared
                .bookkeeping
                .set_copy_progress(shadow.connection(), order.epoch, *id, None);
        let _ = ended.await;
    }
    tracing::debug!("nothing of the copies is left");
    result
}

struct Copying<'a> {
    shared: &'a Shared,
    order: &'a Order,
    commands: &'a mpsc::Sender<Command>,
    stop: &'a CancellationToken,
    failed: Vec<FailedCopy>,
}

impl Copying<'_> {
    async fn carry_out(&mut self, shadow: &mut ShadowWriter) -> Result<Outcome> {
        let source = &self.shared.settings.source;
        let stop = self.stop.clone();
        let client = self.shared.source_observer("resync").await?;
        let to_copy = self.bind(&client, shadow).await?;
        let to_copy = self.published(&client, shadow, to_copy).await?;
        if to_copy.is_empty() {
            return Ok(self.outcome(Lsn::ZERO, Vec::new(), Vec::new()));
        }
        let mut replication = self.shared.replication_session("resync").await?;
        let feedback = replication.sender_timeout().await? / 3;
        let name = temporary_name(&source.slot);
        // Not to be dropped half way: it gives itself up when the session ends.
        let wanted = Wanted {
            name: &name,
            kind: Kind::Temporary,
            within: SLOT_PATIENCE,
            epoch: self.order.epoch,
            resync: self.order.number,
        };
        let slot =
            create_slot(self.shared, &wanted, (&mut replication, &client), self.stop).await?;
        let copied = copy_all(self.shared, &slot.snapshot_name, to_copy, shadow, self.stop);
        let copied = or_stopped(&stop, within(self.shared, &name, copied)).await?;
        let ready = self.ready(copied)?;
        if ready.is_empty() {
            return Ok(self.outcome(slot.consistent_point, Vec::new(), Vec::new()));
        }
        tracing::debug!(slot = name, lsn = %slot.consistent_point, "the copies catch up with the source");
        replication
            .start(&name, slot.consistent_point, &source.publication)
            .await?;
        let catch_up = CatchUp::new(replication, slot.consistent_point, &ready, feedback);
        let mut copies = Copies {
            client: &client,
            slot: &name,
            catch_up,
            shadow,
            ready: &ready,
        };
        let settled = async {
            if self.order.dry_run {
                self.compare_only(&mut copies).await
            } else {
                self.settle(&mut copies).await
            }
        };
        // On the heap: the future would be part of the sizes of all around it.
        or_stopped(&stop, Box::pin(settled)).await
    }

    /// The copies to go on with; the others are noted.
    ///
    /// # Errors
    /// If one may succeed later, and somebody waits for all: that is done as a whole, then.
    fn ready(&mut self, copied: Vec<Copied>) -> Result<Vec<ToCopy>> {
        let mut ready = Vec::new();
        for (to_copy, result) in copied {
            match result {
                Ok(()) => ready.push(to_copy),
                Err(error) if error.is_transient() && self.order.number.is_some() => {
                    return Err(error);
                }
                Err(error) => self.failed.push(to_copy.failed(error)),
            }
        }
        Ok(ready)
    }

    /// Binds the read models as they are now; one that cannot be bound is left out.
    async fn bind(
        &mut self,
        client: &tokio_postgres::Client,
        shadow: &mut ShadowWriter,
    ) -> Result<Vec<ToCopy>> {
        let mut to_copy = Vec::new();
        let epoch = self.order.epoch;
        let bookkeeping = &self.shared.bookkeeping;
        let with_such_values = bookkeeping.unreadable(shadow.connection()).await?;
        let binder = Binder::new(&self.shared.settings, client, bookkeeping, epoch).await?;
        let asked: Vec<ReadModelSettings> = self
            .order
            .models
            .iter()
            .map(|ordered| ordered.settings.clone())
            .collect();
        let seen = binder.look(&asked, shadow.connection()).await?;
        for (ordered, seen) in self.order.models.iter().zip(seen) {
            let Ordered {
                index,
                id,
                settings,
            } = ordered;
            let bound = binder
                .bind(settings, seen, shadow.connection(), When::BesideStream)
                .await;
            let bound = match bound {
                Ok(model) if with_such_values.contains(id) => self
                    .read_through(client, shadow, &model)
                    .await?
                    .map(|()| model),
                bound => bound,
            };
            match bound {
                Ok(model) => to_copy.push(ToCopy {
                    index: *index,
                    settings: settings.clone(),
                    model,
                }),
                Err(error) if matches!(error.class(), Class::Broken | Class::Configuration) => {
                    self.refuse(shadow, *id, &error).await?;
                    self.failed.push(FailedCopy {
                        id: *id,
                        name: settings.name(),
                        error,
                    });
                }
                Err(error) if error.class() == Class::Gap => {
                    // A new map may only be created when nothing of the read model is in memory.
                    return Err(self.end_session(error.with_class(Class::Transient)).await?);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(to_copy)
    }

    /// Whether the source can read out by now what it could not; the inner result says why not.
    async fn read_through(
        &self,
        client: &tokio_postgres::Client,
        shadow: &mut ShadowWriter,
        model: &TargetModel,
    ) -> Result<Result<()>> {
        let read = unreadable::read_through(client, model).await;
        if read.is_ok() && !self.order.dry_run {
            self.shared
                .bookkeeping
                .note_readable(shadow.connection(), self.order.epoch, model.id)
                .await?;
        }
        Ok(read)
    }

    /// Leaves out the read models that the publication does not serve.
    async fn published(
        &mut self,
        client: &tokio_postgres::Client,
        shadow: &mut ShadowWriter,
        to_copy: Vec<ToCopy>,
    ) -> Result<Vec<ToCopy>> {
        let asked = to_copy
            .iter()
            .map(|to_copy| to_copy.settings.clone())
            .collect();
        let lacking = publish::lacking(
            self.shared,
            client,
            shadow.connection(),
            asked,
            self.order.dry_run,
        )
        .await?;
        let Some(lacking) = lacking else {
            let extended = Error::transient("the publication was extended");
            return Err(self.end_session(extended).await?);
        };
        let mut served = Vec::with_capacity(to_copy.len());
        for (place, to_copy) in to_copy.into_iter().enumerate() {
            match lacking.iter().find(|(of, _)| *of == place) {
                None => served.push(to_copy),
                Some((_, error)) => {
                    self.failed.push(to_copy.failed(error.clone()));
                }
            }
        }
        Ok(served)
    }

    /// Ends the session, and this resync with it; returns why.
    async fn end_session(&self, why: Error) -> Result<Error> {
        let end = Command::End {
            error: why.clone(),
            abandon: false,
        };
        self.commands.send(end).await.map_err(|_| stream_gone())?;
        Ok(why)
    }

    /// A read model in step that cannot be bound any more is not in step: the session begins again,
    /// and suspends it.
    async fn refuse(&self, shadow: &mut ShadowWriter, id: ModelId, why: &Error) -> Result<()> {
        let stored = self.shared.bookkeeping.models(shadow.connection()).await?;
        let stored = stored.into_iter().find(|model| model.id == id);
        let Some(model) =
            stored.filter(|model| model.state == ModelState::InStep && !self.order.dry_run)
        else {
            return Ok(());
        };
        let error = Error::transient(format!(
            "read model \"{}\" cannot continue: {why}",
            model.name
        ));
        Err(self.end_session(error).await?)
    }

    fn outcome(
        &mut self,
        lsn: Lsn,
        written: Vec<(String, Written)>,
        found: Vec<(String, Difference)>,
    ) -> Outcome {
        Outcome {
            lsn,
            written,
            found,
            failed: std::mem::take(&mut self.failed),
        }
    }
}

/// Ends early when the session does.
async fn or_stopped<T>(
    stop: &CancellationToken,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::select! {
        biased;
        () = stop.cancelled() => Err(Error::new(Class::Interrupted, "stopped during a resync")),
        result = work => result,
    }
}

/// A slot name of its own for each copy, at most 63 bytes.
fn temporary_name(slot: &str) -> String {
    let stem: String = slot.chars().take(40).collect();
    format!("{stem}_copy_{:08x}", fastrand::u32(..))
}

//! The pause: the stream stands still at one position until a copy is merged there, or a snapshot to compare it with is taken.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Command, InFlight, StoreNext, Stream};
use crate::batch::MergePosition;
use crate::error::{Error, Result};
use crate::lsn::Lsn;
use crate::read_model::ReadModel;
use crate::run::applier::Job;

/// The stream comes to stand (`reply` is there) or stands still (`reply` was sent).
///
/// What is received meanwhile waits. Read models that join take part in it already: every transaction from the position on is
/// theirs too. If they do not join after all, their part of it is forgotten.
pub(super) struct Pause {
    pub(super) at_least: Lsn,
    pub(super) reply: Option<oneshot::Sender<Lsn>>,
    resume: oneshot::Receiver<()>,
    models: Vec<(usize, Arc<ReadModel>)>,
    pub(super) joining: Vec<usize>,
}

impl Stream {
    pub(super) async fn command(&mut self, command: Command) -> Result<()> {
        match command {
            Command::Pause {
                at_least,
                models,
                reply,
                resume,
            } => {
                self.end_pause();
                self.pause = Some(Pause {
                    at_least,
                    reply: Some(reply),
                    resume,
                    models,
                    joining: Vec::new(),
                });
                // An idle stream passes the position with a keepalive: ask for one.
                self.send_status(true).await
            }
            Command::Clock(reading, waited_for) => {
                self.as_of.read(reading);
                self.standby.read(waited_for, reading.flushed);
                Ok(())
            }
            Command::Hurry => {
                self.store_next.get_or_insert(StoreNext::Waited);
                self.send_status(true).await
            }
            Command::End { error, abandon } => {
                self.abandon = abandon;
                Err(error)
            }
            Command::Merge {
                models,
                request,
                reply,
            } => {
                let lsn = self.progress.applied();
                if self.in_flight.is_some() || !self.stands_still() {
                    let _ = reply.send(Err(Error::transient("the stream does not stand still")));
                    return Ok(());
                }
                let job = Job::Merge {
                    models,
                    position: MergePosition::Running(lsn, request),
                };
                self.in_flight = Some(InFlight {
                    merge: Some(reply),
                    ..InFlight::new(lsn)
                });
                self.applier.submit(job).await
            }
        }
    }

    /// Tells the position once the stream stands at or behind what was asked for, with nothing in hand.
    pub(super) async fn grant_pause(&mut self) -> Result<()> {
        let Some(at_least) = self
            .pause
            .as_ref()
            .filter(|pause| pause.reply.is_some())
            .map(|pause| pause.at_least)
        else {
            return Ok(());
        };
        if self.in_flight.is_some() || !self.pending.is_empty() || self.assembler.is_open() {
            return Ok(());
        }
        let position = self.progress.applied();
        if position < at_least {
            // An idle stream passes the position without a transaction; it is stored like any other idle position.
            return self.store_idle(false).await;
        }
        let Some(pause) = &mut self.pause else {
            return Ok(());
        };
        for (index, model) in std::mem::take(&mut pause.models) {
            if !self.assembler.is_active(index) {
                self.assembler.activate(index, model);
                pause.joining.push(index);
            }
        }
        let asked = pause.reply.take();
        if asked.is_some_and(|reply| reply.send(position).is_err()) {
            self.end_pause();
        }
        Ok(())
    }

    /// The stream goes on. Read models that have not joined leave again, with what waits for them.
    pub(super) fn end_pause(&mut self) {
        for index in self.pause.take().map(|pause| pause.joining).unwrap_or_default() {
            self.assembler.deactivate(index);
            self.pending.forget(index);
        }
    }

    /// Whether a merge is under way.
    pub(super) fn merging(&self) -> bool {
        self.in_flight.as_ref().is_some_and(|job| job.merge.is_some())
    }

    /// Whether the stream stands still for a merge.
    pub(super) fn stands_still(&self) -> bool {
        self.pause.as_ref().is_some_and(|pause| pause.reply.is_none())
    }
}

/// Waits until the pause's owner lets go.
pub(super) async fn resumed(pause: &mut Option<Pause>) {
    match pause {
        Some(pause) => {
            let _ = (&mut pause.resume).await;
        }
        None => std::future::pending().await,
    }
}

//! Resync: an exact copy beside the running stream, compared and merged at one position.
//!
//! ```text
//! copy      slot C --- rows as of C ---> shadow --- own stream from C ---> near --------> P
//! stream    ------------------------------------------------------------> stands at P --> merge --> goes on
//! ```
//!
//! The temporary slot exports a snapshot that holds exactly the commits before C. The shadow is filled from it, catches up by the
//! slot's own stream, and once it is near the running stream stands still at its position P. Then the shadow is brought to
//! P: every commit before P, none at or after it. What differs is written in one transaction with the checkpoint P. A
//! pause *at* C cannot be had: when the slot is made the stream has often passed C already.

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use crate::error::{Class, Error, Result};
use crate::lsn::Lsn;
use crate::protocol::frame::StreamFrame;
use crate::protocol::pgoutput;
use crate::run::Shared;
use crate::run::bind::bind_one;
use crate::run::copy::{ToCopy, copy_all};
use crate::run::pending::Pending;
use crate::run::stream::Command;
use crate::settings::ReadModelSettings;
use crate::source;
use crate::source::replication::Replication;
use crate::target;
use crate::target::shadow::{Difference, ShadowWriter};
use crate::target::writer::Written;
use crate::transaction::Assembler;

/// How long the making of the temporary slot may wait for open write transactions of the source.
const SLOT_PATIENCE: Duration = Duration::from_secs(30);

/// Bytes of folded changes after which the shadow is brought forward.
const MOST_PENDING_BYTES: usize = 16 << 20;

/// The shadow is near once it is this close to the end of the source's WAL: the pause lasts no longer than that takes.
const NEAR_BYTES: u64 = 1 << 20;

/// How often the copy's connection gets feedback while it catches up.
const FEEDBACK: Duration = Duration::from_secs(5);

/// A resync to be done.
#[derive(Debug, Clone)]
pub struct Order {
    /// Read models by index, with their number in the bookkeeping.
    pub models: Vec<(usize, ReadModelSettings, i32)>,
    /// Compare only.
    pub dry_run: bool,
    /// Keys of each kind of difference that a dry run names.
    pub keys: u32,
}

/// What it did.
#[derive(Debug)]
pub struct Outcome {
    /// Position at which lookups and source were compared.
    pub lsn: Lsn,
    /// Rows written, by read model; empty for a dry run.
    pub written: Vec<(String, Written)>,
    /// Differences, by read model; only for a dry run.
    pub found: Vec<(String, Difference)>,
    /// Read models that could not be copied, by number.
    pub failed: Vec<(i32, String, Error)>,
}

/// Carries the order out. Nothing of it stays behind, whether it succeeds or not.
pub async fn resync(shared: &Shared, order: &Order, commands: &mpsc::Sender<Command>) -> Result<Outcome> {
    let conninfo = &shared.settings.target.conninfo;
    let conn = target::connect::connect(conninfo, &shared.application_name("resync"), true).await?;
    let mut shadow = ShadowWriter::new(conn);
    let mut copying = Copying {
        shared,
        order,
        commands,
        failed: Vec::new(),
    };
    let result = tokio::select! {
        biased;
        () = shared.stop.cancelled() => Err(Error::new(Class::Interrupted, "stopped during a resync")),
        result = copying.carry_out(&mut shadow) => result,
    };
    for (_, _, id) in &order.models {
        // A session that is gone cannot drop them: the next start does.
        if shadow.drop(shared.bookkeeping.schema_name(), *id).await.is_err() {
            break;
        }
    }
    result
}

struct Copying<'a> {
    shared: &'a Shared,
    order: &'a Order,
    commands: &'a mpsc::Sender<Command>,
    failed: Vec<(i32, String, Error)>,
}

impl Copying<'_> {
    async fn carry_out(&mut self, shadow: &mut ShadowWriter) -> Result<Outcome> {
        let source = &self.shared.settings.source;
        let client =
            source::connect::client(&source.conninfo, &self.shared.application_name("resync")).await?;
        let to_copy = self.bind(&client, shadow).await?;
        if to_copy.is_empty() {
            return Ok(self.outcome(Lsn::ZERO, Vec::new(), Vec::new()));
        }
        let mut replication =
            Replication::connect(&source.conninfo, &self.shared.application_name("resync")).await?;
        let name = temporary_name(&source.slot);
        let slot = source::slot::create_within(
            &mut replication,
            &client,
            &name,
            true,
            SLOT_PATIENCE,
            &self.shared.stop,
        )
        .await?;
        let copied = copy_all(self.shared, &slot.snapshot_name, to_copy, shadow).await?;
        let mut ready = Vec::new();
        for (to_copy, result) in copied {
            match result {
                Ok(_) => ready.push(to_copy),
                Err(error) => {
                    self.failed
                        .push((to_copy.model.id, to_copy.settings.name(), error));
                }
            }
        }
        if ready.is_empty() {
            return Ok(self.outcome(slot.consistent_point, Vec::new(), Vec::new()));
        }
        replication
            .start(&name, slot.consistent_point, &source.publication)
            .await?;
        let mut catch_up = CatchUp::new(replication, slot.consistent_point, &ready);
        let end = source::facts::current_wal(&client).await?;
        catch_up.until_near(end, shadow, &ready).await?;
        self.compare_at_one_position(catch_up, shadow, &ready).await
    }

    /// Binds the read models as they are now; one that cannot be bound is left out.
    async fn bind(
        &mut self,
        client: &tokio_postgres::Client,
        shadow: &mut ShadowWriter,
    ) -> Result<Vec<ToCopy>> {
        let mut to_copy = Vec::new();
        for (index, settings, id) in &self.order.models {
            let bound = bind_one(
                settings,
                *id,
                client,
                shadow.connection(),
                &self.shared.bookkeeping,
            )
            .await;
            match bound {
                Ok(model) => to_copy.push(ToCopy {
                    index: *index,
                    settings: settings.clone(),
                    model,
                }),
                Err(error) if matches!(error.class(), Class::Broken | Class::Configuration) => {
                    self.failed.push((*id, settings.name(), error));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(to_copy)
    }

    async fn compare_at_one_position(
        &mut self,
        mut catch_up: CatchUp,
        shadow: &mut ShadowWriter,
        ready: &[ToCopy],
    ) -> Result<Outcome> {
        let (reply, position) = oneshot::channel();
        // Dropped at the end of this function, on every path: then the stream goes on.
        let (_resume, resumed) = oneshot::channel();
        // Not before what the shadow already holds: it must not know a commit that the lookups do not.
        let pause = Command::Pause {
            at_least: catch_up.received,
            reply,
            resume: resumed,
        };
        self.commands.send(pause).await.map_err(|_| stream_gone())?;
        let position = catch_up.while_waiting(position).await?;
        catch_up.until(position, shadow, ready).await?;
        if self.order.dry_run {
            let mut found = Vec::new();
            for to_copy in ready {
                found.push((
                    to_copy.settings.name(),
                    shadow.compare(&to_copy.model, self.order.keys).await?,
                ));
            }
            return Ok(self.outcome(position, Vec::new(), found));
        }
        let models = ready
            .iter()
            .map(|to_copy| (to_copy.index, to_copy.model.clone()))
            .collect();
        let (reply, merged) = oneshot::channel();
        self.commands
            .send(Command::Merge { models, reply })
            .await
            .map_err(|_| stream_gone())?;
        let merged = merged.await.map_err(|_| stream_gone())??;
        let mut written = Vec::new();
        for (index, merged) in merged {
            let Some(to_copy) = ready.iter().find(|to_copy| to_copy.index == index) else {
                continue;
            };
            match merged {
                Ok(rows) => written.push((to_copy.settings.name(), rows)),
                Err(error) => self
                    .failed
                    .push((to_copy.model.id, to_copy.settings.name(), error)),
            }
        }
        Ok(self.outcome(position, written, Vec::new()))
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

/// The slot's own stream, folded into the shadow.
struct CatchUp {
    replication: Replication,
    consistent_point: Lsn,
    assembler: Assembler,
    pending: Pending,
    /// Every commit before this was received.
    received: Lsn,
    /// The stream has reached the position that is asked for; the transaction at or after it is not taken in.
    reached: bool,
    fed_back: Instant,
}

impl CatchUp {
    fn new(replication: Replication, consistent_point: Lsn, ready: &[ToCopy]) -> Self {
        let mut assembler = Assembler::new();
        for to_copy in ready {
            assembler.add(Some(to_copy.model.model.clone()));
        }
        Self {
            replication,
            consistent_point,
            assembler,
            pending: Pending::default(),
            received: consistent_point,
            reached: false,
            fed_back: Instant::now(),
        }
    }

    /// Until the shadow is close to `end`.
    async fn until_near(&mut self, end: Lsn, shadow: &mut ShadowWriter, ready: &[ToCopy]) -> Result<()> {
        self.replication
            .send_status(self.received, self.consistent_point, self.consistent_point, true)
            .await?;
        while end.bytes_since(self.received) > NEAR_BYTES {
            self.read(None).await?;
            if self.pending.bytes() >= MOST_PENDING_BYTES {
                self.write(shadow, ready).await?;
            }
        }
        self.write(shadow, ready).await
    }

    /// Keeps the connection alive while the running stream comes to stand.
    async fn while_waiting(&mut self, mut position: oneshot::Receiver<Lsn>) -> Result<Lsn> {
        loop {
            tokio::select! {
                position = &mut position => return position.map_err(|_| stream_gone()),
                () = tokio::time::sleep(FEEDBACK) => {
                    self.replication.send_status(self.received, self.consistent_point, self.consistent_point, false).await?;
                }
            }
        }
    }

    /// Brings the shadow to `position`: every commit before it, none at or after it.
    async fn until(&mut self, position: Lsn, shadow: &mut ShadowWriter, ready: &[ToCopy]) -> Result<()> {
        // What is buffered may hold the position already; an idle stream passes it with the keepalive asked for here.
        self.replication
            .send_status(self.received, self.consistent_point, self.consistent_point, true)
            .await?;
        while !self.reached && self.received < position {
            self.read(Some(position)).await?;
            if self.pending.bytes() >= MOST_PENDING_BYTES {
                self.write(shadow, ready).await?;
            }
        }
        self.write(shadow, ready).await
    }

    /// Takes in what is buffered, or waits for more. Stops before the first commit at or after `stop_at`.
    async fn read(&mut self, stop_at: Option<Lsn>) -> Result<()> {
        let mut any = false;
        while let Some(frame) = self.replication.next_frame()? {
            any = true;
            match frame {
                StreamFrame::WalData { payload, .. } => {
                    let message = pgoutput::decode(payload)?;
                    if let Some(transaction) = self.assembler.take(&message)? {
                        if stop_at.is_some_and(|stop_at| transaction.id.commit_lsn >= stop_at) {
                            self.reached = true;
                            return Ok(());
                        }
                        self.received = self.received.max(transaction.end_lsn);
                        if transaction.id.commit_lsn >= self.consistent_point {
                            self.pending.add(transaction);
                        }
                        if stop_at.is_some_and(|stop_at| self.received >= stop_at)
                            || self.pending.bytes() >= MOST_PENDING_BYTES
                        {
                            return Ok(());
                        }
                    }
                }
                StreamFrame::Keepalive { wal_end, .. } => {
                    if !self.assembler.is_open() {
                        self.received = self.received.max(wal_end);
                    }
                }
                StreamFrame::CopyDone => return Err(Error::transient("the source ended the copy's stream")),
            }
        }
        if self.fed_back.elapsed() >= FEEDBACK {
            self.fed_back = Instant::now();
            self.replication
                .send_status(self.received, self.consistent_point, self.consistent_point, true)
                .await?;
        }
        if any {
            return Ok(());
        }
        match tokio::time::timeout(FEEDBACK, self.replication.fill()).await {
            Ok(read) => read,
            // Nothing came: ask where the stream stands.
            Err(_) => {
                self.replication
                    .send_status(self.received, self.consistent_point, self.consistent_point, true)
                    .await
            }
        }
    }

    /// Writes what was taken in into the shadows.
    async fn write(&mut self, shadow: &mut ShadowWriter, ready: &[ToCopy]) -> Result<()> {
        let (folds, broken) = self.pending.take_folds();
        if let Some((_, error)) = broken.into_iter().next() {
            return Err(error
                .with_class(Class::Transient)
                .context("the table was altered during the copy"));
        }
        let folds: Vec<_> = folds
            .into_iter()
            .filter_map(|(at, fold)| Some((&ready.get(at)?.model, fold)))
            .collect();
        if folds.is_empty() {
            Ok(())
        } else {
            shadow.catch_up(folds).await
        }
    }
}

fn stream_gone() -> Error {
    Error::transient("the stream ended during the resync")
}

/// A slot name of its own for each copy, at most 63 bytes.
fn temporary_name(slot: &str) -> String {
    let stem: String = slot.chars().take(40).collect();
    format!("{stem}_copy_{:08x}", fastrand::u32(..))
}

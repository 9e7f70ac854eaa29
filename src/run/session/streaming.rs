//! The stream itself, and the tasks beside it: resyncs, the watch over the catalogs, the source's
//! clock, and the pulse.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};

use super::Session;
use super::leave::leave;
use crate::conninfo::Host;
use crate::consume::consumer::Consumer;
use crate::consume::passed::Passed;
use crate::consume::start::Start;
use crate::error::{Class, Error, Result};
use crate::lsn::Lsn;
use crate::read_model::ModelIndex;
use crate::run::applier::Applier;
use crate::run::keeper::Keeper;
use crate::run::lessons::Lessons;
use crate::run::messages::Beside;
use crate::run::resync::Ordered;
use crate::run::shared::Shared;
use crate::run::stream::{Ends, Left, Stream};
use crate::run::watch::{Watch, answer};
use crate::run::{clock, pulse};
use crate::source;
use crate::target::bookkeeping::{Claim, Pulse};

/// How long a resync may take to end with the session: a slot that is being created is given up,
/// shadows are removed.
const KEEPER_PATIENCE: Duration = Duration::from_secs(5);

/// Where replication has started.
struct Started {
    checkpoint: Lsn,
    /// The slot's own position.
    start: Lsn,
    /// wal_sender_timeout of the connection; zero is off.
    sender_timeout: Duration,
}

/// Whether the keeper has ended before the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keeping {
    Runs,
    Ended,
}

/// Drives the stream until it ends, and beside it the keeper and all that goes on without end.
async fn until_it_ends<T>(
    stream: impl Future<Output = T>,
    keeper: &mut Pin<&mut impl Future<Output = ()>>,
    beside: impl Future<Output = Infallible>,
) -> (T, Keeping) {
    let (mut stream, mut beside) = (pin!(stream), pin!(beside));
    let mut keeping = Keeping::Runs;
    loop {
        // All in one task: the stream is polled first.
        tokio::select! {
            biased;
            end = &mut stream => return (end, keeping),
            () = &mut *keeper, if keeping == Keeping::Runs => keeping = Keeping::Ended,
            never = &mut beside => match never {},
        }
    }
}

/// Leaves, and learns from how the stream has ended.
async fn conclude(
    shared: &Shared,
    left: Left,
    epoch: i64,
    result: Result<()>,
    lessons: &mut Lessons,
) -> Result<()> {
    lessons.stalled = if left.stalled { lessons.stalled + 1 } else { 0 };
    let unsendable = left.unsendable;
    let failed = leave(shared, left, epoch, &result, lessons).await;
    let result = match unsendable {
        Some(position) => result.map_err(|error| lessons.stick(position, error)),
        None => result,
    };
    result.inspect_err(|error| lessons.learn(error, failed))
}

impl Session<'_> {
    /// Streams from the checkpoint until the session shall end, or an error ends it.
    pub(super) async fn stream(
        mut self,
        claim: &Claim,
        checkpoint: Lsn,
        lessons: &mut Lessons,
    ) -> Result<()> {
        let started = self.start_replication(checkpoint).await?;
        lessons.has_streamed();
        let shared = Arc::clone(self.shared);
        let (settings, epoch) = (&shared.settings, self.writer.epoch());
        if !settings.target.synchronous_commit {
            self.writer.commit_asynchronously().await?;
        }
        let passed = Arc::new(Passed::new(self.bound.len()));
        let consumer = Consumer::new(self.begin(claim, &started, lessons, &passed));
        let (commands, mut inbox) = mpsc::channel(4);
        let (questions, asked) = mpsc::channel(1);
        let (beats, pulse) = watch::channel(Pulse::default());
        let let_go = Arc::new(Notify::new());
        let ended = shared.end.child_token();
        let beside = Beside {
            shared: Arc::clone(&shared),
            epoch,
            commands: commands.clone(),
            pulse,
        };
        let keeper = Keeper::new(beside.clone(), self.ordered(), ended.clone())?;
        let watch = self.watch(beside, passed);
        let client = self.client;
        let ends = Ends {
            replication: self.replication,
            applier: Applier::start(self.writer),
            questions,
            let_go: Arc::clone(&let_go),
            pace: !settings.source.conninfo.hosts.iter().any(Host::is_unix),
        };
        let mut keeper = pin!(keeper.run());
        let beside = async {
            let ((), never, (), ()) = tokio::join!(
                watch.run(&client),
                clock::tell(&client, settings, commands, &let_go),
                answer(&client, &settings.source.publication, asked),
                pulse::run(&shared, epoch, beats),
            );
            never
        };
        let stream = Stream::new(consumer, ends).run(&mut inbox, &shared.end);
        let ((left, result), keeping) = until_it_ends(stream, &mut keeper, beside).await;
        // The keeper's messages have no receiver any more; it gets a moment to remove its shadows.
        drop(inbox);
        ended.cancel();
        clock::let_go(&client, settings).await;
        if keeping == Keeping::Runs {
            let _ = tokio::time::timeout(KEEPER_PATIENCE, keeper).await;
        }
        conclude(&shared, left, epoch, result, lessons).await
    }

    async fn start_replication(&mut self, checkpoint: Lsn) -> Result<Started> {
        let source = &self.shared.settings.source;
        let sender_timeout = self.replication.sender_timeout().await?;
        self.set_failover().await;
        // Before the stream begins: then a lookup that another session has locked delays no
        // server's shutdown.
        let in_step: Vec<ModelIndex> = ModelIndex::number(&self.bound)
            .filter_map(|(index, bound)| bound.in_step().map(|_| index))
            .collect();
        self.writer.warm_few(&in_step).await?;
        self.replication
            .start(&source.slot, Lsn::ZERO, &source.publication)
            .await?;
        // Read after START has succeeded and before anything is acknowledged.
        let slot = source::facts::slot(&self.client, &source.slot).await?;
        let start = slot
            .and_then(|slot| slot.confirmed_flush_lsn)
            .unwrap_or(Lsn::ZERO);
        if start > checkpoint {
            return Err(Error::new(
                Class::Gap,
                format!("the slot stands at {start}, ahead of the checkpoint {checkpoint}"),
            ));
        }
        let epoch = self.writer.epoch();
        // Store the timeline, before any change of it can be written: from here on a server on an
        // earlier timeline is another server.
        self.shared
            .bookkeeping
            .set_streaming(self.writer.connection(), epoch, &self.source)
            .await?;
        tracing::info!(slot = source.slot, publication = source.publication, lsn = %checkpoint, read_models = in_step.len(), "streaming");
        Ok(Started {
            checkpoint,
            start,
            sender_timeout,
        })
    }

    /// The failover setting applies to an existing slot, too. If this fails, the stream continues
    /// all the same: a lost slot is healed.
    async fn set_failover(&mut self) {
        let source = &self.shared.settings.source;
        let set = source::slot::set_failover(
            &mut self.replication,
            &self.client,
            &source.slot,
            source.failover,
        );
        match set.await {
            Ok(true) => tracing::info!(
                slot = source.slot,
                failover = source.failover,
                "altered the slot"
            ),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "the slot does not follow source.failover"),
        }
    }

    /// What the consumer begins with.
    fn begin(
        &self,
        claim: &Claim,
        started: &Started,
        lessons: &Lessons,
        passed: &Arc<Passed>,
    ) -> Start {
        let settings = &self.shared.settings;
        let checkpoint = started.checkpoint;
        let models = self.bound.iter().map(|bound| {
            let model = bound.in_step().map(|model| Arc::clone(&model.model));
            (bound.settings.clone(), model)
        });
        let stored = claim.checkpoint.as_ref();
        let stored = stored.filter(|stored| stored.lsn == checkpoint);
        Start {
            models: models.collect(),
            checkpoint,
            last: stored.and_then(|stored| stored.last),
            start: started.start,
            synchronous_commit: settings.target.synchronous_commit,
            careful_until: lessons.careful_until.filter(|until| *until > checkpoint),
            status_interval: settings.status_interval,
            sender_timeout: started.sender_timeout,
            chunk_patience: lessons.chunk_patience(),
            own_cluster: self.own_cluster,
            passed: Arc::clone(passed),
        }
    }

    /// The read models as a resync names them.
    fn ordered(&self) -> Vec<Ordered> {
        let models = ModelIndex::number(&self.bound).map(|(index, bound)| Ordered {
            index,
            id: bound.id,
            settings: bound.settings.clone(),
        });
        models.collect()
    }

    /// The watch, which looks at the catalogs beside the stream.
    fn watch(&mut self, beside: Beside, passed: Arc<Passed>) -> Watch {
        let looks = std::mem::take(&mut self.looks);
        let shapes = std::mem::take(&mut self.shapes);
        Watch::new(beside, &self.bound, looks, shapes, passed)
    }
}

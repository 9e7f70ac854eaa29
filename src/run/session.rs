//! One session: from two connections to the end of the stream.
//!
//! ```text
//! connect both -> lock -> claim (epoch) -> bind read models -> publication -> resume | first copy or heal -> stream
//! ```
//!
//! Any error ends the session and closes both connections; the next one begins from what is stored. So there is one way to
//! start, whatever state the last process left.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgConnection;
use tokio::sync::{Notify, mpsc};
use tokio_postgres::Client;

use crate::conninfo::Host;
use crate::error::{Class, Error, Result};
use crate::lsn::Lsn;
use crate::progress::Replay;
use crate::progress::SourceIdentity;
use crate::run::applier::Applier;
use crate::run::bind::{Bound, bind_all};
use crate::run::keeper::Keeper;
use crate::run::ownership::check_slot;
use crate::run::passed::Passed;
use crate::run::preflight::{check_same_source, check_server};
use crate::run::stream::{Start, Stream};
use crate::run::watch::Watch;
use crate::run::{Process, Shared, clock, fence, preflight, publish, pulse, report, unreadable, watch};
use crate::source;
use crate::source::replication::Replication;
use crate::source::watch::Look;
use crate::sql::TableName;
use crate::stuck::Stuck;
use crate::target;
use crate::target::bookkeeping::{Claim, Claimant, ModelState, Pulse};
use crate::target::write::Writer;

mod heal;
mod leave;
mod limit;
mod resume;
mod wait;

use leave::leave;
pub use limit::locks_of_target;

/// How long a resync may take to end with the session: a slot that is being made is given up, shadows are taken away.
const KEEPER_PATIENCE: Duration = Duration::from_secs(5);

/// Most keys of each kind that are told of a batch at log level debug.
const MOST_TOLD_KEYS: i32 = 10_000;

/// How long the last state may take to be written when the process leaves.
const STATE_PATIENCE: Duration = Duration::from_secs(2);

/// Everything of one session before the stream begins.
struct Session<'a> {
    shared: &'a Arc<Shared>,
    client: Client,
    replication: Replication,
    writer: Writer,
    source: SourceIdentity,
    /// Whether source and target are one cluster.
    own_cluster: bool,
    bound: Vec<Bound>,
    looks: Vec<Look>,
    shapes: Vec<String>,
}

/// Runs one session; returns when the process is asked to stop.
pub async fn session(shared: &Arc<Shared>, process: &mut Process) -> Result<()> {
    let (session, claim) = Session::open(shared, process).await?;
    let epoch = claim.epoch;
    tokio::select! {
        biased;
        result = session.work(claim, process) => result,
        never = wait::beat(shared, epoch) => match never {},
    }
}

impl<'a> Session<'a> {
    async fn open(shared: &'a Arc<Shared>, process: &mut Process) -> Result<(Self, Claim)> {
        let limit = limit::of(&shared.settings);
        let mut ends = limit::within(limit, Ends::connect(shared, process)).await?;
        // For as long as another process owns the pipeline.
        fence::lock(shared, &mut ends.replication, &ends.client, &mut ends.conn).await?;
        limit::within(limit, Self::prepare(shared, process, ends)).await
    }

    async fn prepare(shared: &'a Arc<Shared>, process: &mut Process, ends: Ends) -> Result<(Self, Claim)> {
        let settings = &shared.settings;
        let Ends {
            mut conn,
            client,
            replication,
            source,
        } = ends;
        let bookkeeping = &shared.bookkeeping;
        let slot = &settings.source.slot;
        let copying = ["copy", "resync"].map(|role| shared.application_name(role));
        bookkeeping.end_last_owner(&mut conn, slot, &copying).await?;
        let claimant = Claimant {
            slot,
            publication: &settings.source.publication,
            owner: &shared.owner,
            source: Some(&source),
        };
        let claim = bookkeeping.claim(&mut conn, claimant).await?;
        process.epoch = Some(claim.epoch);
        if process.stuck.is_none() {
            process.stuck = shared.bookkeeping.stuck(&mut conn).await?;
        }
        // Before anything is bound or published: another server must change nothing. What was read before may have been of another owner.
        check_same_source(claim.source(), &source)?;
        let ownership = check_slot(shared, process, (&client, &mut conn), &source).await?;
        bookkeeping.forget_progress(&mut conn, claim.epoch).await?;
        let lookups: Vec<TableName> = settings
            .read_models
            .iter()
            .map(|model| model.target.clone())
            .collect();
        let mut shapes = target::facts::shapes(&mut conn, &lookups).await?;
        let before = watch::look_before(shared, &client).await?;
        let mut bound = bind_all(settings, &client, &mut conn, &shared.bookkeeping, claim.epoch).await?;
        for (index, error) in process.cannot_take.drain(..) {
            let Some(bound) = bound.get_mut(index) else {
                continue;
            };
            report::suspended(&bound.settings, &error, None);
            shared
                .bookkeeping
                .suspend(&mut conn, claim.epoch, bound.id, &error)
                .await?;
            bound.state = ModelState::Suspended;
        }
        let owner = (&mut conn, claim.epoch);
        unreadable::withdraw(shared, &client, owner, &ownership, &mut bound).await?;
        publish::ensure(shared, &client, (&mut conn, claim.epoch), &ownership, &mut bound).await?;
        // A lookup that was not there was made while it was bound.
        for (shape, made) in shapes
            .iter_mut()
            .zip(target::facts::shapes(&mut conn, &lookups).await?)
        {
            if shape.is_empty() {
                *shape = made;
            }
        }
        let looks =
            watch::compare_with_stored(shared, &client, &mut conn, claim.epoch, (&mut bound, &before))
                .await?;
        limit::wait_for_lookups(&mut conn).await?;
        let mut writer = Writer::new(conn, shared.bookkeeping.clone(), claim.epoch).await?;
        if tracing::enabled!(tracing::Level::DEBUG) {
            writer.report_keys = MOST_TOLD_KEYS;
        }
        for (index, bound) in bound.iter().enumerate() {
            if let Ok(model) = &bound.model {
                writer.set_model(index, model.clone());
            }
        }
        Ok((
            Self {
                shared,
                client,
                replication,
                writer,
                own_cluster: ownership.pipeline.system_identifier == source.system_identifier,
                source,
                bound,
                looks,
                shapes,
            },
            claim,
        ))
    }

    /// Copies everything if the stream cannot go on, and streams.
    async fn work(mut self, claim: Claim, process: &mut Process) -> Result<()> {
        let checkpoint = match self.what_is_wrong(&claim, process).await? {
            None => claim
                .checkpoint
                .as_ref()
                .map_or(Lsn::ZERO, |checkpoint| checkpoint.lsn),
            Some(why) => {
                self.wait_before_copying(&why, &claim).await?;
                self.copy_everything(&why, claim.healings, process).await?
            }
        };
        self.stream(&claim, checkpoint, process).await
    }

    /// What the settings say of a failover holds for a slot that was there, too. Its loss would be healed, so the stream goes on
    /// without it.
    async fn set_failover(&mut self) {
        let source = &self.shared.settings.source;
        let set =
            source::slot::set_failover(&mut self.replication, &self.client, &source.slot, source.failover);
        match set.await {
            Ok(true) => tracing::info!(slot = source.slot, failover = source.failover, "altered the slot"),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "the slot does not follow source.failover"),
        }
    }

    async fn stream(mut self, claim: &Claim, checkpoint: Lsn, process: &mut Process) -> Result<()> {
        let source = &self.shared.settings.source;
        let sender_timeout = sender_timeout(&mut self.replication).await?;
        self.set_failover().await;
        // Before the stream begins: a lookup that somebody has locked holds up no server's shutdown.
        let in_step = self.bound.iter().enumerate();
        let in_step: Vec<usize> = in_step
            .filter_map(|(index, bound)| bound.in_step().map(|_| index))
            .collect();
        self.writer.warm_few(&in_step).await?;
        self.replication
            .start(&source.slot, Lsn::ZERO, &source.publication)
            .await?;
        // The slot's own position, read after START has succeeded and before anything is acknowledged.
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
        let last = claim
            .checkpoint
            .as_ref()
            .filter(|stored| stored.lsn == checkpoint)
            .and_then(|stored| stored.last);
        let epoch = self.writer.epoch();
        // The timeline with it, before anything of it can be written: from here on a server on an earlier one is another server.
        self.shared
            .bookkeeping
            .set_streaming(self.writer.connection(), epoch, &self.source)
            .await?;
        let in_step = self
            .bound
            .iter()
            .filter(|bound| bound.in_step().is_some())
            .count();
        tracing::info!(slot = source.slot, publication = source.publication, lsn = %checkpoint, read_models = in_step, "streaming");
        process.has_streamed();
        if !self.shared.settings.target.synchronous_commit {
            self.writer.commit_asynchronously().await?;
        }
        let (commands, mut inbox) = mpsc::channel(4);
        let ids = self
            .bound
            .iter()
            .enumerate()
            .map(|(index, bound)| (index, bound.settings.clone(), bound.id));
        let (commands_of_watch, commands_of_clock) = (commands.clone(), commands.clone());
        let (beats, pulse_of_watch) = tokio::sync::watch::channel(Pulse::default());
        let pulse_of_keeper = beats.subscribe();
        let ended = self.shared.stop.child_token();
        let keeper = Keeper::new(
            Arc::clone(self.shared),
            epoch,
            ids.collect(),
            commands,
            ended.clone(),
            pulse_of_keeper,
        )?;
        let passed = Arc::new(Passed::new(self.bound.len()));
        let watch = Watch::new(
            (Arc::clone(self.shared), epoch),
            &self.bound,
            (self.looks, self.shapes),
            Arc::clone(&passed),
            commands_of_watch,
            pulse_of_watch,
        );
        let (questions, asked) = mpsc::channel(1);
        let mut answers = std::pin::pin!(watch::answer(&self.client, &source.publication, asked));
        let mut watch = std::pin::pin!(watch.run(&self.client));
        let mut keeper = std::pin::pin!(keeper.run());
        let settings = &self.shared.settings;
        let let_go = Arc::new(Notify::new());
        let mut clock = std::pin::pin!(clock::tell(&self.client, settings, commands_of_clock, &let_go));
        let mut pulse = std::pin::pin!(pulse::run(self.shared, epoch, beats));
        let (mut keeping, mut watching, mut answering, mut beating) = (true, true, true, true);
        let models = self.bound.iter().map(|bound| {
            (
                bound.settings.clone(),
                bound.in_step().map(|model| Arc::clone(&model.model)),
            )
        });
        let stream = Stream::new(Start {
            replication: self.replication,
            models: models.collect(),
            applier: Applier::start(self.writer),
            checkpoint,
            start,
            replay: Replay::new(checkpoint, last, start),
            synchronous_commit: self.shared.settings.target.synchronous_commit,
            careful_until: process.careful_until.filter(|until| *until > checkpoint),
            status_interval: self.shared.settings.status_interval,
            sender_timeout,
            chunk_patience: process.chunk_patience(),
            own_cluster: self.own_cluster,
            let_go: Arc::clone(&let_go),
            pace: !source.conninfo.hosts.iter().any(Host::is_unix),
            passed,
            questions,
        });
        let (left, result) = {
            // Both in one task: the stream is polled first.
            let mut stream = std::pin::pin!(stream.run(&mut inbox, &self.shared.stop));
            loop {
                tokio::select! {
                    biased;
                    end = &mut stream => break end,
                    () = &mut keeper, if keeping => keeping = false,
                    () = &mut watch, if watching => watching = false,
                    never = &mut clock => match never {},
                    () = &mut answers, if answering => answering = false,
                    () = &mut pulse, if beating => beating = false,
                }
            }
        };
        drop(inbox);
        ended.cancel();
        clock::let_go(&self.client, settings).await;
        if keeping {
            // It gets a moment to take its shadows away.
            let _ = tokio::time::timeout(KEEPER_PATIENCE, keeper).await;
        }
        process.stalled = if left.stalled { process.stalled + 1 } else { 0 };
        let unsendable = left.unsendable;
        let refused = leave(self.shared, left, epoch, &result).await;
        let result = match unsendable {
            Some(position) => result.map_err(|error| process.stick(position, error)),
            None => result,
        };
        result.inspect_err(|error| process.learn(error, refused))
    }
}

/// The connections of a session, before it owns the pipeline.
struct Ends {
    conn: PgConnection,
    client: Client,
    replication: Replication,
    source: SourceIdentity,
}

impl Ends {
    async fn connect(shared: &Shared, process: &mut Process) -> Result<Self> {
        // Until the stream begins every commit is durable, whatever target.synchronous_commit says: the claim flushes the position
        // that it reads, which the last owner may have stored asynchronously, and a merge of copies the one that it stores.
        let mut conn = shared.target_session("apply").await?;
        shared.bookkeeping.ensure(&mut conn).await?;
        let copied = shared.bookkeeping.source(&mut conn).await?;
        let (replication, source) = match preflight::connect(shared, copied.as_ref()).await {
            Ok(connected) => connected,
            Err(error) if process.epoch.is_none() => {
                return Err(preflight::or_another_pipeline(shared, &mut conn, error).await);
            }
            Err(error) => return Err(error),
        };
        shared.stay_with(Some(replication.instance()));
        let client = shared.source_session("facts").await?;
        limit::locks_of_source(&client).await?;
        check_server(&client).await?;
        // Another's pipeline would be waited for in vain.
        check_slot(shared, process, (&client, &mut conn), &source).await?;
        Ok(Self {
            conn,
            client,
            replication,
            source,
        })
    }
}

/// wal_sender_timeout of this connection; zero is off.
pub async fn sender_timeout(replication: &mut Replication) -> Result<Duration> {
    let rows = replication
        .simple_query("SELECT setting FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout'")
        .await?;
    let text = rows
        .first()
        .and_then(|row| row.first())
        .and_then(Option::as_deref)
        .unwrap_or("60000");
    Ok(Duration::from_millis(text.parse().unwrap_or(60_000)))
}

/// Stores at the target that the source cannot send what follows a position, if it can be reached.
pub async fn tell_stuck(shared: &Shared, epoch: i64, stuck: &Stuck, error: &Error) {
    let tell = async {
        let mut conn = shared.target_session("state").await?;
        shared.bookkeeping.set_stuck(&mut conn, epoch, stuck, error).await
    };
    let _ = tokio::time::timeout(STATE_PATIENCE, tell).await;
}

/// Tells the target why the process tries again, if it can be reached. Before it has claimed the pipeline it speaks only where no
/// other process does.
pub async fn tell_retrying(shared: &Shared, epoch: Option<i64>, error: &Error) {
    let bookkeeping = &shared.bookkeeping;
    let tell = async {
        let mut conn = shared.target_session("state").await?;
        match epoch {
            Some(epoch) => {
                bookkeeping
                    .set_state(&mut conn, epoch, "retrying", Some(error))
                    .await
            }
            None => {
                bookkeeping
                    .set_retrying_unclaimed(&mut conn, &shared.owner, error)
                    .await
            }
        }
    };
    let _ = tokio::time::timeout(STATE_PATIENCE, tell).await;
}

//! One session: from two connections to the end of the stream.
//!
//! ```text
//! connect both -> lock -> claim (epoch) -> bind read models -> publication -> resume | first copy or heal -> stream
//! ```
//!
//! Any error ends the session and closes both connections; the next one begins from what is stored. So there is one way to
//! start, whatever state the last process left.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_postgres::Client;

use crate::check::{SQL_ASCII_HINT, SQL_ASCII_SOURCE};
use crate::conninfo::Host;
use crate::error::{Class, Error, Result};
use crate::facts::SourceTable;
use crate::lsn::Lsn;
use crate::progress::Replay;
use crate::run::applier::Applier;
use crate::run::bind::{Bound, bind_all};
use crate::run::copy::{ToCopy, copy_all, take_away};
use crate::run::keeper::Keeper;
use crate::run::stream::{Start, Stream};
use crate::run::waiting::{Wanted, create_slot};
use crate::run::watch::Watch;
use crate::run::{Process, Shared, fence, report, watch};
use crate::source;
use crate::source::replication::Replication;
use crate::source::slot::{CreatedSlot, Kind};
use crate::source::watch::Look;
use crate::sql::TableName;
use crate::target;
use crate::target::bookkeeping::{Claim, ModelState, SourceIdentity};
use crate::target::shadow::ShadowWriter;
use crate::target::writer::{MergePosition, Writer, Written};

mod leave;

use leave::leave;

/// How long the making of the slot may wait for open write transactions of the source before it is given up and tried again.
const SLOT_PATIENCE: Duration = Duration::from_secs(60);

/// How long a resync may take to end with the session: a slot that is being made is given up, shadows are taken away.
const KEEPER_PATIENCE: Duration = Duration::from_secs(5);

/// Why everything is copied for the first time.
const FIRST_COPY: &str = "first copy";

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
    bound: Vec<Bound>,
    looks: Vec<Look>,
    shapes: Vec<String>,
}

/// Runs one session; returns when the process is asked to stop.
pub async fn session(shared: &Arc<Shared>, process: &mut Process) -> Result<()> {
    let (mut session, claim) = Session::open(shared, process).await?;
    let checkpoint = match session.what_is_wrong(&claim, process).await? {
        None => claim
            .checkpoint
            .as_ref()
            .map_or(Lsn::ZERO, |checkpoint| checkpoint.lsn),
        Some(why) => {
            process.wait_before_healing(&why, &shared.stop).await;
            session.copy_everything(&why, process).await?
        }
    };
    session.stream(&claim, checkpoint, process).await
}

impl<'a> Session<'a> {
    async fn open(shared: &'a Arc<Shared>, process: &mut Process) -> Result<(Self, Claim)> {
        let settings = &shared.settings;
        let target = &settings.target;
        let mut conn = target::connect::connect(
            &target.conninfo,
            &shared.application_name("apply"),
            target.synchronous_commit,
        )
        .await?;
        shared.bookkeeping.ensure(&mut conn).await?;
        let conninfo = &settings.source.conninfo;
        let client = shared.source_session("facts").await?;
        check_server(&client).await?;
        let mut replication = Replication::connect(conninfo, &shared.application_name("stream")).await?;
        let system = replication.identify_system().await?;
        fence::lock(&mut replication, &client, &settings.source.slot, &shared.stop).await?;
        shared
            .bookkeeping
            .end_last_owner(&mut conn, &settings.source.slot)
            .await?;
        let claim = shared
            .bookkeeping
            .claim(
                &mut conn,
                &settings.source.slot,
                &settings.source.publication,
                &shared.owner,
            )
            .await?;
        process.epoch = Some(claim.epoch);
        let source = SourceIdentity {
            system_identifier: system.system_identifier,
            timeline: system.timeline,
            database: system.database,
        };
        // Before anything is bound or published: another server must change nothing.
        check_same_source(&claim, &source)?;
        shared.bookkeeping.drop_stale_shadows(&mut conn).await?;
        let lookups: Vec<TableName> = settings
            .read_models
            .iter()
            .map(|model| model.target.clone())
            .collect();
        let mut shapes = target::facts::shapes(&mut conn, &lookups).await?;
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
        ensure_publication(shared, &client, &bound).await?;
        // A lookup that was not there was made while it was bound.
        for (shape, made) in shapes
            .iter_mut()
            .zip(target::facts::shapes(&mut conn, &lookups).await?)
        {
            if shape.is_empty() {
                *shape = made;
            }
        }
        let looks = watch::compare_with_stored(shared, &client, &mut conn, claim.epoch, &mut bound).await?;
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
                source,
                bound,
                looks,
                shapes,
            },
            claim,
        ))
    }

    /// Why the stream cannot go on from the checkpoint; `None` if it can.
    async fn what_is_wrong(&mut self, claim: &Claim, process: &Process) -> Result<Option<String>> {
        let name = &self.shared.settings.source.slot;
        let slot = source::facts::slot(&self.client, name).await?;
        if let Some(slot) = &slot {
            let ours = slot.plugin.as_deref() == Some("pgoutput")
                && slot.database.as_deref() == Some(self.source.database.as_str());
            if !ours {
                return Err(
                    Error::configuration(format!("slot \"{name}\" belongs to something else"))
                        .with_detail(format!(
                            "Its plugin is {:?}, its database {:?}.",
                            slot.plugin, slot.database
                        ))
                        .with_hint("Choose another name for source.slot."),
                );
            }
        }
        let Some(checkpoint) = &claim.checkpoint else {
            return Ok(Some(
                claim.healing.clone().unwrap_or_else(|| "first copy".to_owned()),
            ));
        };
        if let Some(why) = &process.gap {
            return Ok(Some(why.clone()));
        }
        if let Some(why) = &claim.healing {
            return Ok(Some(why.clone()));
        }
        let Some(slot) = slot else {
            return Ok(Some("the slot is missing".to_owned()));
        };
        if slot.wal_status.as_deref() == Some("lost") || slot.invalidation_reason.is_some() {
            let reason = slot
                .invalidation_reason
                .unwrap_or_else(|| "wal_removed".to_owned());
            return Ok(Some(format!("the slot was invalidated ({reason})")));
        }
        let made_for = self
            .shared
            .bookkeeping
            .publication_oid(self.writer.connection())
            .await?;
        if made_for.is_some() && made_for != self.publication().map(i64::from) {
            return Ok(Some("the publication was made again".to_owned()));
        }
        let confirmed = slot.confirmed_flush_lsn.unwrap_or(Lsn::ZERO);
        if confirmed > checkpoint.lsn {
            return Ok(Some(format!(
                "the slot stands at {confirmed}, ahead of the checkpoint {}",
                checkpoint.lsn
            )));
        }
        let end = source::facts::current_wal(&self.client).await?;
        if end < checkpoint.lsn {
            return Ok(Some(format!(
                "the source's WAL ends at {end}, behind the checkpoint {}",
                checkpoint.lsn
            )));
        }
        Ok(None)
    }

    /// OID of the publication.
    fn publication(&self) -> Option<u32> {
        self.looks.first().and_then(|look| look.publication)
    }

    /// First copy or healing: a new slot and exact copies of every read model, merged in one transaction.
    async fn copy_everything(&mut self, why: &str, process: &mut Process) -> Result<Lsn> {
        let started = Instant::now();
        let bookkeeping = &self.shared.bookkeeping;
        let name = self.shared.settings.source.slot.clone();
        let epoch = self.writer.epoch();
        if why == FIRST_COPY {
            tracing::info!(slot = name, "first copy of every read model");
        } else {
            tracing::warn!(
                slot = name,
                why,
                "the stream cannot go on: every read model is copied again, readers keep the old rows meanwhile"
            );
        }
        // The intent is stored before a slot is dropped or made: a crash in between heals again.
        let publication = self.publication();
        bookkeeping
            .begin_healing(self.writer.connection(), epoch, why, publication)
            .await?;
        let names: Vec<String> = self.bound.iter().map(|bound| bound.settings.name()).collect();
        report::resync_started(why, &names);
        if source::facts::slot(&self.client, &name).await?.is_some() {
            source::slot::drop(&mut self.replication, &name).await?;
            tracing::debug!(slot = name, "dropped the old slot");
        }
        let wanted = Wanted {
            name: &name,
            kind: if self.shared.settings.source.failover {
                Kind::Failover
            } else {
                Kind::Permanent
            },
            within: SLOT_PATIENCE,
            resync: None,
        };
        let slot = create_slot(
            self.shared,
            &wanted,
            (&mut self.replication, &self.client),
            &self.shared.stop,
        )
        .await?;
        let copied = self.copy_and_merge(why, &slot, process).await;
        let Ok(written) = copied else {
            take_away(self.shared, epoch).await;
            return copied.map(|_| slot.consistent_point);
        };
        report::resync_completed(why, &written, slot.consistent_point, started.elapsed());
        if why != FIRST_COPY {
            report::healed(why, started.elapsed());
        }
        self.read_states().await?;
        Ok(slot.consistent_point)
    }

    /// Copies every read model under the slot's snapshot and merges the copies; tells what was written.
    async fn copy_and_merge(
        &mut self,
        why: &str,
        slot: &CreatedSlot,
        process: &mut Process,
    ) -> Result<Vec<(String, Written)>> {
        let bookkeeping = &self.shared.bookkeeping;
        let epoch = self.writer.epoch();
        let to_copy = self.bound.iter().enumerate().filter_map(|(index, bound)| {
            let model = bound.model.as_ref().ok()?.clone();
            Some(ToCopy {
                index,
                settings: bound.settings.clone(),
                model,
            })
        });
        let conn = self.shared.target_session("copy").await?;
        let mut shadow = ShadowWriter::new(conn);
        let copied = copy_all(
            self.shared,
            &slot.snapshot_name,
            to_copy.collect(),
            &mut shadow,
            &self.shared.stop,
        )
        .await?;
        let mut indexes = Vec::new();
        for (to_copy, result) in &copied {
            match result {
                Ok(_) => indexes.push(to_copy.index),
                Err(error) => {
                    report::resync_failed(&to_copy.settings.name(), error);
                    bookkeeping
                        .suspend(self.writer.connection(), epoch, to_copy.model.id, error)
                        .await?;
                }
            }
        }
        let position = MergePosition::Start(slot.consistent_point, self.source.clone());
        tracing::debug!(lsn = %slot.consistent_point, "merging the copies");
        let merged = self.writer.merge(&indexes, &position, 0).await?;
        tracing::debug!(lsn = %slot.consistent_point, "merged the copies");
        // From here on it is healed, whatever happens to the notes about it.
        process.gap = None;
        let mut written = Vec::new();
        for (index, merged) in merged {
            let Some(bound) = self.bound.get(index) else {
                continue;
            };
            match merged {
                Ok(rows) => written.push((bound.settings.name(), rows)),
                Err(error) => report::resync_failed(&bound.settings.name(), &error),
            }
        }
        let conn = self.writer.connection();
        let origin = if why == FIRST_COPY { FIRST_COPY } else { "heal" };
        bookkeeping
            .note_copy(conn, origin, slot.consistent_point, &report::result(&written))
            .await?;
        for (to_copy, _) in &copied {
            shadow
                .drop(bookkeeping.schema_name(), to_copy.model.id, epoch)
                .await?;
        }
        Ok(written)
    }

    /// Which read models take part, as stored after the merge.
    async fn read_states(&mut self) -> Result<()> {
        let stored = self.shared.bookkeeping.models(self.writer.connection()).await?;
        for bound in &mut self.bound {
            if let Some(stored) = stored.iter().find(|stored| stored.id == bound.id) {
                bound.state = stored.state;
            }
        }
        Ok(())
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
        self.writer.warm_all(&in_step).await?;
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
        self.shared
            .bookkeeping
            .set_state(self.writer.connection(), epoch, "streaming", None)
            .await?;
        let in_step = self
            .bound
            .iter()
            .filter(|bound| bound.in_step().is_some())
            .count();
        tracing::info!(slot = source.slot, publication = source.publication, lsn = %checkpoint, read_models = in_step, "streaming");
        process.has_streamed();
        let (commands, mut inbox) = mpsc::channel(4);
        let ids = self
            .bound
            .iter()
            .enumerate()
            .map(|(index, bound)| (index, bound.settings.clone(), bound.id));
        let commands_of_watch = commands.clone();
        let ended = self.shared.stop.child_token();
        let keeper = Keeper::new(
            Arc::clone(self.shared),
            epoch,
            ids.collect(),
            commands,
            ended.clone(),
        )?;
        let watch = Watch::new(
            Arc::clone(self.shared),
            &self.bound,
            (self.looks, self.shapes),
            commands_of_watch,
        );
        let mut watch = std::pin::pin!(watch.run(&self.client));
        let mut keeper = std::pin::pin!(keeper.run());
        let (mut keeping, mut watching) = (true, true);
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
            pace: !source.conninfo.hosts.iter().any(Host::is_unix),
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
                }
            }
        };
        drop(inbox);
        ended.cancel();
        if keeping {
            // It gets a moment to take its shadows away.
            let _ = tokio::time::timeout(KEEPER_PATIENCE, keeper).await;
        }
        process.stalled = if left.stalled { process.stalled + 1 } else { 0 };
        let refused = leave(self.shared, left, epoch, &result).await;
        result.inspect_err(|error| process.learn(error, refused))
    }
}

/// A checkpoint of another server or database is not healed by itself.
fn check_same_source(claim: &Claim, source: &SourceIdentity) -> Result<()> {
    let Some(stored) = &claim.checkpoint else {
        return Ok(());
    };
    if stored.system_identifier == source.system_identifier && stored.database == source.database {
        return Ok(());
    }
    Err(Error::transient("the source is another server or database than the one that was copied")
        .with_detail(format!(
            "Stored is system {} database \"{}\", found is system {} database \"{}\".",
            stored.system_identifier, stored.database, source.system_identifier, source.database
        ))
        .with_hint(
            "If the new one is right, run `cdc resync --accept-new-source`; the lookups keep their last good state until then.",
        ))
}

async fn check_server(client: &Client) -> Result<()> {
    let server = source::facts::server(client).await?;
    if server.wal_level != "logical" {
        return Err(Error::configuration(format!(
            "wal_level of the source is \"{}\", not \"logical\"",
            server.wal_level
        ))
        .with_detail("Without it the WAL does not hold what logical decoding needs.")
        .with_hint("ALTER SYSTEM SET wal_level = logical; and restart the source."));
    }
    if server.encoding == "SQL_ASCII" {
        return Err(Error::configuration(format!(
            "database \"{}\" of the source has encoding SQL_ASCII",
            server.database
        ))
        .with_detail(SQL_ASCII_SOURCE)
        .with_hint(SQL_ASCII_HINT));
    }
    if !server.may_replicate {
        return Err(
            Error::configuration(format!("role \"{}\" may not replicate", server.user)).with_hint(format!(
                "ALTER ROLE {} REPLICATION;",
                crate::sql::ident(&server.user)
            )),
        );
    }
    Ok(())
}

async fn ensure_publication(shared: &Shared, client: &Client, bound: &[Bound]) -> Result<()> {
    let mut tables: Vec<SourceTable> = Vec::new();
    for model in bound
        .iter()
        .filter(|bound| bound.model.is_ok())
        .map(|bound| &bound.settings)
    {
        if tables.iter().any(|table| table.name == model.source) {
            continue;
        }
        tables.extend(source::facts::table(client, &model.source).await?);
    }
    // A table that is gone, or has lost its identity, suspends its read models; the publication of the others goes on.
    let mut settings = shared.settings.clone();
    settings.read_models.retain(|model| {
        bound
            .iter()
            .any(|bound| bound.settings == *model && bound.model.is_ok())
    });
    for done in source::publication::ensure(client, &settings, &tables).await? {
        tracing::info!(sql = done, "set up the publication");
    }
    Ok(())
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

/// Tells the target what the process is up to, if it can be reached.
pub async fn tell_state(shared: &Shared, epoch: i64, state: &str, error: &Error) {
    let tell = async {
        let mut conn = shared.target_session("state").await?;
        shared
            .bookkeeping
            .set_state(&mut conn, epoch, state, Some(error))
            .await
    };
    let _ = tokio::time::timeout(STATE_PATIENCE, tell).await;
}

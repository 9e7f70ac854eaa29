//! The life of the process: session after session, until it is asked to stop.
//!
//! Errors are sorted by consequence. What may pass is tried again for ever with jittered, growing delays, saying why. A gap
//! makes the next session copy everything anew. A row that the target refuses, or a change that cannot be mapped, makes the next
//! session go transaction by transaction, so that its read model is suspended exactly before that one. Only an error
//! of the configuration before the first stream ends the process.

pub mod applier;
pub mod bind;
pub mod budget;
pub mod catch_up;
pub mod clock;
pub mod copy;
pub mod fence;
pub mod keeper;
pub mod ownership;
pub mod plain;
pub mod preflight;
pub mod publish;
pub mod pulse;
pub mod report;
pub mod resync;
pub mod session;
pub mod stream;
pub mod unreadable;
pub mod waiting;
pub mod watch;

use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use sqlx::PgConnection;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::consume::job::FailedBatch;
use crate::error::{Class, Error, Result};
use crate::lsn::Lsn;
use crate::progress::SourceIdentity;
use crate::retry::Backoff;
use crate::run::budget::Budget;
use crate::settings::{self, Settings};
use crate::source;
use crate::source::cut::CutClient;
use crate::source::replication::Replication;
use crate::source::server::{Instance, Wanted};
use crate::stuck::Stuck;
use crate::target;
use crate::target::bookkeeping::Bookkeeping;

/// Delays between two sessions.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const MOST_DELAY: Duration = Duration::from_secs(15);

/// A session that streamed for this long makes the next one begin without a delay.
const GOOD_SESSION: Duration = Duration::from_secs(3);

/// How long a session may take to end once the process is asked to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(8);

/// How long reading may stand still while a chunk of a large transaction is staged; what was staged is lost then and has to come again.
/// So it doubles as long as that happens, and such a transaction is taken in the end, however slow the target or the way to it.
const CHUNK_PATIENCE: Duration = Duration::from_secs(60);
const MOST_CHUNK_PATIENCE: Duration = Duration::from_secs(3600);

/// How long an observer waits for a lock, in milliseconds.
const OBSERVER_PATIENCE_MS: u32 = 500;

/// What every part of the process knows.
#[derive(Debug)]
pub struct Shared {
    /// The settings.
    pub settings: Settings,
    /// The bookkeeping of this pipeline.
    pub bookkeeping: Bookkeeping,
    /// Who we are, for people: pid of the process.
    pub owner: String,
    /// Cancelled when the process shall leave.
    pub stop: CancellationToken,
    /// A slot of this pipeline's name is taken, whoever has made it.
    pub take_slot: bool,
    /// What the slot holds at the source, measured by the limit.
    pub budget: Budget,
    /// How often in a row the making of a slot has failed: given up, as a rule.
    pub slots_failed: AtomicU32,
    /// The server that the session's replication connection is with.
    server: Mutex<Option<Instance>>,
}

impl Shared {
    /// What the process knows from its settings.
    pub fn new(settings: Settings, stop: CancellationToken) -> Self {
        let bookkeeping = Bookkeeping::new(&settings.target.schema);
        Self {
            settings,
            bookkeeping,
            owner: format!("pid {}", std::process::id()),
            stop,
            take_slot: false,
            budget: Budget::default(),
            slots_failed: AtomicU32::default(),
            server: Mutex::default(),
        }
    }

    /// application_name of a connection, so that a DBA sees what it is for.
    pub fn application_name(&self, role: &str) -> String {
        settings::application_name(&self.settings.source.slot, role)
    }

    /// A session of the target for this role, which commits durably and waits for no lock without a limit.
    pub async fn target_session(&self, role: &str) -> Result<PgConnection> {
        let conninfo = &self.settings.target.conninfo;
        let mut conn = target::connect::connect(conninfo, &self.application_name(role)).await?;
        session::locks_of_target(&mut conn).await?;
        Ok(conn)
    }

    /// An ordinary session of the source for this role, with the session's own server.
    pub async fn source_session(&self, role: &str) -> Result<Client> {
        let conninfo = &self.settings.source.conninfo;
        source::connect::client_of(conninfo, &self.application_name(role), self.wanted_server()).await
    }

    /// The same, for questions that are asked while a session of ours has a table locked, or while the stream stands still. It waits for
    /// no lock for longer than a moment: a migration that waits for our lock is in front of it, and would wait for us for ever.
    pub async fn source_observer(&self, role: &str) -> Result<Client> {
        let client = self.source_session(role).await?;
        let set = format!("SET lock_timeout = {OBSERVER_PATIENCE_MS}");
        let set = client.batch_execute(&set).await;
        set.map_err(source::error::from_driver)?;
        Ok(client)
    }

    /// A replication connection beside the session's, with the same server. No commit of the source waits for it.
    pub async fn replication_session(&self, role: &str) -> Result<Replication> {
        let conninfo = &self.settings.source.conninfo;
        let name = self.application_name(role);
        let mut replication = Replication::connect_of(conninfo, &name, self.wanted_server()).await?;
        replication.stand_apart(true);
        Ok(replication)
    }

    /// The server that the session is with; while there is none any primary.
    fn wanted_server(&self) -> Wanted {
        let server = *self.server.lock().unwrap_or_else(PoisonError::into_inner);
        server.map_or(Wanted::Primary, Wanted::Instance)
    }

    /// From now on all connections to the source are with this server.
    fn stay_with(&self, server: Option<Instance>) {
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = server;
    }

    /// The same, for reading tables: when it is dropped its connection is cut, so that no lock stays behind.
    pub async fn source_reader(&self, role: &str) -> Result<CutClient> {
        let conninfo = &self.settings.source.conninfo;
        CutClient::connect(conninfo, &self.application_name(role), self.wanted_server()).await
    }
}

/// What one session learns for the next.
#[derive(Debug, Default)]
pub struct Process {
    epoch: Option<i64>,
    /// The source where the slot is this pipeline's own.
    owned: Option<SourceIdentity>,
    streamed: bool,
    gap: Option<String>,
    careful_until: Option<Lsn>,
    cannot_take: Vec<(usize, Error)>,
    streaming_since: Option<Instant>,
    /// The error that ended the last session, and since when each session has ended so.
    trouble: Option<(String, Timestamp)>,
    /// Sessions in a row that ended because a chunk took the target too long.
    stalled: u32,
    /// The position behind which the source could not send, and whether the last session ended there.
    stuck: Option<Stuck>,
    sticks: bool,
}

impl Process {
    fn has_streamed(&mut self) {
        self.streamed = true;
        self.streaming_since = Some(Instant::now());
    }

    /// Since when each session has ended with this error.
    fn since(&mut self, error: &Error) -> Timestamp {
        let message = error.to_string();
        match &self.trouble {
            Some((same, since)) if *same == message => *since,
            _ => {
                let now = Timestamp::now();
                self.trouble = Some((message, now));
                now
            }
        }
    }

    fn chunk_patience(&self) -> Duration {
        let doubled = 2u32.saturating_pow(self.stalled);
        CHUNK_PATIENCE.saturating_mul(doubled).min(MOST_CHUNK_PATIENCE)
    }

    /// The source reported that it cannot send what follows this position.
    fn stick(&mut self, position: Lsn, error: Error) -> Error {
        let Some(sqlstate) = error.sqlstate() else {
            return error;
        };
        let stuck = Stuck::note(self.stuck.as_ref(), position, sqlstate, Timestamp::now());
        let error = stuck.explain(error);
        if stuck.is_hopeless(Timestamp::now()) {
            self.gap = Some(error.to_string());
        }
        self.stuck = Some(stuck);
        self.sticks = true;
        error
    }

    /// The trouble, if the last session ended in it.
    fn take_stuck(&mut self) -> Option<Stuck> {
        std::mem::take(&mut self.sticks)
            .then(|| self.stuck.clone())
            .flatten()
    }

    fn learn(&mut self, error: &Error, failed: Option<FailedBatch>) {
        if error.class() == Class::Gap {
            self.gap = Some(error.to_string());
        }
        match failed {
            // Alone in its batch: its read model leaves before it, the others go on.
            Some(FailedBatch {
                index,
                transactions: 1,
                error,
                ..
            }) => self.cannot_take.push((index, error)),
            Some(FailedBatch { lsn, .. }) => self.careful_until = Some(lsn),
            None => {}
        }
    }
}

/// Runs until `stop` is cancelled.
///
/// # Errors
/// Only before the first stream, and only what a person has to mend.
pub async fn run(settings: Settings, stop: CancellationToken) -> Result<()> {
    start(Shared::new(settings, stop)).await
}

/// As [`run`], with what the process knows already.
///
/// # Errors
/// As [`run`].
pub async fn start(shared: Shared) -> Result<()> {
    let shared = Arc::new(shared);
    let guarded = Arc::clone(&shared);
    let guard = tokio::spawn(async move { budget::guard(&guarded).await });
    let result = sessions(&shared).await;
    guard.abort();
    result
}

async fn sessions(shared: &Arc<Shared>) -> Result<()> {
    let mut process = Process::default();
    let mut backoff = Backoff::new(FIRST_DELAY, MOST_DELAY);
    loop {
        // A session that is dropped leaves what a killed process leaves: the next one begins from what is stored.
        let result = tokio::select! {
            biased;
            result = until_stopped(shared, session::session(shared, &mut process)) => result,
            error = shared.budget.enforced() => Err(error),
        };
        shared.stay_with(None);
        let error = match result {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if shared.stop.is_cancelled() || error.class() == Class::Interrupted {
            return Ok(());
        }
        if error.class() == Class::Configuration && !process.streamed {
            return Err(error);
        }
        // A session that streamed for a while was a good one; what ends each of them at once must not be tried without a pause.
        if process
            .streaming_since
            .take()
            .is_some_and(|since| since.elapsed() > GOOD_SESSION)
        {
            backoff.reset();
            process.trouble = None;
        }
        let stuck = process.take_stuck();
        let since = process
            .since(&error)
            .strftime("%Y-%m-%d %H:%M:%S UTC")
            .to_string();
        let delay = match &stuck {
            Some(stuck) => stuck.pause(),
            None => backoff.next_delay(fastrand::f64()),
        };
        tracing::warn!(%error, detail = error.detail(), hint = error.hint(), since, attempt = backoff.attempt(), delay_ms = report::millis(delay), "trying again");
        if let Some(why) = shared.budget.exceeded() {
            match budget::give_up(shared, process.epoch, process.owned.as_ref(), &why).await {
                Ok(true) => process.gap = Some(why),
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "could not give up the slot"),
            }
        }
        if let (Some(stuck), Some(epoch)) = (&stuck, process.epoch) {
            session::tell_stuck(shared, epoch, stuck, &error).await;
        }
        let error = error.context(format_args!("since {since}"));
        session::tell_retrying(shared, process.epoch, &error).await;
        tokio::select! {
            () = shared.stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(delay) => {}
        }
    }
}

/// Runs a session; once the process is asked to stop, the session has a few seconds to end well.
async fn until_stopped(shared: &Shared, session: impl Future<Output = Result<()>>) -> Result<()> {
    let mut session = std::pin::pin!(session);
    tokio::select! {
        biased;
        result = &mut session => return result,
        () = shared.stop.cancelled() => {}
    }
    // Waiting for a server that does not answer, or for a lock, is given up.
    tokio::time::timeout(STOP_PATIENCE, session)
        .await
        .unwrap_or(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_that_was_lost_gets_twice_the_time() {
        for (stalled, seconds) in [(0, 60), (1, 120), (2, 240), (6, 3600), (u32::MAX, 3600)] {
            let process = Process {
                stalled,
                ..Process::default()
            };
            assert_eq!(process.chunk_patience().as_secs(), seconds, "after {stalled}");
        }
    }
}

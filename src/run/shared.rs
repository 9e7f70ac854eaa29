//! What every part of the process knows, and how it connects.

use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::config::Loaded;
use crate::connect::server::{Instance, Wanted};
use crate::connect::{Connection, Side};
use crate::conninfo::Conninfo;
use crate::error::Result;
use crate::run::in_force::InForce;
use crate::run::locks;
use crate::run::pressure::Budget;
use crate::settings::{self, Settings};
use crate::source::replication::Replication;
use crate::target;
use crate::target::bookkeeping::Bookkeeping;

/// Reads the configuration again.
#[derive(Clone)]
pub(crate) struct Reread(Arc<dyn Fn() -> Result<Loaded> + Send + Sync>);

impl Reread {
    /// By this function.
    pub(crate) fn by(read: impl Fn() -> Result<Loaded> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// What reads it, for another thread.
    pub(crate) fn read(&self) -> impl FnOnce() -> Result<Loaded> + Send + 'static {
        let read = Arc::clone(&self.0);
        move || read()
    }
}

impl std::fmt::Debug for Reread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reread")
    }
}

/// What every part of the process knows. Each session has one of its own, with its settings; what
/// outlives it is shared.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The settings of the session.
    pub settings: Settings,
    /// The settings in force. They differ from the session's if a reload has changed what needs no
    /// new session, or if the session is about to end.
    pub in_force: Arc<InForce>,
    /// The bookkeeping of this pipeline.
    pub bookkeeping: Bookkeeping,
    /// The name of this process, for people: `pid N`.
    pub owner: String,
    /// Cancelled when the process shall leave.
    pub stop: CancellationToken,
    /// Cancelled when the session shall end in order: the process shall leave, or the next session
    /// has other settings.
    pub end: CancellationToken,
    /// A slot of this pipeline's name is taken, even if another consumer has created it.
    pub take_slot: bool,
    /// What the slot holds at the source, measured by the limit.
    pub budget: Arc<Budget>,
    /// How often in a row the creation of a slot has failed; usually it was given up.
    pub slots_failed: Arc<AtomicU32>,
    /// What finds a password that was changed since; `None`: the settings stay as they are.
    pub reread: Option<Reread>,
    /// The server that the session's replication connection is with.
    server: Arc<Mutex<Option<Instance>>>,
}

impl Shared {
    /// What the process knows from its settings.
    pub(crate) fn new(settings: Settings, stop: CancellationToken) -> Self {
        let bookkeeping = Bookkeeping::new(&settings.target.schema);
        let in_force = Arc::new(InForce::new(settings.clone()));
        Self {
            settings,
            in_force,
            bookkeeping,
            owner: format!("pid {}", std::process::id()),
            end: stop.child_token(),
            stop,
            take_slot: false,
            budget: Arc::default(),
            slots_failed: Arc::default(),
            reread: None,
            server: Arc::default(),
        }
    }

    /// The same for the next session, with the settings that are in force now.
    pub(crate) fn next_session(&self) -> Self {
        let (settings, end) = self.in_force.begin(&self.stop);
        Self {
            settings: Settings::clone(&settings),
            in_force: Arc::clone(&self.in_force),
            bookkeeping: self.bookkeeping.clone(),
            owner: self.owner.clone(),
            stop: self.stop.clone(),
            end,
            take_slot: self.take_slot,
            budget: Arc::clone(&self.budget),
            slots_failed: Arc::clone(&self.slots_failed),
            reread: self.reread.clone(),
            server: Arc::clone(&self.server),
        }
    }

    /// Whether the session ends because the next one has other settings.
    pub(crate) fn is_renewed(&self) -> bool {
        self.end.is_cancelled() && !self.stop.is_cancelled()
    }

    /// application_name of a connection, so that a DBA sees what it is for.
    pub(crate) fn application_name(&self, role: &str) -> String {
        settings::application_name(&self.settings.source.slot, role)
    }

    /// How to connect to a side, with the secrets as they are now: a password is changed, and a
    /// token expires, while this process runs. Where the configuration cannot be read, they are as
    /// they were at the last reload: somebody may be writing a file.
    pub(crate) fn conninfo(&self, side: Side) -> Conninfo {
        let of = |settings: &Settings| match side {
            Side::Source => settings.source.conninfo.clone(),
            Side::Target => settings.target.conninfo.clone(),
        };
        let known = of(&self.in_force.settings());
        let Some(reread) = &self.reread else {
            return known;
        };
        match (reread.0)() {
            Ok(newer) => known.with_secrets_of(of(&newer.settings)),
            Err(error) => {
                tracing::warn!(%error, hint = error.hint(), "could not read the configuration again");
                known
            }
        }
    }

    /// A session of the target for this role, which commits durably and waits for no lock without a
    /// limit.
    pub(crate) async fn target_session(&self, role: &str) -> Result<Connection> {
        let conn = self.target_plain_session(role).await?;
        locks::of_target(&conn).await?;
        Ok(conn)
    }

    /// A session of the target that is set to nothing more than every session.
    pub(crate) async fn target_plain_session(&self, role: &str) -> Result<Connection> {
        let conninfo = &self.conninfo(Side::Target);
        let name = self.application_name(role);
        target::connect::connect_to_primary(conninfo, &name).await
    }

    /// An ordinary session of the source for this role, with the session's own server.
    pub(crate) async fn source_session(&self, role: &str) -> Result<Connection> {
        let conninfo = &self.conninfo(Side::Source);
        let name = self.application_name(role);
        Connection::open(Side::Source, conninfo, &name, self.wanted_server()).await
    }

    /// The same, for questions that are asked while a session of ours has a table locked, or while
    /// the stream is paused. It waits for no lock for longer than a moment: a migration that waits
    /// for our lock is ahead of it in the queue, and would wait for us for ever.
    pub(crate) async fn source_observer(&self, role: &str) -> Result<Connection> {
        let client = self.source_session(role).await?;
        locks::of_observer(&client).await?;
        Ok(client)
    }

    /// A replication connection beside the session's, with the same server. No commit of the source
    /// waits for it.
    pub(crate) async fn replication_session(&self, role: &str) -> Result<Replication> {
        let conninfo = &self.conninfo(Side::Source);
        let name = self.application_name(role);
        let mut replication =
            Replication::connect_of(conninfo, &name, self.wanted_server()).await?;
        replication.stand_apart(true);
        Ok(replication)
    }

    /// The server that the session is with; while there is none any primary.
    fn wanted_server(&self) -> Wanted {
        let server = *self.server.lock().unwrap_or_else(PoisonError::into_inner);
        server.map_or(Wanted::Primary, Wanted::Instance)
    }

    /// From now on all connections to the source are with this server.
    pub(crate) fn stay_with(&self, server: Option<Instance>) {
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = server;
    }
}

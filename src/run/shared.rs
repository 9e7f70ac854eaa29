//! What every part of the process knows, and how it connects.

use std::sync::atomic::AtomicU32;
use std::sync::{Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::connect::server::{Instance, Wanted};
use crate::connect::{Connection, Side};
use crate::conninfo::Conninfo;
use crate::error::Result;
use crate::run::locks;
use crate::run::pressure::Budget;
use crate::settings::{self, Settings};
use crate::source::replication::Replication;
use crate::target;
use crate::target::bookkeeping::Bookkeeping;

/// Reads the configuration again.
pub(crate) struct Reread(Box<dyn Fn() -> Result<Settings> + Send + Sync>);

impl Reread {
    /// By this function.
    pub(crate) fn by(read: impl Fn() -> Result<Settings> + Send + Sync + 'static) -> Self {
        Self(Box::new(read))
    }
}

impl std::fmt::Debug for Reread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reread")
    }
}

/// What every part of the process knows.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The settings.
    pub settings: Settings,
    /// The bookkeeping of this pipeline.
    pub bookkeeping: Bookkeeping,
    /// The name of this process, for people: `pid N`.
    pub owner: String,
    /// Cancelled when the process shall leave.
    pub stop: CancellationToken,
    /// A slot of this pipeline's name is taken, even if another consumer has created it.
    pub take_slot: bool,
    /// What the slot holds at the source, measured by the limit.
    pub budget: Budget,
    /// How often in a row the creation of a slot has failed; usually it was given up.
    pub slots_failed: AtomicU32,
    /// What finds a password that was changed since; `None`: the settings stay as they are.
    pub reread: Option<Reread>,
    /// The server that the session's replication connection is with.
    server: Mutex<Option<Instance>>,
}

impl Shared {
    /// What the process knows from its settings.
    pub(crate) fn new(settings: Settings, stop: CancellationToken) -> Self {
        let bookkeeping = Bookkeeping::new(&settings.target.schema);
        Self {
            settings,
            bookkeeping,
            owner: format!("pid {}", std::process::id()),
            stop,
            take_slot: false,
            budget: Budget::default(),
            slots_failed: AtomicU32::default(),
            reread: None,
            server: Mutex::default(),
        }
    }

    /// application_name of a connection, so that a DBA sees what it is for.
    pub(crate) fn application_name(&self, role: &str) -> String {
        settings::application_name(&self.settings.source.slot, role)
    }

    /// How to connect to a side, with the secrets as they are now: a password is changed, and a
    /// token expires, while this process runs. Where the configuration cannot be read, they are as
    /// they were: somebody may be writing a file.
    pub(crate) fn conninfo(&self, side: Side) -> Conninfo {
        let of = |settings: &Settings| match side {
            Side::Source => settings.source.conninfo.clone(),
            Side::Target => settings.target.conninfo.clone(),
        };
        let known = of(&self.settings);
        let Some(reread) = &self.reread else {
            return known;
        };
        match (reread.0)() {
            Ok(newer) => known.with_secrets_of(of(&newer)),
            Err(error) => {
                tracing::warn!(%error, hint = error.hint(), "could not read the configuration again");
                known
            }
        }
    }

    /// A session of the target for this role, which commits durably and waits for no lock without a
    /// limit.
    pub(crate) async fn target_session(&self, role: &str) -> Result<Connection> {
        let conninfo = &self.conninfo(Side::Target);
        let name = self.application_name(role);
        let conn = target::connect::connect_to_primary(conninfo, &name).await?;
        locks::of_target(&conn).await?;
        Ok(conn)
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

//! The life of the process: session after session, until it is asked to stop.
//!
//! Errors are sorted by consequence. After a transient error the process tries again, without
//! limit, with jittered, growing delays, and says why. A gap makes the next session copy everything
//! again. A row that the target rejects, or a change that cannot be mapped, makes the next session
//! go transaction by transaction, so that its read model is suspended exactly before that one. Only
//! an error of the configuration before the first stream ends the process.
//!
//! A reload that changes what a session sets up ends the session in order. The next one begins with
//! the new settings, by the same path as after a lost connection, or in a new process.

pub(crate) mod applier;
pub(crate) mod bind;
pub(crate) mod budget;
pub(crate) mod catch_up;
pub(crate) mod clock;
pub(crate) mod copy;
pub(crate) mod fence;
pub(crate) mod in_force;
pub(crate) mod keeper;
pub(crate) mod lessons;
pub(crate) mod locks;
pub(crate) mod messages;
pub(crate) mod owner;
pub(crate) mod ownership;
pub(crate) mod plain;
pub(crate) mod preflight;
pub(crate) mod pressure;
pub(crate) mod publish;
pub(crate) mod pulse;
pub(crate) mod reload;
pub(crate) mod report;
pub(crate) mod resync;
pub(crate) mod session;
pub(crate) mod shared;
pub(crate) mod state;
pub(crate) mod stream;
pub(crate) mod supervisor;
pub(crate) mod unreadable;
pub(crate) mod waiting;
pub(crate) mod watch;

use tokio_util::sync::CancellationToken;

use crate::error::Result;
use crate::run::shared::Shared;
use crate::settings::Settings;

/// Runs until `stop` is cancelled.
///
/// # Errors
/// Only before the first stream, and only what a person has to correct.
pub(crate) async fn run(settings: Settings, stop: CancellationToken) -> Result<()> {
    supervisor::start(Shared::new(settings, stop), None).await
}

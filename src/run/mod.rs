//! The life of the process: session after session, until it is asked to stop.
//!
//! Errors are sorted by consequence. What may pass is tried again for ever with jittered, growing
//! delays, saying why. A gap makes the next session copy everything anew. A row that the target
//! rejects, or a change that cannot be mapped, makes the next session go transaction by
//! transaction, so that its read model is suspended exactly before that one. Only an error of the
//! configuration before the first stream ends the process.

pub mod applier;
pub mod bind;
pub mod budget;
pub mod catch_up;
pub mod clock;
pub mod copy;
pub mod fence;
pub mod keeper;
pub mod lessons;
pub mod locks;
pub mod messages;
pub mod ownership;
pub mod plain;
pub mod preflight;
pub mod pressure;
pub mod publish;
pub mod pulse;
pub mod report;
pub mod resync;
pub mod session;
pub mod shared;
pub mod state;
pub mod stream;
pub mod supervisor;
pub mod unreadable;
pub mod waiting;
pub mod watch;

use tokio_util::sync::CancellationToken;

use crate::error::Result;
use crate::run::shared::Shared;
use crate::settings::Settings;

/// Runs until `stop` is cancelled.
///
/// # Errors
/// Only before the first stream, and only what a person has to correct.
pub async fn run(settings: Settings, stop: CancellationToken) -> Result<()> {
    supervisor::start(Shared::new(settings, stop)).await
}

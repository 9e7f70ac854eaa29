//! `cdc run`: keeps the lookup tables in step until stopped.

use super::{Context, HELP_TEMPLATE, Outcome, stop};
use crate::config::Loaded;
use crate::error::Result;
use crate::run::shared::{Reread, Shared};
use crate::schedule::Schedule;
use crate::settings::ReadModelSettings;

const EXAMPLES: &str = "\
Examples:
  cdc run
  cdc run --config /etc/cdc.toml
  CDC_SOURCE_URL_FILE=/run/secrets/source CDC_TARGET_URL_FILE=... cdc run

It is the only command that is needed, and may be stopped and started at any time: it prepares what is missing,
copies each source table once, then follows the source commit by commit. The first SIGTERM or Ctrl-C finishes the
batch and leaves, the second one leaves at once. SIGHUP makes it read its configuration again; the log says what
changed, and what needs a restart. SIGUSR1 and SIGUSR2 do nothing.";

/// Keep the lookup tables in step until stopped
///
/// Creates publication, slot and bookkeeping where they are missing, copies each source table once
/// and then follows the source. Recovers by itself when a database goes away; exits with code 2
/// only if the configuration, or a setting of a server, must be changed by a person.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, help_template = HELP_TEMPLATE)]
pub(crate) struct Args {
    /// Take an existing slot of this name that is not known to be this pipeline's: it is dropped
    /// and created again
    ///
    /// Any other consumer of the slot loses what it has not read yet. Needed once at most: from
    /// then on the slot is this pipeline's.
    #[arg(long)]
    pub take_slot: bool,
}

/// Runs the command.
///
/// # Errors
///
/// Whatever stops the command.
pub(crate) async fn run(args: &Args, context: &Context) -> Result<Outcome> {
    // First of all: from here on the signal ends no process.
    let hangups = stop::hangups()?;
    let loaded = context.load_and_log()?;
    let reread = reread(context, &loaded);
    let settings = loaded.settings;
    // Where the pipelines of a fleet have times of their own.
    let delay = Schedule::of(&settings.resync, &settings.source.slot)?
        .map(|schedule| schedule.delay().as_secs())
        .filter(|_| !settings.resync.jitter.is_zero());
    tracing::info!(
        source = %settings.source.conninfo,
        target = %settings.target.conninfo,
        slot = settings.source.slot,
        publication = settings.source.publication,
        bookkeeping = settings.target.schema,
        read_models = settings.read_models.iter().map(ReadModelSettings::name).collect::<Vec<_>>().join(", "),
        resync = settings.resync.schedule.as_deref().unwrap_or("off"),
        resync_delay_s = delay,
        "cdc starts"
    );
    let mut shared = Shared::new(settings, context.stop.token().clone());
    shared.take_slot = args.take_slot;
    shared.reread = Some(reread);
    crate::run::supervisor::start(shared, Some(hangups)).await?;
    tracing::info!("cdc has stopped");
    Ok(Outcome::Done)
}

/// Reads the configuration again, from the file that was `loaded`. Without that file it would be
/// another configuration: a file that is missing for a moment, while somebody replaces it, must not
/// be the end of all read models.
fn reread(context: &Context, loaded: &Loaded) -> Reread {
    let mut flags = context.flags();
    flags.config = loaded.file.clone();
    Reread::by(move || crate::config::load(&flags))
}

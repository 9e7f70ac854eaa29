//! `cdc teardown`: removes what setup and run have made.

use super::{Context, HELP_TEMPLATE, Outcome};
use crate::error::{Error, Result};

const EXAMPLES: &str = "\
Examples:
  cdc teardown                       ask first
  cdc teardown --yes
  cdc teardown --yes --truncate-lookups

Stop 'cdc run' before. The lookup tables stay as they are, so reports go on working with the last state.";

/// Remove what setup and run have made
///
/// Drops the replication slot and the publication at the source (only one that cdc made) and the bookkeeping schema at
/// the target. The lookup tables and their rows stay.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, help_template = HELP_TEMPLATE)]
pub struct Args {
    /// Do not ask
    #[arg(long, short = 'y')]
    pub yes: bool,

    /// Empty the lookup tables as well
    #[arg(long)]
    pub truncate_lookups: bool,
}

/// Runs the command.
///
/// # Errors
///
/// Whatever stops the command.
pub async fn run(_args: &Args, context: &Context) -> Result<Outcome> {
    let _settings = context.settings()?;
    Err(Error::configuration("\"cdc teardown\" is not built yet"))
}

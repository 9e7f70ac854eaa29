//! `cdc status`: shows how far each read model is.

use super::{Context, HELP_TEMPLATE, Outcome};
use crate::error::{Error, Result};

const EXAMPLES: &str = "\
Examples:
  cdc status
  cdc status --json | jq .read_models
  cdc status --watch

Exit codes: 0 healthy, 1 not healthy, 2 wrong usage or configuration.";

/// Show how far each read model is
///
/// Reads both databases, not the running process, so it also works where cdc is not running or one database is
/// down; it says what it could not see.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, help_template = HELP_TEMPLATE)]
pub struct Args {
    /// Print one JSON document; fields are only ever added to it
    #[arg(long)]
    pub json: bool,

    /// Show it again every two seconds until stopped
    #[arg(long, conflicts_with = "json")]
    pub watch: bool,
}

/// Runs the command.
///
/// # Errors
///
/// Whatever stops the command.
pub async fn run(_args: &Args, context: &Context) -> Result<Outcome> {
    let _settings = context.settings()?;
    Err(Error::configuration("\"cdc status\" is not built yet"))
}

//! `cdc check`: says what is wrong or would go wrong, and changes nothing.

use super::{Context, HELP_TEMPLATE, Outcome};
use crate::error::{Error, Result};

const EXAMPLES: &str = "\
Examples:
  cdc check
  cdc check --json
  cdc check && cdc run

Exit codes: 0 nothing found, 1 findings, 2 wrong usage or configuration.";

/// Say what is wrong or would go wrong, without changing anything
///
/// Looks at both databases: settings, privileges, publication, slot, tables and columns of each read model, and
/// whatever would make the application's own writes on the master fail. Each finding says what to do about it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, help_template = HELP_TEMPLATE)]
pub struct Args {
    /// Print the findings as one JSON document
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
///
/// # Errors
///
/// Whatever stops the command.
pub async fn run(_args: &Args, context: &Context) -> Result<Outcome> {
    let _settings = context.settings()?;
    Err(Error::configuration("\"cdc check\" is not built yet"))
}

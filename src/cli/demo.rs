//! `cdc demo`: shows it at work on two throw-away servers.

use super::{Context, HELP_TEMPLATE, Outcome};
use crate::error::Result;

const EXAMPLES: &str = "\
Examples:
  cdc demo
  cdc demo --pg-bin /usr/lib/postgresql/17/bin
  cdc demo --keep                    leave the servers running, to look around with psql

Needs nothing but the server programs of PostgreSQL (initdb, postgres). Flags and variables that name databases are not
looked at.";

/// Show it at work on two throw-away servers
///
/// Starts two servers in a temporary directory, makes the master and the reporting tables, runs cdc
/// between them, changes labels and shows the report following. Removes everything at the end.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, help_template = HELP_TEMPLATE)]
pub(crate) struct Args {
    /// Leave both servers running and print how to connect and how to stop them
    #[arg(long)]
    pub keep: bool,

    /// Directory of initdb and postgres [default: found by PATH and in the usual places]
    #[arg(long, value_name = "DIR", env = "CDC_PG_BIN", hide_env_values = true)]
    pub pg_bin: Option<std::path::PathBuf>,
}

/// Runs the command.
///
/// # Errors
///
/// Whatever stops the command.
pub(crate) async fn run(args: &Args, context: &Context) -> Result<Outcome> {
    crate::demo::run(args.keep, args.pg_bin.clone(), context.stop.token().clone()).await?;
    Ok(Outcome::Done)
}

//! `cdc setup`: prepares both databases.

use super::{Context, HELP_TEMPLATE, Outcome};
use crate::error::{Error, Result};

const EXAMPLES: &str = "\
Examples:
  cdc setup
  cdc setup --print-sql              print the statements, for somebody with the privileges
  cdc setup --print-sql | less

'cdc run' does the same by itself if it has the privileges. The replication slot is made by 'cdc run' alone: an unused
slot would hold WAL on the disk of the master.";

/// Prepare both databases: publication, bookkeeping, lookup tables
///
/// Creates the publication at the source, the bookkeeping schema at the target and lookup tables that do not exist.
/// An existing lookup table is taken as it is. May be run again at any time.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, help_template = HELP_TEMPLATE)]
pub struct Args {
    /// Print the SQL statements that are still needed, and run none
    #[arg(long)]
    pub print_sql: bool,
}

/// Runs the command.
///
/// # Errors
///
/// Whatever stops the command.
pub async fn run(_args: &Args, context: &Context) -> Result<Outcome> {
    let _settings = context.settings()?;
    Err(Error::configuration("\"cdc setup\" is not built yet"))
}

//! `cdc resync`: compares lookup tables with their sources and repairs differences.

use super::{Context, HELP_TEMPLATE, Outcome};
use crate::error::{Error, Result};

const EXAMPLES: &str = "\
Examples:
  cdc resync                         all read models
  cdc resync public.labels_lookup
  cdc resync --dry-run               only count the differences

A running 'cdc run' carries it out while it goes on following the source; where none runs, this command does it.
Readers never see an empty or mixed table, and unchanged rows are not written.

Exit codes: 0 done, and with --dry-run no differences; 1 differences, or not done; 2 wrong usage or configuration.";

/// Compare lookup tables with their sources and repair differences
///
/// Copies each source under the snapshot of a new slot, brings the copy to the position of the stream, compares every
/// row and writes only what differs.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, help_template = HELP_TEMPLATE)]
pub struct Args {
    /// Lookup tables of the read models; all of them if none is named
    #[arg(value_name = "READ_MODEL")]
    pub read_models: Vec<String>,

    /// Count and name the differences, repair none
    #[arg(long)]
    pub dry_run: bool,

    /// Print the result as one JSON document
    #[arg(long)]
    pub json: bool,

    /// Follow another server than the one followed so far (restored by dump, pg_upgrade, another cluster)
    #[arg(long, conflicts_with = "dry_run")]
    pub accept_new_source: bool,
}

/// Runs the command.
///
/// # Errors
///
/// Whatever stops the command.
pub async fn run(_args: &Args, context: &Context) -> Result<Outcome> {
    let _settings = context.settings()?;
    Err(Error::configuration("\"cdc resync\" is not built yet"))
}

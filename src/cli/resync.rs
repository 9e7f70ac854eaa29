//! `cdc resync`: compares lookup tables with their sources and repairs differences.

use tokio_util::sync::CancellationToken;

use super::common::{self, named};
use super::output::{note, print};
use super::request::{Asked, CARRIES_OUT, left_out, wait};
use super::verify::{self, DEFAULT_KEYS, keys};
use super::{Context, HELP_TEMPLATE, Outcome, compared};
use crate::connect::Connection;
use crate::error::{Error, Result};
use crate::settings::Settings;
use crate::target::bookkeeping::Bookkeeping;
use crate::{source, target};

const EXAMPLES: &str = "\
Examples:
  cdc resync                   all read models
  cdc resync public.labels_lookup
  cdc resync --dry-run         only count and name the differences, as cdc verify

A running 'cdc run' carries it out while it follows the source; where none runs, this command does it.
Readers never see an empty or mixed table, and unchanged rows are not written. Rows that the lookup does not take are named as
rejected: a resync cannot repair them.

Exit codes: 0 done, and with --dry-run no differences; 1 differences, or not done; 2 wrong usage or configuration.";

/// Compare lookup tables with their sources and repair differences
///
/// Copies each source under the snapshot of a new slot, brings the copy to the position of the
/// stream, compares every row and writes only what differs.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, help_template = HELP_TEMPLATE)]
pub(crate) struct Args {
    /// Lookup tables of the read models; all of them if none is named
    #[arg(value_name = "READ_MODEL")]
    pub read_models: Vec<String>,

    /// Count and name the differences, repair none
    #[arg(long)]
    pub dry_run: bool,

    /// Keys to name of each kind of difference, with --dry-run
    #[arg(long, value_name = "N", requires = "dry_run", default_value_t = DEFAULT_KEYS, value_parser = keys())]
    pub limit: u16,

    /// Print the result as one JSON document
    #[arg(long)]
    pub json: bool,

    /// Follow another server than the one followed so far (restored by dump, pg_upgrade, another
    /// cluster)
    #[arg(long, conflicts_with = "dry_run")]
    pub accept_new_source: bool,
}

/// Runs the command.
///
/// # Errors
///
/// Whatever stops the command.
pub(crate) async fn run(args: &Args, context: &Context) -> Result<Outcome> {
    if args.dry_run {
        return verify::compare(&args.read_models, args.limit, args.json, context).await;
    }
    let settings = context.settings()?;
    let schema = settings.target.schema.clone();
    let names = named(&args.read_models, &settings)?;
    let asked = repair(args, settings.clone(), names.as_deref(), context).await?;
    let unknown = left_out(&settings.read_models, names.as_deref(), &asked);
    let (result, error) = asked;
    if result.is_none() && error.is_none() {
        note(
            "The lookups were resynced. How many rows that wrote is not known: the session ended before it was stored.",
        );
    }
    if let Some(result) = result {
        let text = if args.json {
            format!("{result}\n")
        } else {
            compared::resync(&result, &schema)
        };
        print(&text)?;
    }
    match error.map(Error::transient).or(unknown) {
        None => Ok(Outcome::Done),
        Some(error) => Err(error),
    }
}

/// Asks the running process, or resyncs in this process; the result of the read models that could
/// be copied, and why others could not.
async fn repair(
    args: &Args,
    settings: Settings,
    names: Option<&[String]>,
    context: &Context,
) -> Result<Asked> {
    let bookkeeping = Bookkeeping::new(&settings.target.schema);
    let mut conn = target::connect::connect(&settings.target.conninfo, "cdc resync").await?;
    bookkeeping.ensure(&mut conn).await?;
    if args.accept_new_source {
        accept_new_source(&settings, &bookkeeping, &mut conn).await?;
    }
    let id = bookkeeping
        .request_resync(&mut conn, names, None, "request")
        .await?;
    let waited = if bookkeeping.owner_is_alive(&mut conn).await? {
        note(CARRIES_OUT);
        context
            .stop
            .or_interrupted(wait(&bookkeeping, &mut conn, id, true))
            .await
    } else {
        carry_out(settings, &bookkeeping, &mut conn, id, context).await
    };
    if waited.is_err() {
        // This command no longer waits for it.
        let _ = bookkeeping.cancel_resync(&mut conn, id).await;
    }
    waited
}

/// Reports which source is forgotten and which one is copied instead.
///
/// # Errors
/// Configuration: a running process reads another source into this bookkeeping.
async fn accept_new_source(
    settings: &Settings,
    bookkeeping: &Bookkeeping,
    conn: &mut Connection,
) -> Result<()> {
    // Nothing counts as copied any more: `cdc run` takes the first primary.
    let client = common::source(settings, "resync", None).await?;
    let (system, database) = source::facts::system(&client).await?;
    let ownership = bookkeeping.ownership(conn, &settings.source.slot).await?;
    ownership.check_reader((&system, &database))?;
    if let Some((old_system, old_database)) = &ownership.known.copied_from {
        note(&format!(
            "The lookups were copied from database \"{old_database}\", system identifier {old_system}. All of them are copied again from \
             database \"{database}\", system identifier {system}; readers keep the old rows until then."
        ));
    }
    bookkeeping.accept_new_source(conn).await
}

/// The same engine, in this process, until the request is done.
async fn carry_out(
    settings: Settings,
    bookkeeping: &Bookkeeping,
    conn: &mut Connection,
    id: i64,
    context: &Context,
) -> Result<Asked> {
    let slot = settings.source.slot.clone();
    let engine = CancellationToken::new();
    let mut work = std::pin::pin!(crate::run::run(settings, engine.clone()));
    let waited = tokio::select! {
        result = context.stop.or_interrupted(wait(bookkeeping, conn, id, false)) => {
            engine.cancel();
            // It ends in order: its state is stored, and no part of a copy stays behind.
            work.as_mut().await?;
            result
        }
        result = &mut work => Err(result.err().unwrap_or_else(|| Error::transient("the engine ended before the resync"))),
    };
    if waited.is_ok() {
        note(&format!(
            "No cdc runs now: slot \"{slot}\" keeps WAL at the source until `cdc run` continues, or `cdc teardown` drops it."
        ));
    }
    waited
}

//! `cdc resync`: compares lookup tables with their sources and repairs differences; `cdc verify` only compares.

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::output::{note, print};
use super::request::wait;
use super::{Context, HELP_TEMPLATE, Outcome, compared};
use crate::error::{Error, Result};
use crate::settings::{ReadModelSettings, Settings};
use crate::sql::TableName;
use crate::target;
use crate::target::bookkeeping::Bookkeeping;

const EXAMPLES: &str = "\
Examples:
  cdc resync                         all read models
  cdc resync public.labels_lookup
  cdc resync --dry-run               only count and name the differences, as cdc verify does

A running 'cdc run' carries it out while it goes on following the source; where none runs, this command does it.
Readers never see an empty or mixed table, and unchanged rows are not written. Rows that the lookup does not take are named as
rejected: a resync cannot repair them.

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

    /// Keys to name of each kind of difference, with --dry-run
    #[arg(long, value_name = "N", requires = "dry_run", default_value_t = DEFAULT_KEYS, value_parser = keys())]
    pub limit: u16,

    /// Print the result as one JSON document
    #[arg(long)]
    pub json: bool,

    /// Follow another server than the one followed so far (restored by dump, pg_upgrade, another cluster)
    #[arg(long, conflicts_with = "dry_run")]
    pub accept_new_source: bool,
}

const VERIFY_EXAMPLES: &str = "\
Examples:
  cdc verify                         all read models
  cdc verify public.labels_lookup --limit 1000
  cdc verify --json | jq '.[].different'

The same as 'cdc resync --dry-run': a running 'cdc run' compares while it goes on following the source; where none runs,
this command does it, and brings the lookups up to date first.

Rows that the lookup does not take ('rejected') are differences. Live rows whose key another one has ('duplicate') are none: the one
with the smallest identity is shown.

Exit codes: 0 no differences; 1 differences, or not done; 2 wrong usage or configuration.";

/// Compare lookup tables with their sources and repair nothing
///
/// Copies each source under the snapshot of a new slot, brings the copy to the position of the stream and compares every
/// row there: what differs is drift, never a change that is still on its way.
#[derive(Debug, clap::Args)]
#[command(after_help = VERIFY_EXAMPLES, help_template = HELP_TEMPLATE)]
pub struct VerifyArgs {
    /// Lookup tables of the read models; all of them if none is named
    #[arg(value_name = "READ_MODEL")]
    pub read_models: Vec<String>,

    /// Keys to name of each kind of difference
    #[arg(long, value_name = "N", default_value_t = DEFAULT_KEYS, value_parser = keys())]
    pub limit: u16,

    /// Print the result as one JSON document
    #[arg(long)]
    pub json: bool,
}

/// Keys of each kind of difference that are named if nobody says how many.
const DEFAULT_KEYS: u16 = 20;

/// They are kept in the bookkeeping, so there is a bound.
const MOST_KEYS: u16 = 10_000;

fn keys() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(0..=i64::from(MOST_KEYS))
}

/// Runs `cdc verify`.
///
/// # Errors
///
/// Whatever stops the command.
pub async fn verify(args: &VerifyArgs, context: &Context) -> Result<Outcome> {
    let args = Args {
        read_models: args.read_models.clone(),
        dry_run: true,
        limit: args.limit,
        json: args.json,
        accept_new_source: false,
    };
    run(&args, context).await
}

/// Runs the command.
///
/// # Errors
///
/// Whatever stops the command.
pub async fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let settings = context.settings()?;
    let schema = settings.target.schema.clone();
    let names = read_models(args, &settings)?;
    let bookkeeping = Bookkeeping::new(&settings.target.schema);
    let mut conn = target::connect::connect(&settings.target.conninfo, "cdc resync").await?;
    bookkeeping.ensure(&mut conn).await?;
    if args.accept_new_source {
        bookkeeping.accept_new_source(&mut conn).await?;
    }
    let id = bookkeeping
        .request_resync(
            &mut conn,
            names.as_deref(),
            args.dry_run.then_some(args.limit),
            "request",
        )
        .await?;
    let waited = if bookkeeping.owner_is_alive(&mut conn).await? {
        note("A running cdc carries it out.");
        context
            .stop
            .or_interrupted(wait(&bookkeeping, &mut conn, id, true))
            .await
    } else {
        // The same engine, in this process, until the request is done.
        let engine = CancellationToken::new();
        let mut work = std::pin::pin!(crate::run::run(settings, engine.clone()));
        tokio::select! {
            result = context.stop.or_interrupted(wait(&bookkeeping, &mut conn, id, false)) => {
                engine.cancel();
                // It leaves in order: its state is stored, nothing of a copy stays behind.
                work.as_mut().await?;
                result
            }
            result = &mut work => Err(result.err().unwrap_or_else(|| Error::transient("the engine ended before the resync"))),
        }
    };
    if waited.is_err() {
        // Nobody waits for it any more.
        let _ = bookkeeping.cancel_resync(&mut conn, id).await;
    }
    let (result, error) = waited?;
    if let Some(error) = error {
        return Err(Error::transient(error));
    }
    let result = result.unwrap_or(Value::Null);
    if args.json {
        print(&format!("{result}\n"))?;
    } else {
        let text = if args.dry_run {
            compared::comparison(&result)
        } else {
            compared::resync(&result, &schema)
        };
        print(&text)?;
    }
    Ok(if args.dry_run && compared::differs(&result) {
        Outcome::Findings
    } else {
        Outcome::Done
    })
}

/// The named read models as they are called everywhere; `None` for all.
fn read_models(args: &Args, settings: &Settings) -> Result<Option<Vec<String>>> {
    if args.read_models.is_empty() {
        return Ok(None);
    }
    let known: Vec<String> = settings.read_models.iter().map(ReadModelSettings::name).collect();
    let mut names = Vec::new();
    for name in &args.read_models {
        let wanted = name.parse::<TableName>()?.to_string();
        if !known.contains(&wanted) {
            return Err(
                Error::configuration(format!("read model \"{wanted}\" is not configured"))
                    .with_hint(format!("Configured are: {}.", known.join(", "))),
            );
        }
        names.push(wanted);
    }
    Ok(Some(names))
}

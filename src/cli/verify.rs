//! `cdc verify`: compares lookup tables with their sources and changes nothing, before the first
//! run and beside a running `cdc`.

use super::common::named;
use super::output::{note, print, print_error};
use super::request::{Asked, CARRIES_OUT, left_out, wait};
use super::{Context, HELP_TEMPLATE, Outcome, compared};
use crate::connect::Connection;
use crate::error::{Error, Result};
use crate::run::{plain, report};
use crate::settings::{ReadModelSettings, Settings};
use crate::status;
use crate::target;
use crate::target::bookkeeping::{Bookkeeping, Standing, hidden};

const EXAMPLES: &str = "\
Examples:
  cdc verify                         all read models
  cdc verify public.labels_lookup --limit 1000
  cdc verify --json | jq '.[].different'

The same as 'cdc resync --dry-run'. A running 'cdc run' compares at one position of the stream while it follows the
source: what differs is drift. The result is in its history, and 'cdc status' reports differences until the next comparison.

Where none runs, also before the first run, both sides are compared as they are now. Nothing is left behind on either side, no
publication, slot, bookkeeping or row: the source's rows are read in a snapshot and held against the lookup in temporary tables.
What differs counts only if neither row has changed when it is looked at again after 5 s. If cdc has run before, what the source
has changed since then counts as a difference. The roles need SELECT on both tables and TEMPORARY on the target's database.

Rows that the lookup does not take ('rejected') are differences. Live rows whose key another one has ('duplicate') are none: the one
with the smallest identity is shown.

Exit codes: 0 no differences; 1 differences, or not done; 2 wrong usage or configuration.";

/// Compare lookup tables with their sources and repair nothing
///
/// Counts and names rows that a lookup lacks, has too many, shows with other values or does not
/// take. It can be used before 'cdc run', to see how right a lookup is that something else keeps.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, help_template = HELP_TEMPLATE)]
pub(crate) struct Args {
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

/// Keys of each kind of difference that are named if the user does not say how many.
pub(super) const DEFAULT_KEYS: u16 = 20;

/// They are kept in the bookkeeping, so there is a bound.
const MOST_KEYS: u16 = 10_000;

/// The values of `--limit`.
pub(super) fn keys() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(0..=i64::from(MOST_KEYS))
}

/// Runs the command.
///
/// # Errors
///
/// Whatever stops the command.
pub(crate) async fn run(args: &Args, context: &Context) -> Result<Outcome> {
    compare(&args.read_models, args.limit, args.json, context).await
}

/// Compares, also for `cdc resync --dry-run`.
pub(super) async fn compare(
    read_models: &[String],
    limit: u16,
    json: bool,
    context: &Context,
) -> Result<Outcome> {
    let settings = context.settings()?;
    let names = named(read_models, &settings)?;
    let (result, mut errors) = match ask(&settings, names.as_deref(), limit, context).await? {
        Some(asked) => asked,
        None => {
            let comparing = plainly(&settings, names.as_deref(), limit);
            context.stop.or_interrupted(comparing).await?
        }
    };
    if let Some(result) = &result {
        print(&if json {
            format!("{result}\n")
        } else {
            compared::comparison(result)
        })?;
    }
    if let Some(last) = errors.pop() {
        errors.iter().for_each(print_error);
        return Err(last);
    }
    Ok(if result.is_some_and(|result| compared::differs(&result)) {
        Outcome::Findings
    } else {
        Outcome::Done
    })
}

/// The results of the read models that could be compared, and why others could not.
type Compared = (Option<serde_json::Value>, Vec<Error>);

/// Asks a running `cdc` to compare; `None` if there is none.
async fn ask(
    settings: &Settings,
    names: Option<&[String]>,
    limit: u16,
    context: &Context,
) -> Result<Option<Compared>> {
    let bookkeeping = Bookkeeping::new(&settings.target.schema);
    let mut conn = target::connect::connect(&settings.target.conninfo, "cdc verify").await?;
    let standing = bookkeeping.standing(&mut conn).await?;
    if standing == Standing::Running {
        let request = bookkeeping.request_resync(&mut conn, names, Some(limit), "request");
        match request.await {
            Ok(id) => {
                note(CARRIES_OUT);
                let asked = wait_for(&bookkeeping, &mut conn, id, context).await?;
                let unknown = left_out(&settings.read_models, names, &asked);
                let (result, error) = asked;
                let errors = error.map(Error::transient).into_iter().chain(unknown);
                return Ok(Some((result, errors.collect())));
            }
            Err(error) if hidden(&error) => {
                note(&why_plainly(&Standing::Hidden, &settings.target.schema))
            }
            Err(error) => return Err(error),
        }
    } else {
        note(&why_plainly(&standing, &settings.target.schema));
    }
    Ok(None)
}

/// Waits for the running process; cancels the request if this command ends first.
async fn wait_for(
    bookkeeping: &Bookkeeping,
    conn: &mut Connection,
    id: i64,
    context: &Context,
) -> Result<Asked> {
    let waited = context
        .stop
        .or_interrupted(wait(bookkeeping, conn, id, true))
        .await;
    if waited.is_err() {
        let _ = bookkeeping.cancel_resync(conn, id).await;
    }
    waited
}

/// What the comparison rests on if no `cdc` runs.
fn why_plainly(standing: &Standing, schema: &str) -> String {
    let now = "the lookups are compared with the source as both are now, and nothing is changed";
    match standing {
        Standing::Hidden => {
            format!(
                "This role may not use the bookkeeping in schema \"{schema}\", so no running cdc can be asked: {now}."
            )
        }
        Standing::Stopped {
            applied_at: Some(time),
        } => format!(
            "No running cdc was found: {now}. They were last brought up to date at {}; what the source has changed since then counts \
             as a difference.",
            status::time(time)
        ),
        _ => format!("No running cdc was found: {now}."),
    }
}

/// Compares here, as both sides are now.
async fn plainly(settings: &Settings, names: Option<&[String]>, limit: u16) -> Result<Compared> {
    let wanted =
        |model: &&ReadModelSettings| names.is_none_or(|names| names.contains(&model.name()));
    let models: Vec<&ReadModelSettings> = settings.read_models.iter().filter(wanted).collect();
    let mut found = Vec::new();
    let mut errors = Vec::new();
    for (name, compared) in plain::compare(settings, &models, limit.into()).await {
        match compared {
            Ok(compared) => found.push((name, compared)),
            Err(error) => errors.push(error),
        }
    }
    let result = (!found.is_empty()).then(|| report::plain(&found));
    Ok((result, errors))
}

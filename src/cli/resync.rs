//! `cdc resync`: compares lookup tables with their sources and repairs differences; `cdc verify` only compares.

use std::time::{Duration, Instant};

use serde_json::Value;
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;

use super::output::{note, print};
use super::{Context, HELP_TEMPLATE, Outcome};
use crate::error::{Error, Result};
use crate::settings::{ReadModelSettings, Settings};
use crate::sql::TableName;
use crate::target;
use crate::target::bookkeeping::Bookkeeping;
use crate::telemetry::line;

const EXAMPLES: &str = "\
Examples:
  cdc resync                         all read models
  cdc resync public.labels_lookup
  cdc resync --dry-run               only count and name the differences, as cdc verify does

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

/// How often the progress of a copy is shown on a terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// How often the result is looked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// How long the running cdc may be away, for example because it begins a new session.
const OWNER_PATIENCE: Duration = Duration::from_secs(30);

/// Runs the command.
///
/// # Errors
///
/// Whatever stops the command.
pub async fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let settings = context.settings()?;
    let names = read_models(args, &settings)?;
    let bookkeeping = Bookkeeping::new(&settings.target.schema);
    let mut conn = target::connect::connect(&settings.target.conninfo, "cdc resync", true).await?;
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
        print(&rendered(&result, args.dry_run))?;
    }
    Ok(if args.dry_run && differs(&result) {
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

/// Waits until the request is done; says once what it waits for.
/// `asked` is a running cdc: where it leaves, nobody carries the request out.
async fn wait(
    bookkeeping: &Bookkeeping,
    conn: &mut PgConnection,
    id: i64,
    asked: bool,
) -> Result<(Option<Value>, Option<String>)> {
    let mut told = None;
    let mut seen = Instant::now();
    // Where this process copies, it shows the progress by itself.
    let mut line = Line::new(asked && line::is_on());
    loop {
        line.show(bookkeeping, conn).await?;
        if !asked || bookkeeping.owner_is_alive(conn).await? {
            seen = Instant::now();
        } else if seen.elapsed() > OWNER_PATIENCE {
            return Err(Error::transient("the running cdc has left before it was done")
                .with_hint("Run the command again, or start `cdc run`, which carries the request out."));
        }
        let (state, result, error, waiting_for) = bookkeeping.resync_outcome(conn, id).await?;
        if matches!(state.as_str(), "done" | "failed") {
            return Ok((result, error));
        }
        if waiting_for.is_some() && waiting_for != told {
            note(&format!(
                "Waiting: {}",
                waiting_for.as_deref().unwrap_or_default()
            ));
            told = waiting_for;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// The progress of the copies of the running cdc on a terminal; it is gone at the end.
struct Line {
    shown: Option<Instant>,
    terminal: bool,
}

impl Line {
    fn new(terminal: bool) -> Self {
        Self {
            shown: None,
            terminal,
        }
    }

    async fn show(&mut self, bookkeeping: &Bookkeeping, conn: &mut PgConnection) -> Result<()> {
        if !self.terminal || self.shown.is_some_and(|at| at.elapsed() < LINE_INTERVAL) {
            return Ok(());
        }
        let seen = target::report::bookkeeping(conn, bookkeeping.schema_name()).await?;
        let models = seen.map(|seen| seen.read_models).unwrap_or_default();
        let copies = models
            .iter()
            .filter_map(|model| Some((model.name.as_str(), model.copy.as_ref()?)));
        self.shown = Some(Instant::now());
        line::show(copies);
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.shown.is_some() {
            line::clear();
        }
    }
}

fn count(found: &Value, name: &str) -> i64 {
    found.get(name).and_then(Value::as_i64).unwrap_or(0)
}

fn differs(result: &Value) -> bool {
    result.as_object().is_some_and(|models| {
        models.values().any(|found| {
            ["missing", "extra", "different"]
                .iter()
                .any(|kind| count(found, kind) > 0)
        })
    })
}

/// A line for each read model, and the keys of what differs.
fn rendered(result: &Value, dry_run: bool) -> String {
    let mut text = String::new();
    for (name, found) in result.as_object().into_iter().flatten() {
        if dry_run {
            let [missing, extra, different, same] =
                ["missing", "extra", "different", "same"].map(|kind| count(found, kind));
            text.push_str(&format!(
                "{name}: {missing} missing, {extra} extra, {different} different, {same} right\n"
            ));
            for (kind, keys) in found.get("keys").and_then(Value::as_object).into_iter().flatten() {
                let named = keys.as_array().map_or(0, Vec::len);
                for key in keys.as_array().into_iter().flatten().filter_map(Value::as_str) {
                    text.push_str(&format!("  {kind}: {key}\n"));
                }
                let more = count(found, kind).saturating_sub(i64::try_from(named).unwrap_or(0));
                if more > 0 {
                    text.push_str(&format!("  {kind}: {more} more (--limit N names N of them)\n"));
                }
            }
        } else {
            let [total, inserted, updated, deleted, unchanged] =
                ["total", "inserted", "updated", "deleted", "unchanged"].map(|kind| count(found, kind));
            text.push_str(&format!(
                "{name}: {total} rows compared; repaired: {inserted} missing, {updated} different, {deleted} extra; \
                 {unchanged} were right\n"
            ));
        }
    }
    text
}

//! `cdc setup`: creates the publication, the bookkeeping and missing lookup tables; never the slot.
//!
//! Idempotent: what exists stays as it is. `--print-sql` prints exactly the statements that would
//! be executed, for a DBA who wants to run them; with `--all` everything that `cdc` runs to create
//! its objects, for a DBA who wants to read it.

use super::common::{self, say};
use super::{Context, Outcome};
use crate::connect::Connection;
use crate::error::{Class, Error, Result};
use crate::facts::SourceTable;
use crate::read_model::ModelIndex;
use crate::settings::Settings;
use crate::sql::ident;
use crate::target::bookkeeping::Bookkeeping;
use crate::target::presence::{Presence, presence};
use crate::{publication, source, target};

mod all;

const EXAMPLES: &str = "\
Examples:
  cdc setup
  cdc setup --print-sql          print the statements, for a DBA to run
  cdc setup --print-sql --all    print all that cdc runs in the target, to be read

'cdc run' does the same by itself if it has the privileges. The replication slot is made by 'cdc run' alone: an unused
slot would hold WAL on the disk of the master.";

/// Prepare both databases: publication, bookkeeping, lookup tables
///
/// Creates the publication at the source, the bookkeeping schema at the target and lookup tables
/// that do not exist. An existing lookup table is taken as it is. May be run again at any time.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Print the SQL statements that are still needed, and run none
    #[arg(long)]
    pub print_sql: bool,
    /// Print also what exists already, and the tables and functions that a session creates for each
    /// read model
    #[arg(long, requires = "print_sql")]
    pub all: bool,
}

/// Runs the command.
///
/// # Errors
///
/// Whatever stops the command.
pub(crate) async fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let settings = context.settings()?;
    if args.all {
        say(&context.stop.or_interrupted(all_sql(&settings)).await?)?;
        return Ok(Outcome::Done);
    }
    let good = context
        .stop
        .or_interrupted(execute(&settings, args.print_sql))
        .await?;
    Ok(if good {
        Outcome::Done
    } else {
        Outcome::Findings
    })
}

/// The statements for each side.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    publication: Vec<String>,
    bookkeeping: Option<String>,
    /// Read models without lookup table, with the statement.
    lookups: Vec<(ModelIndex, String)>,
}

/// All SQL by which `cdc` creates its objects in the target, as a script.
///
/// # Errors
/// What the servers report.
pub async fn all_sql(settings: &Settings) -> Result<String> {
    let mut conn = common::target(settings, "setup").await?;
    let copied = common::copied(&mut conn, settings).await?;
    let client = common::source(settings, "setup", copied.as_ref()).await?;
    let tables = common::source_tables(&client, settings).await?;
    all::text(&mut conn, settings, &tables).await
}

/// Sets up both sides, or prints the SQL; returns true.
///
/// # Errors
/// `Configuration` where something has to be corrected first; what the servers report.
pub async fn execute(settings: &Settings, print_sql: bool) -> Result<bool> {
    let mut conn = common::target(settings, "setup").await?;
    let copied = common::copied(&mut conn, settings).await?;
    let client = common::source(settings, "setup", copied.as_ref()).await?;
    let tables = common::source_tables(&client, settings).await?;
    let version = source::facts::server(&client).await?.version;
    let existing = source::facts::publication(&client, &settings.source.publication).await?;
    let bookkeeping = Bookkeeping::new(&settings.target.schema);
    let ownership = common::ownership(&mut conn, settings).await?;
    let publication = publication::plan(settings, &tables, existing.as_ref(), &ownership, version)?;
    if let Some(refusal) = publication.refusal().filter(|_| !print_sql) {
        return Err(refusal.with_class(Class::Configuration));
    }
    let plan = Plan {
        publication: publication.statements_for_a_person()?,
        bookkeeping: bookkeeping_sql(&mut conn, &bookkeeping).await?,
        lookups: lookups_sql(&mut conn, settings, &tables).await?,
    };
    if print_sql {
        say(&script(settings, &plan))?;
        return Ok(true);
    }
    let made = source::publication::ensure(&client, settings, &tables, &ownership).await?;
    for statement in &made.executed {
        say(&format!("source: {statement}"))?;
    }
    if let Some(refusal) = made.refusal {
        return Err(refusal);
    }
    bookkeeping.ensure(&mut conn).await.map_err(explain)?;
    if plan.bookkeeping.is_some() {
        say(&format!(
            "target: made schema {}",
            ident(&settings.target.schema)
        ))?;
    }
    for (index, _) in &plan.lookups {
        let model = index.of(&settings.read_models);
        let table = model.and_then(|model| tables.iter().find(|table| table.name == model.source));
        if let (Some(model), Some(table)) = (model, table) {
            target::lookup::create(&mut conn, model, table).await?;
            say(&format!("target: made table \"{}\"", model.target))?;
        }
    }
    if plan == Plan::default() {
        say("Everything is there already.")?;
    }
    say("Next: cdc run. It makes the slot, copies the rows and keeps them in step.")?;
    Ok(true)
}

/// The bookkeeping's SQL, if it is not there yet, or of an earlier version.
async fn bookkeeping_sql(
    conn: &mut Connection,
    bookkeeping: &Bookkeeping,
) -> Result<Option<String>> {
    let there = presence(conn, bookkeeping.schema_name()).await? == Presence::Ours;
    let done = there && bookkeeping.is_current(conn).await?;
    Ok((!done).then(|| bookkeeping.create_sql()))
}

/// The SQL of the lookups that are not there yet, each with its read model's place in the settings.
async fn lookups_sql(
    conn: &mut Connection,
    settings: &Settings,
    tables: &[SourceTable],
) -> Result<Vec<(ModelIndex, String)>> {
    let mut lookups = Vec::new();
    for (index, model) in ModelIndex::number(&settings.read_models) {
        let Some(table) = tables.iter().find(|table| table.name == model.source) else {
            continue;
        };
        if target::facts::table(conn, &model.target).await?.is_none() {
            lookups.push((index, target::lookup::create_sql(model, table)?));
        }
    }
    Ok(lookups)
}

/// Only a person can grant a missing privilege.
fn explain(error: Error) -> Error {
    if error.sqlstate() == Some("42501") {
        error.with_class(Class::Configuration).with_hint(
            "Let the target's owner run what cdc setup --print-sql prints, or grant CREATE on the database.",
        )
    } else {
        error
    }
}

fn script(settings: &Settings, plan: &Plan) -> String {
    let mut text = format!("-- At the source: {}\n", settings.source.conninfo);
    match plan.publication.as_slice() {
        [] => text.push_str("-- Nothing to do.\n"),
        statements => {
            text.push_str("BEGIN;\n");
            statements
                .iter()
                .for_each(|statement| text.push_str(&format!("{statement};\n")));
            text.push_str("COMMIT;\n");
        }
    }
    text.push_str(&format!(
        "\n-- At the target: {}\n",
        settings.target.conninfo
    ));
    if plan.bookkeeping.is_none() && plan.lookups.is_empty() {
        text.push_str("-- Nothing to do.\n");
    }
    if let Some(sql) = &plan.bookkeeping {
        text.push_str(&format!("BEGIN;\n{}\nCOMMIT;\n", sql.trim_end()));
    }
    for (_, statement) in &plan.lookups {
        text.push_str(&format!("{statement};\n"));
    }
    text.trim_end().to_owned()
}

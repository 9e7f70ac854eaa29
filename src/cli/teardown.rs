//! `cdc teardown`: removes what `cdc` has created, and nothing else.
//!
//! The slot (only if it is this pipeline's and no walsender reads it), the publication (only if its
//! comment names this pipeline) and the bookkeeping's schema (only if it is ours and no other
//! objects depend on it). Lookup tables stay, with their rows unless asked otherwise. What will be
//! done is listed and confirmed first.

use std::io::{BufRead, IsTerminal, Write};

use tokio_postgres::Client;

use super::common::{self, say};
use super::{Context, Outcome};
use crate::connect::Connection;
use crate::connect::query::query;
use crate::error::{Error, Result};
use crate::facts::{Publication, Slot};
use crate::ownership::{Maker, Ownership, drop_slot_sql};
use crate::settings::Settings;
use crate::source::error::from_driver;
use crate::sql::ident;
use crate::status::{Observed, Status, TargetSeen};
use crate::target::presence::{Presence, presence};
use crate::target::report::foreign_objects;
use crate::{source, target};

const EXAMPLES: &str = "\
Examples:
  cdc teardown                       ask first
  cdc teardown --yes
  cdc teardown --yes --truncate-lookups

Stop 'cdc run' before. The lookup tables stay as they are, so reports go on working with the last state.";

/// Remove what setup and run have created
///
/// Drops the replication slot and the publication at the source (only one that cdc created) and the
/// bookkeeping schema at the target. The lookup tables and their rows stay.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Do not ask
    #[arg(long, short = 'y')]
    pub yes: bool,

    /// Empty the lookup tables as well
    #[arg(long)]
    pub truncate_lookups: bool,
}

/// Runs the command.
///
/// # Errors
///
/// Whatever stops the command.
pub(crate) async fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let settings = context.settings()?;
    let good = context
        .stop
        .or_interrupted(execute(&settings, args.yes, args.truncate_lookups))
        .await?;
    Ok(if good {
        Outcome::Done
    } else {
        Outcome::Findings
    })
}

/// One thing to do, with its words before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    what: String,
    /// One transaction each.
    sql: Vec<String>,
}

/// How long a statement waits for a table that another session has locked, a dump for hours: later
/// sessions would wait behind it.
const LIMIT_LOCKS: &str = "SET lock_timeout = '30s'";

/// What it means here that a lock is not free.
const LOCKED: &str =
    "Another session has it locked, perhaps a dump: run teardown again when that has ended.";

/// Says what could not be done.
fn not_done(error: Error, step: &Step) -> Error {
    let locked = error.is_lock_timeout();
    let error = error.context(format!("could not take away {}", step.what));
    if locked {
        error.with_hint(LOCKED)
    } else {
        error
    }
}

/// What there is to do at each side, and what stays and why.
#[derive(Debug, Default)]
struct Plan {
    source: Vec<Step>,
    target: Vec<Step>,
    stays: Vec<String>,
    /// Whether something of ours has to stay.
    incomplete: bool,
}

/// Lists what will be removed, asks (unless `yes`), does it; returns whether nothing of ours is
/// left.
///
/// # Errors
/// `Configuration` if a `cdc` is running, or there is no terminal to ask on; what the servers
/// report.
pub async fn execute(settings: &Settings, yes: bool, truncate_lookups: bool) -> Result<bool> {
    let mut target = common::target(settings, "teardown").await;
    let mut plan = Plan::default();
    let (mut ownership, mut copied) = (None, None);
    match &mut target {
        Ok(conn) => {
            ownership = Some(common::ownership(conn, settings).await?);
            copied = common::copied(conn, settings).await?;
            plan_target(conn, settings, truncate_lookups, &mut plan).await?;
        }
        Err(error) => plan.leave(format!(
            "everything at the target, which could not be asked: {error}"
        )),
    }
    let source = common::source(settings, "teardown", copied.as_ref()).await;
    match &source {
        Ok(client) => plan_source(client, settings, ownership.as_ref(), &mut plan).await?,
        Err(error) => plan.leave(format!(
            "everything at the source, which could not be asked: {error}"
        )),
    }
    plan.tell()?;
    if plan.source.is_empty() && plan.target.is_empty() {
        say("Nothing to do.")?;
        return Ok(!plan.incomplete);
    }
    if !yes && !confirmed()? {
        say("Nothing was done.")?;
        return Ok(false);
    }
    // The slot first: it is what costs the source its disk.
    if let Ok(client) = &source {
        carry_out_at_source(client, &plan.source).await?;
    }
    if let Ok(conn) = &mut target {
        carry_out_at_target(conn, &plan.target).await?;
    }
    Ok(!plan.incomplete)
}

async fn carry_out_at_source(client: &Client, steps: &[Step]) -> Result<()> {
    client
        .batch_execute(LIMIT_LOCKS)
        .await
        .map_err(from_driver)?;
    for step in steps {
        for sql in &step.sql {
            let done = client.batch_execute(sql).await;
            done.map_err(|error| not_done(from_driver(error), step))?;
        }
        say(&format!("done: {}", step.what))?;
    }
    Ok(())
}

async fn carry_out_at_target(conn: &mut Connection, steps: &[Step]) -> Result<()> {
    conn.batch_execute(LIMIT_LOCKS)
        .await
        .map_err(target::error::from_driver)?;
    for step in steps {
        for sql in &step.sql {
            let sql = sql.clone();
            let done = conn.batch_execute(&sql).await;
            done.map_err(|error| not_done(target::error::from_driver(error), step))?;
        }
        say(&format!("done: {}", step.what))?;
    }
    Ok(())
}

impl Plan {
    /// Something of ours that has to stay.
    fn leave(&mut self, what: String) {
        self.incomplete = true;
        self.stays.push(what);
    }

    fn tell(&self) -> Result<()> {
        for (side, steps) in [("source", &self.source), ("target", &self.target)] {
            for step in steps {
                say(&format!("will be dropped at the {side}: {}", step.what))?;
            }
        }
        self.stays
            .iter()
            .try_for_each(|what| say(&format!("stays: {what}")))
    }
}

async fn plan_target(
    conn: &mut Connection,
    settings: &Settings,
    truncate_lookups: bool,
    plan: &mut Plan,
) -> Result<()> {
    let schema = &settings.target.schema;
    match presence(&mut *conn, schema).await? {
        Presence::Missing => {}
        Presence::Foreign => plan.leave(format!(
            "schema \"{schema}\", which is not cdc's bookkeeping"
        )),
        Presence::Ours => {
            refuse_while_running(&mut *conn, settings).await?;
            let foreign = foreign_objects(&mut *conn, schema).await?;
            if foreign.is_empty() {
                let mut sql = drop_tables_of_read_models(&mut *conn, schema).await?;
                sql.push(format!("DROP SCHEMA {} CASCADE", ident(schema)));
                plan.target.push(Step {
                    what: format!("schema \"{schema}\" with the bookkeeping"),
                    sql,
                });
            } else {
                plan.leave(format!(
                    "schema \"{schema}\", since others' objects would go along: {}",
                    foreign.join(", ")
                ));
            }
        }
    }
    for model in &settings.read_models {
        if target::facts::table(&mut *conn, &model.target)
            .await?
            .is_none()
        {
            continue;
        }
        if truncate_lookups {
            plan.target.push(Step {
                what: format!("all rows of \"{}\"", model.target),
                sql: vec![format!("DELETE FROM {}", model.target.quoted())],
            });
        } else {
            plan.stays.push(format!(
                "table \"{}\" with its rows, which nobody updates any more",
                model.target
            ));
        }
    }
    Ok(())
}

/// Drops the tables that each read model has, some in a transaction: hundreds of read models in one
/// would fill the server's lock table.
async fn drop_tables_of_read_models(conn: &mut Connection, schema: &str) -> Result<Vec<String>> {
    const TOGETHER: usize = 50;
    let tables: Vec<String> = query(
        "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = $1 AND c.relkind = 'r' AND c.relname ~ '^(map|shadow|rejected)_[0-9]' ORDER BY c.relname",
    )
    .bind(schema)
    .values_of(conn)
    .await
    .map_err(target::error::from_driver)?;
    let some = tables.chunks(TOGETHER);
    Ok(some
        .map(|some| format!("DROP TABLE {}", some.join(", ")))
        .collect())
}

async fn refuse_while_running(conn: &mut Connection, settings: &Settings) -> Result<()> {
    let seen = Observed {
        source: Err(String::new()),
        target: Ok(TargetSeen {
            version: String::new(),
            bookkeeping: target::report::bookkeeping(conn, &settings.target.schema).await?,
        }),
    };
    let pipeline = Status::new(settings, &seen)
        .pipeline
        .filter(|pipeline| pipeline.alive);
    match pipeline {
        None => Ok(()),
        Some(pipeline) => {
            let owner = pipeline
                .owner
                .map_or_else(String::new, |owner| format!(" ({owner})"));
            Err(Error::configuration(format!("cdc is running{owner}"))
                .with_hint("Stop it first, then run teardown again."))
        }
    }
}

/// Only what is this pipeline's; without the target it is not known what that is.
async fn plan_source(
    client: &Client,
    settings: &Settings,
    ownership: Option<&Ownership>,
    plan: &mut Plan,
) -> Result<()> {
    if let Some(slot) = source::facts::slot(client, &settings.source.slot).await? {
        plan_slot(client, &slot, ownership, plan).await?;
    }
    if let Some(publication) =
        source::facts::publication(client, &settings.source.publication).await?
    {
        plan_publication(&publication, ownership, plan);
    }
    Ok(())
}

async fn plan_slot(
    client: &Client,
    slot: &Slot,
    ownership: Option<&Ownership>,
    plan: &mut Plan,
) -> Result<()> {
    let name = &slot.name;
    let (system, database) = source::facts::system(client).await?;
    let by_hand = format!("if nobody needs it: {};", drop_slot_sql(name));
    if slot.plugin.as_deref() != Some("pgoutput") || slot.database.as_ref() != Some(&database) {
        plan.leave(format!(
            "slot \"{name}\", which is of another plugin or database"
        ));
        return Ok(());
    }
    let Some(ownership) = ownership else {
        plan.leave(format!(
            "slot \"{name}\", of which only the target knows whose it is; {by_hand}"
        ));
        return Ok(());
    };
    let comments = source::facts::publication_comments(client).await?;
    if let Err(error) = ownership.check_slot((&system, &database), &comments) {
        let why = error.with_its_detail();
        if comments.iter().any(|comment| ownership.is_of_slot(comment)) {
            plan.stays.push(why);
        } else {
            plan.leave(format!("{why}; {by_hand}"));
        }
    } else if let Some(pid) = slot.active_pid {
        return Err(
            Error::configuration(format!("slot \"{name}\" is in use by process {pid}"))
                .with_hint("Stop the cdc that reads it, then run teardown again."),
        );
    } else {
        plan.source.push(Step {
            what: format!("slot \"{name}\""),
            sql: vec![drop_slot_sql(name)],
        });
    }
    Ok(())
}

fn plan_publication(publication: &Publication, ownership: Option<&Ownership>, plan: &mut Plan) {
    let name = &publication.name;
    let comment = publication.comment.as_deref();
    let Some(ownership) = ownership else {
        plan.leave(format!(
            "publication \"{name}\", of which only the target knows whose it is"
        ));
        return;
    };
    match ownership.maker(comment) {
        Maker::Person => plan
            .stays
            .push(format!("publication \"{name}\", which was not made by cdc")),
        Maker::AnotherPipeline(comment) => plan.stays.push(format!(
            "publication \"{name}\", which belongs to another pipeline: {comment}"
        )),
        Maker::ThisPipeline if !publication.owned => plan.leave(format!(
            "publication \"{name}\"; let its owner run: DROP PUBLICATION {};",
            ident(name)
        )),
        Maker::ThisPipeline => plan.source.push(Step {
            what: format!("publication \"{name}\""),
            sql: vec![format!("DROP PUBLICATION {}", ident(name))],
        }),
    }
}

/// Asks on the terminal.
fn confirmed() -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Err(Error::configuration("teardown needs to be confirmed")
            .with_hint("Add --yes where nobody can be asked."));
    }
    let mut out = std::io::stdout().lock();
    let _ = write!(out, "Take this away? [y/N] ");
    let _ = out.flush();
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|error| Error::configuration("could not read the answer").with_source(error))?;
    Ok(matches!(
        answer.trim().to_ascii_lowercase().as_str(),
        "y" | "yes"
    ))
}

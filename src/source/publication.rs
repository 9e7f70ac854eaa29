//! Executes what [`crate::publication`] has planned.
//!
//! CREATE and ALTER PUBLICATION wait for sessions that lock a table as VACUUM and CREATE INDEX
//! CONCURRENTLY do. While they wait, no session of the whole cluster can create a slot, since their
//! transaction has written. So they wait for a short time only, and a table that is not free does
//! not keep the others from being published.

use tokio_postgres::Client;

use crate::error::{Class, Error, Result};
use crate::facts::SourceTable;
use crate::ownership::Ownership;
use crate::publication::{Plan, plan};
use crate::settings::Settings;
use crate::source::error::from_driver;
use crate::source::facts;

/// How long a statement may wait for a lock, in milliseconds: longer than deadlock_timeout (1 s by
/// default), after which an autovacuum gives way to a session that waits for it (ProcSleep in
/// proc.c).
const LOCK_PATIENCE_MS: u32 = 2500;

/// SQLSTATE of a lock that was not granted in time.
const LOCK_NOT_AVAILABLE: &str = "55P03";
/// SQLSTATE of a missing privilege.
const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// What was executed for the publication, and which read models it does not serve.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The statements.
    pub executed: Vec<String>,
    /// Read models by their places in the settings, and why.
    pub lacking: Vec<(usize, Error)>,
    /// As one error, with the SQL for all of them.
    pub refusal: Option<Error>,
    /// Whether there is a publication.
    pub exists: bool,
    /// Whether its comment names this pipeline as it is called now.
    pub is_marked: bool,
}

/// Creates or extends the publication.
///
/// # Errors
/// As [`plan`], and what the connection reports. A refusal of the server for one table is in the
/// outcome.
pub async fn ensure(
    client: &Client,
    settings: &Settings,
    tables: &[SourceTable],
    ownership: &Ownership,
) -> Result<Outcome> {
    let version = facts::server(client).await?.version;
    let existing = facts::publication(client, &settings.source.publication).await?;
    let plan = plan(settings, tables, existing.as_ref(), ownership, version)?;
    let mut outcome = Outcome {
        refusal: plan.refusal(),
        ..Outcome::default()
    };
    let mark = ownership.pipeline.mark();
    let comment = existing
        .as_ref()
        .and_then(|existing| existing.comment.as_ref());
    outcome.exists = existing.is_some();
    outcome.is_marked = comment.is_some_and(|comment| comment.starts_with(&mark));
    carry_out(client, settings, &plan, &mut outcome).await?;
    outcome.exists |= outcome
        .executed
        .iter()
        .any(|sql| sql.starts_with("CREATE PUBLICATION"));
    outcome.is_marked |= outcome
        .executed
        .iter()
        .any(|sql| sql.starts_with("COMMENT ON PUBLICATION"));
    let planned = plan
        .lacking
        .into_iter()
        .map(|lack| (lack.model, lack.error));
    outcome.lacking.extend(planned);
    outcome.lacking.sort_by_key(|(model, _)| *model);
    if let Some((_, error)) = outcome.lacking.first() {
        outcome.refusal.get_or_insert_with(|| error.clone());
    }
    Ok(outcome)
}

async fn carry_out(
    client: &Client,
    settings: &Settings,
    plan: &Plan,
    outcome: &mut Outcome,
) -> Result<()> {
    let statements = plan.statements();
    match execute(client, &statements).await {
        Ok(()) => {
            outcome.executed = statements;
            return Ok(());
        }
        Err(error) if error.sqlstate().is_none() => return Err(error),
        Err(error) => {
            tracing::debug!(%error, "the publication cannot be set up at once: table by table");
        }
    }
    let (whole, tables) = plan.parts();
    let doing = format!(
        "could not set up publication \"{}\"",
        settings.source.publication
    );
    if let Err(error) = execute(client, &whole).await {
        if error.sqlstate().is_none() {
            return Err(error);
        }
        let error = explain(error.context(doing), &statements);
        let models = tables.iter().flat_map(|step| &step.models);
        outcome
            .lacking
            .extend(models.map(|model| (*model, error.clone())));
        return Ok(());
    }
    outcome.executed.extend(whole);
    for step in tables {
        match execute(client, &step.statements).await {
            Ok(()) => outcome.executed.extend_from_slice(&step.statements),
            Err(error) if error.sqlstate().is_none() => return Err(error),
            Err(error) => {
                let doing = format!("could not publish table \"{}\"", step.table);
                let error = explain(error.context(doing), &step.statements);
                outcome
                    .lacking
                    .extend(step.models.iter().map(|model| (*model, error.clone())));
            }
        }
    }
    Ok(())
}

/// Executes the statements in one message, and so in one transaction.
///
/// # Errors
/// What the server or the connection reports; transient if a lock is not free.
pub(crate) async fn execute(client: &Client, statements: &[String]) -> Result<()> {
    if statements.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "SET LOCAL lock_timeout = {LOCK_PATIENCE_MS}; {}",
        statements.join("; ")
    );
    client.batch_execute(&sql).await.map_err(from_driver)
}

fn explain(error: Error, statements: &[String]) -> Error {
    match error.sqlstate() {
        Some(LOCK_NOT_AVAILABLE) => error.with_hint(
            "A VACUUM, an index that is being made, or a migration holds a lock. cdc tries again by itself.",
        ),
        Some(INSUFFICIENT_PRIVILEGE) => error.with_class(Class::Broken).with_hint(format!(
            "Let the owner of the tables run: {};",
            statements.join("; ")
        )),
        _ => error,
    }
}

//! `cdc check`: asks both sides, changes nothing, and says what is missing.

use tokio_postgres::Client;

use super::{Context, Outcome, common};
use crate::check::{
    Finding, Severity, SourceModel, SourceSide, TargetSide, check, is_ready, render,
};
use crate::connect::Side;
use crate::connect::steady::check_steady;
use crate::error::{Error, Result};
use crate::progress::SourceIdentity;
use crate::read_model::obstacles::obstacles;
use crate::run::preflight::check_same_source;
use crate::settings::{ReadModelSettings, Settings};
use crate::source::replication::{Replication, SystemIdentity};
use crate::{source, target};

const EXAMPLES: &str = "\
Examples:
  cdc check
  cdc check --json
  cdc check && cdc run

Exit codes: 0 ready (there may be warnings and notes), 1 an error was found, 2 wrong usage or configuration.";

/// Say what is wrong or would go wrong, without changing anything
///
/// Looks at both databases: settings, privileges, publication, slot, tables and columns of each
/// read model, and whatever would make the application's own writes on the master fail. Each
/// finding says what to do about it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Print the findings as one JSON document
    #[arg(long)]
    pub json: bool,
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
        .or_interrupted(execute(&settings, args.json))
        .await?;
    Ok(if good {
        Outcome::Done
    } else {
        Outcome::Findings
    })
}

/// Checks both sides and prints the findings; returns whether `cdc run` would work.
///
/// A side that cannot be reached is a finding, the other side is checked all the same.
///
/// # Errors
/// None at present: everything that goes wrong is a finding.
pub async fn execute(settings: &Settings, json: bool) -> Result<bool> {
    let findings = findings(settings).await;
    let text = if json {
        serde_json::to_string_pretty(&findings).map_err(|error| {
            Error::broken("cannot print the findings as JSON").with_source(error)
        })?
    } else {
        render(&findings).trim_end().to_owned()
    };
    common::say(&text)?;
    Ok(is_ready(&findings))
}

/// Everything that is found, worst first.
pub async fn findings(settings: &Settings) -> Vec<Finding> {
    // The target first: it knows which source the lookups are of.
    let (target, copied) = match target_side(settings).await {
        Ok((side, copied)) => (Ok(side), copied),
        Err(error) => (Err(error), None),
    };
    let source = source_side(settings, copied.as_ref()).await;
    let mut findings = Vec::new();
    for (side, error) in [
        ("source", source.as_ref().err()),
        ("target", target.as_ref().err()),
    ] {
        findings.extend(error.map(|error| Finding {
            severity: Severity::Error,
            subject: side.to_owned(),
            message: error.to_string(),
            detail: error.detail().map(str::to_owned),
            fix: error.hint().map(str::to_owned),
        }));
    }
    findings.extend(check(settings, source.as_ref().ok(), target.as_ref().ok()));
    if source.is_ok_and(|side| side.server.may_replicate) {
        findings.extend(replication(settings, copied.as_ref()).await);
    }
    findings
}

/// application_name of the replication connection.
const NAME: &str = "cdc check";

/// Really opens a replication connection: pg_hba.conf may let a role in for SQL alone, and a pooler
/// carries none.
async fn replication(settings: &Settings, copied: Option<&SourceIdentity>) -> Option<Finding> {
    let conninfo = &settings.source.conninfo;
    let opened = async {
        // As `cdc run`; where there is no such server that was found already.
        let accept = |system: &SystemIdentity| check_same_source(copied, &system.source());
        let accepted = Replication::connect_to_accepted(conninfo, NAME, accept).await;
        let mut replication = match accepted {
            Err(error) if error.is_transient() => Replication::connect(conninfo, NAME).await?,
            accepted => accepted?.0,
        };
        replication.identify_system().await?;
        replication.finish().await;
        Ok::<_, Error>(())
    };
    let error = opened.await.err()?;
    Some(Finding {
        severity: Severity::Error,
        subject: "source".to_owned(),
        message: format!("cannot open a replication connection: {error}"),
        detail: error.detail().map(str::to_owned),
        fix: Some(error.hint().map_or_else(
            || "Name the server itself (a pooler carries no replication), and let the role in for the database in pg_hba.conf.".to_owned(),
            str::to_owned,
        )),
    })
}

async fn source_side(settings: &Settings, copied: Option<&SourceIdentity>) -> Result<SourceSide> {
    let client = common::source(settings, "check", copied).await?;
    let open = async || common::source(settings, "check", copied).await;
    check_steady(Side::Source, open).await?;
    let server = source::facts::server(&client).await?;
    let publication = source::facts::publication(&client, &settings.source.publication).await?;
    let mut models = Vec::new();
    for model in &settings.read_models {
        models.push(source_model(&client, model, &server.user).await?);
    }
    let without_identity =
        source::facts::without_identity(&client, &settings.source.publication).await?;
    Ok(SourceSide {
        without_identity,
        slot: source::facts::slot(&client, &settings.source.slot).await?,
        system: source::facts::system(&client).await?,
        comments: source::facts::publication_comments(&client).await?,
        publication,
        server,
        models,
    })
}

async fn source_model(
    client: &Client,
    model: &ReadModelSettings,
    role: &str,
) -> Result<SourceModel> {
    let Some(table) = source::facts::table(client, &model.source).await? else {
        return Ok(SourceModel::default());
    };
    let key = model.source_key();
    let soft_delete = model.soft_delete.as_deref();
    let countable = obstacles(model, &table, &[], role).is_empty();
    let (mut duplicates, mut without_key) = (None, None);
    if countable {
        duplicates =
            Some(source::facts::duplicate_live_keys(client, &table, soft_delete, &key).await?);
        without_key =
            Some(source::facts::rows_without_key(client, &table, soft_delete, &key).await?);
    }
    Ok(SourceModel {
        duplicates,
        without_key,
        publications: source::facts::publications_of(client, &table).await?,
        table: Some(table),
    })
}

/// The target, and the source that its lookups were copied from.
async fn target_side(settings: &Settings) -> Result<(TargetSide, Option<SourceIdentity>)> {
    let mut conn = common::target(settings, "check").await?;
    check_steady(Side::Target, async || {
        common::target(settings, "check").await
    })
    .await?;
    let server = target::facts::server(&mut conn, &settings.target.schema).await?;
    let mut lookups = Vec::new();
    for model in &settings.read_models {
        lookups.push(target::facts::table(&mut conn, &model.target).await?);
    }
    let ownership = common::ownership(&mut conn, settings).await?;
    let names: Vec<_> = settings
        .read_models
        .iter()
        .map(|model| model.target.clone())
        .collect();
    let temp_files = target::temp_files::room(&mut conn, &names).await?;
    let side = TargetSide {
        temp_files,
        server,
        ownership,
        lookups,
    };
    Ok((side, common::copied(&mut conn, settings).await?))
}

//! `cdc status`: looks at both sides and says whether the lookups are right, how old they are, and
//! what to do.
//!
//! Works while no `cdc` runs, with one side down, and before the first run, and says what it could
//! not see.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use super::common::{self, say};
use super::stop::Stop;
use super::{Context, Outcome};
use crate::conninfo::Conninfo;
use crate::error::{Error, Result};
use crate::progress::SourceIdentity;
use crate::settings::Settings;
use crate::status::{Observed, SourceSeen, Status, TargetSeen, render};
use crate::{source, target};

const EXAMPLES: &str = "\
Examples:
  cdc status
  cdc status --json | jq .read_models
  cdc status --watch

Exit codes: 0 healthy, 1 not healthy, 2 wrong usage or configuration.";

/// Show how far each read model is
///
/// Reads both databases, not the running process, so it also works where cdc is not running or one
/// database is down; it says what it could not see.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Print one JSON document; fields are only ever added to it
    #[arg(long)]
    pub json: bool,

    /// Show it again every two seconds until stopped
    #[arg(long, conflicts_with = "json")]
    pub watch: bool,
}

/// Runs the command.
///
/// # Errors
///
/// Whatever stops the command.
pub(crate) async fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let settings = context.settings()?;
    let good = execute(&settings, args.json, args.watch, &context.stop).await?;
    Ok(if good {
        Outcome::Done
    } else {
        Outcome::Findings
    })
}

/// Seconds to wait for one server to accept a connection.
const CONNECT_SECONDS: u32 = 3;

/// How long one side may take as a whole, for each of its hosts: connecting and asking.
const SIDE_TIMEOUT: Duration = Duration::from_secs(5);

/// Time between two looks of `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// Prints the status, once or again and again until Ctrl-C; returns whether it is healthy.
///
/// # Errors
/// None at present: what could not be seen is part of the status.
pub async fn execute(settings: &Settings, json: bool, watch: bool, stop: &Stop) -> Result<bool> {
    let mut settings = settings.clone();
    hurry(&mut settings.source.conninfo);
    hurry(&mut settings.target.conninfo);
    loop {
        let status = look(&settings).await;
        let text = if json {
            serde_json::to_string_pretty(&status).map_err(|error| {
                Error::broken("cannot print the status as JSON").with_source(error)
            })?
        } else {
            render(&status).trim_end().to_owned()
        };
        if watch && !json && std::io::stdout().is_terminal() {
            // Home, then clear to the end: the screen does not flicker.
            let _ = std::io::stdout().write_all(b"\x1b[H\x1b[J");
        }
        say(&text)?;
        if !watch {
            return Ok(status.healthy);
        }
        tokio::select! {
            () = tokio::time::sleep(WATCH_INTERVAL) => {}
            () = stop.requested() => return Ok(status.healthy),
        }
    }
}

/// The status as of now.
pub async fn look(settings: &Settings) -> Status {
    // The target first: it knows which source the lookups are of.
    let target = within(&settings.target.conninfo, see_target(settings)).await;
    let (target, copied) = match target {
        Ok((seen, copied)) => (Ok(seen), copied),
        Err(error) => (Err(error), None),
    };
    let source = see_source(settings, copied.as_ref());
    let source = within(&settings.source.conninfo, source).await;
    Status::new(settings, &Observed { source, target })
}

fn hurry(conninfo: &mut Conninfo) {
    let own = conninfo.connect_timeout_seconds;
    conninfo.connect_timeout_seconds =
        Some(own.map_or(CONNECT_SECONDS, |own| own.min(CONNECT_SECONDS)));
}

async fn within<T>(
    conninfo: &Conninfo,
    seen: impl Future<Output = Result<T>>,
) -> Result<T, String> {
    let hosts = u32::try_from(conninfo.hosts.len())
        .unwrap_or(1)
        .clamp(1, 10);
    match tokio::time::timeout(SIDE_TIMEOUT * hosts, seen).await {
        Ok(Ok(seen)) => Ok(seen),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!(
            "no answer within {} s",
            (SIDE_TIMEOUT * hosts).as_secs()
        )),
    }
}

async fn see_source(settings: &Settings, copied: Option<&SourceIdentity>) -> Result<SourceSeen> {
    let client = common::source(settings, "status", copied).await?;
    let version = source::facts::server(&client).await?.version_text;
    let slot = source::facts::slot(&client, &settings.source.slot).await?;
    let clock = source::facts::clock(&client).await?.map(|(clock, _)| clock);
    Ok(SourceSeen {
        version,
        slot,
        now: clock.map(|clock| clock.time.unix_micros()),
        wal: match clock {
            Some(clock) => clock.flushed,
            None => source::facts::current_wal(&client).await?,
        },
    })
}

/// The target, and the source that its lookups were copied from.
async fn see_target(settings: &Settings) -> Result<(TargetSeen, Option<SourceIdentity>)> {
    let schema = &settings.target.schema;
    let mut conn = common::target(settings, "status").await?;
    let seen = TargetSeen {
        version: target::facts::server(&mut conn, schema).await?.version_text,
        bookkeeping: target::report::bookkeeping(&mut conn, schema).await?,
    };
    Ok((seen, common::copied(&mut conn, settings).await?))
}

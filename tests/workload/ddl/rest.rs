//! Rest: every lookup equals its source and the bookkeeping says so, or its read model is suspended
//! with a reason because the table cannot be followed as it is.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use tokio_postgres::{Client, Error};

use super::super::sessions::connect;
use super::super::support::DEADLINE;
use super::history::{Commit, Content, History, difference, lsn, parse_lsn};
use super::tables::{MODELS, Model};
use super::writer::read;

const PAUSE: Duration = Duration::from_millis(20);

/// Waits until the group is at rest; the error tells what was seen last.
pub async fn at_rest(url: &str, schema: &str, history: &History) -> Result<(), String> {
    let last = history.commits.last().unwrap();
    let started = Instant::now();
    loop {
        let seen = match tokio::time::timeout(DEADLINE, look(url, schema, last)).await {
            Ok(Ok(None)) => return Ok(()),
            Ok(Ok(Some(seen))) => seen,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the look itself does not return".to_owned(),
        };
        if started.elapsed() > DEADLINE {
            return Err(format!(
                "{schema} did not come to rest within {:.1?}; its last commit lies between {} and {}\n{seen}",
                started.elapsed(),
                lsn(last.before),
                lsn(last.after)
            ));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// What is not yet as it should be.
async fn look(url: &str, schema: &str, last: &Commit) -> Result<Option<String>, Error> {
    let client = connect(url).await?;
    // It also lets the position of an idle source be stored soon.
    let wait = format!("SELECT cdc.wait_for('{}', '300 ms')", lsn(last.after));
    read(&client, &wait).await?;
    client
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .await?;
    let mut text = String::new();
    for (at, model) in MODELS.iter().enumerate() {
        if let Some(seen) = look_at(
            &client,
            schema,
            model,
            last.states[at].as_deref(),
            last.after,
        )
        .await?
        {
            let _ = writeln!(text, "{schema}.{}: {seen}", model.lookup);
        }
    }
    Ok(Some(text).filter(|text| !text.is_empty()))
}

async fn look_at(
    client: &Client,
    schema: &str,
    Model {
        lookup, columns, ..
    }: &Model,
    expected: Option<&Content>,
    after: u64,
) -> Result<Option<String>, Error> {
    let query = format!(
        "SELECT state NOT IN ('new', 'suspended'), state, as_of_lsn, coalesce(reason, '') FROM cdc.freshness WHERE read_model = '{schema}.{lookup}'"
    );
    let told = read(client, &query).await?.pop().unwrap_or_default();
    let mut fields = told.splitn(4, '|');
    let mut field = || fields.next().unwrap_or_default();
    let (in_step, state, position, reason) = (field() == "t", field(), field(), field());
    let Some(expected) = expected else {
        let suspended = state == "suspended" && !reason.is_empty();
        return Ok(
            (!suspended).then(|| format!("is not suspended with a reason, but says: {told}"))
        );
    };
    let seen =
        Content::new(read(client, &format!("SELECT {columns} FROM {schema}.{lookup}")).await?);
    if *seen != *expected {
        return Ok(Some(format!(
            "says: {told}\n{}",
            difference(&seen, expected)
        )));
    }
    let covered = position.contains('/') && parse_lsn(position) >= after;
    Ok((!in_step || !covered).then(|| format!("is equal, but says: {told}")))
}

//! The only writer of a group: carries its plan out whatever happens to the servers, and learns
//! each committed state.
//!
//! A connection that breaks is made again. Whether a transaction whose end was not answered was
//! committed tells a row that it writes into an unpublished table; if it was not, it is run again
//! as it was.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::{Client, Error};

use super::super::sessions::connect;
use super::super::support::{rows, value};
use super::history::{Commit, Content, History, lsn, parse_lsn};
use super::plan::{Meaning, Step};
use super::rest::at_rest;
use super::tables::{MODELS, Which, expected};
use super::timeline::Timeline;

/// Where the commits of every group are noted, unpublished.
pub const JOURNAL: &str =
    "CREATE TABLE journal (schema text, number bigint, PRIMARY KEY (schema, number))";

/// What each lookup should show; see [`Commit::states`].
type States = [Option<Arc<Content>>; MODELS.len()];

/// Pause before a connection that broke is made again.
const PAUSE: Duration = Duration::from_millis(20);

/// A group's writer in one round.
pub struct Writer {
    pub source_url: String,
    pub target_url: String,
    pub schema: String,
    pub timeline: Timeline,
    /// Number of the next commit, over all rounds.
    pub next: i64,
    pub history: History,
}

/// Why a statement could not be run.
enum Trouble {
    /// The server went away.
    Lost,
    /// The statement is wrong.
    Wrong(String),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        match error.as_db_error() {
            None => Self::Lost,
            // The server goes away, or does not let anybody in yet.
            Some(db) if db.code().code().starts_with("57P") => Self::Lost,
            Some(db) => Self::Wrong(format!("{db:?}")),
        }
    }
}

impl Writer {
    /// Takes every step; the error tells what went wrong, in the test or in `cdc`.
    pub async fn run(mut self, steps: Vec<Step>) -> (Self, Result<(), String>) {
        let mut client = None;
        for step in steps {
            let result = match step {
                Step::Transaction { sql, open, meaning } => {
                    self.transaction(&mut client, &sql, open, meaning).await
                }
                Step::Bare(sql) => self.bare(&sql, true).await,
                Step::Target(sql) => self.bare(&sql, false).await,
                Step::Rest => self.rest().await,
                Step::Pause(time) => {
                    tokio::time::sleep(time).await;
                    Ok(())
                }
            };
            if let Err(why) = result {
                return (self, Err(why));
            }
        }
        (self, Ok(()))
    }

    async fn rest(&self) -> Result<(), String> {
        self.timeline
            .note(format!("-- {}: waits until cdc is at rest", self.schema));
        at_rest(&self.target_url, &self.schema, &self.history).await
    }

    /// Runs a statement outside of a transaction, again if the connection breaks.
    async fn bare(&self, sql: &str, source: bool) -> Result<(), String> {
        let (url, side) = if source {
            (&self.source_url, "source")
        } else {
            (&self.target_url, "target")
        };
        self.timeline
            .note(format!("-- {}, at the {side}\n{sql};", self.schema));
        loop {
            let Ok(client) = connect(url).await else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            match client.batch_execute(sql).await.map_err(Trouble::from) {
                Ok(()) => return Ok(()),
                Err(Trouble::Wrong(error)) => return Err(format!("{sql}: {error}")),
                Err(Trouble::Lost) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    async fn transaction(
        &mut self,
        client: &mut Option<Client>,
        sql: &[String],
        open: Duration,
        meaning: Meaning,
    ) -> Result<(), String> {
        let number = self.next;
        self.next += 1;
        let text = format!(
            "-- {}, transaction {number} (commit {})\nBEGIN; {};\nCOMMIT;",
            self.schema,
            self.history.commits.len(),
            sql.join(";\n       ")
        );
        self.timeline.note(text.clone());
        let mut tried: Option<(u64, States)> = None;
        loop {
            let connected = match client {
                Some(client) => client,
                None => match connect(&self.source_url).await {
                    Ok(connected) => client.insert(connected),
                    Err(_) => {
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                },
            };
            let done = async {
                // The last try may have been committed without an answer.
                if tried.is_none() || !self.is_committed(connected, number).await? {
                    tried = None;
                    tried = Some(
                        self.open(connected, sql, number, open, meaning.readable)
                            .await?,
                    );
                    connected.batch_execute("COMMIT").await?;
                }
                let after = position(connected, "pg_current_wal_flush_lsn()").await?;
                Ok::<_, Trouble>(after)
            };
            match done.await {
                Ok(after) => {
                    let (before, states) = tried.unwrap();
                    self.timeline.note(format!(
                        "-- {}, transaction {number} is committed between {} and {}",
                        self.schema,
                        lsn(before),
                        lsn(after)
                    ));
                    self.history.commits.push(Commit {
                        before,
                        after,
                        states,
                        unstreamed: meaning.unstreamed,
                        blurred: meaning.blurred,
                    });
                    return Ok(());
                }
                Err(Trouble::Wrong(error)) => return Err(format!("{text}\n{error}")),
                Err(Trouble::Lost) => {
                    *client = None;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn is_committed(&self, client: &Client, number: i64) -> Result<bool, Trouble> {
        let query = format!(
            "SELECT FROM journal WHERE schema = '{}' AND number = {number}",
            self.schema
        );
        Ok(!client
            .simple_query(&query)
            .await?
            .iter()
            .all(|message| !matches!(message, tokio_postgres::SimpleQueryMessage::Row(_))))
    }

    /// Runs the statements in a transaction that stays open, and reads what the lookups should show
    /// once it is committed.
    async fn open(
        &self,
        client: &Client,
        sql: &[String],
        number: i64,
        open: Duration,
        readable: Which,
    ) -> Result<(u64, States), Trouble> {
        client.batch_execute("BEGIN").await?;
        for statement in sql {
            client
                .batch_execute(statement)
                .await
                .map_err(|error| match Trouble::from(error) {
                    Trouble::Wrong(error) => Trouble::Wrong(format!("{statement}: {error}")),
                    lost => lost,
                })?;
        }
        client
            .batch_execute(&format!(
                "INSERT INTO journal VALUES ('{}', {number})",
                self.schema
            ))
            .await?;
        let mut states = [const { None }; MODELS.len()];
        for (model, state) in states.iter_mut().enumerate() {
            if readable[model] {
                *state =
                    Some(self.same(model, read(client, &expected(&self.schema, model)).await?));
            }
        }
        tokio::time::sleep(open).await;
        let before = position(client, "pg_current_wal_insert_lsn()").await?;
        Ok((before, states))
    }

    /// The state of the commit before if it is the same: many commits do not concern a read model.
    fn same(&self, model: usize, lines: Vec<String>) -> Arc<Content> {
        let now = Content::new(lines);
        match self
            .history
            .commits
            .last()
            .and_then(|last| last.states[model].as_ref())
        {
            Some(before) if **before == *now => Arc::clone(before),
            _ => now,
        }
    }
}

async fn position(client: &Client, function: &str) -> Result<u64, Error> {
    let rows = read(client, &format!("SELECT {function}")).await?;
    Ok(parse_lsn(&rows[0]))
}

/// The rows of a query as lines; unlike the harness's `rows` it may fail.
pub async fn read(client: &Client, query: &str) -> Result<Vec<String>, Error> {
    let messages = client.simple_query(query).await?;
    Ok(messages
        .iter()
        .filter_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => {
                let values: Vec<&str> = (0..row.len())
                    .map(|column| row.get(column).unwrap_or("-"))
                    .collect();
                Some(values.join("|"))
            }
            _ => None,
        })
        .collect())
}

/// The state of a group before its first commit of a round.
pub async fn base(source: &Client, schema: &str) -> Commit {
    let mut states = [const { None }; MODELS.len()];
    for (model, state) in states.iter_mut().enumerate() {
        *state = Some(Content::new(rows(source, &expected(schema, model)).await));
    }
    let after = parse_lsn(&value(source, "SELECT pg_current_wal_flush_lsn()").await);
    Commit {
        before: 0,
        after,
        states,
        unstreamed: [false; MODELS.len()],
        blurred: [false; MODELS.len()],
    }
}

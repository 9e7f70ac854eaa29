//! A comparison or resync that a running `cdc`, or this process, carries out: waits for it and shows its progress.

use std::time::{Duration, Instant};

use serde_json::Value;
use sqlx::PgConnection;

use super::output::note;
use crate::error::{Error, Result};
use crate::target;
use crate::target::bookkeeping::Bookkeeping;
use crate::telemetry::line;

/// How often the progress of a copy is shown on a terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// How often the result is looked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// How long the running cdc may be away, for example because it begins a new session.
const OWNER_PATIENCE: Duration = Duration::from_secs(30);

/// Waits until the request is done; says once what it waits for.
/// `asked` is a running cdc: where it leaves, nobody carries the request out.
pub(super) async fn wait(
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

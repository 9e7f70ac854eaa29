//! A comparison or resync that a running `cdc`, or this process, carries out: waits for it and
//! shows its progress.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::output::note;
use crate::connect::Connection;
use crate::error::{Error, Result};
use crate::settings::ReadModelSettings;
use crate::target;
use crate::target::bookkeeping::Bookkeeping;
use crate::telemetry::progress as terminal;

/// How often the progress of a copy is shown on a terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// How often to look for the result.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// How long the running cdc may be away, for example because it begins a new session.
const OWNER_PATIENCE: Duration = Duration::from_secs(30);

/// What is printed if a running process carries it out.
pub(super) const CARRIES_OUT: &str = "A running cdc carries it out.";

/// Result and error of a request; both, if only some read models could be copied.
pub(super) type Asked = (Option<Value>, Option<String>);

/// Waits until the request is done; says once what it waits for. `asked` is a running cdc: if it
/// ends, no process carries the request out.
pub(super) async fn wait(
    bookkeeping: &Bookkeeping,
    conn: &mut Connection,
    id: i64,
    asked: bool,
) -> Result<Asked> {
    let mut noted = None;
    let mut seen = Instant::now();
    // Where this process copies, it shows the progress by itself.
    let mut line = Line::new(asked && terminal::is_on());
    loop {
        line.show(bookkeeping, conn).await?;
        if !asked || bookkeeping.owner_is_alive(conn).await? {
            seen = Instant::now();
        } else if seen.elapsed() > OWNER_PATIENCE {
            return Err(
                Error::transient("the running cdc has left before it was done").with_hint(
                    "Run the command again, or start `cdc run`, which carries the request out.",
                ),
            );
        }
        let (state, result, error, waiting_for) = bookkeeping.resync_outcome(conn, id).await?;
        if matches!(state.as_str(), "done" | "failed") {
            return Ok((result, error));
        }
        if waiting_for.is_some() && waiting_for != noted {
            note(&format!(
                "Waiting: {}",
                waiting_for.as_deref().unwrap_or_default()
            ));
            noted = waiting_for;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Says which read models the running process has left out without an error: it was started with
/// another configuration.
pub(super) fn left_out(
    read_models: &[ReadModelSettings],
    names: Option<&[String]>,
    asked: &Asked,
) -> Option<Error> {
    // Without a result nothing is known of any read model: the session ended before it was stored.
    let (Some(result), None) = asked else {
        return None;
    };
    let known = |name: &String| result.get(name).is_some();
    let all = read_models.iter().map(ReadModelSettings::name);
    let mut wanted = all.filter(|name| names.is_none_or(|names| names.contains(name)));
    let unknown = wanted.find(|name| !known(name))?;
    Some(
        Error::transient(format!(
            "the running cdc does not know read model \"{unknown}\""
        ))
        .with_hint("It has another configuration: send it SIGHUP, or restart it."),
    )
}

/// The progress of the copies of the running cdc, on a terminal; it is cleared at the end.
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

    async fn show(&mut self, bookkeeping: &Bookkeeping, conn: &mut Connection) -> Result<()> {
        if !self.terminal || self.shown.is_some_and(|at| at.elapsed() < LINE_INTERVAL) {
            return Ok(());
        }
        let seen = target::report::bookkeeping(conn, bookkeeping.schema_name()).await?;
        let models = seen.map(|seen| seen.read_models).unwrap_or_default();
        let copies = models
            .iter()
            .filter_map(|model| Some((model.name.as_str(), model.copy.as_ref()?)));
        self.shown = Some(Instant::now());
        terminal::show(copies);
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.shown.is_some() {
            terminal::clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_a_result_says_what_was_left_out() {
        let labels = [ReadModelSettings::labels()];
        let name = labels[0].name();
        let left_out = |asked: Asked| left_out(&labels, None, &asked).is_some();
        assert!(!left_out((Some(json!({ name: {} })), None)));
        assert!(left_out((Some(json!({})), None)));
        assert!(!left_out((None, None)), "merged, but what it wrote is lost");
        assert!(!left_out((None, Some("it failed".to_owned()))));
    }
}

//! Waiting for a state, with a deadline; never for a time.

use std::time::{Duration, Instant};

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::{Cdc, DEADLINE, live_labels, lookup, rows};

/// Waits until the closure says `Ok`; its `Err` is what was seen in place of it, and is told if
/// time runs out.
///
/// ```ignore
/// wait_until("the lookup follows", async || {
///     let seen = lookup(&target).await;
///     if seen == expected { Ok(()) } else { Err(format!("{seen:?}")) }
/// }).await;
/// ```
pub async fn wait_until<T>(what: &str, mut state: impl AsyncFnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        let seen = match tokio::time::timeout(DEADLINE, state()).await {
            Ok(Ok(value)) => return value,
            Ok(Err(seen)) => seen,
            Err(_) => "the look itself does not return".to_owned(),
        };
        assert!(
            started.elapsed() < DEADLINE,
            "waited {:.1?} until {what}; seen last: {seen}",
            started.elapsed()
        );
        tokio::time::sleep(pause(started.elapsed())).await;
    }
}

/// Pause before the next look after this time: a twentieth of it. Looks cost more than anything
/// else that tests do.
fn pause(waited: Duration) -> Duration {
    (waited / 20).clamp(Duration::from_millis(5), Duration::from_millis(40))
}

/// Drops or advances a slot that nobody is to use any more, as soon as that is so: the server may
/// take some milliseconds to notice that the process which streamed from it has ended.
pub async fn on_free_slot(client: &Client, statement: &str) {
    wait_until("the slot is free", async || {
        match client.batch_execute(statement).await {
            Err(error) if error.code() == Some(&SqlState::OBJECT_IN_USE) => Err(error.to_string()),
            done => {
                done.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
                Ok(())
            }
        }
    })
    .await;
}

/// Waits until the lookup equals the live rows of the master table, and returns them.
pub async fn wait_in_step(source: &Client, target: &Client) -> Vec<String> {
    wait_until("the lookup equals the live labels", async || {
        let expected = live_labels(source).await;
        let seen = lookup(target).await;
        if seen == expected {
            Ok(seen)
        } else {
            Err(format!("expected {expected:?}, found {seen:?}"))
        }
    })
    .await
}

/// Waits until the query shows these rows.
pub async fn wait_rows(client: &Client, query: &str, expected: &[&str]) {
    wait_until(query, async || {
        let seen = rows(client, query).await;
        if seen == expected {
            Ok(())
        } else {
            Err(format!("expected {expected:?}, found {seen:?}"))
        }
    })
    .await;
}

/// Waits until the log has this text.
pub async fn wait_log(cdc: &Cdc, text: &str) {
    wait_until(&format!("the log has {text:?}"), async || {
        if cdc.log().contains(text) {
            Ok(())
        } else {
            Err("it has not".to_owned())
        }
    })
    .await;
}

/// The number that the log has of this text.
pub fn count_log(cdc: &Cdc, text: &str) -> usize {
    cdc.log().matches(text).count()
}

/// Waits until the target's query shows what the source's shows by now.
pub async fn wait_equal(source: &Client, of_source: &str, target: &Client, of_target: &str) {
    wait_until(of_target, async || {
        let expected = rows(source, of_source).await;
        let seen = rows(target, of_target).await;
        if seen == expected {
            Ok(())
        } else {
            Err(format!("expected {expected:?}, found {seen:?}"))
        }
    })
    .await;
}

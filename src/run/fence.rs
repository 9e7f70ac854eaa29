//! One owner a pipeline: an advisory lock at the source, an epoch at the target.
//!
//! The lock is the first act on the replication connection, before any slot command: it lasts
//! through CREATE and streaming and ends with the connection. A slot that was just created is not
//! active, so without the lock another connection could start or drop it (measured on 15 and 18).
//!
//! A host that has lost its power leaves its walsender behind, with the lock: for hours, where
//! wal_sender_timeout is off. Such a walsender is ended once its owner has given no sign of life
//! for long (`Suspicion`).

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Client;

use crate::connect::Connection;
use crate::error::{Class, Error, Result};
use crate::run::shared::Shared;
use crate::settings::{STREAM, Settings, pipeline_hash};
use crate::source::error::from_driver;
use crate::source::replication::Replication;
use crate::target::bookkeeping::Life;

/// How long to wait between two tries of the lock.
const RETRY: Duration = Duration::from_millis(500);

/// Every how many tries the holder is named again.
const SAY_AGAIN: u32 = 120;

/// How often to check that the holder is alive, and how long a check may take.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// How long a living owner may give no sign of life, at least: it gives one every ten seconds,
/// whatever it does.
const MOST_SILENCE: Duration = Duration::from_secs(60);

/// How many looks in a row, each answered in time, have to find the same last sign: a target that
/// hangs keeps signs back.
const LOOKS: u32 = 4;

/// The lock's key.
fn key(slot: &str) -> i64 {
    i64::from_ne_bytes(pipeline_hash(slot).to_ne_bytes())
}

/// Waits until this connection is the pipeline's owner.
pub(crate) async fn lock(
    shared: &Shared,
    replication: &mut Replication,
    client: &Client,
    target: &mut Connection,
) -> Result<()> {
    let slot = &shared.settings.source.slot;
    let mut suspicion = Suspicion::new(&shared.settings);
    let mut looked_at = Instant::now();
    for attempt in 0_u32.. {
        if try_lock(replication, slot).await? {
            return Ok(());
        }
        if attempt.is_multiple_of(SAY_AGAIN) {
            let holder = holder(client, &shared.settings).await;
            let holder = holder.map_or_else(|error| error.to_string(), described);
            tracing::warn!(
                slot,
                holder,
                "another cdc owns this pipeline; waiting for it to leave"
            );
        }
        if looked_at.elapsed() >= LOOK_INTERVAL {
            let look = end_stale(shared, client, target, &mut suspicion);
            let no_answer =
                |_| Error::transient("a look at the owner of the pipeline had no answer");
            tokio::time::timeout(LOOK_INTERVAL, look)
                .await
                .map_err(no_answer)??;
            looked_at = Instant::now();
        }
        tokio::select! {
            () = shared.end.cancelled() => break,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
    Err(Error::new(
        Class::Interrupted,
        "stopped while waiting for the pipeline",
    ))
}

/// Whether this connection is the pipeline's owner now.
pub(crate) async fn try_lock(replication: &mut Replication, slot: &str) -> Result<bool> {
    let sql = format!("SELECT pg_catalog.pg_try_advisory_lock({})", key(slot));
    let rows = replication.simple_query(&sql).await?;
    let got = rows.first().and_then(|row| row.first());
    Ok(got.and_then(Option::as_deref) == Some("t"))
}

/// Ends the walsender that holds the lock if its owner is dead.
async fn end_stale(
    shared: &Shared,
    client: &Client,
    target: &mut Connection,
    suspicion: &mut Suspicion,
) -> Result<()> {
    let holder = holder(client, &shared.settings).await?;
    let life = shared.bookkeeping.last_sign_of_life(target).await?;
    let Some((holder, life)) = holder.filter(|holder| holder.ours).zip(life) else {
        suspicion.drop();
        return Ok(());
    };
    if !suspicion.is_confirmed(&holder, &life) {
        return Ok(());
    }
    tracing::warn!(
        slot = shared.settings.source.slot,
        holder = holder.description,
        last_sign_of_life = life.at,
        silent_seconds = life.silent.as_secs(),
        "ending the walsender that another cdc of this pipeline has left behind: its owner gives no sign of life"
    );
    let sql = format!(
        "SELECT pg_catalog.pg_terminate_backend(h.pid) FROM ({HOLDER}) h WHERE h.pid = $3 AND h.since = $4 AND h.ours"
    );
    let name = shared.settings.source.application_name(STREAM);
    client
        .query(
            &sql,
            &[
                &key(&shared.settings.source.slot),
                &name,
                &holder.pid,
                &holder.since,
            ],
        )
        .await
        .map_err(from_driver)?;
    Ok(())
}

/// The session that holds the lock.
#[derive(Debug, Clone, PartialEq)]
struct Holder {
    pid: i32,
    /// When it began.
    since: String,
    age: Duration,
    /// It has our role and our name.
    ours: bool,
    /// Who it is, in words.
    description: String,
}

/// `$1` is the lock's key, `$2` our application_name. For sessions of other roles the server shows
/// little more than the number.
const HOLDER: &str = "SELECT a.pid, coalesce(a.backend_start::text, '') AS since, \
      coalesce(extract(epoch FROM pg_catalog.clock_timestamp() - a.backend_start), 0)::float8 AS age, \
      coalesce(a.usename = current_user AND a.application_name = $2::text, false) AS ours, \
      a.pid::text || coalesce(' (' || a.application_name || ', ' || coalesce(a.client_addr::text, 'local') || ', since ' || a.backend_start || ')', '') AS description \
    FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid \
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 \
      AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()) \
      AND ((l.classid::bigint << 32) | l.objid::bigint) = $1::bigint";

/// The holder of the lock; `None` if it was released a moment ago.
async fn holder(client: &Client, settings: &Settings) -> Result<Option<Holder>> {
    let name = settings.source.application_name(STREAM);
    let row = client
        .query_opt(HOLDER, &[&key(&settings.source.slot), &name])
        .await
        .map_err(from_driver)?;
    let read = |row: tokio_postgres::Row| {
        Ok(Holder {
            pid: row.try_get("pid")?,
            since: row.try_get("since")?,
            age: Duration::try_from_secs_f64(row.try_get("age")?).unwrap_or_default(),
            ours: row.try_get("ours")?,
            description: row.try_get("description")?,
        })
    };
    row.map(read).transpose().map_err(from_driver)
}

fn described(holder: Option<Holder>) -> String {
    holder.map_or_else(|| "nobody any more".to_owned(), |holder| holder.description)
}

/// The evidence that the owner is dead. A living owner must never be ended, so one old sign of life
/// is not enough: an owner that has just begun has not claimed the pipeline yet, and a target that
/// hung has kept signs back.
#[derive(Debug)]
struct Suspicion {
    most_silence: Duration,
    /// The walsender, and its owner's last sign of life.
    of: Option<(i32, String, String)>,
    looks: u32,
}

impl Suspicion {
    fn new(settings: &Settings) -> Self {
        Self {
            most_silence: MOST_SILENCE.max(settings.status_interval.saturating_mul(6)),
            of: None,
            looks: 0,
        }
    }

    fn drop(&mut self) {
        self.of = None;
        self.looks = 0;
    }

    /// Takes another look into account; returns whether the owner is dead.
    fn is_confirmed(&mut self, holder: &Holder, life: &Life) -> bool {
        let of = (holder.pid, holder.since.clone(), life.at.clone());
        if self.of.as_ref() == Some(&of) {
            self.looks = self.looks.saturating_add(1);
        } else {
            self.of = Some(of);
            self.looks = 1;
        }
        self.looks >= LOOKS && life.silent > self.most_silence && holder.age > self.most_silence
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_depends_on_the_slot_alone() {
        assert_eq!(key("cdc"), key("cdc"));
        assert_ne!(key("cdc"), key("cdc2"));
    }

    fn suspicion() -> Suspicion {
        Suspicion {
            most_silence: MOST_SILENCE,
            of: None,
            looks: 0,
        }
    }

    fn look(suspicion: &mut Suspicion, pid: i32, age: u64, at: &str, silent: u64) -> bool {
        let holder = Holder {
            pid,
            since: "then".to_owned(),
            age: Duration::from_secs(age),
            ours: true,
            description: String::new(),
        };
        let life = Life {
            at: at.to_owned(),
            silent: Duration::from_secs(silent),
        };
        suspicion.is_confirmed(&holder, &life)
    }

    #[test]
    fn an_owner_is_gone_after_several_looks_at_one_old_sign_of_life() {
        let mut seen = suspicion();
        let ages = [30, 40, 50, 60, 61, 70];
        let found = ages.map(|silent| look(&mut seen, 1, 1000, "a", silent));
        assert_eq!(found, [false, false, false, false, true, true]);
    }

    #[test]
    fn what_changes_between_two_looks_speaks_for_a_living_owner() {
        let mut seen = suspicion();
        for at in ["a", "b", "c", "d", "e", "f"] {
            assert!(!look(&mut seen, 1, 1000, at, 3600), "a sign of life");
        }
        for pid in 2..8 {
            assert!(!look(&mut seen, pid, 1000, "f", 3600), "another owner");
        }
        for age in [0, 10, 20, 30, 40, 60] {
            assert!(
                !look(&mut seen, 9, age, "f", 3600),
                "one that has just begun"
            );
        }
        assert!(look(&mut seen, 9, 61, "f", 3600));
        seen.drop();
        assert!(!look(&mut seen, 9, 70, "f", 3600));
    }
}

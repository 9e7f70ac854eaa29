//! The end at every step of a copy: of the process, killed or asked to leave, of its sessions at
//! the source, of its sessions at the target.
//!
//! The process under test is the real one; it is ended when its log tells the step. Steps that last
//! no time are made to last: a trigger of the test in the bookkeeping waits for a lock that the
//! test holds.
//!
//! Whatever the step: the next start heals or does the resync again, the lookup is exact, readers
//! see every row meanwhile, and no slot, session or table of the ended copy stays behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::support::held::{self, FILL};
use crate::support::{
    Cdc, Pair, Signal, forget_healings, labels_pair, on_free_slot, pg, rows, value, wait_rows,
    wait_until,
};

/// Rows: enough that a copy has a middle.
const ROWS: usize = 5_000;

/// What is ended at a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The process, by SIGKILL.
    Process,
    /// The process, by SIGTERM: it leaves in order.
    Asked,
    /// All its sessions at the source.
    Source,
    /// All its sessions at the target.
    Target,
}

/// How the test sees that a step is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// The request is in the bookkeeping.
    Requested,
    /// The log says so.
    Log(&'static str),
    /// The same, while an open transaction of the source keeps a slot from being made.
    Blocked(&'static str),
    /// A statement of the target waits for this lock of the test.
    Held(u8),
}

/// In the merge, with every row of the lookup written and nothing committed.
const IN_MERGE: u8 = 1;
/// When a resync, or a healing, that is merged is about to be noted.
const IN_NOTE: u8 = 2;

const RESYNC: [(&str, At); 11] = [
    ("requested", At::Requested),
    ("slot being made", At::Blocked("making a slot")),
    ("slot made", At::Log("made a slot")),
    ("snapshot settled", At::Log("the snapshot has settled")),
    ("in the middle of the copy", At::Held(FILL)),
    ("copied", At::Log("copied")),
    (
        "catching up",
        At::Log("the copies catch up with the source"),
    ),
    ("pause asked", At::Log("the stream is asked to pause")),
    ("merge under way", At::Held(IN_MERGE)),
    ("merged but not marked done", At::Held(IN_NOTE)),
    ("slot dropped", At::Log("nothing of the copies is left")),
];

const HEALING: [(&str, At); 10] = [
    (
        "gap found",
        At::Log(
            "the stream cannot continue: every read model is copied again, readers keep the old rows until then",
        ),
    ),
    ("intent stored", At::Log("resync started")),
    ("old slot dropped", At::Log("dropped the old slot")),
    ("new slot being made", At::Blocked("making a slot")),
    ("new slot made", At::Log("made a slot")),
    ("in the middle of the copy", At::Held(FILL)),
    ("before the merge", At::Log("merging the copies")),
    ("merge under way", At::Held(IN_MERGE)),
    ("merged", At::Log("merged the copies")),
    ("merged but not noted", At::Held(IN_NOTE)),
];

#[tokio::test]
async fn killed_at_every_step_of_a_copy() {
    every_step(End::Process).await;
}

#[tokio::test]
async fn source_ends_the_sessions_at_every_step_of_a_copy() {
    every_step(End::Source).await;
}

#[tokio::test]
async fn target_ends_the_sessions_at_every_step_of_a_copy() {
    every_step(End::Target).await;
}

/// It leaves what a process leaves that had no copy under way.
#[tokio::test]
async fn asked_to_leave_at_every_step_of_a_copy() {
    every_step(End::Asked).await;
}

async fn every_step(end: End) {
    let mut scene = Scene::set().await;
    for (name, at) in RESYNC {
        scene
            .resync(&format!("resync, {name}, {end:?}"), at, end)
            .await;
    }
    for (name, at) in HEALING {
        scene
            .healing(&format!("healing, {name}, {end:?}"), at, end)
            .await;
    }
}

/// A pair of databases with many labels, and what the test holds.
struct Scene {
    pair: Pair,
    source: Client,
    target: Client,
    /// Keeps slots from being made.
    blocker: Client,
    /// Holds the locks that the triggers wait for.
    holder: Client,
}

impl Scene {
    async fn set() -> Self {
        let (pair, source, target) = labels_pair().await;
        source
            .batch_execute(&format!(
                "INSERT INTO labels (code, label, display_name) SELECT 'L' || n, 'label', repeat('x', 40) FROM generate_series(4, {ROWS}) n;
                 CREATE TABLE elsewhere (x int)"
            ))
            .await
            .unwrap();
        let mut cdc = Cdc::run(&pair);
        wait_exact("first copy", &source, &target).await;
        cdc.stop(Signal::Term).await;
        target
            .batch_execute(&format!(
                "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
                     PERFORM pg_advisory_xact_lock_shared(TG_ARGV[0]::bigint); RETURN NEW;
                 END$$;
                 CREATE TRIGGER hold BEFORE UPDATE OF last_resync_at ON cdc.read_model FOR EACH ROW EXECUTE FUNCTION hold({IN_MERGE});
                 CREATE TRIGGER hold BEFORE UPDATE ON cdc.resync FOR EACH ROW
                     WHEN (OLD.state = 'running' AND NEW.state = 'done' AND NEW.result IS NOT NULL) EXECUTE FUNCTION hold({IN_NOTE});
                 CREATE TRIGGER hold_new BEFORE INSERT ON cdc.resync FOR EACH ROW WHEN (NEW.origin = 'heal') EXECUTE FUNCTION hold({IN_NOTE})"
            ))
            .await
            .unwrap();
        held::install(&target).await;
        Self {
            blocker: pg(&pair.source_url).await,
            holder: pg(&pair.target_url).await,
            pair,
            source,
            target,
        }
    }

    /// Somebody asks for a resync; it ends at this step, and is done all the same.
    async fn resync(&mut self, step: &str, at: At, end: End) {
        let busy = Busy::start(&self.pair);
        // A row that nobody changes at the source: only the resync can mend it.
        self.target
            .batch_execute("UPDATE labels_lookup SET label = 'edited' WHERE code = 'MRS'")
            .await
            .unwrap();
        self.hold(at).await;
        let ask = "INSERT INTO cdc.resync (origin) VALUES ('request') RETURNING id";
        let (id, cdc) = if at == At::Requested {
            let cdc = Cdc::run(&self.pair);
            until_logged(step, &cdc, "streaming").await;
            (value(&self.target, ask).await, cdc)
        } else {
            (value(&self.target, ask).await, Cdc::run(&self.pair))
        };
        let cdc = self.end_at(step, at, end, cdc).await;
        let done = format!("SELECT state FROM cdc.resync WHERE id = {id}");
        wait_rows(&self.target, &done, &["done"]).await;
        self.finish(step, busy, cdc).await;
    }

    /// The slot has passed what was applied, so every row has to be copied anew; that ends at this
    /// step.
    async fn healing(&mut self, step: &str, at: At, end: End) {
        let busy = Busy::start(&self.pair);
        // The copies of the steps before are no reason to wait.
        forget_healings(&self.target).await;
        let lost = "UPDATE labels SET label = 'lost ' || substr(md5(random()::text), 1, 9) WHERE code = 'MR'";
        self.source.batch_execute(lost).await.unwrap();
        let slot = &self.pair.slot;
        let skip = format!("SELECT pg_replication_slot_advance('{slot}', pg_current_wal_lsn())");
        on_free_slot(&self.source, &skip).await;
        self.hold(at).await;
        let cdc = Cdc::run(&self.pair);
        let cdc = self.end_at(step, at, end, cdc).await;
        self.finish(step, busy, cdc).await;
    }

    /// Ends what is to be ended once the step is reached; returns the process that goes on.
    async fn end_at(&mut self, step: &str, at: At, end: End, mut cdc: Cdc) -> Cdc {
        match at {
            At::Requested => {}
            At::Log(message) | At::Blocked(message) => until_logged(step, &cdc, message).await,
            At::Held(lock) => held::wait_held(&self.target, lock).await,
        }
        let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'cdc %'";
        match end {
            End::Process => drop(cdc.stop(Signal::Kill).await),
            End::Asked => {
                cdc.kill(Signal::Term);
                // Who waits for a lock in the target has to get it to take its tables away.
                if matches!(at, At::Held(_)) {
                    self.let_go(at).await;
                }
                assert_eq!(cdc.wait().await.code(), Some(0), "{step}: {}", cdc.log());
                self.nothing_left(step).await;
            }
            End::Source => drop(rows(&self.source, terminate).await),
            End::Target => drop(rows(&self.target, terminate).await),
        }
        if !(end == End::Asked && matches!(at, At::Held(_))) {
            self.let_go(at).await;
        }
        if matches!(end, End::Process | End::Asked) {
            cdc = Cdc::run(&self.pair);
        }
        cdc
    }

    /// While no process runs: no slot but the pipeline's own, no session, no open transaction, no
    /// copy's table; and it is known that none runs.
    async fn nothing_left(&self, step: &str) {
        let slot = &self.pair.slot;
        assert_eq!(
            rows(&self.target, held::FULL_SHADOWS).await,
            [""; 0],
            "{step}"
        );
        let state = value(&self.target, "SELECT state FROM cdc.pipeline").await;
        assert!(
            step.starts_with("healing") || state == "stopped",
            "{step}: {state}"
        );
        let slots = format!(
            "SELECT slot_name FROM pg_replication_slots WHERE database = current_database() AND slot_name <> '{slot}'"
        );
        let sessions = format!(
            "SELECT application_name, state, query FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'cdc {slot} %'"
        );
        for (side, what, query) in [
            (&self.source, "slot", slots.as_str()),
            (&self.source, "session", &sessions),
            (&self.target, "session", &sessions),
        ] {
            wait_until(
                &format!("{step}: no {what} is left by who was asked to leave"),
                async || {
                    let seen = rows(side, query).await;
                    if seen.is_empty() {
                        Ok(())
                    } else {
                        Err(format!("{seen:?}"))
                    }
                },
            )
            .await;
        }
    }

    /// Makes the step last; to be called before it can be reached.
    async fn hold(&self, at: At) {
        match at {
            At::Blocked(_) => {
                let block = "BEGIN; INSERT INTO elsewhere VALUES (1)";
                self.blocker.batch_execute(block).await.unwrap();
            }
            At::Held(lock) => {
                let hold = format!("SELECT pg_advisory_lock({lock})");
                self.holder.batch_execute(&hold).await.unwrap();
            }
            At::Requested | At::Log(_) => {}
        }
    }

    async fn let_go(&self, at: At) {
        match at {
            At::Blocked(_) => self.blocker.batch_execute("ROLLBACK").await.unwrap(),
            At::Held(lock) => {
                let let_go = format!("SELECT pg_advisory_unlock({lock})");
                self.holder.batch_execute(&let_go).await.unwrap();
            }
            At::Requested | At::Log(_) => {}
        }
    }

    /// Everything is right again, and nothing of the copy that ended is left; the process is killed
    /// for the next step.
    async fn finish(&self, step: &str, busy: Busy, mut cdc: Cdc) {
        let told = format!("{step}: state");
        wait_until(&told, async || {
            let state = value(
                &self.target,
                "SELECT state || coalesce(', healing: ' || healing, '') FROM cdc.pipeline",
            )
            .await;
            if state == "streaming" {
                Ok(())
            } else {
                Err(state)
            }
        })
        .await;
        busy.stop().await;
        wait_exact(step, &self.source, &self.target).await;
        let slot = &self.pair.slot;
        for (side, what, query) in [
            (
                &self.source,
                "slots",
                format!(
                    "SELECT slot_name FROM pg_replication_slots WHERE database = current_database() AND slot_name <> '{slot}'"
                ),
            ),
            (
                &self.source,
                "sessions and open transactions",
                format!(
                    "SELECT application_name, state FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'cdc %' \
                     AND (application_name IN ('cdc {slot} copy', 'cdc {slot} observer', 'cdc {slot} resync') OR state LIKE 'idle in transaction%')"
                ),
            ),
            (&self.target, "shadows", held::FULL_SHADOWS.to_owned()),
            (
                &self.target,
                "sessions and open transactions",
                format!(
                    "SELECT application_name, state FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'cdc %' \
                     AND (application_name IN ('cdc {slot} copy', 'cdc {slot} resync', 'cdc {slot} progress') OR state LIKE 'idle in transaction%')"
                ),
            ),
        ] {
            wait_until(&format!("{step}: no {what} stay behind"), async || {
                let seen = rows(side, &query).await;
                if seen.is_empty() {
                    Ok(())
                } else {
                    Err(format!("{seen:?}"))
                }
            })
            .await;
        }
        cdc.stop(Signal::Kill).await;
        wait_rows(
            &self.source,
            &format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{slot}' AND NOT active"),
            &["1"],
        )
        .await;
    }
}

/// Waits until the log has this message; looks often, since the step that it tells of may be short.
async fn until_logged(step: &str, cdc: &Cdc, message: &str) {
    let message = format!("\"message\":\"{message}\"");
    let started = std::time::Instant::now();
    while !cdc.log().contains(&message) {
        assert!(
            started.elapsed() < crate::support::DEADLINE,
            "{step}: the log has no {message}"
        );
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

/// Waits until lookup and live labels are the same, by a digest of all rows.
async fn wait_exact(step: &str, source: &Client, target: &Client) {
    let digest = |table: &str| {
        format!(
            "SELECT count(*), md5(string_agg(ROW(code, label, display_name)::text, ' ' ORDER BY code COLLATE \"C\")) FROM {table}"
        )
    };
    let expected = rows(source, &digest("labels WHERE deleted_at IS NULL")).await;
    wait_until(&format!("{step}: the lookup is exact"), async || {
        let seen = rows(target, &digest("labels_lookup")).await;
        if seen == expected {
            Ok(())
        } else {
            Err(format!("expected {expected:?}, found {seen:?}"))
        }
    })
    .await;
}

/// Sessions that change labels, and read the lookup, until they are stopped. Every change keeps the
/// number of live rows.
struct Busy {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Busy {
    fn start(pair: &Pair) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = vec![
            tokio::spawn(change(pair.source_url.clone(), Arc::clone(&stop))),
            tokio::spawn(read(pair.target_url.clone(), Arc::clone(&stop))),
        ];
        Self { stop, tasks }
    }

    async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

async fn change(url: String, stop: Arc<AtomicBool>) {
    let client = pg(&url).await;
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        let first = fastrand::usize(4..ROWS - 30);
        client
            .batch_execute(&format!(
                "BEGIN;
                 UPDATE labels SET label = '{n}' WHERE code IN (SELECT 'L' || i FROM generate_series({first}, {first} + 5) i);
                 UPDATE labels SET deleted_at = now() WHERE code = 'L{first}' AND deleted_at IS NULL;
                 INSERT INTO labels (code, label, display_name) VALUES ('L{first}', 'heir {n}', '');
                 COMMIT"
            ))
            .await
            .unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
}

async fn read(url: String, stop: Arc<AtomicBool>) {
    let client = pg(&url).await;
    while !stop.load(Ordering::Relaxed) {
        let seen = value(&client, "SELECT count(*) FROM labels_lookup").await;
        assert_eq!(seen, ROWS.to_string(), "readers see every row");
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
}

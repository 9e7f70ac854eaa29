//! SIGHUP with other read models: new ones are copied, removed ones forgotten, changed ones copied
//! again, and nothing of the others is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::support::daemon::{Daemon, walsender};
use crate::support::held::{self, FILL};
use crate::support::tags::{ALL_IN_STEP, STATES, TAGS, TAGS_LOOKUP, TAGS_MODEL};
use crate::support::{
    LABELS_MODEL, Pair, Signal, count_log, goes_on, labels_pair, pg, rows, value, wait_equal,
    wait_in_step, wait_log, wait_rows, wait_until,
};

const COPIES_OF_LABELS: &str = "SELECT count(*) FROM cdc.resync WHERE origin = 'first copy' \
    UNION ALL SELECT count(*) FROM cdc.resync WHERE origin <> 'first copy'";

/// Keeps every state that the process writes of itself.
const NOTE_STATES: &str = "CREATE TABLE noted_state (state text);
    CREATE FUNCTION note_state() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
        INSERT INTO public.noted_state VALUES (NEW.state); RETURN NULL;
    END$$;
    CREATE TRIGGER note_state AFTER UPDATE ON cdc.pipeline FOR EACH ROW EXECUTE FUNCTION note_state()";

/// No key comes twice.
static ROUND: AtomicU64 = AtomicU64::new(1);

/// Changes labels and tags as fast as the source takes it, until it is stopped.
struct Load {
    stop: Arc<AtomicBool>,
    task: JoinHandle<u64>,
}

impl Load {
    async fn begin(pair: &Pair) -> Self {
        let client = pg(&pair.source_url).await;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut rounds = 0;
            while !stopped.load(Ordering::Relaxed) {
                let round = ROUND.fetch_add(1, Ordering::Relaxed);
                client.batch_execute(&changes(round)).await.unwrap();
                rounds += 1;
            }
            rounds
        });
        Self { stop, task }
    }

    /// Ends it; it has done something.
    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        assert!(self.task.await.unwrap() > 0);
    }
}

/// One transaction with all kinds of changes.
fn changes(round: u64) -> String {
    let n = round % 50;
    format!(
        "BEGIN;
         INSERT INTO labels (code, label, display_name) VALUES ('R{round}', 'l', 'd');
         UPDATE labels SET label = 'round {round}' WHERE code IN ('MR', 'R{n}');
         UPDATE labels SET code = code || 'x', deleted_at = CASE WHEN {n} > 25 THEN now() END WHERE code = 'R{round}';
         DELETE FROM labels WHERE code = 'R{n}x';
         INSERT INTO tags VALUES ({round} + 10, 'r{round}', 'n');
         UPDATE tags SET note = 'round {round}' WHERE tag = 'a';
         DELETE FROM tags WHERE id = {n} + 10;
         COMMIT"
    )
}

/// Labels that are followed, tags that are not yet.
async fn followed_labels() -> (Pair, Client, Client, Daemon) {
    let (mut pair, source, target) = labels_pair().await;
    make_tags(&source).await;
    pair.config += LABELS_MODEL;
    let daemon = Daemon::streaming(&pair, &source, &target).await;
    (pair, source, target, daemon)
}

/// Waits until so many sessions have streamed.
async fn wait_sessions(daemon: &Daemon, count: usize) {
    wait_until("another session streams", async || {
        let seen = count_log(&daemon.cdc, "\"message\":\"streaming\"");
        if seen >= count {
            Ok(())
        } else {
            Err(seen.to_string())
        }
    })
    .await;
}

async fn make_tags(source: &Client) {
    source
        .batch_execute(
            "CREATE TABLE tags (id int PRIMARY KEY, tag text NOT NULL, note text);
             INSERT INTO tags VALUES (1, 'a', 'x'), (2, 'b', 'y'), (3, 'c', 'z')",
        )
        .await
        .unwrap();
}

#[tokio::test]
async fn read_models_come_and_go_while_the_others_are_followed() {
    let (pair, source, target, mut daemon) = followed_labels().await;
    let before = walsender(&source, &pair).await;
    target.batch_execute(NOTE_STATES).await.unwrap();
    let load = Load::begin(&pair).await;
    let both = format!("{}{TAGS_MODEL}", pair.config);
    let line = daemon.reload_with(&both).await;
    assert!(
        line.contains("\"changed\":\"read_model public.tags_lookup added\"")
            && line.contains("\"session\":\"begins again\""),
        "{line}"
    );
    wait_rows(&target, STATES, ALL_IN_STEP).await;
    load.end().await;
    wait_in_step(&source, &target).await;
    wait_equal(&source, TAGS, &target, TAGS_LOOKUP).await;
    assert_ne!(walsender(&source, &pair).await, before);

    // Another column is shown, and another one is the key.
    target
        .batch_execute("ALTER TABLE tags_lookup ADD id int UNIQUE")
        .await
        .unwrap();
    let load = Load::begin(&pair).await;
    let changed = both
        .replace("key = ['tag']", "key = ['id']")
        .replace("['tag', 'note']", "['tag', 'note', 'id']");
    let line = daemon.reload_with(&changed).await;
    assert!(
        line.contains("read_model public.tags_lookup changed (key, columns)"),
        "{line}"
    );
    wait_log(&daemon.cdc, "read_model public.tags_lookup changed").await;
    let ids = "SELECT id, tag, note FROM tags ORDER BY 1";
    let ids_lookup = "SELECT id, tag, note FROM tags_lookup ORDER BY 1";
    wait_rows(&target, STATES, ALL_IN_STEP).await;
    load.end().await;
    wait_in_step(&source, &target).await;
    wait_equal(&source, ids, &target, ids_lookup).await;

    let load = Load::begin(&pair).await;
    let line = daemon.reload_with(&pair.config).await;
    assert!(
        line.contains("read_model public.tags_lookup removed"),
        "{line}"
    );
    wait_rows(&target, STATES, &["public.labels_lookup in_step"]).await;
    load.end().await;
    wait_in_step(&source, &target).await;
    wait_log(
        &daemon.cdc,
        "forgot a read model that is configured no more",
    )
    .await;
    assert!(!rows(&target, ids_lookup).await.is_empty(), "the rows stay");
    goes_on("one again", &source, &target).await;
    // The labels were never copied again, and no session ended otherwise.
    wait_rows(&target, COPIES_OF_LABELS, &["1", "0"]).await;
    assert_eq!(count_log(&daemon.cdc, "\"message\":\"streaming\""), 4);
    let noted = rows(&target, "SELECT DISTINCT state FROM noted_state").await;
    let never = ["stopped", "retrying"];
    assert!(
        noted.contains(&"streaming".to_owned())
            && !noted.iter().any(|seen| never.contains(&seen.as_str())),
        "{noted:?}"
    );
    for never in [
        "trying again",
        "the stream cannot continue",
        "owns this pipeline",
    ] {
        assert_eq!(count_log(&daemon.cdc, never), 0, "{}", daemon.cdc.log());
    }
    assert_eq!(daemon.cdc.stop(Signal::Term).await.code(), Some(0));
}

/// What takes no part in this is whether the process is new: the same is stored.
#[tokio::test]
async fn a_reload_leaves_what_a_restart_leaves() {
    let mut seen = Vec::new();
    for restarts in [false, true] {
        let (mut pair, source, target, mut daemon) = followed_labels().await;
        let configs = [
            format!("{}{TAGS_MODEL}", pair.config),
            format!("{}{TAGS_MODEL}on_row_error = 'stop'\n", pair.config)
                .replace("'tag', 'note'", "'tag'"),
            pair.config.clone(),
            format!("[source]\nslot = '{}'\n{TAGS_MODEL}", pair.slot),
        ];
        for config in configs {
            let sessions = count_log(&daemon.cdc, "\"message\":\"streaming\"");
            if restarts {
                daemon.cdc.stop(Signal::Term).await;
                pair.config = config;
                daemon = Daemon::run(&pair);
                wait_log(&daemon.cdc, "\"message\":\"streaming\"").await;
            } else {
                daemon.reload_with(&config).await;
                wait_sessions(&daemon, sessions + 1).await;
            }
            let waiting = "SELECT count(*) FROM cdc.read_model WHERE state <> 'in_step'";
            wait_rows(&target, waiting, &["0"]).await;
        }
        wait_equal(&source, TAGS, &target, TAGS_LOOKUP).await;
        let stored = rows(
            &target,
            // Without the numbers of the tables.
            "SELECT name, source, state, regexp_replace(definition::text, '(source|lookup) [0-9]+', '\\1', 'g'), generation FROM cdc.read_model ORDER BY 1",
        )
        .await;
        let tables = rows(
            &target,
            // Without those that are dropped in a moment.
            "SELECT relname FROM pg_class WHERE relnamespace = 'cdc'::regnamespace AND relkind = 'r' AND relname LIKE 'map%'
               AND relname NOT IN (SELECT name FROM cdc.discarded) ORDER BY 1",
        )
        .await;
        let published = rows(
            &source,
            "SELECT tablename FROM pg_publication_tables WHERE pubname = 'cdc' ORDER BY 1",
        )
        .await;
        seen.push((stored, tables, published));
    }
    assert_eq!(seen[0], seen[1]);
}

/// A first copy is not begun again: what a reload has brought counts once it is done.
#[tokio::test]
async fn signals_in_a_first_copy_and_beside_a_load_lose_nothing() {
    let (mut pair, source, target) = labels_pair().await;
    make_tags(&source).await;
    pair.config += LABELS_MODEL;
    held::install(&target).await;
    let holder = held::hold(&pair, FILL).await;
    let mut daemon = Daemon::run(&pair);
    held::wait_held(&target, FILL).await;
    let load = Load::begin(&pair).await;
    storm(&mut daemon, &pair).await;
    held::wait_held(&target, FILL).await;
    held::let_go(holder, FILL).await;
    wait_rows(&target, STATES, ALL_IN_STEP).await;
    assert_eq!(count_log(&daemon.cdc, "first copy of every read model"), 1);

    // While it streams, and the copies of the tags come and go.
    storm(&mut daemon, &pair).await;
    load.end().await;
    wait_in_step(&source, &target).await;
    wait_rows(&target, STATES, ALL_IN_STEP).await;
    wait_equal(&source, TAGS, &target, TAGS_LOOKUP).await;
    assert_eq!(count_log(&daemon.cdc, "first copy of every read model"), 1);
    assert_eq!(count_log(&daemon.cdc, "the stream cannot continue"), 0);
    held::wait_nothing_left(&pair, &source, &target).await;
    assert_eq!(daemon.cdc.stop(Signal::Term).await.code(), Some(0));
}

/// Fifty signals, with and without tags, and with mistakes; tags are there at the end.
async fn storm(daemon: &mut Daemon, pair: &Pair) {
    let configs = [
        format!("{}{TAGS_MODEL}", pair.config),
        pair.config.clone(),
        "[source\n".to_owned(),
        format!("status_interval = '1s'\n{}{TAGS_MODEL}", pair.config),
    ];
    for config in configs.iter().cycle().take(49) {
        daemon.write(config);
        daemon.hang_up();
        tokio::task::yield_now().await;
    }
    daemon.reload_with(&configs[0]).await;
    // Signals before the last one may still have been under way.
    daemon.reload().await;
    assert!(daemon.cdc.is_running());
}

/// A resync that is under way when the session ends begins again.
#[tokio::test]
async fn a_resync_that_a_reload_interrupts_is_carried_out() {
    let (pair, source, target, mut daemon) = followed_labels().await;
    held::install(&target).await;
    let holder = held::hold(&pair, FILL).await;
    let ask = "INSERT INTO cdc.resync (read_models, origin) VALUES ('{public.labels_lookup}', 'request') RETURNING id";
    let id = value(&target, ask).await;
    held::wait_held(&target, FILL).await;
    daemon
        .reload_with(&format!("{}{TAGS_MODEL}", pair.config))
        .await;
    wait_sessions(&daemon, 2).await;
    held::let_go(holder, FILL).await;
    let state = format!("SELECT state FROM cdc.resync WHERE id = {id}");
    wait_rows(&target, &state, &["done"]).await;
    wait_rows(&target, STATES, ALL_IN_STEP).await;
    wait_equal(&source, TAGS, &target, TAGS_LOOKUP).await;
    held::wait_nothing_left(&pair, &source, &target).await;
}

//! Tables whose columns or names change places: at no moment does a lookup show rows of which some
//! follow the old names and some the new ones, or rows of another table.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::support::held::{self, FILL};
use crate::support::tags::{TAGS, TAGS_LOOKUP, TAGS_MODEL, labels_and_tags};
use crate::support::{
    Cdc, LABELS_MODEL, Pair, Signal, labels_pair, on_free_slot, pg, rows, wait_equal, wait_log,
    wait_rows, wait_until,
};

/// Every state of a lookup that a reader has seen, in order.
struct Reader {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Vec<Vec<String>>>,
}

impl Reader {
    async fn start(pair: &Pair, query: &'static str) -> Self {
        let client = pg(&pair.target_url).await;
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut seen: Vec<Vec<String>> = Vec::new();
            while !asked.load(Ordering::Relaxed) {
                let now = rows(&client, query).await;
                if seen.last() != Some(&now) {
                    seen.push(now);
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            seen
        });
        Self { stop, task }
    }

    /// Nothing but these states was seen.
    async fn saw_only(self, states: &[Vec<String>]) {
        self.stop.store(true, Ordering::Relaxed);
        for seen in self.task.await.unwrap() {
            assert!(
                states.contains(&seen),
                "{seen:?} was shown, which no commit had: {states:?}"
            );
        }
    }
}

/// Runs statements at the source, one transaction each, and tells what the query shows after each
/// of them.
async fn states_of(source: &Client, query: &str, statements: &[&str]) -> Vec<Vec<String>> {
    let mut states = vec![rows(source, query).await];
    for statement in statements {
        source.batch_execute(statement).await.unwrap();
        states.push(rows(source, query).await);
    }
    states
}

const SWAP: &str =
    "BEGIN; ALTER TABLE tags RENAME note TO other; ALTER TABLE tags RENAME spare TO note;
     ALTER TABLE tags RENAME other TO spare; COMMIT";

const SWAP_USED: &str =
    "BEGIN; ALTER TABLE tags RENAME note TO other; ALTER TABLE tags RENAME tag TO note;
     ALTER TABLE tags RENAME other TO tag; COMMIT";

const MAKE_AGAIN: &str = "BEGIN; ALTER TABLE tags DROP spare; ALTER TABLE tags DROP note;
     ALTER TABLE tags ADD note text DEFAULT 'again'; COMMIT";

const CHANGE: &str = "UPDATE tags SET note = note || '.' WHERE id = 2";

const SPARE: &str = "ALTER TABLE tags ADD spare text; UPDATE tags SET spare = 'spare ' || id";

/// The row that was changed first was shown by the new names and all others by the old ones, until
/// the watch looked.
#[tokio::test]
async fn columns_that_change_places_while_streaming_are_never_mixed() {
    for alter in [SWAP, SWAP_USED, MAKE_AGAIN] {
        eprintln!("{alter}");
        let (pair, source, target, _cdc) = labels_and_tags("PRIMARY KEY (id)", SPARE).await;
        // The tables are known to the stream.
        source.batch_execute(CHANGE).await.unwrap();
        wait_equal(&source, TAGS, &target, TAGS_LOOKUP).await;
        let reader = Reader::start(&pair, TAGS_LOOKUP).await;
        let states = states_of(&source, TAGS, &[alter, CHANGE]).await;
        wait_equal(&source, TAGS, &target, TAGS_LOOKUP).await;
        reader.saw_only(&states).await;
    }
}

/// The same where the table's first change on this connection comes after it, so that there is no
/// older description.
#[tokio::test]
async fn columns_that_change_places_before_the_first_change_are_never_mixed() {
    for alter in [SWAP, SWAP_USED, MAKE_AGAIN] {
        eprintln!("{alter}");
        let (pair, source, target, _cdc) = labels_and_tags("PRIMARY KEY (id)", SPARE).await;
        let reader = Reader::start(&pair, TAGS_LOOKUP).await;
        let states = states_of(&source, TAGS, &[alter, CHANGE]).await;
        wait_equal(&source, TAGS, &target, TAGS_LOOKUP).await;
        reader.saw_only(&states).await;
    }
}

/// Away and back between two sessions: the catalogs say nothing of it, only the stream does.
#[tokio::test]
async fn column_that_had_another_name_for_a_while_is_not_taken_for_the_other_one() {
    let (pair, source, target, mut cdc) = labels_and_tags("PRIMARY KEY (id)", SPARE).await;
    cdc.stop(Signal::Term).await;
    source
        .batch_execute(
            "ALTER TABLE tags RENAME note TO old; ALTER TABLE tags RENAME spare TO note;
             UPDATE tags SET note = 'of the other column' WHERE id = 1; INSERT INTO tags (id, tag) VALUES (9, 'i');
             ALTER TABLE tags RENAME note TO spare; ALTER TABLE tags RENAME old TO note;
             UPDATE tags SET note = 'last' WHERE id = 3",
        )
        .await
        .unwrap();
    let _cdc = Cdc::run(&pair);
    wait_equal(&source, TAGS, &target, TAGS_LOOKUP).await;
    wait_rows(
        &target,
        "SELECT state FROM cdc.read_model WHERE name LIKE '%tags%'",
        &["in_step"],
    )
    .await;
}

const PARTS: &str = "CREATE TABLE parts (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
     CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10); INSERT INTO parts VALUES (1, 'x');";

const PARTS_MODEL: &str = "
[[read_model]]
source = 'public.parts'
target = 'public.parts_lookup'
key = ['id']
columns = ['id', 'v']
";

/// A table that was altered between its binding and the first look of the watch was never looked at
/// again: the rows that changed later were of another column than all others, for good.
#[tokio::test]
async fn table_that_is_altered_while_a_session_begins_is_noticed() {
    let (mut pair, source, target) = labels_pair().await;
    source
        .batch_execute(&format!(
            "CREATE TABLE tags (id int PRIMARY KEY, tag text NOT NULL, note text, spare text);
             INSERT INTO tags VALUES (1, 'a', 'x', 'xx'), (2, 'b', 'y', 'yy'), (3, 'c', 'z', 'zz'); {PARTS}"
        ))
        .await
        .unwrap();
    target
        .batch_execute("CREATE TABLE tags_lookup (tag text PRIMARY KEY, note text)")
        .await
        .unwrap();
    // The parts are bound last.
    pair.config += TAGS_MODEL;
    pair.config += PARTS_MODEL;
    let mut cdc = Cdc::run(&pair);
    wait_equal(&source, TAGS, &target, TAGS_LOOKUP).await;
    wait_log(&cdc, "\"message\":\"streaming\"").await;
    cdc.stop(Signal::Term).await;
    // Whoever binds the parts makes their lookup, and waits for another one of that name; the tags
    // are bound by then.
    target
        .batch_execute("DROP TABLE parts_lookup")
        .await
        .unwrap();
    let holder = pg(&pair.target_url).await;
    holder
        .batch_execute("BEGIN; CREATE TABLE parts_lookup (id int PRIMARY KEY, v text)")
        .await
        .unwrap();
    let cdc = Cdc::run(&pair);
    wait_rows(
        &target,
        "SELECT count(*) > 0 FROM pg_stat_activity
         WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE 'CREATE TABLE%parts_lookup%'",
        &["t"],
    )
    .await;
    source.batch_execute(SWAP).await.unwrap();
    holder.batch_execute("ROLLBACK").await.unwrap();
    wait_log(&cdc, "\"message\":\"streaming\"").await;
    source.batch_execute(CHANGE).await.unwrap();
    wait_equal(&source, TAGS, &target, TAGS_LOOKUP).await;
}

/// Tags that become another table, with the same columns.
const REPLACE: &str =
    "BEGIN; ALTER TABLE tags RENAME TO tags_old; ALTER TABLE tags_new RENAME TO tags; COMMIT";

/// What becomes of the tags while the labels are being copied under the snapshot of the same slot.
async fn in_a_copy(healing: bool, alter: &str) {
    eprintln!("healing {healing}: {alter}");
    let (mut pair, source, target) = labels_pair().await;
    source
        .batch_execute(
            "CREATE TABLE tags (id int PRIMARY KEY, tag text NOT NULL, note text, spare text);
             INSERT INTO tags VALUES (1, 'a', 'x', 'xx'), (2, 'b', 'y', 'yy'), (3, 'c', 'z', 'zz');
             CREATE TABLE tags_new (LIKE tags INCLUDING ALL); INSERT INTO tags_new VALUES (1, 'draft', 'old draft', 'd')",
        )
        .await
        .unwrap();
    target
        .batch_execute("CREATE TABLE tags_lookup (tag text PRIMARY KEY, note text)")
        .await
        .unwrap();
    pair.config += LABELS_MODEL;
    pair.config += TAGS_MODEL;
    if healing {
        let mut cdc = Cdc::run(&pair);
        wait_equal(&source, TAGS, &target, TAGS_LOOKUP).await;
        cdc.stop(Signal::Term).await;
        let drop = format!("SELECT pg_drop_replication_slot('{}')", pair.slot);
        on_free_slot(&source, &drop).await;
    }
    held::install(&target).await;
    let holder = held::hold(&pair, FILL).await;
    let _cdc = Cdc::run(&pair);
    held::wait_held(&target, FILL).await;
    let reader = Reader::start(&pair, TAGS_LOOKUP).await;
    // What the copy's snapshot shows is not what the table shows when it is altered.
    let before = "UPDATE tags SET note = note || '!', spare = spare || '!'; UPDATE tags_new SET note = 'ready'";
    let after = "INSERT INTO tags VALUES (4, 'd', 'd', 'dd'); UPDATE tags SET note = 'changed' WHERE id IN (1, 2)";
    let mut states = states_of(&source, TAGS, &[before, alter, after]).await;
    held::let_go(holder, FILL).await;
    wait_equal(&source, TAGS, &target, TAGS_LOOKUP).await;
    states.push(Vec::new());
    reader.saw_only(&states).await;
    wait_until("both are in step", async || {
        let states = rows(&target, crate::support::tags::STATES).await;
        if states == crate::support::tags::ALL_IN_STEP {
            Ok(())
        } else {
            Err(format!("{states:?}"))
        }
    })
    .await;
}

#[tokio::test]
async fn columns_that_change_places_before_their_turn_in_a_first_copy_are_copied_as_they_are() {
    in_a_copy(false, SWAP).await;
}

#[tokio::test]
async fn columns_that_change_places_before_their_turn_in_a_healing_are_copied_as_they_are() {
    in_a_copy(true, SWAP).await;
}

#[tokio::test]
async fn table_that_is_replaced_before_its_turn_in_a_first_copy_is_not_copied_as_it_was() {
    in_a_copy(false, REPLACE).await;
}

#[tokio::test]
async fn table_that_is_replaced_before_its_turn_in_a_healing_is_not_copied_as_it_was() {
    in_a_copy(true, REPLACE).await;
}

/// The rows of a table that became a partition only then were no rows of the source when the copy's
/// snapshot was taken.
#[tokio::test]
async fn partition_that_is_attached_before_its_turn_in_a_copy_is_not_copied_as_of_before() {
    let (mut pair, source, target) = labels_pair().await;
    source
        .batch_execute(&format!(
            "{PARTS} CREATE TABLE parts_2 (LIKE parts INCLUDING ALL); INSERT INTO parts_2 VALUES (11, 'alone')"
        ))
        .await
        .unwrap();
    pair.config += LABELS_MODEL;
    pair.config += PARTS_MODEL;
    target
        .batch_execute("CREATE TABLE parts_lookup (id int PRIMARY KEY, v text)")
        .await
        .unwrap();
    held::install(&target).await;
    let holder = held::hold(&pair, FILL).await;
    let _cdc = Cdc::run(&pair);
    held::wait_held(&target, FILL).await;
    let of_source = "SELECT id, v FROM parts ORDER BY 1";
    let shown = "SELECT id, v FROM parts_lookup ORDER BY 1";
    let reader = Reader::start(&pair, shown).await;
    // Changed before it is a partition: that is not in the stream.
    source
        .batch_execute("UPDATE parts_2 SET v = 'changed'")
        .await
        .unwrap();
    let attach = "ALTER TABLE parts ATTACH PARTITION parts_2 FOR VALUES FROM (10) TO (20)";
    let mut states = states_of(&source, of_source, &[attach]).await;
    states.push(Vec::new());
    held::let_go(holder, FILL).await;
    wait_equal(&source, of_source, &target, shown).await;
    reader.saw_only(&states).await;
}

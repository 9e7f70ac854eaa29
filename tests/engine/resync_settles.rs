//! A resync compares beside the stream, and merges only what is wrong.

use fastrand::Rng;
use tokio_postgres::Client;

use crate::support::tags::{TAGS, TAGS_LOOKUP, labels_and_tags};
use crate::support::{
    Cdc, Pair, count_log, database_pair, pg, rows, value, wait_equal, wait_in_step, wait_log,
    wait_until,
};

/// Starts a resync as a process of its own.
fn start_resync(pair: &Pair) -> tokio::task::JoinHandle<std::process::Output> {
    let pair = pair.clone();
    tokio::task::spawn_blocking(move || Cdc::output(&pair, &["resync", "--json"]))
}

#[tokio::test]
async fn the_stream_goes_on_while_a_resync_compares() {
    let (pair, source, target, cdc) = labels_and_tags("PRIMARY KEY (id)", "").await;
    wait_in_step(&source, &target).await;
    let holder = pg(&pair.target_url).await;
    // Only the comparison reads it: so it waits within its snapshot for as long as this test wants.
    holder
        .batch_execute("BEGIN; LOCK TABLE cdc.rejected_1 IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let resync = start_resync(&pair);
    wait_until("the comparison waits", async || {
        let waits = "SELECT count(*)::text FROM pg_stat_activity
                     WHERE application_name LIKE 'cdc%resync%' AND wait_event_type = 'Lock'";
        match value(&target, waits).await.as_str() {
            "1" => Ok(()),
            waiting => Err(format!("{waiting} sessions wait")),
        }
    })
    .await;
    source
        .batch_execute("UPDATE tags SET note = note || '!'; INSERT INTO tags VALUES (4, 'd', 'n')")
        .await
        .unwrap();
    wait_equal(&source, TAGS, &target, TAGS_LOOKUP).await;
    holder.batch_execute("COMMIT").await.unwrap();
    let output = resync.await.unwrap();
    assert!(output.status.success(), "{output:?}");
    wait_log(&cdc, "\"message\":\"resync completed\"").await;
    // That of the first copy.
    assert_eq!(count_log(&cdc, "merging the copies"), 1, "{}", cdc.log());
    let noted = "SELECT count(*)::text FROM cdc.read_model
                 WHERE last_resync_at IS NOT NULL AND last_resync_repaired = 0";
    assert_eq!(value(&target, noted).await, "2");
}

#[tokio::test]
async fn a_read_model_that_is_right_is_not_merged_beside_one_that_is_wrong() {
    let (pair, source, target, cdc) = labels_and_tags("PRIMARY KEY (id)", "").await;
    wait_in_step(&source, &target).await;
    target
        .batch_execute("UPDATE tags_lookup SET note = 'edited' WHERE tag = 'b'")
        .await
        .unwrap();
    let output = start_resync(&pair).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    wait_log(&cdc, "\"right\":1,\"wrong\":1").await;
    wait_equal(&source, TAGS, &target, TAGS_LOOKUP).await;
    let repaired = "SELECT name || ' ' || last_resync_repaired FROM cdc.read_model ORDER BY 1";
    assert_eq!(
        rows(&target, repaired).await,
        ["public.labels_lookup 0", "public.tags_lookup 1"]
    );
}

/// The rows are right, and only their number in the bookkeeping is not.
#[tokio::test]
async fn a_wrong_count_of_the_rows_is_repaired() {
    let (pair, source, target, _cdc) = labels_and_tags("PRIMARY KEY (id)", "").await;
    wait_in_step(&source, &target).await;
    target
        .batch_execute("DELETE FROM tags_lookup WHERE tag = 'b'")
        .await
        .unwrap();
    source
        .batch_execute("UPDATE tags SET note = 'again' WHERE tag = 'b'")
        .await
        .unwrap();
    wait_equal(&source, TAGS, &target, TAGS_LOOKUP).await;
    let counted =
        "SELECT rows::text FROM cdc.counted c JOIN cdc.read_model m ON m.id = c.read_model
                   WHERE m.name = 'public.tags_lookup'";
    assert_eq!(value(&target, counted).await, "4");
    let output = start_resync(&pair).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(value(&target, counted).await, "3");
}

const MODEL: &str = "
[[read_model]]
source = 'public.things'
target = 'public.things_lookup'
key = ['code']
columns = ['code', 'label', 'note']
soft_delete = 'deleted_at'
";

/// Several rows may have one code: the one with the smallest id is shown.
const TABLE: &str = "
CREATE TABLE things (id int PRIMARY KEY, code text, label text, note text, deleted_at timestamptz);
INSERT INTO things SELECT n, 'C' || n % 31, 'label ' || n, repeat('note ' || n, n % 3 * 400),
                          CASE WHEN n % 5 = 0 THEN now() END FROM generate_series(1, 60) n";

const EXPECTED: &str = "SELECT DISTINCT ON (code) code, label, md5(note) FROM things
    WHERE deleted_at IS NULL AND code IS NOT NULL ORDER BY code, id";
const SHOWN: &str = "SELECT code, label, md5(note) FROM things_lookup ORDER BY 1";

/// One change of the source that moves keys between rows, as they are read from a seed.
fn change(rng: &mut Rng) -> String {
    let (id, code) = (rng.u8(1..=70), rng.u8(0..=35));
    match rng.u8(0..7) {
        0 | 1 => format!("UPDATE things SET code = 'C{code}' WHERE id = {id}"),
        2 => format!("UPDATE things SET label = label || '.' WHERE id = {id}"),
        3 => format!("UPDATE things SET deleted_at = now() WHERE id = {id}"),
        4 => format!("UPDATE things SET deleted_at = NULL WHERE id = {id}"),
        5 => format!("DELETE FROM things WHERE id = {id}"),
        _ => format!(
            "INSERT INTO things VALUES ({id}, 'C{code}', 'new', repeat('n', {id} * 30)) ON CONFLICT DO NOTHING"
        ),
    }
}

/// Something that nobody but `cdc` should do to lookup or map.
fn damage(rng: &mut Rng) -> String {
    let (id, code) = (rng.u8(1..=70), rng.u8(0..=35));
    match rng.u8(0..9) {
        0 => format!("DELETE FROM things_lookup WHERE code = 'C{code}'"),
        1 => format!("UPDATE things_lookup SET note = 'edited' WHERE code = 'C{code}'"),
        2 => {
            format!("INSERT INTO things_lookup VALUES ('X{code}', 'x', 'x') ON CONFLICT DO NOTHING")
        }
        3 => format!("DELETE FROM cdc.map_1 WHERE i1 = {id}"),
        4 => format!(
            "INSERT INTO cdc.map_1 (i1, k1, state) VALUES ({id} + 100, 'C{code}', 's') ON CONFLICT DO NOTHING"
        ),
        5 => format!("UPDATE cdc.map_1 SET k1 = 'C{code}' WHERE i1 = {id}"),
        6 => {
            format!("UPDATE cdc.map_1 SET state = 'w', v1 = k1, v2 = 'y', v3 = 'y' WHERE i1 = {id}")
        }
        7 => format!("UPDATE cdc.map_1 SET state = 's' WHERE i1 = {id} AND state IN ('w', 'd')"),
        _ => format!("UPDATE cdc.map_1 SET v3 = 'wrong' WHERE i1 = {id} AND state IN ('w', 'd')"),
    }
}

async fn execute(client: &Client, statements: impl IntoIterator<Item = String>) {
    for statement in statements {
        client.batch_execute(&statement).await.unwrap();
    }
}

/// Whatever somebody has done to lookup and map, after a resync beside a writer they are right,
/// also once keys move between rows that were wrong and rows that were right.
#[tokio::test]
async fn whatever_was_wrong_is_right_after_a_resync() {
    let number = |name: &str, other| {
        let set = std::env::var(name).ok();
        set.map_or(other, |text| text.parse::<u64>().unwrap())
    };
    let rounds = number("CDC_TEST_REPAIRS", 6);
    let first = number("CDC_TEST_SEED", fastrand::u64(..1 << 40));
    let mut pair = database_pair().await;
    pair.config += MODEL;
    let source = pg(&pair.source_url).await;
    let target = pg(&pair.target_url).await;
    source.batch_execute(TABLE).await.unwrap();
    let cdc = Cdc::run(&pair);
    wait_log(&cdc, "\"message\":\"streaming\"").await;
    wait_equal(&source, EXPECTED, &target, SHOWN).await;
    for round in 0..rounds {
        let seed = first + round;
        eprintln!("resync: CDC_TEST_SEED={seed}");
        let mut rng = Rng::with_seed(seed);
        // None at all in some rounds: then nothing is to be merged.
        let errors = rng.usize(0..4);
        execute(&target, (0..errors).map(|_| damage(&mut rng))).await;
        let resync = start_resync(&pair);
        let changes = rng.usize(0..40);
        execute(&source, (0..changes).map(|_| change(&mut rng))).await;
        let output = resync.await.unwrap();
        assert!(output.status.success(), "CDC_TEST_SEED={seed}: {output:?}");
        execute(&source, (0..40).map(|_| change(&mut rng))).await;
        wait_equal(&source, EXPECTED, &target, SHOWN).await;
    }
}

//! Values that are stored out of line (TOAST): an update that does not change one leaves it out of
//! the stream.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::support::{
    Cdc, DEADLINE, Pair, count_log, database_pair, labels_pair, pg, rows, value, wait_in_step,
    wait_log, wait_rows, wait_until,
};

/// How the stream names an old row.
const IDENTITIES: [&str; 4] = [
    "REPLICA IDENTITY DEFAULT",
    "REPLICA IDENTITY USING INDEX t_code",
    "REPLICA IDENTITY FULL",
    "DROP CONSTRAINT t_pkey, REPLICA IDENTITY FULL",
];

/// Bytes of a key: so many go out of line, and still into an index.
const KEY_BYTES: usize = 2_200;

/// A table with these values beside its key, and a running cdc. Every text is stored out of line,
/// as it is, if it is long.
async fn following(identity: &str) -> (Pair, Client, Client, Cdc) {
    let mut pair = database_pair().await;
    let source = pg(&pair.source_url).await;
    let target = pg(&pair.target_url).await;
    source
        .batch_execute(&format!(
            "CREATE TABLE t (id int CONSTRAINT t_pkey PRIMARY KEY, code text NOT NULL, big text, deleted_at timestamptz, unprojected int);
             ALTER TABLE t ALTER code SET STORAGE EXTERNAL, ALTER big SET STORAGE EXTERNAL;
             CREATE UNIQUE INDEX t_code ON t (code);
             ALTER TABLE t {identity};
             INSERT INTO t VALUES (1, 'first', repeat('f', 9000), NULL), (2, repeat('k', {KEY_BYTES}), repeat('s', 9000), NULL),
                 (3, 'dead', repeat('d', 9000), now()), (4, repeat('K', {KEY_BYTES}), repeat('D', 9000), now());"
        ))
        .await
        .unwrap();
    pair.config += "[[read_model]]\nsource = 'public.t'\ntarget = 'public.t_lookup'\nkey = ['code']\ncolumns = ['code', 'big']\nsoft_delete = 'deleted_at'\n";
    let cdc = Cdc::run(&pair);
    wait_log(&cdc, "\"message\":\"streaming\"").await;
    (pair, source, target, cdc)
}

/// Waits until the lookup shows what is live, compared by hash.
async fn wait_live(source: &Client, target: &Client, after: &str) {
    let of = "md5(code), md5(big), length(code), length(big)";
    let expected = rows(
        source,
        &format!("SELECT {of} FROM t WHERE deleted_at IS NULL ORDER BY 1"),
    )
    .await;
    wait_until(&format!("the lookup follows: {after}"), async || {
        let seen = rows(target, &format!("SELECT {of} FROM t_lookup ORDER BY 1")).await;
        if seen == expected {
            Ok(())
        } else {
            Err(format!("expected {expected:?}, found {seen:?}"))
        }
    })
    .await;
}

#[tokio::test]
async fn unchanged_values_are_kept_under_every_identity() {
    let steps = [
        "UPDATE t SET unprojected = 1",
        "UPDATE t SET big = 'short' WHERE id = 1",
        "UPDATE t SET big = repeat('g', 8000) WHERE id = 1",
        "UPDATE t SET deleted_at = now() WHERE id IN (1, 2)",
        "UPDATE t SET unprojected = 2",
        "UPDATE t SET deleted_at = NULL WHERE id IN (1, 2)",
        "UPDATE t SET deleted_at = NULL WHERE id IN (3, 4)",
        "UPDATE t SET code = 'changed' || left(code, 2000)",
        "UPDATE t SET id = id + 10",
        "UPDATE t SET id = id + 10, code = 'both' || left(code, 2100), unprojected = 3",
        // Several changes of a row in one transaction.
        "BEGIN; UPDATE t SET unprojected = 4; UPDATE t SET code = 'twice' || left(code, 2100); UPDATE t SET deleted_at = now();
         UPDATE t SET id = id + 10; UPDATE t SET deleted_at = NULL; UPDATE t SET code = 'thrice' || left(code, 2100); COMMIT",
        "BEGIN; INSERT INTO t VALUES (90, repeat('n', 2200), repeat('n', 9000)); UPDATE t SET unprojected = 5 WHERE id = 90;
         UPDATE t SET code = 'now' || left(code, 2100), id = 91 WHERE id = 90; COMMIT",
        "BEGIN; UPDATE t SET big = repeat('h', 7000) WHERE id = 91; UPDATE t SET unprojected = 6; UPDATE t SET deleted_at = now() WHERE id = 91; COMMIT",
        "UPDATE t SET deleted_at = NULL WHERE id = 91",
        // A key that changes hands while its row's value is left out.
        "BEGIN; UPDATE t SET code = 'free' WHERE id = 91; UPDATE t SET code = repeat('n', 2200) WHERE id = 31; UPDATE t SET code = 'taken' WHERE id = 91; COMMIT",
        "BEGIN; UPDATE t SET code = 'T' WHERE id = 31; UPDATE t SET code = repeat('n', 2200) WHERE id = 91; UPDATE t SET code = 'taken' WHERE id = 31; COMMIT",
        "BEGIN; DELETE FROM t WHERE id = 31; INSERT INTO t VALUES (31, 'taken', repeat('i', 6000)); COMMIT",
        "DELETE FROM t WHERE id = 32",
        "BEGIN; TRUNCATE t; INSERT INTO t VALUES (1, repeat('z', 2200), repeat('z', 9000)); UPDATE t SET unprojected = 7; COMMIT",
    ];
    for identity in IDENTITIES {
        let (pair, source, target, cdc) = following(identity).await;
        wait_live(&source, &target, identity).await;
        for step in steps {
            source
                .batch_execute(step)
                .await
                .unwrap_or_else(|error| panic!("{identity}: {step}: {error:?}"));
            wait_live(&source, &target, &format!("{identity}: {step}")).await;
        }
        let resync = Cdc::output(&pair, &["resync"]);
        let text = String::from_utf8_lossy(&resync.stdout).into_owned();
        assert!(
            text.contains("repaired: 0 missing, 0 different, 0 extra"),
            "{identity}: {text}"
        );
        assert_eq!(count_log(&cdc, "trying again"), 0, "{identity}");
        assert_eq!(count_log(&cdc, "suspended"), 0, "{identity}");
    }
}

#[tokio::test]
async fn all_steps_at_once_are_one_batch() {
    for identity in IDENTITIES {
        let (pair, source, target, mut cdc) = following(identity).await;
        wait_live(&source, &target, identity).await;
        // What is written while cdc is away comes as one batch.
        cdc.stop(crate::support::Signal::Term).await;
        for step in [
            "UPDATE t SET unprojected = 1",
            "UPDATE t SET deleted_at = now() WHERE id IN (1, 2)",
            "UPDATE t SET code = 'x' || left(code, 2100)",
            "UPDATE t SET id = id + 10",
            "UPDATE t SET deleted_at = NULL WHERE id IN (11, 13, 14)",
            "UPDATE t SET big = repeat('b', 5000) WHERE id = 13",
            "UPDATE t SET unprojected = 2",
        ] {
            source.batch_execute(step).await.unwrap();
        }
        let cdc = Cdc::run(&pair);
        wait_live(&source, &target, identity).await;
        assert_eq!(count_log(&cdc, "trying again"), 0, "{identity}");
    }
}

#[tokio::test]
async fn values_of_one_and_of_fifty_megabytes_are_kept() {
    let (_pair, source, target, cdc) = following("REPLICA IDENTITY DEFAULT").await;
    for step in [
        "INSERT INTO t SELECT 5, 'MB', string_agg(md5(n::text), '') FROM generate_series(1, 32768) n",
        "INSERT INTO t SELECT 6, '50 MB', string_agg(md5(n::text), '') FROM generate_series(1, 1638400) n",
        "UPDATE t SET unprojected = 1",
        "UPDATE t SET code = code || '.' WHERE id IN (5, 6)",
        "UPDATE t SET deleted_at = now() WHERE id IN (5, 6)",
        "UPDATE t SET deleted_at = NULL, id = id + 10 WHERE id IN (5, 6)",
    ] {
        source.batch_execute(step).await.unwrap();
        wait_live(&source, &target, step).await;
    }
    wait_rows(
        &target,
        "SELECT max(length(big)) FROM t_lookup",
        &["52428800"],
    )
    .await;
    assert_eq!(count_log(&cdc, "trying again"), 0);
}

/// Dead rows are kept for the values that a restore may leave out; where none can be, none is kept,
/// however many there are (`CDC_TEST_DEAD_ROWS`, 10,000 if it is not set; 10,000,000 takes some
/// minutes).
#[tokio::test]
async fn dead_rows_without_large_projected_values_are_not_kept() {
    let dead: u64 =
        std::env::var("CDC_TEST_DEAD_ROWS").map_or(10_000, |text| text.parse().unwrap());
    let mut pair = database_pair().await;
    let source = pg(&pair.source_url).await;
    let target = pg(&pair.target_url).await;
    source
        .batch_execute(&format!(
            "CREATE TABLE t (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), code bigint, since date, big text, deleted_at timestamptz);
             ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
             INSERT INTO t (code, since, big, deleted_at)
                 SELECT n, '2026-01-01', CASE WHEN n <= 100 THEN repeat('x', 3000) END, now() FROM generate_series(1, {dead}) n;
             INSERT INTO t (code, since, big) SELECT -n, '2026-01-01', repeat('x', 3000) FROM generate_series(1, 100) n;"
        ))
        .await
        .unwrap();
    pair.config += "[[read_model]]\nsource = 'public.t'\ntarget = 'public.t_lookup'\nkey = ['code']\ncolumns = ['code', 'since']\nsoft_delete = 'deleted_at'\n";
    let cdc = Cdc::run(&pair);
    let started = Instant::now();
    let patience = DEADLINE + Duration::from_millis(dead / 10);
    while !cdc.log().contains("\"message\":\"streaming\"") {
        assert!(started.elapsed() < patience, "{}", cdc.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let map = "SELECT count(*), count(*) FILTER (WHERE state <> 's') FROM cdc.map_1";
    assert_eq!(value(&target, map).await, "100|0");
    source
        .batch_execute(
            "UPDATE t SET since = '2026-01-02' WHERE code <= 100;
             UPDATE t SET deleted_at = now() WHERE code BETWEEN -50 AND -1;
             UPDATE t SET deleted_at = NULL WHERE code BETWEEN 1 AND 50",
        )
        .await
        .unwrap();
    wait_rows(
        &target,
        "SELECT count(*), min(code), max(code), min(since) FROM t_lookup",
        &["100|-100|50|2026-01-02"],
    )
    .await;
    assert_eq!(value(&target, map).await, "100|0");
    assert!(Cdc::output(&pair, &["resync"]).status.success());
    assert_eq!(value(&target, map).await, "100|0");
}

/// A table of short rows has no values out of line, so nothing is kept of its dead rows; once it is
/// altered so that it has, the first value that is left out is noticed.
#[tokio::test]
async fn dead_rows_of_a_table_of_short_rows_are_not_kept_until_it_has_long_ones() {
    let (pair, source, target) = labels_pair().await;
    let cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    let dead = "SELECT count(*) FROM cdc.map_1 WHERE state = 'd'";
    source
        .batch_execute("UPDATE labels SET deleted_at = now() WHERE code IN ('MR', 'MRS')")
        .await
        .unwrap();
    wait_in_step(&source, &target).await;
    assert_eq!(value(&target, dead).await, "0");
    let long = "(SELECT string_agg(chr(200 + n), '') FROM generate_series(1, 50) n)";
    for step in [
        "ALTER TABLE labels ADD COLUMN note text, ALTER note SET STORAGE EXTERNAL, ALTER label SET STORAGE EXTERNAL, SET (toast_tuple_target = 128)",
        // Dead: the label is not kept, since it could not be left out before.
        &format!("UPDATE labels SET note = repeat('n', 5000), label = {long} WHERE code = 'MR'"),
        // Live: the lookup has it.
        &format!("UPDATE labels SET note = repeat('n', 5000), label = {long} WHERE code = 'DR'"),
        "UPDATE labels SET deleted_at = NULL WHERE code = 'MR'",
        "UPDATE labels SET display_name = 'Doc' WHERE code = 'DR'",
        "UPDATE labels SET deleted_at = now() WHERE code = 'DR'",
        "UPDATE labels SET deleted_at = NULL, note = 'short' WHERE code = 'DR'",
    ] {
        source.batch_execute(step).await.unwrap();
        wait_in_step(&source, &target).await;
    }
    let in_line = "SELECT count(*) FROM labels WHERE length(label) = 50";
    assert_eq!(value(&source, in_line).await, "2");
    // By the stream, unless the watch saw the table altered before that: then the values were kept
    // in time.
    if count_log(&cdc, "was altered, renamed, dropped or created again") == 0 {
        assert_eq!(count_log(&cdc, "suspended before the transaction"), 1);
        assert!(cdc.log().contains("an update left out "));
    }
    assert_eq!(
        value(&target, "SELECT state FROM cdc.read_model").await,
        "in_step"
    );
}

//! Partitioned sources: several levels, rows that move, partitions that come and go, identities of
//! their own.

use tokio_postgres::Client;

use crate::support::{
    Cdc, Pair, count_log, database_pair, pg, value, wait_equal, wait_log, wait_rows,
};

const CONFIG: &str = "
[[read_model]]
source = 'public.p'
target = 'public.p_lookup'
key = ['code']
columns = ['code', 'region', 'v']
soft_delete = 'gone'
";

/// A region's rows by id, on a second level for one of them; one leaf has its columns in another
/// order.
const TABLES: &str = "
    CREATE TABLE p (region text NOT NULL, id int NOT NULL, code text NOT NULL, v text, gone boolean, PRIMARY KEY (region, id))
        PARTITION BY LIST (region);
    CREATE TABLE p_north PARTITION OF p FOR VALUES IN ('north');
    CREATE TABLE p_south PARTITION OF p FOR VALUES IN ('south') PARTITION BY RANGE (id);
    CREATE TABLE p_south_low PARTITION OF p_south FOR VALUES FROM (0) TO (100);
    CREATE TABLE p_south_high (v text, dropped int, gone boolean, code text NOT NULL, id int NOT NULL, region text NOT NULL,
        PRIMARY KEY (region, id));
    ALTER TABLE p_south_high DROP dropped;
    ALTER TABLE p_south ATTACH PARTITION p_south_high FOR VALUES FROM (100) TO (200);
    INSERT INTO p VALUES ('north', 1, 'A', 'a'), ('south', 2, 'B', 'b'), ('south', 102, 'C', 'c'), ('south', 103, 'D', 'd');
    UPDATE p SET gone = true WHERE code = 'D';";

const LIVE: &str =
    "SELECT code, region, v FROM p WHERE gone IS NOT TRUE ORDER BY code COLLATE \"C\"";
const LOOKUP: &str = "SELECT code, region, v FROM p_lookup ORDER BY code COLLATE \"C\"";
const STATE: &str = "SELECT state FROM cdc.read_model";

/// The tables, altered by this SQL, and a running cdc.
async fn following(altered: &str) -> (Pair, Client, Client, Cdc) {
    let mut pair = database_pair().await;
    pair.config += CONFIG;
    let source = pg(&pair.source_url).await;
    let target = pg(&pair.target_url).await;
    source.batch_execute(TABLES).await.unwrap();
    source.batch_execute(altered).await.unwrap();
    let cdc = Cdc::run(&pair);
    wait_log(&cdc, "\"message\":\"streaming\"").await;
    wait_equal(&source, LIVE, &target, LOOKUP).await;
    (pair, source, target, cdc)
}

async fn every_change_follows(source: &Client, target: &Client) {
    for change in [
        "INSERT INTO p VALUES ('north', 10, 'E', 'e'), ('south', 10, 'F', 'f'), ('south', 110, 'G', 'g')",
        "INSERT INTO p VALUES ('south', 111, 'H', 'h', true)",
        "UPDATE p SET v = v || '.'",
        // From leaf to leaf of one level, across the levels, and with another code.
        "UPDATE p SET id = id + 60 WHERE code = 'F'; UPDATE p SET id = id + 60 WHERE code = 'F'",
        "UPDATE p SET region = 'north' WHERE code = 'G'",
        "UPDATE p SET region = 'south', id = 150, code = 'EE' WHERE code = 'E'",
        "UPDATE p SET code = code || '!' WHERE id >= 100 AND code <> 'G'",
        // A row that is not live moves too, and lives again elsewhere.
        "UPDATE p SET gone = true WHERE code = 'G'",
        "UPDATE p SET region = 'south' WHERE code = 'G'",
        "UPDATE p SET gone = NULL, region = 'north', id = 12 WHERE code = 'G'",
        "UPDATE p SET gone = false WHERE code = 'H!'",
        // To and fro, and codes that change hands between leaves, in one transaction.
        "BEGIN; UPDATE p SET region = 'south', id = 160 WHERE code = 'G'; UPDATE p SET region = 'north', id = 13 WHERE code = 'G';
         UPDATE p SET code = 'G2' WHERE code = 'G'; UPDATE p SET code = 'G' WHERE code = 'A'; UPDATE p SET code = 'A' WHERE code = 'G2'; COMMIT",
        "BEGIN; DELETE FROM p WHERE code = 'A'; INSERT INTO p VALUES ('south', 170, 'A', 'again'); UPDATE p SET region = 'north' WHERE code = 'A'; COMMIT",
        "DELETE FROM p WHERE code IN ('A', 'EE!', 'F!', 'G', 'H!')",
    ] {
        source
            .batch_execute(change)
            .await
            .unwrap_or_else(|error| panic!("{change}: {error:?}"));
        wait_equal(source, LIVE, target, LOOKUP).await;
    }
}

#[tokio::test]
async fn rows_that_move_between_partitions_of_two_levels_stay_one_row() {
    let (_pair, source, target, cdc) = following("").await;
    every_change_follows(&source, &target).await;
    // The names of the leaves are never seen.
    for change in [
        "INSERT INTO p_south VALUES ('south', 20, 'S', 's')",
        "UPDATE p_south_low SET v = 'low' WHERE id = 20",
        "UPDATE p_south SET id = 120 WHERE id = 20",
        "DELETE FROM p_south_high WHERE id = 120",
        "BEGIN; TRUNCATE p; INSERT INTO p VALUES ('south', 21, 'T', 't'), ('north', 22, 'U', 'u'); COMMIT",
    ] {
        source.batch_execute(change).await.unwrap();
        wait_equal(&source, LIVE, &target, LOOKUP).await;
    }
    assert_eq!(value(&target, STATE).await, "in_step");
    assert_eq!(count_log(&cdc, "suspended"), 0, "all by the stream");
}

const BEFORE: &str = "UPDATE p SET v = v || '.'";
const ALONE: &str = "UPDATE p_south_low SET v = 'nobody''s'; INSERT INTO p_south_low VALUES ('south', 5, 'X', 'nobody''s');";

/// None of it is in the stream, or only the rows that are written afterwards.
#[tokio::test]
async fn partitions_that_are_emptied_detached_and_attached_are_noticed() {
    let (_pair, source, target, mut cdc) = following("").await;
    // Before 15 a walsender keeps to what it decided of a table when it first sent a change of it,
    // attached or not.
    source.batch_execute(BEFORE).await.unwrap();
    for (statement, change) in [
        (
            "TRUNCATE p_south_high",
            "INSERT INTO p VALUES ('south', 104, 'D', 'after')",
        ),
        (
            "ALTER TABLE p_south DETACH PARTITION p_south_low; DROP TABLE p_north",
            &format!("{ALONE} INSERT INTO p VALUES ('south', 105, 'LAST', 'l')"),
        ),
        // Filled, with what was written while it stood alone, and empty.
        (
            "ALTER TABLE p_south ATTACH PARTITION p_south_low FOR VALUES FROM (0) TO (100);
             CREATE TABLE p_north PARTITION OF p FOR VALUES IN ('north'); CREATE TABLE p_west PARTITION OF p FOR VALUES IN ('west');
             CREATE TABLE p_east (LIKE p INCLUDING ALL); ALTER TABLE p ATTACH PARTITION p_east FOR VALUES IN ('east')",
            "INSERT INTO p VALUES ('west', 1, 'W', 'w'), ('east', 1, 'EAST', 'e'); UPDATE p SET region = 'east' WHERE code = 'B'; DELETE FROM p WHERE code = 'W'",
        ),
    ] {
        source.batch_execute(statement).await.unwrap();
        wait_equal(&source, LIVE, &target, LOOKUP).await;
        source.batch_execute(change).await.unwrap();
        wait_equal(&source, LIVE, &target, LOOKUP).await;
    }
    wait_rows(&target, STATE, &["in_step"]).await;
    every_change_follows(&source, &target).await;
    assert!(cdc.is_running());
}

/// What is logged of an old row is the leaf's to say; the stream speaks of the root only.
#[tokio::test]
async fn root_and_partitions_may_have_different_identities() {
    for altered in [
        "ALTER TABLE p_north REPLICA IDENTITY FULL;
         CREATE UNIQUE INDEX high ON p_south_high (code, region, id); ALTER TABLE p_south_high REPLICA IDENTITY USING INDEX high",
        "ALTER TABLE p REPLICA IDENTITY FULL; ALTER TABLE p_south_low REPLICA IDENTITY FULL",
        "CREATE UNIQUE INDEX by_id ON p (id, region); ALTER TABLE p REPLICA IDENTITY USING INDEX by_id;
         ALTER TABLE p_south REPLICA IDENTITY NOTHING; ALTER TABLE p_north REPLICA IDENTITY FULL",
    ] {
        eprintln!("{altered}");
        let (_pair, source, target, cdc) = following(altered).await;
        every_change_follows(&source, &target).await;
        assert_eq!(value(&target, STATE).await, "in_step");
        assert_eq!(count_log(&cdc, "suspended"), 0, "all by the stream");
    }
}

/// Before anything is published, since the application's own writes would fail or be misunderstood.
#[tokio::test]
async fn partition_that_does_not_log_the_identity_is_refused_with_the_remedy() {
    for (altered, leaf, remedy) in [
        (
            "ALTER TABLE p_south_low REPLICA IDENTITY NOTHING",
            "partition \"public.p_south_low\" of table \"public.p\" has no usable replica identity",
            "ALTER TABLE \"public\".\"p_south_low\" REPLICA IDENTITY DEFAULT",
        ),
        (
            "CREATE UNIQUE INDEX high ON p_south_high (code); ALTER TABLE p_south_high REPLICA IDENTITY USING INDEX high",
            "partition \"public.p_south_high\" does not log the identity of table \"public.p\" (region, id)",
            "ALTER TABLE \"public\".\"p_south_high\" REPLICA IDENTITY DEFAULT",
        ),
        (
            "ALTER TABLE p DROP CONSTRAINT p_pkey, REPLICA IDENTITY FULL; CREATE UNIQUE INDEX by_code ON p (region, id, code);
             ALTER TABLE p_north REPLICA IDENTITY FULL",
            "table \"public.p\" has replica identity FULL, no primary key and no unique index on the key (code)",
            "Add a primary key",
        ),
    ] {
        let mut pair = database_pair().await;
        pair.config += CONFIG;
        let source = pg(&pair.source_url).await;
        source.batch_execute(TABLES).await.unwrap();
        source.batch_execute(altered).await.unwrap();
        let mut cdc = Cdc::run(&pair);
        assert_eq!(cdc.wait().await.code(), Some(2), "{altered}");
        let log = cdc.log();
        assert!(log.contains(leaf), "{altered}: {log}");
        assert!(log.contains(remedy), "{altered}: {log}");
        assert_eq!(
            value(&source, "SELECT count(*) FROM pg_publication").await,
            "0",
            "{altered}"
        );
    }
}

//! Read models of other shapes: several at once, two of one source, composite keys, renamed
//! columns, other schemas.

use crate::support::{
    Cdc, Signal, count_log, database_pair, labels_pair_on, pg, rows, source, value, wait_in_step,
    wait_rows,
};

const CONFIG: &str = r#"
[[read_model]]
source = 'masters."Order Lines"'
target = 'Reports."Lines \"of\" orders"'
key = ["No", "Line"]
columns = { "Line" = "line", "No" = "Order No", "what's it" = "text" }
soft_delete = "is deleted"

[[read_model]]
source = 'masters."Order Lines"'
target = "public.texts"
key = ["text"]
columns = ["text", "line"]

[[read_model]]
source = "public.tags"
target = "public.tags_lookup"
key = ["tag"]
columns = { tag = "tag", weight = "weight", made = "made", list = "list" }
synced_at = "synced"
"#;

#[tokio::test]
async fn several_read_models_of_every_shape_follow() {
    let mut pair = database_pair().await;
    pair.config += &CONFIG
        .replace("Reports.", "\"Reports\".")
        .replace("\\\"of\\\"", "of");
    let source = pg(&pair.source_url).await;
    let target = pg(&pair.target_url).await;
    source
        .batch_execute(
            "CREATE SCHEMA masters;
             CREATE TABLE masters.\"Order Lines\" (\"Order No\" int, line int, text text, \"is deleted\" boolean,
                 filler bytea, PRIMARY KEY (\"Order No\", line));
             CREATE TABLE tags (tag text, weight numeric(6,2), made timestamp, list text[], note jsonb, gone int);
             ALTER TABLE tags DROP COLUMN gone;
             CREATE UNIQUE INDEX tags_tag ON tags (tag); ALTER TABLE tags ALTER tag SET NOT NULL;
             ALTER TABLE tags REPLICA IDENTITY USING INDEX tags_tag;
             INSERT INTO masters.\"Order Lines\" VALUES (1, 1, 'one', NULL), (1, 2, 'two', false), (2, 1, 'gone', true);
             INSERT INTO tags VALUES ('a', 1.5, '2026-01-01', '{x,NULL,\"y z\"}');",
        )
        .await
        .unwrap();
    target
        .batch_execute(
            "CREATE SCHEMA \"Reports\";
             CREATE TABLE \"Reports\".\"Lines of orders\" (\"Line\" int, \"No\" bigint, \"what's it\" varchar(20), extra int DEFAULT 7,
                 UNIQUE (\"No\", \"Line\"));",
        )
        .await
        .unwrap();
    let mut cdc = Cdc::run(&pair);
    let lines = "SELECT * FROM \"Reports\".\"Lines of orders\" ORDER BY 2, 1";
    let texts = "SELECT text, line FROM texts ORDER BY 1";
    let tags = "SELECT tag, weight, made, list, synced IS NOT NULL FROM tags_lookup ORDER BY 1";
    wait_rows(&target, lines, &["1|1|one|7", "2|1|two|7"]).await;
    wait_rows(&target, texts, &["gone|1", "one|1", "two|2"]).await;
    wait_rows(
        &target,
        tags,
        &["a|1.50|2026-01-01 00:00:00|{x,NULL,\"y z\"}|t"],
    )
    .await;
    source
        .batch_execute(
            "BEGIN;
             UPDATE masters.\"Order Lines\" SET \"is deleted\" = NOT coalesce(\"is deleted\", false) WHERE line = 1;
             UPDATE masters.\"Order Lines\" SET line = 3 WHERE line = 2;
             UPDATE tags SET tag = 'b', weight = 'NaN', made = 'infinity', list = '{}';
             INSERT INTO tags (tag) VALUES ('a');
             COMMIT",
        )
        .await
        .unwrap();
    wait_rows(&target, lines, &["3|1|two|7", "1|2|gone|7"]).await;
    wait_rows(&target, texts, &["gone|1", "one|1", "two|3"]).await;
    wait_rows(&target, tags, &["a|-|-|-|t", "b|NaN|infinity|{}|t"]).await;
    // One read model's truncate leaves the others alone.
    source.batch_execute("TRUNCATE tags").await.unwrap();
    wait_rows(&target, tags, &[]).await;
    assert_eq!(value(&target, "SELECT count(*) FROM texts").await, "3");
    assert_eq!(cdc.stop(Signal::Term).await.code(), Some(0));
    assert_eq!(count_log(&cdc, "trying again"), 0);
}

#[tokio::test]
async fn source_and_target_may_be_in_one_cluster() {
    let (pair, master, target) = labels_pair_on(source(), source()).await;
    let mut cdc = Cdc::run(&pair);
    wait_in_step(&master, &target).await;
    master
        .batch_execute("DELETE FROM labels WHERE code = 'MR'")
        .await
        .unwrap();
    wait_in_step(&master, &target).await;
    // A resync makes another slot while the stream writes into the same cluster.
    let resync = tokio::task::spawn_blocking({
        let pair = pair.clone();
        move || Cdc::output(&pair, &["resync"])
    });
    while !resync.is_finished() {
        master
            .batch_execute(
                "UPDATE labels SET label = label || '.' WHERE code = 'DR' AND length(label) < 40",
            )
            .await
            .unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let output = resync.await.unwrap();
    assert!(output.status.success(), "{output:?}");
    wait_in_step(&master, &target).await;
    assert_eq!(cdc.stop(Signal::Term).await.code(), Some(0));
    assert_eq!(count_log(&cdc, "trying again"), 0);
}

#[tokio::test]
async fn partitioned_table_is_one_source() {
    let mut pair = database_pair().await;
    pair.config += "[[read_model]]\nsource = 'public.p'\ntarget = 'public.p_lookup'\nkey = ['id']\ncolumns = ['id', 'v']\n";
    let source = pg(&pair.source_url).await;
    let target = pg(&pair.target_url).await;
    source
        .batch_execute(
            "CREATE TABLE p (id int PRIMARY KEY, x int, v text) PARTITION BY RANGE (id);
             CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
             CREATE TABLE p2 (v text, dropped int, x int, id int NOT NULL PRIMARY KEY); ALTER TABLE p2 DROP dropped;
             ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (10) TO (20);
             INSERT INTO p (id, v) VALUES (1, 'one'), (11, 'eleven');",
        )
        .await
        .unwrap();
    let _cdc = Cdc::run(&pair);
    wait_rows(
        &target,
        "SELECT to_regclass('p_lookup') IS NOT NULL",
        &["t"],
    )
    .await;
    let lookup = "SELECT id, v FROM p_lookup ORDER BY id";
    wait_rows(&target, lookup, &["1|one", "11|eleven"]).await;
    source
        .batch_execute("UPDATE p SET id = 12 WHERE id = 1; UPDATE p SET v = 'x' WHERE id = 11; INSERT INTO p VALUES (2, 0, 'two')")
        .await
        .unwrap();
    wait_rows(&target, lookup, &["2|two", "11|x", "12|one"]).await;
    source.batch_execute("TRUNCATE p").await.unwrap();
    wait_rows(&target, lookup, &[]).await;
    assert_eq!(
        rows(&source, "SELECT tablename FROM pg_publication_tables").await,
        ["p"]
    );
}

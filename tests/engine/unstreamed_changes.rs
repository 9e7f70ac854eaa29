//! What PostgreSQL never puts into the stream, kind by kind: each is refused, or suspends its read
//! model with the reason, or is followed by a copy.

use tokio_postgres::Client;

use crate::support::tags::{TAGS, TAGS_LOOKUP, TAGS_MODEL, labels_and_tags, wait_told};
use crate::support::{
    Cdc, LABELS_MODEL, Pair, count_log, database_pair, labels_pair, pg, value, wait_equal,
    wait_in_step, wait_log, wait_rows, wait_until,
};

const STATE: &str = "SELECT state FROM cdc.read_model WHERE name IN ('public.parts_lookup', 'public.tags_lookup', 'public.typed_lookup')";

const PARTS_MODEL: &str = "
[[read_model]]
source = 'public.parts'
target = 'public.parts_lookup'
key = ['id']
columns = ['id', 'v']
";

const PARTS: &str = "CREATE TABLE parts (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
     CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
     CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20);
     INSERT INTO parts VALUES (1, 'x'), (11, 'y')";

const OF_PARTS: &str = "SELECT id, v FROM parts ORDER BY 1";
const PARTS_SHOWN: &str = "SELECT id, v FROM parts_lookup ORDER BY 1";

async fn parts() -> (Pair, Client, Client) {
    let mut pair = database_pair().await;
    pair.config += PARTS_MODEL;
    let source = pg(&pair.source_url).await;
    source.batch_execute(PARTS).await.unwrap();
    let target = pg(&pair.target_url).await;
    target
        .batch_execute("CREATE TABLE parts_lookup (id int PRIMARY KEY, v text)")
        .await
        .unwrap();
    (pair, source, target)
}

#[tokio::test]
async fn unlogged_partition_is_refused_with_the_remedy() {
    let (pair, source, _target) = parts().await;
    source
        .batch_execute("ALTER TABLE parts_2 SET UNLOGGED")
        .await
        .unwrap();
    let mut cdc = Cdc::run(&pair);
    assert_eq!(cdc.wait().await.code(), Some(2), "{}", cdc.log());
    let log = cdc.log();
    assert!(
        log.contains("partition \\\"public.parts_2\\\" is unlogged")
            || log.contains("partition \"public.parts_2\" is unlogged"),
        "{log}"
    );
    assert!(log.contains("SET LOGGED"), "{log}");
    let check = Cdc::output(&pair, &["check"]);
    let told = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(
        told.contains("parts_2") && told.contains("SET LOGGED"),
        "{told}"
    );
}

/// Its rows were copied once, and then never followed.
#[tokio::test]
async fn partition_that_is_unlogged_or_becomes_so_suspends_its_read_model() {
    let (pair, source, target) = parts().await;
    let cdc = Cdc::run(&pair);
    wait_log(&cdc, "\"message\":\"streaming\"").await;
    wait_equal(&source, OF_PARTS, &target, PARTS_SHOWN).await;
    for (unlogged, logged) in [
        (
            "ALTER TABLE parts_2 SET UNLOGGED",
            "ALTER TABLE parts_2 SET LOGGED",
        ),
        (
            "CREATE UNLOGGED TABLE parts_3 (LIKE parts INCLUDING ALL); INSERT INTO parts_3 VALUES (21, 'z');
             ALTER TABLE parts ATTACH PARTITION parts_3 FOR VALUES FROM (20) TO (30)",
            "ALTER TABLE parts_3 SET LOGGED",
        ),
    ] {
        source.batch_execute(unlogged).await.unwrap();
        wait_rows(&target, STATE, &["suspended"]).await;
        let reason = value(&target, "SELECT reason FROM cdc.read_model").await;
        assert!(reason.contains("is unlogged"), "{reason}");
        source
            .batch_execute("UPDATE parts SET v = v || '.'")
            .await
            .unwrap();
        source.batch_execute(logged).await.unwrap();
        wait_equal(&source, OF_PARTS, &target, PARTS_SHOWN).await;
        wait_rows(&target, STATE, &["in_step"]).await;
    }
    source
        .batch_execute("UPDATE parts SET v = v || '!'")
        .await
        .unwrap();
    wait_equal(&source, OF_PARTS, &target, PARTS_SHOWN).await;
}

/// In a publication of all tables nothing keeps a table from becoming unlogged.
#[tokio::test]
async fn published_table_that_becomes_unlogged_suspends_its_read_model() {
    let (pair, source, target) = labels_pair().await;
    source
        .batch_execute("CREATE PUBLICATION cdc FOR ALL TABLES")
        .await
        .unwrap();
    let cdc = Cdc::run(&pair);
    wait_log(&cdc, "\"message\":\"streaming\"").await;
    wait_in_step(&source, &target).await;
    source
        .batch_execute("ALTER TABLE labels SET UNLOGGED; UPDATE labels SET label = 'unlogged'")
        .await
        .unwrap();
    let state = "SELECT state, reason LIKE '%unlogged%' FROM cdc.read_model";
    wait_rows(&target, state, &["suspended|t"]).await;
    source
        .batch_execute("ALTER TABLE labels SET LOGGED")
        .await
        .unwrap();
    wait_in_step(&source, &target).await;
    wait_rows(&target, state, &["in_step|-"]).await;
}

const TYPED_MODEL: &str = "
[[read_model]]
source = 'public.typed'
target = 'public.typed_lookup'
key = ['id']
columns = ['id', 'v']
";

/// A table with this column, followed by a lookup of text.
async fn typed(types: &str, column: &str, rows: &str) -> (Pair, Client, Client, Cdc) {
    let mut pair = database_pair().await;
    pair.config += TYPED_MODEL;
    let source = pg(&pair.source_url).await;
    let target = pg(&pair.target_url).await;
    source
        .batch_execute(&format!(
            "{types}; CREATE TABLE typed (id int PRIMARY KEY, v {column}, unused int); INSERT INTO typed VALUES {rows}"
        ))
        .await
        .unwrap();
    target
        .batch_execute("CREATE TABLE typed_lookup (id int PRIMARY KEY, v text)")
        .await
        .unwrap();
    let cdc = Cdc::run(&pair);
    wait_log(&cdc, "\"message\":\"streaming\"").await;
    wait_equal(&source, OF_TYPED, &target, TYPED_SHOWN).await;
    (pair, source, target, cdc)
}

const OF_TYPED: &str = "SELECT id, v FROM typed ORDER BY 1";
const TYPED_SHOWN: &str = "SELECT id, v FROM typed_lookup ORDER BY 1";

const MOOD: &str = "CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy')";

/// The label of every row changes without a row in the WAL, wherever the enum stands in the
/// column's type.
#[tokio::test]
async fn label_of_an_enum_that_is_renamed_is_followed() {
    for (types, column, rows) in [
        ("", "mood", "(1, 'sad'), (2, 'ok')"),
        (
            "; CREATE DOMAIN moods AS mood; CREATE DOMAIN more AS moods",
            "more",
            "(1, 'sad'), (2, 'ok')",
        ),
        ("", "mood[]", "(1, '{sad,ok}'), (2, '{ok}')"),
        (
            "; CREATE TYPE pair AS (n int, m mood)",
            "pair[]",
            "(1, '{\"(1,sad)\"}'), (2, NULL)",
        ),
        (
            "; CREATE TYPE span AS RANGE (subtype = mood)",
            "span",
            "(1, '[sad,happy)'), (2, '[ok,ok]')",
        ),
    ] {
        eprintln!("{column}");
        let (_pair, source, target, cdc) = typed(&format!("{MOOD}{types}"), column, rows).await;
        source
            .batch_execute("ALTER TYPE mood RENAME VALUE 'sad' TO 'unhappy'")
            .await
            .unwrap();
        wait_equal(&source, OF_TYPED, &target, TYPED_SHOWN).await;
        wait_rows(&target, STATE, &["in_step"]).await;
        assert_eq!(count_log(&cdc, "trying again"), 0, "the stream goes on");
    }
}

/// A new label is in no row yet.
#[tokio::test]
async fn label_that_is_new_is_no_reason_for_a_copy() {
    let (_pair, source, target, cdc) = typed(MOOD, "mood", "(1, 'sad'), (2, 'ok')").await;
    let looked = || count_log(&cdc, "looked at the source");
    source
        .batch_execute("ALTER TYPE mood ADD VALUE 'so so' BEFORE 'happy'")
        .await
        .unwrap();
    source
        .batch_execute("UPDATE typed SET v = 'so so' WHERE id = 2")
        .await
        .unwrap();
    wait_equal(&source, OF_TYPED, &target, TYPED_SHOWN).await;
    let before = looked();
    wait_until("the watch has looked twice", async || {
        if looked() > before + 1 {
            Ok(())
        } else {
            Err(format!("{} times", looked()))
        }
    })
    .await;
    let asked = "SELECT count(*) FROM cdc.resync WHERE origin = 'watch'";
    wait_rows(&target, asked, &["0"]).await;
    source
        .batch_execute("ALTER TYPE mood RENAME VALUE 'so so' TO 'middling'")
        .await
        .unwrap();
    wait_equal(&source, OF_TYPED, &target, TYPED_SHOWN).await;
    wait_rows(&target, asked, &["1"]).await;
}

/// Each row has one value more, or another text, from one commit to the next.
#[tokio::test]
async fn type_whose_text_is_another_one_is_followed() {
    let base = "CREATE TYPE told; CREATE FUNCTION told_in(cstring) RETURNS told LANGUAGE internal IMMUTABLE STRICT AS 'textin';
         CREATE FUNCTION told_out(told) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';
         CREATE TYPE told (INPUT = told_in, OUTPUT = told_out, LIKE = text)";
    for (types, column, rows, change) in [
        (
            "CREATE TYPE pair AS (a int, b text)",
            "pair",
            "(1, '(1,x)'), (2, NULL)",
            "ALTER TYPE pair ADD ATTRIBUTE c int",
        ),
        (
            "CREATE TYPE pair AS (a int, b text)",
            "pair[]",
            "(1, '{\"(1,x)\"}'), (2, NULL)",
            "ALTER TYPE pair DROP ATTRIBUTE a",
        ),
        (
            "CREATE TABLE other (a int, b text)",
            "other",
            "(1, '(1,x)'), (2, NULL)",
            "ALTER TABLE other ADD c int",
        ),
        (
            base,
            "told",
            "(1, 'x'), (2, 'yy')",
            "CREATE OR REPLACE FUNCTION told_out(told) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'byteaout'",
        ),
    ] {
        eprintln!("{column}: {change}");
        let (_pair, source, target, _cdc) = typed(types, column, rows).await;
        source.batch_execute(change).await.unwrap();
        wait_equal(&source, OF_TYPED, &target, TYPED_SHOWN).await;
        wait_rows(&target, STATE, &["in_step"]).await;
        source
            .batch_execute("DELETE FROM typed WHERE id = 2")
            .await
            .unwrap();
        wait_equal(&source, OF_TYPED, &target, TYPED_SHOWN).await;
    }
}

/// Its changes come under the name of the root, or of the table itself, from then on.
#[tokio::test]
async fn table_that_becomes_a_partition_of_a_published_one_suspends_its_read_model() {
    let (mut pair, source, target) = parts().await;
    pair.config += TAGS_MODEL;
    source
        .batch_execute(
            "CREATE TABLE tags (id int PRIMARY KEY, v text, tag text, note text); INSERT INTO tags VALUES (21, 'v', 'a', 'x');
             ALTER TABLE parts ADD tag text, ADD note text",
        )
        .await
        .unwrap();
    let cdc = Cdc::run(&pair);
    wait_log(&cdc, "\"message\":\"streaming\"").await;
    wait_equal(&source, TAGS, &target, TAGS_LOOKUP).await;
    wait_equal(&source, OF_PARTS, &target, PARTS_SHOWN).await;
    source
        .batch_execute("ALTER TABLE parts ATTACH PARTITION tags FOR VALUES FROM (20) TO (30); UPDATE parts SET v = 'attached'")
        .await
        .unwrap();
    wait_equal(&source, OF_PARTS, &target, PARTS_SHOWN).await;
    let states = "SELECT state FROM cdc.read_model ORDER BY name";
    wait_rows(&target, states, &["in_step", "suspended"]).await;
    wait_told(&target, &["partition of"]).await;
    // The watch has seen the new partition.
    let oid = value(&source, "SELECT 'tags'::regclass::oid").await;
    let seen = format!(
        "SELECT storage LIKE '%{oid}:%' FROM cdc.read_model WHERE name = 'public.parts_lookup'"
    );
    wait_rows(&target, &seen, &["t"]).await;
    source
        .batch_execute("ALTER TABLE parts DETACH PARTITION tags; UPDATE tags SET note = 'detached'")
        .await
        .unwrap();
    wait_equal(&source, OF_PARTS, &target, PARTS_SHOWN).await;
    wait_equal(&source, TAGS, &target, TAGS_LOOKUP).await;
    wait_rows(&target, states, &["in_step", "in_step"]).await;
    source
        .batch_execute("UPDATE tags SET note = 'by the stream'")
        .await
        .unwrap();
    wait_equal(&source, TAGS, &target, TAGS_LOOKUP).await;
}

/// Rows of a table that inherits are shown by a copy of its parent and come under another name in
/// the stream.
#[tokio::test]
async fn table_that_gets_heirs_suspends_its_read_model() {
    let (_pair, source, target, _cdc) = labels_and_tags("PRIMARY KEY (id)", "").await;
    source
        .batch_execute("CREATE TABLE heirs (PRIMARY KEY (id)) INHERITS (tags); INSERT INTO heirs VALUES (9, 'heir', 'h')")
        .await
        .unwrap();
    wait_rows(&target, STATE, &["suspended"]).await;
    wait_told(&target, &["inherit"]).await;
    source
        .batch_execute("DROP TABLE heirs; UPDATE tags SET note = 'alone'")
        .await
        .unwrap();
    wait_equal(&source, TAGS, &target, TAGS_LOOKUP).await;
    wait_rows(&target, STATE, &["in_step"]).await;
}

/// Of what the stream has brought no copy is made: it costs the source a slot, and all its rows are
/// read.
#[tokio::test]
async fn truncate_that_the_stream_brought_is_no_reason_for_a_copy() {
    let (pair, source, target, mut cdc) = {
        let (mut pair, source, target) = labels_pair().await;
        pair.config += LABELS_MODEL;
        let cdc = Cdc::run(&pair);
        wait_in_step(&source, &target).await;
        wait_log(&cdc, "\"message\":\"streaming\"").await;
        (pair, source, target, cdc)
    };
    let asked = "SELECT count(*) FROM cdc.resync WHERE origin = 'watch'";
    let looked = |cdc: &Cdc| count_log(cdc, "looked at the source");
    for round in 0..3 {
        source
            .batch_execute(&format!(
                "BEGIN; TRUNCATE labels; INSERT INTO labels (code, label, display_name) VALUES ('T{round}', 't', 't'); COMMIT"
            ))
            .await
            .unwrap();
        wait_in_step(&source, &target).await;
        let before = looked(&cdc);
        wait_until("the watch has looked twice", async || {
            if looked(&cdc) > before + 1 {
                Ok(())
            } else {
                Err(format!("{} times", looked(&cdc)))
            }
        })
        .await;
        wait_rows(&target, asked, &["0"]).await;
    }
    // What it did not bring is another matter, also beside what it brought.
    source
        .batch_execute(
            "TRUNCATE labels; INSERT INTO labels (code, label, display_name) VALUES ('LAST', 'l', 'l');
             ALTER TABLE labels ALTER label TYPE varchar(60) USING upper(label)",
        )
        .await
        .unwrap();
    wait_in_step(&source, &target).await;
    wait_rows(&target, asked, &["1"]).await;
    assert!(cdc.is_running());
    drop(pair);
}

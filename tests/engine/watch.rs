//! What the stream does not tell is noticed within seconds, and read models join a stream that
//! never rests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{
    Cdc, LABELS_MODEL, Signal, count_log, labels_pair, pg, rows, value, wait_in_step, wait_log,
    wait_rows, wait_until,
};

const STATES: &str = "SELECT name || '|' || state FROM cdc.read_model ORDER BY 1";

/// A publication that is made again between two looks, and a table that is taken out and put back,
/// lose what was changed meanwhile: the lookup is right again all the same.
#[tokio::test]
async fn what_a_changed_publication_kept_back_is_copied() {
    let (pair, source, target) = labels_pair().await;
    let cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    wait_log(&cdc, "streaming").await;
    for statements in [
        [
            "ALTER PUBLICATION cdc DROP TABLE labels",
            "UPDATE labels SET label = 'out' WHERE code = 'MR'",
            "ALTER PUBLICATION cdc ADD TABLE labels",
        ],
        [
            "ALTER PUBLICATION cdc SET (publish = 'insert')",
            "UPDATE labels SET label = 'insert only' WHERE code = 'MR'",
            "ALTER PUBLICATION cdc SET (publish = 'insert, update, delete, truncate')",
        ],
    ] {
        for statement in statements {
            source.batch_execute(statement).await.unwrap();
        }
        wait_in_step(&source, &target).await;
    }
    wait_rows(&target, STATES, &["public.labels_lookup|in_step"]).await;
}

/// Values that a rewriting ALTER TABLE changes never get into the stream.
#[tokio::test]
async fn a_rewrite_of_the_table_is_followed_by_a_resync() {
    let (pair, source, target) = labels_pair().await;
    let cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    wait_log(&cdc, "streaming").await;
    source
        .batch_execute("ALTER TABLE labels ALTER label TYPE varchar(60) USING upper(label)")
        .await
        .unwrap();
    wait_in_step(&source, &target).await;
    wait_rows(&target, STATES, &["public.labels_lookup|in_step"]).await;
    assert!(cdc.log().contains("another file"), "the watch has seen it");
}

/// The session goes on: a read model needs no new look at a table of which it uses nothing that
/// changed.
#[tokio::test]
async fn columns_that_are_not_used_may_change_without_notice() {
    let (pair, source, target) = labels_pair().await;
    let cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    wait_log(&cdc, "streaming").await;
    for change in [
        "ADD remark varchar(9)",
        "RENAME remark TO note",
        "ALTER note SET DEFAULT 'x'",
        "DROP note",
        "RENAME updated_by TO changed_by",
    ] {
        source
            .batch_execute(&format!("ALTER TABLE labels {change}"))
            .await
            .unwrap();
        source
            .batch_execute(&format!(
                "UPDATE labels SET label = '{}' WHERE code = 'MR'",
                change.len()
            ))
            .await
            .unwrap();
        wait_in_step(&source, &target).await;
    }
    // The watch has looked since: what it notices is the last change alone.
    source
        .batch_execute("ALTER TABLE labels RENAME deleted_at TO gone_at")
        .await
        .unwrap();
    wait_log(&cdc, "was altered").await;
    source
        .batch_execute("ALTER TABLE labels RENAME gone_at TO deleted_at")
        .await
        .unwrap();
    wait_in_step(&source, &target).await;
    assert_eq!(count_log(&cdc, "was altered"), 1, "{}", cdc.log());
}

/// A replica identity that is lost is told before a change needs it; the read model comes back with
/// it.
#[tokio::test]
async fn an_identity_that_is_lost_is_told_without_a_change() {
    let (pair, source, target) = labels_pair().await;
    let cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    wait_log(&cdc, "streaming").await;
    source
        .batch_execute("ALTER TABLE labels REPLICA IDENTITY NOTHING")
        .await
        .unwrap();
    wait_rows(&target, STATES, &["public.labels_lookup|suspended"]).await;
    let reason = value(&target, "SELECT reason FROM cdc.read_model").await;
    assert!(reason.contains("NOTHING"), "{reason}");
    source
        .batch_execute(
            "ALTER TABLE labels REPLICA IDENTITY DEFAULT; DELETE FROM labels WHERE code = 'DR'",
        )
        .await
        .unwrap();
    wait_rows(&target, STATES, &["public.labels_lookup|in_step"]).await;
    wait_in_step(&source, &target).await;
}

/// Under FULL without a primary key the key is the identity, while an index over every live row
/// makes it unique: a row of which nobody knows whether it is deleted is live, and outside of it.
#[tokio::test]
async fn a_soft_delete_that_may_be_null_is_told_without_a_change() {
    let (mut pair, source, target) = labels_pair().await;
    source
        .batch_execute(
            "CREATE TABLE tags (tag text NOT NULL, note text, gone boolean NOT NULL DEFAULT false);
             CREATE UNIQUE INDEX tags_live ON tags (tag) WHERE NOT gone; ALTER TABLE tags REPLICA IDENTITY FULL;
             INSERT INTO tags VALUES ('a', 'x')",
        )
        .await
        .unwrap();
    pair.config += "[[read_model]]\nsource = 'public.tags'\ntarget = 'public.tags_lookup'\nkey = ['tag']\n\
                    columns = ['tag', 'note']\nsoft_delete = 'gone'\n";
    let cdc = Cdc::run(&pair);
    wait_log(&cdc, "streaming").await;
    assert_eq!(
        rows(&target, "SELECT tag, note FROM tags_lookup").await,
        ["a|x"]
    );
    for (null, state) in [
        ("DROP", "suspended"),
        ("SET", "in_step"),
        ("DROP", "suspended"),
    ] {
        source
            .batch_execute(&format!("ALTER TABLE tags ALTER gone {null} NOT NULL"))
            .await
            .unwrap();
        wait_rows(&target, STATES, &[&format!("public.tags_lookup|{state}")]).await;
    }
}

/// A table that is dropped and made again has another oid and is in no publication.
#[tokio::test]
async fn a_table_that_is_made_again_is_followed_again() {
    let (pair, source, target) = labels_pair().await;
    let cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    wait_log(&cdc, "streaming").await;
    source
        .batch_execute(
            "BEGIN; CREATE TABLE again (LIKE labels INCLUDING ALL); DROP TABLE labels; ALTER TABLE again RENAME TO labels;
             INSERT INTO labels (code, label, display_name) VALUES ('NEW', 'n', 'new'); COMMIT",
        )
        .await
        .unwrap();
    wait_in_step(&source, &target).await;
    source
        .batch_execute("UPDATE labels SET label = 'streamed'")
        .await
        .unwrap();
    wait_in_step(&source, &target).await;
    wait_rows(&target, STATES, &["public.labels_lookup|in_step"]).await;
}

/// The map still names rows of a lookup that is gone: the new one is filled by a copy, not row by
/// row.
#[tokio::test]
async fn a_lookup_that_is_made_again_is_filled_again() {
    let (pair, source, target) = labels_pair().await;
    let mut cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    wait_log(&cdc, "streaming").await;
    let again =
        "BEGIN; CREATE TABLE again (LIKE labels_lookup INCLUDING ALL); DROP TABLE labels_lookup;
                 ALTER TABLE again RENAME TO labels_lookup; COMMIT";
    target.batch_execute(again).await.unwrap();
    wait_in_step(&source, &target).await;
    cdc.stop(Signal::Term).await;
    target
        .batch_execute("DROP TABLE labels_lookup")
        .await
        .unwrap();
    let _cdc = Cdc::run(&pair);
    wait_until("the lookup is there and filled", async || {
        let seen = value(
            &target,
            "SELECT coalesce(to_regclass('labels_lookup')::text, 'none')",
        )
        .await;
        if seen == "labels_lookup"
            && !rows(&target, "SELECT code FROM labels_lookup")
                .await
                .is_empty()
        {
            Ok(())
        } else {
            Err(seen)
        }
    })
    .await;
    wait_in_step(&source, &target).await;
}

/// A read model that joined while another one's stream never rested lacked what was committed
/// between the pause of the stream and the merge, or the pause was never granted at all.
#[tokio::test]
async fn read_models_join_a_stream_that_never_rests() {
    let (mut pair, source, target) = labels_pair().await;
    source
        .batch_execute(
            "CREATE TABLE ticks (id int PRIMARY KEY, n int NOT NULL);
             INSERT INTO ticks SELECT i, 0 FROM generate_series(1, 500) i",
        )
        .await
        .unwrap();
    let mut cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    cdc.stop(Signal::Term).await;
    pair.config += LABELS_MODEL;
    pair.config += "[[read_model]]\nsource = 'ticks'\ntarget = 'ticks_lookup'\nkey = ['id']\ncolumns = ['id', 'n']\n";
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..3)
        .map(|writer| {
            let (url, stop) = (pair.source_url.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let client = pg(&url).await;
                let mut turn = 0;
                while !stop.load(Ordering::Relaxed) {
                    turn += 1;
                    let sql = format!(
                        "BEGIN; UPDATE ticks SET n = n + 1 WHERE id % 3 = {writer} AND id % 50 = {turn} % 50;
                         UPDATE labels SET display_name = '{writer}.{turn}' WHERE code = (ARRAY['MR', 'MRS', 'DR'])[{writer} + 1]; COMMIT"
                    );
                    client.batch_execute(&sql).await.unwrap();
                }
            })
        })
        .collect();
    let cdc = Cdc::run(&pair);
    wait_rows(
        &target,
        STATES,
        &[
            "public.labels_lookup|in_step",
            "public.ticks_lookup|in_step",
        ],
    )
    .await;
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    let expected = rows(&source, "SELECT id || '=' || n FROM ticks ORDER BY id").await;
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    wait_rows(
        &target,
        "SELECT id || '=' || n FROM ticks_lookup ORDER BY id",
        &expected,
    )
    .await;
    wait_in_step(&source, &target).await;
    assert!(!cdc.log().contains("is suspended"), "{}", cdc.log());
}

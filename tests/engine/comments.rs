//! What `cdc` makes in the target says what it is: every table, view, column and function of its
//! schema has a comment, and so has a lookup table that it makes.

use tokio_postgres::Client;

use crate::support::tags::labels_and_tags;
use crate::support::{
    Cdc, Signal, TO_VERSION_4, labels_pair, value, wait_in_step, wait_log, wait_rows,
};

/// Objects of the schema that have no comment.
const WITHOUT: &str = "
    SELECT 'table or view ' || c.oid::regclass FROM pg_class c
    WHERE c.relnamespace = 'cdc'::regnamespace AND c.relkind IN ('r', 'v') AND obj_description(c.oid, 'pg_class') IS NULL
    UNION ALL
    SELECT 'column ' || c.oid::regclass || '.' || a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE c.relnamespace = 'cdc'::regnamespace AND c.relkind IN ('r', 'v') AND a.attnum > 0 AND NOT a.attisdropped
      AND col_description(c.oid, a.attnum) IS NULL
    UNION ALL
    SELECT 'function ' || p.oid::regprocedure FROM pg_proc p
    WHERE p.pronamespace = 'cdc'::regnamespace AND obj_description(p.oid, 'pg_proc') IS NULL
    ORDER BY 1";

/// When the comments were last written: numbers of their transactions.
const WRITTEN: &str = "
    SELECT string_agg(d.xmin::text || d.ctid::text, ' ' ORDER BY d.objoid, d.objsubid)
    FROM pg_description d JOIN pg_class c ON c.oid = d.objoid AND c.relnamespace = 'cdc'::regnamespace
    WHERE d.classoid = 'pg_class'::regclass";

async fn comment_of(target: &Client, table: &str) -> String {
    value(
        target,
        &format!("SELECT coalesce(obj_description('{table}'::regclass), 'none')"),
    )
    .await
}

#[tokio::test]
async fn everything_that_stays_in_the_target_has_a_comment() {
    // The lookup of the tags is made by cdc, and their source table has names that need quotes.
    let (pair, source, target, mut cdc) = labels_and_tags(
        "\"it's a $cdc$ column\" int NOT NULL DEFAULT 1, PRIMARY KEY (id, \"it's a $cdc$ column\")",
        "ALTER TABLE tags ALTER COLUMN tag SET NOT NULL",
    )
    .await;
    // A shadow stays, too.
    let resync = Cdc::output(&pair, &["resync"]);
    assert!(resync.status.success(), "{resync:?}");
    let tables = "SELECT count(*) FROM pg_class WHERE relnamespace = 'cdc'::regnamespace AND relkind = 'r' AND relname ~ ";
    for prefix in ["map_", "rejected_", "shadow_"] {
        assert_ne!(
            value(&target, &format!("{tables} '^{prefix}'")).await,
            "0",
            "{prefix}"
        );
    }
    wait_rows(&target, WITHOUT, &[]).await;
    let made = comment_of(&target, "tags_lookup").await;
    assert!(
        made.contains("cdc keeps in step with source table public.tags"),
        "{made}"
    );
    let found = comment_of(&target, "labels_lookup").await;
    assert!(
        found.starts_with("Read-only copy of app_master_db.labels"),
        "{found}"
    );

    // A start writes none of them again.
    let written = value(&target, WRITTEN).await;
    cdc.stop(Signal::Term).await;
    let again = Cdc::run(&pair);
    wait_log(&again, "\"message\":\"streaming\"").await;
    source
        .batch_execute("UPDATE labels SET label = label || '!'")
        .await
        .unwrap();
    wait_in_step(&source, &target).await;
    assert_eq!(value(&target, WRITTEN).await, written);
}

#[tokio::test]
async fn tables_of_an_earlier_version_get_their_comments_when_it_is_brought_up_to_date() {
    let (pair, source, target) = labels_pair().await;
    let mut cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    wait_log(&cdc, "\"message\":\"streaming\"").await;
    cdc.stop(Signal::Term).await;
    // A row that the lookup does not let go had the letter of dead rows.
    let earlier = format!(
        "DELETE FROM pg_description d USING pg_class c
         WHERE c.oid = d.objoid AND d.classoid = 'pg_class'::regclass AND c.relnamespace = 'cdc'::regnamespace;
         INSERT INTO cdc.rejected_1 (k1, state, e1) VALUES ('X', 'd', '23503');
         {TO_VERSION_4}"
    );
    target.batch_execute(&earlier).await.unwrap();
    let cdc = Cdc::run(&pair);
    wait_log(&cdc, "\"message\":\"streaming\"").await;
    wait_rows(&target, WITHOUT, &[]).await;
    wait_rows(
        &target,
        "SELECT count(*) FROM cdc.rejected_1 WHERE state = 'd'",
        &["0"],
    )
    .await;
}

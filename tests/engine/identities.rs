//! Identities that are changed, lost and found again while `cdc` runs: the stream then names old
//! rows in another way.

use crate::support::tags::{
    ALL_IN_STEP, STATES, TAGS, TAGS_LOOKUP, TAGS_SUSPENDED, labels_and_tags, wait_told,
};
use crate::support::{
    Cdc, goes_on, labels_pair, rows, wait_equal, wait_in_step, wait_rows, wait_until,
};

/// Rows that were written before, in and after the transaction that changes the identity are all
/// taken.
#[tokio::test]
async fn identity_may_change_from_each_to_each_other_in_the_middle_of_a_transaction() {
    let (pair, source, target) = labels_pair().await;
    source
        .batch_execute("CREATE UNIQUE INDEX by_code ON labels (code)")
        .await
        .unwrap();
    let mut cdc = Cdc::run(&pair);
    goes_on("start", &source, &target).await;
    let mut before = "DEFAULT";
    for identity in [
        "USING INDEX by_code",
        "DEFAULT",
        "FULL",
        "USING INDEX by_code",
        "FULL",
        "DEFAULT",
    ] {
        source
            .batch_execute(&format!(
                "INSERT INTO labels (code, label, display_name) VALUES ('B', 'b', 'b'), ('C', 'c', 'c'), ('D', 'd', 'd');
                 BEGIN;
                 UPDATE labels SET code = 'B1' WHERE code = 'B'; DELETE FROM labels WHERE code = 'C';
                 ALTER TABLE labels REPLICA IDENTITY {identity};
                 UPDATE labels SET code = 'B2' WHERE code = 'B1'; UPDATE labels SET deleted_at = now() WHERE code = 'D';
                 INSERT INTO labels (code, label, display_name) VALUES ('C', 'c2', 'c2');
                 COMMIT;
                 UPDATE labels SET code = 'B3', label = '{identity}' WHERE code = 'B2'; UPDATE labels SET deleted_at = NULL WHERE code = 'D'"
            ))
            .await
            .unwrap();
        goes_on(&format!("{before} to {identity}"), &source, &target).await;
        source
            .batch_execute("DELETE FROM labels WHERE code IN ('B3', 'C', 'D')")
            .await
            .unwrap();
        wait_in_step(&source, &target).await;
        before = identity;
    }
    assert!(cdc.is_running());
}

#[tokio::test]
async fn another_primary_key_is_followed_by_itself() {
    let (_pair, source, target, _cdc) = labels_and_tags(
        "other int GENERATED ALWAYS AS IDENTITY, CONSTRAINT tags_pkey PRIMARY KEY (id)",
        "",
    )
    .await;
    for key in ["other, tag", "tag", "id"] {
        source
            .batch_execute(&format!(
                "BEGIN; ALTER TABLE tags DROP CONSTRAINT tags_pkey, ADD CONSTRAINT tags_pkey PRIMARY KEY ({key});
                 UPDATE tags SET note = note || '.' WHERE id = 1; COMMIT;
                 UPDATE tags SET tag = tag || '.' WHERE id = 2; INSERT INTO tags VALUES (9, 'new', 'n')"
            ))
            .await
            .unwrap();
        wait_equal(&source, TAGS, &target, TAGS_LOOKUP).await;
        wait_rows(&target, STATES, ALL_IN_STEP).await;
        source
            .batch_execute("DELETE FROM tags WHERE id = 9; UPDATE tags SET id = id + 10 WHERE id = 3; UPDATE tags SET id = 3 WHERE id = 13")
            .await
            .unwrap();
        wait_equal(&source, TAGS, &target, TAGS_LOOKUP).await;
    }
}

/// The application cannot update or delete then; what it inserts tells that the identity is gone.
#[tokio::test]
async fn lost_identity_suspends_its_read_model_until_it_is_there_again() {
    let (_pair, source, target, mut cdc) =
        labels_and_tags("CONSTRAINT tags_pkey PRIMARY KEY (id)", "").await;
    for (before, lost, found, reason) in [
        (
            "SELECT",
            "DROP CONSTRAINT tags_pkey",
            "ADD CONSTRAINT tags_pkey PRIMARY KEY (id)",
            "table \"public.tags\" has no usable replica identity",
        ),
        (
            "ALTER TABLE tags ADD CONSTRAINT by_tag UNIQUE (tag); ALTER TABLE tags REPLICA IDENTITY USING INDEX by_tag; UPDATE tags SET note = '.'",
            "DROP CONSTRAINT by_tag",
            "REPLICA IDENTITY DEFAULT",
            "table \"public.tags\" has no usable replica identity: the index of its replica identity was dropped",
        ),
        (
            "SELECT",
            "REPLICA IDENTITY NOTHING",
            "REPLICA IDENTITY DEFAULT",
            "table \"public.tags\" has no usable replica identity: its replica identity is NOTHING",
        ),
    ] {
        eprintln!("{lost}");
        source.batch_execute(before).await.unwrap();
        wait_equal(&source, TAGS, &target, TAGS_LOOKUP).await;
        wait_rows(&target, STATES, ALL_IN_STEP).await;
        let shown = rows(&target, TAGS_LOOKUP).await;
        source
            .batch_execute(&format!(
                "ALTER TABLE tags {lost}; INSERT INTO tags VALUES (7, 'meanwhile', 'm')"
            ))
            .await
            .unwrap();
        wait_rows(&target, STATES, TAGS_SUSPENDED).await;
        wait_told(&target, &[reason]).await;
        assert_eq!(
            rows(&target, TAGS_LOOKUP).await,
            shown,
            "{lost}: the last good state"
        );
        source
            .batch_execute("UPDATE labels SET label = label || '!' WHERE code = 'MR'")
            .await
            .unwrap();
        wait_in_step(&source, &target).await;
        source
            .batch_execute(&format!(
                "ALTER TABLE tags {found}; DELETE FROM tags WHERE id = 7; UPDATE tags SET tag = tag || '.' WHERE id = 1"
            ))
            .await
            .unwrap();
        wait_equal(&source, TAGS, &target, TAGS_LOOKUP).await;
        wait_rows(&target, STATES, ALL_IN_STEP).await;
        source
            .batch_execute("UPDATE tags SET tag = tag || '!' WHERE id = 2; DELETE FROM tags WHERE id = 3; INSERT INTO tags VALUES (3, 'c', 'z')")
            .await
            .unwrap();
        wait_equal(&source, TAGS, &target, TAGS_LOOKUP).await;
    }
    assert!(cdc.is_running());
}

/// Nothing of it is in the stream: the Relation message of a table with FULL is the same with and
/// without the index. A row that went was then taken for another one with the same key, and the
/// lookup kept what nobody has any more.
#[tokio::test]
async fn dropped_index_that_kept_keys_unique_under_full_is_noticed() {
    let (_pair, source, target, _cdc) = labels_and_tags(
        "CONSTRAINT by_tag UNIQUE (tag)",
        "ALTER TABLE tags REPLICA IDENTITY FULL",
    )
    .await;
    source
        .batch_execute(
            "ALTER TABLE tags DROP CONSTRAINT by_tag; INSERT INTO tags VALUES (4, 'a', 'another')",
        )
        .await
        .unwrap();
    source
        .batch_execute("DELETE FROM tags WHERE id = 1")
        .await
        .unwrap();
    wait_until(
        "the other row is shown, or it is told why not",
        async || {
            let seen = rows(&target, TAGS_LOOKUP).await;
            let states = rows(&target, STATES).await;
            if seen == rows(&source, TAGS).await || states == TAGS_SUSPENDED {
                Ok(())
            } else {
                Err(format!("{seen:?}, {states:?}"))
            }
        },
    )
    .await;
    source
        .batch_execute(
            "ALTER TABLE tags ADD CONSTRAINT by_tag UNIQUE (tag); UPDATE tags SET note = 'on'",
        )
        .await
        .unwrap();
    wait_equal(&source, TAGS, &target, TAGS_LOOKUP).await;
    wait_rows(&target, STATES, ALL_IN_STEP).await;
}

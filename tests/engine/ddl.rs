//! Tables that are altered while `cdc` runs, at both sides. PostgreSQL puts no DDL into the stream.

use tokio_postgres::Client;

use crate::support::tags::{
    ALL_IN_STEP, STATES, TAGS, TAGS_LOOKUP, TAGS_MODEL, TAGS_SUSPENDED, labels_and_tags, wait_told,
};
use crate::support::{
    Cdc, LABELS_MODEL, goes_on, labels_pair, lookup, rows, value, wait_equal, wait_in_step,
    wait_log, wait_rows,
};

/// The tags are suspended for one of these reasons with what they showed before; the labels go on.
async fn suspended_alone(source: &Client, target: &Client, reasons: &[&str], shown: &[String]) {
    wait_rows(target, STATES, TAGS_SUSPENDED).await;
    wait_told(target, reasons).await;
    assert_eq!(
        rows(target, TAGS_LOOKUP).await,
        shown,
        "the last good state"
    );
    source
        .batch_execute("UPDATE labels SET label = left(label || '!', 40) WHERE code = 'MR'")
        .await
        .unwrap();
    wait_in_step(source, target).await;
}

/// The tags are exact again, and each kind of change arrives.
async fn tags_go_on(source: &Client, target: &Client) {
    wait_equal(source, TAGS, target, TAGS_LOOKUP).await;
    wait_rows(target, STATES, ALL_IN_STEP).await;
    for change in [
        "INSERT INTO tags (id, tag, note) VALUES (50, 'new', 'n')",
        "UPDATE tags SET tag = 'renamed' WHERE id = 50",
        "UPDATE tags SET note = 'm' WHERE id = 50",
        "DELETE FROM tags WHERE id = 50",
    ] {
        source.batch_execute(change).await.unwrap();
        wait_equal(source, TAGS, target, TAGS_LOOKUP).await;
    }
}

#[tokio::test]
async fn lookup_that_is_altered_is_written_as_it_is_then() {
    let (pair, source, target) = labels_pair().await;
    let mut cdc = Cdc::run(&pair);
    goes_on("start", &source, &target).await;
    for statement in [
        "ALTER TABLE labels_lookup ADD note text NOT NULL DEFAULT 'n', ADD other int",
        "CREATE INDEX by_label ON labels_lookup (label)",
        "CREATE UNIQUE INDEX by_display_name ON labels_lookup (display_name)",
        "ALTER TABLE labels_lookup ALTER label TYPE text, ALTER code TYPE varchar(100)",
        "ALTER TABLE labels_lookup ALTER display_name TYPE text COLLATE \"C\"",
        // The key by another index.
        "CREATE UNIQUE INDEX by_code ON labels_lookup (code); ALTER TABLE labels_lookup DROP CONSTRAINT labels_lookup_pkey",
        "ALTER TABLE labels_lookup DROP note, DROP other; DROP INDEX by_display_name",
        "ALTER TABLE labels_lookup DROP updated_at, ADD updated_at timestamptz",
    ] {
        target.batch_execute(statement).await.unwrap();
        goes_on(statement, &source, &target).await;
    }
    assert_eq!(
        value(
            &target,
            "SELECT count(*) FROM labels_lookup WHERE updated_at IS NULL"
        )
        .await,
        "0",
        "the time is written into the new column"
    );
    assert!(cdc.is_running());
}

/// Somebody puts the table aside. What takes its place is filled whole, and so is the old one when
/// it comes back.
#[tokio::test]
async fn lookup_that_is_renamed_and_comes_back_is_exact() {
    let (pair, source, target) = labels_pair().await;
    let mut cdc = Cdc::run(&pair);
    goes_on("start", &source, &target).await;
    let aside = "ALTER TABLE labels_lookup RENAME TO aside";
    // At once, before anything is written.
    target
        .batch_execute(&format!(
            "BEGIN; {aside}; ALTER TABLE aside RENAME TO labels_lookup; COMMIT"
        ))
        .await
        .unwrap();
    goes_on("there and back", &source, &target).await;
    target.batch_execute(aside).await.unwrap();
    source
        .batch_execute(
            "UPDATE labels SET label = 'meanwhile' WHERE code = 'MR'; DELETE FROM labels WHERE code = 'DR'",
        )
        .await
        .unwrap();
    let there = "SELECT to_regclass('public.labels_lookup') IS NOT NULL";
    wait_rows(&target, there, &["t"]).await;
    goes_on("made again", &source, &target).await;
    let back = "BEGIN; DROP TABLE labels_lookup; ALTER TABLE aside RENAME TO labels_lookup; COMMIT";
    target.batch_execute(back).await.unwrap();
    goes_on("the old one", &source, &target).await;
    target
        .batch_execute("DROP TABLE labels_lookup")
        .await
        .unwrap();
    source
        .batch_execute("UPDATE labels SET label = 'dropped' WHERE code = 'MR'")
        .await
        .unwrap();
    wait_rows(&target, there, &["t"]).await;
    goes_on("dropped", &source, &target).await;
    assert!(cdc.is_running());
}

/// A lookup that lacks what it needs is a broken read model; the other one goes on.
#[tokio::test]
async fn lookup_that_lacks_a_column_or_its_key_is_suspended_until_it_has_it() {
    let (_pair, source, target, _cdc) =
        labels_and_tags("PRIMARY KEY (id)", "ALTER TABLE tags ADD spare int").await;
    for (lacks, has, reason) in [
        (
            "ALTER TABLE tags_lookup DROP note",
            "ALTER TABLE tags_lookup ADD note text",
            "\"note\"",
        ),
        (
            "ALTER TABLE tags_lookup DROP CONSTRAINT tags_lookup_pkey",
            "ALTER TABLE tags_lookup ADD CONSTRAINT tags_lookup_pkey PRIMARY KEY (tag)",
            "unique index",
        ),
    ] {
        eprintln!("{lacks}");
        target.batch_execute(lacks).await.unwrap();
        source
            .batch_execute("UPDATE tags SET note = note || '.' WHERE id = 1; INSERT INTO tags VALUES (7, 'meanwhile', 'm')")
            .await
            .unwrap();
        wait_rows(&target, STATES, TAGS_SUSPENDED).await;
        wait_told(&target, &[reason]).await;
        source
            .batch_execute(
                "DELETE FROM tags WHERE id = 7; UPDATE labels SET label = 'on' WHERE code = 'MR'",
            )
            .await
            .unwrap();
        wait_in_step(&source, &target).await;
        target.batch_execute(has).await.unwrap();
        tags_go_on(&source, &target).await;
    }
}

/// Whole rows are published, so columns that nobody reads come and go in the stream.
#[tokio::test]
async fn columns_that_are_not_projected_may_change_as_they_like() {
    let (_pair, source, target, mut cdc) =
        labels_and_tags("PRIMARY KEY (id)", "ALTER TABLE tags ADD spare int").await;
    for statement in [
        "ALTER TABLE tags ADD extra text DEFAULT 'e', ADD more jsonb",
        "ALTER TABLE tags RENAME extra TO note2",
        "ALTER TABLE tags ALTER note2 TYPE varchar(9), ALTER spare TYPE bigint",
        "ALTER TABLE tags DROP more, DROP spare",
        "ALTER TABLE tags ADD first int GENERATED ALWAYS AS (id * 2) STORED, ALTER note2 SET STORAGE EXTERNAL",
        "ALTER TABLE tags DROP note2",
    ] {
        eprintln!("{statement}");
        // In the middle of a transaction, where the columns change their places between two rows.
        source
            .batch_execute(&format!(
                "BEGIN; INSERT INTO tags (id, tag, note) VALUES (8, 'before', 'b'); {statement};
                 INSERT INTO tags (id, tag, note) VALUES (9, 'after', 'a'); UPDATE tags SET note = note || '.'; DELETE FROM tags WHERE id = 8; COMMIT;
                 UPDATE tags SET tag = tag || '.' WHERE id = 1; DELETE FROM tags WHERE id = 9"
            ))
            .await
            .unwrap();
        tags_go_on(&source, &target).await;
    }
    wait_in_step(&source, &target).await;
    assert!(cdc.is_running());
}

#[tokio::test]
async fn projected_columns_may_change_their_type_and_be_made_again() {
    let (pair, source, target) = labels_pair().await;
    let mut cdc = Cdc::run(&pair);
    goes_on("start", &source, &target).await;
    for statement in [
        "ALTER TABLE labels ALTER display_name TYPE text",
        // Padded by its type, and so shown.
        "ALTER TABLE labels ALTER label TYPE char(20)",
        "ALTER TABLE labels ALTER label TYPE varchar(50), ALTER code TYPE text",
        "BEGIN; ALTER TABLE labels DROP label; ALTER TABLE labels ADD label varchar(50) NOT NULL DEFAULT 'again';
         UPDATE labels SET label = 'first' WHERE code = 'MR'; COMMIT; UPDATE labels SET label = 'second' WHERE code = 'DR'",
        // Two columns that change their names.
        "BEGIN; ALTER TABLE labels RENAME label TO l; ALTER TABLE labels RENAME display_name TO label;
         ALTER TABLE labels RENAME l TO display_name; COMMIT; UPDATE labels SET label = 'third' WHERE code = 'MRS'",
        "ALTER TABLE labels DROP deleted_at; ALTER TABLE labels ADD deleted_at timestamptz",
    ] {
        source.batch_execute(statement).await.unwrap();
        goes_on(statement, &source, &target).await;
    }
    assert!(
        lookup(&target)
            .await
            .iter()
            .any(|row| row.starts_with("SIR|"))
    );
    // Another kind of soft delete.
    source
        .batch_execute(
            "ALTER TABLE labels ALTER deleted_at TYPE boolean USING deleted_at IS NOT NULL; UPDATE labels SET deleted_at = true WHERE code = 'DR'",
        )
        .await
        .unwrap();
    let live = "SELECT code, label, display_name FROM labels WHERE deleted_at IS NOT TRUE ORDER BY code COLLATE \"C\"";
    let shown = "SELECT code, label, display_name FROM labels_lookup ORDER BY code COLLATE \"C\"";
    wait_equal(&source, live, &target, shown).await;
    for change in [
        "deleted_at = true",
        "deleted_at = false",
        "deleted_at = NULL",
    ] {
        source
            .batch_execute(&format!("UPDATE labels SET {change} WHERE code = 'SIR'"))
            .await
            .unwrap();
        wait_equal(&source, live, &target, shown).await;
    }
    assert!(cdc.is_running());
}

/// The publication goes with the table wherever it goes; its rows then come under another name.
#[tokio::test]
async fn source_that_is_away_is_suspended_until_it_is_back() {
    let (_pair, source, target, mut cdc) =
        labels_and_tags("PRIMARY KEY (id)", "ALTER TABLE tags ADD spare int").await;
    source.batch_execute("CREATE SCHEMA away").await.unwrap();
    for (leave, at, back, reason) in [
        (
            "ALTER TABLE tags RENAME TO gone",
            "gone",
            "ALTER TABLE gone RENAME TO tags",
            "table \"public.tags\"",
        ),
        (
            "ALTER TABLE tags SET SCHEMA away",
            "away.tags",
            "ALTER TABLE away.tags SET SCHEMA public",
            "table \"public.tags\"",
        ),
        (
            "ALTER TABLE tags DROP note",
            "tags",
            "ALTER TABLE tags ADD note text; UPDATE tags SET note = 'again'",
            "column \"note\"",
        ),
    ] {
        eprintln!("{leave}");
        let shown = rows(&target, TAGS_LOOKUP).await;
        source.batch_execute(leave).await.unwrap();
        source
            .batch_execute(&format!(
                "INSERT INTO {at} (id, tag) VALUES (7, 'meanwhile'); UPDATE {at} SET tag = tag || '.' WHERE id = 1"
            ))
            .await
            .unwrap();
        suspended_alone(&source, &target, &[reason], &shown).await;
        source
            .batch_execute(&format!(
                "{back}; DELETE FROM tags WHERE id = 7; UPDATE tags SET tag = tag || '!' WHERE id = 2"
            ))
            .await
            .unwrap();
        tags_go_on(&source, &target).await;
    }
    assert!(cdc.is_running());
}

/// No value of the new type can go into the lookup's column: that is told once, not row by row.
#[tokio::test]
async fn type_that_cannot_fit_any_more_is_told_until_it_fits() {
    let (mut pair, source, target) = labels_pair().await;
    pair.config += LABELS_MODEL;
    pair.config += TAGS_MODEL;
    source
        .batch_execute("CREATE TABLE tags (id int PRIMARY KEY, tag text NOT NULL, note int); INSERT INTO tags VALUES (1, 'a', 1), (2, 'b', 2)")
        .await
        .unwrap();
    let mut cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    wait_log(&cdc, "\"message\":\"streaming\"").await;
    wait_equal(&source, TAGS, &target, TAGS_LOOKUP).await;
    let shown = rows(&target, TAGS_LOOKUP).await;
    source
        .batch_execute("ALTER TABLE tags ALTER note TYPE uuid USING gen_random_uuid(); UPDATE tags SET note = gen_random_uuid() WHERE id = 1")
        .await
        .unwrap();
    // By the stream, or by the copy if that was faster.
    suspended_alone(
        &source,
        &target,
        &["\"note\"", "SQLSTATE 22P02 (note)"],
        &shown,
    )
    .await;
    // The lookup follows the source's type.
    target
        .batch_execute("ALTER TABLE tags_lookup ALTER note TYPE uuid USING NULL")
        .await
        .unwrap();
    wait_equal(&source, TAGS, &target, TAGS_LOOKUP).await;
    source
        .batch_execute("UPDATE tags SET note = gen_random_uuid()")
        .await
        .unwrap();
    wait_equal(&source, TAGS, &target, TAGS_LOOKUP).await;
    wait_rows(&target, STATES, ALL_IN_STEP).await;
    assert!(cdc.is_running());
}

//! Starts from every state: nothing, seeds, checkpoint without slot, a copy that was killed. A slot
//! without checkpoint is in ownership.rs.

use crate::support::held;
use crate::support::{
    Cdc, SOURCE_SQL, Signal, count_log, database_pair, labels_pair, lookup, on_free_slot, pg, rows,
    value, wait_in_step, wait_log, wait_rows, wait_until,
};

#[tokio::test]
async fn first_run_makes_everything_that_is_missing() {
    let pair = database_pair().await;
    let source = pg(&pair.source_url).await;
    let target = pg(&pair.target_url).await;
    source.batch_execute(SOURCE_SQL).await.unwrap();
    let mut cdc = Cdc::run(&pair);
    wait_rows(
        &target,
        "SELECT coalesce(to_regclass('labels_lookup')::text, '-')",
        &["labels_lookup"],
    )
    .await;
    wait_in_step(&source, &target).await;
    let columns = "SELECT a.attname, format_type(atttypid, atttypmod), attnotnull, coalesce(pg_get_expr(adbin, adrelid), '-')
        FROM pg_attribute a LEFT JOIN pg_attrdef d ON adrelid = attrelid AND adnum = attnum
        WHERE attrelid = 'labels_lookup'::regclass AND attnum > 0 ORDER BY attnum";
    assert_eq!(
        rows(&target, columns).await,
        [
            "code|character varying(10)|t|-",
            "label|character varying(50)|t|-",
            "display_name|character varying(50)|t|-",
            "updated_at|timestamp with time zone|t|now()"
        ]
    );
    let key = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'labels_lookup'::regclass AND contype = 'p'";
    assert_eq!(rows(&target, key).await, ["PRIMARY KEY (code)"]);
    // No row filter; before 15 there are none, nor the column.
    let publication = "SELECT pubname, tablename, puballtables, to_jsonb(t) ->> 'rowfilter' IS NULL
        FROM pg_publication_tables t JOIN pg_publication USING (pubname)";
    assert_eq!(rows(&source, publication).await, ["cdc|labels|f|t"]);
    let slot = format!(
        "SELECT plugin, slot_type, active, temporary FROM pg_replication_slots WHERE slot_name = '{}'",
        pair.slot
    );
    wait_rows(&source, &slot, &["pgoutput|logical|t|f"]).await;
    assert_eq!(
        rows(
            &source,
            "SELECT relreplident FROM pg_class WHERE relname = 'labels'"
        )
        .await,
        ["d"]
    );
    assert_eq!(
        rows(&target, held::FULL_SHADOWS).await,
        Vec::<String>::new()
    );
    assert_eq!(cdc.stop(Signal::Int).await.code(), Some(0));
    assert_eq!(count_log(&cdc, "trying again"), 0);
}

#[tokio::test]
async fn existing_lookup_is_taken_as_it_is() {
    let (pair, source, target) = labels_pair().await;
    target
        .batch_execute(
            "INSERT INTO labels_lookup VALUES ('MR', 'Mr.', 'Mister', '2020-01-01'), ('DR', 'wrong', 'x', '2020-01-01'),
                 ('GONE', 'x', 'x', '2020-01-01');
             CREATE VIEW v AS SELECT * FROM labels_lookup;",
        )
        .await
        .unwrap();
    let oid = value(&target, "SELECT 'labels_lookup'::regclass::oid").await;
    let _cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    assert_eq!(
        value(&target, "SELECT 'labels_lookup'::regclass::oid").await,
        oid
    );
    let kept = "SELECT code FROM labels_lookup WHERE updated_at = '2020-01-01'";
    assert_eq!(
        rows(&target, kept).await,
        ["MR"],
        "a row that is right is not written"
    );
    assert_eq!(rows(&target, "SELECT count(*) FROM v").await, ["3"]);
}

#[tokio::test]
async fn restart_loses_nothing_and_writes_nothing_twice() {
    let (pair, source, target) = labels_pair().await;
    for (round, signal) in [Signal::Term, Signal::Kill, Signal::Int, Signal::Kill]
        .into_iter()
        .enumerate()
    {
        let mut cdc = Cdc::run(&pair);
        let change =
            format!("UPDATE labels SET display_name = 'while running {round}' WHERE code = 'MR'");
        wait_in_step(&source, &target).await;
        source.batch_execute(&change).await.unwrap();
        wait_in_step(&source, &target).await;
        let before = rows(
            &target,
            "SELECT code, xmin, updated_at FROM labels_lookup ORDER BY code",
        )
        .await;
        cdc.stop(signal).await;
        assert_eq!(
            count_log(&cdc, "first copy of every read model"),
            usize::from(round == 0)
        );
        source
            .batch_execute(&format!(
                "INSERT INTO labels (code, label, display_name) VALUES ('S{round}', 'x', 'stopped');
                 DELETE FROM labels WHERE code LIKE 'S_' AND code NOT IN ('S{round}', 'SIR')"
            ))
            .await
            .unwrap();
        let mut cdc = Cdc::run(&pair);
        wait_in_step(&source, &target).await;
        let after = rows(
            &target,
            "SELECT code, xmin, updated_at FROM labels_lookup ORDER BY code",
        )
        .await;
        for row in before.iter().filter(|row| !row.starts_with('S')) {
            assert!(after.contains(row), "{row} was written again: {after:?}");
        }
        assert_eq!(count_log(&cdc, "copied again"), 0, "the stream goes on");
        cdc.stop(Signal::Kill).await;
    }
}

#[tokio::test]
async fn checkpoint_without_slot_heals_with_the_old_rows_readable() {
    let (pair, source, target) = labels_pair().await;
    let mut cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    cdc.stop(Signal::Term).await;
    let kept = "SELECT xmin, updated_at FROM labels_lookup WHERE code = 'DR'";
    let before = rows(&target, kept).await;
    on_free_slot(
        &source,
        &format!("SELECT pg_drop_replication_slot('{}')", pair.slot),
    )
    .await;
    source
        .batch_execute(
            "UPDATE labels SET label = 'unseen' WHERE code = 'MR'; DELETE FROM labels WHERE code = 'MRS'",
        )
        .await
        .unwrap();
    assert_eq!(lookup(&target).await.len(), 3);
    let cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    assert_eq!(
        rows(&target, kept).await,
        before,
        "a right row is not written by healing"
    );
    // Told after the merge that has brought it in step.
    wait_log(&cdc, "the stream could not continue").await;
    assert_eq!(count_log(&cdc, "the stream cannot continue"), 1);
    // With the pause before, since the first copy was just now.
    let told = 3 + count_log(&cdc, "CRON_FULL_SYNC");
    assert_eq!(
        count_log(&cdc, "the slot is missing"),
        told,
        "{}",
        cdc.log()
    );
}

#[tokio::test]
async fn slot_ahead_of_the_checkpoint_is_a_gap() {
    let (pair, source, target) = labels_pair().await;
    let mut cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    cdc.stop(Signal::Term).await;
    source
        .batch_execute("UPDATE labels SET label = 'skipped' WHERE code = 'MR'")
        .await
        .unwrap();
    on_free_slot(
        &source,
        &format!(
            "SELECT pg_replication_slot_advance('{}', pg_current_wal_lsn())",
            pair.slot
        ),
    )
    .await;
    let cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    assert!(cdc.log().contains("ahead of the checkpoint"), "it says why");
}

#[tokio::test]
async fn first_copy_that_was_killed_is_begun_again() {
    let (pair, source, target) = labels_pair().await;
    source
        .batch_execute(
            "DROP INDEX labels_code_live;
             INSERT INTO labels (code, label, display_name) SELECT 'N' || n, 'label', 'name' FROM generate_series(1, 100000) n",
        )
        .await
        .unwrap();
    for _ in 0..2 {
        let mut cdc = Cdc::run(&pair);
        wait_until("a shadow has rows", async || {
            match target
                .simple_query("SELECT 1 FROM cdc.shadow_1_1 LIMIT 1")
                .await
            {
                _ if cdc.log().contains("\"copied\"") => Ok(()),
                _ if value(
                    &target,
                    "SELECT coalesce(pg_relation_size(to_regclass('cdc.shadow_1_1')), 0) > 0",
                )
                .await
                    == "t" =>
                {
                    Ok(())
                }
                other => Err(format!("{:?}", other.map(|rows| rows.len()))),
            }
        })
        .await;
        cdc.stop(Signal::Kill).await;
        assert_eq!(
            lookup(&target).await.len(),
            0,
            "nothing of half a copy is shown"
        );
        source
            .batch_execute("UPDATE labels SET label = label || '.' WHERE code = 'N1'")
            .await
            .unwrap();
    }
    let cdc = Cdc::run(&pair);
    wait_rows(
        &target,
        "SELECT count(*), count(*) FILTER (WHERE label = 'label..') FROM labels_lookup",
        &["100003|1"],
    )
    .await;
    wait_log(&cdc, "streaming").await;
    assert_eq!(
        rows(&target, held::FULL_SHADOWS).await,
        Vec::<String>::new()
    );
    source
        .batch_execute("DELETE FROM labels WHERE code LIKE 'N%'")
        .await
        .unwrap();
    wait_in_step(&source, &target).await;
}

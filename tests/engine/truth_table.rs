//! The truth table through the real stream, and what the reports see of it.

use crate::support::{
    self, Cdc, Signal, labels_pair, lookup, rows, value, wait_in_step, wait_until,
};

/// What the application does to `labels`, and what the lookup has then (`code|label`).
const STEPS: &[(&str, &[&str])] = &[
    (
        "INSERT INTO labels (code, label, display_name) VALUES ('MS', 'Ms.', 'Miss')",
        &["DR|Dr.", "MR|Mr.", "MRS|Mrs.", "MS|Ms."],
    ),
    (
        "INSERT INTO labels (code, label, display_name, deleted_at) VALUES ('OLD', 'Old', 'Old', now())",
        &["DR|Dr.", "MR|Mr.", "MRS|Mrs.", "MS|Ms."],
    ),
    (
        "UPDATE labels SET label = 'Miss' WHERE code = 'MS'",
        &["DR|Dr.", "MR|Mr.", "MRS|Mrs.", "MS|Miss"],
    ),
    (
        "UPDATE labels SET code = 'MISS' WHERE code = 'MS'",
        &["DR|Dr.", "MISS|Miss", "MR|Mr.", "MRS|Mrs."],
    ),
    (
        "UPDATE labels SET deleted_at = now() WHERE code = 'MISS'",
        &["DR|Dr.", "MR|Mr.", "MRS|Mrs."],
    ),
    (
        "UPDATE labels SET label = 'Dead' WHERE code = 'MISS'",
        &["DR|Dr.", "MR|Mr.", "MRS|Mrs."],
    ),
    (
        "UPDATE labels SET deleted_at = NULL WHERE code = 'MISS'",
        &["DR|Dr.", "MISS|Dead", "MR|Mr.", "MRS|Mrs."],
    ),
    (
        "DELETE FROM labels WHERE code = 'MISS'",
        &["DR|Dr.", "MR|Mr.", "MRS|Mrs."],
    ),
    (
        "DELETE FROM labels WHERE code IN ('OLD', 'SIR')",
        &["DR|Dr.", "MR|Mr.", "MRS|Mrs."],
    ),
    // A code is freed by a soft delete and given to another row, in one transaction and in two.
    (
        "UPDATE labels SET deleted_at = now() WHERE code = 'DR'; INSERT INTO labels (code, label, display_name) VALUES ('DR', 'Doc', 'Doc')",
        &["DR|Doc", "MR|Mr.", "MRS|Mrs."],
    ),
    (
        "DELETE FROM labels WHERE code = 'DR' AND deleted_at IS NOT NULL",
        &["DR|Doc", "MR|Mr.", "MRS|Mrs."],
    ),
    // Codes swapped by way of a third.
    (
        "BEGIN; UPDATE labels SET code = 'T' WHERE code = 'MR'; UPDATE labels SET code = 'MR' WHERE code = 'MRS'; UPDATE labels SET code = 'MRS' WHERE code = 'T'; COMMIT",
        &["DR|Doc", "MR|Mrs.", "MRS|Mr."],
    ),
    (
        "UPDATE labels SET id = gen_random_uuid() WHERE code = 'DR'",
        &["DR|Doc", "MR|Mrs.", "MRS|Mr."],
    ),
    (
        "UPDATE labels SET id = gen_random_uuid(), code = 'PROF' WHERE code = 'DR'",
        &["MR|Mrs.", "MRS|Mr.", "PROF|Doc"],
    ),
    (
        "BEGIN; INSERT INTO labels (code, label, display_name) VALUES ('X', 'X', 'X'); DELETE FROM labels WHERE code = 'X'; COMMIT",
        &["MR|Mrs.", "MRS|Mr.", "PROF|Doc"],
    ),
    (
        "BEGIN; SAVEPOINT a; DELETE FROM labels; ROLLBACK TO a; UPDATE labels SET label = 'Prof.' WHERE code = 'PROF'; COMMIT",
        &["MR|Mrs.", "MRS|Mr.", "PROF|Prof."],
    ),
    (
        "BEGIN; TRUNCATE labels; INSERT INTO labels (code, label, display_name) VALUES ('MR', 'Mr.', 'Mister'), ('DR', 'Dr.', 'Doctor'); COMMIT",
        &["DR|Dr.", "MR|Mr."],
    ),
    (
        "INSERT INTO labels (code, label, display_name) SELECT 'N' || n, 'n' || n, 'x' FROM generate_series(1, 2000) n; DELETE FROM labels WHERE code LIKE 'N%' AND code NOT IN ('N1', 'N2')",
        &["DR|Dr.", "MR|Mr.", "N1|n1", "N2|n2"],
    ),
    ("TRUNCATE labels", &[]),
];

#[tokio::test]
async fn every_change_of_the_truth_table_arrives_by_the_stream() {
    let (pair, source, target) = labels_pair().await;
    let mut cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    for (sql, expected) in STEPS {
        source.batch_execute(sql).await.unwrap();
        crate::support::wait_rows(
            &target,
            "SELECT code, label FROM labels_lookup ORDER BY code COLLATE \"C\"",
            expected,
        )
        .await;
        assert_eq!(
            lookup(&target).await,
            support::live_labels(&source).await,
            "{sql}"
        );
    }
    assert_eq!(cdc.stop(Signal::Term).await.code(), Some(0));
    let log = cdc.log();
    assert!(
        !log.contains("Mister") && !log.contains("Prof."),
        "values in the log"
    );
    assert!(
        !log.contains("WARN") && !log.contains("ERROR"),
        "nothing went wrong"
    );
}

#[tokio::test]
async fn values_left_out_of_the_stream_are_kept() {
    let (pair, source, target) = labels_pair().await;
    source
        .batch_execute("ALTER TABLE labels ALTER label TYPE text, ALTER label SET STORAGE EXTERNAL")
        .await
        .unwrap();
    target
        .batch_execute("ALTER TABLE labels_lookup ALTER label TYPE text")
        .await
        .unwrap();
    let cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    let long = "repeat('long', 3000)";
    for sql in [
        format!("INSERT INTO labels (code, label, display_name) VALUES ('L', {long}, 'Long')"),
        "UPDATE labels SET display_name = 'Longer' WHERE code = 'L'".to_owned(),
        "UPDATE labels SET code = 'M' WHERE code = 'L'".to_owned(),
        "UPDATE labels SET deleted_at = now() WHERE code = 'M'".to_owned(),
        "UPDATE labels SET code = 'K', deleted_at = NULL WHERE code = 'M'".to_owned(),
        "UPDATE labels SET id = gen_random_uuid() WHERE code = 'K'".to_owned(),
        format!(
            "INSERT INTO labels (code, label, display_name, deleted_at) VALUES ('D', {long} || 'dead', 'Long', now())"
        ),
        "UPDATE labels SET deleted_at = NULL WHERE code = 'D'".to_owned(),
    ] {
        source.batch_execute(&sql).await.unwrap();
        wait_in_step(&source, &target).await;
    }
    assert_eq!(
        value(
            &target,
            "SELECT count(*) FROM labels_lookup WHERE length(label) > 10000"
        )
        .await,
        "2"
    );
    assert_eq!(crate::support::count_log(&cdc, "trying again"), 0);
}

#[tokio::test]
async fn readers_never_see_half_a_transaction() {
    let (pair, source, target) = labels_pair().await;
    // Every transaction moves a unit between two rows, so the sum stays, and renames both.
    source
        .batch_execute("TRUNCATE labels; INSERT INTO labels (code, label, display_name) VALUES ('A', '500', 'x'), ('B', '500', 'x')")
        .await
        .unwrap();
    let _cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    let writer = tokio::spawn(async move {
        for n in 0..150 {
            let sql = format!(
                "BEGIN; UPDATE labels SET label = (label::int - 1)::text WHERE code LIKE 'A%';
                 UPDATE labels SET label = (label::int + 1)::text WHERE code LIKE 'B%';
                 UPDATE labels SET code = left(code, 1) || '{n}', display_name = '{n}'; COMMIT"
            );
            source.batch_execute(&sql).await.unwrap();
        }
        source
    });
    let mut looks = 0;
    while !writer.is_finished() {
        let seen = rows(&target, "SELECT sum(label::int), count(*), count(DISTINCT display_name), min(substr(code, 2)) = max(substr(code, 2)) FROM labels_lookup").await;
        assert_eq!(seen, ["1000|2|1|t"]);
        looks += 1;
    }
    let source = writer.await.unwrap();
    wait_in_step(&source, &target).await;
    assert!(looks > 5, "{looks}");
}

#[tokio::test]
async fn the_report_follows_over_a_role_that_may_only_select() {
    let (pair, source, target) = labels_pair().await;
    let _cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    let reports = support::pg(&pair.target_url.replace("postgres@", "reports@")).await;
    let report = include_str!("../../sql/demo/report.sql").replace("$1", "'REF002'");
    let name = async |client: &tokio_postgres::Client| rows(client, &report).await;
    assert_eq!(
        name(&reports).await,
        ["REF002|Dr. Jane Doe|1975-11-02|N-1002"]
    );
    source
        .batch_execute("UPDATE labels SET label = 'Prof. Dr.' WHERE code = 'DR'")
        .await
        .unwrap();
    wait_until("the report has the new label", async || {
        let seen = name(&reports).await;
        if seen == ["REF002|Prof. Dr. Jane Doe|1975-11-02|N-1002"] {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    })
    .await;
    source
        .batch_execute("UPDATE labels SET deleted_at = now() WHERE code = 'DR'")
        .await
        .unwrap();
    wait_until("the report has no label", async || {
        let seen = name(&reports).await;
        if seen == ["REF002| Jane Doe|1975-11-02|N-1002"] {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    })
    .await;
    let freshness = rows(
        &reports,
        "SELECT read_model, state, rows, as_of > now() - interval '1 minute' FROM cdc.freshness",
    )
    .await;
    assert_eq!(freshness, ["public.labels_lookup|streaming|2|t"]);
    assert!(
        reports
            .batch_execute("DELETE FROM labels_lookup")
            .await
            .is_err()
    );
}

/// The statement that a reporting service sends: its answer, and how it ended.
async fn wait_for(
    client: &tokio_postgres::Client,
    arguments: &str,
) -> Result<bool, tokio_postgres::Error> {
    client
        .query_one(&format!("SELECT cdc.wait_for({arguments})"), &[])
        .await
        .map(|row| row.get(0))
}

#[tokio::test]
async fn report_can_wait_for_what_was_just_written() {
    let (mut pair, source, target) = labels_pair().await;
    // Nothing but the waiting call makes an idle position be stored.
    pair.config = format!("status_interval = \"1h\"\n{}", pair.config);
    let mut cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    crate::support::wait_log(&cdc, "streaming").await;
    let reports = support::pg(&pair.target_url.replace("postgres@", "reports@")).await;
    for n in 0..10 {
        let change = format!("UPDATE labels SET label = 'n{n}' WHERE code = 'MR'");
        source.batch_execute(&change).await.unwrap();
        let lsn = value(&source, "SELECT pg_current_wal_lsn()").await;
        assert!(
            wait_for(&reports, &format!("'{lsn}', '30 seconds'"))
                .await
                .unwrap()
        );
        let label = "SELECT label FROM labels_lookup WHERE code = 'MR'";
        assert_eq!(rows(&reports, label).await, [format!("n{n}")]);
    }
    // A commit that concerns no read model: the stream stays silent, the position moves all the
    // same.
    source
        .batch_execute("CREATE TABLE other (a int)")
        .await
        .unwrap();
    let lsn = value(&source, "SELECT pg_current_wal_lsn()").await;
    let named = format!("'{lsn}', '30 seconds', 'public.labels_lookup'");
    assert!(wait_for(&reports, &named).await.unwrap());
    // Inside a transaction: the lock by which it is heard goes with the call.
    let locks =
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()";
    reports.batch_execute("BEGIN").await.unwrap();
    assert!(!wait_for(&reports, "'FFFFFF/0', '50 ms'").await.unwrap());
    assert_eq!(value(&reports, locks).await, "0");
    reports.batch_execute("COMMIT").await.unwrap();
    // What can never be.
    for (arguments, state) in [
        ("NULL", "22004"),
        ("'0/1', NULL", "22004"),
        ("'0/1', '1 s', 'public.unknown'", "42704"),
    ] {
        let error = wait_for(&reports, arguments).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), state, "{error:?}");
    }
    reports
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        .await
        .unwrap();
    let error = wait_for(&reports, "'FFFFFF/0'").await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "25000", "{error:?}");
    reports.batch_execute("ROLLBACK").await.unwrap();
    // Nobody applies: false, and not before the time is over.
    cdc.stop(Signal::Term).await;
    source
        .batch_execute("DELETE FROM labels WHERE code = 'MR'")
        .await
        .unwrap();
    let lsn = value(&source, "SELECT pg_current_wal_lsn()").await;
    assert!(
        !wait_for(&reports, &format!("'{lsn}', '100 ms'"))
            .await
            .unwrap()
    );
    let _cdc = Cdc::run(&pair);
    assert!(
        wait_for(&reports, &format!("'{lsn}', '30 seconds'"))
            .await
            .unwrap()
    );
    assert_eq!(
        support::lookup(&reports).await,
        support::live_labels(&source).await
    );
}

#[tokio::test]
async fn lookups_of_a_quiet_source_are_as_of_a_later_time() {
    let (mut pair, source, target) = labels_pair().await;
    pair.config = format!("status_interval = \"200ms\"\n{}", pair.config);
    let _cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    for _ in 0..3 {
        let now = value(&source, "SELECT clock_timestamp()").await;
        let later = format!("SELECT bool_and(as_of > '{now}') FROM cdc.freshness");
        crate::support::wait_rows(&target, &later, &["t"]).await;
    }
}

#[tokio::test]
async fn bookkeeping_of_an_earlier_version_is_brought_up_to_date() {
    let (pair, source, target) = labels_pair().await;
    let mut cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    cdc.stop(Signal::Term).await;
    let what_2_added = "DROP FUNCTION cdc.wait_for; ALTER TABLE cdc.resync DROP most_keys;
         ALTER TABLE cdc.pipeline DROP waiting_for; ALTER TABLE cdc.read_model DROP copy_bytes, DROP copy_seconds";
    let what_3_added = "ALTER TABLE cdc.read_model DROP waiting";
    // Each subject of version 4 adds what undoes it.
    let what_4_added = [
        crate::support::TO_VERSION_4,
        "ALTER TABLE cdc.resync DROP epoch",
        "ALTER TABLE cdc.pipeline DROP healings, DROP healing_began_at, DROP healed_at, DROP healing_after",
        "ALTER TABLE cdc.pipeline DROP stuck_lsn, DROP stuck_sqlstate, DROP stuck_since, DROP stuck_times, DROP stuck_error",
        "ALTER TABLE cdc.read_model DROP compared_at, DROP differing",
        // The clock of a target that was ahead.
        "UPDATE cdc.pipeline SET commit_time = now() + interval '1 day'",
    ]
    .join("; ");
    let older = [
        (5, crate::support::TO_VERSION_5.to_owned()),
        (4, crate::support::TO_VERSION_4.to_owned()),
        (3, what_4_added.clone()),
        (2, format!("{what_4_added}; {what_3_added}")),
        (1, format!("{what_4_added}; {what_3_added}; {what_2_added}")),
    ];
    for (version, without) in older {
        target
            .batch_execute(&format!(
                "{without}; UPDATE cdc.version SET version = {version}"
            ))
            .await
            .unwrap();
        let status = Cdc::output(&pair, &["status", "--json"]);
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
        assert_eq!(status["target"]["reachable"], true, "{status:#}");
        source
            .batch_execute(&format!(
                "UPDATE labels SET label = 'after {version}' WHERE code = 'MR'"
            ))
            .await
            .unwrap();
        let mut cdc = Cdc::run(&pair);
        wait_in_step(&source, &target).await;
        assert_eq!(
            rows(&target, "SELECT version FROM cdc.version").await,
            ["6"]
        );
        let shadows =
            "SELECT relname FROM pg_class WHERE relname ~ '^shadow_[0-9]' AND relkind = 'r'";
        if version < 5 {
            crate::support::wait_rows(&target, shadows, &[]).await;
        }
        let honest = "SELECT as_of <= clock_timestamp() FROM cdc.freshness";
        assert_eq!(rows(&target, honest).await, ["t"]);
        assert!(wait_for(&target, "'0/1'").await.unwrap());
        assert_eq!(crate::support::count_log(&cdc, "copied again"), 0);
        cdc.stop(Signal::Term).await;
    }
}

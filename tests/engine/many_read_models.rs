//! Many read models: what a session makes for them before its first batch, and what is left for the
//! server to drop at its end, does not grow with their number.

use std::fmt::Write as _;

use crate::support::{Cdc, Signal, database_pair, pg, rows, value, wait_log, wait_rows};

/// Tables and functions in temporary schemas that belong to a session that is there.
const MADE: &str = "SELECT (SELECT count(*) FROM pg_class c WHERE c.relkind = 'r' AND c.relname ~ '^(stage|moving|touched|tries|earlier|chunk)_')
    + (SELECT count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname ~ '^pg_temp_' AND p.proname !~ '^cdc_')";

/// What a read model has as a rule: stage, moving, touched, and two functions.
const THINGS: usize = 5;

#[tokio::test]
async fn session_keeps_tables_for_few_read_models() {
    let mut pair = database_pair().await;
    let (source, target) = (pg(&pair.source_url).await, pg(&pair.target_url).await);
    // Of the server's lock table, a tenth; each read model takes 25, and 40 have room at most.
    let room = "SELECT current_setting('max_locks_per_transaction')::int
        * (current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int) / 250";
    let room = value(&target, room)
        .await
        .parse::<usize>()
        .unwrap()
        .clamp(8, 40);
    let many = room + 20;
    for n in 0..many {
        source
            .batch_execute(&format!(
                "CREATE TABLE t{n} (id int PRIMARY KEY, v text); INSERT INTO t{n} VALUES (1, 'first')"
            ))
            .await
            .unwrap();
        write!(
            pair.config,
            "\n[[read_model]]\nsource = 'public.t{n}'\ntarget = 'public.l{n}'\nkey = ['id']\ncolumns = ['id', 'v']\n"
        )
        .unwrap();
    }
    let mut cdc = Cdc::run(&pair);
    wait_log(&cdc, "\"streaming\"").await;
    let in_step = "SELECT count(*) FROM cdc.freshness WHERE state = 'streaming'";
    wait_rows(&target, in_step, &[&many.to_string()]).await;
    cdc.stop(Signal::Kill).await;
    wait_rows(&target, MADE, &["0"]).await;
    let mut cdc = Cdc::run(&pair);
    wait_log(&cdc, "\"streaming\"").await;
    let before: usize = value(&target, MADE).await.parse().unwrap();
    assert!(
        before <= 8 * THINGS,
        "{before} things before the first batch"
    );
    // Each of them changes, one after the other and all together.
    for n in 0..many {
        source
            .batch_execute(&format!("UPDATE t{n} SET v = 'second'"))
            .await
            .unwrap();
    }
    for n in 0..many {
        wait_rows(&target, &format!("SELECT v FROM l{n}"), &["second"]).await;
    }
    let after: usize = value(&target, MADE).await.parse().unwrap();
    assert!(
        after <= room * THINGS,
        "{after} things after a change of each"
    );
    let all: String = (0..many)
        .map(|n| format!("UPDATE t{n} SET v = 'third';"))
        .collect();
    source
        .batch_execute(&format!("BEGIN; {all} COMMIT"))
        .await
        .unwrap();
    for n in (0..many).rev() {
        wait_rows(&target, &format!("SELECT v FROM l{n}"), &["third"]).await;
    }
    source
        .batch_execute("UPDATE t0 SET v = 'fourth'")
        .await
        .unwrap();
    wait_rows(&target, "SELECT v FROM l0", &["fourth"]).await;
    let at_rest: usize = value(&target, MADE).await.parse().unwrap();
    assert!(
        at_rest <= room * THINGS,
        "{at_rest} things after a change of all at once"
    );
    cdc.stop(Signal::Kill).await;
    wait_rows(&target, MADE, &["0"]).await;
    assert_eq!(rows(&target, in_step).await, [many.to_string()]);
}

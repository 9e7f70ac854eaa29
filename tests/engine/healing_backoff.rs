//! A cause that comes back must not load the source: the pauses between two healings grow, and are
//! told.

use serde_json::Value;

use crate::support::{
    Cdc, Signal, goes_on, labels_pair, on_free_slot, value, wait_in_step, wait_log, wait_rows,
    wait_until,
};

/// The pauses that the log tells, in milliseconds.
fn pauses(cdc: &Cdc) -> Vec<u64> {
    cdc.log()
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line.to_string().contains("so soon: waiting first"))
        .map(|line| {
            let found = line
                .pointer("/delay_ms")
                .or_else(|| line.pointer("/fields/delay_ms"));
            found.and_then(Value::as_u64).unwrap()
        })
        .collect()
}

#[tokio::test]
async fn pauses_between_healings_grow() {
    let (pair, source, target) = labels_pair().await;
    let slot = &pair.slot;
    let drop_slot = format!(
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{slot}';
         SELECT pg_drop_replication_slot('{slot}')"
    );
    let mut cdc = Cdc::run(&pair);
    goes_on("start", &source, &target).await;
    assert!(
        pauses(&cdc).is_empty(),
        "nothing waits before the first copy"
    );
    let made_again = "DROP PUBLICATION cdc; CREATE PUBLICATION cdc FOR TABLE labels";
    for (done, damage) in [drop_slot.as_str(), made_again, drop_slot.as_str()]
        .into_iter()
        .enumerate()
    {
        // The slot is in use as long as its session lives; what was changed then was in no stream.
        wait_until("the damage is done", async || {
            source
                .batch_execute(damage)
                .await
                .map_err(|error| format!("{error:?}"))
        })
        .await;
        source
            .batch_execute(
                "UPDATE labels SET label = 'lost ' || clock_timestamp() WHERE code = 'MRS'",
            )
            .await
            .unwrap();
        let healed = "SELECT count(*) FROM cdc.resync WHERE origin = 'heal' AND state = 'done'";
        wait_rows(&target, healed, &[&(done + 1).to_string()]).await;
        goes_on(damage, &source, &target).await;
    }
    let told = pauses(&cdc);
    // Jittered: from half of the doubled delay up to the whole.
    let ranges = [500..=1000, 1000..=2000, 2000..=4000];
    assert_eq!(told.len(), ranges.len(), "{told:?}");
    for (pause, range) in told.iter().zip(&ranges) {
        assert!(range.contains(pause), "{told:?}");
    }
    // Readers keep the old rows, and `cdc` can be asked to leave, while it waits.
    wait_until("the slot is dropped", async || {
        source
            .batch_execute(&drop_slot)
            .await
            .map_err(|error| format!("{error:?}"))
    })
    .await;
    wait_until("it waits for the fourth time", async || {
        let told = pauses(&cdc);
        if told.len() == 4 {
            Ok(())
        } else {
            Err(format!("{told:?}"))
        }
    })
    .await;
    let before = wait_in_step(&source, &target).await;
    assert!(!before.is_empty());
    assert_eq!(cdc.stop(Signal::Term).await.code(), Some(0));
    let healed = "SELECT count(*) FROM cdc.resync WHERE origin = 'heal'";
    wait_rows(&target, healed, &["3"]).await;
    // A new process waits for what is left of it, and says so.
    let cdc = Cdc::run(&pair);
    wait_log(&cdc, "waiting first").await;
    wait_rows(
        &target,
        "SELECT state, healing FROM cdc.pipeline",
        &["waiting|the slot is missing"],
    )
    .await;
    assert_eq!(pauses(&cdc).len(), 1, "{}", cdc.log());
    assert!(pauses(&cdc)[0] <= 8000, "{}", cdc.log());
    let status = Cdc::output(&pair, &["status", "--json"]);
    let status = String::from_utf8(status.stdout).unwrap();
    assert!(
        status.contains("everything is copied again from")
            && status.contains("on: the slot is missing (it was copied 4 times"),
        "{status}"
    );
    assert_eq!(crate::support::lookup(&target).await, before);
    goes_on("new start", &source, &target).await;
    wait_rows(&target, healed, &["4"]).await;
    assert_eq!(
        value(
            &target,
            "SELECT concat_ws('|', healings, healing_after) FROM cdc.pipeline"
        )
        .await,
        "5"
    );
}

/// A process that dies in each of its copies copies everything at each start, unless it waits.
#[tokio::test]
async fn a_process_that_dies_while_it_copies_waits_before_it_copies_again() {
    let (pair, source, target) = labels_pair().await;
    source
        .batch_execute("INSERT INTO labels (code, label, display_name) SELECT 'L' || n, 'l', repeat('d', 40) FROM generate_series(1, 20000) n")
        .await
        .unwrap();
    let mut told = Vec::new();
    for _ in 1..=4 {
        let mut cdc = Cdc::run(&pair);
        wait_log(&cdc, "resync started").await;
        told.extend(pauses(&cdc));
        cdc.kill(Signal::Kill);
        cdc.wait().await;
    }
    let ranges = [500..=1000, 1000..=2000, 2000..=4000];
    assert_eq!(told.len(), ranges.len(), "{told:?}");
    for (pause, range) in told.iter().zip(&ranges) {
        assert!(range.contains(pause), "{told:?}");
    }
    // One that lives comes to its end.
    let _cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    wait_rows(
        &target,
        "SELECT state, healings FROM cdc.pipeline",
        &["streaming|5"],
    )
    .await;
}

/// Whoever asks for a resync by hand does not want to wait for an hour; and the copy of everything
/// is what was asked for.
#[tokio::test]
async fn a_resync_by_hand_or_an_hour_of_health_ends_the_pause() {
    let (pair, source, target) = labels_pair().await;
    let mut cdc = Cdc::run(&pair);
    goes_on("start", &source, &target).await;
    cdc.stop(Signal::Kill).await;
    let drop_slot = format!("SELECT pg_drop_replication_slot('{}')", pair.slot);
    on_free_slot(&source, &drop_slot).await;
    target
        .batch_execute("UPDATE cdc.pipeline SET healings = 30")
        .await
        .unwrap();
    let mut cdc = Cdc::run(&pair);
    wait_rows(&target, "SELECT state FROM cdc.pipeline", &["waiting"]).await;
    // The log is written by a thread of its own.
    wait_log(&cdc, "waiting first").await;
    assert!(pauses(&cdc)[0] >= 1_800_000, "{}", cdc.log());
    // To compare is no reason.
    target
        .batch_execute("INSERT INTO cdc.resync (dry_run, origin) VALUES (true, 'request')")
        .await
        .unwrap();
    let waits = "SELECT waiting_for LIKE 'the next copy of everything at % UTC: the slot is missing' FROM cdc.resync WHERE dry_run";
    wait_rows(&target, waits, &["t"]).await;
    let asked = tokio::task::spawn_blocking({
        let pair = pair.clone();
        move || Cdc::output(&pair, &["resync"])
    });
    let output = asked.await.unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("rows compared"),
        "{output:?}"
    );
    goes_on("asked for", &source, &target).await;
    let copies = "SELECT origin, state, dry_run, lsn IS NOT NULL FROM cdc.resync ORDER BY id";
    wait_rows(
        &target,
        copies,
        &[
            "first copy|done|f|t",
            "request|done|t|t",
            "request|done|f|t",
            "heal|done|f|t",
        ],
    )
    .await;
    assert_eq!(
        crate::support::count_log(&cdc, "resync completed"),
        1,
        "{}",
        cdc.log()
    );
    assert_eq!(
        value(&target, "SELECT healings FROM cdc.pipeline").await,
        "31"
    );
    cdc.stop(Signal::Kill).await;
    on_free_slot(&source, &drop_slot).await;
    target
        .batch_execute("UPDATE cdc.pipeline SET healed_at = now() - interval '1 hour'")
        .await
        .unwrap();
    let cdc = Cdc::run(&pair);
    goes_on("an hour later", &source, &target).await;
    assert!(pauses(&cdc).is_empty(), "{}", cdc.log());
    assert_eq!(
        value(&target, "SELECT healings FROM cdc.pipeline").await,
        "1"
    );
}

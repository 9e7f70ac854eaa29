//! A cause that comes back must not load the source: the pauses between two healings grow, and are told.

use serde_json::Value;

use crate::support::{Cdc, Signal, labels_pair, wait_in_step, wait_until};
use crate::{goes_on, wait_rows};

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
    assert!(pauses(&cdc).is_empty(), "nothing waits before the first copy");
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
            .batch_execute("UPDATE labels SET label = 'lost ' || clock_timestamp() WHERE code = 'MRS'")
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
    // A new process does not know of them, and heals at once.
    let cdc = Cdc::run(&pair);
    goes_on("new start", &source, &target).await;
    assert!(pauses(&cdc).is_empty(), "{}", cdc.log());
}

//! A snapshot that somebody holds at the target keeps every version of the rows that each batch
//! writes. A batch does not read them.

use crate::cases::{TABLES, labels};
use crate::rig::{FIRST, Rig};
use crate::support::{self, rows, value};

/// Versions of each row behind which a batch is written.
const VERSIONS: u32 = 20_000;

/// Pages that a statement of the writer's session reads.
async fn pages(rig: &mut Rig, statement: &str) -> u64 {
    let explain = format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}");
    let plan = value(rig.writer.connection(), &explain).await;
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    let plan = &plan[0]["Plan"];
    ["Shared Hit Blocks", "Shared Read Blocks"]
        .iter()
        .map(|name| plan[name].as_u64().unwrap())
        .sum()
}

#[tokio::test]
async fn held_snapshot_slows_no_batch() {
    let mut rig = Rig::new(TABLES).await;
    rig.add(&labels(false)).await;
    rig.write(FIRST, &["+1|A|one|-"]).await.unwrap();
    let report = support::pg(&rig.url).await;
    report
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
        .await
        .unwrap();
    rig.db
        .batch_execute("SET synchronous_commit = off")
        .await
        .unwrap();
    rig.db
        .batch_execute(&format!(
            "DO $$BEGIN FOR n IN 1..{VERSIONS} LOOP
                 UPDATE cdc.checkpoint SET applied_at = applied_at; UPDATE cdc.counted SET rows = rows; COMMIT;
             END LOOP; END$$"
        ))
        .await
        .unwrap();
    // Others have written the rows meanwhile: they are searched for, once.
    rig.write(FIRST, &["=1|A|two|-"]).await.unwrap();
    let sizes = "SELECT pg_relation_size('cdc.checkpoint') / 8192 > 200, pg_relation_size('cdc.counted') / 8192 > 100";
    assert_eq!(rows(&rig.db, sizes).await, ["t|t"]);
    let epoch = rig.writer.epoch();
    let advance = format!("SELECT pg_temp.cdc_advance({epoch}, '0/2000', NULL, NULL, NULL, NULL)");
    for statement in [
        advance.as_str(),
        "SELECT pg_temp.cdc_count(1, 0, false, true)",
    ] {
        let read = pages(&mut rig, statement).await;
        eprintln!("{statement}: {read} pages");
        assert!(read < 30, "{statement}: {read} pages");
    }
    rig.write(FIRST, &["=1|A|three|-"]).await.unwrap();
    assert_eq!(rows(&rig.db, "SELECT label FROM lookup").await, ["three"]);
    assert_eq!(rows(&rig.db, "SELECT rows FROM cdc.counted").await, ["1"]);
    drop(report);
}

/// The place that a session remembers goes with its transaction: what is rolled back has left the
/// row where it was.
#[tokio::test]
async fn checkpoint_is_found_after_a_batch_that_was_rolled_back() {
    let mut rig = Rig::new(TABLES).await;
    rig.add(&labels(false)).await;
    rig.write(FIRST, &["+1|A|one|-"]).await.unwrap();
    for _ in 0..3 {
        let epoch = rig.writer.epoch();
        let advance = format!(
            "BEGIN; SELECT pg_temp.cdc_advance({epoch}, '0/9000', NULL, NULL, NULL, NULL); ROLLBACK"
        );
        rig.writer
            .connection()
            .batch_execute(&advance)
            .await
            .unwrap();
        rig.db
            .batch_execute("UPDATE cdc.checkpoint SET applied_at = now()")
            .await
            .unwrap();
        // Another row may stand where it was.
        rig.db
            .batch_execute("VACUUM FULL cdc.checkpoint")
            .await
            .unwrap();
        rig.write(FIRST, &["=1|A|two|-"]).await.unwrap();
    }
    let lsn = format!("{}", cdc::lsn::Lsn(rig.lsn));
    assert_eq!(rows(&rig.db, "SELECT lsn FROM cdc.checkpoint").await, [lsn]);
}

//! The history of resyncs: bounded, and the schedule's memory for ever.

use cdc::lsn::Lsn;

use crate::cases::TABLES;
use crate::rig::Rig;
use crate::support::{rows, value};

#[tokio::test]
async fn history_keeps_the_newest_and_the_last_one_of_everything() {
    let mut rig = Rig::new(TABLES).await;
    rig.db
        .batch_execute(
            "INSERT INTO cdc.resync (origin, state, started_at, lsn) SELECT 'schedule', 'done', '2026-01-01', '0/1' FROM generate_series(1, 2);
             INSERT INTO cdc.resync (origin, state) VALUES ('request', 'queued');
             INSERT INTO cdc.resync (read_models, origin, state, lsn) SELECT '{public.lookup}', 'watch', 'done', '0/1' FROM generate_series(1, 1500)",
        )
        .await
        .unwrap();
    let epoch = rig.writer.epoch();
    let conn = rig.writer.connection();
    let last = rig.bookkeeping.last_full_resync(conn).await.unwrap();
    let id = rig
        .bookkeeping
        .start_resync(conn, epoch, "schedule")
        .await
        .unwrap();
    let failed = cdc::error::Error::transient("no slot is free");
    rig.bookkeeping
        .finish_resync(conn, epoch, id, None, Some(&failed))
        .await
        .unwrap();
    assert_eq!(rig.bookkeeping.last_full_resync(conn).await.unwrap(), last);
    // The second one of everything, what is queued, and the newest thousand.
    let kept = rows(&rig.db, "SELECT id FROM cdc.resync ORDER BY id LIMIT 3").await;
    assert_eq!(kept, ["2", "3", &(id - 999).to_string()]);
    assert_eq!(
        value(&rig.db, "SELECT count(*) FROM cdc.resync").await,
        "1002"
    );
    // A newer one of everything takes its place.
    let result = serde_json::json!({});
    let conn = rig.writer.connection();
    rig.bookkeeping
        .note_copy(conn, epoch, "heal", Lsn(16), &result)
        .await
        .unwrap();
    let kept = rows(&rig.db, "SELECT id FROM cdc.resync ORDER BY id LIMIT 2").await;
    assert_eq!(kept, ["3", &(id - 998).to_string()]);
}

//! Whoever alters the lookup in two steps, an index first and then the table, meets a batch in
//! between: one of them waits, and neither is ended as part of a deadlock.

use cdc::batch::MergePosition;
use tokio_postgres::Client;

use crate::isolate::{TABLES, fill, model, start};
use crate::rig::{FIRST, Rig};
use crate::support::{pg, rows, wait_until};

/// Writes these lines while somebody has the lookup locked as CREATE INDEX does, and then locks it
/// as ALTER TABLE does.
async fn beside_a_migration(lines: &[&str]) {
    let mut rig = Rig::new(TABLES).await;
    rig.add(&model()).await;
    start(&mut rig).await;
    let (migration, looker) = (pg(&rig.url).await, pg(&rig.url).await);
    migration
        .batch_execute("BEGIN; LOCK TABLE lookup IN SHARE MODE")
        .await
        .unwrap();
    let migrate = async {
        let waits =
            "SELECT count(*) FROM pg_locks WHERE relation = 'lookup'::regclass AND NOT granted";
        wait_until("the batch waits for the lookup", async || {
            let seen = rows(&looker, waits).await;
            if seen == ["1"] {
                Ok(())
            } else {
                Err(seen.concat())
            }
        })
        .await;
        migration
            .batch_execute("LOCK TABLE lookup IN ACCESS EXCLUSIVE MODE; COMMIT")
            .await
            .unwrap();
    };
    let (written, ()) = tokio::join!(rig.write(FIRST, lines), migrate);
    written.unwrap();
}

#[tokio::test]
async fn a_batch_and_a_migration_of_the_lookup_wait_for_each_other() {
    // One row, several, and some that are rejected.
    beside_a_migration(&["=1|A|a|8|-"]).await;
    beside_a_migration(&["=1|A|a|8|-", "+4|D|d|4|-", "-2"]).await;
    beside_a_migration(&["=1|A|a|8|-", "+4|D|far too long for it|4|-", "-2"]).await;
}

/// What waits for the lookup, and since which statement.
const WAITS: &str = "SELECT a.query_start::text FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
     WHERE l.relation = 'lookup'::regclass AND NOT l.granted";

/// A session that has the lookup locked.
async fn holder(rig: &Rig) -> Client {
    let holder = pg(&rig.url).await;
    holder
        .batch_execute("BEGIN; LOCK TABLE lookup IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    holder
}

/// Lets the lookup go once the writer has tried twice.
async fn released_after_two_tries(holder: Client, looker: Client) {
    let mut first = None;
    wait_until("the writer tries again", async || {
        let seen = rows(&looker, WAITS).await;
        let Some(seen) = seen.into_iter().next() else {
            return Err("nothing waits".to_owned());
        };
        let first = first.get_or_insert_with(|| seen.clone());
        if *first == seen {
            Err(format!("waits since {seen}"))
        } else {
            Ok(())
        }
    })
    .await;
    holder.batch_execute("ROLLBACK").await.unwrap();
}

async fn impatient_rig() -> Rig {
    let mut rig = Rig::new(TABLES).await;
    rig.add(&model()).await;
    start(&mut rig).await;
    rig.writer
        .connection()
        .batch_execute("SET lock_timeout = '200ms'")
        .await
        .unwrap();
    rig
}

#[tokio::test]
async fn a_batch_lets_go_of_what_it_holds_and_is_written_again() {
    for lines in [
        ["=1|A|small|8|-", "+4|D|d|4|-"],
        ["=1|A|isolated|8|-", "+4|D|far too long for it|4|-"],
    ] {
        let mut rig = impatient_rig().await;
        let (holder, looker) = (holder(&rig).await, pg(&rig.url).await);
        let (written, ()) = tokio::join!(
            rig.write(FIRST, &lines),
            released_after_two_tries(holder, looker)
        );
        assert_eq!(written.unwrap().updated, 1, "{lines:?}");
    }
}

/// The driver's COPY sends a Sync too many if it does not get so far as to read rows. The answer to
/// that was taken for the answer to the next statement.
#[tokio::test]
async fn new_rows_that_meet_a_locked_lookup_are_written_in_the_same_session() {
    let mut rig = impatient_rig().await;
    rig.db
        .batch_execute("INSERT INTO kind SELECT n::text FROM generate_series(100, 999) n")
        .await
        .unwrap();
    let pid = "SELECT pg_backend_pid()";
    let session: i32 = (rig.writer.connection().query_one(pid, &[]).await.unwrap()).get(0);
    let (holder, looker) = (holder(&rig).await, pg(&rig.url).await);
    let lines: Vec<String> = (90..700)
        .map(|id| format!("+{id}|{id}|new|{}|-", id - 80))
        .collect();
    let (written, ()) = tokio::join!(
        rig.write(FIRST, &lines),
        released_after_two_tries(holder, looker)
    );
    assert_eq!(written.unwrap().inserted, 610);
    let now: i32 = (rig.writer.connection().query_one(pid, &[]).await.unwrap()).get(0);
    assert_eq!(now, session);
    assert_eq!(rig.write(FIRST, &["-100"]).await.unwrap().deleted, 1);
}

#[tokio::test]
async fn a_large_transaction_that_meets_a_locked_lookup_is_not_read_again() {
    for last in ["+4|D|d|4|-", "+4|D|far too long for it|4|-"] {
        let mut rig = impatient_rig().await;
        let (holder, looker) = (holder(&rig).await, pg(&rig.url).await);
        let chunks: [&[&str]; 2] = [&["=1|A|chunk|8|-"], &[last]];
        let (written, ()) = tokio::join!(
            rig.write_in_chunks(FIRST, &chunks),
            released_after_two_tries(holder, looker)
        );
        assert_eq!(written.unwrap()[0].1.updated, 1, "{last}");
    }
}

#[tokio::test]
async fn a_copy_that_meets_a_locked_lookup_is_merged_all_the_same() {
    for line in ["4|l|D|d|4", "4|l|D|far too long for it|4"] {
        let mut rig = impatient_rig().await;
        let copy = ["0|l|ZZ|good|\\N", "1|l|A|copied|8", line];
        let mut shadow = fill(&rig, FIRST, &copy).await;
        let (holder, looker) = (holder(&rig).await, pg(&rig.url).await);
        let position = MergePosition::Running(rig.position().lsn, None);
        let (merged, ()) = tokio::join!(
            rig.writer.merge(&[FIRST], &position, 20),
            released_after_two_tries(holder, looker)
        );
        let written = merged.unwrap().remove(0).result;
        assert_eq!(written.unwrap().updated, 1, "{line}");
        shadow.give_back(&rig.bookkeeping).await.unwrap();
    }
}

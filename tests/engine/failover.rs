//! A standby takes the place of the source: `cdc` finds it by the list of hosts, and goes on from
//! the slot that the standby holds a copy of, or copies everything again where it holds none, or
//! where commits that were applied are lost.
//!
//! Standbys hold copies of logical slots from PostgreSQL 17 on: those tests need its programs, see
//! [`programs`].

use cdc::cluster::Stop;
use tokio::task::JoinHandle;

use crate::support::couple::{SYNCHRONIZED, couple, programs};
use crate::support::{
    Cdc, IN_STEP, Side, Signal, live_labels, lookup, pg, value, wait_in_step, wait_log, wait_rows,
    wait_until,
};

const HEALS: &str = "the stream cannot continue";

/// The standby's slot is far behind: what was applied comes again there, in the layout that the
/// table had then.
#[tokio::test]
async fn what_comes_again_at_a_promoted_standby_in_another_layout_breaks_nothing() {
    let name = "what_comes_again_at_a_promoted_standby_in_another_layout_breaks_nothing";
    let Some(programs) = programs(name) else {
        return;
    };
    let couple = couple("layouts", Some(programs), &SYNCHRONIZED).await;
    let cdc = Cdc::run(&couple.pair);
    wait_in_step(&couple.source, &couple.target).await;
    wait_log(&cdc, "streaming").await;
    couple.copy_slot().await;
    for change in [
        "UPDATE labels SET label = 'before' WHERE code = 'MR'",
        "ALTER TABLE labels ALTER label TYPE text",
        "UPDATE labels SET label = 'between' WHERE code = 'MR'",
    ] {
        couple.source.batch_execute(change).await.unwrap();
        wait_in_step(&couple.source, &couple.target).await;
    }
    wait_rows(&couple.target, IN_STEP, &["in_step streaming"]).await;
    let source = couple.stop_and_promote().await;
    source
        .batch_execute(
            "UPDATE labels SET label = 'after' WHERE code = 'MR'; \
             INSERT INTO labels (code, label, display_name) VALUES ('LATE', 'l', 'l')",
        )
        .await
        .unwrap();
    couple.follows(&source).await;
    assert!(!cdc.log().contains(HEALS), "{}", cdc.log());
    couple.no_difference().await;
}

/// Writes one row after the other until its server goes away; tells how many were committed.
fn writer(url: String) -> JoinHandle<u32> {
    tokio::spawn(async move {
        let client = pg(&url).await;
        for number in 1.. {
            let write = format!(
                "INSERT INTO labels (code, label, display_name) VALUES ('W{number}', 'w', 'w'); \
                 UPDATE labels SET label = '{number}' WHERE code = 'MR'"
            );
            if client.batch_execute(&write).await.is_err() {
                return number - 1;
            }
        }
        0
    })
}

/// The slot goes on at the standby: nothing is copied again, and nothing is lost.
async fn goes_on_without_a_copy(name: &str, how: Stop) {
    let Some(programs) = programs(name) else {
        return;
    };
    let couple = couple(name, Some(programs), &SYNCHRONIZED).await;
    couple.hold_back().await;
    let mut cdc = Cdc::run(&couple.pair);
    wait_in_step(&couple.source, &couple.target).await;
    wait_log(&cdc, "streaming").await;
    couple.copy_slot().await;
    couple.keep_synchronized().await;
    assert!(!couple.told_of_standbys().await);
    let writer = writer(couple.primary.url(&couple.pair.source_database));
    wait_until("the lookup follows the writer", async || {
        let seen = lookup(&couple.target).await.len();
        if seen > 50 {
            Ok(())
        } else {
            Err(format!("{seen} rows"))
        }
    })
    .await;
    couple.primary.stop(how).unwrap();
    let written = writer.await.unwrap();
    let source = couple.promote().await;
    couple.follows(&source).await;
    if how == Stop::Fast {
        // A crash of the primary may lose commits that the standby has not received; `cdc` has not
        // seen those either.
        let kept = value(&source, "SELECT count(*) FROM labels WHERE code LIKE 'W%'").await;
        assert!(
            kept.parse::<u32>().unwrap() >= written,
            "{kept} of {written}"
        );
    }
    assert!(!cdc.log().contains(HEALS), "{}", cdc.log());
    assert_eq!(couple.copies().await, ["first copy"]);
    couple.no_difference().await;
    // A restart has nothing to copy either.
    cdc.stop(Signal::Term).await;
    let cdc = Cdc::run(&couple.pair);
    source
        .batch_execute("UPDATE labels SET label = 'restarted' WHERE code = 'MR'")
        .await
        .unwrap();
    wait_in_step(&source, &couple.target).await;
    assert!(!cdc.log().contains(HEALS), "{}", cdc.log());
}

#[tokio::test]
async fn stream_goes_on_at_a_promoted_standby_after_a_stop() {
    goes_on_without_a_copy("failover-stop", Stop::Fast).await;
}

#[tokio::test]
async fn stream_goes_on_at_a_promoted_standby_after_a_crash() {
    goes_on_without_a_copy("failover-crash", Stop::Immediate).await;
}

/// Looks at the lookup all the time and tells what it saw besides these rows, which no change
/// touches.
fn reader(url: String, untouched: Vec<String>) -> JoinHandle<Vec<String>> {
    tokio::spawn(async move {
        let client = pg(&url).await;
        while let Ok(seen) = client
            .query(
                "SELECT code || '|' || label || '|' || display_name FROM labels_lookup",
                &[],
            )
            .await
        {
            let seen: Vec<String> = seen.iter().map(|row| row.get(0)).collect();
            if !untouched.iter().all(|row| seen.contains(row)) {
                return seen;
            }
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        vec!["the target went away".to_owned()]
    })
}

/// On any version: the new primary has no copy of the slot.
#[tokio::test]
async fn everything_is_copied_at_a_promoted_standby_without_the_slot() {
    let couple = couple("failover-none", Side::Source.programs(), &[]).await;
    let cdc = Cdc::run(&couple.pair);
    let before = wait_in_step(&couple.source, &couple.target).await;
    wait_log(&cdc, "streaming").await;
    let reader = reader(couple.pair.target_url.clone(), before.clone());
    couple
        .source
        .batch_execute("INSERT INTO labels (code, label, display_name) VALUES ('LAST', 'l', 'l')")
        .await
        .unwrap();
    let last = live_labels(&couple.source).await;
    couple.primary.stop(Stop::Fast).unwrap();
    let source = couple.promote().await;
    // Never in the stream of any slot.
    source
        .batch_execute("INSERT INTO labels (code, label, display_name) VALUES ('GAP', 'g', 'g')")
        .await
        .unwrap();
    wait_in_step(&source, &couple.target).await;
    assert_eq!(lookup(&couple.target).await.len(), last.len() + 1);
    assert!(!reader.is_finished(), "rows were gone: {:?}", reader.await);
    reader.abort();
    couple.follows(&source).await;
    assert!(cdc.log().contains("the slot is missing"), "{}", cdc.log());
    assert_eq!(couple.copies().await, ["first copy", "heal"]);
    couple.no_difference().await;
}

/// Where nothing holds the stream back, `cdc` may have applied what the new primary never received.
async fn loses_commits(name: &str, grows: bool) {
    let Some(programs) = programs(name) else {
        return;
    };
    let couple = couple(name, Some(programs), &SYNCHRONIZED).await;
    let mut cdc = Cdc::run(&couple.pair);
    wait_in_step(&couple.source, &couple.target).await;
    wait_log(&cdc, "streaming").await;
    couple.copy_slot().await;
    couple.keep_synchronized().await;
    assert!(
        couple.told_of_standbys().await,
        "nothing holds the stream back"
    );
    let both = wait_in_step(&couple.source, &couple.target).await;
    couple.standby.stop(Stop::Fast).unwrap();
    couple
        .source
        .batch_execute("INSERT INTO labels (code, label, display_name) VALUES ('LOST', 'l', 'l')")
        .await
        .unwrap();
    wait_in_step(&couple.source, &couple.target).await;
    let checkpoint = value(&couple.source, "SELECT pg_current_wal_flush_lsn()").await;
    if grows {
        cdc.stop(Signal::Term).await;
    }
    couple.primary.stop(Stop::Immediate).unwrap();
    couple.standby.start_again().unwrap();
    let source = couple.promote().await;
    if grows {
        // Another history up to and past the position that `cdc` knows.
        wait_until(
            "the new primary has grown past the checkpoint",
            async || {
                let write = "UPDATE labels SET updated_at = now() WHERE code = 'DR'";
                source.batch_execute(write).await.unwrap();
                let past = format!("SELECT pg_current_wal_flush_lsn() > '{checkpoint}'");
                let past = value(&source, &past).await;
                if past == "t" { Ok(()) } else { Err(past) }
            },
        )
        .await;
        cdc = Cdc::run(&couple.pair);
    }
    assert_eq!(
        live_labels(&source).await,
        both,
        "the standby has lost the commit"
    );
    couple.follows(&source).await;
    // A promotion writes WAL of its own, so that the end may be past the checkpoint even if nobody
    // has written.
    let log = cdc.log();
    let noticed = log.contains("the source's history is not the one that was applied")
        || (!grows && log.contains("behind the checkpoint"));
    assert!(noticed, "{log}");
    assert_eq!(couple.copies().await, ["first copy", "heal"]);
    couple.no_difference().await;
}

#[tokio::test]
async fn commits_that_a_promoted_standby_lost_are_undone() {
    loses_commits("failover-behind", false).await;
}

#[tokio::test]
async fn commits_that_a_promoted_standby_replaced_are_undone() {
    loses_commits("failover-replaced", true).await;
}

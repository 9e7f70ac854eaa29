//! Slots: made, given up, dropped.

use std::time::{Duration, Instant};

use cdc::source::slot;
use tokio_util::sync::CancellationToken;

use super::place::{client, cluster, database, on_socket, replication};
use crate::support::{Side, own_cluster, server_version, value};

#[tokio::test]
async fn a_slot_is_made_read_and_dropped() {
    let conninfo = database(cluster()).await;
    let observer = client(&conninfo).await;
    let mut replication = replication(&conninfo).await;
    assert_eq!(slot::read(&observer, "made").await.unwrap(), None);
    let made = slot::create(&mut replication, "made", slot::Kind::Failover)
        .await
        .unwrap();
    assert_eq!(made.name, "made");
    let found = slot::read(&observer, "made").await.unwrap().unwrap();
    assert_eq!(found.confirmed_flush_lsn, Some(made.consistent_point));
    assert_eq!(found.database.as_deref(), Some(conninfo.database.as_str()));
    assert_eq!(found.wal_status.as_deref(), Some("reserved"));
    assert!(found.held_bytes >= Some(0));
    let version = server_version(&observer).await;
    for (failover, altered) in [(true, false), (false, true), (false, false), (true, true)] {
        let set = slot::set_failover(&mut replication, &observer, "made", failover)
            .await
            .unwrap();
        assert_eq!(set, altered && version >= 170_000, "{failover}");
    }
    let error = slot::create(&mut replication, "made", slot::Kind::Failover)
        .await
        .unwrap_err();
    assert_eq!(error.sqlstate(), Some("42710"));
    slot::drop(&mut replication, "made").await.unwrap();
    assert_eq!(slot::read(&observer, "made").await.unwrap(), None);
    let error = slot::drop(&mut replication, "made").await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("42704"));
}

#[tokio::test]
async fn a_temporary_slot_goes_with_its_connection() {
    let conninfo = database(cluster()).await;
    let observer = client(&conninfo).await;
    let mut replication = replication(&conninfo).await;
    let within = Duration::from_secs(30);
    slot::create_within(
        &mut replication,
        &observer,
        "temporary",
        slot::Kind::Temporary,
        &slot::Waits {
            within,
            stop: &CancellationToken::new(),
            tell: &tokio::sync::watch::Sender::new(None),
        },
    )
    .await
    .unwrap();
    assert!(slot::read(&observer, "temporary").await.unwrap().is_some());
    replication.finish().await;
    let started = Instant::now();
    while slot::read(&observer, "temporary").await.unwrap().is_some() {
        assert!(started.elapsed() < Duration::from_secs(10));
    }
}

#[tokio::test]
async fn creation_is_given_up_while_a_write_transaction_is_open() {
    let cluster = own_cluster(Side::Source, "blocked");
    let conninfo = on_socket(&cluster);
    let observer = client(&conninfo).await;
    let writer = client(&conninfo).await;
    let prepared = client(&conninfo).await;
    writer
        .batch_execute("CREATE TABLE public.t (id int)")
        .await
        .unwrap();
    writer
        .batch_execute("BEGIN; INSERT INTO public.t VALUES (1)")
        .await
        .unwrap();
    prepared
        .batch_execute("BEGIN; INSERT INTO public.t VALUES (2); PREPARE TRANSACTION 'it''s'")
        .await
        .unwrap();
    let mut replication = replication(&conninfo).await;
    let started = Instant::now();
    let within = Duration::from_millis(300);
    let error = slot::create_within(
        &mut replication,
        &observer,
        "blocked",
        slot::Kind::Failover,
        &slot::Waits {
            within,
            stop: &CancellationToken::new(),
            tell: &tokio::sync::watch::Sender::new(None),
        },
    )
    .await
    .unwrap_err();
    assert!(started.elapsed() >= within);
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    assert!(error.is_transient());
    let pid = value(&writer, "SELECT pg_backend_pid()").await;
    let detail = error.detail().unwrap();
    assert!(
        detail.contains(&format!(
            "process {pid} of role postgres in database postgres, since 20"
        )),
        "{detail}"
    );
    assert!(
        detail.contains("prepared transaction 'it''s' of role postgres"),
        "{detail}"
    );
    assert_eq!(slot::read(&observer, "blocked").await.unwrap(), None);

    // The connection can be used again, and the slot is made once nobody is in the way.
    writer.batch_execute("COMMIT").await.unwrap();
    writer
        .batch_execute("COMMIT PREPARED 'it''s'")
        .await
        .unwrap();
    assert_eq!(slot::blockers(&observer).await.unwrap(), []);
    slot::create_within(
        &mut replication,
        &observer,
        "blocked",
        slot::Kind::Failover,
        &slot::Waits {
            within: Duration::from_secs(30),
            stop: &CancellationToken::new(),
            tell: &tokio::sync::watch::Sender::new(None),
        },
    )
    .await
    .unwrap();
}

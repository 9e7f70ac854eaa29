//! The replication stream: commands, frames, status updates, and the ways in which it ends.

use std::time::Duration;

use cdc::connect::Connection;
use cdc::conninfo::Conninfo;
use cdc::error::Class;
use cdc::lsn::Lsn;
use cdc::protocol::pgoutput::{self, Message};
use cdc::row::Cell;
use cdc::source::replication::{Replication, StreamFrame};
use cdc::source::slot;
use tokio::time::timeout;

use super::place::{client, cluster, database, replication};
use crate::support::{DEADLINE, value, wait_until};

/// A database with a published table, and a stream from a new slot.
async fn streaming(slot_name: &str) -> (Conninfo, Connection, Replication) {
    let conninfo = database(cluster()).await;
    let client = client(&conninfo).await;
    client
        .batch_execute(
            "CREATE TABLE public.t (id int PRIMARY KEY, name text); \
             CREATE PUBLICATION \"the 'cdc' \"\"publication\" FOR TABLE public.t",
        )
        .await
        .unwrap();
    let mut replication = replication(&conninfo).await;
    slot::create(&mut replication, slot_name, slot::Kind::Failover)
        .await
        .unwrap();
    replication
        .start(slot_name, Lsn::ZERO, "the 'cdc' \"publication")
        .await
        .unwrap();
    (conninfo, client, replication)
}

/// One line for each message up to the `commits`th Commit, whose end is returned too.
async fn read_commits(replication: &mut Replication, mut commits: usize) -> (Vec<String>, Lsn) {
    let mut lines = Vec::new();
    loop {
        while let Some(frame) = replication.next_frame().unwrap() {
            let StreamFrame::WalData { payload, .. } = frame else {
                continue;
            };
            let message = pgoutput::decode(payload).unwrap();
            lines.push(line(&message));
            if let Message::Commit(commit) = message {
                commits -= 1;
                if commits == 0 {
                    return (lines, commit.end_lsn);
                }
            }
        }
        timeout(DEADLINE, replication.fill())
            .await
            .unwrap()
            .unwrap();
    }
}

fn line(message: &Message<'_>) -> String {
    match message {
        Message::Begin(_) => "begin".to_owned(),
        Message::Commit(_) => "commit".to_owned(),
        Message::Relation(relation) => {
            let columns = relation.columns.iter().map(|column| column.name);
            let columns = columns.collect::<Vec<_>>().join(",");
            format!("relation {}.{} {columns}", relation.schema, relation.name)
        }
        Message::Insert { new, .. } => {
            let values = new.cells().map(|cell| match cell {
                Cell::Text(text) if text.len() > 40 => format!("{} bytes", text.len()),
                Cell::Text(text) => String::from_utf8_lossy(text).into_owned(),
                other => format!("{other:?}"),
            });
            format!("insert {}", values.collect::<Vec<_>>().join(","))
        }
        other => format!("{other:?}"),
    }
}

#[tokio::test]
async fn commits_are_streamed_and_acknowledged() {
    let (_, client, mut replication) = streaming("acknowledged").await;
    client
        .batch_execute("INSERT INTO public.t VALUES (1, 'ä'), (2, NULL)")
        .await
        .unwrap();
    let (lines, end) = read_commits(&mut replication, 1).await;
    assert_eq!(
        lines,
        [
            "begin",
            "relation public.t id,name",
            "insert 1,ä",
            "insert 2,Null",
            "commit"
        ]
    );
    replication.send_status(end, end, end, true).await.unwrap();
    wait_until("the slot has confirmed the commit", async || {
        let slot = slot::read(&client, "acknowledged").await.unwrap().unwrap();
        assert_eq!(slot.plugin.as_deref(), Some("pgoutput"));
        assert_eq!(slot.active_pid, Some(replication.backend_pid()));
        if slot.confirmed_flush_lsn >= Some(end) {
            Ok(())
        } else {
            Err(format!("{slot:?}"))
        }
    })
    .await;
    // The reply that was asked for.
    let answered = timeout(DEADLINE, async {
        loop {
            while let Some(frame) = replication.next_frame().unwrap() {
                if let StreamFrame::Keepalive { wal_end, .. } = frame {
                    return wal_end;
                }
            }
            replication.fill().await.unwrap();
        }
    });
    assert!(answered.await.unwrap() >= end);
    replication.finish().await;
    wait_until("the slot is free", async || {
        let slot = slot::read(&client, "acknowledged").await.unwrap().unwrap();
        if slot.active_pid.is_none() {
            Ok(())
        } else {
            Err(format!("{slot:?}"))
        }
    })
    .await;
}

#[tokio::test]
async fn a_fill_that_is_dropped_loses_nothing() {
    let (_, client, mut replication) = streaming("dropped_fills").await;
    let rows = 2_000;
    let writer = tokio::spawn(async move {
        for id in 0..rows {
            let statement = format!("INSERT INTO public.t VALUES ({id}, repeat('x', 50))");
            client.batch_execute(&statement).await.unwrap();
        }
    });
    let mut ids = Vec::new();
    while ids.len() < rows {
        while let Some(frame) = replication.next_frame().unwrap() {
            let StreamFrame::WalData { payload, .. } = frame else {
                continue;
            };
            if let Message::Insert { new, .. } = pgoutput::decode(payload).unwrap() {
                let id = new.cells().next().unwrap().text().unwrap();
                ids.push(std::str::from_utf8(id).unwrap().parse::<usize>().unwrap());
            }
        }
        let _ = timeout(Duration::from_micros(50), replication.fill()).await;
    }
    writer.await.unwrap();
    assert!(ids.iter().copied().eq(0..rows));
}

#[tokio::test]
async fn a_row_of_many_megabytes_comes_as_one_frame() {
    let (_, client, mut replication) = streaming("large_row").await;
    let insert = "INSERT INTO public.t SELECT 1, string_agg(md5(i::text), '') FROM generate_series(1, 800000) i";
    client.batch_execute(insert).await.unwrap();
    client
        .batch_execute("INSERT INTO public.t VALUES (2, 'small')")
        .await
        .unwrap();
    let (lines, _) = read_commits(&mut replication, 2).await;
    assert_eq!(lines[2], "insert 1,25600000 bytes");
    assert_eq!(lines[5], "insert 2,small");
}

#[tokio::test]
async fn a_failed_command_leaves_the_connection_usable() {
    let conninfo = database(cluster()).await;
    let mut replication = replication(&conninfo).await;
    let error = replication
        .simple_query("SELECT 1/0 AS secret")
        .await
        .unwrap_err();
    assert_eq!(error.sqlstate(), Some("22012"));
    assert_eq!(
        error.message(),
        "the server reported SQLSTATE 22012 on row data"
    );
    let error = replication
        .simple_query("SELECT nonsense")
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "column \"nonsense\" does not exist");
    assert_eq!(error.class(), Class::Configuration);
    let error = replication
        .start("nowhere", Lsn::ZERO, "cdc")
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "could not start streaming from slot \"nowhere\": replication slot \"nowhere\" does not exist"
    );
    assert_eq!(error.sqlstate(), Some("42704"));
    let rows = replication
        .simple_query("SELECT NULL, 'a' UNION ALL SELECT 'b', ''")
        .await
        .unwrap();
    let text = |value: &str| Some(value.to_owned());
    assert_eq!(rows, [vec![None, text("a")], vec![text("b"), text("")]]);
    let identity = replication.identify_system().await.unwrap();
    assert_eq!(identity.database, conninfo.database);
    assert_eq!(identity.timeline, 1);
    assert!(identity.wal_flush > Lsn::ZERO);
    let client = client(&conninfo).await;
    let system = "SELECT system_identifier FROM pg_control_system()";
    assert_eq!(value(&client, system).await, identity.system_identifier);
}

#[tokio::test]
async fn the_servers_last_words_are_heard() {
    let (_, client, mut replication) = streaming("last_words").await;
    let terminate = format!("SELECT pg_terminate_backend({})", replication.backend_pid());
    client.batch_execute(&terminate).await.unwrap();
    let error = loop {
        match replication.next_frame() {
            Ok(Some(_)) => continue,
            Ok(None) => {}
            Err(error) => break error,
        }
        timeout(DEADLINE, replication.fill())
            .await
            .unwrap()
            .unwrap();
    };
    assert_eq!(error.sqlstate(), Some("57P01"));
    assert!(error.is_transient());
    let error = timeout(DEADLINE, replication.fill())
        .await
        .unwrap()
        .unwrap_err();
    assert!(error.is_transient());
}

#[tokio::test]
async fn futures_can_run_in_a_task_of_their_own() {
    fn is_send<T: Send>(future: T) -> T {
        future
    }
    let conninfo = database(cluster()).await;
    is_send(client(&conninfo)).await;
    let mut replication = is_send(replication(&conninfo)).await;
    is_send(replication.identify_system()).await.unwrap();
    is_send(replication.send_status(Lsn(1), Lsn(0), Lsn(0), false))
        .await
        .unwrap();
    drop(is_send(replication.fill()));
}

//! Golden streams: what PostgreSQL itself sends for a fixed script of statements, and how the
//! decoder reads it.
//!
//! `tests/golden/script.sql` is the script, `<major>.bin` the stream as it came (CopyData messages,
//! one after the other; keepalives are left out), `<major>.txt` the decoder's reading of it.
//! Positions, transaction ids, OIDs and times of commits differ from run to run; the text leaves
//! them out, so it can be compared with a server of today too.
//!
//! To record them again, for the version that `CDC_TEST_SOURCE_BIN` names:
//!
//! ```sh
//! cargo test --test servers golden::record -- --ignored
//! ```

mod stream;

use std::path::PathBuf;

use cdc::conninfo::{Conninfo, Host};
use cdc::lsn::Lsn;
use cdc::protocol::pgoutput::{self, Message};
use cdc::source::replication::{Replication, StreamFrame};
use cdc::source::slot;
use tokio::time::timeout;

use crate::support::{self, DEADLINE, pg, rows};
use stream::{Reading, payloads};

/// What the golden streams record.
const SCRIPT: &str = include_str!("script.sql");
/// Words of the last step: nothing comes after them.
const LAST_STEP: &[u8] = b"end";

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

fn text_of(stream: &[u8]) -> String {
    let mut reading = Reading::default();
    payloads(stream)
        .into_iter()
        .map(|payload| reading.line(&pgoutput::decode(payload).unwrap()))
        .collect()
}

/// Runs the script and returns the stream, up to its last step.
async fn run_script() -> Vec<u8> {
    let pair = support::database_pair().await;
    let client = pg(&pair.source_url).await;
    let mut batches = SCRIPT.split("\n\n");
    for batch in batches.by_ref() {
        client.batch_execute(batch).await.unwrap();
        if batch.contains("CREATE PUBLICATION") {
            break;
        }
    }
    let conninfo = Conninfo {
        hosts: vec![Host {
            host: support::source().socket_dir().to_str().unwrap().to_owned(),
            address: None,
            port: support::source().port(),
        }],
        database: pair.source_database.clone(),
        user: "postgres".to_owned(),
        ..Conninfo::default()
    };
    let mut replication = Replication::connect(&conninfo, "golden").await.unwrap();
    slot::create(&mut replication, "golden", slot::Kind::Failover)
        .await
        .unwrap();
    for batch in batches {
        let words = batch
            .lines()
            .find_map(|line| line.strip_prefix("-- step: "))
            .map(str::trim_end);
        if let Some(words) = words {
            let step = format!("INSERT INTO step (words) VALUES ('{words}')");
            client.batch_execute(&step).await.unwrap();
        }
        client
            .batch_execute(batch)
            .await
            .unwrap_or_else(|error| panic!("{batch}: {error:?}"));
    }
    replication
        .start("golden", Lsn::ZERO, "golden")
        .await
        .unwrap();
    let stream = read(&mut replication).await;
    replication.finish().await;
    rows(&client, "SELECT pg_replication_origin_drop('elsewhere')").await;
    stream
}

/// The messages up to the end of the last step, each as the CopyData message that carried it.
async fn read(replication: &mut Replication) -> Vec<u8> {
    let mut stream = Vec::new();
    let mut last = false;
    loop {
        while let Some(frame) = replication.next_frame().unwrap() {
            let StreamFrame::WalData {
                start,
                end,
                send_time,
                payload,
            } = frame
            else {
                continue;
            };
            let length = u32::try_from(4 + 25 + payload.len()).unwrap();
            stream.push(b'd');
            stream.extend(length.to_be_bytes());
            stream.push(b'w');
            stream.extend(start.0.to_be_bytes());
            stream.extend(end.0.to_be_bytes());
            stream.extend(send_time.0.to_be_bytes());
            stream.extend(payload);
            match pgoutput::decode(payload).unwrap() {
                Message::Insert { new, .. } => {
                    last |= new.cells().any(|cell| cell.text() == Some(LAST_STEP));
                }
                Message::Commit(_) if last => return stream,
                _ => {}
            }
        }
        timeout(DEADLINE, replication.fill())
            .await
            .unwrap()
            .unwrap();
    }
}

#[test]
fn recorded_streams_are_read_as_they_were() {
    for major in ["15", "18"] {
        let stream = std::fs::read(file(&format!("{major}.bin"))).unwrap();
        let expected = std::fs::read_to_string(file(&format!("{major}.txt"))).unwrap();
        assert_same(major, &text_of(&stream), &expected);
    }
}

#[tokio::test]
async fn the_server_of_today_says_what_was_recorded() {
    let text = text_of(&run_script().await);
    let major = support::source().programs().major().to_string();
    match std::fs::read_to_string(file(&format!("{major}.txt"))) {
        Ok(expected) => assert_same(&major, &text, &expected),
        // A version that was not recorded: it was read without an error, which is something.
        Err(_) => assert!(text.contains("'end'")),
    }
}

#[tokio::test]
#[ignore = "writes the golden files"]
async fn record() {
    let stream = run_script().await;
    let major = support::source().programs().major();
    std::fs::write(file(&format!("{major}.txt")), text_of(&stream)).unwrap();
    std::fs::write(file(&format!("{major}.bin")), stream).unwrap();
}

/// Names the first line that differs: the texts are long.
fn assert_same(what: &str, found: &str, expected: &str) {
    let lines = found.lines().zip(expected.lines()).enumerate();
    for (number, (found, expected)) in lines {
        assert_eq!(found, expected, "{what}: line {}", number + 1);
    }
    assert_eq!(found.lines().count(), expected.lines().count(), "{what}");
}

//! How fast the stream can be read at all: by a reader that throws everything away.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use cdc::conninfo::Conninfo;
use cdc::lsn::Lsn;
use cdc::protocol::pgoutput::{self, Message};
use cdc::source::replication::{Replication, StreamFrame};

/// As in `run/stream.rs`.
const PACE: Duration = Duration::from_micros(500);

/// Reads from the slot up to this position in large pieces, and throws it away; returns the time
/// that took.
pub async fn paced(conninfo: &Conninfo, slot: &str, end: Lsn, pace: bool) -> Result<Duration> {
    let mut replication = Replication::connect(conninfo, "ceiling").await?;
    let started = Instant::now();
    replication.start(slot, Lsn(0), "ceiling").await?;
    'stream: loop {
        while let Some(frame) = replication.next_frame()? {
            match frame {
                StreamFrame::WalData { payload, .. } if payload.first() == Some(&b'C') => {
                    if let Message::Commit(commit) = pgoutput::decode(payload)?
                        && commit.end_lsn >= end
                    {
                        break 'stream;
                    }
                }
                StreamFrame::Keepalive { wal_end, .. } if wal_end >= end => break 'stream,
                StreamFrame::CopyDone => bail!("the stream ended"),
                StreamFrame::WalData { .. } | StreamFrame::Keepalive { .. } => {}
            }
        }
        if pace && !replication.last_fill_was_full() {
            tokio::time::sleep(PACE).await;
        }
        replication.fill().await?;
    }
    let taken = started.elapsed();
    replication.finish().await;
    Ok(taken)
}

/// The same by pg_recvlogical, if the servers have it.
pub fn recvlogical(program: &std::path::Path, url: &str, slot: &str, end: Lsn) -> Option<Duration> {
    if !program.exists() {
        return None;
    }
    let started = Instant::now();
    let status = Command::new(program)
        .args([
            "--start",
            "--no-loop",
            "-f",
            "/dev/null",
            "-o",
            "proto_version=1",
            "-o",
            "publication_names=ceiling",
        ])
        .args(["-d", url, "-S", slot, "-E", &end.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .ok()?;
    status.success().then(|| started.elapsed())
}

//! A source behind a slow link, which a proxy stands for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{self, Cdc, database_pair, pg, wait_log, wait_rows, wait_until};

/// Bytes that the slow link lets through of each connection in a tenth of a second.
const PIECE: usize = 2_000;
/// More than it lets through in the minute for which a source may be silent.
const ROW_BYTES: usize = 640 * PIECE;

/// Passes connections on to this port; slowly from when `slow` is set. Returns its own port.
async fn proxy(to: u16, slow: Arc<AtomicBool>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = TcpStream::connect(("127.0.0.1", to)).await else {
                continue;
            };
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            tokio::spawn(pump(from_client, to_server, Arc::default()));
            tokio::spawn(pump(from_server, to_client, Arc::clone(&slow)));
        }
    });
    port
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, slow: Arc<AtomicBool>) {
    let mut piece = [0; PIECE];
    while let Ok(bytes @ 1..) = from.read(&mut piece).await {
        if to.write_all(&piece[..bytes]).await.is_err() {
            break;
        }
        if slow.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test]
async fn a_row_may_be_under_way_for_longer_than_a_source_may_be_silent() {
    let mut pair = database_pair().await;
    let (source, target) = (pg(&pair.source_url).await, pg(&pair.target_url).await);
    source
        .batch_execute("CREATE TABLE t (id int PRIMARY KEY, big text)")
        .await
        .unwrap();
    let slow = Arc::new(AtomicBool::new(false));
    let port = support::source().port();
    let far = proxy(port, Arc::clone(&slow)).await;
    let url = support::source().tcp_url(&pair.source_database);
    pair.source_url = url.replace(&format!(":{port}/"), &format!(":{far}/"));
    // Asked often, a source is found silent soon after the minute.
    pair.config = format!(
        "status_interval = '1s'\n{}[[read_model]]\nsource = 'public.t'\ntarget = 'public.t_lookup'\nkey = ['id']\ncolumns = ['id', 'big']\n",
        pair.config
    );
    let cdc = Cdc::run(&pair);
    wait_log(&cdc, "\"message\":\"streaming\"").await;
    slow.store(true, Ordering::Relaxed);
    source
        .batch_execute(&format!(
            "INSERT INTO t VALUES (1, repeat('x', {ROW_BYTES}))"
        ))
        .await
        .unwrap();
    wait_until("the row is there, by the same connection", async || {
        let log = cdc.log();
        assert!(
            !log.contains("has not answered"),
            "the source has, all the time"
        );
        if log.contains("\"message\":\"applied changes\"") {
            Ok(())
        } else {
            Err("not yet".to_owned())
        }
    })
    .await;
    let shown = format!("1|{ROW_BYTES}");
    wait_rows(&target, "SELECT id, length(big) FROM t_lookup", &[&shown]).await;
}

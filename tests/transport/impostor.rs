//! A server that is none: it asks for what it should not, or sends what no server sends. Nothing
//! that helps to guess the password goes out, and `cdc` neither waits nor allocates without bound.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cdc::connect::{Connection, Side, Wanted};
use cdc::conninfo::{Conninfo, Host, RequireAuth, Secret, SslMode};
use cdc::error::{Class, Error};
use cdc::source::replication::Replication;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::place::APPLICATION;

const CLEARTEXT: &[u8] = b"R\0\0\0\x08\0\0\0\x03";
const MD5: &[u8] = b"R\0\0\0\x0C\0\0\0\x05salt";
const SASL: &[u8] = b"R\0\0\0\x17\0\0\0\x0ASCRAM-SHA-256\0\0";
const OK: &[u8] = b"R\0\0\0\x08\0\0\0\0";

/// Sends the answers, one for each message of the client, and notes what the client sends after its
/// first message; the connection stays open.
async fn impostor(answers: &[&'static [u8]]) -> (Conninfo, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let answers = answers.to_vec();
    let noted = Arc::clone(&heard);
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut bytes = [0; 4096];
            let mut count = 0;
            while let Ok(read @ 1..) = socket.read(&mut bytes).await {
                if count > 0 {
                    noted.lock().unwrap().extend_from_slice(&bytes[..read]);
                }
                if let Some(answer) = answers.get(count) {
                    let _ = socket.write_all(answer).await;
                }
                count += 1;
            }
        }
    });
    let conninfo = Conninfo {
        hosts: vec![Host {
            host: "127.0.0.1".to_owned(),
            address: None,
            port,
        }],
        user: "ann".to_owned(),
        database: "app".to_owned(),
        password: Some(Secret::new("hunter2")),
        ssl_mode: SslMode::Disable,
        connect_timeout_seconds: Some(60),
        ..Conninfo::default()
    };
    (conninfo, heard)
}

/// What every way of connecting says; each says it long before its time is over.
async fn errors(conninfo: &Conninfo) -> [Error; 3] {
    let ordinary = async |side| {
        let opened = Connection::open(side, conninfo, APPLICATION, Wanted::Any).await;
        opened.unwrap_err()
    };
    let all = async {
        [
            ordinary(Side::Source).await,
            ordinary(Side::Target).await,
            Replication::connect(conninfo, APPLICATION)
                .await
                .unwrap_err(),
        ]
    };
    tokio::time::timeout(Duration::from_secs(50), all)
        .await
        .expect("the judge does not wait")
}

#[tokio::test]
async fn nothing_is_sent_to_a_server_that_asks_for_the_wrong_thing() {
    for (list, request, expected) in [
        ("scram-sha-256", MD5, "asks for md5"),
        ("scram-sha-256", CLEARTEXT, "asks for the password"),
        ("scram-sha-256", OK, "asks for no authentication"),
        ("md5", SASL, "asks for scram-sha-256"),
        ("!md5", CLEARTEXT, "the connection has no TLS"),
    ] {
        let (mut conninfo, heard) = impostor(&[request]).await;
        conninfo.require_auth = Some(RequireAuth::parse(list).unwrap());
        for error in errors(&conninfo).await {
            assert_eq!(error.class(), Class::Configuration, "{error:?}");
            assert!(error.to_string().contains(expected), "{error:?}");
        }
        assert!(heard.lock().unwrap().is_empty(), "{list}");
    }
}

#[tokio::test]
async fn a_server_that_lets_in_without_its_proof_is_not_believed() {
    let (mut conninfo, _) = impostor(&[SASL, OK]).await;
    for list in [None, Some("scram-sha-256"), Some("scram-sha-256,none")] {
        conninfo.require_auth = list.map(|list| RequireAuth::parse(list).unwrap());
        for error in errors(&conninfo).await {
            assert_eq!(error.class(), Class::Configuration, "{error:?}");
            assert!(error.to_string().contains("before its proof"), "{error:?}");
        }
    }
}

#[tokio::test]
async fn bytes_of_no_server_end_the_connection_at_once() {
    for answer in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"R\x7F\xFF\xFF\xFF\0\0\0\x0A",
        b"R\0\0\0\x03",
        b"E\x7F\xFF\xFF\xFF",
        b"Ecould not fork new process for connection: Cannot allocate memory\n\0",
        b"v\0\0\0\x0C\0\x03\0\0\0\0\0\0",
        b"R\0\0\0\x08\0\0\0\x0B",
    ] {
        let (conninfo, heard) = impostor(&[answer]).await;
        for error in errors(&conninfo).await {
            assert!(error.is_transient(), "{error:?}");
        }
        assert!(heard.lock().unwrap().is_empty());
    }
}

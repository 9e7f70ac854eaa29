//! The first start of `cdc run` when a side cannot be reached or used: what only a person can
//! correct ends it with exit code 2, what may pass is tried again, and both sides do the same with
//! the same words. After the first stream everything is tried again.

mod cases;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::Duration;

use cdc::cluster::{Cluster, Options};

use self::cases::Ends::{Stops, Waits};
use self::cases::{Case, SERVERS, STRINGS};
use crate::support::couple::follow;
use crate::support::{
    Cdc, Pair, Side, Signal, labels_pair, pg, rows, seed_reports, wait_in_step, wait_log,
    wait_until,
};

/// Something that listens, and is not PostgreSQL. It answers for as long as the test runs.
fn listener(answer: Option<&'static [u8]>, holds: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept() {
            if let Some(answer) = answer {
                let mut request = [0; 8];
                let _ = stream.read_exact(&mut request);
                let _ = stream.write_all(answer);
                // What was not read would reset the connection, and the answer with it.
                let _ = stream.set_read_timeout(Some(Duration::from_millis(20)));
                let _ = stream.read(&mut [0; 1024]);
            }
            if holds {
                held.push(stream);
            }
        }
    });
    port
}

/// The server to be connected to, and its standby.
struct Place {
    server: Cluster,
    standby: Cluster,
    ports: [(&'static str, u16); 4],
}

impl Place {
    fn make() -> Self {
        let hba =
            "local all all trust\nhost scram all all scram-sha-256\nhost open all all trust\n";
        let start = |name: &str| {
            Cluster::start(&Options {
                name: name.to_owned(),
                pg_bin: Side::Source.programs(),
                tcp: true,
                files: vec![("pg_hba.conf".to_owned(), hba.to_owned())],
                ..Options::default()
            })
            .unwrap()
        };
        let (server, standby) = (start("first-start"), start("first-start-standby"));
        for database in ["open", "scram", "few"] {
            server.create_database(database).unwrap();
        }
        server
            .execute(
                "postgres",
                "SET password_encryption = 'scram-sha-256';
                 CREATE ROLE ann LOGIN PASSWORD 'hunter2';
                 CREATE ROLE few LOGIN CONNECTION LIMIT 0;
                 ALTER DATABASE few CONNECTION LIMIT 0;",
            )
            .unwrap();
        follow(&standby, &server, &[]);
        Self {
            server,
            standby,
            ports: [
                (
                    "{http}",
                    listener(Some(b"HTTP/1.1 400 Bad Request\r\n\r\n"), false),
                ),
                (
                    "{garbage}",
                    listener(Some(b"\x01\x00\x00\x00\x08garbage, and more of it"), false),
                ),
                ("{closes}", listener(None, false)),
                ("{silent}", listener(None, true)),
            ],
        }
    }

    fn fill(&self, text: &str) -> String {
        let directory = |cluster: &Cluster| cluster.socket_dir().display().to_string();
        let mut text = text
            .replace("{S}", &directory(&self.server))
            .replace("{P}", &self.server.port().to_string())
            .replace("{R}", &directory(&self.standby))
            .replace("{Q}", &self.standby.port().to_string());
        for (name, port) in self.ports {
            text = text.replace(name, &port.to_string());
        }
        text
    }
}

const SIDES: [&str; 2] = ["source", "target"];

fn with_url(pair: &Pair, side: &str, url: String) -> Pair {
    let mut pair = pair.clone();
    match side {
        "source" => pair.source_url = url,
        _ => pair.target_url = url,
    }
    pair
}

/// Starts `cdc run` with the string for this side, and returns what it said once it has come to
/// what is expected.
async fn said(pair: &Pair, (text, ends, _, _): Case) -> String {
    let mut command = Cdc::command(pair, &["run"]);
    let mut cdc = Cdc::start(command.env("CDC_LOG_FORMAT", "json"));
    wait_until(text, async || {
        let log = cdc.log();
        if log.contains("trying again") || log.contains("error: ") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
    match ends {
        Stops => assert_eq!(cdc.wait().await.code(), Some(2), "{text}: {}", cdc.log()),
        Waits => {
            assert!(cdc.is_running(), "{text}: {}", cdc.log());
            assert_eq!(cdc.stop(Signal::Term).await.code(), Some(0), "{text}");
        }
    }
    cdc.log()
}

async fn check(place: &Place, pair: &Pair, case: Case) {
    let (text, ends, message, hint) = case;
    for side in SIDES {
        let log = said(&with_url(pair, side, place.fill(text)), case).await;
        let found = log
            .lines()
            .filter(|line| ends == Stops || line.contains("trying again"))
            .collect::<Vec<_>>()
            .join("\n");
        // The error at the end is text, a log line is JSON.
        let message = match ends {
            Stops => message.replace("\\\"", "\""),
            Waits => message.to_owned(),
        };
        let hint = hint
            .replace("CDC_SIDE", &format!("CDC_{}", side.to_uppercase()))
            .replace("SIDE", side);
        assert!(
            found.contains(&message),
            "{side}, {text}: {message:?} in {log}"
        );
        assert!(found.contains(&hint), "{side}, {text}: {hint:?} in {log}");
        assert!(!log.contains("hunter"), "{side}, {text}: {log}");
    }
}

#[tokio::test]
async fn both_sides_stop_or_wait_alike_and_say_why() {
    let (pair, _source, _target) = labels_pair().await;
    let place = Place::make();
    for case in STRINGS.into_iter().chain(SERVERS) {
        check(&place, &pair, case).await;
    }
    // A server that waits for its last session to end takes no other one.
    let held = pg(&place.server.url("open")).await;
    let pid = place.server.pid().unwrap().to_string();
    let asked = std::process::Command::new("/bin/sh")
        .args(["-c", "kill -s TERM \"$0\"", &pid])
        .status();
    assert!(asked.unwrap().success());
    wait_until("the server takes no session", async || {
        let place = place.server.url("open");
        match tokio_postgres::connect(&place, tokio_postgres::NoTls).await {
            Err(error) if error.code().is_some() => Ok(()),
            Err(error) => Err(error.to_string()),
            Ok(_) => Err("it does".to_owned()),
        }
    })
    .await;
    let shuts_down = (
        "host={S} port={P} user=postgres dbname=open",
        Waits,
        "the database system is shutting down",
        "It passes by itself",
    );
    check(&place, &pair, shuts_down).await;
    drop(held);
}

/// `connect_timeout=0` sets no limit, and a process that is asked to stop leaves all the same.
#[tokio::test]
async fn a_server_that_never_answers_does_not_keep_the_process() {
    let (pair, _source, _target) = labels_pair().await;
    let port = listener(None, true);
    for side in SIDES {
        let url = format!("host=127.0.0.1 port={port} user=a dbname=b connect_timeout=0");
        let mut cdc = Cdc::run(&with_url(&pair, side, url));
        wait_log(&cdc, "cdc starts").await;
        assert_eq!(cdc.stop(Signal::Term).await.code(), Some(0));
        assert!(!cdc.log().contains("no session within"), "{}", cdc.log());
    }
}

/// After the first stream a person's mistake is waited for: somebody may be at it.
#[tokio::test]
async fn what_ends_the_first_start_is_waited_for_later() {
    for side in SIDES {
        let (mut pair, source, target) = labels_pair().await;
        let role = format!("later_{}", pair.slot);
        let (url, client) = match side {
            "source" => (&mut pair.source_url, &source),
            _ => (&mut pair.target_url, &target),
        };
        *url = url.replace("postgres@", &format!("{role}@"));
        let make = format!("CREATE ROLE {role} LOGIN SUPERUSER");
        client.batch_execute(&make).await.unwrap();
        let mut cdc = Cdc::run(&pair);
        wait_log(&cdc, "\"streaming\"").await;
        let shut_out = format!("ALTER ROLE {role} NOLOGIN");
        client.batch_execute(&shut_out).await.unwrap();
        let end = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = '{role}'"
        );
        rows(client, &end).await;
        wait_until("the reason is in the log", async || {
            let log = cdc.log();
            let mut lines = log.lines().filter(|line| line.contains("trying again"));
            let found = lines.any(|line| line.contains("is not permitted to log in"));
            if found { Ok(()) } else { Err(log) }
        })
        .await;
        assert!(cdc.is_running(), "{side}");
        let let_in = format!("ALTER ROLE {role} LOGIN");
        client.batch_execute(&let_in).await.unwrap();
        let change = "UPDATE labels SET label = 'later' WHERE code = 'MR'";
        source.batch_execute(change).await.unwrap();
        wait_in_step(&source, &target).await;
        assert_eq!(cdc.stop(Signal::Term).await.code(), Some(0), "{side}");
    }
}

/// Lookups may be in the database of their masters, under other names. A lookup that is its own
/// master would be emptied.
#[tokio::test]
async fn one_database_may_be_both_sides_but_no_table() {
    let (mut pair, source, _target) = labels_pair().await;
    pair.target_url = pair.source_url.clone();
    seed_reports(&source).await;
    let mut cdc = Cdc::run(&pair);
    wait_in_step(&source, &source).await;
    assert_eq!(cdc.stop(Signal::Term).await.code(), Some(0));
    pair.config.push_str(
        "[[read_model]]\nsource = 'public.labels'\ntarget = 'public.labels'\nkey = ['code']\n\
         columns = ['code', 'label']\nsoft_delete = 'deleted_at'\n",
    );
    for command in ["run", "check"] {
        let pair = pair.clone();
        let output = tokio::task::spawn_blocking(move || Cdc::output(&pair, &[command])).await;
        let output = output.unwrap();
        let shown = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        let code = if command == "run" { 2 } else { 1 };
        assert_eq!(output.status.code(), Some(code), "{shown}");
        for part in [
            "lookup \"public.labels\" is its own source",
            "cdc would write its own master",
            "Give the lookup another name",
        ] {
            assert!(shown.contains(part), "{command}: {shown}");
        }
    }
    let untouched = "SELECT count(*)::text FROM labels";
    assert_ne!(rows(&source, untouched).await, ["0"]);
}

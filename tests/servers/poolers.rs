//! A connection pooler in front of either side: `run` and `check` name it.
//!
//! The program comes from the distribution: `scripts/integration/poolers` fetches it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tokio_postgres::Client;

use crate::support::{Cdc, Pair, labels_pair, source, target, wait_in_step, wait_until};

/// How it is set up: sessions of a client or of a transaction, and whether settings are refused or
/// dropped; what is said of it.
const WAYS: [(&str, &str, &str); 3] = [
    (
        "defaults",
        "default_pool_size = 2",
        "unsupported startup parameter",
    ),
    (
        "dropping",
        "ignore_startup_parameters = options,extra_float_digits\ndefault_pool_size = 2",
        "the session does not have the settings",
    ),
    (
        "transactions",
        "ignore_startup_parameters = options,extra_float_digits\ndefault_pool_size = 2\npool_mode = transaction",
        "the session does not have the settings",
    ),
];

/// What sessions of either side are set to, as settings of a database: they are in force whatever a
/// pooler leaves out.
const SETTINGS: [(&str, &str); 14] = [
    ("extra_float_digits", "3"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
    ("bytea_output", "hex"),
    ("lc_monetary", "'C'"),
    ("search_path", "''"),
    ("row_security", "off"),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("jit", "off"),
    ("xmloption", "content"),
    ("client_min_messages", "error"),
    ("synchronous_commit", "on"),
];

/// PgBouncer in front of both databases of a pair.
struct Pooler {
    process: Child,
    directory: PathBuf,
}

impl Pooler {
    async fn start(pair: &Pair, name: &str, settings: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("cdc-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        // It does not run as root.
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o777)).unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let users = file("users", "\"postgres\" \"\"\n");
        let database = |name: &str, cluster: &cdc::cluster::Cluster| {
            let (socket, port) = (cluster.socket_dir().display(), cluster.port());
            format!("{name} = host={socket} port={port} dbname={name}")
        };
        let configuration = file(
            "pooler.ini",
            &format!(
                "[databases]\n{}\n{}\n[pgbouncer]\nlisten_addr =\nunix_socket_dir = {}\nlisten_port = 6432\n\
                 auth_type = trust\nauth_file = {}\n{settings}\n",
                database(&pair.source_database, source()),
                database(&pair.target_database, target()),
                directory.display(),
                users.display()
            ),
        );
        let program = std::env::var("CDC_TEST_PGBOUNCER").expect("scripts/integration/poolers");
        let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
        let mut command = if is_root {
            let mut command = Command::new("runuser");
            // The account of the servers, whose sockets others cannot reach.
            command.args(["-u", "postgres", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        let process = command
            .arg(configuration)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let pooler = Self { process, directory };
        let socket = pooler.directory.join(".s.PGSQL.6432");
        wait_until("the pooler listens", async || {
            if socket.exists() {
                Ok(())
            } else {
                Err("no socket".to_owned())
            }
        })
        .await;
        pooler
    }

    fn url(&self, database: &str) -> String {
        let directory = self.directory.display();
        format!("postgresql:///{database}?host={directory}&port=6432&user=postgres")
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        // runuser starts the program as its child, which outlives it.
        let pid = self.process.id().to_string();
        let _ = Command::new("pkill").args(["-TERM", "-P", &pid]).status();
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(Path::new(&self.directory));
    }
}

/// The pair with the pooler in front of one side.
fn pooled(pair: &Pair, side: &str, pooler: &Pooler) -> Pair {
    let mut pooled = pair.clone();
    match side {
        "source" => pooled.source_url = pooler.url(&pair.source_database),
        _ => pooled.target_url = pooler.url(&pair.target_database),
    }
    pooled
}

/// Neither `run` nor `check` takes the pooler, in front of either side.
async fn assert_named(pair: &Pair, name: &str, settings: &str, expected: &str) {
    let pooler = Pooler::start(pair, name, settings).await;
    for side in ["source", "target"] {
        for command in ["run", "check"] {
            let pooled = pooled(pair, side, &pooler);
            let output =
                tokio::task::spawn_blocking(move || Cdc::output(&pooled, &[command])).await;
            let output = output.unwrap();
            let shown = String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr);
            let case = format!("{name}, {side}, {command}: {shown}");
            assert!(!output.status.success(), "{case}");
            // That it carries no replication is what `run` finds first at the source.
            let carries_none = shown.contains("unsupported startup parameter: replication");
            assert!(shown.contains(expected) || carries_none, "{case}");
            assert!(shown.contains("pooler"), "{case}");
            assert!(shown.contains(&format!("the {side}'s URL")), "{case}");
        }
    }
}

#[tokio::test]
#[ignore = "needs PgBouncer: scripts/integration/poolers"]
async fn a_pooler_is_named_on_either_side() {
    for (name, settings, expected) in WAYS {
        let (pair, _source, _target) = labels_pair().await;
        assert_named(&pair, name, settings, expected).await;
    }
}

async fn set_databases(pair: &Pair, source: &Client, target: &Client) {
    for (client, database) in [
        (source, &pair.source_database),
        (target, &pair.target_database),
    ] {
        for (name, value) in SETTINGS {
            let sql = format!("ALTER DATABASE {database} SET {name} = {value}");
            client.batch_execute(&sql).await.unwrap();
        }
    }
}

/// All settings are in force; that the session changes is what is left to see.
#[tokio::test]
#[ignore = "needs PgBouncer: scripts/integration/poolers"]
async fn a_pooler_that_changes_the_session_with_each_transaction_is_found() {
    let (pair, source, target) = labels_pair().await;
    set_databases(&pair, &source, &target).await;
    for (name, in_turn) in [("newest", 0), ("in-turn", 1)] {
        let settings = format!(
            "ignore_startup_parameters = options,extra_float_digits\ndefault_pool_size = 2\n\
             pool_mode = transaction\nserver_round_robin = {in_turn}"
        );
        let expected = "gives each transaction another session";
        assert_named(&pair, name, &settings, expected).await;
    }
}

/// One that gives each client a session of its own is as good as the server.
#[tokio::test]
#[ignore = "needs PgBouncer: scripts/integration/poolers"]
async fn a_pooler_of_sessions_will_do_at_the_target() {
    let (pair, source, target) = labels_pair().await;
    set_databases(&pair, &source, &target).await;
    let settings = "ignore_startup_parameters = options,extra_float_digits\ndefault_pool_size = 20";
    let pooler = Pooler::start(&pair, "sessions", settings).await;
    let _cdc = Cdc::run(&pooled(&pair, "target", &pooler));
    wait_in_step(&source, &target).await;
    source
        .batch_execute("UPDATE labels SET label = label || '!' WHERE deleted_at IS NULL")
        .await
        .unwrap();
    wait_in_step(&source, &target).await;
}

//! Connections to the target: which server, with or without TLS, with which settings, and what
//! errors say. One server of its own, whose pg_hba.conf has a database for each case.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use cdc::cluster::{Cluster, Options};
use cdc::connect::Connection;
use cdc::conninfo::{Conninfo, Environment};
use cdc::error::{Class, Error};
use cdc::target::connect::connect;
use cdc::target::error::{RowError, from_driver};

const HBA: &str = "
local   all        all trust
hostssl only_tls   all all trust
host    only_tls   all all reject
hostnossl only_plain all all trust
host    only_plain all all reject
host    scram      all all scram-sha-256
host    all        all all trust
";

const DATABASES: [&str; 5] = ["only_tls", "only_plain", "scram", "read_only", "plain"];

struct Server {
    cluster: Cluster,
    /// False where there is no openssl.
    has_tls: bool,
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let certificates = certificates();
        let has_tls = certificates.is_some();
        let mut options = Options {
            name: "target-connection".to_owned(),
            pg_bin: std::env::var_os("CDC_TEST_TARGET_BIN").map(Into::into),
            tcp: true,
            files: vec![("pg_hba.conf".to_owned(), HBA.to_owned())],
            ..Options::default()
        };
        if let Some(certificates) = certificates {
            options.files.extend(certificates);
            options.settings.push(("ssl".to_owned(), "on".to_owned()));
        }
        let cluster = Cluster::start(&options).unwrap();
        for database in DATABASES {
            cluster.create_database(database).unwrap();
        }
        cluster
            .execute(
                "postgres",
                "ALTER DATABASE read_only SET default_transaction_read_only = on;
                 SET password_encryption = 'scram-sha-256'; -- not the default of 13
                 CREATE ROLE odd LOGIN PASSWORD 'hunter2';
                 ALTER ROLE odd SET statement_timeout = '1ms';
                 ALTER ROLE odd SET search_path = 'public';
                 ALTER ROLE odd SET datestyle = 'SQL, DMY';
                 ALTER ROLE odd SET timezone = 'Asia/Tokyo';
                 ALTER ROLE odd SET intervalstyle = 'iso_8601';
                 ALTER ROLE odd SET bytea_output = 'escape';
                 ALTER ROLE odd SET extra_float_digits = 0;
                 ALTER ROLE odd SET array_nulls = off;
                 ALTER ROLE odd SET row_security = on;
                 ALTER ROLE odd SET client_min_messages = 'debug1';
                 ALTER ROLE odd SET default_transaction_isolation = 'serializable';
                 ALTER ROLE odd SET default_transaction_read_only = on;
                 ALTER ROLE odd SET lock_timeout = '1s';
                 ALTER ROLE odd SET idle_in_transaction_session_timeout = '1s';
                 ALTER ROLE odd SET synchronous_commit = off;",
            )
            .unwrap();
        Server { cluster, has_tls }
    })
}

/// A test authority (`ca.crt`), another one (`other.crt`), and a server's certificate for
/// `localhost`, with their contents; `None` where there is no openssl. They go into the server's
/// directory, and away with it.
pub fn certificates() -> Option<Vec<(String, String)>> {
    let directory = std::env::temp_dir().join(format!("cdc-certificates-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let extensions = "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n";
    std::fs::write(directory.join("ext"), extensions).unwrap();
    let made = [
        "req -new -x509 -nodes -newkey rsa:2048 -days 2 -keyout ca.key -out ca.crt -subj /CN=ca",
        "req -new -x509 -nodes -newkey rsa:2048 -days 2 -keyout other.key -out other.crt -subj /CN=other",
        "req -new -nodes -newkey rsa:2048 -keyout server.key -out server.csr -subj /CN=localhost",
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out server.crt -extfile ext",
    ]
    .iter()
    .all(|arguments| {
        Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(&directory)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    });
    let files = made.then(|| {
        ["ca.crt", "other.crt", "server.crt", "server.key"]
            .map(|name| {
                let text = std::fs::read_to_string(directory.join(name)).unwrap();
                (name.to_owned(), text)
            })
            .to_vec()
    });
    std::fs::remove_dir_all(&directory).unwrap();
    files
}

async fn open(conninfo: &str) -> Result<Connection, Error> {
    let conninfo = Conninfo::parse(conninfo, &Environment::default()).unwrap();
    let result = connect(&conninfo, "cdc").await;
    if let Err(error) = &result {
        assert!(!format!("{error:?}").contains("hunter"), "{error:?}");
    }
    result
}

/// `tls`, `plain`, or the error.
async fn protection(conninfo: &str) -> String {
    match open(conninfo).await {
        Ok(connection) => {
            let query =
                "SELECT ssl FROM pg_catalog.pg_stat_ssl WHERE pid = pg_catalog.pg_backend_pid()";
            let row = connection.query_one(query, &[]).await.unwrap();
            if row.get(0) {
                "tls".to_owned()
            } else {
                "plain".to_owned()
            }
        }
        Err(error) => format!("{error:?}"),
    }
}

fn tcp(more: &str) -> String {
    format!(
        "host=localhost port={} user=postgres {more}",
        server().cluster.port()
    )
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[tokio::test]
async fn every_sslmode_does_what_libpq_does() {
    if !server().has_tls {
        crate::support::missing("connections with TLS need the program openssl.");
        return;
    }
    let file = |name: &str| shown(&server().cluster.data_dir().join(name));
    let (ca, other) = (file("ca.crt"), file("other.crt"));
    for (mode, only_tls, only_plain) in [
        ("disable".to_owned(), "no encryption", "plain"),
        ("allow".to_owned(), "tls", "plain"),
        ("prefer".to_owned(), "tls", "plain"),
        ("require".to_owned(), "tls", "SSL encryption"),
        (
            format!("require sslrootcert={other}"),
            "UnknownIssuer",
            "UnknownIssuer",
        ),
        (
            format!("verify-ca sslrootcert={ca}"),
            "tls",
            "SSL encryption",
        ),
        (
            format!("verify-full sslrootcert={ca}"),
            "tls",
            "SSL encryption",
        ),
        (
            format!("verify-full sslrootcert={other}"),
            "UnknownIssuer",
            "UnknownIssuer",
        ),
        ("verify-full".to_owned(), "UnknownIssuer", "UnknownIssuer"),
    ] {
        for (database, expected) in [("only_tls", only_tls), ("only_plain", only_plain)] {
            let found = protection(&tcp(&format!("dbname={database} sslmode={mode}"))).await;
            // As 13 puts it.
            let found = found
                .replace("SSL off", "no encryption")
                .replace("SSL on", "SSL encryption");
            assert!(found.contains(expected), "{mode} {database}: {found}");
        }
    }
    // The certificate is made for localhost only; a Unix socket needs none.
    let address = tcp("dbname=plain").replace("localhost", "127.0.0.1");
    let found = protection(&format!("{address} sslmode=verify-full sslrootcert={ca}")).await;
    assert!(found.contains("not valid for name"), "{found}");
    assert_eq!(
        protection(&format!("{address} sslmode=verify-ca sslrootcert={ca}")).await,
        "tls"
    );
    let socket = tcp("dbname=plain sslmode=verify-full")
        .replace("localhost", &shown(server().cluster.socket_dir()));
    assert_eq!(protection(&socket).await, "plain");
}

#[tokio::test]
async fn session_settings_are_ours_whatever_the_role_has() {
    let connection = open(&tcp(
        "user=odd dbname=plain options='-c search_path=public -c geqo=off'",
    ))
    .await
    .unwrap();
    for (name, expected) in [
        ("DateStyle", "ISO, MDY"),
        ("TimeZone", "UTC"),
        ("IntervalStyle", "postgres"),
        ("bytea_output", "hex"),
        ("extra_float_digits", "3"),
        ("lc_monetary", "C"),
        ("array_nulls", "on"),
        ("client_encoding", "UTF8"),
        ("client_min_messages", "error"),
        ("search_path", ""),
        ("row_security", "off"),
        ("default_transaction_isolation", "read committed"),
        ("default_transaction_read_only", "off"),
        ("statement_timeout", "0"),
        ("lock_timeout", "0"),
        ("idle_in_transaction_session_timeout", "0"),
        ("synchronous_commit", "on"),
        ("application_name", "cdc"),
        ("geqo", "off"),
    ] {
        let sql = "SELECT pg_catalog.current_setting($1)";
        let row = connection.query_one(sql, &[&name]).await.unwrap();
        assert_eq!(row.get::<_, String>(0), expected, "{name}");
    }
}

#[tokio::test]
async fn hosts_are_tried_in_order_until_one_will_do() {
    let port = server().cluster.port();
    let hosts = |more: &str| {
        format!("host=localhost,localhost port=1,{port} user=postgres dbname=plain {more}")
    };
    open(&hosts("")).await.unwrap();
    open(&hosts("target_session_attrs=read-write"))
        .await
        .unwrap();
    let error = open(&tcp("dbname=read_only target_session_attrs=read-write"))
        .await
        .unwrap_err();
    assert!(
        error
            .message()
            .ends_with("the server does not accept writes")
            && error.is_transient()
    );
    // Without the wish, the setting is no obstacle.
    open(&tcp("dbname=read_only")).await.unwrap();
}

#[tokio::test]
async fn errors_of_connecting_say_whose_turn_it_is() {
    for (conninfo, class, expected) in [
        (
            tcp("user=odd dbname=scram password=hunter3"),
            Class::Configuration,
            "password authentication failed",
        ),
        (
            tcp("user=odd dbname=scram"),
            Class::Configuration,
            "password missing",
        ),
        (
            tcp("dbname=nowhere"),
            Class::Configuration,
            "database \"nowhere\" does not exist",
        ),
        (
            tcp("options='-c nonsense=1'"),
            Class::Configuration,
            "unrecognized configuration parameter",
        ),
        (
            tcp("options='-c work_mem=lots'"),
            Class::Configuration,
            "invalid value for parameter",
        ),
        (
            "host=localhost port=1 user=a".to_owned(),
            Class::Transient,
            "Connection refused",
        ),
        (
            "host=no.such.host.invalid user=a".to_owned(),
            Class::Transient,
            "could not find the address of host \"no.such",
        ),
    ] {
        let error = open(&conninfo).await.unwrap_err();
        assert_eq!(error.class(), class, "{conninfo}: {error:?}");
        assert!(
            error.to_string().contains(expected),
            "{conninfo}: {error:?}"
        );
    }
    open(&tcp("user=odd dbname=scram password=hunter2"))
        .await
        .unwrap();
}

#[tokio::test]
async fn no_row_value_gets_into_an_error() {
    let connection = open(&tcp("dbname=plain")).await.unwrap();
    let table = "CREATE TEMPORARY TABLE t (code varchar(3) PRIMARY KEY, n int CONSTRAINT positive CHECK (n > 0), label text NOT NULL)";
    connection.batch_execute(table).await.unwrap();
    for (statement, class, sqlstate, object) in [
        (
            "INSERT INTO t VALUES ('hunter2', 1, '')",
            Class::Rejected,
            "22001",
            None,
        ),
        (
            "INSERT INTO t VALUES ('h', -1, 'hunter2')",
            Class::Rejected,
            "23514",
            Some("positive"),
        ),
        (
            "INSERT INTO t VALUES ('h', 1, NULL)",
            Class::Rejected,
            "23502",
            Some("label"),
        ),
        (
            "INSERT INTO t VALUES ('hu', 1, 'hunter2'), ('hu', 1, '')",
            Class::Rejected,
            "23505",
            Some("t_pkey"),
        ),
        ("SELECT 'hunter2'::int", Class::Rejected, "22P02", None),
        (
            "DO $$ BEGIN RAISE EXCEPTION 'hunter2'; END $$",
            Class::Rejected,
            "P0001",
            None,
        ),
        (
            "DO $$ BEGIN RAISE 'hunter2' USING ERRCODE = 'MY001'; END $$",
            Class::Transient,
            "MY001",
            None,
        ),
        (
            "DO $$ BEGIN RAISE 'taken over' USING ERRCODE = 'CDC01'; END $$",
            Class::Fenced,
            "CDC01",
            None,
        ),
        (
            "DO $$ BEGIN RAISE 'unresolved' USING ERRCODE = 'CDC02'; END $$",
            Class::Broken,
            "CDC02",
            None,
        ),
        (
            "SELECT * FROM nowhere",
            Class::Configuration,
            "42P01",
            Some("nowhere"),
        ),
    ] {
        let error = connection.batch_execute(statement).await.unwrap_err();
        assert_eq!(
            RowError::of(&error).is_some(),
            class == Class::Rejected,
            "{statement}"
        );
        let error = from_driver(error);
        let shown = format!("{error:?}");
        assert_eq!(
            (error.class(), error.sqlstate()),
            (class, Some(sqlstate)),
            "{statement}: {shown}"
        );
        assert!(!shown.contains("hunter"), "{shown}");
        assert!(
            object.is_none_or(|object| shown.contains(object)),
            "{statement}: {shown}"
        );
    }
}

//! The server that these tests share: trust on the Unix socket, SCRAM and TLS on TCP, a role for
//! each way in.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use cdc::cluster::{Cluster, Options};
use cdc::connect::{self, Connection, Wanted};
use cdc::conninfo::{Conninfo, Host, Secret, SslMode};
use cdc::source::replication::Replication;

use crate::support::Side;

/// Name of the application in every connection of these tests.
pub const APPLICATION: &str = "cdc transport";

/// Password of the roles that need one.
pub const PASSWORD: &str = "s3cret pass'word";

const HBA: &str = "
local     all all                         trust
host      all trusted    127.0.0.1/32     trust
hostnossl all plain_only 127.0.0.1/32     trust
hostssl   all tls_only   127.0.0.1/32     trust
host      all scram      127.0.0.1/32     scram-sha-256
hostssl   all certified  127.0.0.1/32     cert
";

const ROLES: &str = "
SET password_encryption = 'scram-sha-256'; -- not the default of 13
CREATE ROLE reader     LOGIN;
CREATE ROLE trusted    LOGIN REPLICATION;
CREATE ROLE plain_only LOGIN REPLICATION;
CREATE ROLE tls_only   LOGIN REPLICATION;
CREATE ROLE certified  LOGIN REPLICATION;
CREATE ROLE scram      LOGIN REPLICATION PASSWORD 's3cret pass''word';
ALTER ROLE trusted SET DateStyle = 'SQL, DMY';
ALTER ROLE trusted SET statement_timeout = '1h';
ALTER ROLE trusted SET search_path = public;
ALTER ROLE trusted SET extra_float_digits = -5;
ALTER ROLE trusted SET bytea_output = 'escape';
ALTER ROLE trusted SET default_transaction_isolation = 'serializable';
";

/// Certificates: an authority, and a server's for `localhost` that it has signed.
pub struct Certificates {
    directory: PathBuf,
}

impl Certificates {
    fn make() -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("certificates-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        for ca in ["ca", "other"] {
            openssl(
                &directory,
                &format!(
                    "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test-{ca} -keyout {ca}.key -out {ca}.crt"
                ),
            );
        }
        openssl(
            &directory,
            "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=server -keyout server.key -out server.csr",
        );
        openssl(
            &directory,
            "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=certified -keyout client.key -out client.csr",
        );
        openssl(
            &directory,
            "x509 -req -in client.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out client1.crt",
        );
        std::fs::write(
            directory.join("client.ext"),
            "extendedKeyUsage=clientAuth\n",
        )
        .unwrap();
        openssl(
            &directory,
            "x509 -req -in client.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile client.ext -out client.crt",
        );
        std::fs::write(directory.join("san"), "subjectAltName=DNS:localhost\n").unwrap();
        openssl(
            &directory,
            "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile san -out server.crt",
        );
        revocation_lists(&directory);
        Self { directory }
    }

    /// The path of a file.
    pub fn path(&self, name: &str) -> String {
        self.directory.join(name).to_str().unwrap().to_owned()
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.directory.join(name)).unwrap()
    }
}

/// Lists of the authority: one without an entry, one that names the server's certificate, and one
/// that has expired.
fn revocation_lists(directory: &Path) {
    let configuration = "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\ncrlnumber=crlnumber\n\
        default_md=sha256\ncrl_extensions=e\n[e]\nauthorityKeyIdentifier=keyid\n";
    std::fs::write(directory.join("ca.cnf"), configuration).unwrap();
    std::fs::write(directory.join("index.txt"), "").unwrap();
    std::fs::write(directory.join("crlnumber"), "01\n").unwrap();
    let ca = "ca -config ca.cnf -cert ca.crt -keyfile ca.key";
    openssl(
        directory,
        &format!("{ca} -gencrl -crldays 2 -out empty.crl"),
    );
    openssl(
        directory,
        &format!(
            "{ca} -gencrl -crl_lastupdate 20200101000000Z -crl_nextupdate 20200102000000Z -out expired.crl"
        ),
    );
    openssl(directory, &format!("{ca} -revoke server.crt"));
    openssl(
        directory,
        &format!("{ca} -gencrl -crldays 2 -out revoked.crl"),
    );
}

fn openssl(directory: &Path, arguments: &str) {
    let output = Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The certificates of the shared server.
pub fn certificates() -> &'static Certificates {
    static CERTIFICATES: OnceLock<Certificates> = OnceLock::new();
    CERTIFICATES.get_or_init(Certificates::make)
}

/// The shared server.
pub fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let file = |name: &str| (name.to_owned(), certificates().text(name));
        let cluster = Cluster::start(&Options {
            name: "transport".to_owned(),
            pg_bin: Side::Source.programs(),
            tcp: true,
            settings: [("ssl", "on"), ("ssl_ca_file", "ca.crt")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
            files: vec![
                file("ca.crt"),
                file("server.crt"),
                file("server.key"),
                ("pg_hba.conf".to_owned(), HBA.to_owned()),
            ],
            ..Options::default()
        })
        .unwrap();
        cluster.execute("postgres", ROLES).unwrap();
        cluster
    })
}

/// A connection string for the Unix socket of a server, as superuser.
pub fn on_socket(cluster: &Cluster) -> Conninfo {
    Conninfo {
        hosts: vec![Host {
            host: cluster.socket_dir().to_str().unwrap().to_owned(),
            address: None,
            port: cluster.port(),
        }],
        database: "postgres".to_owned(),
        user: "postgres".to_owned(),
        ..Conninfo::default()
    }
}

/// A connection string for the shared server on TCP, as this role.
pub fn on_tcp(user: &str, ssl_mode: SslMode) -> Conninfo {
    Conninfo {
        hosts: vec![Host {
            host: "localhost".to_owned(),
            address: Some("127.0.0.1".to_owned()),
            port: cluster().port(),
        }],
        user: user.to_owned(),
        password: (user == "scram").then(|| Secret::new(PASSWORD)),
        ssl_mode,
        ..on_socket(cluster())
    }
}

/// An ordinary connection.
pub async fn client(conninfo: &Conninfo) -> Connection {
    Connection::open(connect::Side::Source, conninfo, APPLICATION, Wanted::Any)
        .await
        .unwrap()
}

/// A replication connection.
pub async fn replication(conninfo: &Conninfo) -> Replication {
    Replication::connect(conninfo, APPLICATION).await.unwrap()
}

/// A database of its own on this server.
pub async fn database(cluster: &Cluster) -> Conninfo {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    let name = format!("db_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let conninfo = on_socket(cluster);
    let statement = format!("CREATE DATABASE {name}");
    client(&conninfo)
        .await
        .batch_execute(&statement)
        .await
        .unwrap();
    Conninfo {
        database: name,
        ..conninfo
    }
}

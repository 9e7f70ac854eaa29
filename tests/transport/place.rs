//! The server that these tests share: trust on the Unix socket, SCRAM and TLS on TCP, a role for
//! each way in.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use cdc::cluster::{Cluster, Options};
use cdc::connect::{self, Connection, Wanted};
use cdc::conninfo::{Conninfo, Host, Secret, SslMode};
use cdc::error::Error;
use cdc::source::replication::Replication;

use crate::support::Side;

/// Name of the application in every connection of these tests.
pub const APPLICATION: &str = "cdc transport";

/// Password of the roles that need one.
pub const PASSWORD: &str = "s3cret pass'word";

const HBA: &str = "
local     all clear                       password
local     all all                         trust
host      all md5        127.0.0.1/32     md5
host      all clear      127.0.0.1/32     password
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
CREATE ROLE clear      LOGIN REPLICATION PASSWORD 's3cret pass''word';
SET password_encryption = 'md5';
CREATE ROLE md5        LOGIN REPLICATION PASSWORD 's3cret pass''word';
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
        other_servers(&directory);
        encrypted_keys(&directory);
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
        default_md=sha256\ncrl_extensions=e\nnew_certs_dir=.\nrand_serial=yes\npolicy=p\nunique_subject=no\n\
        [e]\nauthorityKeyIdentifier=keyid\n[p]\ncommonName=supplied\n";
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

/// Certificates of other servers for `localhost`: one that has expired, two that are their own
/// authority, of which one has expired, and one that is signed by a method without a hash.
fn other_servers(directory: &Path) {
    openssl(
        directory,
        "ca -batch -config ca.cnf -cert ca.crt -keyfile ca.key -in server.csr -startdate 20200101000000Z -enddate 20200102000000Z -extfile san -notext -out expired.crt",
    );
    openssl(
        directory,
        "ca -batch -config ca.cnf -selfsign -keyfile server.key -in server.csr -startdate 20200101000000Z -enddate 20200102000000Z -extfile san -notext -out expired_itself.crt",
    );
    openssl(
        directory,
        "req -x509 -key server.key -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost -out itself.crt",
    );
    openssl(
        directory,
        "req -x509 -newkey ed25519 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout ed25519.key -out ed25519.crt",
    );
}

/// The client's key with the password `hunter2`, and one in OpenSSL's old way; copies that others
/// may read; a client's certificate of another authority.
fn encrypted_keys(directory: &Path) {
    openssl(
        directory,
        "pkcs8 -topk8 -in client.key -passout pass:hunter2 -out encrypted.key",
    );
    openssl(
        directory,
        "ec -in client.key -aes256 -passout pass:hunter2 -out old.key",
    );
    openssl(
        directory,
        "x509 -req -in client.csr -CA other.crt -CAkey other.key -CAcreateserial -days 2 -extfile client.ext -out foreign.crt",
    );
    let open = directory.join("open.key");
    std::fs::copy(directory.join("client.key"), &open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o644)).unwrap();
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

/// A server of its own, which asks for no client certificate: everybody on TCP must know the
/// password of `postgres`.
pub fn server_with(name: &str, certificate: &str, key: &str) -> (Cluster, Conninfo) {
    let cluster = Cluster::start(&Options {
        name: name.to_owned(),
        pg_bin: Side::Source.programs(),
        tcp: true,
        password: Some(PASSWORD.to_owned()),
        settings: vec![("ssl".to_owned(), "on".to_owned())],
        files: vec![
            ("server.crt".to_owned(), certificates().text(certificate)),
            ("server.key".to_owned(), certificates().text(key)),
            (
                "pg_hba.conf".to_owned(),
                "local all all trust\nhost all all all scram-sha-256\n".to_owned(),
            ),
        ],
        ..Options::default()
    })
    .unwrap();
    let mut conninfo = on_socket(&cluster);
    conninfo.hosts = vec![Host {
        host: "localhost".to_owned(),
        address: Some("127.0.0.1".to_owned()),
        port: cluster.port(),
    }];
    conninfo.password = Some(Secret::new(PASSWORD));
    conninfo.ssl_mode = SslMode::VerifyFull;
    (cluster, conninfo)
}

/// Connects as everything of `cdc` does: to the source, to the target, and for replication. All
/// three say the same: whether TLS is used, or the error.
pub async fn everywhere(conninfo: &Conninfo) -> Result<bool, Error> {
    const SSL: &str = "SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let ordinary = async |side| {
        let session = Connection::open(side, conninfo, APPLICATION, Wanted::Any).await?;
        Ok(crate::support::value(&session, SSL).await == "true")
    };
    let streaming = async || {
        let mut replication = Replication::connect(conninfo, APPLICATION).await?;
        let rows = replication.simple_query(SSL).await?;
        replication.finish().await;
        Ok(rows[0][0].as_deref() == Some("true"))
    };
    let source = ordinary(connect::Side::Source).await;
    let shown = |outcome: &Result<bool, Error>| {
        format!("{outcome:?}")
            .replace("to the target", "to the source")
            .replace("target's URL", "source's URL")
            .replace("TARGET", "SOURCE")
            .replace("target", "source")
    };
    for other in [ordinary(connect::Side::Target).await, streaming().await] {
        assert_eq!(shown(&other), shown(&source));
    }
    if let Err(error) = &source {
        let text = format!("{error:?}");
        assert!(
            !text.contains("s3cret") && !text.contains("hunter2"),
            "{text}"
        );
    }
    source
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
        password: ["scram", "md5", "clear"]
            .contains(&user)
            .then(|| Secret::new(PASSWORD)),
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

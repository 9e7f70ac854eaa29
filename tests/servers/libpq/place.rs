//! Where the connection strings lead to: a primary with TLS and SCRAM and its standby, and files.
//!
//! In a row `{S}` is the directory of the primary's socket, `{s}` the same percent-encoded, `{P}`
//! its port; `{R}` and `{r}` are the standby's directory, and `{Q}` its port; `{N}` is a port where
//! nobody listens, `{D}` the directory of files. `{k}`, `{t}` and `{u}` lead to the database app as
//! ann: keywords on the socket, on TCP, and a URL.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cdc::cluster::{Cluster, Options, Stop};

use super::row::Row;
use crate::support::Side;
use crate::support::couple::follow;
use crate::target_connection::certificates as server_certificates;

const HBA: &str = "
local     scram      all         scram-sha-256
local     all        all         trust
hostssl   only_tls   all all     trust
host      only_tls   all all     reject
hostnossl only_plain all all     trust
host      only_plain all all     reject
host      scram      all all     scram-sha-256
host      md5        all all     md5
host      all        all all     trust
";

const DATABASES: [&str; 11] = [
    "app",
    "scram",
    "md5",
    "only_tls",
    "only_plain",
    "read_only",
    "a b",
    "a/b",
    "Upper",
    "host=x dbname=y",
    "postgresql://h/d",
];

/// Roles with their passwords.
pub const ROLES: [(&str, &str); 8] = [
    ("ann", "simple"),
    ("o'neil", "it's"),
    ("ann@home:5", "p@s:s/w?r#d%"),
    ("änn 😀", "🔑 tab\there"),
    ("back\\slash", "back\\slash\\"),
    ("blank", " p w "),
    ("comma", "a,b"),
    ("equal", "a=b&c=d"),
];

pub struct Place {
    primary: Cluster,
    standby: Cluster,
    /// False where there is no openssl.
    pub has_tls: bool,
    /// Whether the primary listens on ::1.
    pub has_v6: bool,
}

impl Place {
    pub fn make() -> Self {
        let certificates = server_certificates();
        let has_tls = certificates.is_some();
        let start = |name: &str| {
            let mut options = Options {
                name: name.to_owned(),
                pg_bin: Side::Target.programs(),
                tcp: true,
                files: vec![("pg_hba.conf".to_owned(), HBA.to_owned())],
                ..Options::default()
            };
            // What cannot be listened on is left out, with a warning.
            let addresses = ("listen_addresses".to_owned(), "127.0.0.1, ::1".to_owned());
            options.settings.push(addresses);
            if let Some(certificates) = &certificates {
                options.files.extend(certificates.iter().cloned());
                options.settings.push(("ssl".to_owned(), "on".to_owned()));
            }
            Cluster::start(&options).unwrap()
        };
        let (primary, standby) = std::thread::scope(|scope| {
            let standby = scope.spawn(|| start("libpq-standby"));
            (start("libpq-primary"), standby.join().unwrap())
        });
        prepare(&primary);
        follow(&standby, &primary, &[]);
        listen_without_a_file(&primary);
        let place = Self {
            primary,
            standby,
            has_tls,
            has_v6: std::net::TcpListener::bind("[::1]:0").is_ok(),
        };
        place.write_files();
        place
    }

    /// Where both clients look for files of their own.
    pub fn home(&self) -> &Path {
        self.primary.socket_dir()
    }

    /// Whether what the row needs is there.
    pub fn can_run(&self, row: &Row) -> bool {
        (self.has_tls || !row.needs_tls)
            && (self.has_v6 || !row.text.contains("::1"))
            // Sockets of the abstract namespace came with 14.
            && (self.primary.programs().major() >= 14 || !row.text.contains("@{"))
    }

    /// The row with the places filled in.
    pub fn filled(&self, row: Row) -> Row {
        let fill = |text: &str| self.fill(text);
        Row {
            text: fill(&row.text),
            variables: row
                .variables
                .iter()
                .map(|(name, value)| (name.clone(), fill(value)))
                .collect(),
            ..row
        }
    }

    fn fill(&self, text: &str) -> String {
        let directory = |cluster: &Cluster| cluster.socket_dir().display().to_string();
        let encoded = |cluster: &Cluster| directory(cluster).replace('/', "%2F");
        let mut text = text
            .replace("{k}", "host={S} port={P} dbname=app user=ann")
            .replace("{t}", "host=localhost port={P} dbname=app user=ann")
            .replace("{u}", "postgresql://ann@localhost:{P}/app");
        for (name, value) in [
            ("{S}", directory(&self.primary)),
            ("{s}", encoded(&self.primary)),
            ("{P}", self.primary.port().to_string()),
            ("{R}", directory(&self.standby)),
            ("{r}", encoded(&self.standby)),
            ("{Q}", self.standby.port().to_string()),
            ("{N}", "1".to_owned()),
            ("{D}", directory(&self.primary)),
            ("{C}", self.primary.data_dir().display().to_string()),
        ] {
            text = text.replace(name, &value);
        }
        text
    }

    fn write_files(&self) {
        let hard = self.home().join("pass.hard");
        std::fs::write(&hard, super::passwords::file()).unwrap();
        std::fs::set_permissions(&hard, std::fs::Permissions::from_mode(0o600)).unwrap();
        for (name, mode, text) in super::secrets::FILES
            .iter()
            .chain(super::environment::FILES)
        {
            let file: PathBuf = self.home().join(name);
            std::fs::write(&file, self.fill(text)).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(*mode)).unwrap();
        }
    }
}

/// The primary's socket is in the abstract namespace, too.
fn listen_without_a_file(primary: &Cluster) {
    if primary.programs().major() < 14 {
        return;
    }
    let directory = primary.socket_dir().display();
    let setting =
        format!("ALTER SYSTEM SET unix_socket_directories = '{directory}', '@{directory}'");
    primary.execute("postgres", &setting).unwrap();
    primary.restart(Stop::Fast).unwrap();
}

fn prepare(primary: &Cluster) {
    for database in DATABASES {
        primary.create_database(database).unwrap();
    }
    let mut statements =
        "ALTER DATABASE read_only SET default_transaction_read_only = on;".to_owned();
    let quoted = |text: &str| text.replace('\'', "''");
    let roles = ROLES.map(|(role, password)| (role.to_owned(), password, "scram-sha-256"));
    let mut made = String::new();
    for (role, password, how) in roles.into_iter().chain(super::passwords::roles()) {
        made.push_str(&format!(
            "SET password_encryption = '{how}'; CREATE ROLE \"{role}\" LOGIN PASSWORD E'{}';",
            quoted(password).replace('\\', "\\\\")
        ));
    }
    primary.execute("postgres", &made).unwrap();
    let own = std::process::Command::new("id")
        .arg("-un")
        .output()
        .unwrap();
    let own = String::from_utf8(own.stdout).unwrap();
    if own.trim() != "postgres" {
        statements.push_str(&format!(
            "CREATE ROLE \"{0}\" LOGIN; CREATE DATABASE \"{0}\" TEMPLATE template0;",
            own.trim()
        ));
    }
    // CREATE DATABASE must stand alone.
    for statement in statements.split_inclusive(';') {
        if !statement.trim().is_empty() {
            primary.execute("postgres", statement).unwrap();
        }
    }
}

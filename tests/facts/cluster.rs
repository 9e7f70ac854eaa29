//! A throw-away cluster for these tests.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use cdc::connect::Connection;
use cdc::conninfo::{Conninfo, Environment};

/// A throw-away server on a Unix socket, gone when dropped.
pub struct Cluster {
    pub dir: PathBuf,
}

impl Cluster {
    pub fn start(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("cdc-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        if let Some((uid, gid)) = server_user() {
            std::os::unix::fs::chown(&dir, Some(uid), Some(gid)).unwrap();
        }
        let cluster = Self { dir };
        let data = cluster.dir.join("data");
        program(
            "initdb",
            &[
                "-D",
                text(&data),
                "-A",
                "trust",
                "-U",
                "postgres",
                "-E",
                "UTF8",
                "--locale=C",
                "-N",
            ],
        );
        let options = format!(
            "-c wal_level=logical -c listen_addresses= -c unix_socket_directories={} -c fsync=off",
            text(&cluster.dir)
        );
        let log = cluster.dir.join("log");
        program(
            "pg_ctl",
            &[
                "-D",
                text(&data),
                "-o",
                &options,
                "-l",
                text(&log),
                "-w",
                "start",
            ],
        );
        cluster
    }

    pub async fn source(&self, user: &str) -> tokio_postgres::Client {
        let mut config = tokio_postgres::Config::new();
        config
            .host_path(&self.dir)
            .user(user)
            .dbname("postgres")
            .options("-c search_path=");
        let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    pub async fn target(&self, user: &str) -> Connection {
        let place = format!("host={} user={user} dbname=postgres", text(&self.dir));
        let conninfo = Conninfo::parse(&place, &Environment::default()).unwrap();
        cdc::target::connect::connect(&conninfo, "cdc test")
            .await
            .unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let data = self.dir.join("data");
        program(
            "pg_ctl",
            &["-D", text(&data), "-m", "immediate", "-w", "stop"],
        );
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// User and group of the server's programs when the tests run as root, which the server refuses.
fn server_user() -> Option<(u32, u32)> {
    let id = |args: &[&str]| -> u32 {
        let output = Command::new("id").args(args).output().unwrap();
        String::from_utf8(output.stdout)
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    };
    (id(&["-u"]) == 0).then(|| (id(&["-u", "postgres"]), id(&["-g", "postgres"])))
}

fn program(name: &str, args: &[&str]) {
    // One server stands for both sides; the source's version counts.
    let named = std::env::var_os("CDC_TEST_SOURCE_BIN").map(PathBuf::from);
    let programs = cdc::cluster::Programs::find(named.as_deref(), None).unwrap();
    let mut command = Command::new(programs.path(name));
    command
        .args(args)
        .current_dir("/")
        .stdout(std::process::Stdio::null());
    if let Some((uid, gid)) = server_user() {
        command.uid(uid).gid(gid);
    }
    assert!(command.status().unwrap().success(), "{name}");
}

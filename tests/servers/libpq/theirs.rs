//! What `psql`, which is libpq, ends in.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use cdc::cluster::Programs;

use super::row::{End, Kind, Row};

/// What a session says of itself, one value a line.
pub const QUESTION: &str = "SELECT concat_ws(' ', 'user', session_user, 'database', current_database(), \
     'application', current_setting('application_name'), \
     'tls', (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), \
     'port', coalesce(inet_server_port()::text, 'socket ' || current_setting('port')), \
     'standby', pg_is_in_recovery(), 'geqo', current_setting('geqo'), 'cpu_tuple_cost', current_setting('cpu_tuple_cost'))";

/// How many run at a time: they wait more than they compute.
const SIDE_BY_SIDE: usize = 6;

/// Words of libpq's errors, with their kinds; the first that is found counts.
const WORDS: [(&str, Kind); 16] = [
    ("FATAL: ", Kind::Refused),
    ("no password supplied", Kind::NoPassword),
    ("session is read-only", Kind::Unsuitable),
    ("session is not read-only", Kind::Unsuitable),
    ("server is in hot standby mode", Kind::Unsuitable),
    ("server is not in hot standby mode", Kind::Unsuitable),
    ("could not parse network address", Kind::Mistake),
    ("certificate", Kind::Mistake),
    // sslnegotiation=direct with a server before 17.
    ("SSL SYSCALL error", Kind::Unreachable),
    ("SSL", Kind::Mistake),
    ("channel binding", Kind::Mistake),
    ("Connection refused", Kind::Unreachable),
    ("No such file or directory", Kind::Unreachable),
    ("could not translate host name", Kind::Unreachable),
    ("timeout expired", Kind::Unreachable),
    ("Network is unreachable", Kind::Unreachable),
];

/// The program, and the libpq that it is run with.
pub struct Psql {
    program: PathBuf,
    libraries: Option<PathBuf>,
    /// Major version of libpq.
    pub libpq_version: u32,
}

impl Psql {
    /// The distribution's program with the newest libpq that is there: the fetched programs have a
    /// library, but no psql.
    pub fn find() -> Option<Self> {
        // Not the distribution's wrapper, which reads files of its own.
        let program = programs().into_iter().find(|program| program.is_file())?;
        let own = Self {
            libpq_version: version(&program)?,
            program: program.clone(),
            libraries: None,
        };
        let fetched = [18, 17, 16].into_iter().find_map(|major| {
            let libraries =
                Path::new(env!("CARGO_MANIFEST_DIR")).join(format!(".postgres/{major}/lib"));
            let is_there = libraries.join("libpq.so.5").exists();
            (is_there && major > own.libpq_version).then(|| Self {
                program: program.clone(),
                libraries: Some(libraries),
                libpq_version: major,
            })
        });
        Some(fetched.unwrap_or(own))
    }

    /// What each row ends in.
    pub fn all(&self, rows: &[Row], home: &Path) -> Vec<End> {
        let next = AtomicUsize::new(0);
        let mut ends: Vec<(usize, End)> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..SIDE_BY_SIDE)
                .map(|_| {
                    scope.spawn(|| {
                        let mut ends = Vec::new();
                        loop {
                            let at = next.fetch_add(1, Ordering::Relaxed);
                            let Some(row) = rows.get(at) else { break ends };
                            ends.push((at, self.run(row, home)));
                        }
                    })
                })
                .collect();
            workers
                .into_iter()
                .flat_map(|worker| worker.join().unwrap())
                .collect()
        });
        ends.sort_by_key(|(at, _)| *at);
        ends.into_iter().map(|(_, end)| end).collect()
    }

    fn run(&self, row: &Row, home: &Path) -> End {
        let mut command = Command::new(&self.program);
        command
            .args(["-X", "-A", "-t", "-w", "-c", QUESTION, "-d", &row.text])
            .env_clear()
            .env("HOME", home)
            .env("PGSYSCONFDIR", home)
            .stdin(Stdio::null());
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        let variables = row.variables.iter();
        let output = command
            .envs(variables.map(|(name, value)| (name, value)))
            .output()
            .unwrap();
        if output.status.success() {
            return End {
                kind: Kind::Connected,
                text: String::from_utf8(output.stdout).unwrap().trim().to_owned(),
            };
        }
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        // The last host's error counts.
        let last = text
            .rsplit_once("connection to server")
            .map_or(text.as_str(), |(_, last)| last);
        let kind = WORDS
            .into_iter()
            .find(|(word, _)| last.contains(word))
            .map_or(Kind::Mistake, |(_, kind)| kind);
        End { kind, text }
    }
}

/// Where psql may be: beside the server's programs, or in the distribution's directories, newest
/// first.
fn programs() -> Vec<PathBuf> {
    let beside = Programs::find(None, None).map(|found| found.path("psql"));
    let debian = (13..30)
        .rev()
        .map(|major| PathBuf::from(format!("/usr/lib/postgresql/{major}/bin/psql")));
    beside.into_iter().chain(debian).collect()
}

/// Reads `psql (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
fn version(program: &Path) -> Option<u32> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let version = text.split_whitespace().nth(2)?;
    version.split('.').next()?.parse().ok()
}

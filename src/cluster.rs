//! Throw-away PostgreSQL servers, for `cdc demo` and the tests.
//!
//! [`Cluster::start`] creates a data directory under the temporary directory and runs a server on
//! it that only its own user can reach: a Unix socket in the same directory and, if asked for, a
//! port on the loopback address. Everything blocks for at most a few seconds; nothing here needs a
//! runtime.
//!
//! Invariants: nothing is left behind, neither process nor file, when the [`Cluster`] is dropped or
//! its process ends in any way (`reaper`); no server runs as root (`account`).
//!
//! Durability is off (`fsync = off`) unless asked for: these servers survive `kill -9`, not a power
//! failure.

mod account;
mod place;
mod programs;
mod reaper;
mod tools;

use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use self::account::Account;
use self::place::{free_port, make_directory, percent_encode};
pub use self::programs::Programs;
use self::reaper::Reaper;
use self::tools::{Tools, could_not_run, could_not_write, last_lines};
use crate::error::{Error, Result};
use crate::sql;

/// How long a server may take to start, stop or recover.
const DEADLINE: Duration = Duration::from_secs(60);
/// Pause between two looks at a server that starts or stops.
const PAUSE: Duration = Duration::from_millis(5);
/// How often a start is tried again with another port.
const PORT_TRIES: u32 = 5;

/// Settings of every throw-away server; later lines win.
const SETTINGS: &str = "
wal_level = logical
max_wal_senders = 50
max_replication_slots = 1000
max_worker_processes = 16
max_prepared_transactions = 10
max_connections = 200
shared_buffers = 32MB
log_line_prefix = '%m [%p] %a '
";

/// What kind of server to start.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Word in the directory's name, for people who look at `ps`.
    pub name: String,
    /// Directory of the server programs; `None` looks for them ([`Programs::find`]).
    pub pg_bin: Option<PathBuf>,
    /// Major version to take; `None` takes any.
    pub major: Option<u32>,
    /// Listens on a free port of the loopback address, besides the Unix socket.
    pub tcp: bool,
    /// Password of the role `postgres`, demanded on TCP (SCRAM); `None` trusts every user of this
    /// machine.
    pub password: Option<String>,
    /// Waits for the disk at each commit, as real servers do.
    pub fsync: bool,
    /// More lines for postgresql.conf, name and value; the value is quoted here.
    pub settings: Vec<(String, String)>,
    /// Files for the data directory, name and contents: certificates, a pg_hba.conf.
    pub files: Vec<(String, String)>,
}

/// How a server is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Ends the sessions, then waits until every walsender has sent everything.
    Fast,
    /// Stops without a checkpoint: the next start recovers, as after a crash.
    Immediate,
}

/// A throw-away server. Dropping it removes everything.
#[derive(Debug)]
pub struct Cluster {
    tools: Tools,
    port: u16,
    password: Option<String>,
    server: Mutex<Option<Child>>,
    reaper: Option<Reaper>,
}

impl Cluster {
    /// Creates a server and waits until it can be used (about a second).
    ///
    /// # Errors
    /// Configuration: no server programs, or no account to run them under; with the server's own
    /// words when it refuses to start. Transient: the system refuses.
    pub fn start(options: &Options) -> Result<Self> {
        let programs = Programs::find(options.pg_bin.as_deref(), options.major)?;
        let directory = make_directory(&options.name)?;
        let reaper = Reaper::watch(&directory).inspect_err(|_| {
            let _ = fs::remove_dir(&directory);
        })?;
        let mut cluster = Self {
            tools: Tools {
                programs,
                account: Account::Own,
                directory,
            },
            port: 0,
            password: options.password.clone(),
            server: Mutex::new(None),
            reaper: Some(reaper),
        };
        cluster.tools.account = Account::for_owner_of(&cluster.tools.directory)?;
        cluster.tools.account.own(&cluster.tools.directory)?;
        let data = cluster.data_dir();
        cluster.tools.initdb(&data, options.password.as_deref())?;
        for (name, contents) in &options.files {
            cluster.add_file(name, contents)?;
        }
        let mut tries = 1;
        loop {
            cluster.port = free_port()?;
            cluster.configure(options)?;
            match cluster.start_again() {
                Err(_) if tries < PORT_TRIES && cluster.log().contains("could not bind") => {
                    tries += 1
                }
                result => return result.map(|()| cluster),
            }
        }
    }

    /// Connection string of a database, over the Unix socket, as the superuser `postgres`.
    pub fn url(&self, database: &str) -> String {
        format!(
            "postgresql://postgres@/{}?host={}&port={}",
            percent_encode(database),
            percent_encode(&self.tools.directory.to_string_lossy()),
            self.port
        )
    }

    /// Connection string of a database, over TCP; works only with [`Options::tcp`].
    pub fn tcp_url(&self, database: &str) -> String {
        let password = match &self.password {
            Some(password) => format!(":{}", percent_encode(password)),
            None => String::new(),
        };
        format!(
            "postgresql://postgres{password}@127.0.0.1:{}/{}",
            self.port,
            percent_encode(database)
        )
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.tools.directory.join("data")
    }

    /// The directory of the Unix socket; everything else of this server is below it too.
    pub fn socket_dir(&self) -> &Path {
        &self.tools.directory
    }

    /// The port, on TCP and in the name of the Unix socket.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The programs of this server.
    pub fn programs(&self) -> &Programs {
        &self.tools.programs
    }

    /// The server's log so far.
    pub fn log(&self) -> String {
        fs::read(self.log_file())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The file that the server logs into.
    pub fn log_file(&self) -> PathBuf {
        self.tools.directory.join("server.log")
    }

    /// Number of the postmaster process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.with_server(|server| server.as_ref().map(Child::id))
    }

    /// Puts a file into the data directory that only the server can read.
    ///
    /// # Errors
    /// Transient: the system refuses.
    pub fn add_file(&self, name: &str, contents: &str) -> Result<()> {
        let path = self.data_dir().join(name);
        fs::write(&path, contents)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o600)))
            .map_err(|error| could_not_write(&path, error))?;
        self.tools.account.own(&path)
    }

    /// Starts the server after a stop: same directory, same port.
    ///
    /// # Errors
    /// Configuration: it does not come up, with the end of its log.
    pub fn start_again(&self) -> Result<()> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let logged = self.log().len();
            let result = self.start_once(deadline);
            let log = self.log();
            let news = log.get(logged..).unwrap_or_default();
            // Backends of a killed postmaster hold its shared memory for a moment longer.
            let held =
                news.contains("is still in use") || news.contains("pre-existing shared memory");
            match result {
                Err(_) if held && Instant::now() < deadline => std::thread::sleep(PAUSE * 10),
                Err(error) => return Err(error.with_detail(last_lines(news))),
                Ok(()) => return Ok(()),
            }
        }
    }

    /// Stops the server and waits until it has ended.
    ///
    /// # Errors
    /// Transient: it has not ended within a minute (a fast stop waits for walsenders).
    pub fn stop(&self, how: Stop) -> Result<()> {
        self.begin_stop(how)?;
        self.wait_stopped()
    }

    /// Asks the server to stop, without waiting: for a caller that must answer the server in the
    /// meantime.
    ///
    /// # Errors
    /// Transient: the system refuses.
    pub(crate) fn begin_stop(&self, how: Stop) -> Result<()> {
        if self.pid().is_none() {
            return Ok(());
        }
        let mode = match how {
            Stop::Fast => "fast",
            Stop::Immediate => "immediate",
        };
        let data = self.data_dir();
        self.tools.run(
            self.tools
                .command("pg_ctl")
                .args(["stop", "-s", "-W", "-m", mode, "-D"])
                .arg(data),
        )
    }

    /// Waits until the server has ended.
    ///
    /// # Errors
    /// Transient: it has not ended within a minute.
    pub(crate) fn wait_stopped(&self) -> Result<()> {
        let deadline = Instant::now() + DEADLINE;
        while self.ended()?.is_none() {
            if Instant::now() >= deadline {
                return Err(Error::transient("the server does not stop")
                    .with_detail(last_lines(&self.log())));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Kills the postmaster with SIGKILL: a crash that nothing prepared for.
    ///
    /// # Errors
    /// Transient: the system refuses.
    pub fn kill(&self) -> Result<()> {
        let killed = self.with_server(|server| match server.take() {
            Some(mut child) => child.kill().and_then(|()| child.wait()).map(|_| ()),
            None => Ok(()),
        });
        killed.map_err(|error| Error::transient("could not kill the server").with_source(error))
    }

    /// Stops the server and starts it again.
    ///
    /// # Errors
    /// As [`Cluster::stop`] and [`Cluster::start_again`].
    pub fn restart(&self, how: Stop) -> Result<()> {
        self.stop(how)?;
        self.start_again()
    }

    /// Creates an empty database.
    ///
    /// # Errors
    /// Transient: the server refuses.
    pub fn create_database(&self, name: &str) -> Result<()> {
        // Not template1: another session in it would make this fail.
        let statement = format!("CREATE DATABASE {} TEMPLATE template0", sql::ident(name));
        self.execute("postgres", &statement)
    }

    /// Runs statements in a database, as the superuser.
    ///
    /// # Errors
    /// Transient: the server refuses, or cannot be reached.
    pub fn execute(&self, database: &str, statements: &str) -> Result<()> {
        let mut config = tokio_postgres::Config::new();
        config
            .user("postgres")
            .dbname(database)
            .host_path(&self.tools.directory)
            .port(self.port);
        // In a thread of its own: this may be called from within a runtime, which forbids blocking
        // on another.
        let result = std::thread::scope(|scope| {
            scope
                .spawn(move || execute(&config, statements))
                .join()
                .unwrap_or_else(|_| Err(Error::transient("the session broke off")))
        });
        result
            .map_err(|error| error.context(format!("could not run SQL in database \"{database}\"")))
    }

    /// Gives up ownership of the server: it keeps running, and its directory stays, until the user
    /// stops and removes them.
    pub(crate) fn keep(mut self) {
        if let Some(reaper) = self.reaper.take() {
            reaper.keep();
        }
    }

    fn configure(&self, options: &Options) -> Result<()> {
        let mut lines = SETTINGS.to_owned();
        let directory = self.tools.directory.to_string_lossy();
        let address = if options.tcp { "127.0.0.1" } else { "" };
        let durable = if options.fsync { "on" } else { "off" };
        let port = self.port.to_string();
        let own = [
            ("port", port.as_str()),
            ("listen_addresses", address),
            ("unix_socket_directories", &directory),
            ("fsync", durable),
            ("full_page_writes", durable),
        ];
        let more = options
            .settings
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in own.into_iter().chain(more) {
            let value = value.replace('\\', "\\\\").replace('\'', "''");
            let _ = writeln!(lines, "{name} = '{value}'");
        }
        let path = self.data_dir().join("postgresql.conf");
        fs::write(&path, lines).map_err(|error| could_not_write(&path, error))
    }

    fn start_once(&self, deadline: Instant) -> Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_file())
            .and_then(|log| Ok((log.try_clone()?, log)))
            .map_err(|error| could_not_write(&self.log_file(), error))?;
        let mut command = self.tools.command("postgres");
        // A group of its own: Ctrl-C on the terminal is for us, not for the server.
        command
            .arg("-D")
            .arg(self.data_dir())
            .stdout(log.0)
            .stderr(log.1)
            .process_group(0);
        let child = command
            .spawn()
            .map_err(|error| could_not_run(&command, error))?;
        let pid = child.id();
        self.with_server(|server| *server = Some(child));
        while !self.is_ready(pid) {
            if let Some(status) = self.ended()? {
                return Err(Error::configuration(format!(
                    "could not start the PostgreSQL server: {status}"
                )));
            }
            if Instant::now() >= deadline {
                return Err(Error::transient(
                    "the PostgreSQL server does not become ready",
                ));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// The server writes its state into the eighth line of postmaster.pid (what `pg_ctl -w` looks
    /// at too).
    fn is_ready(&self, pid: u32) -> bool {
        let Ok(text) = fs::read_to_string(self.data_dir().join("postmaster.pid")) else {
            return false;
        };
        let mut lines = text.lines();
        let ours = lines
            .next()
            .is_some_and(|line| line.trim() == pid.to_string());
        ours && lines.nth(6).is_some_and(|line| line.trim() == "ready")
    }

    /// The exit status if the server has ended (or was never started: `None` counts as ended).
    fn ended(&self) -> Result<Option<ExitStatus>> {
        self.with_server(|server| {
            let Some(child) = server else {
                return Ok(Some(ExitStatus::default()));
            };
            let status = child.try_wait();
            if matches!(status, Ok(Some(_))) {
                *server = None;
            }
            status.map_err(|error| {
                Error::transient("could not wait for the server").with_source(error)
            })
        })
    }

    fn with_server<T>(&self, act: impl FnOnce(&mut Option<Child>) -> T) -> T {
        act(&mut self.server.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let server = self.with_server(Option::take);
        match self.reaper.take() {
            Some(reaper) => {
                // The postmaster is our child: it must be waited for while the reaper ends it.
                let waiting = server.map(|mut child| std::thread::spawn(move || child.wait()));
                reaper.clean();
                if let Some(waiting) = waiting {
                    let _ = waiting.join();
                }
            }
            // Kept: the process continues without us.
            None => drop(server),
        }
    }
}

/// Runs the statements on a connection and a runtime of their own.
fn execute(config: &tokio_postgres::Config, statements: &str) -> Result<()> {
    let failed = |error: tokio_postgres::Error| match error.as_db_error() {
        Some(refusal) => Error::transient(refusal.message()).with_sqlstate(refusal.code().code()),
        None => Error::transient("the connection failed").with_source(error),
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::transient("could not make a runtime").with_source(error))?
        .block_on(async {
            let (client, connection) = config
                .connect(tokio_postgres::NoTls)
                .await
                .map_err(failed)?;
            let connection = tokio::spawn(connection);
            client.batch_execute(statements).await.map_err(failed)?;
            drop(client);
            let _ = connection.await;
            Ok(())
        })
}

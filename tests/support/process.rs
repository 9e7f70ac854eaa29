//! The built `cdc` as a child process: started with nothing of our environment, logged into a file,
//! killed when the test ends; its log is printed if the test fails.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use super::{DEADLINE, Pair};

/// What can be sent to the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C.
    Int,
    /// What init systems and containers send first.
    Term,
    /// What a terminal that closes sends, and whoever wants the configuration to be read again.
    Hup,
    /// What `cdc` gives no meaning to.
    Usr1,
    /// The same.
    Usr2,
    /// The end, without notice.
    Kill,
    /// Halt, until [`Signal::Cont`].
    Stop,
    /// Go on.
    Cont,
}

/// A running `cdc`.
#[derive(Debug)]
pub struct Cdc {
    child: Child,
    log: PathBuf,
}

impl Cdc {
    /// Starts `cdc run` on this pair.
    pub fn run(pair: &Pair) -> Self {
        Self::start(&mut Self::command(pair, &["run"]))
    }

    /// A command of `cdc` on this pair, with the pair's configuration file; of the environment it
    /// gets only the two URLs and what concerns the log.
    pub fn command(pair: &Pair, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cdc"));
        command
            .args(arguments)
            .arg("--config")
            .arg(write_config(&pair.config))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            // No ~/.pgpass, no ./cdc.toml.
            .env("HOME", "/nonexistent")
            .current_dir("/")
            .env("NO_COLOR", "1")
            .env("CDC_LOG", "debug")
            .env("CDC_SOURCE_URL", &pair.source_url)
            .env("CDC_TARGET_URL", &pair.target_url)
            .stdin(Stdio::null());
        command
    }

    /// Starts this command as a process of its own.
    pub fn start(command: &mut Command) -> Self {
        let log = new_file("log");
        let file = File::create(&log).unwrap();
        let child = command
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Self { child, log }
    }

    /// Starts this command with its standard error in a pipe, whose end comes back; the log stays
    /// empty.
    pub fn start_into_pipe(command: &mut Command) -> (Self, ChildStderr) {
        let log = new_file("log");
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let pipe = child.stderr.take().unwrap();
        (Self { child, log }, pipe)
    }

    /// Runs a command to its end and returns what it printed.
    pub fn output(pair: &Pair, arguments: &[&str]) -> Output {
        Self::command(pair, arguments).output().unwrap()
    }

    /// Number of the process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything that it has written so far.
    pub fn log(&self) -> String {
        read(&self.log)
    }

    /// Sends a signal.
    pub fn kill(&mut self, signal: Signal) {
        let name = match signal {
            Signal::Int => "INT",
            Signal::Term => "TERM",
            Signal::Hup => "HUP",
            Signal::Usr1 => "USR1",
            Signal::Usr2 => "USR2",
            Signal::Kill => "KILL",
            Signal::Stop => "STOP",
            Signal::Cont => "CONT",
        };
        // The child is not waited for yet, so its number cannot belong to anybody else.
        let status = Command::new("/bin/sh")
            .args(["-c", "kill -s \"$0\" \"$1\"", name, &self.pid().to_string()])
            .status();
        assert!(status.unwrap().success(), "could not send {name}");
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until it has ended.
    pub async fn wait(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < DEADLINE, "cdc does not end");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    /// Sends a signal and waits until it has ended.
    pub async fn stop(&mut self, signal: Signal) -> ExitStatus {
        self.kill(signal);
        self.wait().await
    }
}

impl Drop for Cdc {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() || std::env::var_os("CDC_TEST_SHOW_LOG").is_some() {
            eprintln!("--- log of cdc, process {}\n{}---", self.pid(), self.log());
        }
        let _ = fs::remove_file(&self.log);
    }
}

/// A name below the shared source server, so that the file goes away with it.
fn new_file(kind: &str) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    super::source()
        .socket_dir()
        .join(format!("cdc-{number}.{kind}"))
}

fn write_config(text: &str) -> PathBuf {
    let path = new_file("toml");
    fs::write(&path, text).unwrap();
    path
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

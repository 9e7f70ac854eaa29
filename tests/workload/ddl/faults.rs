//! What befalls `cdc` and the servers in a round: kills, restarts, resyncs, at random moments or
//! when the log says something.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cdc::cluster::{Cluster, Stop};
use fastrand::Rng;

use super::super::sessions::connect;
use super::super::support::{Cdc, DEADLINE, Pair, Signal};
use super::timeline::Timeline;
use super::writer::read;

/// What the log says in the moments that a fault is to meet.
const MOMENTS: [&str; 10] = [
    "set up the publication",
    "copying",
    "the snapshot has settled",
    "the copies catch up with the source",
    "the stream is asked to pause",
    "the stream stands still",
    "merging the copies",
    "merged the copies",
    "streaming",
    "read model is suspended",
];

/// How long a moment is waited for.
const MOMENT: Duration = Duration::from_secs(2);

const PAUSE: Duration = Duration::from_millis(5);

/// Bytes of the logs that are told of a round.
const SHOWN_BYTES: usize = 400_000;

/// What befalls somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// `cdc` is killed or asked to leave, and started again.
    Cdc(Signal),
    Source(Stop),
    Target(Stop),
    Both(Stop),
    /// `cdc resync` beside it, or its dry run.
    Resync,
    DryRun,
    /// The sessions of `cdc` at one side are ended.
    Sessions {
        source: bool,
    },
    /// The slot is lost: everything is copied.
    Slot,
}

/// When it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    After(Duration),
    /// When the log says this the next time, if it does so soon.
    Logged(&'static str),
}

/// What befalls whom in one round, drawn before it begins.
pub fn draw(rng: &mut Rng) -> Vec<(When, Fault)> {
    let number = rng.u32(0..6);
    (0..number)
        .map(|_| {
            let when = if rng.u32(0..3) == 0 {
                When::Logged(MOMENTS[rng.usize(0..MOMENTS.len())])
            } else {
                When::After(Duration::from_millis(rng.u64(0..1500)))
            };
            let stop = if rng.bool() {
                Stop::Fast
            } else {
                Stop::Immediate
            };
            let fault = match rng.u32(0..100) {
                0..=24 => Fault::Cdc(Signal::Kill),
                25..=31 => Fault::Cdc(Signal::Term),
                32..=47 => Fault::Source(stop),
                48..=56 => Fault::Target(stop),
                57..=61 => Fault::Both(stop),
                62..=78 => Fault::Resync,
                79..=85 => Fault::DryRun,
                86..=95 => Fault::Sessions { source: rng.bool() },
                _ => Fault::Slot,
            };
            (when, fault)
        })
        .collect()
}

/// The running `cdc` and its servers.
pub struct Victims {
    pub pair: Pair,
    pub source: Arc<Cluster>,
    pub target: Arc<Cluster>,
    pub timeline: Timeline,
    pub cdc: Cdc,
    /// Bytes of its log from before this round.
    logged: usize,
    /// What others of this round have written.
    ended: String,
    /// Commands that run beside it.
    commands: Vec<Cdc>,
}

impl Victims {
    pub fn new(pair: Pair, source: Arc<Cluster>, target: Arc<Cluster>, timeline: Timeline) -> Self {
        let cdc = Cdc::run(&pair);
        Self {
            pair,
            source,
            target,
            timeline,
            cdc,
            logged: 0,
            ended: String::new(),
            commands: Vec::new(),
        }
    }

    /// A round begins: the logs of those before are forgotten.
    pub fn begin(&mut self) {
        self.ended.clear();
        self.logged = self.cdc.log().len();
    }

    /// The logs of this round.
    pub fn log(&self) -> String {
        let mut text = self.ended.clone();
        for cdc in self.commands.iter().chain([&self.cdc]) {
            self.write_log(cdc, &mut text);
        }
        let start = text.len().saturating_sub(SHOWN_BYTES);
        let start = (start..text.len())
            .find(|at| text.is_char_boundary(*at))
            .unwrap_or(0);
        text[start..].to_owned()
    }

    fn write_log(&self, cdc: &Cdc, text: &mut String) {
        let log = cdc.log();
        let from = if cdc.pid() == self.cdc.pid() {
            self.logged
        } else {
            0
        };
        let _ = writeln!(text, "--- log of cdc, process {}", cdc.pid());
        // Each row is told at this level; the history tells more.
        let lines = log.get(from..).unwrap_or_default().lines();
        for line in lines.filter(|line| !line.contains("applied a row")) {
            let _ = writeln!(text, "{line}");
        }
    }

    /// Carries out what was drawn. The error tells what does not end.
    pub async fn befall(&mut self, faults: Vec<(When, Fault)>) -> Result<(), String> {
        for (when, fault) in faults {
            self.wait(when).await;
            self.timeline
                .note(format!("-- {fault:?}, drawn for {when:?}"));
            self.carry_out(fault).await?;
            self.timeline.note(format!("-- {fault:?}: done"));
        }
        Ok(())
    }

    async fn wait(&self, when: When) {
        let moment = match when {
            When::After(time) => return tokio::time::sleep(time).await,
            When::Logged(moment) => moment,
        };
        let (started, from) = (Instant::now(), self.cdc.log().len());
        while started.elapsed() < MOMENT
            && !self
                .cdc
                .log()
                .get(from..)
                .is_some_and(|log| log.contains(moment))
        {
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn carry_out(&mut self, fault: Fault) -> Result<(), String> {
        match fault {
            Fault::Cdc(signal) => {
                self.stop(signal).await;
                self.start();
            }
            Fault::Source(how) => restart(&self.source, how).await?,
            Fault::Target(how) => restart(&self.target, how).await?,
            Fault::Both(how) => {
                let (source, target) =
                    tokio::join!(restart(&self.source, how), restart(&self.target, how));
                source.and(target)?;
            }
            Fault::Resync => self.command(&["resync"]),
            Fault::DryRun => self.command(&["resync", "--dry-run"]),
            Fault::Sessions { source } => self.end_sessions(source).await,
            Fault::Slot => {
                self.stop(Signal::Kill).await;
                self.drop_slot().await?;
                self.start();
            }
        }
        Ok(())
    }

    fn command(&mut self, arguments: &[&str]) {
        let command = Cdc::start(&mut Cdc::command(&self.pair, arguments));
        self.commands.push(command);
    }

    async fn stop(&mut self, signal: Signal) {
        self.cdc.stop(signal).await;
        let mut ended = std::mem::take(&mut self.ended);
        self.write_log(&self.cdc, &mut ended);
        self.ended = ended;
    }

    fn start(&mut self) {
        self.cdc = Cdc::run(&self.pair);
        self.logged = 0;
    }

    async fn end_sessions(&self, source: bool) {
        let url = if source {
            &self.pair.source_url
        } else {
            &self.pair.target_url
        };
        if let Ok(client) = connect(url).await {
            let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'cdc %'";
            let _ = read(&client, end).await;
        }
    }

    async fn drop_slot(&self) -> Result<(), String> {
        let drop = format!(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '{}'",
            self.pair.slot
        );
        let started = Instant::now();
        loop {
            let dropped = match connect(&self.pair.source_url).await {
                Ok(client) => read(&client, &drop).await,
                Err(error) => Err(error),
            };
            match dropped {
                Ok(_) => return Ok(()),
                Err(error) if started.elapsed() > DEADLINE => {
                    return Err(format!("{drop}: {error:?}"));
                }
                // The walsender of the killed one is still there.
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Waits until every command has ended, with whatever result: a table may not have been as it
    /// should be.
    pub async fn finish_commands(&mut self) -> Result<(), String> {
        for mut command in std::mem::take(&mut self.commands) {
            let started = Instant::now();
            while command.is_running() {
                if started.elapsed() > DEADLINE {
                    let log = command.log();
                    self.commands.push(command);
                    return Err(format!("a resync does not end within {DEADLINE:?}: {log}"));
                }
                tokio::time::sleep(PAUSE).await;
            }
            let mut ended = std::mem::take(&mut self.ended);
            self.write_log(&command, &mut ended);
            self.ended = ended;
        }
        Ok(())
    }

    /// Runs a command to its end.
    pub async fn output(&self, arguments: &[&str]) -> Result<std::process::Output, String> {
        let command = tokio::process::Command::from(Cdc::command(&self.pair, arguments))
            .kill_on_drop(true)
            .output();
        match tokio::time::timeout(DEADLINE, command).await {
            Ok(output) => Ok(output.unwrap()),
            Err(_) => Err(format!("cdc {arguments:?} does not end")),
        }
    }
}

/// Stops a server and starts it again, without blocking everything else.
async fn restart(cluster: &Arc<Cluster>, how: Stop) -> Result<(), String> {
    let cluster = Arc::clone(cluster);
    tokio::task::spawn_blocking(move || cluster.restart(how))
        .await
        .unwrap()
        .map_err(|error| format!("{error:?}"))
}

//! `status`: the JSON contract, and how it follows from what both sides showed.
//!
//! In: an [`Observed`], each side as far as it could be seen. Out: a [`Status`]: the verdict first,
//! then what it rests on. Three questions are answered: is the lookup right, how old is it, what do
//! I do now.
//!
//! The JSON is a promise: `schema` is 1, fields are only ever added, lists are never null, times
//! are RFC 3339 in UTC, sizes are bytes, ages are seconds.

mod age;
mod copy;
mod text;
mod verdict;

use serde::Serialize;

use crate::facts::Slot;
use crate::lsn::Lsn;
use crate::schedule::Schedule;
use crate::settings::{ReadModelSettings, Settings};

pub(crate) use age::CatchingUp;
pub(crate) use copy::Copy;
pub(crate) use text::{progress_line, render, time};

/// What `cdc status --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// Version of this contract: 1.
    pub schema: u32,
    /// In one word.
    pub verdict: Verdict,
    /// In one line, for people; its text is no promise.
    pub summary: String,
    /// Whether everything is as it should be: exit code 0.
    pub healthy: bool,
    /// What is wrong, worst first.
    pub problems: Vec<Problem>,
    /// The database with the master tables.
    pub source: SideStatus,
    /// The database with the lookup tables.
    pub target: SideStatus,
    /// The replication slot; null if the source could not be seen or has no such slot.
    pub slot: Option<SlotStatus>,
    /// The process that applies; null before the first run, or if the target could not be seen.
    pub pipeline: Option<PipelineStatus>,
    /// What is applied; null before the first copy, or if the target could not be seen.
    pub checkpoint: Option<Checkpoint>,
    /// How far behind the source the stream is; null while it keeps up, or if that is not known.
    pub catching_up: Option<CatchingUp>,
    /// One for each configured read model.
    pub read_models: Vec<ReadModelStatus>,
    /// The newest resyncs, newest first.
    pub resyncs: Vec<Resync>,
    /// When everything is compared again; null if the schedule is off.
    pub resync_schedule: Option<ResyncSchedule>,
}

/// The verdict in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The lookups are in step with their sources.
    Ok,
    /// `cdc` has never run against this target.
    New,
    /// Rows are being copied, for the first time or to heal; old rows stay readable in the
    /// meantime.
    Copying,
    /// `cdc` runs, but the lookups are old.
    Behind,
    /// `cdc` runs, but the scheduled resync has been missed twice.
    Overdue,
    /// `cdc` runs and tries again and again.
    Retrying,
    /// A read model is suspended and shows its last good state.
    Suspended,
    /// A dry run has found differences, and nothing has compared since.
    Differs,
    /// `cdc` does not run.
    Stopped,
    /// The slot needs attention.
    Slot,
    /// One side could not be seen.
    Unknown,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// `error` makes the whole unhealthy, `warning` does not.
    pub severity: &'static str,
    /// What it is about: `source`, `target`, `cdc`, `slot`, or the name of a read model.
    pub subject: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// One of the two servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SideStatus {
    /// Host, port, database and role; never a password.
    pub address: String,
    /// Whether `cdc status` itself could ask it.
    pub reachable: bool,
    /// Server version, if it could be asked.
    pub version: Option<String>,
    /// Why it could not be asked.
    pub error: Option<String>,
}

/// The replication slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SlotStatus {
    /// Name.
    pub name: String,
    /// Whether a walsender reads it.
    pub active: bool,
    /// The process that reads it.
    pub active_pid: Option<i32>,
    /// Output plugin.
    pub plugin: Option<String>,
    /// Database.
    pub database: Option<String>,
    /// reserved, extended, unreserved, lost.
    pub wal_status: Option<String>,
    /// Why it was invalidated.
    pub invalidation_reason: Option<String>,
    /// Oldest WAL that it holds.
    pub restart_lsn: Option<String>,
    /// The position up to which the server knows everything to be applied.
    pub confirmed_flush_lsn: Option<String>,
    /// WAL that it holds on the source's disk.
    pub held_bytes: Option<i64>,
    /// WAL that can still be written before it is in danger; null without limit, or when lost.
    pub safe_wal_bytes: Option<i64>,
    /// WAL above which cdc gives it up (source.max_retained_wal); null without limit.
    pub max_retained_bytes: Option<u64>,
}

/// The process that applies, as the bookkeeping shows it.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct PipelineStatus {
    /// Whether a process is at work: a fresh heartbeat, or its session is there.
    pub alive: bool,
    /// starting, waiting, copying, streaming, retrying, stopped: what it last said.
    pub state: String,
    /// Since when.
    pub state_since: Option<String>,
    /// The owner's process: `pid N`.
    pub owner: Option<String>,
    /// Age of its last sign of life.
    pub heartbeat_age_seconds: Option<f64>,
    /// Whether its applying session is in pg_stat_activity.
    pub session_present: bool,
    /// Why everything is being copied.
    pub healing: Option<String>,
    /// Since when.
    pub healing_since: Option<String>,
    /// Until when the copy waits, so as not to load the source again so soon; null if it does not
    /// wait.
    pub healing_after: Option<String>,
    /// Copies of everything that began one soon after the other.
    pub healings: i32,
    /// The last error, while it lasts.
    pub error: Option<String>,
    /// What to do about it.
    pub error_hint: Option<String>,
    /// What keeps a copy from beginning, and since when.
    pub waiting_for: Option<String>,
}

/// What is applied.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Checkpoint {
    /// Every commit before it is applied.
    pub lsn: String,
    /// The lookups are as of this time of the source's clock: all that was flushed there by then is
    /// applied.
    pub commit_time: Option<String>,
    /// When it was stored.
    pub applied_at: Option<String>,
    /// How long ago that was.
    pub applied_age_seconds: Option<f64>,
    /// WAL of the source after it, others' included; null if the source could not be seen.
    pub lag_bytes: Option<u64>,
    /// Last applied transaction with a change of a published table.
    pub last_commit_lsn: Option<String>,
    /// Its commit time.
    pub last_commit_time: Option<String>,
}

/// One read model.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct ReadModelStatus {
    /// The lookup table.
    pub name: String,
    /// The source table.
    pub source: String,
    /// new, in_step, suspended; unknown if the target could not be seen.
    pub state: String,
    /// Since when.
    pub since: Option<String>,
    /// Why it is suspended.
    pub reason: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// Live rows in the lookup.
    pub rows: Option<i64>,
    /// At most this old, by the source's clock if it could be read: 0 when all of the source's WAL
    /// is applied; null when that is not known.
    pub age_seconds: Option<f64>,
    /// Last change of a row.
    pub last_change_at: Option<String>,
    /// Last resync.
    pub last_resync: Option<LastResync>,
    /// Last comparison of all rows, by a copy, a resync or a dry run.
    pub last_comparison: Option<LastComparison>,
    /// A running copy.
    pub copy: Option<Copy>,
    /// Live rows at the source whose key another one has, as of the last resync: they wait until it
    /// is free.
    pub waiting: i64,
    /// Rows that the target rejects.
    pub rejected: i64,
    /// The first of them, oldest first.
    pub rejections: Vec<Rejection>,
}

/// A row that the target rejects: never a value but its identity and key.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Rejection {
    /// Its identity at the source; null if the source has no such row, and the lookup's row could
    /// not be deleted.
    pub identity: Option<String>,
    /// Its key; null if the lookup's key does not take it.
    pub key: Option<String>,
    /// What the lookup shows under this key: nothing, old row, other row.
    pub shown: String,
    /// The server's error code.
    pub sqlstate: String,
    /// Constraint that rejects it.
    pub constraint: Option<String>,
    /// Column that does not take its value.
    pub column: Option<String>,
    /// End of the batch in which it was rejected.
    pub lsn: Option<String>,
    /// When it was rejected.
    pub at: String,
}

/// The last resync of a read model.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct LastResync {
    /// When it was done.
    pub at: String,
    /// Rows that differed and were repaired: real drift.
    pub repaired: i64,
}

/// The last comparison of a read model with its source.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct LastComparison {
    /// When it was done.
    pub at: String,
    /// Rows that differed and were left as they were, as a dry run does; rejected ones are not
    /// among them.
    pub differing: i64,
}

/// A resync: requested, running or finished.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Resync {
    /// Number.
    pub id: i64,
    /// Which read models; empty is all.
    pub read_models: Vec<String>,
    /// Whether it only compares.
    pub dry_run: bool,
    /// schedule, request, first copy, heal, suspended.
    pub origin: String,
    /// queued, running, done, failed.
    pub state: String,
    /// When it was requested.
    pub requested_at: String,
    /// When it began.
    pub started_at: Option<String>,
    /// When it ended.
    pub finished_at: Option<String>,
    /// What keeps it from beginning, and since when.
    pub waiting_for: Option<String>,
    /// The lookups equalled the source as of this position.
    pub lsn: Option<String>,
    /// What differed, for each read model.
    pub result: Option<serde_json::Value>,
    /// Why it failed.
    pub error: Option<String>,
}

/// When everything is compared again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ResyncSchedule {
    /// Cron expression.
    pub schedule: String,
    /// Time zone of it.
    pub timezone: String,
    /// This pipeline's turn comes so long after the expression's times.
    pub delay_seconds: u64,
    /// Next turn; a turn that was missed is made up for at once. Null if the target could not be
    /// seen.
    pub next_at: Option<String>,
    /// When the second turn since the last resync of everything passed: it is overdue. Null while
    /// it is not.
    pub overdue_since: Option<String>,
}

/// What the source showed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SourceSeen {
    /// Server version.
    pub version: String,
    /// Its clock, read before the end of its WAL, in microseconds since 1970; `None` of a standby.
    pub now: Option<i64>,
    /// End of its WAL.
    pub wal: Lsn,
    /// The slot, if it is there.
    pub slot: Option<Slot>,
}

/// What the target showed.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct TargetSeen {
    /// Server version.
    pub version: String,
    /// The bookkeeping; `None` before the first run.
    pub bookkeeping: Option<Bookkeeping>,
}

/// What the bookkeeping holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Bookkeeping {
    /// The pipeline's row; `None` before the first run. Its `alive` is filled in here.
    pub pipeline: Option<PipelineStatus>,
    /// The checkpoint; `None` before the first copy. Its `lag_bytes` is filled in here.
    pub checkpoint: Option<Checkpoint>,
    /// Read models that have been taken up, configured or not. Their `age_seconds` are filled in
    /// here.
    pub read_models: Vec<ReadModelStatus>,
    /// The newest resyncs, newest first.
    pub resyncs: Vec<Resync>,
    /// When the last resync of everything began; `None` before the first copy. Microseconds since
    /// 1970.
    pub last_full_resync: Option<i64>,
    /// The target's clock, in microseconds since 1970.
    pub now: i64,
}

/// Both sides, as far as they could be seen; an error is its text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Observed {
    /// The source.
    pub source: Result<SourceSeen, String>,
    /// The target.
    pub target: Result<TargetSeen, String>,
}

impl Status {
    /// The status that follows from what was seen.
    pub(crate) fn new(settings: &Settings, seen: &Observed) -> Self {
        let source = seen.source.as_ref().ok();
        let target = seen.target.as_ref().ok();
        let bookkeeping = target.and_then(|target| target.bookkeeping.as_ref());
        let mut pipeline = bookkeeping.and_then(|bookkeeping| bookkeeping.pipeline.clone());
        if let Some(pipeline) = &mut pipeline {
            pipeline.alive = verdict::is_alive(pipeline);
        }
        let mut checkpoint = bookkeeping.and_then(|bookkeeping| bookkeeping.checkpoint.clone());
        if let (Some(checkpoint), Some(source)) = (&mut checkpoint, source) {
            let lsn: Option<Lsn> = checkpoint.lsn.parse().ok();
            checkpoint.lag_bytes = lsn.map(|lsn| source.wal.bytes_since(lsn));
        }
        let now = bookkeeping.map(|bookkeeping| bookkeeping.now);
        let age = age::age_seconds(checkpoint.as_ref(), source, now);
        let catching_up = age::catching_up(pipeline.as_ref(), checkpoint.as_ref(), age, settings);
        let read_models = settings.read_models.iter().map(|model| {
            let found = bookkeeping.and_then(|b| {
                b.read_models
                    .iter()
                    .find(|found| found.name == model.name())
            });
            read_model(model, found, target.is_some(), age)
        });
        let mut status = Self {
            schema: 1,
            verdict: Verdict::Ok,
            summary: String::new(),
            healthy: true,
            problems: Vec::new(),
            source: side(
                settings.source.conninfo.to_string(),
                seen.source.as_ref().map(|seen| &seen.version),
            ),
            target: side(
                settings.target.conninfo.to_string(),
                seen.target.as_ref().map(|seen| &seen.version),
            ),
            slot: source
                .and_then(|source| source.slot.as_ref())
                .map(|seen| slot(seen, settings)),
            read_models: read_models.collect(),
            resyncs: bookkeeping
                .map(|bookkeeping| bookkeeping.resyncs.clone())
                .unwrap_or_default(),
            resync_schedule: resync_schedule(settings, bookkeeping),
            pipeline,
            checkpoint,
            catching_up,
        };
        verdict::judge(&mut status, settings, source);
        status
    }
}

fn side(address: String, seen: Result<&String, &String>) -> SideStatus {
    SideStatus {
        address,
        reachable: seen.is_ok(),
        version: seen.ok().cloned(),
        error: seen.err().cloned(),
    }
}

fn read_model(
    model: &ReadModelSettings,
    found: Option<&ReadModelStatus>,
    target_seen: bool,
    age: Option<f64>,
) -> ReadModelStatus {
    let Some(found) = found else {
        return ReadModelStatus {
            name: model.name(),
            source: model.source.to_string(),
            state: if target_seen { "new" } else { "unknown" }.to_owned(),
            ..ReadModelStatus::default()
        };
    };
    ReadModelStatus {
        age_seconds: age.filter(|_| found.state == "in_step"),
        ..found.clone()
    }
}

/// How long a resync may take after its turn, at most, until a missed one is reported.
const MOST_GRACE: jiff::SignedDuration = jiff::SignedDuration::from_hours(1);

/// The schedule, as the running process reads it: the first turn after the last resync of
/// everything.
fn resync_schedule(settings: &Settings, seen: Option<&Bookkeeping>) -> Option<ResyncSchedule> {
    let schedule = Schedule::of(&settings.resync, &settings.source.slot).ok()??;
    let next = seen.and_then(|seen| {
        let last =
            jiff::Timestamp::from_microsecond(seen.last_full_resync.unwrap_or(seen.now)).ok()?;
        schedule.next_after(last)
    });
    let overdue = seen.zip(next).and_then(|(seen, missed)| {
        let second = schedule.next_after(missed)?;
        // The second turn gets its time.
        let grace = second.duration_since(missed).min(MOST_GRACE * 2) / 2;
        let now = jiff::Timestamp::from_microsecond(seen.now).ok()?;
        (now > second.checked_add(grace).ok()?).then_some(second)
    });
    Some(ResyncSchedule {
        overdue_since: overdue.map(|second| second.to_string()),
        schedule: settings.resync.schedule.clone().unwrap_or_default(),
        timezone: settings.resync.timezone.clone(),
        delay_seconds: schedule.delay().as_secs(),
        next_at: next.map(|next| next.to_string()),
    })
}

fn slot(slot: &Slot, settings: &Settings) -> SlotStatus {
    let text = |lsn: Option<Lsn>| lsn.map(|lsn| lsn.to_string());
    SlotStatus {
        name: slot.name.clone(),
        active: slot.active_pid.is_some(),
        active_pid: slot.active_pid,
        plugin: slot.plugin.clone(),
        database: slot.database.clone(),
        wal_status: slot.wal_status.clone(),
        invalidation_reason: slot.invalidation_reason.clone(),
        restart_lsn: text(slot.restart_lsn),
        confirmed_flush_lsn: text(slot.confirmed_flush_lsn),
        held_bytes: slot.held_bytes,
        safe_wal_bytes: slot.safe_wal_bytes,
        max_retained_bytes: settings.source.max_retained_wal,
    }
}

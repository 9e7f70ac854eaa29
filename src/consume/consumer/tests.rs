//! Pause, shutdown, idle positions, chunks and batches, step by step: what happens, and what the
//! consumer says is to be done.

mod cases;

use super::*;
use crate::as_of::Reading;
use crate::batch::{Merged, Written};
use crate::consume::job::{Applied, Done};
use crate::facts::ReplicaIdentity;
use crate::lsn::PgTimestamp;
use crate::read_model::tests::labels_table;
use crate::shape::ShapeColumn;
use crate::transaction::tests::{begin, commit, insert, model, relation};

/// A stream that begins at 100, where the slot stands, with one read model.
struct Case {
    consumer: Consumer,
    now: Duration,
    job: Option<Job>,
    is_described: bool,
    /// Whether looks at the catalogs are answered at once.
    proves: bool,
}

/// The one read model.
const LABELS: ModelIndex = ModelIndex(0);

/// How a case begins.
#[derive(Clone, Copy)]
struct With {
    synchronous: bool,
    start: u64,
    careful_until: Option<u64>,
    chunk_bytes: usize,
    proves: bool,
    takes_part: bool,
}

const USUAL: With = With {
    synchronous: true,
    start: 100,
    careful_until: None,
    chunk_bytes: usize::MAX,
    proves: true,
    takes_part: true,
};

const ASYNCHRONOUS: With = With {
    synchronous: false,
    ..USUAL
};

const CHUNKS: With = With {
    chunk_bytes: 1,
    ..USUAL
};

impl Case {
    fn new(with: With) -> Self {
        let takes_part = with.takes_part.then(model);
        let consumer = Consumer::new(Start {
            models: vec![(ReadModelSettings::labels(), takes_part)],
            checkpoint: Lsn(100),
            last: None,
            start: Lsn(with.start),
            synchronous_commit: with.synchronous,
            careful_until: with.careful_until.map(Lsn),
            status_interval: Duration::from_secs(10),
            sender_timeout: Duration::from_secs(60),
            chunk_patience: Duration::from_secs(60),
            own_cluster: false,
            passed: Arc::new(Passed::new(1)),
        });
        Self {
            consumer: consumer.with_chunks_of(with.chunk_bytes),
            now: Duration::ZERO,
            job: None,
            is_described: false,
            proves: with.proves,
        }
    }

    /// Plays a step; returns what is to be done after it.
    fn step(&mut self, step: &str) -> String {
        // What begins with a plus is followed by another event before anything is done.
        let goes_on = step.starts_with('+');
        let step = step.trim_start_matches('+');
        let (what, number) = step.split_once(' ').unwrap_or((step, "0"));
        let number = number.parse().unwrap_or_default();
        let result = self.event(what, number);
        let mut said = Vec::new();
        match result {
            Err(error) => said.push(format!("end: {error}")),
            Ok(Some(text)) => said.push(text),
            Ok(None) if goes_on => {}
            Ok(None) => self.settle(&mut said),
        }
        said.join(", ")
    }

    fn event(&mut self, what: &str, number: u64) -> Result<Option<String>> {
        let lsn = Lsn(number);
        let rows = |case: &mut Self, rows: &[&str], ends: bool| {
            case.frames(Some(begin(number)))?;
            case.describe()?;
            for row in rows {
                case.frames(Some(insert(row)))?;
            }
            case.frames(ends.then(|| commit(number)))
        };
        match what {
            // A transaction that commits here, with a row or without; its beginning, a row of it,
            // its end.
            "insert" => rows(self, &[&number.to_string()], true)?,
            // A transaction whose row is one of a leaf that was described again.
            "leaf" => {
                let mut leaf = relation("label");
                leaf[1..5].copy_from_slice(&16401_u32.to_be_bytes());
                for message in [
                    begin(number),
                    relation("label"),
                    leaf,
                    insert("1"),
                    commit(number),
                ] {
                    self.frames(Some(message))?;
                }
            }
            "late" => {
                self.consumer.take(&late(&begin(number)), self.now)?;
                self.describe()?;
                self.frames(Some(insert("1")))?;
                self.frames(Some(commit(number)))?;
            }
            "empty" => {
                self.frames(Some(begin(number)))?;
                self.frames(Some(commit(number)))?;
            }
            "begin" => rows(self, &[], false)?,
            "row" => self.frames(Some(insert(&number.to_string())))?,
            "commit" => self.frames(Some(commit(number)))?,
            "alter" => self.frames(Some(relation("was_label")))?,
            "keepalive" => self.keepalive(lsn, false)?,
            "shutdown" => self.keepalive(lsn, true)?,
            "reads?" => return Ok(Some(self.consumer.may_read().to_string())),
            // Time passes, in seconds.
            "at" => {
                self.now = Duration::from_secs(number);
                if self
                    .consumer
                    .deadline(self.now)
                    .is_some_and(|at| at <= self.now)
                    && self.consumer.wake(self.now)?
                {
                    return Ok(Some("the pause ends".to_owned()));
                }
            }
            "deadline?" => {
                let deadline = self.consumer.deadline(self.now);
                return Ok(Some(
                    deadline.map_or("none".to_owned(), |at| at.as_millis().to_string()),
                ));
            }
            "tick" => self.consumer.tick(self.now)?,
            "hurry" => self.consumer.hurry(),
            "pause" => self.consumer.pause(lsn, vec![(LABELS, model())]),
            "resume" => self.consumer.resume(),
            "merge" => {
                let position = self.consumer.begin_merge();
                return Ok(Some(
                    position.map_or("refused".to_owned(), |at| format!("merge {}", at.0)),
                ));
            }
            "merged" => self
                .consumer
                .done(&Done::Merged(vec![merged()]), self.now)?,
            "not-merged" => self.consumer.done(&Done::Merged(Vec::new()), self.now)?,
            "named" => {
                let time = PgTimestamp(i64::try_from(self.now.as_micros()).unwrap());
                self.consumer
                    .read_clock(Reading { time, flushed: lsn }, true);
            }
            "done" => self.done()?,
            "fails" => {
                let failed = FailedBatch {
                    index: LABELS,
                    transactions: 1,
                    lsn: self.consumer.applied(),
                    error: Error::new(Class::Rejected, "it does not fit"),
                };
                self.consumer.done(&Done::Failed(failed), self.now)?;
            }
            "lost" => self.consumer.lost(),
            "in-hand?" => return Ok(Some(self.consumer.in_hand().to_string())),
            "proved" => self.consumer.proved(&[(table(), shape("label"))]),
            "attached" => self.consumer.proved(&[(table(), with_parts(&[16401]))]),
            "detached" => self.consumer.proved(&[(table(), with_parts(&[]))]),
            "altered" => self.consumer.proved(&[(table(), shape("was_label"))]),
            "last" => {
                let job = self.consumer.last_job(self.now)?;
                return Ok(Some(
                    job.map_or("none".to_owned(), |job| self.hand_over(job)),
                ));
            }
            other => panic!("no step {other:?}"),
        }
        Ok(None)
    }

    fn frames(&mut self, payload: Option<Vec<u8>>) -> Result<()> {
        match payload {
            Some(payload) => self.consumer.take(&frame(&payload), self.now),
            None => Ok(()),
        }
    }

    fn describe(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.is_described, true) {
            return Ok(());
        }
        self.frames(Some(relation("label")))
    }

    fn keepalive(&mut self, wal_end: Lsn, reply_requested: bool) -> Result<()> {
        let keepalive = StreamFrame::Keepalive {
            wal_end,
            send_time: PgTimestamp(0),
            reply_requested,
        };
        self.consumer.take(&keepalive, self.now)
    }

    fn settle(&mut self, said: &mut Vec<String>) {
        loop {
            match self.consumer.next(self.now) {
                Ok(None) => break,
                Ok(Some(Action::Look(_))) if self.proves => {
                    self.consumer.proved(&[(table(), shape("label"))]);
                }
                Ok(Some(Action::Look(_))) => said.push("look".to_owned()),
                Ok(Some(Action::Submit(job))) => {
                    let text = self.hand_over(job);
                    said.push(text);
                }
                Ok(Some(Action::Stand(position))) => said.push(format!("stand {}", position.0)),
                Ok(Some(Action::Say(status))) => said.push(text(status)),
                Err(error) => {
                    said.push(format!("end: {error}"));
                    break;
                }
            }
        }
    }

    fn hand_over(&mut self, job: Job) -> String {
        assert!(self.job.is_none(), "a second job");
        let text = match &job {
            Job::Stage(lsn, folds) => format!(
                "stage {} of {}",
                folds.iter().map(|(_, fold)| fold.len()).sum::<usize>(),
                lsn.0
            ),
            Job::Apply(batch) => {
                let leaves = if batch.suspended.is_empty() {
                    ""
                } else {
                    " without 0"
                };
                let rows =
                    if batch.chunks == 0 && batch.folds.iter().all(|(_, fold)| fold.is_empty()) {
                        " of no row"
                    } else {
                        ""
                    };
                format!(
                    "apply {} to {}{rows}{leaves}",
                    batch.transactions, batch.position.lsn.0
                )
            }
            Job::Store(position) => match position.commit_time {
                Some(time) => format!("store {} as of {}", position.lsn.0, time.0),
                None => format!("store {}", position.lsn.0),
            },
            Job::NoteLeaves(_) => "note".to_owned(),
            Job::Harden(lsn) => format!("harden {}", lsn.0),
            Job::Audit(taking_part) => {
                let places: Vec<_> = taking_part.iter().map(|index| index.0).collect();
                format!("audit {places:?}")
            }
        };
        self.job = Some(job);
        text
    }

    /// The target has done its job.
    fn done(&mut self) -> Result<()> {
        let Some(job) = self.job.take() else {
            return Err(Error::transient("no job is in hand"));
        };
        let done = match job {
            Job::Stage(..) => Done::Staged,
            Job::Apply(batch) => Done::Applied(Applied {
                lsn: batch.position.lsn,
                commit_time: None,
                transactions: batch.transactions,
                written: Vec::new(),
                suspended: batch.suspended.iter().map(|one| one.index).collect(),
            }),
            Job::Store(position) => Done::Stored(position.lsn),
            Job::NoteLeaves(_) => Done::Noted,
            Job::Harden(lsn) => Done::Hardened(lsn),
            Job::Audit(_) => Done::Audited(Vec::new()),
        };
        self.consumer.done(&done, self.now)
    }
}

/// A copy that was merged.
fn merged() -> Merged {
    Merged {
        index: LABELS,
        result: Ok(Written::default()),
    }
}

/// What was received, what is acknowledged, and what else the status says.
fn text(status: Status) -> String {
    let mut text = format!("say {}/{}", status.received.0, status.acknowledged.0);
    for (is_so, mark) in [
        (status.asks, "?"),
        (status.is_apart, " apart"),
        (status.moves_slot && !status.asks, " moving"),
        (status.lets_go, " letting go"),
    ] {
        if is_so {
            text.push_str(mark);
        }
    }
    text
}

fn frame(payload: &[u8]) -> StreamFrame<'_> {
    StreamFrame::WalData {
        start: Lsn(0),
        end: Lsn(0),
        send_time: PgTimestamp(0),
        payload,
    }
}

/// It is sent a minute after its commit.
fn late(payload: &[u8]) -> StreamFrame<'_> {
    StreamFrame::WalData {
        start: Lsn(0),
        end: Lsn(0),
        send_time: PgTimestamp(60_000_000),
        payload,
    }
}

fn table() -> TableName {
    ReadModelSettings::labels().source
}

/// What the catalogs say of the table.
fn shape(label: &str) -> Shape {
    let table = labels_table(ReplicaIdentity::Default);
    let columns = table.columns.iter().map(|column| ShapeColumn {
        name: if column.name == "label" {
            label.to_owned()
        } else {
            column.name.clone()
        },
        number: column.number,
        type_oid: column.type_oid,
        streamed: true,
    });
    Shape {
        parts: None,
        oid: Some(table.oid),
        columns: columns.collect(),
    }
}

/// A name, how it begins, and steps with what is to be done after them.
type Script<'a> = (&'a str, With, &'a [(&'a str, &'a str)]);

fn with_parts(parts: &[u32]) -> Shape {
    Shape {
        parts: Some(parts.to_vec()),
        ..shape("label")
    }
}

/// Plays each case; what is not as expected is shown for all of them.
fn play(cases: &[Script]) {
    let mut wrong = String::new();
    for (name, with, steps) in cases {
        let mut case = Case::new(*with);
        for (step, expected) in *steps {
            let found = case.step(step);
            if found != *expected {
                wrong.push_str(&format!(
                    "{name}: after {step:?}\n  expected {expected:?}\n  found    {found:?}\n"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

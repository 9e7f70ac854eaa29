//! The applier: a task of its own that owns the target's connection. One job in, one result out.
//!
//! It is never a branch of the loop's `select!`, so no half-written batch is ever dropped. When the loop leaves, the applier
//! finishes the job in hand; whoever cannot wait aborts the task, which closes the connection, and the server rolls back.

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::batch::{Batch, IndexedFold, MergePosition, Merged, Position, Written};
use crate::error::{Error, Result};
use crate::target::model::TargetModel;
use crate::target::write::Writer;

/// Keys of each kind of repaired row that a merge tells.
const SAMPLE_KEYS: i32 = 20;

/// What the applier is asked to do.
#[derive(Debug)]
pub enum Job {
    /// Stage a chunk of a transaction whose end is to come.
    Stage(Vec<IndexedFold>),
    /// Write a batch with its checkpoint.
    Apply(Batch),
    /// Store a position that the stream passed without a change.
    Store(Position),
    /// Note that the next batch has changes of a leaf of these read models' tables that the watch has never seen.
    NoteLeaves(Vec<usize>),
    /// Make what is committed durable (only where the session commits asynchronously).
    Harden,
    /// Compare the bookkeeping with the read models that take part in the stream.
    Audit(Vec<usize>),
    /// Merge exact copies of these read models.
    Merge {
        /// Read models as the copy bound them, by index.
        models: Vec<(usize, TargetModel)>,
        /// Where the stream stands.
        position: MergePosition,
    },
}

/// What came of it.
#[derive(Debug)]
pub enum Done {
    /// A chunk was staged.
    Staged,
    /// A batch was written.
    Applied {
        /// What was written, by read model.
        written: Vec<(usize, Written)>,
        /// Read models whose suspension was stored with it.
        suspended: Vec<usize>,
    },
    /// A batch was not written since this read model's rows cannot be.
    Refused(usize, Error),
    /// A position was stored.
    Stored,
    /// Leaves are noted.
    Noted,
    /// What was committed before is durable.
    Hardened,
    /// Bookkeeping and stream were compared; read models that were found out of the stream are suspended.
    Audited(Vec<usize>),
    /// Copies were merged.
    Merged(Vec<Merged>),
}

/// The loop's end of the applier.
#[derive(Debug)]
pub struct Applier {
    jobs: mpsc::Sender<Job>,
    results: mpsc::Receiver<Result<Done>>,
    task: JoinHandle<Writer>,
}

impl Applier {
    /// Starts the task.
    pub fn start(mut writer: Writer) -> Self {
        let (jobs, mut inbox) = mpsc::channel(1);
        let (outbox, results) = mpsc::channel(1);
        let task = tokio::spawn(async move {
            while let Some(job) = inbox.recv().await {
                if outbox.send(carry_out(&mut writer, job).await).await.is_err() {
                    break;
                }
            }
            // A large transaction of which the end has not come is nothing.
            let _ = writer.abandon_chunks().await;
            writer
        });
        Self { jobs, results, task }
    }

    /// Hands over a job; the loop does so only when the one before is done.
    pub async fn submit(&self, job: Job) -> Result<()> {
        self.jobs
            .send(job)
            .await
            .map_err(|_| Error::transient("the applier has ended"))
    }

    /// Waits for the result of the job in hand. Cancel-safe.
    pub async fn result(&mut self) -> Result<Done> {
        match self.results.recv().await {
            Some(result) => result,
            None => Err(Error::transient("the applier has ended")),
        }
    }

    /// Ends the task and takes its writer back.
    pub async fn finish(self) -> Option<Writer> {
        drop(self.jobs);
        self.task.await.ok()
    }

    /// Ends the task at once; the server rolls back what is open.
    pub fn abort(&self) {
        self.task.abort();
    }
}

/// An error that is one read model's fault ends the job, not the session of the target.
fn or_refused(writer: &Writer, done: Result<Done>) -> Result<Done> {
    done.or_else(|error| match writer.culprit() {
        Some(index) => Ok(Done::Refused(index, error)),
        None => Err(error),
    })
}

async fn carry_out(writer: &mut Writer, job: Job) -> Result<Done> {
    match job {
        Job::Stage(folds) => {
            let staged = writer.stage_chunk(&folds).await;
            or_refused(writer, staged.map(|()| Done::Staged))
        }
        Job::Apply(batch) => {
            let suspended = batch.suspended.iter().map(|(index, _)| *index).collect();
            let applied = writer.apply(batch).await;
            or_refused(
                writer,
                applied.map(|written| Done::Applied { written, suspended }),
            )
        }
        Job::Store(position) => writer.store(&position).await.map(|()| Done::Stored),
        Job::Audit(taking_part) => writer.audit(&taking_part).await.map(Done::Audited),
        Job::NoteLeaves(indexes) => writer.note_leaves(&indexes).await.map(|()| Done::Noted),
        Job::Harden => writer.harden().await.map(|()| Done::Hardened),
        Job::Merge { models, position } => {
            let indexes: Vec<usize> = models.iter().map(|(index, _)| *index).collect();
            for (index, model) in models {
                writer.set_model(index, model);
            }
            writer
                .merge(&indexes, &position, SAMPLE_KEYS)
                .await
                .map(Done::Merged)
        }
    }
}

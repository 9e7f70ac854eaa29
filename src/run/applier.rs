//! The applier: a task of its own that owns the target's connection. One job in, one result out.
//!
//! It is never a branch of the loop's `select!`, so no half-written batch is ever dropped. When the
//! loop ends, the applier finishes the job in hand. A caller that cannot wait aborts the task: that
//! closes the connection, and the server rolls back.

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::batch::{Batch, MergePosition};
use crate::connect::cancel::CancelRequest;
use crate::consume::job::{self, Applied, Done, FailedBatch};
use crate::error::{Error, Result};
use crate::lsn::Lsn;
use crate::read_model::ModelIndex;
use crate::target::model::TargetModel;
use crate::target::write::Writer;

/// Keys of each kind of repaired row that a merge names.
const SAMPLE_KEYS: i32 = 20;

/// Most keys of each kind that a batch writes into the log at level debug.
const MOST_LOGGED_KEYS: i32 = 10_000;

/// What the applier is asked to do.
#[derive(Debug)]
pub(crate) enum Job {
    /// What the stream has to be applied, stored or noted.
    Stream(job::Job),
    /// Merge exact copies of these read models.
    Merge {
        /// Read models as the copy bound them.
        models: Vec<(ModelIndex, TargetModel)>,
        /// Where the stream is paused.
        position: MergePosition,
    },
}

/// The loop's end of the applier.
#[derive(Debug)]
pub(crate) struct Applier {
    jobs: mpsc::Sender<Job>,
    results: mpsc::Receiver<Result<Done>>,
    task: JoinHandle<Writer>,
    cancel: CancelRequest,
}

impl Applier {
    /// Starts the task.
    pub(crate) fn start(mut writer: Writer) -> Self {
        let cancel = writer.connection().cancel_request();
        let (jobs, mut inbox) = mpsc::channel(1);
        let (outbox, results) = mpsc::channel(1);
        let task = tokio::spawn(async move {
            while let Some(job) = inbox.recv().await {
                if outbox
                    .send(carry_out(&mut writer, job).await)
                    .await
                    .is_err()
                {
                    break;
                }
            }
            // A large transaction counts only once its end has come.
            let _ = writer.abandon_chunks().await;
            writer
        });
        Self {
            jobs,
            results,
            task,
            cancel,
        }
    }

    /// Hands over a job; the loop does so only when the one before is done.
    pub(crate) async fn submit(&self, job: Job) -> Result<()> {
        self.jobs
            .send(job)
            .await
            .map_err(|_| Error::transient("the applier has ended"))
    }

    /// Waits for the result of the job in hand. Cancel-safe.
    pub(crate) async fn result(&mut self) -> Result<Done> {
        match self.results.recv().await {
            Some(result) => result,
            None => Err(Error::transient("the applier has ended")),
        }
    }

    /// Ends the task and takes its writer back.
    pub(crate) async fn finish(self) -> Option<Writer> {
        drop(self.jobs);
        self.task.await.ok()
    }

    /// Ends the task at once; the server rolls back what is open.
    pub(crate) fn abort(&self) {
        self.task.abort();
    }

    /// What ends the statement in hand. A statement that waits for a lock does not notice that its
    /// client has left: it would go on, and commit, once the lock is free.
    pub(crate) fn cancel_request(&self) -> CancelRequest {
        self.cancel.clone()
    }
}

async fn carry_out(writer: &mut Writer, job: Job) -> Result<Done> {
    match job {
        Job::Stream(job) => stream(writer, job).await,
        Job::Merge { models, position } => {
            let indexes: Vec<ModelIndex> = models.iter().map(|(index, _)| *index).collect();
            for (index, model) in models {
                writer.set_model(index, model);
            }
            let merged = writer.merge(&indexes, &position, SAMPLE_KEYS).await;
            merged.map(Done::Merged)
        }
    }
}

async fn stream(writer: &mut Writer, job: job::Job) -> Result<Done> {
    // The level may change while the session lasts.
    let is_debug = tracing::enabled!(tracing::Level::DEBUG);
    writer.report_keys = if is_debug { MOST_LOGGED_KEYS } else { 0 };
    match job {
        job::Job::Stage(commit_lsn, folds) => {
            let staged = writer.stage_chunk(&folds).await;
            or_failed(writer, staged.map(|()| Done::Staged), (1, commit_lsn))
        }
        job::Job::Apply(batch) => apply(writer, batch).await,
        job::Job::Store(position) => {
            let stored = writer.store(&position).await;
            stored.map(|()| Done::Stored(position.lsn))
        }
        job::Job::Audit(taking_part) => writer.audit(&taking_part).await.map(Done::Audited),
        job::Job::NoteLeaves(indexes) => writer.note_leaves(&indexes).await.map(|()| Done::Noted),
        job::Job::Harden(lsn) => writer.harden().await.map(|()| Done::Hardened(lsn)),
    }
}

async fn apply(writer: &mut Writer, batch: Batch) -> Result<Done> {
    let suspended = batch.suspended.iter().map(|one| one.index).collect();
    let (lsn, transactions) = (batch.position.lsn, batch.transactions);
    let commit_time = batch.position.commit_time;
    let applied = writer.apply(batch).await.map(|written| {
        Done::Applied(Applied {
            lsn,
            commit_time,
            transactions,
            written,
            suspended,
        })
    });
    or_failed(writer, applied, (transactions, lsn))
}

/// An error that is one read model's fault ends the job, not the session of the target.
fn or_failed(writer: &Writer, done: Result<Done>, (transactions, lsn): (u64, Lsn)) -> Result<Done> {
    done.or_else(|error| match writer.culprit() {
        Some(index) => Ok(Done::Failed(FailedBatch {
            index,
            transactions,
            lsn,
            error,
        })),
        None => Err(error),
    })
}

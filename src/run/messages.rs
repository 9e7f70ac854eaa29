//! What the tasks of a session ask of each other.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use crate::as_of::Reading;
use crate::batch::Merged;
use crate::consume::mode::Joining;
use crate::error::{Error, Result};
use crate::lsn::Lsn;
use crate::read_model::ModelIndex;
use crate::run::shared::Shared;
use crate::shape::Shape;
use crate::sql::TableName;
use crate::target::bookkeeping::Pulse;
use crate::target::model::TargetModel;

/// What whoever works beside the stream has of its session.
#[derive(Clone)]
pub(crate) struct Beside {
    /// The process's own.
    pub shared: Arc<Shared>,
    /// Epoch of the session.
    pub epoch: i64,
    /// Asks something of the stream.
    pub commands: mpsc::Sender<Command>,
    /// What the bookkeeping says from time to time.
    pub pulse: watch::Receiver<Pulse>,
}

/// What others ask of the loop.
#[derive(Debug)]
pub(crate) enum Command {
    /// Pause at the first position at or after `at_least`, and return that position. The loop
    /// continues when `resume` is dropped.
    Pause {
        /// What the copy has received.
        at_least: Lsn,
        /// Read models that shall take part from that position on, as the copy bound them.
        models: Joining,
        /// Gets the position.
        reply: oneshot::Sender<Lsn>,
        /// Ends the pause when its sender is dropped.
        resume: oneshot::Receiver<()>,
    },
    /// End the session: the watch has seen an error with which it cannot continue.
    End {
        /// What it has seen.
        error: Error,
        /// Whether the batch in hand is given up: the target does not answer.
        abandon: bool,
    },
    /// The source's clock was read, and whether its commits wait for a walsender of our name.
    Clock(Reading, bool),
    /// Store the position of an idle stream at once: a session waits for it.
    Hurry,
    /// Merge exact copies at the position at which the loop is paused.
    Merge {
        /// Read models as the copy bound them.
        models: Vec<(ModelIndex, TargetModel)>,
        /// Number of the resync, which is done with the merge.
        request: Option<i64>,
        /// Gets the result.
        reply: MergeReply,
    },
}

/// The receiver of a merge's result.
pub(crate) type MergeReply = oneshot::Sender<Result<Vec<Merged>>>;

/// What the catalogs say of tables now.
pub(crate) type Answer = Result<Vec<(TableName, Shape)>>;

/// The stream asks what the catalogs say of tables, and waits for it.
#[derive(Debug)]
pub(crate) struct Question {
    /// The tables.
    pub tables: Vec<TableName>,
    /// Gets the answer.
    pub reply: oneshot::Sender<Answer>,
}

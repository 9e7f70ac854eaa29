//! Statements that are sent, and whose answers are still to be read.
//!
//! The answers are read in the order of the statements. So the first error is the one that is
//! reported; the ones after it only say that the transaction has failed.

use std::collections::VecDeque;

use crate::batch::Written;
use crate::connect::pipeline::Sent;
use crate::error::{Error, Result};
use crate::read_model::ModelIndex;
use crate::target::bookkeeping::Rejections;

/// What a statement is for, as far as its error has consequences of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Step {
    #[default]
    Any,
    /// It begins the transaction. Until its answer is there, nothing may be sent that would write
    /// without a transaction.
    Begin,
    /// It writes new rows past the stage.
    NewRows,
    /// It commits.
    Commit,
}

/// What a statement answers.
#[derive(Debug)]
pub(super) enum Answer {
    Done,
    /// Whether map and lookup are small beside the batch.
    AreSmall(bool),
    Written(Written),
    Rejected(Rejections),
}

/// An error.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    /// The read model whose lookup it names, if it names one.
    pub(super) names: Option<ModelIndex>,
}

impl Failure {
    /// The same failure with another error.
    pub(super) fn map(self, as_other: impl FnOnce(Error) -> Error) -> Self {
        Self {
            error: as_other(self.error),
            ..self
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, names: None }
    }
}

/// An answer that is to come.
pub(super) type Awaited<'a> = Sent<'a, Result<Answer, Failure>>;

/// A statement that is sent.
#[derive(Debug)]
pub(super) struct Flying<'a> {
    pub(super) answer: Awaited<'a>,
    /// The read model that it belongs to.
    pub(super) of: Option<ModelIndex>,
    pub(super) step: Step,
}

/// All of them, in order.
#[derive(Debug, Default)]
pub(super) struct InFlight<'a>(VecDeque<Flying<'a>>);

impl<'a> InFlight<'a> {
    pub(super) fn add(&mut self, flying: Flying<'a>) {
        self.0.push_back(flying);
    }

    /// The first one.
    pub(super) fn next(&mut self) -> Option<Flying<'a>> {
        self.0.pop_front()
    }

    /// Nobody waits for their answers.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    /// Whether it is not known yet that the transaction has begun.
    pub(super) fn begins(&self) -> bool {
        self.0.iter().any(|one| one.step == Step::Begin)
    }
}

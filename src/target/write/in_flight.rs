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

/// Most bytes of rows that are arguments of statements in flight, unless one alone has more. As
/// arguments they take several times this in memory.
const MOST_ARGUMENT_BYTES: usize = 2 << 20;

/// What a statement is for, as far as its error has consequences of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Step {
    #[default]
    Any,
    /// It begins the transaction. Until its answer is there, nothing may be sent that would write
    /// without a transaction.
    Begin,
    /// It sets a savepoint. If that fails, there is none to roll back to.
    Savepoint,
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
pub(super) struct InFlight<'a> {
    all: VecDeque<Flying<'a>>,
    /// Bytes of the rows that are arguments of theirs.
    argument_bytes: usize,
}

impl<'a> InFlight<'a> {
    pub(super) fn add(&mut self, flying: Flying<'a>) {
        self.all.push_back(flying);
    }

    /// The first one. If there is none, all have been answered.
    pub(super) fn next(&mut self) -> Option<Flying<'a>> {
        let first = self.all.pop_front();
        if first.is_none() {
            self.argument_bytes = 0;
        }
        first
    }

    /// Nobody waits for their answers.
    pub(super) fn forget(&mut self) {
        self.all.clear();
        self.argument_bytes = 0;
    }

    /// Whether rows of so many bytes may be arguments of the next statement.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.argument_bytes.saturating_add(bytes) <= MOST_ARGUMENT_BYTES
    }

    /// Rows of so many bytes are arguments of the next statement.
    pub(super) fn take_room(&mut self, bytes: usize) {
        self.argument_bytes = self.argument_bytes.saturating_add(bytes);
    }

    /// Whether one of them could not be sent.
    pub(super) fn has_unsent(&self) -> bool {
        self.all.iter().any(|one| !one.answer.is_sent())
    }

    /// Whether it is not known yet that the transaction has begun.
    pub(super) fn begins(&self) -> bool {
        self.all.iter().any(|one| one.step == Step::Begin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::pipeline::send_request;

    fn flying(answer: Awaited<'static>) -> Flying<'static> {
        Flying {
            answer,
            of: None,
            step: Step::Any,
        }
    }

    #[test]
    fn arguments_have_room_until_they_are_too_many_and_again_when_all_are_answered() {
        let mut in_flight = InFlight::default();
        let mut room = Vec::new();
        for _ in 0..3 {
            room.push(in_flight.has_room(1 << 20));
            in_flight.take_room(1 << 20);
        }
        assert_eq!(room, [true, true, false]);
        assert!(in_flight.next().is_none());
        assert!(in_flight.has_room(1 << 20));
        in_flight.take_room(usize::MAX);
        in_flight.forget();
        assert!(in_flight.has_room(1 << 20));
    }

    #[tokio::test]
    async fn a_request_that_could_not_be_sent_is_known_before_its_answer_is_read() {
        let mut in_flight = InFlight::default();
        in_flight.add(flying(send_request(std::future::pending())));
        assert!(!in_flight.has_unsent());
        let failed = send_request(async { Error::transient("it cannot be encoded") });
        in_flight.add(flying(failed.map(|error| Err(Failure::from(error)))));
        assert!(in_flight.has_unsent());
        let _ = in_flight.next();
        let last = in_flight.next();
        assert!(!in_flight.has_unsent());
        let last = last.unwrap().answer;
        assert!(last.answer().await.is_err());
    }
}

//! What every way of writing shares: the transaction that is open.

use super::calls;
use super::in_flight::{Answer, Awaited, Failure, Flying, InFlight, Step};
use super::learned::Learned;
use super::models::Models;
use crate::batch::Written;
use crate::connect::Connection;
use crate::error::Result;
use crate::read_model::ModelIndex;
use crate::target::bookkeeping::Bookkeeping;
use crate::target::model::TargetModel;
use crate::target::statement;

/// What was written of each read model.
pub(super) type AllWritten = Vec<(ModelIndex, Written)>;

/// The transaction in which a way writes. The function that opens it ends it.
///
/// A statement is either sent and its answer read later ([`Self::settle`]), or its answer is waited
/// for. Before anything is done with an answer that is waited for, those of earlier statements are
/// read.
#[derive(Debug)]
pub(super) struct WriteTx<'a> {
    pub(super) conn: &'a mut Connection,
    pub(super) models: &'a Models,
    pub(super) bookkeeping: &'a Bookkeeping,
    /// The epoch under which the session writes.
    pub(super) epoch: i64,
    /// Most keys of written rows of each kind that are reported.
    pub(super) keys: i32,
    pub(super) learned: &'a mut Learned,
    /// The read model that an error belongs to from now on.
    pub(super) blamed: Option<ModelIndex>,
    /// What the statement was for whose answer was an error.
    pub(super) failed: Step,
    in_flight: InFlight<'a>,
    answers: Vec<(Option<ModelIndex>, Answer)>,
    is_committed: bool,
}

impl<'a> WriteTx<'a> {
    /// Writes by this session.
    pub(super) fn of(session: Parts<'a>, keys: i32) -> Self {
        Self {
            conn: session.conn,
            models: session.models,
            bookkeeping: session.bookkeeping,
            epoch: session.epoch,
            keys,
            learned: session.learned,
            blamed: None,
            failed: Step::Any,
            in_flight: InFlight::default(),
            answers: Vec::new(),
            is_committed: false,
        }
    }

    /// The read model of this index.
    ///
    /// # Errors
    /// As [`Models::get`].
    pub(super) fn model(&self, index: ModelIndex) -> Result<&'a TargetModel> {
        self.models.get(index)
    }

    /// The next read model's turn: from now on an error belongs to it.
    ///
    /// # Errors
    /// As [`Models::get`].
    pub(super) fn turn_to(&mut self, index: ModelIndex) -> Result<&'a TargetModel> {
        self.blamed = Some(index);
        self.models.get(index)
    }

    /// Sends a statement and reads no rows.
    pub(super) async fn execute(&mut self, sql: impl Into<String>) -> Result<()> {
        statement::execute(self.conn, sql.into()).await
    }

    /// The same; the answer is read later.
    pub(super) fn send(&mut self, sql: impl Into<String>) {
        self.send_step(sql, Step::Any);
    }

    /// The same, for this step.
    pub(super) fn send_step(&mut self, sql: impl Into<String>, step: Step) {
        let answer = calls::send_script(self.conn, sql.into());
        self.await_later(answer, step);
    }

    /// Something was sent whose answer is read later.
    pub(super) fn await_later(&mut self, answer: Awaited<'a>, step: Step) {
        self.in_flight.add(Flying {
            answer,
            of: self.blamed,
            step,
        });
    }

    /// Reads the answers of all that was sent.
    ///
    /// # Errors
    /// The first one. It belongs to the read model that had its turn when the statement was sent.
    pub(super) async fn settle(&mut self) -> Result<()> {
        while let Some(Flying { answer, of, step }) = self.in_flight.next() {
            match answer.answer().await {
                Ok(answer) => self.answers.push((of, answer)),
                Err(Failure { error, names }) => {
                    self.in_flight.forget();
                    // What was written is undone.
                    self.answers
                        .retain(|(_, answer)| matches!(answer, Answer::AreSmall(_)));
                    self.failed = step;
                    self.blamed = names.or(of);
                    return Err(error);
                }
            }
            self.is_committed |= step == Step::Commit;
        }
        Ok(())
    }

    /// The same, if it is not known yet that the transaction has begun: what writes for good must
    /// not be sent before.
    pub(super) async fn settle_begin(&mut self) -> Result<()> {
        if self.in_flight.begins() {
            self.settle().await?;
        }
        Ok(())
    }

    /// Reads the answers if something could not be sent. The server does not know that it is
    /// missing, and would commit without it.
    ///
    /// # Errors
    /// As [`Self::settle`].
    pub(super) async fn settle_unsent(&mut self) -> Result<()> {
        if self.in_flight.has_unsent() {
            self.settle().await?;
        }
        Ok(())
    }

    /// Rows of so many bytes are sent next as arguments, which are in memory until they are
    /// answered: first reads the answers of those before, if all together are too many.
    ///
    /// # Errors
    /// As [`Self::settle`].
    pub(super) async fn make_room(&mut self, bytes: usize) -> Result<()> {
        if !self.in_flight.has_room(bytes) {
            self.settle().await?;
        }
        self.in_flight.take_room(bytes);
        Ok(())
    }

    /// The result, or the error of a statement that was sent before: that is the cause of what came
    /// after it.
    pub(super) async fn first_error<T>(&mut self, result: Result<T>) -> Result<T> {
        match self.settle().await {
            Ok(()) => result,
            Err(first) => Err(first),
        }
    }

    /// Takes the answers that were read, with the read models that they belong to.
    pub(super) fn take_answers(&mut self) -> Vec<(Option<ModelIndex>, Answer)> {
        std::mem::take(&mut self.answers)
    }

    /// Takes what the last statement that was read has written.
    pub(super) fn take_written(&mut self) -> Written {
        let answers = self.take_answers().into_iter().rev();
        let mut written = answers.filter_map(|(_, answer)| match answer {
            Answer::Written(written) => Some(written),
            _ => None,
        });
        written.next().unwrap_or_default()
    }

    /// Whether map and lookup of this read model are small beside the batch, if that was answered.
    pub(super) fn are_small(&self, index: ModelIndex) -> Option<bool> {
        let mut answers = self.answers.iter().rev();
        answers.find_map(|(of, answer)| match answer {
            Answer::AreSmall(are_small) if *of == Some(index) => Some(*are_small),
            _ => None,
        })
    }

    /// Commits if all went well and nothing has committed yet, else rolls back. Returns the result,
    /// and the read model that an error belongs to.
    pub(super) async fn end<T>(mut self, result: Result<T>) -> (Result<T>, Option<ModelIndex>) {
        let result = match self.first_error(result).await {
            Ok(value) if self.is_committed => Ok(value),
            result => statement::end(self.conn, result).await,
        };
        (result, self.blamed)
    }
}

/// What a transaction needs of the session.
pub(super) struct Parts<'a> {
    pub(super) conn: &'a mut Connection,
    pub(super) models: &'a Models,
    pub(super) bookkeeping: &'a Bookkeeping,
    pub(super) epoch: i64,
    pub(super) learned: &'a mut Learned,
}

/// Adds another way's counts and keys of a read model, keeping at most `keys` keys of each kind.
pub(super) fn add_written(all: &mut AllWritten, index: ModelIndex, more: Written, keys: i32) {
    let Some((_, written)) = all.iter_mut().find(|(of, _)| *of == index) else {
        all.push((index, more));
        return;
    };
    written.inserted += more.inserted;
    written.updated += more.updated;
    written.deleted += more.deleted;
    written.total += more.total;
    let most = usize::try_from(keys).unwrap_or_default();
    let add = |keys: &mut Vec<String>, more: Vec<String>| {
        let room = most.saturating_sub(keys.len());
        keys.extend(more.into_iter().take(room));
    };
    add(&mut written.inserted_keys, more.inserted_keys);
    add(&mut written.updated_keys, more.updated_keys);
    add(&mut written.deleted_keys, more.deleted_keys);
}

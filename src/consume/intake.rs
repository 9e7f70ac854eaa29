//! Frames become transactions, and each is judged once: at its first chunk, or else at its Commit.

use std::sync::Arc;

use crate::error::{Class, Error, Result};
use crate::lsn::Lsn;
use crate::progress::{Replay, TransactionId, Verdict};
use crate::protocol::frame::StreamFrame;
use crate::protocol::pgoutput::{self, Message};
use crate::read_model::{Change, ModelIndex, ReadModel};
use crate::transaction::{Assembler, Transaction};

/// Bytes of changes of one transaction that are kept in memory; above, it is handed over chunk by
/// chunk.
pub(crate) const CHUNK_BYTES: usize = 8 << 20;

/// What a frame has brought.
#[derive(Debug)]
pub(crate) enum Step {
    /// Nothing that can be seen yet.
    Nothing,
    /// A transaction began; it is sent this many microseconds after its commit, by the source's own
    /// clock.
    Began(i64),
    /// A new transaction is whole.
    Whole(Transaction),
    /// The stream has passed this position without another transaction.
    Passed(Lsn),
}

/// A part of a transaction whose end is to come.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// The transaction.
    pub id: TransactionId,
    /// Its changes so far, without those of earlier chunks.
    pub changes: Vec<(ModelIndex, Change)>,
}

/// Reads one connection's stream.
#[derive(Debug)]
pub(crate) struct Intake {
    /// The transaction that the messages so far add up to, and the read models that take part.
    pub assembler: Assembler,
    replay: Replay,
    /// Where the reader stops: what commits here or later is not its own.
    end: Option<Lsn>,
    is_at_end: bool,
    /// The transaction that came beyond the end.
    beyond: Option<Transaction>,
    chunk_bytes: usize,
}

impl Intake {
    /// A stream that begins at `start`, for a target at `checkpoint`, whose last applied
    /// transaction is `last`.
    pub(crate) fn new(
        checkpoint: Lsn,
        last: Option<TransactionId>,
        start: Lsn,
        models: impl IntoIterator<Item = Option<Arc<ReadModel>>>,
    ) -> Self {
        let mut assembler = Assembler::new(checkpoint);
        for model in models {
            assembler.add(model);
        }
        Self {
            assembler,
            replay: Replay::new(checkpoint, last, start),
            end: None,
            is_at_end: false,
            beyond: None,
            chunk_bytes: CHUNK_BYTES,
        }
    }

    /// Keeps so many bytes of one transaction in memory in place of [`CHUNK_BYTES`].
    #[must_use]
    pub(crate) fn with_chunks_of(self, chunk_bytes: usize) -> Self {
        Self {
            chunk_bytes,
            ..self
        }
    }

    /// Takes the next frame.
    ///
    /// # Errors
    /// What cannot follow the frames before it, a gap if the source's history is not the one that
    /// was applied, and the end of the stream.
    pub(crate) fn take(&mut self, frame: &StreamFrame<'_>) -> Result<Step> {
        match frame {
            StreamFrame::WalData {
                payload, send_time, ..
            } => {
                let message = pgoutput::decode(payload)?;
                if let Message::Begin(begin) = &message {
                    self.assembler.take(&message)?;
                    return Ok(Step::Began(send_time.0.saturating_sub(begin.commit_time.0)));
                }
                match self.assembler.take(&message)? {
                    Some(transaction) => self.whole(transaction),
                    None => Ok(Step::Nothing),
                }
            }
            // Within a transaction it says nothing of the commit that is to come.
            StreamFrame::Keepalive { .. } if self.assembler.is_open() => Ok(Step::Nothing),
            StreamFrame::Keepalive { wal_end, .. } => {
                if self.replay.pass(*wal_end) == Verdict::Rewritten {
                    return Err(rewritten());
                }
                check_position(*wal_end)?;
                Ok(Step::Passed(*wal_end))
            }
            StreamFrame::CopyDone => Err(Error::transient("the source ended the stream")),
        }
    }

    fn whole(&mut self, transaction: Transaction) -> Result<Step> {
        if self.is_beyond(transaction.id) {
            self.beyond = Some(transaction);
            return Ok(Step::Nothing);
        }
        // A transaction in chunks was judged at its first chunk.
        if transaction.chunks == 0 {
            match self.replay.judge(transaction.id, transaction.has_changes) {
                Verdict::Apply => {}
                Verdict::Skip => return Ok(Step::Nothing),
                Verdict::Rewritten => return Err(rewritten()),
            }
        }
        Ok(Step::Whole(transaction))
    }

    /// Takes the changes of the open transaction so far, if they are many.
    ///
    /// # Errors
    /// A gap, as [`Self::take`].
    pub(crate) fn take_chunk(&mut self) -> Result<Option<Chunk>> {
        let Some(id) = self
            .assembler
            .open_transaction()
            .filter(|_| self.has_chunk())
        else {
            return Ok(None);
        };
        if self.is_beyond(id) {
            return Ok(None);
        }
        // A transaction that was applied before is not mapped, so it never fills a chunk.
        if self.assembler.chunks() == 0 && self.replay.judge(id, true) != Verdict::Apply {
            return Err(rewritten());
        }
        let changes = self.assembler.take_chunk();
        Ok(Some(Chunk { id, changes }))
    }

    /// Whether the open transaction has changed so much that it has to be handed on in part.
    pub(crate) fn has_chunk(&self) -> bool {
        self.assembler.bytes() >= self.chunk_bytes
    }

    /// Goes on behind the end with what came beyond it, up to another end if there is one.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub(crate) fn go_on(&mut self, end: Option<Lsn>) -> Result<Step> {
        // First of all: what came beyond the last end may lie beyond this one as well.
        self.end = end;
        self.is_at_end = false;
        match self.beyond.take() {
            Some(transaction) => self.whole(transaction),
            None => Ok(Step::Nothing),
        }
    }

    /// Whether a commit at or after the end has come.
    pub(crate) fn is_at_end(&self) -> bool {
        self.is_at_end
    }

    fn is_beyond(&mut self, id: TransactionId) -> bool {
        let beyond = self.end.is_some_and(|end| id.commit_lsn >= end);
        self.is_at_end |= beyond;
        beyond
    }

    /// Whether the stream has come to the checkpoint with the history that was applied.
    pub(crate) fn is_proved(&self) -> bool {
        self.replay.is_proved()
    }
}

fn rewritten() -> Error {
    Error::new(
        Class::Gap,
        "the source's history is not the one that was applied",
    )
    .with_detail(
        "The last applied transaction did not come again as it was: the source was restored.",
    )
}

/// A position from the wire that no server can have (2^63 and beyond) must not be stored: it could
/// never be passed again.
fn check_position(position: Lsn) -> Result<()> {
    if position.0 >> 63 == 0 {
        Ok(())
    } else {
        Err(Error::protocol(format!(
            "the server sent a position that cannot exist: {position}"
        )))
    }
}

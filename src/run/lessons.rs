//! What one session teaches the next: why the stream cannot continue, which read model cannot take
//! a transaction, and what keeps failing.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::batch::Suspended;
use crate::consume::job::FailedBatch;
use crate::error::{Class, Error};
use crate::lsn::Lsn;
use crate::progress::SourceIdentity;
use crate::stuck::Stuck;

/// How long reading may stop while a chunk of a large transaction is staged. After that the staged
/// chunks are lost and have to come again. So the time doubles whenever that happens, and in the
/// end such a transaction is applied, however slow the target or the network.
const CHUNK_PATIENCE: Duration = Duration::from_secs(60);
const MOST_CHUNK_PATIENCE: Duration = Duration::from_secs(3600);

/// What one session learns for the next.
#[derive(Debug, Default)]
pub(crate) struct Lessons {
    pub(super) epoch: Option<i64>,
    /// The source where the slot is this pipeline's own.
    pub(super) owned: Option<SourceIdentity>,
    pub(super) streamed: bool,
    pub(super) gap: Option<String>,
    pub(super) careful_until: Option<Lsn>,
    pub(super) cannot_take: Vec<Suspended>,
    pub(super) streaming_since: Option<Instant>,
    /// The last session left so that another one follows: the stored state still says that the
    /// process streams.
    pub(super) says_streaming: bool,
    /// The error that ended the last session, and since when each session has ended so.
    pub(super) trouble: Option<(String, Timestamp)>,
    /// Sessions in a row that ended because a chunk took the target too long.
    pub(super) stalled: u32,
    /// The position behind which the source could not send, and whether the last session ended
    /// there.
    pub(super) stuck: Option<Stuck>,
    pub(super) sticks: bool,
}

impl Lessons {
    pub(super) fn has_streamed(&mut self) {
        self.streamed = true;
        self.says_streaming = false;
        self.streaming_since = Some(Instant::now());
    }

    /// Whether the session that has ended streamed for longer than this.
    pub(super) fn take_was_good(&mut self, least: Duration) -> bool {
        let since = self.streaming_since.take();
        since.is_some_and(|since| since.elapsed() > least)
    }

    /// Since when each session has ended with this error.
    pub(super) fn since(&mut self, error: &Error) -> Timestamp {
        let message = error.to_string();
        match &self.trouble {
            Some((same, since)) if *same == message => *since,
            _ => {
                let now = Timestamp::now();
                self.trouble = Some((message, now));
                now
            }
        }
    }

    /// The read models of the next session have other places. A read model that could not take a
    /// transaction cannot take it again, and is known by its new place then.
    pub(super) fn forget_places(&mut self) {
        self.cannot_take.clear();
    }

    pub(super) fn chunk_patience(&self) -> Duration {
        let doubled = 2u32.saturating_pow(self.stalled);
        CHUNK_PATIENCE
            .saturating_mul(doubled)
            .min(MOST_CHUNK_PATIENCE)
    }

    /// The source reported that it cannot send the change behind this position.
    pub(super) fn stick(&mut self, position: Lsn, error: Error) -> Error {
        let Some(sqlstate) = error.sqlstate() else {
            return error;
        };
        let stuck = Stuck::note(self.stuck.as_ref(), position, sqlstate, Timestamp::now());
        let error = stuck.explain(error);
        if stuck.is_hopeless(Timestamp::now()) {
            self.gap = Some(error.to_string());
        }
        self.stuck = Some(stuck);
        self.sticks = true;
        error
    }

    /// The error, if the last session ended in it.
    pub(super) fn take_stuck(&mut self) -> Option<Stuck> {
        std::mem::take(&mut self.sticks)
            .then(|| self.stuck.clone())
            .flatten()
    }

    pub(super) fn learn(&mut self, error: &Error, failed: Option<FailedBatch>) {
        if error.class() == Class::Gap {
            self.gap = Some(error.to_string());
        }
        match failed {
            // Alone in its batch: its read model is suspended before it, the others continue.
            Some(FailedBatch {
                index,
                transactions: 1,
                error,
                ..
            }) => self.cannot_take.push(Suspended { index, error }),
            Some(FailedBatch { lsn, .. }) => self.careful_until = Some(lsn),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_that_was_lost_gets_twice_the_time() {
        for (stalled, seconds) in [(0, 60), (1, 120), (2, 240), (6, 3600), (u32::MAX, 3600)] {
            let process = Lessons {
                stalled,
                ..Lessons::default()
            };
            assert_eq!(
                process.chunk_patience().as_secs(),
                seconds,
                "after {stalled}"
            );
        }
    }
}

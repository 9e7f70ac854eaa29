//! When a small batch waits for more.
//!
//! Each batch has its price, however small it is, and of several changes of one row only the last
//! is written. So a stream that is behind lets transactions gather: latency is lost already, and
//! larger batches catch up sooner.

use std::time::Duration;

use crate::consume::Now;
use crate::consume::pending::Pending;
use crate::lsn::Lsn;

/// A transaction that is sent this long after its commit, by the source's own clock, says that the
/// stream is behind.
const BEHIND_MICROS: i64 = 50_000;

/// How long transactions gather, and bytes of folded changes that are enough.
const GATHER: Duration = Duration::from_millis(10);
const GATHER_BYTES: usize = 256 << 10;

/// Bytes of folded changes above which no more is read until the target has caught up.
const MOST_PENDING_BYTES: usize = 16 << 20;

/// Read models in what waits above which no more is read, too: a batch needs tables and locks of
/// the target for each of them.
const MOST_PENDING_READ_MODELS: usize = 25;

/// How large the next batch becomes.
#[derive(Debug, Default)]
pub(crate) struct Gather {
    is_behind: bool,
    /// When the next batch goes out, although it is small.
    until: Option<Now>,
    /// One transaction at a time up to here: one of them could not be written.
    careful_until: Option<Lsn>,
}

impl Gather {
    /// One transaction at a time up to this position.
    pub(crate) fn careful_until(position: Option<Lsn>) -> Self {
        Self {
            careful_until: position,
            ..Self::default()
        }
    }

    /// A transaction began, this many microseconds after its commit.
    pub(crate) fn began(&mut self, delay_micros: i64) {
        self.is_behind = delay_micros > BEHIND_MICROS;
    }

    /// Whether the stream is behind.
    pub(crate) fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// Everything before this position is applied.
    pub(crate) fn applied(&mut self, position: Lsn) {
        self.careful_until = self.careful_until.filter(|until| position < *until);
    }

    /// Whether the batch may grow; `open_bytes` are those of the transaction that is being read.
    pub(crate) fn may_grow(&self, pending: &Pending, open_bytes: usize) -> bool {
        if pending.is_empty() {
            return true;
        }
        // The end of a transaction in chunks goes alone: one that breaks a read model leaves it as
        // it was before.
        pending.chunks() == 0
            && self.careful_until.is_none()
            && pending.read_models() < MOST_PENDING_READ_MODELS
            && pending.bytes() + open_bytes < MOST_PENDING_BYTES
    }

    /// Whether the next batch waits for more.
    pub(crate) fn waits(&mut self, pending: &Pending, now: Now) -> bool {
        let small = pending.bytes() < GATHER_BYTES && !pending.is_empty();
        if !self.is_behind || !small || self.careful_until.is_some() {
            self.until = None;
            return false;
        }
        let waits = *self.until.get_or_insert(now + GATHER) > now;
        if !waits {
            self.until = None;
        }
        waits
    }

    /// When it goes out at the latest.
    pub(crate) fn deadline(&self) -> Option<Now> {
        self.until
    }
}

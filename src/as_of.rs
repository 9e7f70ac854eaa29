//! The time of the source, for a position (`as of`).
//!
//! A position alone proves no time. A keepalive says how far the walsender has decoded and when it
//! was sent, but a walsender that decodes an hour's backlog is an hour behind. So `cdc` asks the
//! source for its clock and for the end of its flushed WAL together: once it has received
//! everything up to that end, the lookups are as of that time.
//!
//! A transaction needs no such reading. Every commit that was visible at the source at its commit
//! time is before it in the WAL: `RecordTransactionCommit` takes the time before it writes the
//! record, and flushes the record before others see the transaction (PostgreSQL 13 to 18). With
//! synchronous_commit off others see it before it is flushed (`docs/limits.md`).

use std::collections::VecDeque;

use crate::lsn::{Lsn, PgTimestamp};

/// Most readings that are kept. Above that, every other one is forgotten: a long backlog is then
/// reported in larger steps.
const MOST_READINGS: usize = 64;

/// The source's clock, and the end of its WAL that was flushed at that time or later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The time.
    pub time: PgTimestamp,
    /// Everything that was flushed at the time lies before it.
    pub flushed: Lsn,
}

/// Readings of the source's clock, and the newest one that the stream has passed.
#[derive(Debug, Default)]
pub(crate) struct AsOf {
    /// Not passed yet, oldest first.
    ahead: VecDeque<Reading>,
    /// The highest end of all readings.
    end: Lsn,
    passed: Option<PgTimestamp>,
}

impl AsOf {
    /// The source's clock was read.
    pub(crate) fn read(&mut self, reading: Reading) {
        // WAL does not get shorter: a reading that says so is another server's, and must not make a
        // position newer than it is.
        self.end = self.end.max(reading.flushed);
        // Nothing was written since the reading before, so the newer one replaces it.
        let same = self.ahead.pop_back_if(|last| last.flushed == self.end);
        self.ahead.push_back(Reading {
            time: same.map_or(reading.time, |same| same.time.max(reading.time)),
            flushed: self.end,
        });
        if self.ahead.len() > MOST_READINGS {
            // The oldest one stays, and the newest.
            let mut keep = false;
            self.ahead.retain(|_| {
                keep = !keep;
                keep
            });
        }
    }

    /// The latest time that the position is as of, if any is known; `position` never goes back.
    pub(crate) fn at(&mut self, position: Lsn) -> Option<PgTimestamp> {
        while let Some(reading) = self
            .ahead
            .pop_front_if(|reading| reading.flushed <= position)
        {
            self.passed = self.passed.max(Some(reading.time));
        }
        self.passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(as_of: &mut AsOf, time: i64, flushed: u64) {
        as_of.read(Reading {
            time: PgTimestamp(time),
            flushed: Lsn(flushed),
        });
    }

    #[test]
    fn a_position_is_as_of_a_time_once_what_was_flushed_then_has_been_received() {
        let mut as_of = AsOf::default();
        assert_eq!(as_of.at(Lsn(100)), None, "a position alone proves nothing");
        read(&mut as_of, 1, 150);
        read(&mut as_of, 2, 250);
        assert_eq!(as_of.at(Lsn(149)), None);
        assert_eq!(as_of.at(Lsn(150)), Some(PgTimestamp(1)));
        assert_eq!(as_of.at(Lsn(249)), Some(PgTimestamp(1)));
        read(&mut as_of, 3, 250);
        assert_eq!(
            as_of.at(Lsn(250)),
            Some(PgTimestamp(3)),
            "nothing was written since"
        );
        read(&mut as_of, 4, 250);
        assert_eq!(as_of.at(Lsn(250)), Some(PgTimestamp(4)));
    }

    #[test]
    fn neither_a_clock_nor_a_wal_that_goes_back_makes_it_claim_more() {
        let mut as_of = AsOf::default();
        read(&mut as_of, 10, 100);
        read(&mut as_of, 5, 200);
        assert_eq!(as_of.at(Lsn(200)), Some(PgTimestamp(10)));
        read(&mut as_of, 20, 400);
        read(&mut as_of, 21, 300);
        assert_eq!(as_of.at(Lsn(399)), Some(PgTimestamp(10)));
        assert_eq!(as_of.at(Lsn(400)), Some(PgTimestamp(21)));
    }

    #[test]
    fn a_backlog_of_any_length_is_told_step_by_step() {
        let mut as_of = AsOf::default();
        for second in 0..100_000_u32 {
            read(&mut as_of, i64::from(second), u64::from(second) + 1);
            assert!(as_of.ahead.len() <= MOST_READINGS);
        }
        let mut seen: Vec<_> = (1..=100_000).filter_map(|lsn| as_of.at(Lsn(lsn))).collect();
        seen.dedup();
        assert!(seen.len() > MOST_READINGS / 4, "{} steps", seen.len());
        assert!(seen.is_sorted());
        assert_eq!(seen.last(), Some(&PgTimestamp(99_999)));
    }
}

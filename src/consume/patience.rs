//! How long to wait for a target that does not take a batch, and for a source that is silent.

use std::time::Duration;

use crate::consume::Now;

/// How long reading may stop because the target is slow. Then the replication connection is closed,
/// since a server that shuts down could not tell `cdc` so.
const BACKLOG: Duration = Duration::from_secs(10);

/// How long the source may say nothing, although every status asks for a reply. While a walsender
/// decodes a large transaction and has nothing to send, it reads our status only every half of its
/// wal_sender_timeout (`WalSndUpdateProgress`).
const MOST_SILENCE: Duration = Duration::from_secs(60);

/// What is waited for, and since when.
#[derive(Debug)]
pub(crate) struct Patience {
    /// Since when nothing is read.
    backlog_since: Option<Now>,
    /// How long reading may stop while a chunk of a large transaction is staged.
    chunk: Duration,
    heard_at: Now,
    silence: Duration,
}

impl Patience {
    /// For a source that is asked for a reply this often, with this wal_sender_timeout.
    pub(crate) fn new(
        feedback_interval: Duration,
        sender_timeout: Duration,
        chunk: Duration,
    ) -> Self {
        Self {
            backlog_since: None,
            chunk,
            heard_at: Now::ZERO,
            silence: (feedback_interval * 3)
                .max(sender_timeout)
                .max(MOST_SILENCE),
        }
    }

    /// Until when reading may stop; `None` while it has not stopped.
    pub(crate) fn backlog(&mut self, is_reading: bool, has_chunks: bool, now: Now) -> Option<Now> {
        if is_reading {
            self.backlog_since = None;
            return None;
        }
        let since = *self.backlog_since.get_or_insert(now);
        Some(since + if has_chunks { self.chunk } else { BACKLOG })
    }

    /// The target has taken something: the time without progress starts again.
    pub(crate) fn handed_over(&mut self) {
        self.backlog_since = None;
    }

    /// A byte arrived, or reading was stopped. A row of many megabytes may be under way for longer
    /// than a source may be silent.
    pub(crate) fn heard(&mut self, now: Now) {
        self.heard_at = now;
    }

    /// Whether the source has said nothing for too long.
    pub(crate) fn is_silent(&self, now: Now) -> bool {
        now.saturating_sub(self.heard_at) > self.silence
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_silent_for_too_long_after_a_minute_three_requests_and_its_own_timeout() {
        for (interval, timeout, most) in [
            (1, 0, 60),
            (10, 60, 60),
            (20, 60, 60),
            (30, 90, 90),
            (10, 600, 600),
        ] {
            let seconds = Duration::from_secs;
            let mut patience = Patience::new(seconds(interval), seconds(timeout), seconds(60));
            let judged = |patience: &Patience, heard: u64| {
                [heard + most, heard + most + 1].map(|at| patience.is_silent(seconds(at)))
            };
            assert_eq!(judged(&patience, 0), [false, true], "every {interval} s");
            patience.heard(seconds(50));
            assert_eq!(judged(&patience, 50), [false, true], "every {interval} s");
        }
    }

    #[test]
    fn reading_stands_still_for_ten_seconds_and_for_longer_while_a_chunk_is_staged() {
        let seconds = Duration::from_secs;
        let mut patience = Patience::new(seconds(10), seconds(60), seconds(60));
        assert_eq!(patience.backlog(true, false, seconds(1)), None);
        assert_eq!(
            patience.backlog(false, false, seconds(2)),
            Some(seconds(12))
        );
        assert_eq!(
            patience.backlog(false, false, seconds(5)),
            Some(seconds(12))
        );
        assert_eq!(patience.backlog(false, true, seconds(5)), Some(seconds(62)));
        patience.handed_over();
        assert_eq!(
            patience.backlog(false, false, seconds(7)),
            Some(seconds(17))
        );
        assert_eq!(patience.backlog(true, false, seconds(8)), None);
        assert_eq!(
            patience.backlog(false, false, seconds(9)),
            Some(seconds(19))
        );
    }
}

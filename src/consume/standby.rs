//! For a source that counts `cdc` as a synchronous standby (`synchronous_standby_names` holds `*`
//! or our name): its commits wait for what is acknowledged here, and must not wait for long.
//!
//! Positions that need no apply are stored and acknowledged at once, the newest one for all before
//! it. If the target takes longer than `PATIENCE`, the connection stands apart: it no longer names
//! a flushed position, so the source's commits wait for the other standbys only, and the stream
//! continues. It counts again as soon as a position was acknowledged in time.
//!
//! What was received shows whether a commit waits, and so does the end of the source's WAL, which
//! is read with its clock: a walsender that decodes a large transaction sends nothing for a while.

use std::time::Duration;

use crate::consume::Now;
use crate::lsn::Lsn;

/// How long a commit of the source may wait for the target.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether commits of the source wait for what is acknowledged.
#[derive(Debug)]
pub(crate) struct Standby {
    /// The source and the target are one cluster: our own commits would wait for us.
    own_cluster: bool,
    /// The source's setting names us.
    named: bool,
    apart: bool,
    /// Whether the last status to the source said that `cdc` stands apart.
    said: bool,
    /// End of the source's WAL when it was read last.
    flushed: Lsn,
    /// What is to be acknowledged, and since when it is known.
    waits: Option<(Lsn, Now)>,
}

impl Standby {
    /// Stands apart until something was acknowledged in time: a stream that begins may be far
    /// behind.
    pub(crate) fn new(own_cluster: bool) -> Self {
        Self {
            own_cluster,
            named: false,
            apart: true,
            said: false,
            flushed: Lsn::ZERO,
            waits: None,
        }
    }

    /// The source's setting was read, and the end of its WAL.
    pub(crate) fn read(&mut self, named: bool, flushed: Lsn) {
        self.named = named;
        self.flushed = self.flushed.max(flushed);
    }

    /// Whether each position is to be acknowledged at once.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.named && !self.own_cluster
    }

    /// Whether a status names no flushed position. If no commit waits for it, it names one: the
    /// slot has to move.
    pub(crate) fn is_apart(&self) -> bool {
        self.named && (self.apart || self.own_cluster)
    }

    /// Compares what was received with what was acknowledged; returns whether a status has to be
    /// sent.
    pub(crate) fn judge(&mut self, received: Lsn, acknowledged: Lsn, now: Now) -> bool {
        if let Some((position, since)) = self.waits {
            let late = now.saturating_sub(since) >= PATIENCE;
            if acknowledged >= position {
                self.waits = None;
                self.apart &= late;
            } else {
                self.apart |= late;
            }
        }
        let newest = received.max(self.flushed);
        if acknowledged >= newest {
            self.apart = false;
        } else if self.waits.is_none() {
            self.waits = Some((newest, now));
        }
        let apart = self.is_apart();
        std::mem::replace(&mut self.said, apart) != apart
    }

    /// When to judge again, unless something happens before.
    pub(crate) fn deadline(&self) -> Option<Now> {
        let (_, since) = self.waits.filter(|_| self.is_waited_for() && !self.apart)?;
        Some(since + PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Case {
        standby: Standby,
        /// Whether the source knows that it stands apart.
        known: bool,
    }

    impl Case {
        fn new(own_cluster: bool) -> Self {
            Self {
                standby: Standby::new(own_cluster),
                known: false,
            }
        }

        /// Judges at this time, in milliseconds; returns whether it stands apart then.
        fn at(&mut self, millis: u64, received: u64, acknowledged: u64) -> bool {
            let now = Duration::from_millis(millis);
            let told = self.standby.judge(Lsn(received), Lsn(acknowledged), now);
            let apart = self.standby.is_apart();
            assert_eq!(told, apart != self.known, "at {millis}");
            self.known = apart;
            apart
        }

        fn deadline(&self) -> Option<u128> {
            Some(self.standby.deadline()?.as_millis())
        }
    }

    #[test]
    fn nobody_waits_for_one_that_is_not_named() {
        let mut case = Case::new(false);
        for (millis, received) in [(0, 100), (60_000, 200), (600_000, 300)] {
            assert!(!case.at(millis, received, 50));
            assert_eq!(case.deadline(), None);
        }
        assert!(!case.standby.is_waited_for());
    }

    #[test]
    fn it_stands_apart_while_the_target_is_slow_and_until_something_is_acknowledged_in_time() {
        let mut case = Case::new(false);
        case.standby.read(true, Lsn(100));
        assert!(case.at(0, 100, 50), "it begins far behind");
        assert!(!case.at(10, 100, 100));
        assert_eq!(case.deadline(), None);
        assert!(!case.at(1000, 200, 100));
        assert_eq!(case.deadline(), Some(3000));
        assert!(!case.at(2999, 300, 199));
        assert!(case.at(3000, 300, 199));
        assert_eq!(case.deadline(), None, "nothing waits any more");
        assert!(case.at(3100, 400, 250), "acknowledged late");
        assert!(case.at(5200, 400, 399), "what came next is late too");
        assert!(case.at(5300, 500, 400));
        assert!(!case.at(5400, 600, 500), "acknowledged in time");
        assert!(!case.at(7299, 700, 599));
        assert!(
            case.at(7400, 700, 599),
            "what came next counts from then on"
        );
        assert!(!case.at(7500, 700, 700), "nothing is left");
    }

    #[test]
    fn what_the_walsender_has_not_sent_counts_from_when_it_is_known() {
        let mut case = Case::new(false);
        case.standby.read(true, Lsn(100));
        assert!(!case.at(0, 100, 100));
        case.standby.read(true, Lsn(900));
        assert!(!case.at(500, 100, 100));
        case.standby.read(true, Lsn(950));
        assert!(case.at(2500, 100, 100));
        case.standby.read(false, Lsn(960));
        assert!(!case.at(2600, 100, 100), "the setting was changed");
        case.standby.read(true, Lsn(960));
        assert!(case.at(2700, 100, 100));
    }

    #[test]
    fn commits_of_one_cluster_never_wait_for_themselves() {
        let mut case = Case::new(true);
        case.standby.read(true, Lsn(100));
        assert!(case.at(0, 100, 100));
        assert!(case.at(10, 200, 200));
        assert!(!case.standby.is_waited_for());
        case.standby.read(false, Lsn(200));
        assert!(!case.at(20, 200, 200));
    }
}

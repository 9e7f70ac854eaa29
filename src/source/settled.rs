//! When an exported snapshot may be read: once no transaction that it sees as committed is listed
//! as running.
//!
//! Servers before the minor releases of November 2026 may export a slot's snapshot that holds a
//! transaction whose commit is in the WAL but not yet in clog. A read of its rows then treats the
//! transaction as aborted and writes that into the hint bits: committed rows are lost at the source
//! for good. So before anything is read, the exported snapshot (e) is compared with an ordinary one
//! (o) of the same server, again and again, until
//!
//! - o's xmax is at least e's xmax, and
//! - no transaction that o lists as running is below e's xmax and missing in e's list.
//!
//! The set that is waited for only shrinks: a transaction leaves it when it ends, and none comes
//! in, since new ones get ids at or above e's xmax.

use std::str::FromStr;

use crate::error::Error;

/// pg_current_snapshot() as text: `xmin:xmax:xip,xip`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct XidSnapshot {
    /// All transactions below have ended.
    pub xmin: u64,
    /// All transactions at or above are unseen. Never below `xmin`.
    pub xmax: u64,
    /// Transactions in between that count as running, in ascending order.
    pub running: Vec<u64>,
}

impl FromStr for XidSnapshot {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parse = || {
            let mut parts = text.split(':');
            let (xmin, xmax, list) = (parts.next()?, parts.next()?, parts.next()?);
            let running = list
                .split(',')
                .filter(|_| !list.is_empty())
                .map(|xid| xid.parse().ok());
            let xmin = xmin.parse().ok()?;
            let xmax: u64 = xmax.parse().ok()?;
            let snapshot = Self {
                xmin,
                // A slot's snapshot may have the larger number first, when the last transactions
                // before it were rolled back. A read of rows checks xmin first (XidInMVCCSnapshot
                // in snapmgr.c): every transaction below it has ended.
                xmax: xmax.max(xmin),
                running: running.collect::<Option<_>>()?,
            };
            let in_order = snapshot.running.is_sorted();
            (in_order && parts.next().is_none()).then_some(snapshot)
        };
        parse().ok_or_else(|| {
            Error::protocol(format!(
                "expected a snapshot such as 10:20:10,14, found {text:?}"
            ))
        })
    }
}

/// Whether the exported snapshot may be read, as far as the ordinary one shows.
pub(crate) fn is_settled(exported: &XidSnapshot, ordinary: &XidSnapshot) -> bool {
    ordinary.xmax >= exported.xmax && committing(exported, ordinary).next().is_none()
}

/// Transactions that the exported snapshot sees as committed and the ordinary one as running.
pub(crate) fn committing(
    exported: &XidSnapshot,
    ordinary: &XidSnapshot,
) -> impl Iterator<Item = u64> {
    ordinary
        .running
        .iter()
        .copied()
        .filter(|xid| *xid < exported.xmax && exported.running.binary_search(xid).is_err())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn snapshot(text: &str) -> XidSnapshot {
        text.parse().unwrap()
    }

    #[test]
    fn snapshots_are_read_as_the_server_prints_them() {
        assert_eq!(
            snapshot("10:20:10,14,15"),
            XidSnapshot {
                xmin: 10,
                xmax: 20,
                running: vec![10, 14, 15],
            }
        );
        assert_eq!(snapshot("797:797:").running, [0_u64; 0]);
        assert_eq!(snapshot("4294967300:4294967301:").xmin, 4_294_967_300);
        // As exported from a slot on 18.4, behind a transaction that was rolled back.
        assert_eq!(snapshot("244552:244551:"), snapshot("244552:244552:"));
        for bad in [
            "",
            "10",
            "10:20",
            "10:20:x",
            "10:20:1,",
            "10:20:,",
            "10:20:15,14",
            "10:20::",
            "-1:2:",
        ] {
            assert!(bad.parse::<XidSnapshot>().is_err(), "{bad}");
        }
    }

    #[test]
    fn settled_once_nothing_that_is_seen_is_listed_as_running() {
        for (exported, ordinary, expected) in [
            // Nothing runs.
            ("10:10:", "10:10:", true),
            ("10:10:", "12:12:", true),
            // The ordinary snapshot is older than what the exported one sees.
            ("10:10:", "9:9:", false),
            // 8 is in the exported snapshot as committed, and still listed.
            ("10:10:", "8:10:8", false),
            ("9:12:9,11", "9:12:9,10,11", false),
            // 9 and 11 run for both: the exported snapshot does not show them.
            ("9:12:9,11", "9:12:9,11", true),
            ("9:12:9,11", "11:12:11", true),
            // 12 came later.
            ("10:12:", "12:13:12", true),
            ("10:12:11", "11:14:11,12,13", true),
            ("10:12:11", "10:14:10,11,12", false),
            // What is below the larger number is seen if it was committed.
            ("11:10:", "10:12:10", false),
            ("11:10:", "11:12:11", true),
            ("11:10:", "10:10:", false),
        ] {
            let (e, o) = (snapshot(exported), snapshot(ordinary));
            assert_eq!(
                is_settled(&e, &o),
                expected,
                "{exported} against {ordinary}"
            );
        }
    }

    proptest! {
        #[test]
        fn text_and_snapshot_say_the_same(xmin in 1..100_u64, more in 0..50_u64, picks in prop::collection::btree_set(0..50_u64, 0..10)) {
            let running: Vec<u64> = picks.into_iter().map(|pick| xmin + pick).collect();
            let expected = XidSnapshot { xmin, xmax: xmin + more, running };
            let list: Vec<String> = expected.running.iter().map(u64::to_string).collect();
            let text = format!("{}:{}:{}", expected.xmin, expected.xmax, list.join(","));
            prop_assert_eq!(snapshot(&text), expected);
        }

        #[test]
        fn ended_transactions_never_unsettle(exported in 1..40_u64, running in prop::collection::btree_set(1..40_u64, 0..8), ends in any::<prop::sample::Index>()) {
            let e = XidSnapshot { xmin: 1, xmax: exported, running: vec![] };
            let mut o = XidSnapshot { xmin: 1, xmax: 40, running: running.into_iter().collect() };
            let before = committing(&e, &o).count();
            if !o.running.is_empty() {
                o.running.remove(ends.index(o.running.len()));
            }
            prop_assert!(committing(&e, &o).count() <= before);
        }
    }
}

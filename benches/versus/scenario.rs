//! The scenarios and what is expected of them.

use crate::support::labels::Kind;

/// One line of the table that is printed.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Name on the command line.
    pub name: &'static str,
    /// What it is, for people.
    pub title: &'static str,
    /// What is done.
    pub kind: Kind,
    /// Changes at scale 1.
    pub changes: u64,
    /// Thousand changes a second of native replication on the reference machine, and the goal as
    /// its multiple.
    pub reference: Option<(u32, f64)>,
}

/// All scenarios in the order in which they run.
#[rustfmt::skip]
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "inserts-1", title: "inserts, 1/tx", kind: Kind::Inserts(1), changes: 50_000, reference: Some((182, 1.1)) },
    Scenario { name: "inserts-100", title: "inserts, 100/tx", kind: Kind::Inserts(100), changes: 50_000, reference: Some((464, 1.0)) },
    Scenario { name: "updates-100", title: "updates of distinct rows, 100/tx", kind: Kind::Updates(100), changes: 25_000, reference: Some((145, 1.5)) },
    Scenario { name: "hot-1", title: "updates of 100 rows, 1/tx", kind: Kind::Hot, changes: 25_000, reference: Some((107, 2.5)) },
    Scenario { name: "soft-10", title: "soft deletes and restores, 10/tx", kind: Kind::SoftDeletes(10), changes: 25_000, reference: Some((124, 2.0)) },
    Scenario { name: "one-tx", title: "inserts, one transaction", kind: Kind::Inserts(0), changes: 50_000, reference: Some((272, 1.0)) },
    Scenario { name: "copy", title: "first copy", kind: Kind::Copy, changes: 125_000, reference: Some((726, 1.0)) },
    Scenario { name: "latency", title: "latency at 200 commits/s", kind: Kind::Latency, changes: 600, reference: None },
];

impl Scenario {
    /// Number of changes at this scale; whole transactions.
    pub fn changes_at(&self, scale: f64) -> u64 {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let changes = (self.changes as f64 * scale).round() as u64;
        (changes / 300).max(1) * 300
    }
}

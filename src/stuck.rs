//! An error that the source reports in the stream and that comes back at the same position: one
//! cause, not many.
//!
//! A walsender may be unable to send a value: one of 600 MB as text is more than it can allocate,
//! or a character has no counterpart in UTF-8. The value may be in a column that no read model
//! projects. It fails again at each start of the stream, and each try makes the source build the
//! value again. So the pauses grow, and after some tries `cdc` bypasses the value: a new slot
//! begins behind it, and exact copies read only the projected columns.
//!
//! Pure: time comes in as a value.

use std::time::Duration;

use jiff::Timestamp;

use crate::error::Error;
use crate::lsn::Lsn;

/// Pauses between two tries, doubling.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MOST_PAUSE: Duration = Duration::from_secs(60);

/// Tries after which a value counts as one that cannot be sent: half a minute of pauses.
const TRIES: u32 = 6;

/// How long a lack of memory, disk or connections at the source (class 53) may last before the
/// value counts as the cause. A copy of everything would make such a lack worse.
const RESOURCES_PATIENCE_SECONDS: i64 = 3600;

/// An error that has come back at one position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stuck {
    /// Every commit before it is applied; the next change cannot be sent.
    pub position: Lsn,
    /// SQLSTATE of the error.
    pub sqlstate: String,
    /// When it came first.
    pub since: Timestamp,
    /// How often it came.
    pub times: u32,
}

impl Stuck {
    /// Whether an error of the stream may be about a value to be sent. Lost connections (08), the
    /// operator's commands and shutdowns (57), conflicts with recovery (40) and slots in use or
    /// lost (55, 42) are not.
    pub(crate) fn concerns(sqlstate: &str) -> bool {
        sqlstate.len() == 5
            && !["08", "40", "42", "55", "57"]
                .iter()
                .any(|class| sqlstate.starts_with(class))
    }

    /// The same error as `before` once more, or another one.
    pub(crate) fn note(
        before: Option<&Self>,
        position: Lsn,
        sqlstate: &str,
        now: Timestamp,
    ) -> Self {
        match before.filter(|before| before.position == position && before.sqlstate == sqlstate) {
            Some(before) => Self {
                times: before.times.saturating_add(1),
                ..before.clone()
            },
            None => Self {
                position,
                sqlstate: sqlstate.to_owned(),
                since: now,
                times: 1,
            },
        }
    }

    /// How long to wait before the next try.
    pub(crate) fn pause(&self) -> Duration {
        let doubled = self.times.saturating_sub(1).min(16);
        FIRST_PAUSE.saturating_mul(1 << doubled).min(MOST_PAUSE)
    }

    /// Whether another try is useless: only a new slot behind this position helps.
    pub(crate) fn is_hopeless(&self, now: Timestamp) -> bool {
        let lacks_resources = self.sqlstate.starts_with("53");
        let seconds = now.as_second().saturating_sub(self.since.as_second());
        self.times >= TRIES && (!lacks_resources || seconds >= RESOURCES_PATIENCE_SECONDS)
    }

    /// The error with what is known of its recurrence.
    #[must_use]
    pub(crate) fn explain(&self, error: Error) -> Error {
        error
            .context(format_args!("the source cannot send what follows {}", self.position))
            .with_detail(format!(
                "The stream has failed there {} {} since {}.",
                self.times,
                if self.times == 1 { "time" } else { "times" },
                self.since.strftime("%Y-%m-%d %H:%M:%S UTC")
            ))
            .with_hint(format!(
                "A value is probably too large to be sent, or has no counterpart in UTF-8. After {TRIES} tries cdc makes a new slot \
                 and copies every read model, which reads only the projected columns."
            ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn tries(sqlstate: &str, seconds: &[i64]) -> Stuck {
        let mut stuck = None;
        for second in seconds {
            stuck = Some(Stuck::note(stuck.as_ref(), Lsn(100), sqlstate, at(*second)));
        }
        stuck.unwrap()
    }

    #[test]
    fn only_errors_about_what_is_sent_count() {
        for (sqlstate, expected) in [
            ("XX000", true),
            ("54000", true),
            ("22P05", true),
            ("53200", true),
            ("57P01", false),
            ("57014", false),
            ("08006", false),
            ("40001", false),
            ("55000", false),
            ("42704", false),
            ("", false),
        ] {
            assert_eq!(Stuck::concerns(sqlstate), expected, "{sqlstate}");
        }
    }

    #[test]
    fn pauses_grow_and_after_six_tries_there_is_a_way_round() {
        let mut before: Option<Stuck> = None;
        let mut seen = Vec::new();
        for second in 0..9 {
            let stuck = Stuck::note(before.as_ref(), Lsn(100), "XX000", at(second));
            seen.push((stuck.pause().as_secs(), stuck.is_hopeless(at(second))));
            before = Some(stuck);
        }
        let expected = [
            (1, false),
            (2, false),
            (4, false),
            (8, false),
            (16, false),
            (32, true),
            (60, true),
            (60, true),
            (60, true),
        ];
        assert_eq!(seen, expected);
        assert_eq!(before.unwrap().since, at(0));
    }

    #[test]
    fn another_position_or_error_is_another_trouble() {
        let stuck = tries("XX000", &[0, 1, 2]);
        assert_eq!(stuck.times, 3);
        for (position, sqlstate) in [(101, "XX000"), (100, "54000")] {
            let other = Stuck::note(Some(&stuck), Lsn(position), sqlstate, at(9));
            assert_eq!(
                (other.times, other.since),
                (1, at(9)),
                "{position} {sqlstate}"
            );
        }
    }

    #[test]
    fn a_lack_of_resources_is_waited_for() {
        let stuck = tries("53200", &[0, 1, 2, 3, 4, 5, 6]);
        assert!(!stuck.is_hopeless(at(3599)));
        assert!(stuck.is_hopeless(at(3600)));
    }

    #[test]
    fn a_person_reads_where_since_when_and_what_follows() {
        let error = tries("XX000", &[0, 60])
            .explain(Error::transient("invalid memory alloc request size 1"));
        assert_eq!(
            error.to_string(),
            "the source cannot send what follows 0/64: invalid memory alloc request size 1"
        );
        assert_eq!(
            error.detail(),
            Some("The stream has failed there 2 times since 1970-01-01 00:00:00 UTC.")
        );
        assert!(
            error
                .hint()
                .is_some_and(|hint| hint.contains("After 6 tries"))
        );
    }
}

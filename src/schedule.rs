//! When the next resync is due: a cron expression in a time zone. Pure: the current time comes in as a value.
//!
//! Daylight saving: a time that does not exist on a day is taken at the end of the gap, a time that comes twice is
//! taken once, the first time (croner's documented rules; pinned below).

use croner::Cron;
use croner::parser::CronParser;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use crate::error::{Error, Result};

/// A cron expression in a time zone.
#[derive(Debug, Clone)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
}

impl Schedule {
    /// Reads a cron expression of five fields and an IANA time zone.
    ///
    /// # Errors
    /// [`Class::Configuration`](crate::error::Class::Configuration) with what is allowed.
    pub fn parse(expression: &str, zone: &str) -> Result<Self> {
        let cron = CronParser::new().parse(expression).map_err(|error| {
            Error::configuration(format!("cannot read the schedule {expression:?}: {error}"))
                .with_hint("Write five fields: minute hour day month weekday, such as \"0 2 * * *\" for 02:00 every day, or \"off\".")
        })?;
        let zone = TimeZone::get(zone).map_err(|_| {
            Error::configuration(format!("cannot find the time zone {zone:?}"))
                .with_hint("Use a name of the IANA time zone database, such as \"UTC\" or \"Europe/Berlin\".")
        })?;
        Ok(Self { cron, zone })
    }

    /// The first time after `after` at which the schedule is due; `None` if there is none in any year.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let after: Zoned = after.to_zoned(self.zone.clone());
        self.cron
            .find_next_occurrence(&after, false)
            .ok()
            .map(|next| next.timestamp())
    }

    /// Whether a time between `last` (exclusive) and `now` (inclusive) was due.
    pub fn was_due(&self, last: Timestamp, now: Timestamp) -> bool {
        self.next_after(last).is_some_and(|next| next <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expression: &str, zone: &str, after: &str, expected: &str) {
        let schedule = Schedule::parse(expression, zone).unwrap();
        let next = schedule.next_after(after.parse().unwrap()).unwrap();
        assert_eq!(
            next,
            expected.parse::<Timestamp>().unwrap(),
            "{expression} {zone} after {after}"
        );
    }

    #[test]
    fn next_time_of_the_schedule() {
        check("0 2 * * *", "UTC", "2026-11-25T01:59:59Z", "2026-11-25T02:00:00Z");
        check("0 2 * * *", "UTC", "2026-11-25T02:00:00Z", "2026-11-26T02:00:00Z");
        check(
            "0 2 * * *",
            "Europe/Berlin",
            "2026-11-25T02:00:00Z",
            "2026-11-26T01:00:00Z",
        );
        check(
            "30 2 * * 0",
            "UTC",
            "2026-11-25T00:00:00Z",
            "2026-11-29T02:30:00Z",
        );
    }

    #[test]
    fn daylight_saving_fires_once_a_day() {
        // 2026-03-29: 02:30 does not exist in Berlin; 2026-10-25: it comes twice.
        check(
            "30 2 * * *",
            "Europe/Berlin",
            "2026-03-28T12:00:00Z",
            "2026-03-29T01:00:00Z",
        );
        check(
            "30 2 * * *",
            "Europe/Berlin",
            "2026-10-24T12:00:00Z",
            "2026-10-25T00:30:00Z",
        );
        check(
            "30 2 * * *",
            "Europe/Berlin",
            "2026-10-25T00:30:00Z",
            "2026-10-26T01:30:00Z",
        );
    }

    #[test]
    fn a_missed_time_is_noticed() {
        let schedule = Schedule::parse("0 2 * * *", "UTC").unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert!(schedule.was_due(at("2026-11-24T02:00:05Z"), at("2026-11-25T06:00:00Z")));
        assert!(!schedule.was_due(at("2026-11-25T02:00:05Z"), at("2026-11-25T06:00:00Z")));
    }

    #[test]
    fn wrong_schedules_say_what_is_allowed() {
        for (expression, zone) in [
            ("", "UTC"),
            ("61 * * * *", "UTC"),
            ("every day", "UTC"),
            ("0 2 * * *", "Mars"),
        ] {
            let error = Schedule::parse(expression, zone).unwrap_err();
            assert_eq!(error.class(), crate::error::Class::Configuration);
            assert!(error.hint().is_some());
        }
    }
}

//! When the next resync is due: a cron expression in a time zone, and for each pipeline its own
//! delay after it, so that a fleet does not load the master all at once. Pure: the current time
//! comes in as a value.
//!
//! Daylight saving: a time that does not exist on a day moves to the end of the gap; a time that
//! comes twice counts once, the first time (croner's documented rules; pinned below).

use croner::Cron;
use croner::parser::CronParser;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use std::time::Duration;

use crate::error::{Error, Result};
use crate::settings::{ResyncSettings, pipeline_hash};

/// A cron expression in a time zone.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    cron: Cron,
    zone: TimeZone,
    delay: Duration,
}

impl Schedule {
    /// Reads a cron expression of five fields and an IANA time zone.
    ///
    /// # Errors
    /// [`Class::Configuration`](crate::error::Class::Configuration) with what is allowed.
    pub(crate) fn parse(expression: &str, zone: &str) -> Result<Self> {
        let cron = CronParser::new().parse(expression).map_err(|error| {
            Error::configuration(format!("cannot read the schedule {expression:?}: {error}"))
                .with_hint("Write five fields: minute hour day month weekday, such as \"0 2 * * *\" for 02:00 every day, or \"off\".")
        })?;
        let zone = TimeZone::get(zone).map_err(|_| {
            Error::configuration(format!("cannot find the time zone {zone:?}")).with_hint(
                "Use a name of the IANA time zone database, such as \"UTC\" or \"Europe/Berlin\".",
            )
        })?;
        Ok(Self {
            cron,
            zone,
            delay: Duration::ZERO,
        })
    }

    /// The schedule of the pipeline with this slot; `None` if it is off.
    ///
    /// # Errors
    /// As [`Schedule::parse`].
    pub(crate) fn of(resync: &ResyncSettings, slot: &str) -> Result<Option<Self>> {
        let Some(expression) = &resync.schedule else {
            return Ok(None);
        };
        let schedule = Self::parse(expression, &resync.timezone)?;
        Ok(Some(Self {
            delay: delay(resync.jitter, slot),
            ..schedule
        }))
    }

    /// How long after the expression's times this pipeline's turn comes.
    pub(crate) fn delay(&self) -> Duration {
        self.delay
    }

    /// The first time after `after` at which the schedule is due; `None` if there is none in any
    /// year.
    pub(crate) fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let after: Zoned = after
            .checked_sub(self.delay)
            .ok()?
            .to_zoned(self.zone.clone());
        let next = self.cron.find_next_occurrence(&after, false).ok()?;
        next.timestamp().checked_add(self.delay).ok()
    }

    /// Whether a time between `last` (exclusive) and `now` (inclusive) was due.
    pub(crate) fn was_due(&self, last: Timestamp, now: Timestamp) -> bool {
        self.next_after(last).is_some_and(|next| next <= now)
    }
}

/// Whole seconds from none to all of the jitter; the same for a pipeline every time, so that
/// `status` can show it.
fn delay(jitter: Duration, slot: &str) -> Duration {
    let hash = pipeline_hash(slot);
    // The upper half too: names of a fleet often differ in their last letter only.
    Duration::from_secs((hash ^ (hash >> 32)) % jitter.as_secs().saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleet_is_spread_over_the_jitter_and_each_pipeline_keeps_its_time() {
        let resync = |jitter| ResyncSettings {
            jitter: Duration::from_secs(jitter),
            ..ResyncSettings::default()
        };
        let delay = |jitter, slot: &str| {
            Schedule::of(&resync(jitter), slot)
                .unwrap()
                .unwrap()
                .delay()
        };
        assert_eq!(delay(0, "cdc"), Duration::ZERO);
        let delays: Vec<u64> = (0..1000)
            .map(|n| delay(1800, &format!("cdc_{n}")).as_secs())
            .collect();
        assert!(delays.iter().all(|seconds| *seconds <= 1800));
        for part in 0..6 {
            let in_part = delays
                .iter()
                .filter(|seconds| (part * 300..(part + 1) * 300).contains(*seconds));
            assert!((120..=220).contains(&in_part.count()), "part {part}");
        }
        // A number, not only twice the same: another version of `status` shows the time of this
        // process too.
        assert_eq!(delays[7], 1306);
        assert_eq!(delays[7], delay(1800, "cdc_7").as_secs());

        let schedule = Schedule::of(&resync(1800), "cdc_7").unwrap().unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let first = at("2026-11-25T02:00:00Z") + schedule.delay();
        assert_eq!(schedule.next_after(at("2026-11-25T01:00:00Z")), Some(first));
        // Between the expression's time and this pipeline's, its turn is still to come.
        assert!(!schedule.was_due(at("2026-11-24T12:00:00Z"), at("2026-11-25T02:00:00Z")));
        assert!(schedule.was_due(at("2026-11-24T12:00:00Z"), first));
        assert_eq!(
            schedule.next_after(first),
            Some(at("2026-11-26T02:00:00Z") + schedule.delay())
        );
        let off = ResyncSettings {
            schedule: None,
            ..resync(1800)
        };
        assert!(Schedule::of(&off, "cdc").unwrap().is_none());
    }

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
        check(
            "0 2 * * *",
            "UTC",
            "2026-11-25T01:59:59Z",
            "2026-11-25T02:00:00Z",
        );
        check(
            "0 2 * * *",
            "UTC",
            "2026-11-25T02:00:00Z",
            "2026-11-26T02:00:00Z",
        );
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
        // The day after the gap it is 02:30 again; between the two 02:30 of October none was
        // missed.
        check(
            "30 2 * * *",
            "Europe/Berlin",
            "2026-03-29T01:00:00Z",
            "2026-03-30T00:30:00Z",
        );
        let schedule = Schedule::parse("30 2 * * *", "Europe/Berlin").unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert!(schedule.was_due(at("2026-10-24T00:30:00Z"), at("2026-10-25T00:30:00Z")));
        assert!(!schedule.was_due(at("2026-10-25T00:30:00Z"), at("2026-10-25T23:59:59Z")));
        // A year of it: one turn on each day of the calendar, whatever the day's length.
        let (mut time, mut days) = (at("2026-01-01T00:00:00Z"), Vec::new());
        while let Some(next) = schedule
            .next_after(time)
            .filter(|next| *next < at("2027-01-01T00:00:00Z"))
        {
            days.push(next.to_zoned(schedule.zone.clone()).date());
            time = next;
        }
        assert_eq!(days.len(), 365);
        assert!(
            days.windows(2)
                .all(|pair| pair[0].tomorrow().unwrap() == pair[1])
        );
    }

    #[test]
    fn times_that_come_every_half_hour_come_in_both_hours_of_the_overlap_and_not_in_the_gap() {
        let between = |from: &str, to: &str| {
            let schedule = Schedule::parse("*/30 * * * *", "Europe/Berlin").unwrap();
            let (mut time, to) = (
                from.parse::<Timestamp>().unwrap(),
                to.parse::<Timestamp>().unwrap(),
            );
            let mut count = 0;
            while let Some(next) = schedule.next_after(time).filter(|next| *next <= to) {
                (time, count) = (next, count + 1);
            }
            count
        };
        // Local midnight to midnight: 25 hours and 23 hours.
        assert_eq!(between("2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"), 50);
        assert_eq!(between("2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"), 46);
    }

    #[test]
    fn a_missed_time_is_noticed() {
        let schedule = Schedule::parse("0 2 * * *", "UTC").unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert!(schedule.was_due(at("2026-11-24T02:00:05Z"), at("2026-11-25T06:00:00Z")));
        assert!(!schedule.was_due(at("2026-11-25T02:00:05Z"), at("2026-11-25T06:00:00Z")));
        // One turn makes up for several missed ones.
        let (last, now) = (at("2026-11-20T02:00:05Z"), at("2026-11-25T06:00:00Z"));
        assert!(schedule.was_due(last, now) && !schedule.was_due(now, now));
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

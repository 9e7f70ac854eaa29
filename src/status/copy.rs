//! Progress of a copy: what was counted, and what follows from it.

use serde::Serialize;

/// Progress of a copy.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Copy {
    /// Rows copied so far.
    pub rows: i64,
    /// Rows there will be, by the source's statistics; null if it has none.
    pub estimated_rows: Option<i64>,
    /// Bytes copied so far, as COPY's text.
    pub bytes: Option<i64>,
    /// Part of the estimate, 0 to 99: the estimate may be too low, and a copy that still runs is
    /// never shown as done.
    pub percent: Option<i64>,
    /// Rows a second, since it began.
    pub rows_per_second: Option<f64>,
    /// Seconds that the rest will take at this rate; null without an estimate, or when that is
    /// exceeded.
    pub seconds_left: Option<f64>,
}

impl Copy {
    /// What follows from the rows and bytes that were copied in so many seconds.
    pub(crate) fn new(
        rows: i64,
        estimated_rows: Option<i64>,
        bytes: Option<i64>,
        seconds: Option<f64>,
    ) -> Self {
        let estimate = estimated_rows.filter(|estimate| *estimate > 0);
        let percent = estimate.map(|estimate| (rows.saturating_mul(100) / estimate).clamp(0, 99));
        let rows_per_second = seconds
            .filter(|seconds| *seconds > 0.0)
            .map(|seconds| float(rows) / seconds);
        let seconds_left = estimate
            .map(|estimate| estimate.saturating_sub(rows))
            .filter(|left| *left > 0)
            .zip(rows_per_second.filter(|rate| *rate > 0.0))
            .map(|(left, rate)| float(left) / rate);
        Self {
            rows,
            estimated_rows,
            bytes,
            percent,
            rows_per_second,
            seconds_left,
        }
    }
}

/// Counts that matter here are far below what a float holds exactly; beyond that a rate is good
/// enough.
fn float(count: i64) -> f64 {
    let high = i32::try_from(count >> 31).map_or(f64::MAX, f64::from);
    let low = u32::try_from(count & 0x7fff_ffff).map_or(0.0, f64::from);
    high * 2_147_483_648.0 + low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_time_left_follow_from_what_was_copied() {
        let copy = Copy::new(500, Some(2000), Some(40_000), Some(10.0));
        assert_eq!(copy.percent, Some(25));
        assert_eq!(copy.rows_per_second, Some(50.0));
        assert_eq!(copy.seconds_left, Some(30.0));
        let passed = Copy::new(3000, Some(2000), None, Some(10.0));
        assert_eq!((passed.percent, passed.seconds_left), (Some(99), None));
        let unknown = Copy::new(3000, None, None, Some(0.0));
        assert_eq!(
            (
                unknown.percent,
                unknown.rows_per_second,
                unknown.seconds_left
            ),
            (None, None, None)
        );
        assert_eq!(Copy::new(5, Some(0), None, None).percent, None);
        assert_eq!(float(5_000_000_000), 5e9);
    }
}

//! Numbers with a unit: sizes and times.

use std::time::Duration;

use crate::settings::SIZE_UNITS;

/// A whole number with its unit: kB, MB, GB, TB (powers of 1024, as in PostgreSQL's settings).
pub(super) fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, bytes) = SIZE_UNITS
        .iter()
        .find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*bytes)
}

/// A whole number with its unit: ms, s, min or m, h.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(digits)?;
    let millis = match unit.trim_start() {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number
        .parse::<u64>()
        .ok()?
        .checked_mul(millis)
        .map(Duration::from_millis)
}

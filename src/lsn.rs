//! Positions in the write-ahead log, and the server's time stamps.
//!
//! A position is an *end*: a commit lies before `X` exactly if its commit record starts below `X`.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// A log sequence number: a byte position in the source's write-ahead log. Text form `16/B374D848`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The position that PostgreSQL never assigns: "none", or in START_REPLICATION "the slot's
    /// own".
    pub const ZERO: Self = Self(0);

    /// Bytes from `earlier` to this position; 0 if it is not earlier.
    pub(crate) fn bytes_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parsed = text.split_once('/').and_then(|(high, low)| {
            let high = u32::from_str_radix(high, 16).ok()?;
            let low = u32::from_str_radix(low, 16).ok()?;
            Some(Self(u64::from(high) << 32 | u64::from(low)))
        });
        parsed.ok_or_else(|| {
            Error::protocol(format!(
                "expected an LSN such as 16/B374D848, found {text:?}"
            ))
        })
    }
}

/// A server's time stamp: microseconds since 2000-01-01 00:00:00 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PgTimestamp(pub i64);

impl PgTimestamp {
    /// Microseconds from 1970-01-01 to 2000-01-01, UTC.
    const EPOCH_OFFSET_MICROS: i64 = 946_684_800_000_000;

    /// From microseconds since 1970-01-01 00:00:00 UTC.
    pub fn from_unix_micros(micros: i64) -> Self {
        Self(micros.saturating_sub(Self::EPOCH_OFFSET_MICROS))
    }

    /// Microseconds since 1970-01-01 00:00:00 UTC.
    pub(crate) fn unix_micros(self) -> i64 {
        self.0.saturating_add(Self::EPOCH_OFFSET_MICROS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lsn_prints_and_reads_as_postgresql_does() {
        for (text, value) in [
            ("0/0", 0),
            ("16/B374D848", 0x16_B374_D848),
            ("FFFFFFFF/FFFFFFFF", u64::MAX),
        ] {
            assert_eq!(text.parse::<Lsn>().unwrap(), Lsn(value));
            assert_eq!(Lsn(value).to_string(), text);
        }
        for bad in ["", "1", "1/", "/1", "1/2/3", "g/0", "1/100000000", "-1/0"] {
            assert!(bad.parse::<Lsn>().is_err(), "{bad}");
        }
    }

    #[test]
    fn distance_is_counted_forward_only() {
        assert_eq!(Lsn(30).bytes_since(Lsn(10)), 20);
        assert_eq!(Lsn(10).bytes_since(Lsn(30)), 0);
    }

    #[test]
    fn time_stamps_count_from_the_year_2000() {
        // date -u -d 2026-01-01 +%s
        let micros = 1_767_225_600_000_000;
        let stamp = PgTimestamp::from_unix_micros(micros);
        assert_eq!(stamp, PgTimestamp(820_540_800_000_000));
        assert_eq!(stamp.unix_micros(), micros);
    }
}

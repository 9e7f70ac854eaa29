//! Delays between tries: exponential with full jitter, never longer than a bound, from the start
//! again after success.
//!
//! Pure: the random number comes in as a value.

use std::time::Duration;

/// Delays of one activity that is tried again without limit.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    attempt: u32,
}

impl Backoff {
    /// Delays from `first` (doubling) up to `most`.
    pub(crate) const fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            attempt: 0,
        }
    }

    /// The next delay; `random` lies in [0, 1). At least half of the doubled delay, so that a fleet
    /// spreads out and no try follows at once.
    pub(crate) fn next_delay(&mut self, random: f64) -> Duration {
        let doubled = self
            .first
            .saturating_mul(1 << self.attempt.min(20))
            .min(self.most);
        self.attempt = self.attempt.saturating_add(1);
        doubled.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }

    /// Number of tries since the last success.
    pub(crate) fn attempt(&self) -> u32 {
        self.attempt
    }

    /// It worked: the next delay is the first one again.
    pub(crate) fn reset(&mut self) {
        self.attempt = 0;
    }
}

/// Copies of everything (the first one, and healings) that began one soon after the other, as the
/// bookkeeping has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Healings {
    /// How many of them.
    pub in_a_row: u32,
    /// How long ago the last one succeeded; of one that did not, how long ago its process was last
    /// known to be alive.
    pub ended: Option<Duration>,
}

impl Healings {
    /// The first pause.
    const FIRST_DELAY: Duration = Duration::from_secs(1);

    /// The longest pause. A pipeline that was healthy for as long, or that no process has tried to
    /// heal, begins with the shortest pause again.
    pub(crate) const MOST_DELAY: Duration = Duration::from_secs(3600);

    /// The copies that count for the next one: none after a healthy time.
    #[must_use]
    pub(crate) fn that_count(self) -> Self {
        let is_over = self.ended.is_none_or(|ended| ended >= Self::MOST_DELAY);
        if is_over { Self::default() } else { self }
    }

    /// How long the next copy waits, `most` at most: a cause that comes back, or a process that
    /// dies in each of its copies, must not load the source. `random` as for
    /// [`Backoff::next_delay`].
    pub(crate) fn pause(self, most: Duration, random: f64) -> Duration {
        let Some(attempt) = self.that_count().in_a_row.checked_sub(1) else {
            return Duration::ZERO;
        };
        let mut backoff = Backoff {
            attempt,
            ..Backoff::new(Self::FIRST_DELAY, most.min(Self::MOST_DELAY))
        };
        backoff.next_delay(random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_bound_and_start_again_after_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        let delays: Vec<_> = (0..7)
            .map(|_| backoff.next_delay(1.0).as_millis())
            .collect();
        assert_eq!(delays, [100, 200, 400, 800, 1600, 2000, 2000]);
        assert_eq!(backoff.next_delay(0.0).as_millis(), 1000);
        for _ in 0..100 {
            assert!(backoff.next_delay(0.99) <= Duration::from_secs(2));
        }
        assert_eq!(backoff.attempt(), 108);
        backoff.reset();
        assert_eq!(backoff.attempt(), 0);
        assert_eq!(backoff.next_delay(1.0).as_millis(), 100);
    }

    #[test]
    fn pauses_between_healings_double_up_to_an_hour_and_a_healthy_hour_ends_them() {
        let pause = |in_a_row: u32, ended: Option<u64>, most: Duration| {
            let ended = ended.map(Duration::from_secs);
            Healings { in_a_row, ended }.pause(most, 1.0).as_secs()
        };
        let pauses = |most| {
            (0..15)
                .map(move |in_a_row| pause(in_a_row, Some(0), most))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            pauses(Healings::MOST_DELAY),
            [
                0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3600, 3600
            ]
        );
        assert_eq!(
            pauses(Duration::from_secs(15))[..8],
            [0, 1, 2, 4, 8, 15, 15, 15]
        );
        assert_eq!(pause(u32::MAX, Some(0), Duration::MAX), 3600);
        // That the last one is long over counts only from an hour on: what was healthy for minutes
        // is not healthy.
        assert_eq!(pause(5, Some(3599), Healings::MOST_DELAY), 16);
        assert_eq!(pause(5, Some(3600), Healings::MOST_DELAY), 0);
        assert_eq!(pause(5, None, Healings::MOST_DELAY), 0);
        let healings = Healings {
            in_a_row: 5,
            ended: Some(Duration::ZERO),
        };
        assert_eq!(healings.that_count().in_a_row, 5);
        assert_eq!(
            Healings {
                ended: None,
                ..healings
            }
            .that_count()
            .in_a_row,
            0
        );
    }
}

//! Delays between tries: exponential with full jitter, never longer than a bound, from the start again after success.
//!
//! Pure: the random number comes in as a value.

use std::time::Duration;

/// Delays of one activity that is tried again for ever.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    attempt: u32,
}

impl Backoff {
    /// Delays from `first` (doubling) up to `most`.
    pub const fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            attempt: 0,
        }
    }

    /// The next delay; `random` lies in [0, 1). At least half of the doubled delay, so that a fleet spreads out and
    /// no try follows at once.
    pub fn next_delay(&mut self, random: f64) -> Duration {
        let doubled = self
            .first
            .saturating_mul(1 << self.attempt.min(20))
            .min(self.most);
        self.attempt = self.attempt.saturating_add(1);
        doubled.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }

    /// Number of tries since the last success.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// It worked: the next delay is the first one again.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_bound_and_start_again_after_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        let delays: Vec<_> = (0..7).map(|_| backoff.next_delay(1.0).as_millis()).collect();
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
}

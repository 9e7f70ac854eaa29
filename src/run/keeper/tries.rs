//! When a failed copy is tried again: each by itself, so that a failure delays no other copy.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

use crate::retry::Backoff;

/// The first delay; it doubles.
const FIRST_DELAY: Duration = Duration::from_secs(1);

/// What failed, and when it is tried again.
#[derive(Debug)]
pub(super) struct Tries<K>(HashMap<K, (Backoff, Instant)>);

impl<K> Default for Tries<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash + Copy> Tries<K> {
    /// It failed, and is tried again after the returned delay, `most` at most.
    pub(super) fn failed(&mut self, which: K, most: Duration, now: Instant) -> Duration {
        let (backoff, next) = self
            .0
            .entry(which)
            .or_insert_with(|| (Backoff::new(FIRST_DELAY, most), now));
        let delay = backoff.next_delay(fastrand::f64());
        *next = now + delay;
        delay
    }

    /// It is done, or no longer wanted: a later failure counts as the first one.
    pub(super) fn forget(&mut self, which: K) {
        self.0.remove(&which);
    }

    /// It is done, and is not done again before it has rested this long, if it has to be. A later
    /// failure is the first one again.
    pub(super) fn done(&mut self, which: K, rest: Duration, most: Duration, now: Instant) {
        let rested = now + rest.clamp(FIRST_DELAY, most);
        self.0
            .insert(which, (Backoff::new(FIRST_DELAY, most), rested));
    }

    /// It was done in another way: earlier failures no longer count. A rest continues.
    pub(super) fn recovered(&mut self, which: K) {
        if self
            .0
            .get(&which)
            .is_some_and(|(failures, _)| failures.attempt() > 0)
        {
            self.forget(which);
        }
    }

    /// Whether it may be tried now.
    pub(super) fn is_due(&self, which: K, now: Instant) -> bool {
        self.0.get(&which).is_none_or(|(_, next)| *next <= now)
    }

    /// Those that may not.
    pub(super) fn later(&self, now: Instant) -> Vec<K> {
        let later = self.0.iter().filter(|(_, (_, next))| *next > now);
        later.map(|(which, _)| *which).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_waits_by_itself_and_longer_each_time() {
        let mut tries = Tries::default();
        let start = Instant::now();
        let mut now = start;
        let most = Duration::from_secs(15);
        let mut last = Duration::ZERO;
        for _ in 0..10 {
            let delay = tries.failed("a", most, now);
            assert!(!tries.is_due("a", now) && tries.is_due("b", now));
            assert_eq!(tries.later(now), ["a"]);
            now += delay;
            assert!(tries.is_due("a", now) && tries.later(now).is_empty());
            last = delay;
        }
        assert!(last >= most / 2 && last <= most, "{last:?}");
        tries.forget("a");
        assert!(tries.failed("a", most, now) <= FIRST_DELAY);
        for (rest, least) in [(0, 1), (5, 5), (100, 15)]
            .map(|(a, b)| (Duration::from_secs(a), Duration::from_secs(b)))
        {
            tries.done("a", rest, most, now);
            assert!(!tries.is_due("a", now + least - Duration::from_millis(1)));
            assert!(tries.is_due("a", now + least));
        }
        tries.recovered("a");
        assert_eq!(tries.later(now), ["a"], "a rest goes on");
        assert!(tries.failed("a", most, now) <= FIRST_DELAY);
        tries.recovered("a");
        assert!(tries.is_due("a", now), "a failure is forgotten");
    }
}

//! What happened in a round, in the order in which it was noted, so that a failure can be replayed
//! by hand.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Shared by everything that acts in a campaign.
#[derive(Debug, Clone)]
pub struct Timeline {
    start: Instant,
    events: Arc<Mutex<Vec<(Duration, String)>>>,
}

impl Timeline {
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
            events: Arc::default(),
        }
    }

    /// Since the start of the campaign.
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    pub fn note(&self, event: impl Into<String>) {
        let event = event.into();
        if std::env::var_os("CDC_TEST_VERBOSE").is_some() {
            eprintln!("{:.3?} {event}", self.now());
        }
        self.events.lock().unwrap().push((self.now(), event));
    }

    /// A round begins: what was before is forgotten.
    pub fn clear(&self) {
        self.events.lock().unwrap().clear();
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        for (at, event) in self.events.lock().unwrap().iter() {
            let _ = writeln!(text, "-- {:.3?}\n{event}", at);
        }
        text
    }
}

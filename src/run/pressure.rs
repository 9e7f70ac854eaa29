//! What the guard of the WAL budget reports to the session: whether the slot is to be given up.

use std::time::Duration;

use tokio::sync::watch;

use crate::error::{Class, Error};

/// How long a session may take to end once it was asked to.
const SESSION_PATIENCE: Duration = Duration::from_secs(5);

/// What the guard has seen last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pressure {
    /// There is no limit, or the slot is below it.
    None,
    /// Above it, not for long yet: an idle position should be acknowledged now.
    High,
    /// The slot is to be given up, and why.
    Exceeded(String),
}

/// What the guard reports to the session.
#[derive(Debug)]
pub(crate) struct Budget(watch::Sender<Pressure>);

impl Default for Budget {
    fn default() -> Self {
        Self(watch::channel(Pressure::None).0)
    }
}

impl Budget {
    /// The guard has looked.
    pub(crate) fn set(&self, pressure: Pressure) {
        self.0.send_if_modified(|before| {
            let changed = *before != pressure;
            *before = pressure;
            changed
        });
    }

    /// Whether positions should be acknowledged at once.
    pub(crate) fn is_high(&self) -> bool {
        *self.0.borrow() == Pressure::High
    }

    /// Why the slot is to be given up, if it is.
    pub(crate) fn exceeded(&self) -> Option<String> {
        match &*self.0.borrow() {
            Pressure::Exceeded(why) => Some(why.clone()),
            Pressure::None | Pressure::High => None,
        }
    }

    /// Waits until the slot is to be given up and the session had its time to end by itself.
    pub(crate) async fn enforced(&self) -> Error {
        let mut pressure = self.0.subscribe();
        loop {
            // Its sender is `self`, so it cannot be closed.
            let _ = pressure
                .wait_for(|seen| matches!(seen, Pressure::Exceeded(_)))
                .await;
            tokio::time::sleep(SESSION_PATIENCE).await;
            if let Some(why) = self.exceeded() {
                return gap(why);
            }
        }
    }
}

/// The error that ends a session whose slot is given up.
pub(crate) fn gap(why: String) -> Error {
    Error::new(Class::Gap, why).with_hint(
        "See what keeps the changes from being applied, or raise source.max_retained_wal.",
    )
}

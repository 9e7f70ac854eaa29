//! The settings in force, which a reload replaces, and the end of the session that has older ones.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::settings::Settings;
use crate::settings::reload::Session;

/// The settings in force.
#[derive(Debug)]
pub(crate) struct InForce {
    settings: watch::Sender<Arc<Settings>>,
    /// Ends the session that runs.
    session: Mutex<CancellationToken>,
}

impl InForce {
    /// From the start.
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings: watch::channel(Arc::new(settings)).0,
            session: Mutex::default(),
        }
    }

    /// The settings as they are now.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.borrow())
    }

    /// What notices each replacement from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Settings>> {
        self.settings.subscribe()
    }

    /// A session begins: its settings, and the token that is cancelled when it shall end, since
    /// `stop` is, or since it has settings that are no longer in force.
    pub(crate) fn begin(&self, stop: &CancellationToken) -> (Arc<Settings>, CancellationToken) {
        let end = stop.child_token();
        // In this order: of settings that are replaced meanwhile, the session sees the new ones, or
        // is ended.
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = end.clone();
        (self.settings(), end)
    }

    /// Replaces the settings.
    pub(crate) fn replace(&self, settings: Settings, session: Session) {
        self.settings.send_replace(Arc::new(settings));
        if session == Session::BeginsAgain {
            let running = self.session.lock().unwrap_or_else(PoisonError::into_inner);
            running.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::reload::tests::settings;

    #[test]
    fn only_a_session_with_older_settings_is_ended() {
        let (stop, in_force) = (CancellationToken::new(), InForce::new(settings()));
        let (first, end) = in_force.begin(&stop);
        let mut other = settings();
        other.log_level = "debug".to_owned();
        let told = in_force.subscribe();
        in_force.replace(other.clone(), Session::Continues);
        assert!(!end.is_cancelled() && told.has_changed().unwrap());
        assert_eq!(*in_force.settings(), other);
        assert_ne!(*first, other, "a session keeps its own");
        in_force.replace(settings(), Session::BeginsAgain);
        assert!(end.is_cancelled() && !stop.is_cancelled());
        let (_, next) = in_force.begin(&stop);
        assert!(!next.is_cancelled());
        stop.cancel();
        assert!(next.is_cancelled());
    }
}

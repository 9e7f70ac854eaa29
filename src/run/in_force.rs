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

    /// Replaces the settings if they are still the `old` ones; returns whether they were.
    pub(crate) fn replace(&self, old: &Arc<Settings>, new: Settings, session: Session) -> bool {
        let new = Arc::new(new);
        let replaced = self.settings.send_if_modified(|now| {
            let same = Arc::ptr_eq(now, old);
            if same {
                *now = new;
            }
            same
        });
        if replaced && session == Session::BeginsAgain {
            let running = self.session.lock().unwrap_or_else(PoisonError::into_inner);
            running.cancel();
        }
        replaced
    }

    /// Puts back in force what a session sets up from the settings that `worked`, after one with
    /// those that `failed` has ended; returns whether it did. It does not where both set up the
    /// same, nor where a reload has replaced what failed.
    ///
    /// Everything else stays as it was read last, secrets too.
    pub(crate) fn put_back(&self, failed: &Settings, worked: &Settings) -> bool {
        self.settings.send_if_modified(|now| {
            let puts_back = now.has_session_of(failed) && !now.has_session_of(worked);
            if puts_back {
                *now = Arc::new(Settings::clone(now).with_session_of(worked));
            }
            puts_back
        })
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
        assert!(in_force.replace(&first, other.clone(), Session::Continues));
        assert!(!end.is_cancelled() && told.has_changed().unwrap());
        assert_eq!(*in_force.settings(), other);
        assert_ne!(*first, other, "a session keeps its own");
        let late = in_force.replace(&first, settings(), Session::BeginsAgain);
        assert!(!late && !end.is_cancelled(), "it was replaced meanwhile");
        assert_eq!(*in_force.settings(), other);
        assert!(in_force.replace(&in_force.settings(), settings(), Session::BeginsAgain));
        assert!(end.is_cancelled() && !stop.is_cancelled());
        let (_, next) = in_force.begin(&stop);
        assert!(!next.is_cancelled());
        stop.cancel();
        assert!(next.is_cancelled());
    }

    #[test]
    fn only_what_failed_is_put_back() {
        let worked = settings();
        let mut failed = settings();
        failed.read_models[0].key = vec!["label".to_owned()];
        failed.source.failover = false;
        failed.log_level = "debug".to_owned();
        let in_force = InForce::new(failed.clone());
        assert!(in_force.put_back(&failed, &worked));
        let mut expected = worked.clone();
        expected.log_level = "debug".to_owned();
        assert_eq!(
            *in_force.settings(),
            expected,
            "what takes effect at once stays"
        );
        assert!(!in_force.put_back(&expected, &worked), "it is the same");
        // A reload since has brought other read models.
        let mut newer = failed.clone();
        newer.read_models[0].synced_at = None;
        let in_force = InForce::new(newer.clone());
        assert!(!in_force.put_back(&failed, &worked));
        assert_eq!(*in_force.settings(), newer);
    }
}

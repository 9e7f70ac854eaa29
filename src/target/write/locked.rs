//! A lookup that another session has locked, for longer than this session waits for a lock.
//!
//! The write is undone, so that whoever waits for what it held gets it, and is tried again in the
//! same session. To give up the session would help nobody: the next one meets the same lock, and
//! a copy or a large transaction would have to be read again.

use crate::error::{Error, LOCKED_HINT};

/// Whether the write ended because a lock was not free in time; the log says so then.
pub(super) fn is_locked(error: &Error) -> bool {
    if !error.is_lock_timeout() {
        return false;
    }
    tracing::warn!(%error, hint = LOCKED_HINT, "a lookup is locked; the batch is written again");
    true
}

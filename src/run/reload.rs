//! SIGHUP: the configuration is read again, and what can change without a restart takes effect.
//!
//! A configuration that cannot be read, or has a mistake, changes nothing. Signals that come while
//! a reload is under way make one more reload.

use tokio::signal::unix::Signal;

use crate::config::Loaded;
use crate::error::{Error, Result};
use crate::run::shared::Shared;
use crate::settings::reload::{Change, Reload, Session, What, compare};
use crate::telemetry;

/// Reloads at each signal until the process is asked to stop. From then on signals do nothing.
pub(crate) async fn at_each(mut hangups: Signal, shared: &Shared) {
    loop {
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            Some(()) = hangups.recv() => {}
        }
        if let Err(error) = reload(shared).await {
            tracing::error!(
                %error,
                detail = error.detail(),
                hint = error.hint(),
                "could not reload the configuration: the old one stays in force"
            );
        }
    }
}

async fn reload(shared: &Shared) -> Result<()> {
    let Some(reread) = &shared.reread else {
        return Ok(());
    };
    // Not here: files on a server that does not answer must not stop the stream.
    let loaded = tokio::task::spawn_blocking(reread.read());
    let loaded = loaded
        .await
        .map_err(|error| Error::transient("could not read the configuration").with_source(error))?;
    take(shared, &loaded?)
}

/// Puts what was read in force.
fn take(shared: &Shared, loaded: &Loaded) -> Result<()> {
    let old = shared.in_force.settings();
    let Reload {
        settings,
        changed,
        needs_restart,
        session,
    } = compare(&old, loaded.settings.clone());
    telemetry::set_level(&settings.log_level)?;
    loaded.log_warnings();
    if settings != *old {
        shared.in_force.replace(settings, session);
    }
    for change in &needs_restart {
        if let Change {
            key,
            what: What::Value { old, new },
        } = change
        {
            tracing::warn!(
                key,
                old,
                new,
                "a changed setting keeps its old value: restart cdc to change it"
            );
        }
    }
    let list: Vec<String> = changed.iter().map(Change::to_string).collect();
    let session = match session {
        Session::Continues => "continues",
        Session::BeginsAgain => "begins again",
    };
    match (list.is_empty(), needs_restart.is_empty()) {
        (false, _) => {
            tracing::info!(changed = list.join(", "), session, "configuration reloaded");
        }
        (true, true) => tracing::info!("configuration reloaded; nothing changed"),
        (true, false) => {
            tracing::info!("configuration reloaded; what changed needs a restart");
        }
    }
    Ok(())
}

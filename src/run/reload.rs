//! SIGHUP: the configuration is read again, and what can change without a restart takes effect.
//!
//! A configuration that cannot be read, or has a mistake, changes nothing. One that drops read
//! models is read again after a moment: half a file may be a right one. Signals that come while a
//! reload is under way make one more reload.

use std::time::Duration;

use tokio::signal::unix::Signal;

use crate::config::Loaded;
use crate::error::{Error, Result};
use crate::run::in_force::InForce;
use crate::run::shared::{Reread, Shared};
use crate::settings::reload::{Change, Reload, Session, What, compare};
use crate::telemetry;

/// How long to wait before a configuration that drops read models is read again, and how often.
const PAUSE: Duration = Duration::from_secs(1);
const READINGS: u32 = 10;

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
    let reading = read_whole(reread, &shared.in_force, PAUSE);
    let Some(loaded) = shared.stop.run_until_cancelled(reading).await else {
        return Ok(());
    };
    let loaded = loaded?;
    loaded.log_warnings();
    let reload = take(&shared.in_force, &loaded)?;
    say(&reload);
    Ok(())
}

async fn read(reread: &Reread) -> Result<Loaded> {
    // Not here: files on a server that does not answer must not stop the stream.
    let loaded = tokio::task::spawn_blocking(reread.read());
    loaded
        .await
        .map_err(|error| Error::transient("could not read the configuration").with_source(error))?
}

/// Reads the configuration. One that drops read models counts only if it is still the same after a
/// `pause`.
async fn read_whole(reread: &Reread, in_force: &InForce, pause: Duration) -> Result<Loaded> {
    let first = read(reread).await?;
    if !compare(&in_force.settings(), first.settings.clone()).drops_a_read_model() {
        return Ok(first);
    }
    let mut last = Ok(first);
    for _ in 0..READINGS {
        tokio::time::sleep(pause).await;
        let next = read(reread).await;
        if reads_the_same(&last, &next) {
            return next;
        }
        last = next;
    }
    Err(Error::transient("the configuration is still being written")
        .with_detail(format!(
            "Each of the last {READINGS} readings differed from the one before."
        ))
        .with_hint("Replace the file in one step (mv), and send SIGHUP once it is complete."))
}

fn reads_the_same(one: &Result<Loaded>, other: &Result<Loaded>) -> bool {
    match (one, other) {
        (Ok(one), Ok(other)) => one.settings == other.settings,
        (Err(one), Err(other)) => one.to_string() == other.to_string(),
        _ => false,
    }
}

/// Puts what was read in force.
fn take(in_force: &InForce, loaded: &Loaded) -> Result<Reload> {
    loop {
        let old = in_force.settings();
        let reload = compare(&old, loaded.settings.clone());
        telemetry::set_level(&reload.settings.log_level)?;
        let new = reload.settings.clone();
        // Where older settings were put back meanwhile, it is compared with those.
        if new == *old || in_force.replace(&old, new, reload.session) {
            return Ok(reload);
        }
    }
}

fn say(reload: &Reload) {
    let Reload {
        settings: _,
        changed,
        needs_restart,
        session,
    } = reload;
    for change in needs_restart {
        match change {
            Change {
                key,
                what: What::Value { old, new },
            } => tracing::warn!(
                key,
                old,
                new,
                "a changed setting keeps its old value: restart cdc to change it"
            ),
            change => tracing::warn!(
                changed = %change,
                "a change waits for the restart, as settings beside it do: restart cdc"
            ),
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
}

#[cfg(test)]
mod tests;

//! Signals. The request to stop: the first SIGTERM or Ctrl-C asks, the second one ends the process
//! at once. For `cdc run`, SIGHUP asks for a reload, and what other daemons give a meaning to is
//! ignored.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::error::{Class, Error, Result};

/// A token that every task can wait for; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Stop(CancellationToken);

impl Stop {
    /// A request without a signal; for tests and for stopping by hand.
    pub fn new() -> Self {
        Self::default()
    }

    /// Listens for SIGTERM and SIGINT from now on. Must be called within the runtime.
    ///
    /// # Errors
    ///
    /// Transient, if the system refuses the handlers.
    pub(crate) fn on_signals() -> Result<Self> {
        let terminate = listen(SignalKind::terminate())?;
        let interrupt = listen(SignalKind::interrupt())?;
        let stop = Self::new();
        tokio::spawn(watch(stop.clone(), terminate, interrupt));
        Ok(stop)
    }

    /// Asks all tasks to stop.
    pub(crate) fn request(&self) {
        self.0.cancel();
    }

    /// Returns once a stop is requested; safe to drop.
    pub(crate) async fn requested(&self) {
        self.0.cancelled().await;
    }

    /// The token itself, for tasks that take one.
    pub(crate) fn token(&self) -> &CancellationToken {
        &self.0
    }

    /// The result of `work`, or an error of class [`Class::Interrupted`] if a stop is requested
    /// before it is done. `work` is dropped then, so it must be safe to drop.
    ///
    /// # Errors
    ///
    /// Those of `work`, and interrupted.
    pub(crate) async fn or_interrupted<T>(
        &self,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        tokio::select! {
            biased;
            () = self.requested() => Err(Error::new(Class::Interrupted, "stopped on request")),
            result = work => result,
        }
    }
}

fn listen(kind: SignalKind) -> Result<Signal> {
    signal(kind)
        .map_err(|error| Error::transient("could not listen for signals").with_source(error))
}

/// From now on SIGHUP, SIGUSR1 and SIGUSR2 do not end the process, as long as it lives. SIGHUPs
/// come out of what is returned, several of them as one. Must be called within the runtime.
///
/// # Errors
///
/// Transient, if the system refuses the handlers.
pub(crate) fn hangups() -> Result<Signal> {
    let hangups = listen(SignalKind::hangup())?;
    // A handler stays when its receiver is dropped.
    for ignored in [SignalKind::user_defined1(), SignalKind::user_defined2()] {
        drop(listen(ignored)?);
    }
    Ok(hangups)
}

/// Cancels on the first signal and exits on the second, with the code that a shell gives to that
/// signal.
async fn watch(stop: Stop, mut terminate: Signal, mut interrupt: Signal) {
    let mut seen = false;
    loop {
        let code = tokio::select! {
            _ = terminate.recv() => 143,
            _ = interrupt.recv() => 130,
        };
        if seen {
            crate::telemetry::progress::clear();
            crate::telemetry::stderr::flush();
            std::process::exit(code);
        }
        seen = true;
        tracing::info!("stopping; a second signal stops at once");
        stop.request();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn request_interrupts_work() {
        let stop = Stop::new();
        assert_eq!(stop.or_interrupted(async { Ok(1) }).await.unwrap(), 1);
        stop.clone().request();
        assert!(stop.0.is_cancelled());
        let error = stop
            .or_interrupted(std::future::pending::<Result<()>>())
            .await
            .unwrap_err();
        assert_eq!(error.class(), Class::Interrupted);
    }

    #[tokio::test]
    async fn first_signal_asks_to_stop() {
        let stop = Stop::on_signals().unwrap();
        let own = std::process::id().to_string();
        let kill = std::process::Command::new("kill")
            .args(["-TERM", &own])
            .status();
        assert!(kill.unwrap().success());
        let limit = std::time::Duration::from_secs(10);
        tokio::time::timeout(limit, stop.requested()).await.unwrap();
    }
}

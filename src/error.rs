//! The error of the crate: what happened, why, what to do, and what follows from it.
//!
//! Errors are sorted by their consequence ([`Class`]), since that is all the loop has to know: try
//! again, suspend a read model, or stop. The text follows PostgreSQL's style: a lower-case primary
//! message without a full stop, a detail and a hint as whole sentences.
//!
//! No error carries a row value: of a server's error on row data only the SQLSTATE and the names of
//! objects are kept (the edges see to that when they convert a driver's error).

use std::fmt;
use std::sync::Arc;

/// Result of nearly every fallible function of the crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What to do about a lock that was not free in time (`run/locks.rs` has the time).
pub(crate) const LOCKED_HINT: &str = "Another session has locked a table for longer than 30 s; cdc \
    tries again until it is free. pg_locks names who holds it.";

/// What an error means for the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The next try may succeed: connection lost, server restarting, lock, timeout, disk full.
    /// Retried for ever.
    Transient,
    /// The target rejects a row (SQLSTATE classes 22, 23, 44, 54, P0001, 21000).
    Rejected,
    /// One read model cannot continue (a missing column, an incompatible type, an unchanged value
    /// that is stored nowhere).
    Broken,
    /// The stream cannot continue from the checkpoint: only a new slot and exact copies help.
    Gap,
    /// Another process has taken over the pipeline.
    Fenced,
    /// The configuration, or a server's settings, must be changed by a person. Exit code 2.
    Configuration,
    /// The user asked to stop.
    Interrupted,
}

/// An error with its class, and the text for a person.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    class: Class,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
    sqlstate: Option<String>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of the given class with its primary message.
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            class,
            message: message.into(),
            detail: None,
            hint: None,
            sqlstate: None,
            source: None,
        }))
    }

    /// An error that the next try may not meet.
    pub fn transient(message: impl Into<String>) -> Self {
        Self::new(Class::Transient, message)
    }

    /// An error that only a person can correct, in the configuration or in a server's settings.
    pub(crate) fn configuration(message: impl Into<String>) -> Self {
        Self::new(Class::Configuration, message)
    }

    /// An error that stops one read model.
    pub fn broken(message: impl Into<String>) -> Self {
        Self::new(Class::Broken, message)
    }

    /// A break of the wire protocol by the server: the connection is closed and opened again.
    pub(crate) fn protocol(message: impl Into<String>) -> Self {
        Self::new(Class::Transient, message)
    }

    /// Adds why it happened, as a whole sentence.
    #[must_use]
    pub(crate) fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// Adds what to do about it, as a whole sentence.
    #[must_use]
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds the server's error code.
    #[must_use]
    pub(crate) fn with_sqlstate(mut self, sqlstate: impl Into<String>) -> Self {
        self.0.sqlstate = Some(sqlstate.into());
        self
    }

    /// Adds the error below this one.
    #[must_use]
    pub(crate) fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.0.source = Some(Arc::from(source.into()));
        self
    }

    /// The same error with another consequence.
    #[must_use]
    pub(crate) fn with_class(mut self, class: Class) -> Self {
        self.0.class = class;
        self
    }

    /// Puts what was being done before the message: `could not read the slot: connection refused`.
    #[must_use]
    pub(crate) fn context(mut self, doing: impl fmt::Display) -> Self {
        self.0.message = format!("{doing}: {}", self.0.message);
        self
    }

    /// What the error means for the process.
    pub fn class(&self) -> Class {
        self.0.class
    }

    /// The primary message alone.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Why it happened, if known.
    pub fn detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    /// The text with its detail behind it, for where there is room for one text only.
    pub(crate) fn with_its_detail(&self) -> String {
        match self.detail() {
            Some(detail) => format!("{self} ({})", detail.trim_end_matches('.')),
            None => self.to_string(),
        }
    }

    /// What to do about it, if anything can be done.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The server's SQLSTATE, if a server reported the error.
    pub fn sqlstate(&self) -> Option<&str> {
        self.0.sqlstate.as_deref()
    }

    /// Whether a lock was not free in time (lock_not_available).
    pub(crate) fn is_lock_timeout(&self) -> bool {
        self.sqlstate() == Some("55P03")
    }

    /// Whether the next try may succeed by itself.
    pub fn is_transient(&self) -> bool {
        self.0.class == Class::Transient
    }
}

/// The primary message with the chain of causes, on one line.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.class)?;
        if let Some(detail) = self.detail() {
            write!(f, " (detail: {detail})")?;
        }
        if let Some(hint) = self.hint() {
            write!(f, " (hint: {hint})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let source: &(dyn std::error::Error + 'static) = self.0.source.as_deref()?;
        Some(source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_is_followed_by_the_chain_of_causes() {
        let error =
            Error::transient("could not connect").with_source(std::io::Error::other("refused"));
        assert_eq!(error.to_string(), "could not connect: refused");
        assert_eq!(
            error.context("could not read the slot").to_string(),
            "could not read the slot: could not connect: refused"
        );
    }

    #[test]
    fn nothing_that_is_known_of_an_error_is_lost_on_the_way_to_a_person() {
        let bare = Error::configuration("no such table");
        assert_eq!(
            (bare.detail(), bare.hint(), bare.sqlstate()),
            (None, None, None)
        );
        assert_eq!(bare.with_its_detail(), "no such table");
        assert_eq!(format!("{bare:?}"), "Configuration: no such table");

        let full = bare
            .with_detail("It was dropped.")
            .with_hint("Create it.")
            .with_sqlstate("42P01")
            .with_source(std::io::Error::other("refused"));
        assert_eq!(full.message(), "no such table");
        assert_eq!(
            (full.detail(), full.hint(), full.sqlstate()),
            (Some("It was dropped."), Some("Create it."), Some("42P01"))
        );
        assert_eq!(
            full.with_its_detail(),
            "no such table: refused (It was dropped)"
        );
        assert_eq!(
            format!("{full:?}"),
            "Configuration: no such table: refused (detail: It was dropped.) (hint: Create it.)"
        );
    }

    #[test]
    fn only_what_may_pass_by_itself_is_tried_again() {
        for (error, class) in [
            (Error::transient("x"), Class::Transient),
            (Error::protocol("x"), Class::Transient),
            (Error::broken("x"), Class::Broken),
            (Error::configuration("x"), Class::Configuration),
            (Error::new(Class::Gap, "x"), Class::Gap),
            (
                Error::transient("x").with_class(Class::Fenced),
                Class::Fenced,
            ),
        ] {
            assert_eq!(error.class(), class);
            assert_eq!(error.is_transient(), class == Class::Transient, "{class:?}");
        }
    }
}

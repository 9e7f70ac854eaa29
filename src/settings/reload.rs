//! What follows from a configuration that was read again: which settings are in force from now on,
//! what changed, and what cannot change while the process runs.
//!
//! | what changed | what follows |
//! |---|---|
//! | log level, schedule, limit of the WAL, and of a URL all but hosts and database | in force at once, or from the next connection on |
//! | a read model, and what a session sets up when it begins | the session ends in order, and the next one begins with it |
//! | hosts and databases, and the names of slot, publication and schema | the old value stays in force until a restart: they say which pipeline this is |
//!
//! A configuration of another pipeline has the read models of that one. So where a restart is
//! needed, what would begin a new session waits for it, too.

use std::fmt;

use super::keys::{SOURCE, Takes, differing, entries};
use super::{ReadModelSettings, Settings};
use crate::conninfo::Conninfo;

/// What follows from settings that were read again.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reload {
    /// What is in force from now on: the new settings, with the old values where a restart is
    /// needed.
    pub settings: Settings,
    /// What changed.
    pub changed: Vec<Change>,
    /// What would have changed, but needs a restart or waits for it.
    pub needs_restart: Vec<Change>,
    /// Whether the session must begin again.
    pub session: Session,
}

/// What becomes of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Session {
    /// It continues as if nothing had happened.
    Continues,
    /// It ends in order, and the next one begins with the new settings.
    BeginsAgain,
}

/// A difference between two configurations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    /// The key, or what it is about.
    pub key: String,
    /// What about it changed.
    pub what: What,
}

/// What about a key changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// The value, which is no secret.
    Value {
        /// Until now.
        old: String,
        /// What was read.
        new: String,
    },
    /// Something that is not shown.
    Hidden,
    /// A read model that was not there.
    Added,
    /// A read model that is there no more.
    Removed,
    /// These keys of a read model.
    Keys(Vec<&'static str>),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        match &self.what {
            What::Value { old, new } => write!(f, " {old:?} -> {new:?}"),
            What::Hidden => Ok(()),
            What::Added => f.write_str(" added"),
            What::Removed => f.write_str(" removed"),
            What::Keys(keys) => write!(f, " changed ({})", keys.join(", ")),
        }
    }
}

/// Compares the settings in force with those that were read.
pub(crate) fn compare(old: &Settings, new: Settings) -> Reload {
    let mut reload = Reload {
        settings: new,
        changed: Vec::new(),
        needs_restart: Vec::new(),
        session: Session::Continues,
    };
    let mut of_session = reload.keys(old);
    of_session.extend(read_models(&old.read_models, &reload.settings.read_models));
    let Settings { source, target, .. } = &mut reload.settings;
    let source_url = ("source", &old.source.conninfo, &mut source.conninfo);
    let target_url = ("target", &old.target.conninfo, &mut target.conninfo);
    for (side, old, new) in [source_url, target_url] {
        match url(side, old, new) {
            Url::Same => {}
            Url::Changed(changes) => reload.changed.extend(changes),
            Url::Elsewhere(change) => {
                *new = old.clone();
                reload.needs_restart.push(change);
            }
        }
    }
    source.publication.clone_from(&old.source.publication);
    source.slot.clone_from(&old.source.slot);
    target.schema.clone_from(&old.target.schema);
    if !reload.needs_restart.is_empty() {
        reload.settings = reload.settings.with_session_of(old);
        reload.needs_restart.extend(of_session);
    } else if !of_session.is_empty() {
        reload.session = Session::BeginsAgain;
        reload.changed.extend(of_session);
    }
    reload
}

impl Settings {
    /// These settings, but what a session sets up when it begins is as in `other`.
    pub(crate) fn with_session_of(mut self, other: &Self) -> Self {
        let (source, target) = (&mut self.source, &mut self.target);
        source.publish_projected_columns = other.source.publish_projected_columns;
        source.failover = other.source.failover;
        target.synchronous_commit = other.target.synchronous_commit;
        self.status_interval = other.status_interval;
        self.read_models.clone_from(&other.read_models);
        self
    }

    /// Whether a session with these settings is as one with `other` when it begins.
    pub(crate) fn has_session_of(&self, other: &Self) -> bool {
        let same = compare(self, self.clone().with_session_of(other));
        same.session == Session::Continues
    }
}

impl Reload {
    /// All keys but URLs and read models; returns the changes that need a new session.
    fn keys(&mut self, old: &Settings) -> Vec<Change> {
        let mut of_session = Vec::new();
        let both = entries(old).into_iter().zip(entries(&self.settings));
        for (old, new) in both {
            if old.value == new.value || old.key.ends_with(".url") {
                continue;
            }
            let change = changed(old.key, old.value, new.value);
            match new.takes {
                Takes::Restart => self.needs_restart.push(change),
                Takes::AtOnce => self.changed.push(change),
                Takes::NewSession => of_session.push(change),
            }
        }
        of_session
    }

    /// Whether a read model that was followed is followed no more, or has another source. Half a
    /// file reads like this.
    pub(crate) fn drops_a_read_model(&self) -> bool {
        let mut changes = self.changed.iter().chain(&self.needs_restart);
        changes.any(|change| match &change.what {
            What::Removed => true,
            What::Keys(keys) => keys.contains(&SOURCE),
            What::Value { .. } | What::Hidden | What::Added => false,
        })
    }
}

/// The order of the read models means nothing.
fn read_models(old: &[ReadModelSettings], new: &[ReadModelSettings]) -> Vec<Change> {
    let gone = old.iter().filter(|old| named(new, old).is_none());
    let gone = gone.map(|old| (old, What::Removed));
    let others = new.iter().filter_map(|new| match named(old, new) {
        None => Some((new, What::Added)),
        Some(old) if old == new => None,
        Some(old) => Some((new, What::Keys(differing(old, new)))),
    });
    let changes = others.chain(gone).map(|(model, what)| Change {
        key: format!("read_model {}", model.name()),
        what,
    });
    changes.collect()
}

fn named<'a>(
    models: &'a [ReadModelSettings],
    like: &ReadModelSettings,
) -> Option<&'a ReadModelSettings> {
    models.iter().find(|model| model.target == like.target)
}

/// How two connection strings of one side differ.
enum Url {
    Same,
    /// The place is the same.
    Changed(Vec<Change>),
    /// It leads to other hosts, or to another database.
    Elsewhere(Change),
}

fn url(side: &str, old: &Conninfo, new: &Conninfo) -> Url {
    if old == new {
        return Url::Same;
    }
    let key = format!("{side}.url");
    let (old_url, new_url) = (old.masked_url(), new.masked_url());
    let taken = old.clone().with_secrets_of(new.clone());
    if taken != *new {
        return Url::Elsewhere(changed(&key, old_url, new_url));
    }
    let mut changes = Vec::new();
    if old_url != new_url {
        changes.push(changed(&key, old_url, new_url));
    }
    let hidden = |key| Change {
        key,
        what: What::Hidden,
    };
    if old.password != new.password {
        // It may come from any of six places, so no key is named.
        changes.push(hidden(format!("{side} password")));
    } else if changes.is_empty() {
        changes.push(hidden(key));
    }
    Url::Changed(changes)
}

fn changed(key: &str, old: String, new: String) -> Change {
    Change {
        key: key.to_owned(),
        what: What::Value { old, new },
    }
}

#[cfg(test)]
pub(crate) mod tests;

//! Which server a session is with, and whether it is acceptable.
//!
//! Several hosts of one connection string, or several servers behind one address, may take a
//! connection: a primary, its standbys, a primary that was replaced and came back. What a session
//! begins at one of them it must continue at the same one: a slot, its snapshot, and queries about
//! running transactions.

use super::options::not_in_force;
use super::side::Side;
use crate::conninfo::TargetSessionAttrs;
use crate::error::{Error, Result};

/// The first statement of a session: which server it is with, and which of its settings are not in
/// force. It turns off the timeouts that only newer servers know (14 and 17).
pub(crate) fn look_around(side: Side) -> String {
    format!(
        "SELECT pg_catalog.pg_backend_pid(), pg_catalog.current_setting('server_version_num'), \
         pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('transaction_read_only'), \
         (extract(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint, {}, \
         (SELECT pg_catalog.count(pg_catalog.set_config(name, '0', false)) \
          FROM pg_catalog.pg_settings \
          WHERE name IN ('idle_session_timeout', 'transaction_timeout'{}))",
        not_in_force(side),
        match side {
            Side::Source => "",
            // The lookups are written, whatever the role's transactions are by default.
            Side::Target => ", 'default_transaction_read_only'",
        }
    )
}

/// A running server, identified by the time of its start in microseconds (pg_postmaster_start_time,
/// which every role may call). All its sessions report the same time; another server, or its next
/// start, has another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Instance(i64);

/// Which server of the connection string is acceptable, besides what its target_session_attrs says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wanted {
    /// Any.
    #[default]
    Any,
    /// One that is no standby.
    Primary,
    /// This one, still running and no standby.
    Instance(Instance),
}

/// What a new session says of itself and its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Session {
    pub(crate) backend_pid: i32,
    pub(crate) server_version: u32,
    pub(crate) in_recovery: bool,
    read_only: bool,
    pub(crate) instance: Instance,
}

impl Session {
    /// Reads the answer to [`look_around`].
    ///
    /// # Errors
    /// Configuration: settings that are not in force.
    pub(crate) fn read<'a>(
        mut values: impl Iterator<Item = Option<&'a str>>,
        side: Side,
    ) -> Result<Self> {
        let mut next = || values.next().flatten();
        let session = (|| {
            Some(Self {
                backend_pid: next()?.parse().ok()?,
                server_version: next()?.parse().ok()?,
                in_recovery: next()? == "t",
                read_only: next()? == "on",
                instance: Instance(next()?.parse().ok()?),
            })
        })();
        let unread = || Error::protocol("could not read what the new session says of itself");
        let session = session.ok_or_else(unread)?;
        match next().ok_or_else(unread)? {
            "" => Ok(session),
            others => Err(not_set(others, side)),
        }
    }

    /// Why this server is not acceptable; `None` if it is. In the last round for `prefer-standby` a
    /// primary is acceptable.
    pub(crate) fn mismatch(
        self,
        attrs: TargetSessionAttrs,
        wanted: Wanted,
        last_round: bool,
    ) -> Option<Error> {
        let reads_only = self.in_recovery || self.read_only;
        let reason = match attrs {
            TargetSessionAttrs::ReadWrite if reads_only => "the server does not accept writes",
            TargetSessionAttrs::ReadOnly if !reads_only => "the server accepts writes",
            TargetSessionAttrs::Primary if self.in_recovery => "the server is a standby",
            TargetSessionAttrs::Standby if !self.in_recovery => "the server is not a standby",
            TargetSessionAttrs::PreferStandby if !self.in_recovery && !last_round => {
                "the server is not a standby"
            }
            _ => return self.unwanted(wanted),
        };
        Some(Error::transient(reason))
    }

    fn unwanted(self, wanted: Wanted) -> Option<Error> {
        if wanted != Wanted::Any && self.in_recovery {
            return Some(
                Error::transient("the server is a standby")
                    .with_detail("It cannot be written, and a slot on it would not do.")
                    .with_hint(
                        "Name the primary in the URL, or all servers with target_session_attrs=read-write.",
                    ),
            );
        }
        match wanted {
            Wanted::Instance(instance) if instance != self.instance => Some(Error::transient(
                "it is another server than the one that the stream is with, or has been restarted",
            )),
            _ => None,
        }
    }
}

/// The session is not set to what was asked for.
fn not_set(settings: &str, side: Side) -> Error {
    Error::configuration("the session does not have the settings that cdc asks for")
        .with_detail(format!("In this session {settings}."))
        .with_hint(format!(
            "A connection pooler such as PgBouncer leaves them out. Give the address of the server \
             itself in the {side}'s URL."
        ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(in_recovery: &str, read_only: &str, started: &str) -> Session {
        let values = ["7", "150018", in_recovery, read_only, started, "", "1"];
        Session::read(values.into_iter().map(Some), Side::Source).unwrap()
    }

    #[test]
    fn a_server_will_do_as_target_session_attrs_says() {
        let primary = session("f", "off", "1");
        let standby = session("t", "on", "1");
        for (attrs, primary_will_do, standby_will_do) in [
            (TargetSessionAttrs::Any, true, true),
            (TargetSessionAttrs::ReadWrite, true, false),
            (TargetSessionAttrs::Primary, true, false),
            (TargetSessionAttrs::ReadOnly, false, true),
            (TargetSessionAttrs::Standby, false, true),
            (TargetSessionAttrs::PreferStandby, false, true),
        ] {
            let will_do = |session: Session| session.mismatch(attrs, Wanted::Any, false).is_none();
            assert_eq!(will_do(primary), primary_will_do, "{attrs:?}");
            assert_eq!(will_do(standby), standby_will_do, "{attrs:?}");
        }
        // A primary whose sessions do not write by default.
        let reader = session("f", "on", "1");
        for (attrs, will_do) in [
            (TargetSessionAttrs::ReadWrite, false),
            (TargetSessionAttrs::Primary, true),
            (TargetSessionAttrs::ReadOnly, true),
            (TargetSessionAttrs::Standby, false),
        ] {
            let mismatch = reader.mismatch(attrs, Wanted::Any, false);
            assert_eq!(mismatch.is_none(), will_do, "{attrs:?}");
        }
        let last_round = primary.mismatch(TargetSessionAttrs::PreferStandby, Wanted::Primary, true);
        assert!(last_round.is_none());
    }

    #[test]
    fn a_standby_or_another_server_is_not_wanted_for_a_stream() {
        let here = session("f", "off", "1000000000000001");
        for (found, wanted, will_do) in [
            (here, Wanted::Primary, true),
            (session("t", "on", "1"), Wanted::Primary, false),
            // Promoted in the meantime, or not: it is not the server where the work began.
            (
                session("f", "off", "1000000000000002"),
                Wanted::Instance(here.instance),
                false,
            ),
            (
                session("t", "on", "1000000000000001"),
                Wanted::Instance(here.instance),
                false,
            ),
            (here, Wanted::Instance(here.instance), true),
        ] {
            let mismatch = found.mismatch(TargetSessionAttrs::Any, wanted, true);
            assert_eq!(mismatch.is_none(), will_do, "{found:?} {wanted:?}");
        }
    }
}

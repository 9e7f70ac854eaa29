//! Which server a session is with, and whether it is acceptable.
//!
//! Several hosts of one connection string, or several servers behind one address, may take a
//! connection: a primary, its standbys, a primary that was replaced and came back. What a session
//! begins at one of them it must continue at the same one: a slot, its snapshot, and queries about
//! running transactions.

use tokio_postgres::Client;

use super::error::from_driver;
use super::facts;
use crate::conninfo::TargetSessionAttrs;
use crate::error::{Error, Result};
use crate::progress::SourceIdentity;

/// Turns off the timeouts that only newer servers know (14 and 17), and returns what kind of server
/// it is.
pub(super) const LOOK_AROUND: &str = "SELECT pg_backend_pid(), current_setting('server_version_num'), \
     pg_is_in_recovery(), current_setting('transaction_read_only'), \
     (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint, \
     (SELECT count(set_config(name, '0', false)) FROM pg_settings \
      WHERE name IN ('idle_session_timeout', 'transaction_timeout'))";

/// A running server, identified by the time of its start in microseconds (pg_postmaster_start_time,
/// which every role may call). All its sessions report the same time; another server, or its next
/// start, has another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Instance(i64);

/// Which server of the connection string is acceptable, besides what its target_session_attrs says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Wanted {
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
pub(super) struct Session {
    pub(super) backend_pid: i32,
    pub(super) server_version: u32,
    pub(super) in_recovery: bool,
    read_only: bool,
    pub(super) instance: Instance,
}

impl Session {
    /// Reads the answer to [`LOOK_AROUND`].
    pub(super) fn read<'a>(mut values: impl Iterator<Item = Option<&'a str>>) -> Result<Self> {
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
        session.ok_or_else(|| Error::protocol("could not read what the new session says of itself"))
    }

    /// Why this server is not acceptable; `None` if it is. In the last round for `prefer-standby` a
    /// primary is acceptable.
    pub(super) fn mismatch(
        self,
        attrs: TargetSessionAttrs,
        wanted: Wanted,
        last_round: bool,
    ) -> Option<Error> {
        let reads_only = self.in_recovery || self.read_only;
        let reason = match attrs {
            TargetSessionAttrs::ReadWrite if reads_only => "the server does not accept writes",
            TargetSessionAttrs::ReadOnly if !reads_only => "the server accepts writes",
            TargetSessionAttrs::PreferStandby if !self.in_recovery && !last_round => {
                "the server is not a standby"
            }
            _ => return self.unwanted(wanted),
        };
        Some(Error::transient(reason))
    }

    fn unwanted(self, wanted: Wanted) -> Option<Error> {
        if wanted != Wanted::Any && self.in_recovery {
            return Some(Error::transient("the server is a standby").with_hint(
                "Name the primary in source.url, or all servers with target_session_attrs=read-write.",
            ));
        }
        match wanted {
            Wanted::Instance(instance) if instance != self.instance => Some(Error::transient(
                "it is another server than the one that the stream is with, or has been restarted",
            )),
            _ => None,
        }
    }
}

/// Which source this is, as IDENTIFY_SYSTEM says it, if it is a primary.
///
/// # Errors
/// Whatever the server or the connection reports.
pub(crate) async fn identity(client: &Client) -> Result<SourceIdentity> {
    // The name of a WAL file begins with its timeline, in hexadecimal.
    let sql =
        "SELECT pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8)";
    let row = client.query_one(sql, &[]).await.map_err(from_driver)?;
    let timeline: &str = row.try_get(0).map_err(from_driver)?;
    let (system_identifier, database) = facts::system(client).await?;
    Ok(SourceIdentity {
        system_identifier,
        timeline: i32::from_str_radix(timeline, 16)
            .map_err(|_| Error::protocol("could not read the server's timeline"))?,
        database,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(in_recovery: &str, read_only: &str, started: &str) -> Session {
        let values = ["7", "150018", in_recovery, read_only, started, "1"];
        Session::read(values.into_iter().map(Some)).unwrap()
    }

    #[test]
    fn a_server_will_do_as_target_session_attrs_says() {
        let primary = session("f", "off", "1");
        let standby = session("t", "on", "1");
        for (attrs, primary_will_do, standby_will_do) in [
            (TargetSessionAttrs::Any, true, true),
            (TargetSessionAttrs::ReadWrite, true, false),
            (TargetSessionAttrs::ReadOnly, false, true),
            (TargetSessionAttrs::PreferStandby, false, true),
        ] {
            let will_do = |session: Session| session.mismatch(attrs, Wanted::Any, false).is_none();
            assert_eq!(will_do(primary), primary_will_do, "{attrs:?}");
            assert_eq!(will_do(standby), standby_will_do, "{attrs:?}");
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

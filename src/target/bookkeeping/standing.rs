//! Whether a `cdc` keeps these lookups at the moment, for a command that only compares them:
//! nothing is created or brought up to date.

use super::Bookkeeping;
use super::schema::{VERSION, written_by_batches};
use crate::connect::Connection;
use crate::connect::query::query;
use crate::error::{Error, Result};
use crate::target::error::from_driver;
use crate::target::presence::{Presence, presence};

/// The state of the pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It has never run.
    New,
    /// The role may not read the bookkeeping.
    Hidden,
    /// It has run, and does not run now.
    Stopped {
        /// When its position was last stored, as RFC 3339.
        applied_at: Option<String>,
    },
    /// A `cdc` is at work.
    Running,
}

impl Bookkeeping {
    /// The state of the pipeline.
    ///
    /// # Errors
    /// [`Class::Configuration`](crate::error::Class::Configuration) if a `cdc` runs that is newer
    /// than this one.
    pub(crate) async fn standing(&self, conn: &mut Connection) -> Result<Standing> {
        if presence(conn, &self.name).await? != Presence::Ours {
            return Ok(Standing::New);
        }
        let (checkpoint, _) = written_by_batches(conn, &self.schema).await?;
        let sql = format!(
            "SELECT EXISTS (SELECT FROM {session}), (SELECT max(version) FROM {schema}.version), \
             pg_catalog.to_char(c.applied_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') FROM {schema}.pipeline p CROSS JOIN {checkpoint} c",
            session = self.owners_session(),
            schema = self.schema
        );
        let row = match query(sql).optional(conn).await {
            Ok(row) => row,
            Err(error) => {
                let error = from_driver(error);
                return hidden(&error).then_some(Standing::Hidden).ok_or(error);
            }
        };
        let Some(row) = row else {
            return Ok(Standing::New);
        };
        if !row.try_get::<_, bool>(0).map_err(from_driver)? {
            let applied_at = row.try_get(2).map_err(from_driver)?;
            return Ok(Standing::Stopped { applied_at });
        }
        match row.try_get::<_, Option<i32>>(1).map_err(from_driver)? {
            Some(version) if version > VERSION => Err(self.is_newer(version)),
            _ => Ok(Standing::Running),
        }
    }
}

/// Whether this role lacks a privilege on the bookkeeping.
pub(crate) fn hidden(error: &Error) -> bool {
    error.sqlstate() == Some("42501")
}

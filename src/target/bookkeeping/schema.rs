//! Creates the bookkeeping's schema, or brings an older version of it up to date.

use super::Bookkeeping;
use crate::connect::Connection;
use crate::connect::query::query;
use crate::error::{Error, Result};
use crate::sql::{fill, literal};
use crate::target::error::from_driver;

/// Version of the bookkeeping schema that this program writes.
pub(super) const VERSION: i32 = 6;

/// The role that owns the database, as SQL: it needs to read everything that is created here, to
/// dump the database.
pub(crate) const DATABASE_OWNER: &str = "CASE WHEN pg_catalog.current_setting('server_version_num')::integer >= 140000 THEN 'pg_database_owner' \
    ELSE (SELECT pg_catalog.pg_get_userbyid(d.datdba) FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()) END";

/// Where the rows are that every batch writes, as relations of a FROM clause: checkpoint, counted.
pub(crate) async fn written_by_batches(
    conn: &mut Connection,
    schema: &str,
) -> Result<(String, String)> {
    let exists: bool = query("SELECT pg_catalog.to_regclass($1) IS NOT NULL")
        .bind(format!("{schema}.checkpoint"))
        .value(conn)
        .await
        .map_err(from_driver)?;
    Ok(if exists {
        (format!("{schema}.checkpoint"), format!("{schema}.counted"))
    } else {
        // Until version 4 they were columns of others.
        (
            format!(
                "(SELECT lsn, commit_time, last_commit_lsn, last_commit_time, applied_at FROM {schema}.pipeline)"
            ),
            format!("(SELECT id AS read_model, rows, last_change_at FROM {schema}.read_model)"),
        )
    })
}

impl Bookkeeping {
    /// The statements that create the schema; harmless where it exists.
    pub(crate) fn create_sql(&self) -> String {
        let name = literal(&self.name);
        let [pipeline, version, rejection] = ["pipeline", "version", "rejection"]
            .map(|table| literal(&format!("{}.{table}", self.schema)));
        [
            include_str!("../../../sql/target/schema/bookkeeping.sql"),
            include_str!("../../../sql/target/schema/rejections.sql"),
            include_str!("../../../sql/target/schema/wait_for.sql"),
            include_str!("../../../sql/target/schema/comments.sql"),
            include_str!("../../../sql/target/schema/settled.sql"),
        ]
        .map(|template| {
            let places = [
                ("schema", self.schema.as_str()),
                ("schema_name", &name),
                ("pipeline_name", &pipeline),
                ("version_name", &version),
                ("rejection_name", &rejection),
                ("?database_owner", DATABASE_OWNER),
            ];
            fill(template, &places)
        })
        .join("\n")
    }

    /// Creates what is missing: everything, or what a later version has added.
    ///
    /// # Errors
    /// [`Class::Configuration`](crate::error::Class::Configuration) if a newer version, or
    /// something else than `cdc`, has created the schema.
    pub async fn ensure(&self, conn: &mut Connection) -> Result<()> {
        let doing = match self.stored_version(conn).await? {
            Some(version) if version > VERSION => {
                return Err(self.is_newer(version));
            }
            Some(VERSION) => return Ok(()),
            Some(_) => "bring up to date",
            None => "create",
        };
        // Two processes may start at once, and IF NOT EXISTS does not wait for the other one's
        // commit.
        let lock = format!(
            "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext({}))",
            literal(&format!("cdc bookkeeping {}", self.name))
        );
        let sql = format!("BEGIN;\n{lock};\n{}\nCOMMIT", self.create_sql());
        conn.batch_execute(&sql)
            .await
            .map_err(|error| {
                let error = from_driver(error).context(format!("could not {doing} schema {}", self.schema));
                if error.sqlstate() == Some("42501") {
                    error.with_hint("GRANT CREATE, TEMPORARY ON DATABASE ... TO the role of the target's URL; or let `cdc setup --print-sql` show what to run as its owner.")
                } else {
                    error
                }
            })?;
        Ok(())
    }

    /// Whether there is nothing to create or to bring up to date.
    pub(crate) async fn is_current(&self, conn: &mut Connection) -> Result<bool> {
        let version = self.stored_version(conn).await?;
        Ok(version.is_some_and(|version| version >= VERSION))
    }

    /// Version of the existing schema; `None` if there is none.
    async fn stored_version(&self, conn: &mut Connection) -> Result<Option<i32>> {
        let exists: bool = query("SELECT pg_catalog.to_regclass($1) IS NOT NULL")
            .bind(format!("{}.version", self.schema))
            .value(conn)
            .await
            .map_err(from_driver)?;
        if !exists {
            return Ok(None);
        }
        let sql = format!("SELECT max(version) FROM {}.version", self.schema);
        query(sql)
            .value(conn)
            .await
            .map_err(|error| self.not_ours(error))
    }

    /// A newer version has created the schema.
    pub(super) fn is_newer(&self, version: i32) -> Error {
        Error::configuration(format!(
            "the bookkeeping in schema {} has version {version}, this cdc knows version {VERSION}",
            self.schema
        ))
        .with_hint("Run the newer cdc that made it, or choose another target.schema.")
    }

    /// The schema exists but cannot be read: another role has created it, or it is for something
    /// else.
    fn not_ours(&self, error: tokio_postgres::Error) -> Error {
        let error = from_driver(error);
        let transient = error.is_transient();
        let error = error.context(format!(
            "could not read the bookkeeping in schema {}",
            self.schema
        ));
        if transient {
            return error;
        }
        error.with_hint(
            "Use the role that made it in the target's URL, or choose another schema (target.schema).",
        )
    }
}

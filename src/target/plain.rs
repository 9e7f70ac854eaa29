//! The target's part of a plain comparison: compares the source's rows with the lookup, in
//! temporary tables of one session.
//!
//! Comes in: rows as the source's COPY writes them. Goes out: a [`Difference`]. The lookup is only
//! read, and nothing outlives the session, however it ends.
//!
//! ```text
//! look 1   rows -> shadow_1 -- compared with the lookup --> differing_1 \
//! look 2   rows -> shadow_2 -- compared with the lookup --> differing_2
//!          -> judged: the same at both -- tried --> rejected or not
//! ```

use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;

use crate::connect::Connection;
use crate::connect::query::query;
use crate::error::{Error, Result};
use crate::facts::{LookupTable, SourceTable};
use crate::read_model::lookup_obstacles::{cannot_be_written, lookup_reading, unfit};
use crate::read_model::{ModelId, ReadModel};
use crate::sql::{TableName, ident};
use crate::target::difference::{self, Difference};
use crate::target::error::{RowError, from_driver};
use crate::target::facts;
use crate::target::lookup;
use crate::target::model::{SESSION_SCHEMA, TargetModel};
use crate::target::shadow::{Counter, Filling, ShadowWriter};
use crate::target::statement::{Transaction, execute};
use crate::target::write::halving::assert_few;

/// Rows that are tried at once: many take little more time than one.
const TRIED_AT_ONCE: i64 = 10_000;

/// Settings of the session. No plan depends on the server's estimates for tables that it has never
/// analysed: it may think that they are empty, and read one of them for each row of the other. The
/// wait for a lock has a limit.
const SETTINGS: &str = "SET enable_nestloop = off; SET jit = off; SET lock_timeout = '10s'";

/// If the client is gone, the server ends the statement within a second, and drops the tables
/// (PostgreSQL 14 and later, if the operating system can detect it; elsewhere the setting is
/// refused).
const NOTICE_THE_END: &str = "SELECT pg_catalog.set_config('client_connection_check_interval', '1000', false) \
     FROM pg_catalog.pg_settings WHERE name = 'client_connection_check_interval'";

/// Where there is no bookkeeping nothing has a number; the session has one read model.
const THE_ONE: ModelId = ModelId(1);

/// What is said where there is no lookup table.
const NO_LOOKUP: &str =
    "the lookup table does not exist: everything is missing. `cdc run` makes it.";

/// A session that compares one read model.
#[derive(Debug)]
pub(crate) struct PlainSession {
    /// The role that reads the lookup.
    role: String,
    shadow: ShadowWriter,
}

/// A read model bound to its lookup as it is.
#[derive(Debug, Clone)]
pub(crate) struct Bound {
    model: TargetModel,
    lookup: LookupTable,
    /// What people should know of it: that there is none, or why `cdc run` would not take it.
    pub notes: Vec<String>,
}

impl Bound {
    /// The same for one look of several, which has tables of its own.
    #[must_use]
    pub(crate) fn at_look(mut self, number: i64) -> Self {
        self.model = self.model.at_look(number);
        self
    }

    /// Whether both are bound to the same tables as they were.
    pub(crate) fn is_as(&self, other: &Self) -> bool {
        self.model.definition() == other.model.definition()
    }
}

/// What one look has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    /// Rows of the lookup, without those under keys of rejected rows.
    shown: i64,
    /// Live rows of the source, without the same.
    live: i64,
    missing: i64,
    extra: i64,
    different: i64,
}

impl Look {
    /// Rows that differ.
    pub(crate) fn differing(&self) -> i64 {
        self.missing + self.extra + self.different
    }
}

impl PlainSession {
    /// Takes a session of its own.
    ///
    /// # Errors
    /// [`Class::Configuration`](crate::error::Class::Configuration) if no temporary table can be
    /// created there.
    pub(crate) async fn open(mut conn: Connection) -> Result<Self> {
        let server = facts::server(&mut conn, SESSION_SCHEMA).await?;
        if server.in_recovery {
            return Err(Error::configuration(
                "the target is a standby, where no temporary table can be made",
            )
            .with_hint("Name the primary in the target's URL."));
        }
        if !server.may_use_temporary {
            let (database, user) = (ident(&server.database), ident(&server.user));
            return Err(Error::configuration(format!(
                "role \"{}\" may not make temporary tables in database \"{}\"",
                server.user, server.database
            ))
            .with_hint(format!("GRANT TEMPORARY ON DATABASE {database} TO {user};")));
        }
        execute(&mut conn, SETTINGS.to_owned()).await?;
        // If the server refuses the setting, it notices the end a little later.
        let _ = execute(&mut conn, NOTICE_THE_END.to_owned()).await;
        Ok(Self {
            role: server.user,
            shadow: ShadowWriter::new(conn),
        })
    }

    /// Binds the read model to its lookup. If there is none, creates an empty one in the session,
    /// as `cdc run` would create it.
    ///
    /// # Errors
    /// [`Class::Broken`](crate::error::Class::Broken) if the lookup cannot be read, or lacks a
    /// column.
    pub(crate) async fn bind(&mut self, model: ReadModel, source: &SourceTable) -> Result<Bound> {
        let conn = self.shadow.connection();
        let mut model = model;
        let mut notes = Vec::new();
        let lookup = match facts::table(conn, &model.settings.target).await? {
            Some(lookup) => {
                refuse_unreadable(&lookup, &self.role)?;
                // What the role lacks is left out: another one may be meant to write.
                let unfit = unfit(&model.settings, &lookup, Some(source), SESSION_SCHEMA);
                let first = unfit.into_iter().next();
                notes
                    .extend(first.map(|obstacle| {
                        refused_by_run(&cannot_be_written(&lookup.name, obstacle))
                    }));
                lookup
            }
            None => {
                notes.push(NO_LOOKUP.to_owned());
                let lookup = own_lookup(conn, &model, source).await?;
                model.settings.target = lookup.name.clone();
                lookup
            }
        };
        Ok(Bound {
            model: TargetModel::bind(THE_ONE, SESSION_SCHEMA, Arc::new(model), &lookup)?,
            lookup,
            notes,
        })
    }

    /// Fills the table of this look with rows in COPY's text format.
    ///
    /// # Errors
    /// [`Class::Rejected`](crate::error::Class::Rejected) if the lookup's types do not take a
    /// value; in halves, if they reject very many.
    pub(crate) async fn fill(
        &mut self,
        bound: &Bound,
        rows: impl Stream<Item = Result<Bytes>>,
        copied: &Counter,
        filling: Filling,
    ) -> Result<()> {
        execute(
            self.shadow.connection(),
            bound.model.create_session_shadow(),
        )
        .await?;
        self.shadow
            .fill_by(filling, &bound.model, rows, copied)
            .await
    }

    /// Compares the rows of this look with the lookup as it is now.
    pub(crate) async fn look(&mut self, bound: &Bound) -> Result<Look> {
        let mut tx = Transaction::begin(self.shadow.connection()).await?;
        let looked = async {
            let conn = tx.conn();
            execute(
                conn,
                "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ".to_owned(),
            )
            .await?;
            execute(conn, bound.model.find_differing()).await?;
            let row = query(bound.model.count_differing())
                .row(conn)
                .await
                .map_err(from_driver)?;
            let count = |name: &str| row.try_get::<_, i64>(name).map_err(from_driver);
            Ok(Look {
                shown: count("shown")?,
                live: count("live")?,
                missing: count("missing")?,
                extra: count("extra")?,
                different: count("different")?,
            })
        }
        .await;
        tx.end(looked).await
    }

    /// The rows that differ in the same way at both looks, and which of them the lookup does not
    /// take. Keys of at most `limit` rows of each kind.
    pub(crate) async fn judge(
        &mut self,
        (first, last): (&Bound, &Bound),
        look: Look,
        limit: u32,
    ) -> Result<Difference> {
        let conn = self.shadow.connection();
        execute(conn, last.model.judge_differing(&first.model)).await?;
        let judged: i64 = query(last.model.count_judged())
            .value(conn)
            .await
            .map_err(from_driver)?;
        if judged > 0 {
            try_judged(conn, last, judged).await?;
        }
        let found = difference::compare(conn, last.model.plain_result(limit)).await?;
        Ok(Difference {
            same: look.shown - look.extra - look.different,
            // Every key of the source is shown or missing. Any further live row has the key of
            // another row.
            waiting: look.live - (look.shown - look.extra + look.missing),
            changing: look.differing() - judged,
            ..found
        })
    }
}

/// An empty lookup of the session's own, created at the first look.
async fn own_lookup(
    conn: &mut Connection,
    model: &ReadModel,
    source: &SourceTable,
) -> Result<LookupTable> {
    let mut settings = model.settings.clone();
    settings.target.schema = SESSION_SCHEMA.to_owned();
    for make in [false, true] {
        if make {
            lookup::create(conn, &settings, source).await?;
        }
        // Of a session without temporary tables there is no such schema yet.
        let schema: Option<String> = query(
            "SELECT nspname::text FROM pg_catalog.pg_namespace WHERE oid = pg_catalog.pg_my_temp_schema()",
        )
        .optional_value(conn)
        .await
        .map_err(from_driver)?;
        let name = TableName::new(schema.unwrap_or_default(), &settings.target.name);
        if let Some(lookup) = facts::table(conn, &name).await? {
            return Ok(lookup);
        }
    }
    Err(Error::transient("the session's own lookup table is gone"))
}

fn refuse_unreadable(lookup: &LookupTable, role: &str) -> Result<()> {
    let cannot_be_compared = format!("lookup table \"{}\" cannot be compared", lookup.name);
    // A table, partitioned or not, a foreign table, a materialized view.
    if !matches!(lookup.kind, 'r' | 'p' | 'f' | 'm') {
        return Err(
            Error::broken(format!("{cannot_be_compared}: it is not a table"))
                .with_hint("Choose another name (read_model.target)."),
        );
    }
    match lookup_reading(lookup, role).into_iter().next() {
        None => Ok(()),
        Some(obstacle) => Err(obstacle.context(cannot_be_compared)),
    }
}

/// What `cdc run` would say of the read model as it is.
pub(crate) fn refused_by_run(error: &Error) -> String {
    let hint = error
        .hint()
        .map_or_else(String::new, |hint| format!(" {hint}"));
    format!("`cdc run` refuses this read model: {error}.{hint}")
}

/// Writes the judged rows into a table that is like the lookup, in halves until each rejected row
/// is found.
async fn try_judged(conn: &mut Connection, bound: &Bound, judged: i64) -> Result<()> {
    execute(conn, bound.model.create_tried(&bound.lookup)).await?;
    let mut refused = 0;
    for low in (1..=judged).step_by(usize::try_from(TRIED_AT_ONCE).unwrap_or(1)) {
        let mut ranges = vec![(low, judged.min(low + TRIED_AT_ONCE - 1))];
        while let Some((low, high)) = ranges.pop() {
            let Some(reason) = try_rows(conn, &bound.model, (low, high)).await? else {
                continue;
            };
            if low < high {
                let middle = low.midpoint(high);
                ranges.push((middle + 1, high));
                ranges.push((low, middle));
                continue;
            }
            refused += 1;
            assert_few(refused, Some(&reason.sqlstate))?;
            query(bound.model.note_rejected())
                .bind(low)
                .bind(reason.sqlstate)
                .bind(reason.constraint.or(reason.data_type))
                .bind(reason.column)
                .execute(conn)
                .await
                .map_err(from_driver)?;
        }
    }
    Ok(())
}

/// Why these rows are rejected, if they are; the rows are not kept.
async fn try_rows(
    conn: &mut Connection,
    model: &TargetModel,
    range: (i64, i64),
) -> Result<Option<RowError>> {
    execute(conn, "BEGIN".to_owned()).await?;
    let tried = conn.batch_execute(&model.try_rows(range)).await;
    execute(conn, "ROLLBACK".to_owned()).await?;
    match tried {
        Ok(_) => Ok(None),
        Err(error) => match RowError::of(&error) {
            Some(reason) => Ok(Some(reason)),
            None => {
                Err(from_driver(error).context("could not try rows by the lookup's constraints"))
            }
        },
    }
}

//! What the watch looks for at the target besides the lookups' shapes: bookkeeping that is missing,
//! maps and lookups with another number of rows than was written. At most [`MOST_COUNTED`] rows of
//! a table are counted, so that a look costs almost nothing: it counts every row of a usual lookup,
//! and sees whether a large one was emptied. Rows whose values another session changed are found by
//! a resync.

use super::{Bookkeeping, MapOf, numbers, of_numbers};
use crate::connect::Connection;
use crate::connect::query::query;
use crate::error::Result;
use crate::read_model::ModelId;
use crate::sql::TableName;
use crate::target::error::from_driver;
use crate::target::statement::execute;

/// What the stream cannot continue without.
const TABLES: [&str; 8] = [
    "checkpoint",
    "counted",
    "pipeline",
    "read_model",
    "rejection",
    "resync",
    "shadow",
    "discarded",
];

/// How long a look waits for a table that another session has locked, in milliseconds.
const PATIENCE_MS: u32 = 200;

/// Most rows of a table that are counted.
const MOST_COUNTED: i64 = 1001;

/// The first of the tables `$1` that does not exist.
const GONE: &str = "SELECT name FROM pg_catalog.unnest($1::text[]) name WHERE pg_catalog.to_regclass(name) IS NULL LIMIT 1";

/// SQLSTATE of a table that does not exist.
const UNDEFINED_TABLE: &str = "42P01";

/// What another session did to the target's tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Damage {
    /// This part of the bookkeeping is missing.
    Gone(String),
    /// The lookups of these read models, or their maps, have rows more or less than were written.
    Miscounted(Vec<ModelId>),
}

/// A read model in step, whose rows are counted.
struct ToCount<'a> {
    id: ModelId,
    lookup: &'a TableName,
    /// Its map, quoted.
    map: String,
}

/// Which resyncs count as asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counts {
    /// Those that the watch has asked for and that have not begun: nobody can cancel them.
    OfWatch,
    /// Those that anybody has asked for, and those that are under way.
    All,
}

impl Bookkeeping {
    /// From here on the session gives up after a moment if another session has locked a table.
    ///
    /// # Errors
    /// As any statement.
    pub(crate) async fn look_shortly(&self, conn: &mut Connection) -> Result<()> {
        execute(conn, format!("SET lock_timeout = {PATIENCE_MS}")).await
    }

    /// Looks at the bookkeeping, and at the lookups and maps of these read models; `None` if all is
    /// well, or locked.
    pub(crate) async fn damage(
        &self,
        conn: &mut Connection,
        epoch: i64,
        models: &[(ModelId, &TableName)],
    ) -> Result<Option<Damage>> {
        let ids = numbers(models.iter().map(|(id, _)| *id));
        let (gone, in_step) = match self.in_step(conn, epoch, ids).await {
            Err(error) if error.sqlstate() == Some(UNDEFINED_TABLE) => {
                return Ok(Some(Damage::Gone(format!("{}.read_model", self.schema))));
            }
            seen => seen?,
        };
        if let Some(gone) = gone {
            return Ok(Some(Damage::Gone(gone)));
        }
        let in_step: Vec<ToCount<'_>> = models
            .iter()
            .filter_map(|(id, lookup)| {
                let map = in_step.iter().find(|map| map.id == *id)?;
                Some(ToCount {
                    id: *id,
                    lookup,
                    map: self.map(*map),
                })
            })
            .collect();
        let miscounted = match self.miscounted(conn, &in_step).await {
            Err(error) if error.is_lock_timeout() => return Ok(None),
            Err(error) if error.sqlstate() == Some(UNDEFINED_TABLE) => {
                let maps: Vec<String> = in_step.iter().map(|one| one.map.clone()).collect();
                return match self.gone(conn, &maps).await? {
                    Some(map) => Ok(Some(Damage::Gone(map))),
                    // A lookup: that is seen by its shape.
                    None => Err(error),
                };
            }
            counted => counted?,
        };
        Ok((!miscounted.is_empty()).then_some(Damage::Miscounted(miscounted)))
    }

    /// The first table of the bookkeeping that is gone, and the maps of those of these read models
    /// that are in step.
    async fn in_step(
        &self,
        conn: &mut Connection,
        epoch: i64,
        ids: Vec<i32>,
    ) -> Result<(Option<String>, Vec<MapOf>)> {
        let names: Vec<String> = TABLES
            .iter()
            .map(|table| format!("{}.{table}", self.schema))
            .collect();
        let sql = format!(
            "SELECT coalesce(({GONE}), CASE WHEN NOT EXISTS (SELECT FROM {schema}.pipeline WHERE epoch = $3) THEN 'pipeline, or its row,' END), \
             coalesce(pg_catalog.array_agg(r.id), '{{}}'), coalesce(pg_catalog.array_agg(r.generation), '{{}}') \
             FROM {schema}.read_model r WHERE r.state = 'in_step' AND r.id = ANY ($2)",
            schema = self.schema
        );
        let (gone, ids, generations): (Option<String>, Vec<i32>, Vec<i32>) = query(sql)
            .bind(names)
            .bind(ids)
            .bind(epoch)
            .tuple(conn)
            .await
            .map_err(from_driver)?;
        let maps = of_numbers(ids).into_iter().zip(generations);
        let maps = maps.map(|(id, generation)| MapOf { id, generation });
        Ok((gone, maps.collect()))
    }

    /// The first of these tables that does not exist.
    async fn gone(&self, conn: &mut Connection, names: &[String]) -> Result<Option<String>> {
        query(GONE)
            .bind(names)
            .optional_value(conn)
            .await
            .map_err(from_driver)
    }

    /// The read models whose lookup or map has another number of rows than was counted. One
    /// statement reads count and rows, so both are of one commit.
    async fn miscounted(
        &self,
        conn: &mut Connection,
        models: &[ToCount<'_>],
    ) -> Result<Vec<ModelId>> {
        if models.is_empty() {
            return Ok(Vec::new());
        }
        let counted = |table: &str| {
            format!("(SELECT count(*) FROM (SELECT FROM {table} LIMIT {MOST_COUNTED}) x)")
        };
        // Each shown row has an entry in the map, unless a row that is rejected keeps it.
        let questions: Vec<String> = models
            .iter()
            .map(|one| {
                format!(
                    "SELECT r.id FROM {schema}.read_model r LEFT JOIN {schema}.counted n ON n.read_model = r.id \
                     WHERE r.id = {id} AND r.state = 'in_step' \
                     AND (least(n.rows, {MOST_COUNTED}) <> {in_lookup} OR (least(n.rows, {MOST_COUNTED}) > {in_map} \
                          AND NOT EXISTS (SELECT FROM {schema}.rejection x WHERE x.read_model = r.id)))",
                    schema = self.schema,
                    id = one.id,
                    in_lookup = counted(&one.lookup.quoted()),
                    in_map = counted(&one.map),
                )
            })
            .collect();
        let sql = questions.join(" UNION ALL ");
        let ids = query(sql).values_of(conn).await.map_err(from_driver)?;
        Ok(of_numbers(ids))
    }

    /// Whether a resync of this read model is to come, or is under way.
    pub(crate) async fn is_asked_for(
        &self,
        conn: &mut Connection,
        name: &str,
        counts: Counts,
    ) -> Result<bool> {
        let sql = format!(
            "SELECT EXISTS (SELECT FROM {}.resync WHERE (state = 'queued' AND ($2 OR origin = 'watch') OR state = 'running' AND $2) AND NOT dry_run \
             AND (read_models IS NULL OR $1 = ANY (read_models)))",
            self.schema
        );
        query(sql)
            .bind(name)
            .bind(counts == Counts::All)
            .value(conn)
            .await
            .map_err(from_driver)
    }
}

//! What the watch looks for at the target besides the lookups' shapes: bookkeeping that is gone, maps and lookups with another
//! number of rows than was written. At most [`MOST_COUNTED`] rows of a table are counted, so that it costs nothing: of the usual
//! lookup every row, of a large one whether it was emptied. Rows that somebody changed are a resync's matter.

use sqlx::{AssertSqlSafe, PgConnection};

use super::Bookkeeping;
use crate::error::Result;
use crate::sql::{TableName, literal};
use crate::target::error::from_sqlx;
use crate::target::model::table_of_generation;
use crate::target::statement::{Transaction, execute};

/// What the stream cannot go on without.
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

/// How long a look waits for a table that somebody has locked, in milliseconds.
const PATIENCE_MS: u32 = 200;

/// Most rows of a table that are counted.
const MOST_COUNTED: i64 = 1001;

/// SQLSTATE of a lock that was waited for in vain.
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// What somebody did to the target's tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// This part of the bookkeeping is gone.
    Gone(String),
    /// The lookups of these read models, or their maps, have rows more or less than were written.
    Miscounted(Vec<i32>),
}

impl Bookkeeping {
    fn map(&self, id: i32, generation: i32) -> String {
        format!("{}.{}", self.schema, table_of_generation("map", id, generation))
    }

    /// Looks at the bookkeeping, and at the lookups and maps of these read models; `None` if all is well, or locked.
    pub async fn damage(
        &self,
        conn: &mut PgConnection,
        models: &[(i32, &TableName)],
    ) -> Result<Option<Damage>> {
        let names: Vec<String> = TABLES
            .iter()
            .map(|table| format!("{}.{table}", self.schema))
            .collect();
        if let Some(gone) = self.gone(conn, &names).await? {
            return Ok(Some(Damage::Gone(gone)));
        }
        let ids: Vec<i32> = models.iter().map(|(id, _)| *id).collect();
        let sql = format!(
            "SELECT r.id, r.generation FROM {}.read_model r WHERE r.state = 'in_step' AND r.id = ANY ($1)",
            self.schema
        );
        let in_step: Vec<(i32, i32)> = sqlx::query_as(AssertSqlSafe(sql))
            .bind(&ids)
            .fetch_all(&mut *conn)
            .await
            .map_err(from_sqlx)?;
        let maps: Vec<String> = in_step
            .iter()
            .map(|(id, generation)| self.map(*id, *generation))
            .collect();
        if let Some(gone) = self.gone(conn, &maps).await? {
            return Ok(Some(Damage::Gone(gone)));
        }
        let in_step: Vec<(i32, &TableName, String)> = models
            .iter()
            .filter_map(|(id, lookup)| {
                let (_, generation) = in_step.iter().find(|(of, _)| of == id)?;
                Some((*id, *lookup, self.map(*id, *generation)))
            })
            .collect();
        let miscounted = self.miscounted(conn, &in_step).await?;
        Ok((!miscounted.is_empty()).then_some(Damage::Miscounted(miscounted)))
    }

    /// The first of these tables that does not exist.
    async fn gone(&self, conn: &mut PgConnection, names: &[String]) -> Result<Option<String>> {
        sqlx::query_scalar(
            "SELECT name FROM pg_catalog.unnest($1::text[]) name WHERE pg_catalog.to_regclass(name) IS NULL LIMIT 1",
        )
        .bind(names)
        .fetch_optional(conn)
        .await
        .map_err(from_sqlx)
    }

    /// Those of which lookup or map has another number of rows. Count and rows are of one commit: it is one statement.
    async fn miscounted(
        &self,
        conn: &mut PgConnection,
        models: &[(i32, &TableName, String)],
    ) -> Result<Vec<i32>> {
        if models.is_empty() {
            return Ok(Vec::new());
        }
        let counted =
            |table: &str| format!("(SELECT count(*) FROM (SELECT FROM {table} LIMIT {MOST_COUNTED}) x)");
        // Each shown row has an entry in the map, unless a row that is set apart keeps it.
        let questions: Vec<String> = models
            .iter()
            .map(|(id, lookup, map)| {
                format!(
                    "SELECT r.id FROM {schema}.read_model r LEFT JOIN {schema}.counted n ON n.read_model = r.id \
                     WHERE r.id = {id} AND r.state = 'in_step' \
                     AND (least(n.rows, {MOST_COUNTED}) <> {in_lookup} OR (least(n.rows, {MOST_COUNTED}) > {in_map} \
                          AND NOT EXISTS (SELECT FROM {schema}.rejection x WHERE x.read_model = r.id)))",
                    schema = self.schema,
                    in_lookup = counted(&lookup.quoted()),
                    in_map = counted(map),
                )
            })
            .collect();
        let sql = questions.join(" UNION ALL ");
        let mut tx = Transaction::begin(conn).await?;
        let result = async {
            execute(
                tx.conn(),
                format!(
                    "SET LOCAL lock_timeout = {}",
                    literal(&format!("{PATIENCE_MS}ms"))
                ),
            )
            .await?;
            sqlx::query_scalar::<_, i32>(AssertSqlSafe(sql))
                .fetch_all(tx.conn())
                .await
                .map_err(from_sqlx)
        }
        .await;
        match tx.end(result).await {
            Err(error) if error.sqlstate() == Some(LOCK_NOT_AVAILABLE) => Ok(Vec::new()),
            found => found,
        }
    }

    /// Whether the watch has asked for a resync of this read model that has not begun, which nobody can cancel; with `or_runs`
    /// whether anybody has asked for one, or one is under way.
    pub async fn is_asked_for(&self, conn: &mut PgConnection, name: &str, or_runs: bool) -> Result<bool> {
        let sql = format!(
            "SELECT EXISTS (SELECT FROM {}.resync WHERE (state = 'queued' AND ($2 OR origin = 'watch') OR state = 'running' AND $2) AND NOT dry_run \
             AND (read_models IS NULL OR $1 = ANY (read_models)))",
            self.schema
        );
        sqlx::query_scalar(AssertSqlSafe(sql))
            .bind(name)
            .bind(or_runs)
            .fetch_one(conn)
            .await
            .map_err(from_sqlx)
    }
}

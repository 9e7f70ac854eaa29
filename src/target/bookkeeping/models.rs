//! The stored read models: their definitions and maps, and whether they take part in the stream.

use super::fence::update_or_fenced;
use super::{Bookkeeping, MapOf, ModelState, StoredModel, fenced, numbers, of_numbers};
use crate::connect::Connection;
use crate::connect::query::query;
use crate::error::{Error, Result};
use crate::read_model::ModelId;
use crate::sql::literal;
use crate::target::error::from_driver;
use crate::target::model::table_of_generation;
use crate::target::statement::execute;

/// Another definition of a read model.
#[derive(Debug, Clone, Copy)]
pub struct Definition<'a> {
    /// Which map it has.
    pub generation: i32,
    /// Source table.
    pub source: &'a str,
    /// What the map is created for.
    pub definition: &'a str,
    /// Statements that create the map.
    pub create_map: &'a str,
}

impl Bookkeeping {
    /// All stored read models.
    pub(crate) async fn models(&self, conn: &mut Connection) -> Result<Vec<StoredModel>> {
        let sql = format!(
            "SELECT id, name, definition #>> '{{}}', state, generation FROM {}.read_model ORDER BY id",
            self.schema
        );
        let rows = query(sql).rows(conn).await.map_err(from_driver)?;
        rows.iter()
            .map(|row| {
                let state: String = row.try_get(3).map_err(from_driver)?;
                Ok(StoredModel {
                    id: ModelId(row.try_get(0).map_err(from_driver)?),
                    name: row.try_get(1).map_err(from_driver)?,
                    definition: row.try_get(2).map_err(from_driver)?,
                    generation: row.try_get(4).map_err(from_driver)?,
                    state: match state.as_str() {
                        "in_step" => ModelState::InStep,
                        "new" => ModelState::New,
                        _ => ModelState::Suspended,
                    },
                })
            })
            .collect()
    }

    /// Stores a read model that was not there, and returns its number.
    pub async fn add_model(
        &self,
        conn: &mut Connection,
        epoch: i64,
        name: &str,
        source: &str,
    ) -> Result<ModelId> {
        let sql = format!(
            "INSERT INTO {}.read_model (name, source, definition) SELECT $2, $3, '\"\"' WHERE {} RETURNING id",
            self.schema,
            self.ours()
        );
        let id = query(sql)
            .bind(epoch)
            .bind(name)
            .bind(source)
            .optional_value(conn)
            .await
            .map_err(from_driver)?;
        id.map(ModelId).ok_or_else(fenced)
    }

    /// Forgets a read model that is no longer configured. Its lookup stays as it is.
    pub(crate) async fn remove_model(
        &self,
        conn: &mut Connection,
        epoch: i64,
        stored: &StoredModel,
    ) -> Result<()> {
        let sql = format!(
            "{fence} {discard} DELETE FROM {schema}.counted WHERE read_model = {id}; DELETE FROM {schema}.read_model WHERE id = {id}",
            fence = self.fence(epoch),
            discard = self.discard_tables_of(stored.id, stored.generation),
            schema = self.schema,
            id = stored.id,
        );
        execute(conn, sql).await
    }

    /// Gives a read model another definition, with an empty map; it takes part again once it was
    /// copied. The old map is discarded: a DROP now would wait for any session that has it locked,
    /// and all read models with it.
    pub async fn redefine_model(
        &self,
        conn: &mut Connection,
        epoch: i64,
        id: ModelId,
        new: Definition<'_>,
    ) -> Result<()> {
        let sql = format!(
            "{fence} {discard} {create_map} \
             DELETE FROM {schema}.{rejected}; DELETE FROM {schema}.rejection WHERE read_model = {id}; \
             UPDATE {schema}.read_model SET source = {source}, definition = to_jsonb({definition}::text), generation = {generation}, \
               state = CASE state WHEN 'in_step' THEN 'suspended' ELSE state END, \
               reason = CASE state WHEN 'in_step' THEN 'its definition was changed' ELSE reason END, since = now(), \
               {held} \
             WHERE id = {id}",
            held = self.held(),
            discard = if new.generation > 0 {
                self.discard_tables_of(id, new.generation - 1)
            } else {
                String::new()
            },
            create_map = new.create_map,
            rejected = table_of_generation("rejected", id, new.generation),
            generation = new.generation,
            fence = self.fence(epoch),
            schema = self.schema,
            source = literal(new.source),
            definition = literal(new.definition),
        );
        execute(conn, sql).await
    }

    /// Notes that map, rejected rows and shadows of a read model are no longer needed.
    fn discard_tables_of(&self, id: ModelId, generation: i32) -> String {
        let of_map =
            ["map", "rejected"].map(|prefix| literal(&table_of_generation(prefix, id, generation)));
        format!(
            "INSERT INTO {schema}.discarded (name) \
             SELECT c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE n.nspname = {name} AND c.relkind = 'r' AND (c.relname IN ({of_map}) OR c.relname ~ '^shadow_{id}_[0-9]+$') \
             ON CONFLICT DO NOTHING; \
             DELETE FROM {schema}.shadow s WHERE s.name ~ '^shadow_{id}_[0-9]+$';",
            schema = self.schema,
            name = literal(&self.name),
            of_map = of_map.join(", "),
        )
    }

    /// The map, quoted.
    pub(super) fn map(&self, map: MapOf) -> String {
        format!(
            "{}.{}",
            self.schema,
            table_of_generation("map", map.id, map.generation)
        )
    }

    /// The read models whose map is there, of these.
    pub(crate) async fn with_map(
        &self,
        conn: &mut Connection,
        maps: &[MapOf],
    ) -> Result<Vec<ModelId>> {
        let ids = numbers(maps.iter().map(|map| map.id));
        let maps: Vec<String> = maps.iter().map(|map| self.map(*map)).collect();
        let with_map = query(
            "SELECT m.id FROM unnest($1::integer[], $2::text[]) m (id, map) WHERE pg_catalog.to_regclass(m.map) IS NOT NULL",
        )
        .bind(ids)
        .bind(maps)
        .values_of(conn)
        .await
        .map_err(from_driver)?;
        Ok(of_numbers(with_map))
    }

    /// Numbers of the `most` read models whose lookups were written last.
    pub(crate) async fn changed_last(
        &self,
        conn: &mut Connection,
        most: i64,
    ) -> Result<Vec<ModelId>> {
        let sql = format!(
            "SELECT read_model FROM {}.counted ORDER BY last_change_at DESC NULLS LAST, read_model LIMIT $1",
            self.schema
        );
        let ids = query(sql)
            .bind(most)
            .values_of(conn)
            .await
            .map_err(from_driver)?;
        Ok(of_numbers(ids))
    }

    /// Sets a read model's state; `reason` says why it is suspended.
    pub(crate) async fn set_model_state(
        &self,
        conn: &mut Connection,
        epoch: i64,
        id: ModelId,
        state: ModelState,
        reason: Option<&Error>,
    ) -> Result<()> {
        let held = match state {
            ModelState::InStep => "as_of = NULL, as_of_lsn = NULL".to_owned(),
            ModelState::New | ModelState::Suspended => self.held(),
        };
        let sql = format!(
            "UPDATE {}.read_model SET state = $3, reason = $4, hint = $5, since = now(), {held} WHERE id = $2 AND {}",
            self.schema,
            self.ours()
        );
        let state = match state {
            ModelState::New => "new",
            ModelState::InStep => "in_step",
            ModelState::Suspended => "suspended",
        };
        let query = query(sql)
            .bind(epoch)
            .bind(id.0)
            .bind(state)
            .bind(reason.map(ToString::to_string))
            .bind(reason.and_then(Error::hint));
        update_or_fenced(conn, query).await
    }

    /// Assignments for a read model that leaves the stream: its lookup stays as of the checkpoint,
    /// or of the one before if that was noted.
    fn held(&self) -> String {
        let held = |column: &str, of_checkpoint: &str| {
            format!(
                "{column} = CASE state WHEN 'in_step' THEN coalesce({column}, (SELECT {of_checkpoint} FROM {}.checkpoint)) ELSE {column} END",
                self.schema
            )
        };
        format!(
            "{}, {}",
            held("as_of", "commit_time"),
            held("as_of_lsn", "lsn")
        )
    }

    /// What notes what the lookups of these read models show, before a batch moves the checkpoint
    /// and suspends them: they stay as they were before it.
    ///
    /// It fails with [`Class::Fenced`](crate::error::Class::Fenced) if another process has taken
    /// over.
    pub(crate) fn hold(&self, epoch: i64, ids: &[ModelId]) -> String {
        // The checkpoint's row first, as everywhere.
        format!(
            "{lock} UPDATE {schema}.read_model m SET as_of = c.commit_time, as_of_lsn = c.lsn FROM {schema}.checkpoint c \
             WHERE m.id = ANY ({ids}::integer[]) AND m.state = 'in_step'",
            schema = self.schema,
            lock = self.lock_checkpoint(epoch),
            ids = literal(&format!("{{{}}}", list(ids))),
        )
    }

    /// A read model no longer takes part; one that was never copied stays new.
    pub async fn suspend(
        &self,
        conn: &mut Connection,
        epoch: i64,
        id: ModelId,
        why: &Error,
    ) -> Result<()> {
        let stored = self.models(conn).await?;
        let new = stored
            .iter()
            .any(|model| model.id == id && model.state == ModelState::New);
        let state = if new {
            ModelState::New
        } else {
            ModelState::Suspended
        };
        self.set_model_state(conn, epoch, id, state, Some(why))
            .await
    }
}

fn list(ids: &[ModelId]) -> String {
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    ids.join(",")
}

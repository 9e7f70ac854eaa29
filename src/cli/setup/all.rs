//! `cdc setup --print-sql --all`: all SQL by which `cdc` creates its objects in the target,
//! existing ones too, and the functions that write each lookup. Nothing is run: `cdc` only reads
//! from both databases what their tables are.

use std::sync::Arc;

use crate::connect::Connection;
use crate::error::{Error, Result};
use crate::facts::{LookupTable, SourceTable};
use crate::read_model::ModelId;
use crate::read_model::follow::follow;
use crate::read_model::lookup_obstacles::{cannot_be_written, unfit};
use crate::settings::{ReadModelSettings, Settings};
use crate::target::bookkeeping::{Bookkeeping, MapOf, StoredModel};
use crate::target::model::TargetModel;
use crate::target::presence::{Presence, presence};
use crate::target::{facts, lookup, script};

const HEAD: &str = "\
-- What cdc runs in the target, statement by statement. It does so by itself: nobody needs to run this.
--
-- A DBA reads here what a role needs to be allowed, and what the functions do that a session makes in pg_temp and that end
-- with it. The states and the letters in it: sql/README.md of the sources.";

/// The script.
///
/// # Errors
/// Whatever the target reports.
pub(super) async fn text(
    conn: &mut Connection,
    settings: &Settings,
    tables: &[SourceTable],
) -> Result<String> {
    let bookkeeping = Bookkeeping::new(&settings.target.schema);
    let stored = stored_models(conn, &bookkeeping).await?;
    let mut parts = vec![
        format!("-- At the target: {}\n{HEAD}", settings.target.conninfo),
        format!("BEGIN;\n{}\nCOMMIT;", bookkeeping.create_sql().trim_end()),
        script::of_session(&settings.target.schema),
    ];
    let mut maps = Maps::of(stored);
    for model in &settings.read_models {
        parts.push(format!("-- Read model {}.", model.name()));
        let place = maps.of_read_model(&model.name());
        parts.push(
            match tables.iter().find(|table| table.name == model.source) {
                Some(table) => of_read_model(conn, settings, place, model, table).await?,
                None => format!("-- Table {} does not exist at the source.", model.source),
            },
        );
    }
    Ok(parts.join("\n\n"))
}

/// The read models that the bookkeeping knows: their numbers are in the names of their tables.
async fn stored_models(
    conn: &mut Connection,
    bookkeeping: &Bookkeeping,
) -> Result<Vec<StoredModel>> {
    let there = presence(conn, bookkeeping.schema_name()).await? == Presence::Ours;
    if there && bookkeeping.is_current(conn).await? {
        bookkeeping.models(conn).await
    } else {
        Ok(Vec::new())
    }
}

async fn of_read_model(
    conn: &mut Connection,
    settings: &Settings,
    map: MapOf,
    model: &ReadModelSettings,
    table: &SourceTable,
) -> Result<String> {
    let create = lookup::create_sql(model, table)?;
    let found = facts::table(conn, &model.target).await?;
    let (made, found) = match found {
        Some(found) => (
            format!("-- Table {} is there and stays as it is.", model.target),
            Some(found),
        ),
        None => (
            format!("-- The lookup table, as it does not exist.\n{create};"),
            lookup::as_made(model, table)?,
        ),
    };
    let Some(found) = found else {
        return Ok(format!(
            "{made}\n\n-- A column has a type that is not built in: the functions can be printed once the table is there."
        ));
    };
    Ok(match bind(settings, map, model, table, &found) {
        Ok(bound) => format!("{made}\n\n{}", script::of_read_model(&bound)),
        Err(error) => format!("{made}\n\n{}", why_not(&error)),
    })
}

/// The read model as `cdc run` would bind it. What the role lacks at the target is left out: a DBA
/// reads here what it needs.
fn bind(
    settings: &Settings,
    map: MapOf,
    model: &ReadModelSettings,
    table: &SourceTable,
    lookup: &LookupTable,
) -> Result<TargetModel> {
    let schema = &settings.target.schema;
    let followed = follow(model, table, &[], &settings.source.conninfo.user)?;
    if let Some(obstacle) = unfit(model, lookup, Some(table), schema).into_iter().next() {
        return Err(cannot_be_written(&lookup.name, obstacle));
    }
    let bound = TargetModel::bind(map.id, schema, Arc::new(followed), lookup)?;
    Ok(bound.with_map(map.generation).with_shadow(1, ""))
}

/// The map of each read model: as stored, else the one that it gets next.
struct Maps {
    stored: Vec<StoredModel>,
    /// The last number that is given.
    last: ModelId,
}

impl Maps {
    fn of(stored: Vec<StoredModel>) -> Self {
        let ids = stored.iter().map(|stored| stored.id);
        let last = ids.max().unwrap_or(ModelId(0));
        Self { stored, last }
    }

    fn of_read_model(&mut self, name: &str) -> MapOf {
        match self.stored.iter().find(|stored| stored.name == name) {
            Some(stored) => stored.map(),
            None => {
                self.last = ModelId(self.last.0.saturating_add(1));
                MapOf {
                    id: self.last,
                    generation: 0,
                }
            }
        }
    }
}

fn why_not(error: &Error) -> String {
    let hint = error
        .hint()
        .map(|hint| format!(" {hint}"))
        .unwrap_or_default();
    let text = format!("cdc cannot keep it: {error}.{hint}");
    let lines: Vec<String> = text.lines().map(|line| format!("-- {line}")).collect();
    lines.join("\n")
}

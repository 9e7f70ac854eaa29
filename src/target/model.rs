//! A read model bound to its lookup table, and all SQL that is generated for it.
//!
//! Names of the bookkeeping's own columns are numbered (`i1`, `k1`, `p1`, ...), so nothing that a
//! table's owner chose can clash with them; names of the lookup are quoted. Keys are compared by
//! the operator of the lookup's own key index.

use std::sync::Arc;

use crate::read_model::{BoundColumn, ModelId, ReadModel};
use crate::settings::OnRowError;
use crate::sql::ident;

mod bind;
mod comments;
mod joins;
mod new_rows;
mod plain;
mod statements;
mod tables;
mod templates;

pub(crate) use joins::Joins;
pub(crate) use plain::SESSION_SCHEMA;
pub(crate) use statements::MOST_REJECTED;

/// A read model with its place in the target.
#[derive(Debug, Clone)]
pub struct TargetModel {
    /// Number in the bookkeeping: names `map_<id>` and `shadow_<id>_<n>`.
    pub id: ModelId,
    /// The read model as bound to its source.
    pub model: Arc<ReadModel>,
    /// Epoch of the owner that binds it.
    epoch: i64,
    /// Which map: each definition has its own.
    generation: i32,
    /// Which shadow.
    shadow: i64,
    /// The copy whose rows it holds.
    copy: Option<String>,
    /// OID of the lookup: another one means that it was created again.
    lookup_oid: u32,
    /// Whether the lookup's rows are in several tables: it has partitions, or others inherit from
    /// it.
    lookup_has_parts: bool,
    /// Bookkeeping schema, quoted.
    schema: String,
    columns: Vec<TargetColumn>,
    key: Vec<KeyPart>,
    identity_types: Vec<String>,
}

/// A projected column at the target.
#[derive(Debug, Clone)]
struct TargetColumn {
    name: String,
    /// Type with modifier: what is assigned to.
    type_name: String,
    /// Type without modifier: what the stream's text is cast to.
    bare_type_name: String,
    /// Whether the lookup's own type is a domain over these.
    domain: bool,
    collation: Option<String>,
    toastable: bool,
}

/// A key column: its place among the projected columns, and how two keys are compared.
#[derive(Debug, Clone)]
struct KeyPart {
    column: usize,
    /// The operator of the lookup's key index; `None` is the type's own equality, where there is no
    /// such index.
    equality: Option<String>,
}

/// Most columns for which a small batch goes as arguments of one function (a function takes at most
/// 100).
const MOST_PARAMETERS: usize = 85;

impl TargetModel {
    /// The owner's.
    pub(crate) fn epoch(&self) -> i64 {
        self.epoch
    }

    /// The same, bound by this owner.
    #[must_use]
    pub(crate) fn for_epoch(mut self, epoch: i64) -> Self {
        self.epoch = epoch;
        self
    }

    /// The same with the map of this generation.
    #[must_use]
    pub(crate) fn with_map(mut self, generation: i32) -> Self {
        self.generation = generation;
        self
    }

    /// The same with this shadow, which holds the rows of this copy.
    #[must_use]
    pub fn with_shadow(mut self, number: i64, copy: &str) -> Self {
        self.shadow = number;
        self.copy = Some(copy.to_owned());
        self
    }

    /// The copy whose rows the shadow holds, if the bookkeeping knows of it.
    pub(crate) fn copy(&self) -> Option<&str> {
        self.copy.as_deref()
    }

    /// The same with session tables of this number.
    #[must_use]
    pub fn at_look(mut self, number: i64) -> Self {
        self.shadow = number;
        self
    }

    /// Which map it has.
    pub(crate) fn generation(&self) -> i32 {
        self.generation
    }

    /// The map, quoted.
    pub fn map(&self) -> String {
        format!("{}.{}", self.schema, self.map_table())
    }

    fn map_table(&self) -> String {
        table_of_generation("map", self.id, self.generation)
    }

    /// The shadow, quoted.
    pub(crate) fn shadow(&self) -> String {
        format!("{}.{}", self.schema, self.shadow_table())
    }

    /// The shadow's name in the bookkeeping's schema.
    pub fn shadow_table(&self) -> String {
        format!("shadow_{}_{}", self.id, self.shadow)
    }

    /// The staging table of this session, quoted.
    pub(crate) fn stage(&self) -> String {
        format!("pg_temp.stage_{}", self.id)
    }

    /// The session's table of a chunk of a large transaction, quoted.
    pub(crate) fn chunk(&self) -> String {
        format!("pg_temp.chunk_{}", self.id)
    }

    fn touched(&self) -> String {
        format!("pg_temp.touched_{}", self.id)
    }

    fn moving(&self) -> String {
        format!("pg_temp.moving_{}", self.id)
    }

    fn tries(&self) -> String {
        format!("pg_temp.tries_{}", self.id)
    }

    fn earlier(&self) -> String {
        format!("pg_temp.earlier_{}", self.id)
    }

    /// The rejected rows, quoted.
    pub(crate) fn rejected(&self) -> String {
        let table = table_of_generation("rejected", self.id, self.generation);
        format!("{}.{table}", self.schema)
    }

    fn lookup(&self) -> String {
        self.model.settings.target.quoted()
    }

    /// Numbers (from 1) of the columns that the stream may leave out.
    pub(crate) fn toastable(&self) -> impl Iterator<Item = usize> {
        self.columns
            .iter()
            .zip(1..)
            .filter(|(column, _)| column.toastable)
            .map(|(_, n)| n)
    }

    /// Whether the stream may leave out this projected column, counted from 0.
    pub(crate) fn is_toastable(&self, column: usize) -> bool {
        self.columns
            .get(column)
            .is_some_and(|column| column.toastable)
    }

    /// Columns of the stage in the order in which rows are written into it.
    pub(crate) fn stage_columns(&self) -> String {
        let n = self.identity_types.len();
        let flags: String = self.toastable().map(|n| format!(", u{n}")).collect();
        format!(
            "{}, {}, state, {}{flags}",
            numbered("", "o", n),
            numbered("", "i", n),
            numbered("", "p", self.columns.len())
        )
    }

    /// Columns of the shadow that a copy from the source fills: identity, state, values.
    pub(crate) fn copy_columns(&self) -> String {
        format!(
            "{}, state, {}",
            numbered("", "i", self.identity_types.len()),
            numbered("", "p", self.columns.len())
        )
    }

    /// Number of the stage's columns.
    pub(crate) fn stage_width(&self) -> usize {
        2 * self.identity_types.len() + 1 + self.columns.len() + self.toastable().count()
    }

    /// Number of the identity's columns.
    pub(crate) fn identity_width(&self) -> usize {
        self.identity_types.len()
    }

    /// Whether this projected column, counted from 0, is part of the key.
    pub(crate) fn is_key(&self, column: usize) -> bool {
        self.key.iter().any(|part| part.column == column)
    }

    /// Name in the lookup of a projected column, counted from 1 as in the stage.
    pub(crate) fn column_name(&self, number: usize) -> Option<&str> {
        let column = self.columns.get(number.checked_sub(1)?)?;
        Some(&column.name)
    }

    /// Whether a row that the target rejects is noted, or suspends the read model.
    pub(crate) fn isolates(&self) -> bool {
        self.model.settings.on_row_error == OnRowError::Isolate
    }

    /// Whether a small batch can go as arguments of one function.
    pub(crate) fn fits_one_statement(&self) -> bool {
        self.stage_width() <= MOST_PARAMETERS
    }

    /// What the map was created for: another definition needs another map, filled by an exact copy.
    pub fn definition(&self) -> String {
        let columns = join(
            ", ",
            self.columns
                .iter()
                .map(|column| format!("{} {}", column.name, column.definition())),
        );
        let settings = &self.model.settings;
        format!(
            "source {} lookup {} identity ({}) key ({}) columns ({columns}) from ({}) soft delete {:?} remembering {:?}",
            self.model.source_oid,
            self.lookup_oid,
            join(
                ", ",
                self.model
                    .identity
                    .iter()
                    .zip(&self.identity_types)
                    .map(|(c, of)| format!("{} {of}", exactly(c)))
            ),
            settings.key.join(", "),
            join(", ", self.model.columns.iter().map(exactly)),
            self.model
                .soft_delete
                .as_ref()
                .map(|(column, kind)| (exactly(column), kind)),
            self.model.remembering,
        )
    }
}

impl TargetColumn {
    /// The lookup's value in the type that the staging tables have: records of a domain and of the
    /// type below it cannot be compared. An index on the column is used all the same.
    fn in_lookup(&self) -> String {
        let column = format!("l.{}", ident(&self.name));
        if self.domain {
            format!("{column}::{}", self.bare_type_name)
        } else {
            column
        }
    }

    /// Type with modifier and collation.
    fn definition(&self) -> String {
        match &self.collation {
            Some(collation) => format!("{} COLLATE {collation}", self.type_name),
            None => self.type_name.clone(),
        }
    }
}

/// A source column by name, number and type: a column that was dropped and created again under the
/// same name is another one.
fn exactly(column: &BoundColumn) -> String {
    format!("{}#{}:{}", column.name, column.number, column.type_oid)
}

/// Name of a table that belongs to a read model's definition.
pub(crate) fn table_of_generation(prefix: &str, id: ModelId, generation: i32) -> String {
    match generation {
        0 => format!("{prefix}_{id}"),
        later => format!("{prefix}_{id}_{later}"),
    }
}

fn numbered(alias: &str, prefix: &str, count: usize) -> String {
    join(", ", (1..=count).map(|n| format!("{alias}{prefix}{n}")))
}

/// Assignments that turn a staged row into one that is gone.
fn no_identity(columns: usize) -> String {
    join(", ", (1..=columns).map(|i| format!("i{i} = NULL")))
}

fn join(separator: &str, parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(separator)
}

#[cfg(test)]
pub(crate) mod tests;

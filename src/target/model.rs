//! A read model bound to its lookup table, and all SQL that is made for it.
//!
//! Names of the bookkeeping's own columns are numbered (`i1`, `k1`, `p1`, ...), so nothing that a table's owner chose can
//! clash with them; names of the lookup are quoted. Keys are compared by the operator of the lookup's own key index.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::facts::LookupTable;
use crate::read_model::{BoundColumn, ReadModel};
use crate::sql::{fill, ident, idents};

/// A read model with its place in the target.
#[derive(Debug, Clone)]
pub struct TargetModel {
    /// Number in the bookkeeping: names `map_<id>` and `shadow_<id>_<epoch>`.
    pub id: i32,
    /// The read model as bound to its source.
    pub model: Arc<ReadModel>,
    /// Epoch of the owner that binds it: names its shadow.
    epoch: i64,
    /// OID of the lookup: another one means that it was made again.
    lookup_oid: u32,
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
    collation: Option<String>,
    toastable: bool,
}

/// A key column: its place among the projected columns, and how two keys are compared.
#[derive(Debug, Clone)]
struct KeyPart {
    column: usize,
    equality: String,
}

/// Most columns for which a small batch goes as arguments of one function (a function takes at most 100).
const MOST_PARAMETERS: usize = 85;

impl TargetModel {
    /// Binds the read model to its lookup table.
    ///
    /// # Errors
    /// [`Class::Broken`](crate::error::Class::Broken) if the lookup lacks a column or a fitting key index.
    pub fn bind(id: i32, schema: &str, model: Arc<ReadModel>, lookup: &LookupTable) -> Result<Self> {
        let settings = &model.settings;
        if lookup.persistence == 'u' {
            return Err(
                Error::broken(format!("lookup table \"{}\" is UNLOGGED", lookup.name))
                    .with_detail("A crash of the target would empty it without a trace in the checkpoint.")
                    .with_hint(format!("ALTER TABLE {} SET LOGGED;", lookup.name.quoted())),
            );
        }
        let mut columns = Vec::new();
        for (mapping, bound) in settings.columns.iter().zip(&model.columns) {
            let column = lookup.column(&mapping.target).ok_or_else(|| {
                Error::broken(format!(
                    "column \"{}\" of lookup table \"{}\" does not exist",
                    mapping.target, lookup.name
                ))
                .with_hint("Create the column, or change the read model's columns in the configuration.")
            })?;
            if column.generated {
                return Err(Error::broken(format!(
                    "column \"{}\" of lookup table \"{}\" is generated and cannot be written",
                    column.name, lookup.name
                ))
                .with_hint(
                    "Leave the column out of the read model's columns, or drop its expression or identity.",
                ));
            }
            columns.push(TargetColumn {
                name: column.name.clone(),
                type_name: column.type_name.clone(),
                bare_type_name: column.bare_type_name.clone(),
                collation: column.collation.clone(),
                toastable: bound.toastable,
            });
        }
        if let Some(name) = &settings.synced_at {
            let wrong = match lookup.column(name) {
                None => Some("does not exist"),
                Some(column) if column.generated => Some("is generated and cannot be written"),
                Some(_) => None,
            };
            if let Some(wrong) = wrong {
                return Err(Error::broken(format!(
                    "column \"{name}\" of lookup table \"{}\" {wrong}",
                    lookup.name
                ))
                .with_hint("Create it as timestamptz, or take synced_at out of the configuration."));
            }
        }
        let index = lookup.key_index(&settings.key).ok_or_else(|| {
            let key = idents(&settings.key);
            Error::broken(format!(
                "lookup table \"{}\" has no unique index on its key ({key})",
                lookup.name
            ))
            .with_detail("The index must be immediate, not partial, and on exactly these columns.")
            .with_hint(format!(
                "ALTER TABLE {} ADD PRIMARY KEY ({key});",
                lookup.name.quoted()
            ))
        })?;
        let key: Vec<KeyPart> = index
            .columns
            .iter()
            .filter_map(|part| {
                let column = settings
                    .columns
                    .iter()
                    .position(|mapping| mapping.target == part.name)?;
                Some(KeyPart {
                    column,
                    equality: part.equality.clone(),
                })
            })
            .collect();
        let identity_types = model.identity.iter().map(identity_type).collect();
        refuse_names_that_break_templates(schema, &model, &columns, &key)?;
        Ok(Self {
            id,
            model,
            epoch: 0,
            lookup_oid: lookup.oid,
            schema: ident(schema),
            columns,
            key,
            identity_types,
        })
    }

    /// The same with a shadow that no other owner's process writes into.
    #[must_use]
    pub fn for_epoch(mut self, epoch: i64) -> Self {
        self.epoch = epoch;
        self
    }

    /// The map, quoted.
    pub fn map(&self) -> String {
        format!("{}.map_{}", self.schema, self.id)
    }

    /// The shadow, quoted.
    pub fn shadow(&self) -> String {
        format!("{}.shadow_{}_{}", self.schema, self.id, self.epoch)
    }

    /// The staging table of this session, quoted.
    pub fn stage(&self) -> String {
        format!("pg_temp.stage_{}", self.id)
    }

    fn touched(&self) -> String {
        format!("pg_temp.touched_{}", self.id)
    }

    fn lookup(&self) -> String {
        self.model.settings.target.quoted()
    }

    /// `CREATE TABLE IF NOT EXISTS` of the map with its index by key.
    pub fn create_map(&self) -> String {
        let (map, id) = (self.map(), self.id);
        let columns = [
            self.identity_columns("i", " NOT NULL"),
            self.key_columns("k"),
            self.value_columns("v"),
        ]
        .join(", ");
        format!(
            "CREATE TABLE IF NOT EXISTS {map} ({columns}, state \"char\" NOT NULL, PRIMARY KEY ({i}));\n\
             CREATE INDEX IF NOT EXISTS map_{id}_key ON {map} ({k});",
            i = numbered("", "i", self.identity_types.len()),
            k = numbered("", "k", self.key.len()),
        )
    }

    /// Makes the session's staging tables.
    pub fn create_stage(&self) -> String {
        let touched = [self.key_columns("k"), self.identity_columns("w", "")].join(", ");
        format!(
            "CREATE TEMPORARY TABLE stage_{id} ({columns}) ON COMMIT DELETE ROWS;\n\
             CREATE TEMPORARY TABLE touched_{id} ({touched}) ON COMMIT DELETE ROWS;",
            id = self.id,
            columns = self.stage_definition(),
        )
    }

    /// Makes an empty shadow, in place of one that an earlier copy left behind.
    pub fn create_shadow(&self) -> String {
        let shadow = self.shadow();
        format!(
            "DROP TABLE IF EXISTS {shadow};\nCREATE UNLOGGED TABLE {shadow} ({columns});",
            columns = self.stage_definition()
        )
    }

    /// Indexes the shadow by identity, once it is filled.
    pub fn index_shadow(&self) -> String {
        let (shadow, i) = (self.shadow(), numbered("", "i", self.identity_types.len()));
        format!("ALTER TABLE {shadow} ADD PRIMARY KEY ({i});\nANALYZE {shadow};")
    }

    fn stage_definition(&self) -> String {
        let flags: String = self
            .toastable()
            .map(|n| format!(", u{n} boolean NOT NULL DEFAULT false"))
            .collect();
        format!(
            "{}, {}, state \"char\" NOT NULL, {}{flags}",
            self.identity_columns("o", ""),
            self.identity_columns("i", ""),
            self.value_columns("p"),
        )
    }

    fn identity_columns(&self, prefix: &str, suffix: &str) -> String {
        join(
            ", ",
            self.identity_types
                .iter()
                .zip(1..)
                .map(|(name, n)| format!("{prefix}{n} {name}{suffix}")),
        )
    }

    fn key_columns(&self, prefix: &str) -> String {
        join(
            ", ",
            self.key.iter().zip(1..).filter_map(|(part, n)| {
                Some(format!(
                    "{prefix}{n} {}",
                    self.columns.get(part.column)?.definition()
                ))
            }),
        )
    }

    fn value_columns(&self, prefix: &str) -> String {
        join(
            ", ",
            self.columns
                .iter()
                .zip(1..)
                .map(|(column, n)| format!("{prefix}{n} {}", column.definition())),
        )
    }

    /// Numbers (from 1) of the columns that the stream may leave out.
    pub fn toastable(&self) -> impl Iterator<Item = usize> {
        self.columns
            .iter()
            .zip(1..)
            .filter(|(column, _)| column.toastable)
            .map(|(_, n)| n)
    }

    /// Columns of the stage in the order in which rows are written into it.
    pub fn stage_columns(&self) -> String {
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
    pub fn copy_columns(&self) -> String {
        format!(
            "{}, state, {}",
            numbered("", "i", self.identity_types.len()),
            numbered("", "p", self.columns.len())
        )
    }

    /// Number of the stage's columns.
    pub fn stage_width(&self) -> usize {
        2 * self.identity_types.len() + 1 + self.columns.len() + self.toastable().count()
    }

    /// Whether a small batch can go as arguments of one function.
    pub fn fits_one_statement(&self) -> bool {
        self.stage_width() <= MOST_PARAMETERS
    }

    /// The writer for this session's stage.
    pub fn merge_function(&self) -> String {
        self.merge("merge", &self.stage())
    }

    /// The writer for the shadow.
    pub fn merge_shadow_function(&self) -> String {
        self.merge("merge_shadow", &self.shadow())
    }

    fn merge(&self, name: &str, stage: &str) -> String {
        let function = format!("pg_temp.{name}_{}", self.id);
        self.fill(
            include_str!("../../sql/target/merge.sql"),
            &[("function", &function), ("stage", stage)],
        )
    }

    /// The one statement of a small batch.
    pub fn apply_function(&self) -> String {
        let width = self.stage_width();
        let identity = self.identity_types.len();
        let bare = |name: &str| name.split(" COLLATE ").next().unwrap_or(name).to_owned();
        let mut types: Vec<String> = (0..2)
            .flat_map(|_| self.identity_types.iter().map(|name| bare(name)))
            .collect();
        types.push("\"char\"".to_owned());
        types.extend(self.columns.iter().map(|column| column.bare_type_name.clone()));
        types.extend(self.toastable().map(|_| "boolean".to_owned()));
        let names: Vec<String> = self.stage_columns().split(", ").map(str::to_owned).collect();
        debug_assert_eq!(
            (types.len(), names.len()),
            (width, width),
            "{identity} identity columns"
        );
        let casts = join(
            ", ",
            names
                .iter()
                .zip(&types)
                .map(|(name, of)| format!("a.{name}::{of}")),
        );
        self.fill(
            include_str!("../../sql/target/apply.sql"),
            &[
                ("function", &format!("pg_temp.apply_{}", self.id)),
                ("merge", &format!("pg_temp.merge_{}", self.id)),
                ("stage", &self.stage()),
                ("stage_columns", &self.stage_columns()),
                (
                    "parameters",
                    &join(", ", (1..=width).map(|n| format!("_a{n} text[]"))),
                ),
                ("arrays", &join(", ", (1..=width).map(|n| format!("_a{n}")))),
                ("casts", &casts),
            ],
        )
    }

    /// The call of the one statement, with its parameters numbered from 1.
    pub fn apply_call(&self) -> String {
        let arrays: String = (0..self.stage_width())
            .map(|n| format!(", ${}", n + 10))
            .collect();
        format!(
            "SELECT * FROM pg_temp.apply_{}($1, $2, $3::text::timestamptz, $4, $5, $6::text::timestamptz, $7, $8, $9{arrays})",
            self.id
        )
    }

    /// The call of the writer over the session's stage.
    pub fn merge_call(&self) -> String {
        format!("SELECT * FROM pg_temp.merge_{}($1, $2, $3)", self.id)
    }

    /// The call of the writer over the shadow.
    pub fn merge_shadow_call(&self) -> String {
        format!("SELECT * FROM pg_temp.merge_shadow_{}($1, $2, $3)", self.id)
    }

    /// Brings the shadow forward from the session's stage.
    pub fn catch_up_function(&self) -> String {
        let resolve = self.resolve(|n| format!("m.p{n}"), "false");
        self.fill(
            include_str!("../../sql/target/catch_up.sql"),
            &[
                ("function", &format!("pg_temp.catch_up_{}", self.id)),
                ("stage", &self.stage()),
                ("resolve", &resolve),
            ],
        )
    }

    /// The call of [`Self::catch_up_function`].
    pub fn catch_up_call(&self) -> String {
        format!("SELECT pg_temp.catch_up_{}($1, $2)", self.id)
    }

    /// The comparison of a dry run; keys of at most `limit` rows of each kind.
    pub fn compare(&self, limit: u32) -> String {
        let key = self
            .key
            .iter()
            .filter_map(|part| self.columns.get(part.column).map(|column| (part, column)));
        let first_key = self.key.first().map_or(1, |part| part.column + 1);
        let first_name = key
            .clone()
            .next()
            .map_or(String::new(), |(_, column)| ident(&column.name));
        let limit = limit.to_string();
        let wanted_key = join(
            ", ",
            self.key.iter().map(|part| format!("s.p{}", part.column + 1)),
        );
        self.fill(
            include_str!("../../sql/target/compare.sql"),
            &[
                ("limit", &limit),
                ("no_lookup", &format!("l.{first_name} IS NULL")),
                ("no_wanted", &format!("s.p{first_key} IS NULL")),
                (
                    "wanted_key_text",
                    &format!("pg_catalog.concat_ws(', ', {wanted_key})"),
                ),
            ],
        )
    }

    /// What each left-out value becomes, and whether it still is left out. Without such columns nothing changes.
    fn resolve(&self, value: impl Fn(usize) -> String, missing: &str) -> String {
        let assignments = self.toastable().map(|n| {
            let value = value(n);
            format!("p{n} = CASE WHEN s.u{n} THEN {value} ELSE s.p{n} END, u{n} = s.u{n} AND {missing}")
        });
        match join(", ", assignments) {
            none if none.is_empty() => "state = s.state".to_owned(),
            assignments => assignments,
        }
    }

    /// Fills the placeholders that several templates share, after those given.
    fn fill(&self, template: &str, own: &[(&str, &str)]) -> String {
        let n = self.identity_types.len();
        let width = self.columns.len();
        let keys = self.key.len();
        let same =
            |left: &str, right: &str| join(" AND ", (1..=n).map(|i| format!("{left}{i} = {right}{i}")));
        // Key comparisons, by the operator of the lookup's key index.
        let key_is = |left: &dyn Fn(usize, &KeyPart) -> String, right: &dyn Fn(usize, &KeyPart) -> String| {
            join(
                " AND ",
                self.key
                    .iter()
                    .zip(1..)
                    .map(|(part, n)| format!("{} {} {}", left(n, part), part.equality, right(n, part))),
            )
        };
        let in_lookup = |_: usize, part: &KeyPart| {
            self.columns
                .get(part.column)
                .map_or(String::new(), |column| format!("l.{}", ident(&column.name)))
        };
        let in_stage = |_: usize, part: &KeyPart| format!("s.p{}", part.column + 1);
        let in_map = |n: usize, _: &KeyPart| format!("m.k{n}");
        let in_touched = |n: usize, _: &KeyPart| format!("t.k{n}");
        let lookup_key = |alias: bool| {
            join(
                ", ",
                self.key.iter().zip(1..).map(|(part, n)| {
                    let column = in_lookup(n, part);
                    if alias {
                        format!("{column} AS k{n}")
                    } else {
                        column
                    }
                }),
            )
        };
        let stage_key = |alias: bool| {
            join(
                ", ",
                self.key.iter().zip(1..).map(|(part, n)| {
                    let column = in_stage(n, part);
                    if alias {
                        format!("{column} AS k{n}")
                    } else {
                        column
                    }
                }),
            )
        };
        let lookup_values = join(
            ", ",
            self.columns
                .iter()
                .map(|column| format!("l.{}", ident(&column.name))),
        );
        let differs = |left: &str, right: &str| {
            format!("ROW({left})::record OPERATOR(pg_catalog.*<>) ROW({right})::record")
        };
        let synced_at = self.model.settings.synced_at.as_ref().map(|name| ident(name));
        let assign = join(
            ", ",
            self.columns
                .iter()
                .zip(1..)
                .map(|(column, n)| format!("{} = s.p{n}", ident(&column.name)))
                .chain(synced_at.iter().map(|name| format!("{name} = now()"))),
        );
        let lookup_columns = join(
            ", ",
            self.columns
                .iter()
                .map(|column| ident(&column.name))
                .chain(synced_at.clone()),
        );
        let stage_values = join(
            ", ",
            (1..=width)
                .map(|n| format!("s.p{n}"))
                .chain(synced_at.iter().map(|_| "now()".to_owned())),
        );
        let left_out = match join(" OR ", self.toastable().map(|n| format!("s.u{n}"))) {
            none if none.is_empty() => "false".to_owned(),
            some => some,
        };
        let resolve = self.resolve(
            |n| {
                let column = self
                    .columns
                    .get(n - 1)
                    .map_or(String::new(), |column| ident(&column.name));
                format!("CASE WHEN m.state = 's' THEN l.{column} ELSE m.v{n} END")
            },
            &format!(
                "m.state = 's' AND {} IS NULL",
                self.key.first().map_or(String::new(), |part| in_lookup(1, part))
            ),
        );
        let map_assign = [
            join(", ", (1..=n).map(|i| format!("i{i} = s.i{i}"))),
            join(
                ", ",
                self.key
                    .iter()
                    .zip(1..)
                    .map(|(part, k)| format!("k{k} = {}", in_stage(k, part))),
            ),
            "state = CASE s.state WHEN 'l' THEN 's' ELSE 'd' END".to_owned(),
            join(
                ", ",
                (1..=width).map(|v| format!("v{v} = CASE s.state WHEN 'd' THEN s.p{v} END")),
            ),
        ]
        .join(", ");
        let map_names = format!("{}, {}", numbered("m.", "i", n), numbered("m.", "k", keys));
        let stage_names = format!("{}, {}", numbered("s.", "i", n), stage_key(false));
        let map_differs = format!(
            "(m.state <> CASE s.state WHEN 'l' THEN 's' ELSE 'd' END OR {} OR (s.state = 'd' AND {}))",
            differs(&map_names, &stage_names),
            differs(&numbered("m.", "v", width), &numbered("s.", "p", width)),
        );
        let v_from_lookup = join(
            ", ",
            self.columns
                .iter()
                .zip(1..)
                .map(|(column, v)| format!("v{v} = l.{}", ident(&column.name))),
        );
        let shared: &[(&str, String)] = &[
            ("schema", self.schema.clone()),
            ("id", self.id.to_string()),
            ("map", self.map()),
            ("lookup", self.lookup()),
            ("touched", self.touched()),
            ("shadow", self.shadow()),
            ("resolve", resolve),
            ("left_out", left_out),
            ("i", numbered("", "i", n)),
            ("k", numbered("", "k", keys)),
            ("p", numbered("", "p", width)),
            ("v", numbered("", "v", width)),
            ("w", numbered("", "w", n)),
            ("m_i", numbered("m.", "i", n)),
            ("m_k", numbered("m.", "k", keys)),
            ("m_v", numbered("m.", "v", width)),
            ("t_k", numbered("t.", "k", keys)),
            ("x_k", numbered("x.", "k", keys)),
            ("s_i", numbered("s.", "i", n)),
            ("s_p", numbered("s.", "p", width)),
            ("s_o_as_i", join(", ", (1..=n).map(|i| format!("s.o{i} AS i{i}")))),
            ("s_key", stage_key(false)),
            ("s_key_as_k", stage_key(true)),
            ("l_key_as_k", lookup_key(true)),
            ("start_is_map", same("s.o", "m.i")),
            ("start_is_shadow", same("s.o", "m.i")),
            ("other_start_is_map", same("o.o", "m.i")),
            ("identity_is_map", same("s.i", "m.i")),
            ("map_is_winner", same("m.i", "t.w")),
            ("stage_is_winner", same("s.i", "t.w")),
            (
                "no_key",
                join(
                    " OR ",
                    self.key
                        .iter()
                        .map(|part| format!("s.p{} IS NULL", part.column + 1)),
                ),
            ),
            (
                "no_lookup_key",
                join(
                    " OR ",
                    self.key
                        .iter()
                        .map(|part| format!("{} IS NULL", in_lookup(0, part))),
                ),
            ),
            ("lookup_is_map", key_is(&in_lookup, &in_map)),
            ("lookup_is_touched", key_is(&in_lookup, &in_touched)),
            ("lookup_is_stage", key_is(&in_lookup, &in_stage)),
            ("touched_is_map", key_is(&in_touched, &in_map)),
            ("stage_is_touched", key_is(&in_stage, &in_touched)),
            ("map_assign", map_assign),
            ("map_differs", map_differs),
            (
                "kept_values",
                join(
                    ", ",
                    (1..=width).map(|v| format!("CASE s.state WHEN 'd' THEN s.p{v} END")),
                ),
            ),
            ("v_from_lookup", v_from_lookup),
            (
                "v_from_stage",
                join(", ", (1..=width).map(|v| format!("v{v} = s.p{v}"))),
            ),
            ("v_null", join(", ", (1..=width).map(|v| format!("v{v} = NULL")))),
            ("lookup_assign", assign),
            ("lookup_columns", lookup_columns),
            ("stage_values", stage_values),
            (
                "lookup_differs",
                differs(&lookup_values, &numbered("s.", "p", width)),
            ),
            (
                "key_text",
                format!("pg_catalog.concat_ws(', ', {})", lookup_key(false)),
            ),
        ];
        let shared: Vec<(&str, &str)> = shared
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        fill(&fill(template, own), &shared)
    }

    /// What the map was made for: another definition needs another map, filled by an exact copy.
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
    /// Type with modifier and collation.
    fn definition(&self) -> String {
        match &self.collation {
            Some(collation) => format!("{} COLLATE {collation}", self.type_name),
            None => self.type_name.clone(),
        }
    }
}

/// What ends the body of a function, and what begins a placeholder: quoting does not help against either.
const BREAKS_TEMPLATES: [&str; 2] = ["$cdc$", "{{"];

fn refuse_names_that_break_templates(
    schema: &str,
    model: &ReadModel,
    columns: &[TargetColumn],
    key: &[KeyPart],
) -> Result<()> {
    let settings = &model.settings;
    let of_columns = columns.iter().flat_map(|column| {
        let types = [&column.name, &column.type_name, &column.bare_type_name];
        types.into_iter().chain(&column.collation)
    });
    let mut names = [schema, &settings.target.schema, &settings.target.name]
        .into_iter()
        .chain(of_columns.map(String::as_str))
        .chain(settings.synced_at.as_deref())
        .chain(key.iter().map(|part| part.equality.as_str()));
    let broken = names.find_map(|name| {
        let part = BREAKS_TEMPLATES.into_iter().find(|part| name.contains(part))?;
        Some((name, part))
    });
    match broken {
        None => Ok(()),
        Some((name, part)) => Err(Error::broken(format!(
            "lookup table \"{}\" cannot be written: the name {name} holds {part}",
            settings.target
        ))
        .with_detail("The functions that write the lookup are made from templates that use this themselves.")
        .with_hint(
            "Rename the schema, table, column, type, collation or operator of this name at the target.",
        )),
    }
}

/// The identity's type in the map: the source's own where the target has it too, text otherwise. Text compares by bytes.
fn identity_type(column: &BoundColumn) -> String {
    let same = column.builtin && !column.bare_type_name.starts_with("reg");
    match (same, column.collatable) {
        (true, true) => format!("{} COLLATE \"C\"", column.bare_type_name),
        (true, false) => column.bare_type_name.clone(),
        (false, _) => "text COLLATE \"C\"".to_owned(),
    }
}

/// A source column by name, number and type: dropped and made again under its name it is another one.
fn exactly(column: &BoundColumn) -> String {
    format!("{}#{}:{}", column.name, column.number, column.type_oid)
}

fn numbered(alias: &str, prefix: &str, count: usize) -> String {
    join(", ", (1..=count).map(|n| format!("{alias}{prefix}{n}")))
}

fn join(separator: &str, parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(separator)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{KeyColumn, KeyIndex, LookupColumn, ReplicaIdentity};
    use crate::read_model::Remembering;
    use crate::read_model::tests::labels_table;
    use crate::settings::ReadModelSettings;

    fn lookup() -> LookupTable {
        let column = |name: &str, type_name: &str| LookupColumn {
            name: name.to_owned(),
            type_oid: 1043,
            type_name: type_name.to_owned(),
            bare_type_name: "character varying".to_owned(),
            collation: None,
            collatable: true,
            not_null: true,
            has_default: false,
            generated: false,
        };
        LookupTable {
            oid: 1,
            name: ReadModelSettings::labels().target,
            kind: 'r',
            persistence: 'p',
            columns: vec![
                column("code", "character varying(10)"),
                column("label", "character varying(50)"),
                column("display_name", "character varying(50)"),
                column("updated_at", "timestamp with time zone"),
            ],
            unique_indexes: vec![KeyIndex {
                name: "labels_lookup_pkey".to_owned(),
                primary: true,
                columns: vec![KeyColumn {
                    name: "code".to_owned(),
                    equality: "OPERATOR(pg_catalog.=)".to_owned(),
                }],
            }],
            triggers: Vec::new(),
            referenced_by: Vec::new(),
            row_security_applies: false,
            missing_privileges: Vec::new(),
        }
    }

    fn bind(lookup: &LookupTable) -> Result<TargetModel> {
        let table = labels_table(ReplicaIdentity::Default);
        let model = ReadModel::bind(
            &ReadModelSettings::labels(),
            &table,
            &["id".to_owned()],
            Remembering::Map,
        )
        .unwrap();
        TargetModel::bind(7, "cdc", Arc::new(model), lookup)
    }

    #[test]
    fn no_placeholder_is_left_in_any_statement() {
        let model = bind(&lookup()).unwrap();
        for sql in [
            model.create_map(),
            model.create_stage(),
            model.create_shadow(),
            model.merge_function(),
            model.merge_shadow_function(),
            model.apply_function(),
            model.catch_up_function(),
            model.compare(5),
        ] {
            assert!(!sql.contains("{{"), "{sql}");
        }
    }

    #[test]
    fn names_that_would_break_the_functions_are_refused() {
        for bad in ["a$cdc$b", "{{id}}"] {
            let named = |settings: ReadModelSettings, lookup: &LookupTable, schema: &str| {
                let table = labels_table(ReplicaIdentity::Default);
                let identity = ["id".to_owned()];
                let model = ReadModel::bind(&settings, &table, &identity, Remembering::Map).unwrap();
                let error = TargetModel::bind(7, schema, Arc::new(model), lookup).unwrap_err();
                assert!(
                    error.to_string().contains(&format!("the name {bad} holds")),
                    "{error}"
                );
            };
            let mut settings = ReadModelSettings::labels();
            settings.target.name = bad.to_owned();
            named(settings, &lookup(), "cdc");
            let mut settings = ReadModelSettings::labels();
            settings.columns[1].target = bad.to_owned();
            let mut other = lookup();
            other.columns[1].name = bad.to_owned();
            named(settings, &other, "cdc");
            let mut settings = ReadModelSettings::labels();
            settings.synced_at = Some(bad.to_owned());
            let mut other = lookup();
            other.columns[3].name = bad.to_owned();
            named(settings, &other, "cdc");
            let mut typed = lookup();
            typed.columns[1].type_name = bad.to_owned();
            named(ReadModelSettings::labels(), &typed, "cdc");
            named(ReadModelSettings::labels(), &lookup(), bad);
        }
    }

    #[test]
    fn a_lookup_that_cannot_carry_the_key_is_refused() {
        let mut unlogged = lookup();
        unlogged.persistence = 'u';
        assert!(bind(&unlogged).unwrap_err().to_string().contains("UNLOGGED"));
        let mut no_index = lookup();
        no_index.unique_indexes.clear();
        assert!(
            bind(&no_index)
                .unwrap_err()
                .to_string()
                .contains("no unique index")
        );
        let mut no_column = lookup();
        no_column.columns.remove(1);
        assert!(bind(&no_column).unwrap_err().to_string().contains("\"label\""));
        for (at, name) in [(1, "label"), (3, "updated_at")] {
            let mut generated = lookup();
            generated.columns[at].generated = true;
            let error = bind(&generated).unwrap_err().to_string();
            assert!(
                error.contains(&format!("\"{name}\"")) && error.contains("generated"),
                "{error}"
            );
        }
    }
}

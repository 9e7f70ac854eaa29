//! The publication as the read models need it: the SQL that creates and extends it, and what it
//! lacks where `cdc` may not alter it.
//!
//! In: settings, facts, and who created the publication. Out: a [`Plan`]. Whole tables unless asked
//! otherwise, no row filter, never FOR ALL TABLES. Before a table is published, the plan proves
//! that the application's writes stay legal: the server accepts a publication without the replica
//! identity, and then every UPDATE and DELETE fails. Only a publication that this pipeline created
//! is altered; for any other one the SQL is reported. What a publication lacks for one read model
//! concerns that read model alone.

use crate::error::{Class, Error, Result};
use crate::facts::{Publication, SourceTable};
use crate::identity::writes_stay_legal;
use crate::ownership::{Maker, Ownership};
use crate::settings::Settings;
use crate::sql::{TableName, ident};

mod statements;
mod wanted;

pub(crate) use statements::drop_table_sql;
use statements::{add_table_sql, again_sql, comment_sql, create_sql};
use wanted::{Wanted, wanted};

/// First version with column lists.
const COLUMN_LISTS: u32 = 150_000;

const ALL_OPERATIONS: &str = "SET (publish = 'insert, update, delete, truncate')";

/// The statements that publish one table, or publish it in another way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableStep {
    /// The table.
    pub table: TableName,
    /// Its read models, by their places in the settings.
    pub models: Vec<usize>,
    /// One transaction.
    pub statements: Vec<String>,
    /// The table with its columns, as CREATE PUBLICATION names it.
    listed: String,
}

/// What a read model lacks, and `cdc` may not correct.
#[derive(Debug)]
pub(crate) struct Lack {
    /// The read model, by its place in the settings.
    pub model: usize,
    /// Why, with the SQL for a person who may run it.
    pub error: Error,
    /// That SQL.
    statements: Vec<String>,
}

impl Lack {
    /// One against which no statement helps.
    fn of(model: usize, error: Error) -> Self {
        Self {
            model,
            error,
            statements: Vec::new(),
        }
    }
}

/// What has to be executed for the publication, and which read models it does not serve all the
/// same.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    name: String,
    /// The options of a publication that is to be created; `None` if it exists, or cannot be
    /// created.
    create: Option<String>,
    /// What concerns the publication as a whole: options of an existing one, and the comment.
    whole: Vec<String>,
    /// Read models that need other options.
    of_options: Vec<usize>,
    tables: Vec<TableStep>,
    /// Read models that it does not serve.
    pub lacking: Vec<Lack>,
}

impl Plan {
    /// All that is to be executed, as one transaction.
    pub(crate) fn statements(&self) -> Vec<String> {
        let mut statements = Vec::new();
        if let Some(options) = &self.create {
            let tables: Vec<&str> = self
                .tables
                .iter()
                .map(|step| step.listed.as_str())
                .collect();
            statements.push(create_sql(&self.name, &tables, options));
        }
        statements.extend_from_slice(&self.whole);
        if self.create.is_none() {
            let tables = self.tables.iter().flat_map(|step| &step.statements);
            statements.extend(tables.cloned());
        }
        statements
    }

    /// The same in parts, so that a table that cannot be published now does not keep the others
    /// from it: first the publication as a whole.
    pub(crate) fn parts(&self) -> (Vec<String>, &[TableStep]) {
        let create = self.create.as_ref();
        let mut whole: Vec<String> = create
            .map(|options| create_sql(&self.name, &[], options))
            .into_iter()
            .collect();
        whole.extend_from_slice(&self.whole);
        (whole, &self.tables)
    }

    /// Read models that it serves only after the plan is executed.
    pub(crate) fn unserved(&self) -> Vec<usize> {
        let of_tables = self.tables.iter().flat_map(|step| &step.models);
        let mut places: Vec<usize> = self.of_options.iter().chain(of_tables).copied().collect();
        places.sort_unstable();
        places.dedup();
        places
    }

    /// All statements that are to be executed, also those that `cdc` may not run: for a person who
    /// may.
    ///
    /// # Errors
    /// What no statement helps against.
    pub(crate) fn statements_for_a_person(&self) -> Result<Vec<String>> {
        let mut statements = self.statements();
        for lack in &self.lacking {
            if lack.statements.is_empty() {
                return Err(lack.error.clone().with_class(Class::Configuration));
            }
            let missing = lack
                .statements
                .iter()
                .filter(|sql| !statements.contains(sql));
            let missing: Vec<String> = missing.cloned().collect();
            statements.extend(missing);
        }
        Ok(statements)
    }

    /// One error for everything that the read models lack, with the SQL that helps them all; `None`
    /// if nothing is lacking.
    pub(crate) fn refusal(&self) -> Option<Error> {
        let first = self.lacking.first()?;
        let mut all: Vec<&str> = Vec::new();
        for statement in self.lacking.iter().flat_map(|lack| &lack.statements) {
            if !all.contains(&statement.as_str()) {
                all.push(statement);
            }
        }
        // The hint already says who is to run it.
        let who = first.error.hint().and_then(|hint| hint.split_once(": "));
        Some(match who.filter(|_| !first.statements.is_empty()) {
            Some((who, _)) => first
                .error
                .clone()
                .with_hint(format!("{who}: {};", all.join("; "))),
            None => first.error.clone(),
        })
    }
}

/// What the settings need of the publication, where `existing` is the publication that exists.
///
/// # Errors
/// `Configuration` where the server does not know what is asked for.
pub(crate) fn plan(
    settings: &Settings,
    tables: &[SourceTable],
    existing: Option<&Publication>,
    ownership: &Ownership,
    version: u32,
) -> Result<Plan> {
    if settings.source.publish_projected_columns && version < COLUMN_LISTS {
        return Err(Error::configuration(
            "publish_columns = \"projected\" needs PostgreSQL 15 or later at the source",
        )
        .with_hint("Publish whole tables: leave publish_columns out."));
    }
    let (wanted, lacking) = wanted(settings, tables);
    let mut planning = Planning {
        tables,
        version,
        plan: Plan {
            name: settings.source.publication.clone(),
            lacking,
            ..Plan::default()
        },
    };
    match existing {
        None => planning.make(&wanted, &ownership.pipeline.mark()),
        Some(existing) => planning.change(&wanted, existing, ownership),
    }
    planning.plan.lacking.sort_by_key(|lack| lack.model);
    Ok(planning.plan)
}

/// Why a person has to run something.
struct Words<'a> {
    message: &'a str,
    detail: &'a str,
    /// How the hint begins: who is to run it.
    who: &'a str,
}

struct Planning<'a> {
    tables: &'a [SourceTable],
    version: u32,
    plan: Plan,
}

impl Planning<'_> {
    fn table(&self, name: &TableName) -> Option<&SourceTable> {
        self.tables.iter().find(|table| &table.name == name)
    }

    fn lack(&mut self, model: usize, error: Error) {
        self.plan.lacking.push(Lack::of(model, error));
    }

    /// Whether the table may be published so; if not its read models are noted.
    fn is_legal(&mut self, entry: &Wanted) -> bool {
        let Some(table) = self.table(&entry.table) else {
            return false;
        };
        let Err(error) = writes_stay_legal(table, entry.columns(), self.version) else {
            return true;
        };
        let error = error.context("cannot publish");
        for model in &entry.models {
            self.lack(*model, error.clone());
        }
        false
    }

    /// Creates the publication of the tables that the role owns. If the role owns none, another
    /// role has to create it.
    fn make(&mut self, wanted: &[Wanted], mark: &str) {
        let legal: Vec<&Wanted> = wanted.iter().filter(|entry| self.is_legal(entry)).collect();
        let is_owned = |entry: &&Wanted| self.table(&entry.table).is_some_and(|table| table.owned);
        let (owned, others): (Vec<&Wanted>, Vec<&Wanted>) =
            legal.iter().copied().partition(is_owned);
        let is_root = |entry: &&&Wanted| {
            self.table(&entry.table)
                .is_some_and(|table| table.kind == 'p')
        };
        let root = if legal.iter().any(|entry| is_root(&entry)) {
            ", publish_via_partition_root = true"
        } else {
            ""
        };
        let options = format!("publish = 'insert, update, delete, truncate'{root}");
        let name = self.plan.name.clone();
        if owned.is_empty() {
            let tables: Vec<String> = others.iter().map(|entry| entry.sql()).collect();
            let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
            let statements = [
                create_sql(&name, &tables, &options),
                comment_sql(&name, mark),
            ];
            for entry in others {
                let words = Words {
                    message: &format!("publication \"{name}\" does not exist"),
                    detail: "The role of the source's URL owns none of its tables, so it cannot make it.",
                    who: "Let the owner of the tables run",
                };
                self.lack_sql(entry, &statements, words);
            }
            return;
        }
        self.plan.create = Some(options);
        self.plan.whole.push(comment_sql(&name, mark));
        for entry in owned {
            self.plan
                .tables
                .push(step(entry, vec![add_table_sql(&name, entry)]));
        }
        for entry in others {
            self.lack_owner(entry, &[add_table_sql(&name, entry)]);
        }
    }

    fn change(&mut self, wanted: &[Wanted], existing: &Publication, ownership: &Ownership) {
        let name = self.plan.name.clone();
        let maker = ownership.maker(existing.comment.as_deref());
        let ours = maker == Maker::ThisPipeline;
        let mark = ownership.pipeline.mark();
        let mut options: Vec<String> = Vec::new();
        for entry in wanted {
            let of_publication = self.options(entry, existing);
            let of_table = self.of_table(entry, existing, ours);
            if of_publication.is_empty() && of_table.is_empty() || !self.is_legal(entry) {
                continue;
            }
            let table_owned = self.table(&entry.table).is_some_and(|table| table.owned);
            let statements = [of_publication.clone(), of_table.clone()].concat();
            if !(ours && existing.owned) {
                self.lack_maker(entry, &statements, (&maker, ownership));
            } else if of_table.is_empty() || table_owned {
                if !of_publication.is_empty() {
                    self.plan.of_options.extend_from_slice(&entry.models);
                }
                for option in of_publication {
                    if !options.contains(&option) {
                        options.push(option);
                    }
                }
                if !of_table.is_empty() {
                    self.plan.tables.push(step(entry, of_table));
                }
            } else {
                self.lack_owner(entry, &statements);
            }
        }
        self.plan.whole = options;
        let is_named = existing
            .comment
            .as_ref()
            .is_some_and(|comment| comment.starts_with(&mark));
        if ours && existing.owned && !is_named {
            self.plan.whole.push(comment_sql(&name, &mark));
        }
    }

    /// What the publication's options lack for this table.
    fn options(&self, entry: &Wanted, existing: &Publication) -> Vec<String> {
        let name = ident(&self.plan.name);
        let mut statements = Vec::new();
        if !(existing.insert && existing.update && existing.delete && existing.truncate) {
            statements.push(format!("ALTER PUBLICATION {name} {ALL_OPERATIONS}"));
        }
        let is_root = self
            .table(&entry.table)
            .is_some_and(|table| table.kind == 'p');
        if is_root && !existing.via_root {
            statements.push(format!(
                "ALTER PUBLICATION {name} SET (publish_via_partition_root = true)"
            ));
        }
        statements
    }

    /// What the publication's entry for this table lacks.
    fn of_table(&self, entry: &Wanted, existing: &Publication, ours: bool) -> Vec<String> {
        let name = &self.plan.name;
        let published = existing
            .tables
            .iter()
            .find(|table| table.table == entry.table);
        match published {
            Some(table)
                if table.row_filter.is_none()
                    && entry.is_met_by(table.columns.as_deref(), ours) =>
            {
                Vec::new()
            }
            Some(_) => again_sql(name, entry),
            // Without publish_via_partition_root the leaves are listed in place of their root.
            None if !existing.via_root && self.lists_all_leaves(existing, &entry.table) => {
                Vec::new()
            }
            None => vec![add_table_sql(name, entry)],
        }
    }

    fn lists_all_leaves(&self, existing: &Publication, name: &TableName) -> bool {
        let is_published =
            |leaf: &TableName| existing.tables.iter().any(|table| &table.table == leaf);
        self.table(name).is_some_and(|table| {
            !table.leaves.is_empty() && table.leaves.iter().all(|leaf| is_published(&leaf.name))
        })
    }

    /// The publication has to be altered, and is not the role's or this pipeline's to alter.
    fn lack_maker(&mut self, entry: &Wanted, statements: &[String], of: (&Maker, &Ownership)) {
        let name = &self.plan.name;
        let message = format!(
            "publication \"{name}\" does not publish what is needed of table \"{}\"",
            entry.table
        );
        let (why, who) = match of {
            (Maker::ThisPipeline, _) => ("this role does not own it", "Let its owner run"),
            (Maker::Person, _) => ("it was not made by cdc, so cdc does not alter it", "Run"),
            (Maker::AnotherPipeline(comment), ownership) => {
                let error = ownership.not_altered(comment, &message);
                for model in &entry.models {
                    self.lack(*model, error.clone());
                }
                return;
            }
        };
        let words = Words {
            message: &message,
            detail: &format!("The publication has to be altered, but {why}."),
            who,
        };
        self.lack_sql(entry, statements, words);
    }

    /// The role may alter the publication, but only the owner of the table may publish it.
    fn lack_owner(&mut self, entry: &Wanted, statements: &[String]) {
        let words = Words {
            message: &format!("cannot publish table \"{}\"", entry.table),
            detail: "The role of the source's URL does not own the table.",
            who: "Let a role that owns the table and the publication, or a superuser, run",
        };
        self.lack_sql(entry, statements, words);
    }

    fn lack_sql(&mut self, entry: &Wanted, statements: &[String], words: Words<'_>) {
        let Words {
            message,
            detail,
            who,
        } = words;
        for model in &entry.models {
            self.plan.lacking.push(Lack {
                model: *model,
                error: Error::broken(message)
                    .with_detail(detail)
                    .with_hint(format!("{who}: {};", statements.join("; "))),
                statements: statements.to_vec(),
            });
        }
    }
}

fn step(entry: &Wanted, statements: Vec<String>) -> TableStep {
    TableStep {
        table: entry.table.clone(),
        models: entry.models.clone(),
        statements,
        listed: entry.sql(),
    }
}

#[cfg(test)]
mod tests;

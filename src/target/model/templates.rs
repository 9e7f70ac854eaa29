//! Fills the templates of the writer, `sql/target/write`, for one read model. Their notation:
//! `sql/README.md`.
//!
//! ```text
//! template -> steps put in -> conditions and lists of the function's own
//!          -> those of every function -> names
//! ```
//!
//! The replacement of a placeholder may hold placeholders of the kinds that follow. Names that a
//! table's owner has chosen come last, and are never searched for placeholders.

use super::joins::{Entry, Joins};
use super::{TargetModel, join};
use crate::sql::fill;

mod conditions;
mod lists;
mod names;
mod steps;

impl TargetModel {
    /// Fills a template whose rows are looked up one by one; `own` are the placeholders that only
    /// this template has.
    pub(super) fn fill(&self, template: &str, own: &[(&str, &str)]) -> String {
        self.fill_joined(template, Joins::LookedUp, own)
    }

    /// The same for this way of joining.
    pub(super) fn fill_joined(&self, template: &str, joins: Joins, own: &[(&str, &str)]) -> String {
        let whole = steps::put_in(template, joins, self.lookup_is());
        debug_assert!(self.has_all(template, own), "unused: {own:?} in {template}");
        let text = fill(&whole, own);
        let text = fill_entries(&text, &self.conditions());
        let text = fill_entries(&text, &self.lists());
        fill_entries(&text, &self.names())
    }

    /// Whether the template has each of these placeholders in the form that has all steps.
    fn has_all(&self, template: &str, own: &[(&str, &str)]) -> bool {
        let whole = steps::put_in(template, Joins::LookedUp, self.lookup_is());
        own.iter()
            .all(|(name, _)| whole.contains(&format!("{{{{{name}}}}}")))
    }
}

/// Fills these placeholders.
pub(super) fn fill_entries(text: &str, entries: &[Entry]) -> String {
    let entries: Vec<(&str, &str)> = entries
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    fill(text, &entries)
}

/// One condition for each number, all of which hold.
fn all(count: usize, condition: impl Fn(usize) -> String) -> String {
    join(" AND ", (1..=count).map(condition))
}

/// One expression for each number, with commas.
fn each(count: usize, expression: impl Fn(usize) -> String) -> String {
    join(", ", (1..=count).map(expression))
}

#[cfg(test)]
mod tests;

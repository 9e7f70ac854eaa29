//! Quoting of names and literals, and names of tables.
//!
//! No identifier reaches SQL unquoted: every name goes through [`ident`] or [`TableName`]'s
//! `Display`.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// The name as a quoted identifier: `label"s` becomes `"label""s"`.
pub(crate) fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The text as a string literal, right under either setting of standard_conforming_strings.
pub(crate) fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if text.contains('\\') {
        format!(" E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

/// A list of quoted identifiers, separated by a comma and a blank.
pub(crate) fn idents<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> String {
    names
        .into_iter()
        .map(|name| ident(name.as_ref()))
        .collect::<Vec<_>>()
        .join(", ")
}

/// A `DO` block with this body, in dollar quotes that it does not hold.
pub(crate) fn block(body: &str) -> String {
    let mut tag = "$cdc$".to_owned();
    while body.contains(&tag) {
        tag.insert(1, '_');
    }
    format!("DO {tag}\n{body}\n{tag};")
}

/// Fills `{{name}}` placeholders of an SQL template.
///
/// Placeholders without a value are left as they are, so that a test can find them. `{{?name}}` is
/// filled by the name `?name`; what the notations mean is in `sql/README.md`.
pub(crate) fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut text = template.to_owned();
    for (name, value) in values {
        text = text.replace(&format!("{{{{{name}}}}}"), value);
    }
    text
}

/// A table's name with its schema.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    /// Schema, as in pg_namespace.nspname.
    pub schema: String,
    /// Table, as in pg_class.relname.
    pub name: String,
}

impl TableName {
    /// A table's name from its parts, as in the catalog (not quoted).
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            schema: schema.into(),
            name: name.into(),
        }
    }

    /// Both parts quoted, for SQL.
    pub(crate) fn quoted(&self) -> String {
        format!("{}.{}", ident(&self.schema), ident(&self.name))
    }
}

/// For people: parts are quoted only where SQL needs it (`public.labels`, `"Sales"."Order Lines"`).
impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", readable(&self.schema), readable(&self.name))
    }
}

fn readable(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain { name.to_owned() } else { ident(name) }
}

/// Reads `schema.table` or `table` (schema `public`) as PostgreSQL does: parts that are not quoted
/// are folded to lower case, `""` inside quotes stands for one quote.
impl FromStr for TableName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || {
            Error::configuration(format!("cannot read {text:?} as the name of a table"))
                .with_hint("Write schema.table, and quote parts with upper case or special characters: public.\"Order Lines\".")
        };
        let mut parts = Vec::new();
        let mut chars = text.trim().chars().peekable();
        loop {
            let mut part = String::new();
            if chars.next_if_eq(&'"').is_some() {
                loop {
                    match chars.next() {
                        Some('"') if chars.next_if_eq(&'"').is_some() => part.push('"'),
                        Some('"') => break,
                        Some(c) => part.push(c),
                        None => return Err(wrong()),
                    }
                }
            } else {
                while let Some(c) = chars.next_if(|c| c.is_alphanumeric() || matches!(c, '_' | '$'))
                {
                    part.push(c.to_ascii_lowercase());
                }
            }
            if part.is_empty() || part.contains('\0') {
                return Err(wrong());
            }
            parts.push(part);
            match chars.next() {
                None => break,
                Some('.') => {}
                Some(_) => return Err(wrong()),
            }
        }
        match <[String; 2]>::try_from(parts) {
            Ok([schema, name]) => Ok(Self { schema, name }),
            Err(mut parts) => match (parts.pop(), parts.is_empty()) {
                (Some(name), true) => Ok(Self::new("public", name)),
                _ => Err(wrong()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_literals_are_quoted() {
        assert_eq!(ident("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\b'"), " E'a\\\\b'''");
        assert_eq!(idents(["a", "B\""]), "\"a\", \"B\"\"\"");
        assert_eq!(TableName::new("S", "a.b").quoted(), "\"S\".\"a.b\"");
    }

    #[test]
    fn a_block_is_in_quotes_that_its_body_does_not_hold() {
        assert_eq!(block("BEGIN END"), "DO $cdc$\nBEGIN END\n$cdc$;");
        assert_eq!(
            block("a$cdc$b$_cdc$"),
            "DO $__cdc$\na$cdc$b$_cdc$\n$__cdc$;"
        );
    }

    #[test]
    fn placeholders_are_filled_wherever_they_stand() {
        let values = [("a", "1"), ("b", "{2}")];
        assert_eq!(
            fill("{{a}} {{b}}{{a}} {a} {{c}}", &values),
            "1 {2}1 {a} {{c}}"
        );
    }

    #[test]
    fn table_names_are_read_as_postgresql_reads_them() {
        for (text, schema, name) in [
            ("public.labels", "public", "labels"),
            ("Labels", "public", "labels"),
            ("\"Sales\".\"Order Lines\"", "Sales", "Order Lines"),
            ("s.\"a\"\"b.c\"", "s", "a\"b.c"),
            ("größe.tabelle", "größe", "tabelle"),
            (" _a1$.B_2 ", "_a1$", "b_2"),
        ] {
            assert_eq!(
                text.parse::<TableName>().unwrap(),
                TableName::new(schema, name),
                "{text}"
            );
        }
        for bad in [
            "", ".", "a.", ".a", "a.b.c", "a b", "\"a", "\"\"", "a.\"\"", "a-b",
        ] {
            assert!(bad.parse::<TableName>().is_err(), "{bad}");
        }
        for (name, shown) in [
            ("order_2", "order_2"),
            ("_order", "_order"),
            ("Order", "\"Order\""),
            ("2nd", "\"2nd\""),
            ("order lines", "\"order lines\""),
            ("größe", "\"größe\""),
        ] {
            let table = TableName::new("public", name);
            assert_eq!(table.to_string(), format!("public.{shown}"));
        }
    }
}

//! The TOML file as a [`Raw`] layer.
//!
//! The file is walked by hand rather than deserialized. So unknown keys and wrong types anywhere in
//! it are reported together, each with file and line, and without the line's text, which may hold a
//! password.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Mistakes;
use super::raw::{Given, Kept, Raw, RawReadModel, Side};
use crate::conninfo::closest;
use crate::error::{Error, Result};

/// Reads the file.
///
/// # Errors
///
/// Configuration, if it cannot be read or is no TOML; everything else is noted in `mistakes`.
pub(super) fn read(
    path: &Path,
    mistakes: &mut Mistakes,
    warnings: &mut Vec<String>,
) -> Result<Raw> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| {
        Error::configuration(format!("cannot read configuration file \"{name}\""))
            .with_source(error)
    })?;
    let raw = parse(&name, &text, mistakes)?;
    let open = std::fs::metadata(path).is_ok_and(|metadata| metadata.mode() & 0o077 != 0);
    if open && (holds_password(&raw.source) || holds_password(&raw.target)) {
        warnings.push(format!(
            "Configuration file \"{name}\" may hold a password and can be read by others; set its permissions to 0600, or use url_file."
        ));
    }
    Ok(raw)
}

/// Whether the connection string in the file has a password.
fn holds_password(side: &Side) -> bool {
    let Some(Given {
        value: Kept::Here(text),
        ..
    }) = &side.url
    else {
        return false;
    };
    let userinfo = text
        .split_once("://")
        .and_then(|(_, rest)| rest.rsplit_once('@'))
        .map(|(userinfo, _)| userinfo);
    text.contains("password") || userinfo.is_some_and(|userinfo| userinfo.contains(':'))
}

/// Reads the text of a file of that name.
pub(super) fn parse(name: &str, text: &str, mistakes: &mut Mistakes) -> Result<Raw> {
    let document = DeTable::parse(text).map_err(|error| {
        let at = line(text, error.span().unwrap_or_default().start);
        Error::configuration(format!("{name}:{at}: {}", error.message().trim()))
            .with_hint("The file is TOML; \"cdc config --example\" prints one to start from.")
    })?;
    let mut reader = Reader {
        name,
        text,
        mistakes,
    };
    Ok(reader.document(document.get_ref()))
}

fn line(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or_default();
    before
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
        .saturating_add(1)
}

/// The keys of the file outside of any table, and of each of its tables.
const TOP: &[&str] = &[
    "log_level",
    "status_interval",
    "source",
    "target",
    "read_model",
    "resync",
];
const SOURCE: &[&str] = &[
    "url",
    "url_file",
    "password_file",
    "publication",
    "slot",
    "publish_columns",
    "max_retained_wal",
    "failover",
];
const TARGET: &[&str] = &[
    "url",
    "url_file",
    "password_file",
    "schema",
    "synchronous_commit",
    "on_row_error",
];
const RESYNC: &[&str] = &["schedule", "timezone", "jitter"];
const READ_MODEL: &[&str] = &[
    "source",
    "target",
    "key",
    "columns",
    "soft_delete",
    "synced_at",
    "on_row_error",
];

struct Reader<'a> {
    name: &'a str,
    text: &'a str,
    mistakes: &'a mut Mistakes,
}

/// A table with its key path, empty for the whole file.
struct Section<'a, 'i> {
    path: &'a str,
    table: &'a DeTable<'i>,
}

impl<'a, 'i> Section<'a, 'i> {
    fn get(&self, key: &str) -> Option<&'a Spanned<DeValue<'i>>> {
        self.table
            .iter()
            .find(|(name, _)| name.get_ref().as_ref() == key)
            .map(|(_, value)| value)
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }
}

impl Reader<'_> {
    fn document(&mut self, document: &DeTable<'_>) -> Raw {
        let top = Section {
            path: "",
            table: document,
        };
        self.known(&top, TOP);
        let mut raw = Raw {
            log_level: self.string(&top, "log_level"),
            status_interval: self.string(&top, "status_interval"),
            ..Raw::default()
        };
        if let Some(source) = self.table(&top, "source") {
            self.source(&source, &mut raw);
        }
        if let Some(target) = self.table(&top, "target") {
            self.target(&target, &mut raw);
        }
        if let Some(resync) = self.table(&top, "resync") {
            self.resync(&resync, &mut raw);
        }
        raw.read_models = self.read_models(&top);
        raw
    }

    fn source(&mut self, source: &Section<'_, '_>, raw: &mut Raw) {
        self.known(source, SOURCE);
        raw.source = self.side(source);
        raw.publication = self.string(source, "publication");
        raw.slot = self.string(source, "slot");
        raw.publish_columns = self.string(source, "publish_columns");
        raw.max_retained_wal = self.string(source, "max_retained_wal");
        raw.failover = self.string(source, "failover");
    }

    fn target(&mut self, target: &Section<'_, '_>, raw: &mut Raw) {
        self.known(target, TARGET);
        raw.target = self.side(target);
        raw.schema = self.string(target, "schema");
        raw.synchronous_commit = self.string(target, "synchronous_commit");
        raw.on_row_error = self.string(target, "on_row_error");
    }

    fn resync(&mut self, resync: &Section<'_, '_>, raw: &mut Raw) {
        self.known(resync, RESYNC);
        raw.schedule = self.string(resync, "schedule");
        raw.timezone = self.string(resync, "timezone");
        raw.jitter = self.string(resync, "jitter");
    }

    fn side(&mut self, section: &Section<'_, '_>) -> Side {
        let url = self.string(section, "url");
        let url_file = self.string(section, "url_file");
        if let (Some(url), Some(_)) = (&url, &url_file) {
            self.mistakes
                .note(format!("{}: both url and url_file are given", url.origin));
        }
        Side {
            url: url
                .map(|given| given.keep(Kept::Here))
                .or_else(|| url_file.map(|given| given.keep(Kept::InFile))),
            password: self
                .string(section, "password_file")
                .map(|given| given.keep(Kept::InFile)),
        }
    }

    fn read_models(&mut self, top: &Section<'_, '_>) -> Option<Vec<RawReadModel>> {
        let value = top.get("read_model")?;
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(
                value,
                "read_model",
                "[[read_model]] (two brackets: there may be several)",
            );
            return None;
        };
        let mut models = Vec::new();
        for (index, value) in array.iter().enumerate() {
            let path = format!("read_model[{index}]");
            match value.get_ref().as_table() {
                Some(table) => models.push(self.read_model(value, &Section { path: &path, table })),
                None => self.wrong_type(value, &path, "a table"),
            }
        }
        Some(models)
    }

    fn read_model(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        section: &Section<'_, '_>,
    ) -> RawReadModel {
        self.known(section, READ_MODEL);
        RawReadModel {
            origin: self.origin(value, section.path),
            source: self.string(section, "source"),
            target: self.string(section, "target"),
            key: self.names(section, "key"),
            columns: self.columns(section, "columns"),
            soft_delete: self.string(section, "soft_delete"),
            synced_at: self.string(section, "synced_at"),
            on_row_error: self.string(section, "on_row_error"),
        }
    }

    /// An array of names, or one name.
    fn names(&mut self, section: &Section<'_, '_>, key: &str) -> Option<Given<Vec<String>>> {
        let value = section.get(key)?;
        let path = section.path_of(key);
        let names = match value.get_ref() {
            DeValue::String(name) => Some(vec![name.to_string()]),
            DeValue::Array(array) => array
                .iter()
                .map(|entry| entry.get_ref().as_str().map(str::to_owned))
                .collect(),
            _ => None,
        };
        let Some(names) = names else {
            self.wrong_type(value, &path, "an array of strings");
            return None;
        };
        Some(Given {
            value: names,
            origin: self.origin(value, &path),
        })
    }

    /// An array of names, or a table `lookup_name = "source_name"`, in the order of the file.
    fn columns(
        &mut self,
        section: &Section<'_, '_>,
        key: &str,
    ) -> Option<Given<Vec<(String, String)>>> {
        let value = section.get(key)?;
        let path = section.path_of(key);
        let pairs: Option<Vec<(String, String)>> = match value.get_ref() {
            DeValue::Table(table) => {
                let mut entries: Vec<_> = table.iter().collect();
                entries.sort_by_key(|(name, _)| name.span().start);
                entries
                    .into_iter()
                    .map(|(name, source)| {
                        Some((
                            name.get_ref().to_string(),
                            source.get_ref().as_str()?.to_owned(),
                        ))
                    })
                    .collect()
            }
            DeValue::Array(array) => array
                .iter()
                .map(|entry| {
                    entry
                        .get_ref()
                        .as_str()
                        .map(|name| (name.to_owned(), name.to_owned()))
                })
                .collect(),
            _ => None,
        };
        let Some(pairs) = pairs else {
            self.wrong_type(
                value,
                &path,
                "an array of strings, or a table { lookup_name = \"source_name\" }",
            );
            return None;
        };
        Some(Given {
            value: pairs,
            origin: self.origin(value, &path),
        })
    }

    fn string(&mut self, section: &Section<'_, '_>, key: &str) -> Option<Given> {
        let value = section.get(key)?;
        let path = section.path_of(key);
        match value.get_ref().as_str() {
            Some(text) => Some(Given {
                value: text.to_owned(),
                origin: self.origin(value, &path),
            }),
            None => {
                self.wrong_type(value, &path, "a string in quotes");
                None
            }
        }
    }

    fn table<'a, 'i>(&mut self, top: &Section<'a, 'i>, key: &'a str) -> Option<Section<'a, 'i>> {
        let value = top.get(key)?;
        match value.get_ref().as_table() {
            Some(table) => Some(Section { path: key, table }),
            None => {
                self.wrong_type(value, key, "a table");
                None
            }
        }
    }

    fn wrong_type(&mut self, value: &Spanned<DeValue<'_>>, path: &str, expected: &str) {
        let origin = self.origin(value, path);
        let found = value.get_ref().type_str();
        self.mistakes
            .note(format!("{origin}: expected {expected}, found {found}"));
    }

    /// Notes every key of the section that is not one of `known`.
    fn known(&mut self, section: &Section<'_, '_>, known: &[&str]) {
        let mut unknown: Vec<_> = section
            .table
            .keys()
            .filter(|key| !known.contains(&key.get_ref().as_ref()))
            .collect();
        unknown.sort_by_key(|key| key.span().start);
        for key in unknown {
            let word = key.get_ref().as_ref();
            let at = line(self.text, key.span().start);
            let text = format!(
                "{}:{at}: unrecognized key \"{}\"",
                self.name,
                section.path_of(word)
            );
            let hint = match closest(word, known.iter().copied()) {
                Some(meant) => format!("Did you mean \"{meant}\"?"),
                None => format!("Known here: {}.", known.join(", ")),
            };
            self.mistakes.note_with_hint(text, hint);
        }
    }

    fn origin(&self, value: &Spanned<DeValue<'_>>, path: &str) -> String {
        format!(
            "{}:{}: {path}",
            self.name,
            line(self.text, value.span().start)
        )
    }
}

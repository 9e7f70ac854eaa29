//! Settings as the TOML that would give them, with secrets masked.

use std::fmt;

use crate::settings::keys::entries;
use crate::settings::{ReadModelSettings, Settings};

/// Shows the settings as a configuration file; passwords as `****`.
#[derive(Debug)]
pub(crate) struct Effective<'a>(pub &'a Settings);

impl fmt::Display for Effective<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = entries(self.0);
        let mut last = "";
        for entry in &entries {
            let (table, key) = entry.key.split_once('.').unwrap_or(("", entry.key));
            if table != last {
                if table == "resync" {
                    // As in the example, they come after the databases.
                    for model in &self.0.read_models {
                        read_model(f, model)?;
                    }
                }
                writeln!(f, "\n[{table}]")?;
                last = table;
            }
            writeln!(f, "{key} = {}", quoted(&entry.value))?;
        }
        Ok(())
    }
}

fn read_model(f: &mut fmt::Formatter<'_>, model: &ReadModelSettings) -> fmt::Result {
    writeln!(f, "\n[[read_model]]")?;
    writeln!(f, "source = {}", quoted(&model.source.to_string()))?;
    writeln!(f, "target = {}", quoted(&model.target.to_string()))?;
    writeln!(
        f,
        "key = {}",
        list(model.key.iter().map(|name| quoted(name)))
    )?;
    if model
        .columns
        .iter()
        .all(|column| column.target == column.source)
    {
        let names = model.columns.iter().map(|column| quoted(&column.target));
        writeln!(f, "columns = {}", list(names))?;
    } else {
        let pairs = model
            .columns
            .iter()
            .map(|column| format!("{} = {}", quoted(&column.target), quoted(&column.source)));
        writeln!(
            f,
            "columns = {{ {} }}",
            pairs.collect::<Vec<_>>().join(", ")
        )?;
    }
    for (key, value) in [
        ("soft_delete", &model.soft_delete),
        ("synced_at", &model.synced_at),
    ] {
        if let Some(value) = value {
            writeln!(f, "{key} = {}", quoted(value))?;
        }
    }
    writeln!(f, "on_row_error = {}", quoted(model.on_row_error.word()))
}

/// A TOML string; the double-quoted form, so that a key may be written with it too.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

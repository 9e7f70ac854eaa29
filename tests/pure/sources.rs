//! The text of `src/` as these rules read it: files, their modules, and the paths that their code
//! names.
//!
//! It needs no build and no tool. Comments and unit tests are left out: tests may use what they
//! like.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A file of `src/`.
pub struct Source {
    /// Path below `src/`.
    pub path: String,
    /// Its module as a path below the crate: `["run", "session"]`; empty for `lib.rs` and
    /// `main.rs`.
    pub module: Vec<String>,
    /// Everything.
    pub text: String,
    /// The code alone.
    pub code: String,
}

/// All files of `src/` but those of unit tests.
pub fn sources() -> Vec<Source> {
    let root = root().join("src");
    files(&root)
        .into_iter()
        .filter(|path| !path.ends_with("tests.rs"))
        .map(|path| {
            let relative = path.strip_prefix(&root).unwrap().to_path_buf();
            let text = std::fs::read_to_string(&path).unwrap();
            Source {
                path: relative.display().to_string(),
                module: module(&relative),
                code: code(&text),
                text,
            }
        })
        .collect()
}

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below this directory, in order.
pub fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Top-level module -> path and code of all its files.
pub fn modules() -> BTreeMap<String, Vec<(String, String)>> {
    let mut modules: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for source in sources() {
        let first = source.module.first().cloned();
        let module = first.unwrap_or_else(|| source.path.trim_end_matches(".rs").to_owned());
        modules
            .entry(module)
            .or_default()
            .push((source.path, source.code));
    }
    modules
}

fn module(relative: &Path) -> Vec<String> {
    let mut module: Vec<String> = relative
        .with_extension("")
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    if module.last().is_some_and(|last| last == "mod") || module == ["lib"] || module == ["main"] {
        module.pop();
    }
    module
}

/// Up to the unit tests, without comment lines.
fn code(text: &str) -> String {
    text.lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"))
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Every path that begins with this word, without the word: `crate::{a, b::c}` has `a` and `b::c`.
pub fn paths(code: &str, start: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices(&format!("{start}::")) {
        let before = &code[..at];
        // `super::super::x` is read from its first word, `pub(in crate::x)` is no import.
        let within = before.ends_with(|c: char| c.is_alphanumeric() || "_:".contains(c));
        if !within && !before.ends_with("pub(in ") {
            tree(&code[at + start.len() + 2..], &[], &mut found);
        }
    }
    found
}

/// Reads a path or a list of them in braces; what is left of the text comes back.
fn tree<'a>(text: &'a str, prefix: &[String], found: &mut Vec<Vec<String>>) -> &'a str {
    let mut rest = text.trim_start();
    let mut path = prefix.to_vec();
    loop {
        if let Some(list) = rest.strip_prefix('{') {
            rest = list.trim_start();
            while !rest.is_empty() && !rest.starts_with('}') {
                rest = tree(rest, &path, found);
                let end = rest.find([',', '}']).unwrap_or(rest.len());
                rest = rest[end..].trim_start_matches(',').trim_start();
            }
            return rest.strip_prefix('}').unwrap_or(rest);
        }
        let end = rest
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        if end > 0 {
            path.push(rest[..end].to_owned());
        }
        match rest[end..].strip_prefix("::") {
            Some(more) if end > 0 => rest = more,
            _ => {
                found.push(path);
                return &rest[end..];
            }
        }
    }
}

#[test]
fn paths_are_found_in_lists_too() {
    let found = |code, start| -> Vec<String> {
        paths(code, start)
            .iter()
            .map(|path| path.join("::"))
            .collect()
    };
    let code =
        "use crate::{error::{Error, Result}, lsn::Lsn as L,\n sql};\nfn f() -> crate::row::Row {}";
    assert_eq!(
        found(code, "crate"),
        [
            "error::Error",
            "error::Result",
            "lsn::Lsn",
            "sql",
            "row::Row"
        ]
    );
    assert_eq!(
        found("use crate::error::{Error};", "crate"),
        ["error::Error"]
    );
    assert_eq!(found("pub(in crate::run) fn f();", "crate"), [""; 0]);
    assert_eq!(
        found("use super::super::a::*; super::b()", "super"),
        ["super::a", "b"]
    );
}

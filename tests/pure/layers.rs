//! The order of the modules: what may import what, and what the pure core does without.
//!
//! It reads the text of `src/`, so it needs no build and no tool. Comments and the unit tests at the foot of a
//! file are left out: tests may use what they like.

use std::collections::BTreeMap;
use std::path::Path;

/// Core modules; each may import only those before it.
const CORE: &[&str] = &[
    "error",
    "lsn",
    "sql",
    "row",
    "conninfo",
    "settings",
    "facts",
    "identity",
    "ownership",
    "publication",
    "protocol",
    "progress",
    "as_of",
    "standbys",
    "relation",
    "read_model",
    "shape",
    "transaction",
    "fold",
    "batch",
    "retry",
    "stuck",
    "schedule",
    "check",
    "status",
];

/// Modules that see everything.
const WIRING: &[&str] = &["run", "cli", "config", "telemetry", "cluster", "demo"];

/// What the core does without: waiting, I/O, clocks, logs, randomness.
const IMPURE: [&str; 18] = [
    "async fn",
    "async move",
    ".await",
    "tokio",
    "sqlx",
    "futures",
    "std::fs",
    "std::net",
    "std::io",
    "std::env",
    "std::process",
    "std::thread",
    "SystemTime::now",
    "Instant::now",
    "::now()",
    "tracing",
    "fastrand",
    "println!",
];

/// Top-level module -> text of all its files, without comments and tests.
fn modules() -> BTreeMap<String, Vec<(String, String)>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    let mut modules: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for path in files {
        let relative = path.strip_prefix(&root).unwrap().to_path_buf();
        let first = relative.components().next().unwrap();
        let module = Path::new(&first)
            .file_stem()
            .unwrap()
            .to_string_lossy()
            .into_owned();
        let text = code(&std::fs::read_to_string(&path).unwrap());
        modules
            .entry(module)
            .or_default()
            .push((relative.display().to_string(), text));
    }
    modules
}

fn collect(directory: &Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            files.push(path);
        }
    }
}

/// The code alone: up to the unit tests, without comment lines.
fn code(text: &str) -> String {
    text.lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"))
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Every module that the code names as `crate::module`, also in `use crate::{a, b::c}`.
fn imports(code: &str) -> Vec<String> {
    let word = |text: &str| -> String {
        text.chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect()
    };
    let mut found = Vec::new();
    for (start, name) in code.match_indices("crate::") {
        let rest = &code[start + name.len()..];
        let Some(list) = rest.strip_prefix('{') else {
            found.push(word(rest));
            continue;
        };
        let mut depth = 1;
        let mut item = String::new();
        for c in list.chars() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if (c == ',' && depth == 1) || depth == 0 {
                found.push(word(item.trim()));
                item.clear();
            } else {
                item.push(c);
            }
            if depth == 0 {
                break;
            }
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

#[test]
fn every_module_has_its_place() {
    for module in modules().keys() {
        let known = CORE.contains(&module.as_str())
            || WIRING.contains(&module.as_str())
            || ["source", "target", "lib", "main"].contains(&module.as_str());
        assert!(
            known,
            "module {module} is neither core, edge nor wiring: give it a place in tests/layers.rs"
        );
    }
}

#[test]
fn core_imports_only_what_comes_before_it() {
    let modules = modules();
    for (place, module) in CORE.iter().enumerate() {
        for (file, code) in modules.get(*module).into_iter().flatten() {
            for import in imports(code) {
                let allowed = import == *module || CORE[..place].contains(&import.as_str());
                assert!(
                    allowed,
                    "{file} imports crate::{import}, which does not come before {module}"
                );
            }
        }
    }
}

#[test]
fn core_neither_waits_nor_does_io_nor_looks_at_a_clock() {
    let modules = modules();
    for module in CORE.iter().copied() {
        for (file, code) in modules.get(module).into_iter().flatten() {
            for word in IMPURE {
                assert!(!code.contains(word), "{file} contains {word:?}");
            }
        }
    }
}

#[test]
fn edges_see_neither_each_other_nor_the_wiring() {
    let modules = modules();
    for (edge, other) in [("source", "target"), ("target", "source")] {
        for (file, code) in modules.get(edge).into_iter().flatten() {
            for import in imports(code) {
                let allowed = import != other && !WIRING.contains(&import.as_str());
                assert!(allowed, "{file} imports crate::{import}");
            }
        }
    }
}

#[test]
fn source_speaks_with_one_driver_and_target_with_the_other() {
    let modules = modules();
    for (edge, driver) in [("source", "sqlx::"), ("target", "tokio_postgres::")] {
        for (file, code) in modules.get(edge).into_iter().flatten() {
            assert!(!code.contains(driver), "{file} uses {driver}");
        }
    }
}

#[test]
fn imports_are_found_in_lists_too() {
    let code = "use crate::{error::{Error, Result}, lsn::Lsn, sql};\nfn f() -> crate::row::Row {}";
    assert_eq!(imports(code), ["error", "lsn", "sql", "row"]);
    assert_eq!(imports("use crate::error::{Error};"), ["error"]);
}

//! The order of the modules: what may import what, and what the pure core does without.
//!
//! No circles between files: `circles.rs`. What every file looks like: `style.rs`.

use super::sources::{modules, paths};

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
    "consume",
    "retry",
    "stuck",
    "schedule",
    "check",
    "status",
];

/// Modules that speak with a server: one way to it for both sides, and one module for each side.
const EDGES: &[&str] = &["connect", "source", "target"];

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

/// Every module that the code names as `crate::module`.
fn imports(code: &str) -> Vec<String> {
    let paths = paths(code, "crate").into_iter();
    paths.filter_map(|path| path.into_iter().next()).collect()
}

#[test]
fn every_module_has_its_place() {
    for module in modules().keys() {
        let known = CORE.contains(&module.as_str())
            || WIRING.contains(&module.as_str())
            || EDGES.contains(&module.as_str())
            || ["lib", "main"].contains(&module.as_str());
        assert!(
            known,
            "module {module} is neither core, edge nor wiring: give it a place in tests/pure/layers.rs"
        );
    }
}

#[test]
fn every_place_has_its_module() {
    let modules = modules();
    for name in [CORE, EDGES, WIRING].concat() {
        assert!(
            modules.contains_key(name),
            "src has no module {name}: take it out of tests/pure/layers.rs"
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
    for (edge, others) in [
        ("connect", ["source", "target"]),
        ("source", ["target", "target"]),
        ("target", ["source", "source"]),
    ] {
        for (file, code) in modules.get(edge).into_iter().flatten() {
            for import in imports(code) {
                let allowed =
                    !others.contains(&import.as_str()) && !WIRING.contains(&import.as_str());
                assert!(allowed, "{file} imports crate::{import}");
            }
        }
    }
}

/// Both sides go by one driver over sockets of ours; the tests read by another one.
#[test]
fn nothing_speaks_with_a_server_by_another_driver() {
    for (file, code) in modules().values().flatten() {
        assert!(!code.contains("sqlx"), "{file} uses sqlx");
    }
}

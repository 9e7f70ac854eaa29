//! What the documents say about files, commands, configuration and tests is so.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::sources::root;

const README: &str = include_str!("../../README.md");
const CONTRIBUTING: &str = include_str!("../../CONTRIBUTING.md");
const SECURITY: &str = include_str!("../../SECURITY.md");
const TESTS_README: &str = include_str!("../README.md");

fn cdc(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cdc"))
        .args(arguments)
        .env_clear()
        .output()
        .unwrap()
}

fn succeeds(arguments: &[&str]) {
    let output = cdc(arguments);
    assert!(
        output.status.success(),
        "cdc {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn every_file_that_they_name_is_there() {
    let starts = [
        "src/", "sql/", "scripts/", "tests/", "docs/", "docker", "LICENSE-", ".ci/",
    ];
    for document in [README, CONTRIBUTING, SECURITY, TESTS_README] {
        let quoted = document.split(['(', ')', '`', '#', ' ', ',']);
        for path in quoted.filter(|text| {
            starts.iter().any(|start| text.starts_with(start)) && !text.contains(['*', '\n'])
        }) {
            assert!(root().join(path).exists(), "{path}");
        }
    }
}

#[test]
fn every_command_in_its_table_exists() {
    let (_, commands) = README.split_once("\n## Commands\n").unwrap();
    let mut found = 0;
    for command in commands
        .lines()
        .filter_map(|line| line.strip_prefix("| `cdc "))
    {
        let (command, _) = command.split_once('`').unwrap();
        succeeds(&[command, "--help"]);
        found += 1;
    }
    assert_eq!(found, 10);
}

#[test]
fn its_configuration_file_is_valid() {
    let (_, block) = README.split_once("```toml\n").unwrap();
    let (toml, _) = block.split_once("```").unwrap();
    let file = std::env::temp_dir().join(format!("cdc-readme-{}.toml", std::process::id()));
    std::fs::write(&file, toml).unwrap();
    let output = cdc(&["config", "--config", file.to_str().unwrap()]);
    std::fs::remove_file(&file).unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn server_test_of_contributing_is_one_of_the_suite() {
    let (_, block) = CONTRIBUTING
        .split_once("```rust\n#[tokio::test]\n")
        .unwrap();
    let (test, rest) = block.split_once("```").unwrap();
    assert!(include_str!("../engine/watch.rs").contains(test), "{test}");
    let (_, block) = rest.split_once("```rust\n").unwrap();
    let (cases, _) = block.split_once("```").unwrap();
    assert!(
        include_str!("../../src/identity/tests.rs").contains(cases),
        "{cases}"
    );
}

#[test]
fn every_variable_of_the_tests_is_explained() {
    let known: BTreeSet<&str> = variables(TESTS_README).collect();
    for folder in ["tests", "scripts"] {
        for path in every_file(&root().join(folder)) {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            for variable in variables(&text) {
                assert!(
                    known.contains(variable),
                    "{variable} of {} is not in tests/README.md",
                    path.display()
                );
            }
        }
    }
}

fn variables(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !c.is_ascii_uppercase() && c != '_');
    words.filter(|word| *word == "CDC_TESTS" || word.len() > 9 && word.starts_with("CDC_TEST_"))
}

fn every_file(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| {
            if path.is_dir() {
                every_file(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

//! What the README says about files, commands and configuration is so.

use std::path::Path;
use std::process::{Command, Output};

const README: &str = include_str!("../../README.md");

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
fn every_file_that_it_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let quoted = README.split(['(', ')', '`']);
    for path in quoted.filter(|text| {
        ["src/", "sql/", "scripts/", "docker", "LICENSE-"]
            .iter()
            .any(|start| text.starts_with(start) && !text.contains(' '))
    }) {
        assert!(root.join(path).exists(), "{path}");
    }
}

#[test]
fn every_command_in_its_table_exists() {
    let (_, commands) = README.split_once("\n## Commands\n").unwrap();
    let mut found = 0;
    for command in commands.lines().filter_map(|line| line.strip_prefix("| `cdc ")) {
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

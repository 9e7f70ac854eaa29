//! `cdc demo` as a person runs it: it tells its story to the end and leaves nothing behind, also
//! after Ctrl-C.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::DEADLINE;

/// A temporary directory of its own shows what is left behind.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("cdc-demo-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn demo(&self, arguments: &[&str]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_cdc"))
            .arg("demo")
            .args(arguments)
            .env("TMPDIR", &self.0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn left_behind(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn text(output: &Output) -> String {
    format!(
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn shell(script: &str) {
    let status = Command::new("/bin/sh")
        .args(["-c", script])
        .status()
        .unwrap();
    assert!(status.success(), "{script}");
}

#[test]
fn demo_tells_its_story_in_plain_lines_and_leaves_nothing() {
    let scratch = Scratch::new("story");
    let output = scratch.demo(&[]).wait_with_output().unwrap();
    let shown = text(&output);
    assert!(output.status.success(), "{shown}");
    let stdout = String::from_utf8(output.stdout).unwrap();
    for expected in [
        "Prof. Dr. Jane Doe",
        "TRUNCATE labels",
        "everything removed",
    ] {
        assert!(stdout.contains(expected), "{expected}: {shown}");
    }
    assert_eq!(stdout.matches("after the commit").count(), 7, "{shown}");
    assert!(
        stdout.lines().all(|line| line.chars().count() < 100),
        "{shown}"
    );
    assert!(!stdout.contains('\x1b'), "colour without a terminal");
    assert_eq!(scratch.left_behind(), Vec::<PathBuf>::new());
}

#[test]
fn interrupted_demo_leaves_nothing() {
    let scratch = Scratch::new("interrupted");
    let mut demo = scratch.demo(&[]);
    let started = Instant::now();
    while scratch.left_behind().is_empty() {
        assert!(started.elapsed() < DEADLINE, "the demo makes no server");
        std::thread::sleep(Duration::from_millis(5));
    }
    shell(&format!("kill -INT {}", demo.id()));
    demo.wait().unwrap();
    while !scratch.left_behind().is_empty() {
        assert!(started.elapsed() < DEADLINE, "{:?}", scratch.left_behind());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn kept_servers_run_on_until_the_printed_commands_remove_them() {
    let scratch = Scratch::new("kept");
    let output = scratch.demo(&["--keep"]).wait_with_output().unwrap();
    let shown = text(&output);
    assert!(output.status.success(), "{shown}");
    let line = |start: &str| {
        let found = shown
            .lines()
            .map(str::trim)
            .find(|line| line.starts_with(start));
        found
            .unwrap_or_else(|| panic!("{start}: {shown}"))
            .to_owned()
    };
    let (stop, remove) = (line("kill -QUIT"), line("rm -rf"));
    assert_eq!(scratch.left_behind().len(), 2, "{shown}");
    shell(&stop);
    shell(&remove);
    assert_eq!(scratch.left_behind(), Vec::<PathBuf>::new());
}

//! The command line as a user meets it: the built program, its output and its exit codes. No server
//! is needed.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A directory to run in, removed when dropped, so that no cdc.toml or home of the developer
/// counts.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("cdc-cli-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn cdc(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cdc"));
        command
            .args(arguments)
            .env_clear()
            .env("HOME", &self.0)
            .current_dir(&self.0)
            .stdin(Stdio::null());
        command
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const URLS: [(&str, &str); 2] = [
    ("CDC_SOURCE_URL", "postgresql://ann:hunter2@master/app"),
    ("CDC_TARGET_URL", "host=core user=bob password=hunter2"),
];

struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn ran(command: &mut Command) -> Ran {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let ran = Ran {
        code: status.code(),
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
    };
    for text in [&ran.stdout, &ran.stderr] {
        assert!(!text.contains("hunter"), "a password is printed: {text}");
    }
    ran
}

#[test]
fn help_opens_with_a_sentence_and_has_examples() {
    let scratch = Scratch::new("help");
    let help = ran(&mut scratch.cdc(&["--help"]));
    assert_eq!(help.code, Some(0));
    assert!(
        help.stdout
            .starts_with("Keeps lookup tables in one PostgreSQL database"),
        "{}",
        help.stdout
    );
    assert!(
        help.stdout.contains("Examples:") && help.stdout.contains("Exit codes: 0 done"),
        "{}",
        help.stdout
    );
    for command in [
        "run",
        "check",
        "setup",
        "status",
        "resync",
        "verify",
        "teardown",
        "demo",
        "config",
        "completions",
    ] {
        assert!(
            help.stdout.contains(&format!("\n  {command} ")),
            "{command}"
        );
        let help = ran(&mut scratch.cdc(&[command, "--help"]));
        assert_eq!(help.code, Some(0), "{command}");
        assert!(
            help.stdout.contains("Examples:\n  cdc "),
            "{command}: {}",
            help.stdout
        );
        assert!(
            help.stdout.contains("CDC_SOURCE_URL"),
            "{command}: {}",
            help.stdout
        );
    }
}

#[test]
fn help_never_shows_the_environment() {
    let scratch = Scratch::new("environment");
    for argument in ["-h", "--help"] {
        ran(scratch
            .cdc(&["run", argument])
            .envs(URLS)
            .env("CDC_LOG", "hunter2")
            .env("CDC_LOG_FORMAT", "hunter2"));
    }
}

#[test]
fn all_sql_is_only_printed() {
    let scratch = Scratch::new("all-sql");
    let alone = ran(scratch.cdc(&["setup", "--all"]).envs(URLS));
    assert_eq!(alone.code, Some(2), "{}", alone.stderr);
    assert!(alone.stderr.contains("--print-sql"), "{}", alone.stderr);
    let help = ran(&mut scratch.cdc(&["setup", "--help"]));
    assert!(
        help.stdout.contains("cdc setup --print-sql --all"),
        "{}",
        help.stdout
    );
}

#[test]
fn version_is_printed() {
    let scratch = Scratch::new("version");
    let version = ran(&mut scratch.cdc(&["--version"]));
    assert_eq!(
        version.stdout,
        format!("cdc {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn wrong_usage_exits_with_2() {
    let scratch = Scratch::new("usage");
    for arguments in [
        &["--nonsense"][..],
        &["nonsense"],
        &[],
        &["completions", "tcsh"],
        &["status", "--json", "--watch"],
        &["--log-format", "xml", "config"],
        &["--log-level", "cdc=loud", "config"],
    ] {
        let wrong = ran(&mut scratch.cdc(arguments));
        assert_eq!(wrong.code, Some(2), "{arguments:?}: {}", wrong.stderr);
        assert_eq!(wrong.stdout, "", "{arguments:?}");
    }
}

#[test]
fn example_is_a_right_configuration() {
    let scratch = Scratch::new("example");
    let example = ran(&mut scratch.cdc(&["config", "--example"]));
    assert_eq!(example.code, Some(0));
    let file = scratch.file("example.toml", &example.stdout);
    let config = ran(scratch
        .cdc(&["config", "--config"])
        .arg(&file)
        .env("USER", "ann"));
    assert_eq!(config.code, Some(0), "{}", config.stderr);
    assert!(
        config.stdout.contains("target = \"public.labels_lookup\""),
        "{}",
        config.stdout
    );

    // It is found by itself as ./cdc.toml, and by CDC_CONFIG.
    scratch.file("cdc.toml", &example.stdout);
    assert!(
        ran(&mut scratch.cdc(&["config"]))
            .stdout
            .starts_with("# File: cdc.toml\n")
    );
    let config = ran(scratch.cdc(&["config"]).env("CDC_CONFIG", &file));
    assert!(
        config
            .stdout
            .starts_with(&format!("# File: {}\n", file.display()))
    );
}

#[test]
fn effective_configuration_is_a_configuration_again() {
    let scratch = Scratch::new("effective");
    let first = ran(scratch.cdc(&["config"]).envs(URLS).env("CDC_SLOT", "other"));
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    assert!(
        first
            .stdout
            .contains("url = \"postgresql://ann:****@master:5432/app\""),
        "{}",
        first.stdout
    );
    assert!(
        first.stdout.contains("slot = \"other\""),
        "{}",
        first.stdout
    );
    let file = scratch.file("effective.toml", &first.stdout);
    let second = ran(scratch.cdc(&["config", "--config"]).arg(&file));
    let settings = |text: &str| text.split_once('\n').map(|(_, rest)| rest.to_owned());
    assert_eq!(
        settings(&first.stdout),
        settings(&second.stdout),
        "{}",
        second.stderr
    );
}

#[test]
fn missing_url_is_told_with_advice() {
    let scratch = Scratch::new("missing");
    let missing = ran(scratch
        .cdc(&["config", "--target-url", "host=core"])
        .env("PGHOST", "master"));
    assert_eq!(missing.code, Some(2));
    assert!(
        missing.stderr.starts_with(
            "error: the URL of the source database is missing\nhint: Set CDC_SOURCE_URL"
        )
    );
    assert_eq!(missing.stdout, "");
}

#[test]
fn unknown_key_is_told_with_a_suggestion() {
    let scratch = Scratch::new("unknown");
    scratch.file(
        "cdc.toml",
        "[source]\nurll = 'postgres://ann:hunter2@master/app'\n",
    );
    let unknown = ran(scratch.cdc(&["config"]).envs(URLS));
    assert_eq!(unknown.code, Some(2));
    assert_eq!(
        unknown.stderr,
        "error: cdc.toml:2: unrecognized key \"source.urll\"\nhint: Did you mean \"url\"?\n"
    );
}

#[test]
fn a_variable_and_its_file_exclude_each_other() {
    let scratch = Scratch::new("both");
    let file = scratch.file("url", "host=master\n");
    let both = ran(scratch
        .cdc(&["config"])
        .envs(URLS)
        .env("CDC_SOURCE_URL_FILE", &file));
    assert_eq!(both.code, Some(2));
    assert!(
        both.stderr
            .starts_with("error: both CDC_SOURCE_URL and CDC_SOURCE_URL_FILE are set\nhint: "),
        "{}",
        both.stderr
    );
}

#[test]
fn no_mistake_in_a_url_prints_its_password() {
    let scratch = Scratch::new("password");
    for url in [
        "postgresql://ann:hunter2@master:port/app",
        "postgresql://ann:x/hunter2@master/app",
        "postgresql://ann:x@hunter2@master/app",
        "postgresql://ann:hunter2@master/app?sslmod=require",
        "host=master password=x hunter2",
        "host=master password='hunter2",
        "hunter2",
    ] {
        for command in ["config", "run", "check", "status"] {
            let wrong = ran(scratch
                .cdc(&[command, "--source-url", url])
                .env(URLS[1].0, URLS[1].1));
            assert_eq!(wrong.code, Some(2), "{url}: {}", wrong.stderr);
        }
    }
}

#[test]
fn closed_pipe_is_no_error() {
    let scratch = Scratch::new("pipe");
    for arguments in [&["completions", "bash"][..], &["config", "--example"]] {
        let mut child = scratch
            .cdc(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(
            output.stderr.is_empty(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn completions_are_scripts() {
    let scratch = Scratch::new("completions");
    let bash = ran(&mut scratch.cdc(&["completions", "bash"]));
    assert!(bash.stdout.contains("--print-sql"));
    if Path::new("/bin/bash").exists() {
        let mut child = Command::new("/bin/bash")
            .arg("-n")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(bash.stdout.as_bytes())
            .unwrap();
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn arguments_that_are_repeated_are_masked() {
    let scratch = Scratch::new("arguments");
    for arguments in [
        &["postgres://ann:hunter2@db/app"][..],
        &["run", "postgres://ann:hunter2@db/app"],
        &["run", "--source", "postgres://ann:hunter2@db/app"],
        &["run", "--source=postgres://ann:hunter2@db/app"],
        &["run", "host=db password=hunter2"],
        &["run", "--log-format", "password='x hunter2'"],
    ] {
        let wrong = ran(&mut scratch.cdc(arguments));
        assert_eq!(wrong.code, Some(2), "{arguments:?}");
        assert!(wrong.stderr.starts_with("error: "), "{}", wrong.stderr);
    }
}

#[test]
fn log_is_json_elsewhere_than_on_a_terminal() {
    let scratch = Scratch::new("log");
    let log = |more: &[&str]| {
        let mut arguments = vec![
            "check",
            "--source-url",
            "host=/nowhere",
            "--target-url",
            "host=/nowhere",
        ];
        arguments.extend_from_slice(more);
        ran(scratch
            .cdc(&arguments)
            .env("CDC_SOURCE_URI", "x")
            .env("USER", "ann"))
        .stderr
    };
    let json = log(&[]);
    let line = json.lines().next().unwrap_or_default();
    let value: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(value["level"], "WARN");
    assert_eq!(value["message"], "configuration");
    assert!(
        value["warning"]
            .as_str()
            .unwrap()
            .contains("CDC_SOURCE_URL?"),
        "{json}"
    );
    let text = log(&["--log-format", "text"]);
    assert!(text.contains(" WARN configuration warning="), "{text}");
    assert!(!log(&["--log-level", "error"]).contains("configuration"));
}

//! What every file looks like.

use super::sources::{files, root, sources};

/// Longest comment line, in characters: as wide as the code (rustfmt.toml).
const WIDTH: usize = 100;

#[test]
fn every_file_says_what_it_is_for() {
    for source in sources() {
        assert!(
            source.text.starts_with("//! "),
            "src/{} does not begin with a //! header: one sentence on what it does",
            source.path
        );
    }
}

/// A comment that can be wrapped: not a row of a table.
fn is_comment(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("//") && !line.starts_with("//! |") && !line.starts_with("/// |")
}

#[test]
fn comments_are_no_wider_than_the_limit() {
    for folder in ["src", "tests", "benches"] {
        for path in files(&root().join(folder)) {
            let text = std::fs::read_to_string(&path).unwrap();
            let wide = text
                .lines()
                .enumerate()
                .find(|(_, line)| is_comment(line) && line.chars().count() > WIDTH);
            assert!(
                wide.is_none(),
                "{}:{}: a comment is wider than {WIDTH} characters",
                path.display(),
                wide.map_or(0, |(at, _)| at + 1)
            );
        }
    }
}

#[test]
fn toolchain_is_the_same_everywhere() {
    let read = |file: &str| std::fs::read_to_string(root().join(file)).unwrap();
    let toolchain = read("rust-toolchain.toml");
    let (_, rest) = toolchain.split_once("channel = \"").unwrap();
    let (version, _) = rest.split_once('"').unwrap();
    let (major_and_minor, _) = version.rsplit_once('.').expect("a number, not a channel");
    assert!(read("Cargo.toml").contains(&format!("\nrust-version = \"{major_and_minor}\"\n")));
    assert!(read("Dockerfile").contains(&format!("\nFROM rust:{version}-bookworm AS build\n")));
}

/// Words that the glossary has a plainer one for; no message, hint or log line uses them.
const BANNED: &[&str] = &[
    "told",
    "tells",
    "mend",
    "mends",
    "set apart",
    "anew",
    "as soon as may be",
    "goes on",
    "cannot go on",
    "by now",
    "for want of",
    "in vain",
    "taken away",
    "somebody",
    "whoever",
    "made again",
    "stands still",
    "stand still",
];

/// The text of the string literals of a line, one after the other.
fn literals(line: &str) -> String {
    let mut text = String::new();
    let mut inside = false;
    let mut escaped = false;
    for c in line.chars() {
        match c {
            '"' if !escaped => {
                inside = !inside;
                text.push(' ');
            }
            _ if inside => text.push(c),
            _ => {}
        }
        escaped = c == '\\' && !escaped;
    }
    text
}

fn has_words(text: &str, words: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(words).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + words.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

#[test]
fn messages_use_the_words_of_the_glossary() {
    let mut found = String::new();
    for source in sources() {
        for line in source.code.lines() {
            let text = literals(line);
            for words in BANNED.iter().filter(|words| has_words(&text, words)) {
                found.push_str(&format!(
                    "src/{}: {words:?} in {}\n",
                    source.path,
                    line.trim()
                ));
            }
        }
    }
    assert!(found.is_empty(), "see docs/glossary.md:\n{found}");
}

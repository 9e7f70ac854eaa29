//! No circles between the files of `src/`: what a file uses can be read before it.
//!
//! An edge is a path in the code: `crate::a::b`, `super::b`, or the name of a child module. It
//! leads to the file of the longest module that the path names. A child may name the definitions of
//! its parent ([`LISTS`] are the exception).

use std::collections::{BTreeMap, BTreeSet};

use super::sources::{paths, sources};

/// Modules that only list their children: no child may name them while they name it.
const LISTS: &[&str] = &["run/mod.rs"];

type Edges = BTreeMap<String, BTreeSet<String>>;

/// File -> files that its code names.
fn edges() -> Edges {
    let sources = sources();
    let files: BTreeMap<&[String], &str> = sources
        .iter()
        .filter(|source| !source.module.is_empty())
        .map(|source| (source.module.as_slice(), source.path.as_str()))
        .collect();
    let file_of = |path: &[String]| {
        (1..=path.len())
            .rev()
            .find_map(|length| files.get(&path[..length]))
    };
    let mut edges = Edges::new();
    for source in &sources {
        let mut named = paths(&source.code, "crate");
        for path in paths(&source.code, "super") {
            let ups = 1 + path.iter().take_while(|part| *part == "super").count();
            let above = source.module.len().saturating_sub(ups);
            named.push([&source.module[..above], &path[ups - 1..]].concat());
        }
        let children = files.keys().filter(|module| {
            module.len() == source.module.len() + 1 && module.starts_with(&source.module)
        });
        for child in children.filter(|_| !source.module.is_empty()) {
            let name = child.last().unwrap();
            let uses = paths(&source.code, name)
                .into_iter()
                .chain(paths(&source.code, &format!("self::{name}")));
            named.extend(uses.map(|path| [child, path.as_slice()].concat()));
        }
        let to = edges.entry(source.path.clone()).or_default();
        to.extend(
            named
                .iter()
                .filter_map(|path| file_of(path))
                .map(|file| (*file).to_owned()),
        );
        to.remove(&source.path);
        to.retain(|file| LISTS.contains(&file.as_str()) || !is_above(file, &source.module, &files));
    }
    edges
}

/// Whether this file's module is a parent of the other module, or its parent's.
fn is_above(file: &str, module: &[String], files: &BTreeMap<&[String], &str>) -> bool {
    (1..module.len()).any(|length| files.get(&module[..length]) == Some(&file))
}

/// Whether one file reaches another.
fn reaches(edges: &Edges, from: &str, to: &str) -> bool {
    let mut seen = BTreeSet::new();
    let mut open = vec![from];
    while let Some(file) = open.pop() {
        if file == to {
            return true;
        }
        if seen.insert(file) {
            open.extend(edges.get(file).into_iter().flatten().map(String::as_str));
        }
    }
    false
}

/// Imports that lie on a circle, one a line.
fn on_circles(edges: &Edges) -> Vec<String> {
    let mut found = Vec::new();
    for (from, named) in edges {
        for to in named {
            if reaches(edges, to, from) {
                found.push(format!("{from} -> {to}"));
            }
        }
    }
    found
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let found = on_circles(&edges());
    assert!(
        found.is_empty(),
        "these imports lie on circles; move the definitions that close one to a file of their own:\n{}",
        found.join("\n")
    );
}

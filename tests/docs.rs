//! The documentation names only what is there: every relative link, every heading that a link points
//! to, every file of the repository and every test.
//!
//! A file is named in backquotes, from the root of the repository or from the document's folder, as in
//! `src/lib.rs`. Tests are named behind their file, as in `` `tests/docs.rs`: `the_readme_is_short` ``. Fenced code is not read.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const README_BYTES_MAX: usize = 7 * 1024;

/// Folders at the root whose files are in the repository.
const FOLDERS: [&str; 14] = [
    ".ci", "benches", "clients", "crates", "docs", "examples", "fuzz", "grafana", "load",
    "scripts", "sql", "src", "systemd", "tests",
];

/// Folders with documents of others, or with what was built.
const SKIPPED: [&str; 6] = [
    ".git",
    ".hushnet",
    "artifacts",
    "dist",
    "node_modules",
    "target",
];

struct Document {
    path: PathBuf,
    /// Without fenced code.
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn documents() -> Vec<Document> {
    let mut found = Vec::new();
    collect(root(), &mut found);
    assert!(found.len() > 10, "only {} documents", found.len());
    found
}

fn collect(directory: &Path, found: &mut Vec<Document>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            if !SKIPPED.contains(&name) {
                collect(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "md") {
            let text = without_fences(&fs::read_to_string(&path).unwrap());
            found.push(Document { path, text });
        }
    }
}

fn without_fences(text: &str) -> String {
    let mut fenced = false;
    let mut kept = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// The target of each link and picture.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| {
        let (target, _) = rest.split_once(')')?;
        Some(target)
    })
}

/// The anchor that GitHub makes of a heading.
fn anchor(heading: &str) -> String {
    let letters = heading.trim_start_matches('#').trim().to_lowercase();
    letters
        .chars()
        .filter(|c| c.is_alphanumeric() || "-_ ".contains(*c))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

fn anchors(path: &Path) -> BTreeSet<String> {
    let text = without_fences(&fs::read_to_string(path).unwrap());
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(anchor).collect()
}

/// What stands in backquotes, each with the text behind it.
fn spans(text: &str) -> Vec<(&str, &str)> {
    let parts: Vec<&str> = text.split('`').skip(1).collect();
    let pairs = parts.chunks_exact(2);
    pairs.map(|pair| (pair[0], pair[1])).collect()
}

fn is_path(span: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    span.chars().all(plain)
        && span
            .split_once('/')
            .is_some_and(|(folder, _)| FOLDERS.contains(&folder))
}

#[test]
fn every_link_leads_to_something() {
    let mut broken = Vec::new();
    for document in documents() {
        for link in links(&document.text) {
            if link.contains("://") {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => document.path.clone(),
                _ => document.path.parent().unwrap().join(file),
            };
            let is_there =
                target.exists() && (heading.is_empty() || anchors(&target).contains(heading));
            if !is_there {
                broken.push(format!("{}: {link}", document.path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_file_that_is_named_is_there() {
    let mut missing = Vec::new();
    for document in documents() {
        for (span, _) in spans(&document.text) {
            let beside = document.path.parent().unwrap().join(span);
            if is_path(span) && !root().join(span).exists() && !beside.exists() {
                missing.push(format!("{}: {span}", document.path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_test_that_is_named_is_there() {
    let mut named = 0;
    let mut missing = Vec::new();
    for document in documents() {
        let mut file = None;
        for (span, after) in spans(&document.text) {
            if is_path(span) {
                let is_source = Path::new(span)
                    .extension()
                    .is_some_and(|extension| extension == "rs");
                file = (is_source && after.trim() == ":").then_some(span);
            } else if let Some(source) = file {
                named += 1;
                let text = fs::read_to_string(root().join(source)).unwrap_or_default();
                if !text.contains(&format!("fn {span}(")) {
                    missing.push(format!("{}: {source}: {span}", document.path.display()));
                }
                if after.trim() != "," {
                    file = None;
                }
            }
        }
    }
    assert!(named > 10, "only {named} tests are named");
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn the_readme_is_short() {
    let bytes = fs::read(root().join("README.md")).unwrap().len();
    assert!(bytes <= README_BYTES_MAX, "{bytes} bytes");
}

#[test]
fn what_is_not_there_is_found() {
    let text = "[a](docs/no.md) and `src/no.rs`: `one`,\n`two`; `three`\n";
    assert_eq!(links(text).collect::<Vec<_>>(), ["docs/no.md"]);
    assert_eq!(
        spans(text),
        [
            ("src/no.rs", ": "),
            ("one", ",\n"),
            ("two", "; "),
            ("three", "\n")
        ]
    );
    assert!(is_path("src/no.rs") && !is_path("no.rs") && !is_path("a/b"));
    assert_eq!(
        anchor("## How events reach the server: `ingest`"),
        "how-events-reach-the-server-ingest"
    );
    assert_eq!(without_fences("a\n```\n`src/no.rs`\n```\nb\n"), "a\nb\n");
}

//! The files.

use std::fs;
use std::path::Path;

/// A file of Rust, by its path from the repository's root.
pub struct Source {
    pub path: String,
    pub text: String,
}

/// Everything that is checked for its length; `src` and `crates` are checked by all rules.
const FOLDERS: [&str; 7] = [
    "src", "crates", "tests", "benches", "examples", "load", "fuzz",
];

/// All files of the repository.
pub fn of_repository() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in FOLDERS {
        if root.join(folder).is_dir() {
            read_folder(root, Path::new(folder), &mut found);
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.len() > 100, "{} files found", found.len());
    found
}

fn read_folder(root: &Path, folder: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(root.join(folder)).unwrap() {
        let entry = entry.unwrap();
        let path = folder.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            if entry.file_name() != "target" {
                read_folder(root, &path, found);
            }
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let text = fs::read_to_string(root.join(&path)).unwrap();
            let path = path.to_str().unwrap().to_owned();
            found.push(Source { path, text });
        }
    }
}

/// The folder that a file belongs to: one of `src/` or of `crates/`. `None` for `lib.rs` and `main.rs`.
pub fn folder_of(path: &str) -> Option<&str> {
    let rest = path
        .strip_prefix("src/")
        .or_else(|| path.strip_prefix("crates/"))?;
    match rest.split_once('/') {
        Some((folder, _)) => Some(folder),
        None if rest == "lib.rs" || rest == "main.rs" => None,
        None => rest.strip_suffix(".rs"),
    }
}

/// Whether the file only declares modules and re-exports their items.
pub fn is_facade(path: &str) -> bool {
    path.ends_with("/mod.rs") || path.ends_with("/lib.rs")
}

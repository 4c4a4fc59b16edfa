//! The rules. Each returns a sentence for every place where it is broken.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::names::{Id, Modules, Reference};
use crate::source::{Source, folder_of, is_facade};
use crate::tables::{FOLDERS, LINES_MAX, PURE, WITH_SQL};

/// All rules about what is in the files.
pub fn all(modules: &Modules) -> Vec<String> {
    [
        facades(modules),
        folders(modules),
        circles_of_folders(modules),
        circles_of_files(modules),
        sql(modules),
        scattered_impls(modules),
        impure(modules),
    ]
    .concat()
}

/// Files that are too long.
pub fn long_files(sources: &[Source]) -> Vec<String> {
    let long = sources.iter().filter_map(|source| {
        let lines = source.text.lines().count();
        (lines > LINES_MAX).then(|| format!("{} is longer than {LINES_MAX} lines", source.path))
    });
    long.collect()
}

/// Files that no `mod` names: no rule would see them.
pub fn unread_files(sources: &[Source], modules: &Modules) -> Vec<String> {
    let read: BTreeSet<_> = modules.list.iter().map(|module| &module.file).collect();
    let of_crates = sources.iter().filter(|source| {
        let path = source.path.as_str();
        path.starts_with("src/") || (path.starts_with("crates/") && path.contains("/src/"))
    });
    of_crates
        .filter(|source| !read.contains(&source.path))
        .map(|source| format!("{} is no module", source.path))
        .collect()
}

/// Folders that are not in the table, or only there; a table that is not in order; pure files that are not there.
pub fn missing_folders(modules: &Modules) -> Vec<String> {
    let files = modules.list.iter().map(|module| module.file.as_str());
    let present: BTreeSet<_> = files.filter_map(folder_of).collect();
    let listed: BTreeSet<_> = FOLDERS.iter().map(|folder| folder.name).collect();
    let mut broken: Vec<_> = present
        .symmetric_difference(&listed)
        .map(|name| format!("{name} is a folder or in the table, but not both"))
        .collect();
    for pure in PURE {
        if !modules
            .list
            .iter()
            .any(|module| module.file.starts_with(pure))
        {
            broken.push(format!(
                "{pure} is in the list of pure files, but not there"
            ));
        }
    }
    let mut above = Vec::new();
    for folder in FOLDERS {
        for used in folder.may_use.iter().filter(|used| !above.contains(used)) {
            broken.push(format!(
                "{} may use {used}, which is not above it",
                folder.name
            ));
        }
        above.push(&folder.name);
    }
    broken
}

/// `mod.rs` and `lib.rs` hold nothing but documentation, `mod` and `use`.
fn facades(modules: &Modules) -> Vec<String> {
    let files = modules
        .list
        .iter()
        .filter(|module| !module.not_a_facade.is_empty());
    files
        .map(|module| format!("{} holds {}", module.file, module.not_a_facade[0]))
        .collect()
}

/// A folder uses only what the table says.
fn folders(modules: &Modules) -> Vec<String> {
    let mut broken = BTreeSet::new();
    for (file, _, used) in folder_uses(modules) {
        let own = folder_of(file).unwrap_or_default();
        let row = FOLDERS.iter().find(|folder| folder.name == own);
        if !row.is_some_and(|folder| folder.may_use.contains(&used)) {
            broken.insert(format!("{file} uses {used}"));
        }
    }
    broken.into_iter().collect()
}

fn circles_of_folders(modules: &Modules) -> Vec<String> {
    let edges = folder_uses(modules)
        .into_iter()
        .map(|(_, own, used)| (own, used));
    circles("folders", edges.collect())
}

/// The file, its folder and another folder that it uses outside tests.
fn folder_uses(modules: &Modules) -> BTreeSet<(&str, &str, &str)> {
    let mut edges = BTreeSet::new();
    for (module, reference) in references(modules) {
        let file = modules.list[module].file.as_str();
        let Some(own) = folder_of(file) else { continue };
        for step in modules.resolve(module, &reference.path) {
            let used = folder_of(&modules.list[step.module].file);
            edges.extend(
                used.filter(|used| *used != own)
                    .map(|used| (file, own, used)),
            );
        }
    }
    edges
}

/// Files that use each other, `mod.rs` and `lib.rs` left out: what they re-export is looked for where it is defined.
fn circles_of_files(modules: &Modules) -> Vec<String> {
    let mut edges = BTreeSet::new();
    for (module, reference) in references(modules) {
        let file = modules.list[module].file.as_str();
        for step in modules.resolve(module, &reference.path) {
            let used = modules.list[step.module].file.as_str();
            if step.is_used && used != file && !is_facade(file) && !is_facade(used) {
                edges.insert((file, used));
            }
        }
    }
    circles("files", edges)
}

fn circles(of: &str, edges: BTreeSet<(&str, &str)>) -> Vec<String> {
    let mut reached: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (from, to) in edges {
        reached.entry(from).or_default().insert(to);
    }
    let starts: Vec<_> = reached.keys().copied().collect();
    let direct = reached.clone();
    for start in &starts {
        let mut waiting: Vec<_> = direct[start].iter().copied().collect();
        let mut all = BTreeSet::new();
        while let Some(next) = waiting.pop() {
            if all.insert(next) {
                waiting.extend(direct.get(next).into_iter().flatten());
            }
        }
        reached.insert(start, all);
    }
    let uses = |a: &str, b: &str| reached.get(a).is_some_and(|all| all.contains(b));
    let circles: BTreeSet<Vec<&str>> = starts
        .iter()
        .filter(|start| uses(start, start))
        .map(|start| {
            let mut circle = starts.clone();
            circle.retain(|other| uses(start, other) && uses(other, start));
            circle
        })
        .collect();
    circles
        .into_iter()
        .map(|circle| format!("{of} use each other: {}", circle.join(", ")))
        .collect()
}

/// SQL, and functions that send it, only where it belongs.
fn sql(modules: &Modules) -> Vec<String> {
    let mut broken = BTreeSet::new();
    for (id, module) in modules.list.iter().enumerate() {
        if WITH_SQL
            .iter()
            .any(|prefix| module.file.starts_with(prefix))
        {
            continue;
        }
        let texts = module.strings.iter();
        if texts.clone().any(|text| is_sql(text) || is_sql_file(text)) {
            broken.insert(format!("{} contains SQL", module.file));
        }
        let mut paths = module.references.iter().filter(|path| !path.is_test);
        if paths.any(|reference| sends_sql(&modules.expand(id, &reference.path))) {
            broken.insert(format!("{} sends SQL", module.file));
        }
    }
    broken.into_iter().collect()
}

fn is_sql(text: &str) -> bool {
    const BEGINNINGS: [&str; 22] = [
        "ALTER ",
        "ANALYZE",
        "BEGIN",
        "COMMENT ON ",
        "COMMIT",
        "COPY ",
        "CREATE ",
        "DELETE FROM ",
        "DROP ",
        "EXPLAIN ",
        "GRANT ",
        "INSERT INTO ",
        "LISTEN ",
        "LOCK ",
        "NOTIFY ",
        "ROLLBACK",
        "SELECT ",
        "SET ",
        "TRUNCATE ",
        "UNLISTEN ",
        "UPDATE ",
        "WITH ",
    ];
    let text = text.trim_start();
    let lower = text.to_ascii_lowercase();
    BEGINNINGS
        .iter()
        .any(|beginning| text.starts_with(beginning))
        || (lower.starts_with("select ") && lower.contains(" from "))
        || (lower.starts_with("update ") && lower.contains(" set "))
        || lower.starts_with("insert into ")
        || lower.starts_with("delete from ")
}

fn is_sql_file(name: &str) -> bool {
    let ending = Path::new(name).extension();
    ending.is_some_and(|ending| ending == "sql")
}

fn sends_sql(path: &[String]) -> bool {
    let [first, .., last] = path else {
        return false;
    };
    first == "sqlx" && (last.starts_with("query") || last == "raw_sql" || last == "QueryBuilder")
}

/// All inherent `impl` blocks of a type stand in one file.
fn scattered_impls(modules: &Modules) -> Vec<String> {
    let mut files: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for (id, module) in modules.list.iter().enumerate() {
        for path in &module.impls {
            let defined = modules
                .resolve(id, path)
                .last()
                .map_or(id, |step| step.module);
            let defined = modules.list[defined].file.as_str();
            let name = path.last().map(String::as_str).unwrap_or_default();
            files
                .entry((defined, name))
                .or_default()
                .insert(&module.file);
        }
    }
    let scattered = files.into_iter().filter(|(_, files)| files.len() > 1);
    scattered
        .map(|((defined, name), _)| {
            format!("{name} of {defined} has `impl` blocks in several files")
        })
        .collect()
}

/// Pure files name no socket, no clock and no runtime.
fn impure(modules: &Modules) -> Vec<String> {
    let mut broken = BTreeSet::new();
    for (id, reference) in references(modules) {
        let file = &modules.list[id].file;
        let path = modules.expand(id, &reference.path);
        if PURE.iter().any(|pure| file.starts_with(pure)) && is_impure(&path) {
            broken.insert(format!("{file} is pure and names {}", path.join("::")));
        }
    }
    broken.into_iter().collect()
}

fn is_impure(path: &[String]) -> bool {
    const CRATES: [&str; 8] = [
        "hyper",
        "hyper_util",
        "reqwest",
        "socket2",
        "sqlx",
        "tokio",
        "tokio_util",
        "warp",
    ];
    const TYPES: [&str; 6] = [
        "Socket",
        "TcpListener",
        "TcpStream",
        "UdpSocket",
        "UnixListener",
        "UnixStream",
    ];
    path.iter().any(|name| TYPES.contains(&name.as_str()))
        || path
            .first()
            .is_some_and(|name| CRATES.contains(&name.as_str()))
        || matches!(path, [.., of, now] if now == "now" && (of == "Instant" || of == "SystemTime"))
}

/// All paths outside tests.
fn references(modules: &Modules) -> impl Iterator<Item = (Id, &Reference)> {
    modules.list.iter().enumerate().flat_map(|(id, module)| {
        let references = module.references.iter().filter(|path| !path.is_test);
        references.map(move |reference| (id, reference))
    })
}

//! The modules, and what a path in one of them names.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::collect;
use crate::source::Source;

/// The service's own crate, as its binary and the other crates name it.
pub const LIBRARY: &str = "hushnet_realtime";

pub type Id = usize;
pub type Path = Vec<String>;

/// A module: a file, or a part of one.
#[derive(Default)]
pub struct Module {
    pub file: String,
    pub parent: Option<Id>,
    pub root: Id,
    /// Whether it is compiled for tests only.
    pub is_test: bool,
    pub children: HashMap<String, Id>,
    pub items: BTreeSet<String>,
    /// Names that `use` brings in, and what they stand for; two where a type and a module share a name.
    pub uses: BTreeMap<String, Vec<Path>>,
    pub globs: Vec<Path>,
    pub references: Vec<Reference>,
    pub strings: Vec<String>,
    /// The types of inherent `impl` blocks.
    pub impls: Vec<Path>,
    /// In a file that should only declare modules: what else there is.
    pub not_a_facade: Vec<String>,
}

/// A path somewhere in a module.
pub struct Reference {
    pub path: Path,
    pub is_test: bool,
}

/// A module on the way from a path to what it names.
#[derive(Clone, Copy)]
pub struct Step {
    pub module: Id,
    /// Whether a name is taken from it, which it defines or re-exports, and not only on the way to another.
    pub is_used: bool,
}

/// All modules of the crates.
#[derive(Default)]
pub struct Modules {
    pub list: Vec<Module>,
    /// The root module of each crate, by the name that others use.
    roots: HashMap<String, Id>,
}

/// What a path, or the beginning of one, names.
struct Found {
    steps: Vec<Step>,
    /// The module, if it names one.
    module: Option<Id>,
}

/// Names that are being looked up: one that leads back to itself is not found that way.
type Seen = BTreeSet<(Id, String)>;

impl Modules {
    /// The modules of the library, the binary and the crates in `crates/`.
    pub fn parse(sources: &[Source]) -> Self {
        let mut modules = Self::default();
        let texts: HashMap<_, _> = sources
            .iter()
            .map(|source| (source.path.as_str(), source.text.as_str()))
            .collect();
        for source in sources {
            let path = source.path.as_str();
            let folder = path.strip_suffix("/src/lib.rs");
            match (path, folder.and_then(|path| path.strip_prefix("crates/"))) {
                ("src/main.rs", _) => {
                    collect::read_crate(&mut modules, path, &texts);
                }
                ("src/lib.rs", _) => {
                    let root = collect::read_crate(&mut modules, path, &texts);
                    modules.roots.insert(LIBRARY.to_owned(), root);
                }
                (_, Some(name)) => {
                    let root = collect::read_crate(&mut modules, path, &texts);
                    for name in [name.to_owned(), format!("hushnet_{name}")] {
                        modules.roots.insert(name, root);
                    }
                }
                _ => {}
            }
        }
        modules
    }

    /// The modules on the way to what the path names; none if it is not of these crates.
    pub fn resolve(&self, from: Id, path: &[String]) -> Vec<Step> {
        let found = self.walk(from, path, &mut Seen::new());
        found.map(|found| found.steps).unwrap_or_default()
    }

    /// The path with the name that it begins with replaced by what that name stands for.
    pub fn expand(&self, from: Id, path: &[String]) -> Path {
        let first = path.first().and_then(|name| self.list[from].uses.get(name));
        match first.and_then(|meanings| meanings.first()) {
            Some(meaning) => meaning.iter().chain(&path[1..]).cloned().collect(),
            None => path.to_vec(),
        }
    }

    fn walk(&self, from: Id, path: &[String], seen: &mut Seen) -> Option<Found> {
        let (mut found, mut rest) = self.first(from, path, seen)?;
        while let (Some(module), Some((name, after))) = (found.module, rest.split_first()) {
            let next = self.lookup(module, name, after.is_empty(), seen);
            // Not found: a macro has made the name.
            let next = next.unwrap_or_else(|| defined_in(module));
            found.steps.extend(next.steps);
            found.module = next.module;
            rest = after;
        }
        if let (Some(_), Some(last)) = (found.module, found.steps.last_mut()) {
            last.is_used = true;
        }
        Some(found)
    }

    /// What the path begins with, and the rest of it.
    fn first<'a>(
        &self,
        from: Id,
        path: &'a [String],
        seen: &mut Seen,
    ) -> Option<(Found, &'a [String])> {
        let (name, mut rest) = path.split_first()?;
        let found = match name.as_str() {
            "crate" => on_the_way(self.list[from].root),
            "self" | "super" => {
                let mut at = from;
                rest = if name == "self" { rest } else { path };
                while let Some(("super", after)) = rest
                    .split_first()
                    .map(|(name, after)| (name.as_str(), after))
                {
                    at = self.list[at].parent?;
                    rest = after;
                }
                on_the_way(at)
            }
            "" => {
                let (name, after) = rest.split_first()?;
                rest = after;
                on_the_way(*self.roots.get(name)?)
            }
            _ => match self.lookup(from, name, rest.is_empty(), seen) {
                Some(found) => found,
                None => on_the_way(*self.roots.get(name)?),
            },
        };
        Some((found, rest))
    }

    /// What the name is in a module. The last name of a path may be an item's and a child module's at once;
    /// then the item is meant.
    fn lookup(&self, module: Id, name: &str, is_last: bool, seen: &mut Seen) -> Option<Found> {
        let here = &self.list[module];
        let child = here.children.get(name).copied().map(on_the_way);
        let key = (module, name.to_owned());
        if (!is_last && child.is_some()) || seen.contains(&key) {
            return child;
        }
        seen.insert(key.clone());
        let found = self
            .imported(module, name, seen)
            .or_else(|| here.items.contains(name).then(|| defined_in(module)))
            .or(child)
            .or_else(|| self.by_glob(module, name, is_last, seen));
        seen.remove(&key);
        found
    }

    fn imported(&self, module: Id, name: &str, seen: &mut Seen) -> Option<Found> {
        let meanings = self.list[module].uses.get(name)?;
        let found = meanings
            .iter()
            .find_map(|meaning| self.walk(module, meaning, seen))?;
        Some(through(module, found))
    }

    fn by_glob(&self, module: Id, name: &str, is_last: bool, seen: &mut Seen) -> Option<Found> {
        self.list[module].globs.iter().find_map(|glob| {
            let mut of = self.walk(module, glob, seen)?;
            let found = self.lookup(of.module?, name, is_last, seen)?;
            of.steps.extend(found.steps);
            of.module = found.module;
            Some(through(module, of))
        })
    }
}

fn on_the_way(module: Id) -> Found {
    Found {
        steps: vec![Step {
            module,
            is_used: false,
        }],
        module: Some(module),
    }
}

fn defined_in(module: Id) -> Found {
    Found {
        steps: vec![Step {
            module,
            is_used: true,
        }],
        module: None,
    }
}

/// Found by a `use` of the module.
fn through(module: Id, mut found: Found) -> Found {
    let step = Step {
        module,
        is_used: true,
    };
    found.steps.insert(0, step);
    found
}

//! Reads a crate's files into modules: their names, and every path and string in them.

use std::collections::HashMap;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Expr, ImplItem, Item, Lit, LitStr, Meta, Type, UseTree};

use crate::names::{Id, Module, Modules, Path, Reference};
use crate::source::is_facade;

/// Reads the crate that begins with this file; returns its root module.
pub fn read_crate(modules: &mut Modules, path: &str, texts: &HashMap<&str, &str>) -> Id {
    let root = modules.list.len();
    modules.list.push(Module {
        file: path.to_owned(),
        root,
        ..Module::default()
    });
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    read_file(modules, root, folder, texts);
    root
}

/// Reads the module's file. Its children's files are in the folder.
fn read_file(modules: &mut Modules, module: Id, folder: &str, texts: &HashMap<&str, &str>) {
    let path = modules.list[module].file.clone();
    let text = texts.get(&*path).unwrap_or_else(|| panic!("no {path}"));
    let file = syn::parse_file(text).unwrap_or_else(|error| panic!("{path}: {error}"));
    let is_test = modules.list[module].is_test;
    let mut collector = Collector {
        modules,
        texts,
        folder: folder.to_owned(),
        module,
        is_test,
    };
    if is_facade(&path) && !is_test {
        collector.check_facade(&file.items);
    }
    collector.visit_file(&file);
}

struct Collector<'a> {
    modules: &'a mut Modules,
    texts: &'a HashMap<&'a str, &'a str>,
    /// Where the files of the module's children are.
    folder: String,
    module: Id,
    /// Whether the items at hand are compiled for tests only.
    is_test: bool,
}

impl Collector<'_> {
    fn here(&mut self) -> &mut Module {
        &mut self.modules.list[self.module]
    }

    fn check_facade(&mut self, items: &[Item]) {
        for item in items {
            let what = match item {
                Item::Mod(item) if item.content.is_some() => "a module's code",
                Item::Mod(_) | Item::Use(_) => continue,
                _ => "code",
            };
            self.here().not_a_facade.push(what.to_owned());
        }
    }

    fn refer(&mut self, path: Path) {
        let is_test = self.is_test;
        self.here().references.push(Reference { path, is_test });
    }

    fn string(&mut self, text: &LitStr) {
        if !self.is_test {
            self.here().strings.push(text.value());
        }
    }

    fn import(&mut self, name: String, path: Path) {
        self.refer(path.clone());
        self.here().uses.entry(name).or_default().push(path);
    }

    fn import_tree(&mut self, before: &Path, tree: &UseTree) {
        match tree {
            UseTree::Path(tree) => self.import_tree(&and(before, &tree.ident), &tree.tree),
            UseTree::Name(tree) if tree.ident == "self" => {
                let name = before.last().cloned().unwrap_or_default();
                self.import(name, before.clone());
            }
            UseTree::Name(tree) => self.import(tree.ident.to_string(), and(before, &tree.ident)),
            UseTree::Rename(tree) if tree.ident == "self" && !before.is_empty() => {
                self.import(tree.rename.to_string(), before.clone());
            }
            UseTree::Rename(tree) => {
                self.import(tree.rename.to_string(), and(before, &tree.ident));
            }
            UseTree::Glob(_) => {
                self.refer(before.clone());
                self.here().globs.push(before.clone());
            }
            UseTree::Group(tree) => {
                for tree in &tree.items {
                    self.import_tree(before, tree);
                }
            }
        }
    }

    fn enter_module(&mut self, item: &syn::ItemMod) {
        let name = item.ident.to_string();
        let child = self.modules.list.len();
        let (parent, is_test) = (self.module, self.is_test);
        let mut module = Module {
            file: self.here().file.clone(),
            parent: Some(parent),
            root: self.here().root,
            is_test,
            ..Module::default()
        };
        let folder = format!("{}/{name}", self.folder);
        if item.content.is_none() {
            module.file = self.file_of(item, &folder);
        }
        self.here().children.insert(name, child);
        let is_mod = module.file.ends_with("/mod.rs");
        let own_folder = match module.file.rsplit_once('/') {
            Some((own, _)) if is_mod => own.to_owned(),
            _ => folder,
        };
        self.modules.list.push(module);
        if item.content.is_none() {
            read_file(self.modules, child, &own_folder, self.texts);
            return;
        }
        let before = (self.module, std::mem::replace(&mut self.folder, own_folder));
        self.module = child;
        visit::visit_item_mod(self, item);
        (self.module, self.folder) = before;
    }

    fn file_of(&self, item: &syn::ItemMod, folder: &str) -> String {
        for attribute in &item.attrs {
            if attribute.path().is_ident("path")
                && let Meta::NameValue(meta) = &attribute.meta
                && let Expr::Lit(value) = &meta.value
                && let Lit::Str(value) = &value.lit
            {
                let file = &self.modules.list[self.module].file;
                let own = file.rsplit_once('/').map_or("", |(own, _)| own);
                return format!("{own}/{}", value.value());
            }
        }
        let file = format!("{folder}.rs");
        if self.texts.contains_key(&*file) {
            return file;
        }
        format!("{folder}/mod.rs")
    }

    /// The paths and strings of a macro's tokens. Of a single name nothing is known there.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path = Path::new();
        let mut colons = 0;
        let mut is_doc = false;
        for token in tokens {
            match &token {
                TokenTree::Ident(name) => {
                    if colons != 2 {
                        self.refer_long(std::mem::take(&mut path));
                    }
                    path.push(name.to_string());
                    is_doc = name == "doc";
                    colons = 0;
                    continue;
                }
                TokenTree::Punct(mark) if mark.as_char() == ':' => {
                    colons += 1;
                    continue;
                }
                TokenTree::Punct(mark) if mark.as_char() == '=' && is_doc => continue,
                TokenTree::Group(group) => {
                    self.refer_long(std::mem::take(&mut path));
                    self.tokens(group.stream());
                }
                TokenTree::Literal(literal) if !is_doc => {
                    if let Ok(text) = syn::parse_str::<LitStr>(&literal.to_string()) {
                        self.string(&text);
                    }
                }
                _ => {}
            }
            self.refer_long(std::mem::take(&mut path));
            (colons, is_doc) = (0, false);
        }
        self.refer_long(path);
    }

    fn refer_long(&mut self, path: Path) {
        if path.len() > 1 {
            self.refer(path);
        }
    }

    fn for_tests_if(&mut self, attributes: &[Attribute], visit: impl FnOnce(&mut Self)) {
        let before = self.is_test;
        self.is_test |= attributes.iter().any(is_for_tests);
        visit(self);
        self.is_test = before;
    }
}

impl<'ast> Visit<'ast> for Collector<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let (attributes, name) = about(item);
        if let Some(name) = name {
            self.here().items.insert(name);
        }
        self.for_tests_if(attributes, |this| visit::visit_item(this, item));
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.enter_module(item);
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let before = item.leading_colon.map(|_| String::new());
        self.import_tree(&before.into_iter().collect(), &item.tree);
    }

    fn visit_item_extern_crate(&mut self, item: &'ast syn::ItemExternCrate) {
        let path = if item.ident == "self" {
            vec!["crate".to_owned()]
        } else {
            vec![String::new(), item.ident.to_string()]
        };
        let name = item.rename.as_ref().map_or(&item.ident, |(_, name)| name);
        self.import(name.to_string(), path);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if item.trait_.is_none()
            && !self.is_test
            && let Type::Path(of) = &*item.self_ty
        {
            let path = names(&of.path);
            self.here().impls.push(path);
        }
        visit::visit_item_impl(self, item);
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let attributes: &[Attribute] = match item {
            ImplItem::Fn(item) => &item.attrs,
            ImplItem::Const(item) => &item.attrs,
            _ => &[],
        };
        self.for_tests_if(attributes, |this| visit::visit_impl_item(this, item));
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.refer(names(path));
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, of: &'ast syn::Macro) {
        self.refer(names(&of.path));
        self.tokens(of.tokens.clone());
    }

    /// An attribute may name a function, as `clap`'s do, also in a string, as `serde`'s do.
    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if let Meta::List(list) = &attribute.meta {
            self.tokens(list.tokens.clone());
            for text in strings(list.tokens.clone()) {
                if let Ok(path) = syn::parse_str::<syn::Path>(&text) {
                    self.refer_long(names(&path));
                }
            }
        }
    }

    fn visit_lit_str(&mut self, text: &'ast LitStr) {
        self.string(text);
    }

    /// `pub(in path)` names only modules above.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}
}

fn and(before: &Path, name: &proc_macro2::Ident) -> Path {
    let mut path = before.clone();
    path.push(name.to_string());
    path
}

fn names(path: &syn::Path) -> Path {
    let before = path.leading_colon.map(|_| String::new());
    let segments = path.segments.iter().map(|part| part.ident.to_string());
    before.into_iter().chain(segments).collect()
}

fn strings(tokens: TokenStream) -> Vec<String> {
    let mut found = Vec::new();
    for token in tokens {
        match token {
            TokenTree::Group(group) => found.extend(strings(group.stream())),
            TokenTree::Literal(literal) => {
                let text = syn::parse_str::<LitStr>(&literal.to_string());
                found.extend(text.map(|text| text.value()));
            }
            _ => {}
        }
    }
    found
}

/// `#[cfg(test)]`, `#[cfg(all(test, ...))]`, `#[test]` and `#[tokio::test]`.
fn is_for_tests(attribute: &Attribute) -> bool {
    if attribute
        .path()
        .segments
        .last()
        .is_some_and(|last| last.ident == "test")
    {
        return true;
    }
    let Meta::List(list) = &attribute.meta else {
        return false;
    };
    let inner = list.tokens.to_string();
    attribute.path().is_ident("cfg") && (inner == "test" || inner.starts_with("all (test"))
}

/// The item's attributes, and the name that it defines.
fn about(item: &Item) -> (&[Attribute], Option<String>) {
    match item {
        Item::Const(item) => (&item.attrs, Some(item.ident.to_string())),
        Item::Enum(item) => (&item.attrs, Some(item.ident.to_string())),
        Item::Fn(item) => (&item.attrs, Some(item.sig.ident.to_string())),
        Item::Macro(item) => (&item.attrs, item.ident.as_ref().map(ToString::to_string)),
        Item::Static(item) => (&item.attrs, Some(item.ident.to_string())),
        Item::Struct(item) => (&item.attrs, Some(item.ident.to_string())),
        Item::Trait(item) => (&item.attrs, Some(item.ident.to_string())),
        Item::TraitAlias(item) => (&item.attrs, Some(item.ident.to_string())),
        Item::Type(item) => (&item.attrs, Some(item.ident.to_string())),
        Item::Union(item) => (&item.attrs, Some(item.ident.to_string())),
        Item::ExternCrate(item) => (&item.attrs, None),
        Item::ForeignMod(item) => (&item.attrs, None),
        Item::Impl(item) => (&item.attrs, None),
        Item::Mod(item) => (&item.attrs, None),
        Item::Use(item) => (&item.attrs, None),
        _ => (&[], None),
    }
}

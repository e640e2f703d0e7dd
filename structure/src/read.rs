//! The modules of a crate, parsed with `syn`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, UseTree};

/// The names from the crate's root down to a module; empty for the root itself.
pub type ModulePath = Vec<String>;

/// A module and its references.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its path in its crate.
    pub path: ModulePath,
    /// Its references within its own crate: module paths, some of which end in items.
    pub references: BTreeSet<Vec<String>>,
    /// Its other paths of two names or more, and all names that it imports from other crates: `std::fs::File`, `libc`.
    /// An import of everything ends in `*`. A path may begin with a name that the module has imported: `fs::read`.
    pub foreign: BTreeSet<String>,
}

/// Reads a crate starting at its root file, without test modules.
///
/// # Errors
/// When a file is missing or is not valid Rust.
pub fn read_crate(root: &Path) -> Result<Vec<Module>> {
    let mut modules = Vec::new();
    let directory = root.parent().context("a file has a directory")?;
    read_file(root, directory, Vec::new(), &mut modules)?;
    Ok(modules)
}

fn read_file(file: &Path, children: &Path, path: ModulePath, modules: &mut Vec<Module>) -> Result<()> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let parsed = syn::parse_file(&text).with_context(|| file.display().to_string())?;
    read_items(&parsed.items, children, path, modules)
}

fn read_items(items: &[Item], children: &Path, path: ModulePath, modules: &mut Vec<Module>) -> Result<()> {
    let mut reader = Reader { path: path.clone(), references: BTreeSet::new(), foreign: BTreeSet::new() };
    for item in items {
        match item {
            Item::Mod(module) if is_for_tests(&module.attrs) => {}
            Item::Mod(ItemMod { ident, content, .. }) => {
                let name = ident.to_string();
                let child = [path.as_slice(), std::slice::from_ref(&name)].concat();
                let below = children.join(&name);
                match content {
                    Some((_, items)) => read_items(items, &below, child, modules)?,
                    None => read_file(&file_of(children, &name)?, &below, child, modules)?,
                }
            }
            item => reader.visit_item(item),
        }
    }
    let Reader { path, references, foreign } = reader;
    modules.push(Module { path, references, foreign });
    Ok(())
}

fn file_of(directory: &Path, module: &str) -> Result<PathBuf> {
    let candidates = [directory.join(format!("{module}.rs")), directory.join(module).join("mod.rs")];
    match candidates.into_iter().find(|file| file.is_file()) {
        Some(file) => Ok(file),
        None => bail!("module {module} of {} has no file", directory.display()),
    }
}

/// Returns whether one of the attributes is `#[cfg(test)]`.
fn is_for_tests(attributes: &[Attribute]) -> bool {
    let is_test = |attribute: &Attribute| {
        attribute.path().is_ident("cfg")
            && attribute.meta.require_list().is_ok_and(|list| list.tokens.to_string() == "test")
    };
    attributes.iter().any(is_test)
}

struct Reader {
    path: ModulePath,
    references: BTreeSet<Vec<String>>,
    foreign: BTreeSet<String>,
}

impl Reader {
    /// Records a path as written: a reference, if it begins at the crate, at this module or above it.
    fn note(&mut self, written: &[String]) {
        let Some((first, rest)) = written.split_first() else { return };
        let mut base = match first.as_str() {
            "crate" => Vec::new(),
            "self" => self.path.clone(),
            "super" => self.path.iter().take(self.path.len().saturating_sub(1)).cloned().collect(),
            _ => {
                if !rest.is_empty() {
                    self.foreign.insert(written.join("::"));
                }
                return;
            }
        };
        let mut rest = rest.iter().peekable();
        while rest.next_if(|name| *name == "super").is_some() {
            base.pop();
        }
        base.extend(rest.cloned());
        self.references.insert(base);
    }

    fn note_use(&mut self, tree: &UseTree, before: &[String]) {
        match tree {
            UseTree::Path(path) => self.note_use(&path.tree, &with(before, path.ident.to_string())),
            UseTree::Name(name) => self.note_imported(with(before, name.ident.to_string())),
            UseTree::Rename(rename) => self.note_imported(with(before, rename.ident.to_string())),
            UseTree::Glob(_) => self.note_imported(with(before, "*".to_owned())),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.note_use(tree, before)),
        }
    }

    fn note_imported(&mut self, mut path: Vec<String>) {
        // `use crate::queue::{self}` names the module itself.
        if path.len() > 1 && path.last().is_some_and(|name| name == "self") {
            path.pop();
        }
        if let [name] = path.as_slice() {
            self.foreign.insert(name.clone());
        }
        self.note(&path);
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if !is_for_tests(&item.attrs) {
            self.note_use(&item.tree, &[]);
        }
    }

    fn visit_item_mod(&mut self, _: &'ast ItemMod) {
        // A module in a function's body belongs to the function.
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_impl(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_for_tests(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    // `pub(in crate::index)` does not depend on the module it names.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_attribute(&mut self, _: &'ast Attribute) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let written: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.note(&written);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        visit::visit_macro(self, called);
        self.note_tokens(called.tokens.clone());
    }
}

impl Reader {
    /// Records the paths among the arguments of a macro, which `syn` does not parse.
    fn note_tokens(&mut self, tokens: TokenStream) {
        let mut written: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) if written.is_empty() || colons == 2 => {
                    written.push(ident.to_string());
                    colons = 0;
                    continue;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' && !written.is_empty() && colons < 2 => {
                    colons += 1;
                    continue;
                }
                TokenTree::Group(ref group) => self.note_tokens(group.stream()),
                TokenTree::Ident(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
            self.note(&std::mem::take(&mut written));
            colons = 0;
            if let TokenTree::Ident(ident) = token {
                written.push(ident.to_string());
            }
        }
        self.note(&written);
    }
}

/// Returns `path` with one more name.
fn with(path: &[String], name: String) -> Vec<String> {
    [path, &[name]].concat()
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    fn read(path: &[&str], text: &str) -> Module {
        let mut modules = Vec::new();
        let path = path.iter().map(ToString::to_string).collect();
        read_items(&syn::parse_file(text).unwrap().items, Path::new("."), path, &mut modules).unwrap();
        modules.pop().unwrap()
    }

    #[test_case("use crate::a::{b, c::D};", &["a::b", "a::c::D"])]
    #[test_case("use super::z::{self, Y};", &["x::z", "x::z::Y"])]
    #[test_case("use super::super::w;", &["w"])]
    #[test_case("fn f() -> crate::a::B { super::g(self::h) }", &["a::B", "x::g", "x::y::h"])]
    #[test_case("fn f() { println!(\"{}\", crate::a::B) }", &["a::B"])]
    #[test_case("pub(in crate::x) struct S;", &[]; "a visibility does not count")]
    #[test_case("#[cfg(test)] use crate::a; #[cfg(test)] fn f() { crate::b() }", &[]; "tests are left out")]
    fn references_are_read(text: &str, expected: &[&str]) {
        let references: Vec<_> = read(&["x", "y"], text).references.iter().map(|path| path.join("::")).collect();
        assert_eq!(references, expected);
    }

    #[test_case("use std::fs::File; use tokio::net::{TcpStream, self}; use libc;", &["libc", "std::fs::File", "tokio::net", "tokio::net::TcpStream"])]
    #[test_case("use std::time::*;", &["std::time::*"])]
    #[test_case("fn f() -> kube::Client { Instant::now(); g(x) }", &["Instant::now", "kube::Client"]; "paths anywhere")]
    #[test_case("fn f() { debug!(at = std::time::Instant::now()) }", &["std::time::Instant::now"]; "paths in macros")]
    #[test_case("#[cfg(test)] fn f() { std::fs::read(x) }", &[]; "tests are left out")]
    fn foreign_paths_are_read(text: &str, expected: &[&str]) {
        assert_eq!(read(&[], text).foreign.into_iter().collect::<Vec<_>>(), expected);
    }
}

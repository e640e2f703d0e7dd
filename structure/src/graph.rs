//! Dependencies between sibling modules, and circles among them.

use std::collections::{BTreeMap, BTreeSet};

use crate::read::{Module, ModulePath};

/// A dependency between two siblings: the first module, or one below it, names the second or something below that.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    /// The module that names the other.
    pub from: ModulePath,
    /// The module that is named.
    pub to: ModulePath,
}

/// Returns the dependencies between siblings: where one module names another, an edge between the two modules at which
/// their paths first differ. A child that names its parent, or a parent that names its child, adds no edge.
pub fn edges_between_siblings(modules: &[Module]) -> BTreeSet<Edge> {
    let known: BTreeSet<&ModulePath> = modules.iter().map(|module| &module.path).collect();
    let mut edges = BTreeSet::new();
    for module in modules {
        for reference in &module.references {
            // A reference may end in an item, or in an item of an item: the longest prefix that is a module counts.
            let named = (0..=reference.len()).rev().map(|length| reference.get(..length).unwrap_or_default().to_vec());
            let Some(target) = named.into_iter().find(|path| known.contains(path)) else { continue };
            let common = module.path.iter().zip(&target).take_while(|(a, b)| a == b).count();
            if let (Some(from), Some(to)) = (module.path.get(..=common), target.get(..=common)) {
                edges.insert(Edge { from: from.to_vec(), to: to.to_vec() });
            }
        }
    }
    edges
}

/// Returns the groups of modules in which each module reaches all others of its group, sorted.
pub fn circles(edges: &BTreeSet<Edge>) -> Vec<Vec<ModulePath>> {
    let mut reachable: BTreeMap<&ModulePath, BTreeSet<&ModulePath>> = BTreeMap::new();
    for edge in edges {
        reachable.entry(&edge.from).or_default().insert(&edge.to);
    }
    // The loop repeats until nothing is added: a crate has only dozens of modules.
    loop {
        let mut has_grown = false;
        for from in reachable.keys().copied().collect::<Vec<_>>() {
            let next: BTreeSet<_> =
                reachable[from].iter().filter_map(|to| reachable.get(to)).flatten().copied().collect();
            let known = reachable.entry(from).or_default();
            let before = known.len();
            known.extend(next);
            has_grown |= known.len() > before;
        }
        if !has_grown {
            break;
        }
    }
    let mut groups = BTreeSet::new();
    for (from, to) in &reachable {
        if to.contains(from) {
            let is_mutual = |other: &&&ModulePath| reachable.get(**other).is_some_and(|back| back.contains(from));
            groups.insert(to.iter().filter(is_mutual).map(|path| (*path).clone()).collect::<Vec<_>>());
        }
    }
    groups.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> ModulePath {
        text.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }

    fn module(at: &str, references: &[&str]) -> Module {
        let references = references.iter().map(|text| path(text)).collect();
        Module { path: path(at), references, foreign: BTreeSet::new() }
    }

    fn found(modules: &[Module]) -> Vec<String> {
        let join = |group: &Vec<ModulePath>| group.iter().map(|path| path.join("::")).collect::<Vec<_>>().join(" ");
        circles(&edges_between_siblings(modules)).iter().map(join).collect()
    }

    #[test]
    fn two_modules_that_name_each_other_are_a_circle() {
        assert_eq!(found(&[module("", &[]), module("a", &["b::B"]), module("b", &["a::A"])]), ["a b"]);
    }

    #[test]
    fn circle_through_children_is_a_circle_of_their_parents() {
        let modules = [
            module("a", &[]),
            module("b", &[]),
            module("a::x", &["b::y::Y"]),
            module("b::y", &["c::C"]),
            module("c", &["a::x::X"]),
        ];
        assert_eq!(found(&modules), ["a b c"]);
    }

    #[test]
    fn parent_and_child_may_name_each_other() {
        assert_eq!(found(&[module("a", &["a::x::X"]), module("a::x", &["a::A"])]), Vec::<String>::new());
    }

    #[test]
    fn siblings_below_a_parent_are_checked() {
        let modules = [module("a", &[]), module("a::x", &["a::y::Y"]), module("a::y", &["a::x::X"])];
        assert_eq!(found(&modules), ["a::x a::y"]);
    }
}

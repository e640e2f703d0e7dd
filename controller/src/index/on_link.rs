//! The on-link prefixes of the nodes. All nodes of a segment report the same ones, so the reporters are counted.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

/// The number of nodes that report each prefix.
#[derive(Clone, Debug, Default)]
pub(super) struct OnLinkPrefixes {
    reporters: BTreeMap<IpNet, usize>,
}

/// The change that the report of one node makes for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PrefixChange {
    /// Prefixes that no node reported before.
    pub(super) appeared: Vec<IpNet>,
    /// Prefixes that no node reports any longer.
    pub(super) vanished: Vec<IpNet>,
}

impl OnLinkPrefixes {
    /// Replaces the former report of one node by its present one.
    pub(super) fn replace(&mut self, before: &BTreeSet<IpNet>, now: &BTreeSet<IpNet>) -> PrefixChange {
        let mut change = PrefixChange::default();
        for prefix in now.difference(before) {
            let reporters = self.reporters.entry(*prefix).or_default();
            *reporters += 1;
            if *reporters == 1 {
                change.appeared.push(*prefix);
            }
        }
        for prefix in before.difference(now) {
            let Some(reporters) = self.reporters.get_mut(prefix) else { continue };
            *reporters = reporters.saturating_sub(1);
            if *reporters == 0 {
                self.reporters.remove(prefix);
                change.vanished.push(*prefix);
            }
        }
        change
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes(all: &[&str]) -> BTreeSet<IpNet> {
        all.iter().map(|p| p.parse().unwrap()).collect()
    }

    #[test]
    fn prefix_vanishes_with_the_last_node_that_reports_it() {
        let mut on_link = OnLinkPrefixes::default();
        let (none, lan) = (prefixes(&[]), prefixes(&["192.0.2.0/24"]));
        let both = prefixes(&["192.0.2.0/24", "10.40.0.0/29"]);
        let changed = |appeared: &[&str], vanished: &[&str]| {
            let list = |all: &[&str]| all.iter().map(|p| p.parse().unwrap()).collect();
            PrefixChange { appeared: list(appeared), vanished: list(vanished) }
        };
        assert_eq!(on_link.replace(&none, &lan), changed(&["192.0.2.0/24"], &[]));
        assert_eq!(on_link.replace(&none, &both), changed(&["10.40.0.0/29"], &[]), "a second node");
        assert_eq!(on_link.replace(&both, &both), changed(&[], &[]));
        assert_eq!(on_link.replace(&both, &lan), changed(&[], &["10.40.0.0/29"]));
        assert_eq!(on_link.replace(&lan, &none), changed(&[], &[]));
        assert_eq!(on_link.replace(&lan, &none), changed(&[], &["192.0.2.0/24"]));
        assert_eq!(on_link.replace(&none, &lan), changed(&["192.0.2.0/24"], &[]));
    }
}

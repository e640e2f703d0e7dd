//! The rules by which L2Advertisements name interfaces, counted over the VirtualIPs that carry them. Pure.
//!
//! A cluster has a handful of rules and thousands of VirtualIPs, whose statuses change all the time: the count shows
//! whether a change has brought a rule or removed its last use, without a look at the other VirtualIPs.

use herald_crds::virtual_ip::AdvertisementRule;

use crate::{api_objects::Vip, interfaces::names_explicitly};

/// The rules that name interfaces, each with the number of VirtualIPs that carry it.
#[derive(Debug, Default)]
pub(super) struct InterfaceRules(Vec<(AdvertisementRule, usize)>);

impl InterfaceRules {
    /// Counts the rules of the VirtualIPs that an earlier run knew.
    pub(super) fn of<'a>(vips: impl IntoIterator<Item = &'a Vip>) -> Self {
        let mut rules = Self::default();
        for vip in vips {
            rules.vip_changed(None, Some(vip));
        }
        rules
    }

    /// Takes in a VirtualIP that has come, changed or gone. Returns whether the set of rules has changed.
    pub(super) fn vip_changed(&mut self, before: Option<&Vip>, after: Option<&Vip>) -> bool {
        let rules = |vip: Option<&'_ Vip>| vip.map(|vip| vip.rules.clone()).unwrap_or_default();
        if before.map(|vip| &vip.rules) == after.map(|vip| &vip.rules) {
            return false;
        }
        let mut changed = false;
        for rule in rules(after).into_iter().filter(|rule| names_explicitly(&rule.interfaces)) {
            match self.0.iter_mut().find(|(known, _)| *known == rule) {
                Some((_, count)) => *count += 1,
                None => {
                    self.0.push((rule, 1));
                    changed = true;
                }
            }
        }
        for rule in rules(before) {
            if let Some((_, count)) = self.0.iter_mut().find(|(known, _)| *known == rule) {
                *count = count.saturating_sub(1);
            }
        }
        let known = self.0.len();
        self.0.retain(|(_, count)| *count > 0);
        changed || self.0.len() != known
    }

    /// Returns the rules.
    pub(super) fn iter(&self) -> impl Iterator<Item = &AdvertisementRule> {
        self.0.iter().map(|(rule, _)| rule)
    }
}

#[cfg(test)]
mod tests {
    use herald_crds::advertisement::InterfacePattern;

    use super::*;
    use crate::rank::tests::vip;

    fn with(interfaces: &[&str]) -> Vip {
        let interfaces = interfaces.iter().map(|name| InterfacePattern((*name).to_owned())).collect();
        Vip { rules: vec![AdvertisementRule { interfaces, ..AdvertisementRule::everywhere() }], ..vip("192.0.2.10") }
    }

    fn names(rules: &InterfaceRules) -> Vec<&str> {
        rules.iter().flat_map(|rule| &rule.interfaces).map(|pattern| pattern.0.as_str()).collect()
    }

    #[test]
    fn rule_lasts_as_long_as_a_virtual_ip_carries_it() {
        let (lan, other) = (with(&["br-lan"]), with(&["!eth9"]));
        let mut rules = InterfaceRules::of([&other]);
        assert_eq!(names(&rules), Vec::<&str>::new(), "an exclusion names nothing");
        assert!(rules.vip_changed(None, Some(&lan)));
        assert!(!rules.vip_changed(None, Some(&lan)), "of a second VirtualIP");
        assert!(!rules.vip_changed(Some(&lan), Some(&lan)));
        assert!(!rules.vip_changed(Some(&lan), None));
        assert_eq!(names(&rules), ["br-lan"]);
        assert!(rules.vip_changed(Some(&lan), Some(&other)));
        assert_eq!(names(&rules), Vec::<&str>::new());
    }
}

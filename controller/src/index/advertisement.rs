//! L2Advertisements: applying them, and the content of their status.

use herald_crds::{L2Advertisement, names::CONDITION_ACCEPTED};

use super::{Index, Kind, kstatus};
use crate::{
    action::{Action, AdvertisementReport, ConditionValue, Subject},
    advertisement_rules::{self, MOST_RULES},
};

impl Index {
    pub(super) fn apply_advertisement(&mut self, advertisement: L2Advertisement) {
        let Some(name) = advertisement.metadata.name.clone() else { return };
        let old = self.advertisements.get(&name);
        let version = |a: &L2Advertisement| a.metadata.resource_version.clone();
        if old.is_some_and(|o| self.is_outdated(version(&advertisement).as_deref(), version(o).as_deref())) {
            return;
        }
        let same_spec = old.is_some_and(|o| o.spec == advertisement.spec);
        let is_new = old.is_none();
        self.advertisements.insert(name.clone(), advertisement);
        if !same_spec {
            self.mark_vips();
        }
        if is_new && self.advertisements.len() > MOST_RULES {
            self.mark_advertisements();
        }
        self.mark(Subject::Advertisement(name));
    }

    pub(super) fn delete_advertisement(&mut self, name: &str) {
        if self.advertisements.remove(name).is_some() && self.advertisements.len() >= MOST_RULES {
            self.mark_advertisements();
        }
        self.queue.forget(&Subject::Advertisement(name.to_owned()));
        self.mark_vips();
    }

    pub(super) fn decide_advertisement(&self, name: &str) -> Option<Action> {
        let advertisement = self.advertisements.get(name)?;
        let pool_exists = |pool: &str| self.pools.contains_key(pool);
        let node_labels = || self.nodes.values().map(|node| &node.labels);
        let before = self.advertisements.keys().take_while(|other| other.as_str() < name).count();
        let verdict = advertisement_rules::verdict(&advertisement.spec, before, pool_exists, node_labels);
        let condition = ConditionValue {
            type_: CONDITION_ACCEPTED,
            status: verdict.status(),
            reason: verdict.reason().to_owned(),
            message: verdict.to_string(),
            generation: advertisement.metadata.generation,
            since: None,
        };
        let observed = advertisement.status.clone().unwrap_or_default();
        let conditions = kstatus::with_stalled(vec![condition]);
        let generation = self.generation_to_observe(Kind::Advertisement, &advertisement.metadata);
        let same = observed.observed_generation == generation && kstatus::says(&observed.conditions, &conditions);
        (!same).then(|| Action::PatchAdvertisementStatus {
            advertisement: name.to_owned(),
            resource_version: advertisement.metadata.resource_version.clone().unwrap_or_default(),
            report: AdvertisementReport {
                generation,
                conditions: kstatus::following(&observed.conditions, conditions),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use test_case::test_case;

    use crate::index::tests::fake_cluster::World;

    /// The fault of an advertisement is reported, has no other effect, and the report is withdrawn when the fault is
    /// mended.
    #[test_case(json!({"nodeSelectors": [{"matchExpressions": [{"key": "a", "operator": "Is"}]}]}), "False InvalidSelector", "spec.nodeSelectors[0]")]
    #[test_case(json!({"preferredNodeSelectors": [{"weight": 1, "preference": {"matchExpressions": [{"key": "a", "operator": "In"}]}}]}),
        "False InvalidSelector", "spec.preferredNodeSelectors[0]")]
    #[test_case(json!({"addressPools": ["lan", "wan"]}), "True UnknownPool", "AddressPool wan")]
    #[test_case(json!({"nodeSelectors": [{"matchLabels": {"rack": "9"}}]}), "True NoNodeSelected", "spec.nodeSelectors")]
    #[test_case(json!({}), "True Valid", "")]
    fn fault_of_an_advertisement_is_reported_until_it_is_corrected(spec: Value, expected: &str, sentence: &str) {
        let mut world = World::new();
        world.advertisement("front", spec);
        world.settle();
        let condition = |world: &World| world.advertisements["front"].status.as_ref().unwrap().conditions[0].clone();
        let said = condition(&world);
        assert_eq!(format!("{} {}", said.status, said.reason), expected);
        assert!(said.message.contains(sentence), "{}", said.message);
        world.log.clear();
        world.restart();
        world.pass(60);
        assert!(world.log.is_empty(), "{:?}", world.log);
        world.advertisement("front", json!({"addressPools": ["lan"]}));
        world.settle();
        assert_eq!(condition(&world).reason, "Valid");
    }

    #[test]
    fn unknown_pool_that_appears_is_known() {
        let mut world = World::new();
        world.advertisement("front", json!({"addressPools": ["wan"]}));
        world.settle();
        world.pool("wan", json!({"addresses": ["192.0.2.9"]}));
        world.settle();
        assert_eq!(world.advertisements["front"].status.as_ref().unwrap().conditions[0].reason, "Valid");
    }
}

//! The facts that kstatus, and Flux with it, reads of the objects that an administrator writes
//! (`sigs.k8s.io/cli-utils`, `pkg/kstatus/status/generic.go`): whether `status.observedGeneration` is the object's
//! generation, and whether a condition `Stalled` is True. That condition exists only while it is True, as kstatus
//! recommends.

use herald_crds::names::{CONDITION_ACCEPTED, CONDITION_STALLED};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::ObjectMeta;

use super::{Index, Kind};
use crate::action::ConditionValue;

/// Adds `Stalled` where the object is not accepted: only an edit of the object helps. A fault that other objects may
/// cure does not stall it, as with a pool that an advertisement names and that does not exist yet.
pub(super) fn with_stalled(mut conditions: Vec<ConditionValue>) -> Vec<ConditionValue> {
    let refused = conditions.iter().find(|c| c.type_ == CONDITION_ACCEPTED && c.status == "False");
    let stalled = refused.map(|c| ConditionValue { type_: CONDITION_STALLED, status: "True", ..c.clone() });
    conditions.extend(stalled);
    conditions
}

/// Returns whether a status has each of these conditions, and `Stalled` only if it is one of them.
pub(super) fn says(observed: &[Condition], conditions: &[ConditionValue]) -> bool {
    let of_type = |type_: &str| observed.iter().find(|c| c.type_ == type_);
    let is_stalled = conditions.iter().any(|c| c.type_ == CONDITION_STALLED);
    conditions.iter().all(|c| c.is(of_type(c.type_))) && of_type(CONDITION_STALLED).is_some() == is_stalled
}

/// Returns the conditions with the times of the observed ones where their status stays.
pub(super) fn following(observed: &[Condition], conditions: Vec<ConditionValue>) -> Vec<ConditionValue> {
    let follow = |c: ConditionValue| {
        let before = observed.iter().find(|before| before.type_ == c.type_);
        c.following(before)
    };
    conditions.into_iter().map(follow).collect()
}

impl Index {
    /// Returns the generation that the status of an object has to name; `None` where the API server does not keep it.
    pub(super) fn generation_to_observe(&self, kind: Kind, metadata: &ObjectMeta) -> Option<i64> {
        metadata.generation.filter(|_| !self.unkept_kinds.contains(&kind))
    }

    /// Records whether the API server kept the generation in a status. All objects of a kind have one schema, so the
    /// generation is written once more, and reported once, for each kind.
    pub(super) fn note_observed_generation(
        &mut self,
        kind: Kind,
        metadata: &ObjectMeta,
        written: Option<i64>,
        kept: Option<i64>,
    ) {
        if written.is_some() && written != kept {
            self.tell_unkept(kind, metadata, "status.observedGeneration");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use test_case::test_case;

    use super::*;
    use crate::index::{FIELDS_NOT_KEPT, tests::fake_cluster::World};

    /// Returns the verdict of kstatus' own rules, as far as they concern a custom resource that is not being deleted.
    fn judged(object: &Value) -> &'static str {
        if object["status"]["observedGeneration"].as_i64().is_some_and(|seen| object["metadata"]["generation"] != seen)
        {
            return "InProgress";
        }
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let is_true = |type_: &str| conditions.iter().any(|c| c["type"] == type_ && c["status"] == "True");
        if is_true("Reconciling") {
            "InProgress"
        } else if is_true("Stalled") {
            "Failed"
        } else {
            "Current"
        }
    }

    fn pool(world: &World) -> Value {
        serde_json::to_value(&world.pools["lan"]).unwrap()
    }

    fn advertisement(world: &World) -> Value {
        serde_json::to_value(&world.advertisements["front"]).unwrap()
    }

    fn at_rest(world: &mut World) {
        world.pass(60);
        world.log.clear();
        world.restart();
        world.pass(60);
        world.wrote_nothing();
    }

    /// Each case is a pool, its condition `Accepted`, and the verdict of kstatus.
    #[test_case(json!({"addresses": ["192.0.2.1"]}), "True Valid", "Current")]
    #[test_case(json!({"addresses": ["192.0.2.1"], "drain": true}), "True Valid", "Current"; "drained by its spec")]
    #[test_case(json!({"addresses": ["198.51.100.9/30"]}), "True HostBits", "Current")]
    #[test_case(json!({"addresses": ["192.0.2.9-192.0.2.4"]}), "False InvalidAddresses", "Failed")]
    #[test_case(json!({"addresses": ["192.0.2.1", "192.0.2.9-192.0.2.4"]}), "False InvalidAddresses", "Failed"; "one entry of two")]
    #[test_case(json!({"addresses": ["192.0.2.1"], "exclude": ["192.0.2.0/24"]}), "False NoAddresses", "Failed")]
    #[test_case(json!({"addresses": ["192.0.2.255"], "avoidBuggyIPs": true}), "False NoAddresses", "Failed"; "only an avoided address")]
    #[test_case(json!({"addresses": ["192.0.2.1"], "serviceAllocation": {"serviceSelectors": [{"matchExpressions": [{"key": "a", "operator": "Is"}]}]}}),
        "False InvalidSelector", "Failed")]
    fn kstatus_judges_pools_by_their_acceptance(spec: Value, accepted: &str, expected: &str) {
        let mut world = World::new();
        world.pool("lan", spec);
        assert_eq!(judged(&pool(&world)), "InProgress", "the edit has not been looked at");
        world.pass(60);
        let condition = world.pool_condition("lan", CONDITION_ACCEPTED);
        assert_eq!(format!("{} {}", condition.status, condition.reason), accepted);
        assert_eq!(judged(&pool(&world)), expected);
        at_rest(&mut world);
        world.pool("lan", json!({"addresses": ["192.0.2.1-192.0.2.2"]}));
        world.pass(60);
        assert_eq!(judged(&pool(&world)), "Current", "corrected");
        at_rest(&mut world);
    }

    #[test_case(json!({}), "Current")]
    #[test_case(json!({"addressPools": ["wan"]}), "Current"; "the pool may still come")]
    #[test_case(json!({"nodeSelectors": [{"matchLabels": {"rack": "9"}}]}), "Current"; "a node may still come")]
    #[test_case(json!({"nodeSelectors": [{"matchExpressions": [{"key": "a", "operator": "Is"}]}]}), "Failed")]
    fn kstatus_judges_advertisements_by_their_acceptance(spec: Value, expected: &str) {
        let mut world = World::new();
        world.advertisement("front", json!({"addressPools": ["lan"]}));
        world.pass(60);
        world.advertisement("front", spec);
        assert_eq!(judged(&advertisement(&world)), "InProgress", "the edit has not been looked at");
        world.pass(60);
        assert_eq!(judged(&advertisement(&world)), expected);
        at_rest(&mut world);
        world.advertisement("front", json!({"addressPools": ["lan"]}));
        world.pass(60);
        assert_eq!(judged(&advertisement(&world)), "Current", "corrected");
        at_rest(&mut world);
    }

    /// The API server's default shows kstatus that no controller has seen a new object.
    #[test]
    fn new_object_does_not_count_as_finished() {
        for definition in herald_crds::manifest::definitions().map(|(_, crd)| serde_json::to_value(crd).unwrap()) {
            let kind = &definition["spec"]["names"]["kind"];
            let status = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"];
            let is_an_administrators = kind == "AddressPool" || kind == "L2Advertisement";
            assert_eq!(status.get("default").is_some(), is_an_administrators, "{kind}");
            if is_an_administrators {
                assert_eq!(judged(&json!({"metadata": {"generation": 1}, "status": status["default"]})), "InProgress");
            }
        }
    }

    /// With the definitions of an earlier version there is one attempt and one event for each kind, however many
    /// objects there are.
    #[test]
    fn generation_that_is_not_kept_is_not_written_again() {
        let mut world = World::new();
        for n in 0..3 {
            world.advertisement(&format!("a{n}"), json!({}));
            world.pool(&format!("p{n}"), json!({"addresses": [format!("198.51.100.{n}")]}));
        }
        world.unknown_fields = vec!["observedGeneration"];
        world.live();
        world.pass(7200);
        let statuses = |world: &World, write: &str| world.writes().iter().filter(|w| *w == write).count();
        assert_eq!(statuses(&world, "PatchPoolStatus"), 4, "the pool of the world, which has one, and three");
        assert_eq!(statuses(&world, "PatchAdvertisementStatus"), 3);
        let told: Vec<_> = world.events().into_iter().filter(|e| e.reason == FIELDS_NOT_KEPT).cloned().collect();
        let of =
            |kind: &str| told.iter().filter(|e| e.note.contains(&format!("observedGeneration of {kind}s"))).count();
        assert_eq!((told.len(), of("AddressPool"), of("L2Advertisement")), (2, 1, 1), "{told:?}");
        world.log.clear();
        world.restart();
        world.pass(7200);
        assert_eq!((statuses(&world, "PatchPoolStatus"), statuses(&world, "PatchAdvertisementStatus")), (1, 1));
        // This process runs with the definitions of this version.
        world.unknown_fields.clear();
        world.restart();
        world.pass(60);
        assert_eq!(judged(&pool(&world)), "Current");
        at_rest(&mut world);
    }
}

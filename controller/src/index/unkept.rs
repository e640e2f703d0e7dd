//! Written fields that the API server does not keep: its CustomResourceDefinition is of an earlier version (Helm and
//! many GitOps set-ups never update one), or a webhook changes the written object. Another write would change nothing.

use std::net::IpAddr;

use herald_crds::{VirtualIPSpec, names::GROUP};
use kube::core::ObjectMeta;
use serde_json::Value;

use super::{Index, Kind};
use crate::action::{EventValue, Regarding};

/// Reason of the event that reports it.
pub(crate) const FIELDS_NOT_KEPT: &str = "FieldsNotKept";

/// A written spec, and the spec that the API server kept.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Unkept {
    written: VirtualIPSpec,
    kept: VirtualIPSpec,
}

impl Unkept {
    /// Returns whether this spec has been written, and the observed one is what the API server kept of it.
    pub(super) fn covers(&self, written: &VirtualIPSpec, kept: &VirtualIPSpec) -> bool {
        self.written == *written && self.kept == *kept
    }

    /// Returns the fields that differ.
    fn fields(&self) -> Vec<String> {
        let (Ok(Value::Object(written)), Ok(Value::Object(kept))) =
            (serde_json::to_value(&self.written), serde_json::to_value(&self.kept))
        else {
            return Vec::new();
        };
        let differs = |field: &&String| written.get(*field) != kept.get(*field);
        let mut fields: Vec<_> =
            written.keys().chain(kept.keys()).filter(differs).map(|f| format!("spec.{f}")).collect();
        fields.sort();
        fields.dedup();
        fields
    }
}

impl Index {
    /// Remembers the spec that was written and the one that the API server kept.
    pub(super) fn note_unkept(&mut self, address: IpAddr, written: &VirtualIPSpec, kept: Option<VirtualIPSpec>) {
        let Some((entry, kept)) = self.vips.get_mut(&address).zip(kept) else { return };
        let unkept = Unkept { written: written.clone(), kept };
        if unkept.written == unkept.kept {
            entry.unkept = None;
            return;
        }
        let (fields, metadata) = (unkept.fields().join(", "), entry.vip.metadata.clone());
        entry.unkept = Some(Box::new(unkept));
        self.tell_unkept(Kind::VirtualIp, &metadata, &fields);
    }

    /// Remembers that the API server does not keep every field of a kind, and reports it once, on the first object.
    pub(super) fn tell_unkept(&mut self, kind: Kind, metadata: &ObjectMeta, fields: &str) {
        if !self.unkept_kinds.insert(kind) {
            return;
        }
        let (name, uid) = (metadata.name.clone().unwrap_or_default(), metadata.uid.clone().unwrap_or_default());
        let kind = kind.as_str();
        let note = format!(
            "the API server does not keep {fields} of {kind}s as written: the CustomResourceDefinition {}s.{GROUP} is of \
             another version than the controller, or a webhook changes it. Apply the definitions of this version (kubectl \
             apply -k deploy/crds), then restart the controller",
            kind.to_lowercase()
        );
        let regarding = Regarding::Object { kind, name, uid };
        let event = EventValue { regarding, warning: true, reason: FIELDS_NOT_KEPT, action: "Write", note };
        self.events.push_back(event);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use test_case::test_case;

    use super::*;
    use crate::index::tests::fake_cluster::World;

    /// The CustomResourceDefinition of an earlier version has no such field.
    #[test_case("serviceNames"; "field that was added last")]
    #[test_case("homeNode")]
    #[test_case("externalTrafficPolicy")]
    fn pruned_field_is_reported_once_and_not_written_again(field: &'static str) {
        let mut world = World::new();
        world.unknown_fields = vec![field];
        for name in ["x", "y"] {
            world.create(name, json!({"spec": {"externalTrafficPolicy": "Local"}}));
        }
        world.live();
        world.pass(7200);
        let updates = |world: &World| world.writes().iter().filter(|w| *w == "UpdateVirtualIpSpec").count();
        assert_eq!((updates(&world), world.ingress("x").len(), world.ingress("y").len()), (0, 1, 1));
        let told: Vec<_> = world.events().into_iter().filter(|e| e.reason == FIELDS_NOT_KEPT).cloned().collect();
        assert!(told.len() == 1 && told[0].note.contains(&format!("keep spec.{field} of")), "{told:?}");
        // A new process tries each field once.
        world.log.clear();
        world.restart();
        world.pass(7200);
        assert!(updates(&world) <= 2, "{:?}", world.writes());
        // With the definition of this version, a further process has nothing to write.
        world.unknown_fields.clear();
        world.restart();
        world.pass(60);
        world.log.clear();
        world.restart();
        world.pass(60);
        world.wrote_nothing();
    }
}

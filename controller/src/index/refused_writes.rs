//! VirtualIPs that the API server refuses: a policy engine or a Role stands in the way, and their Services wait for
//! them.

use std::{collections::BTreeMap, net::IpAddr};

use herald_crds::{
    address::name_of_address,
    event::{NOTE_LIMIT, cut},
    names::CONDITION_ADDRESS_ASSIGNED,
};

use super::{
    Index,
    service::{events_of, patch_of},
};
use crate::{
    action::{Action, Change, ConditionValue, Outcome, ServicePatch},
    view::ServiceView,
};

/// Number of refusals in a row, within a second, after which the Service learns of them. One alone may come from a
/// webhook that is being replaced.
const TOLD_AFTER: u32 = 3;
/// Reason of the condition of a Service whose VirtualIP is refused.
pub(super) const WRITE_REFUSED: &str = "WriteRefused";

/// The number of times in a row that the API server has refused a VirtualIP, and its last sentence.
#[derive(Clone, Debug, Default)]
pub(super) struct RefusedWrite {
    times: u32,
    sentence: String,
}

/// The refused writes, by the address of the VirtualIP.
pub(super) type RefusedWrites = BTreeMap<IpAddr, RefusedWrite>;

impl Index {
    /// Counts the outcome of a write that makes a VirtualIP, or makes it name a Service.
    pub(super) fn note_refusal(&mut self, action: &Action, outcome: &Outcome) {
        let (Action::CreateVirtualIp { address, spec, .. } | Action::UpdateVirtualIpSpec { address, spec, .. }) =
            action
        else {
            return;
        };
        match outcome {
            Outcome::Refused(sentence) => {
                let refused = self.refused_writes.entry(*address).or_default();
                refused.times = refused.times.saturating_add(1);
                // The sentence takes half of an event's note: the rest is ours.
                refused.sentence = cut(sentence, NOTE_LIMIT / 2);
                if refused.times >= TOLD_AFTER {
                    for service in &spec.services {
                        self.mark_service(service);
                    }
                }
            }
            Outcome::Failed | Outcome::Unavailable => {}
            _ => drop(self.refused_writes.remove(address)),
        }
    }

    /// Returns a write that tells a Service why it waits for the VirtualIP of its address, once that has been refused
    /// often enough.
    pub(super) fn tell_refusal(&self, view: &ServiceView, address: IpAddr) -> Option<Action> {
        let refused = self.refused_writes.get(&address).filter(|refused| refused.times >= TOLD_AFTER)?;
        let condition = ConditionValue {
            type_: CONDITION_ADDRESS_ASSIGNED,
            status: "False",
            reason: WRITE_REFUSED.to_owned(),
            message: format!(
                "the API server refuses VirtualIP {} for this Service: {}. ClusterRole herald-controller has to allow \
                 create and patch of virtualips, and admission policies have to admit them",
                name_of_address(address),
                refused.sentence
            ),
            generation: None,
            since: None,
        };
        (!condition.is(view.condition.as_ref())).then(|| {
            let events = events_of(view, &condition, false, false);
            let condition = Change::Set(condition.following(view.condition.as_ref()));
            patch_of(view, ServicePatch { condition, ..ServicePatch::default() }, events)
        })
    }
}

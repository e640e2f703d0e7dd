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
    action::{Action, Change, ConditionValue, Outcome, ServicePatch, Subject},
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
    code: u16,
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
            Outcome::Refused { code, sentence } => {
                let refused = self.refused_writes.entry(*address).or_default();
                refused.times = refused.times.saturating_add(1);
                refused.code = *code;
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

    /// Ends the pauses of VirtualIPs whose writes were refused: a list shows that the API server serves the kind, which
    /// it may not have done before. An address would be silent for up to half a minute more otherwise.
    pub(super) fn retry_refused_writes(&mut self) {
        for address in self.refused_writes.keys().copied().collect::<Vec<_>>() {
            let subject = Subject::VirtualIp(address);
            self.queue.settled(&subject);
            self.mark(subject);
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
                "the API server refuses VirtualIP {} for this Service: {}. {}",
                name_of_address(address),
                refused.sentence,
                remedy(refused.code, &refused.sentence)
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

/// Returns what a person can do about a refused VirtualIP, by the answer of the API server.
fn remedy(code: u16, sentence: &str) -> &'static str {
    match code {
        // A VirtualIP has no namespace, so nothing else can be missing.
        404 => {
            "The CustomResourceDefinition virtualips.heraldlb.io is missing or not served yet: apply those of this \
             version (deploy/crds)"
        }
        // An authorizer words its refusal so (apiserver, `endpoints/handlers/responsewriters/errors.go`); admission
        // plugins and webhooks answer with the same code.
        403 if sentence.contains(" cannot ") && sentence.contains(" resource ") => {
            "ClusterRole herald-controller has to allow create and patch of virtualips"
        }
        403 => "An admission policy or webhook denies it: let it admit virtualips of herald-controller",
        400 | 422 => {
            "The CustomResourceDefinition virtualips.heraldlb.io is of another version, or an admission policy denies the \
             object: apply the definitions of this version (deploy/crds), or change the policy"
        }
        413 => "The object is too large: let fewer or shorter L2Advertisements select the address",
        _ => "The log of the API server, or of a proxy before it, says more",
    }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case(404, "404 page not found" => "deploy/crds"; "no definition")]
    #[test_case(404, "the server could not find the requested resource" => "deploy/crds"; "no definition, another wording")]
    #[test_case(403, "virtualips.heraldlb.io is forbidden: User \"u\" cannot create resource \"virtualips\" in API group \"heraldlb.io\" at the cluster scope" => "ClusterRole"; "RBAC")]
    #[test_case(403, "admission webhook \"w\" denied the request: no" => "admission"; "webhook")]
    #[test_case(422, "VirtualIP.heraldlb.io \"192.0.2.1\" is invalid: spec.pool: Required value" => "another version"; "schema")]
    #[test_case(413, "Request entity too large: limit is 3145728" => "too large"; "size")]
    #[test_case(418, "odd" => "log"; "unknown")]
    fn remedy_follows_from_the_answer(code: u16, sentence: &str) -> &'static str {
        let remedy = remedy(code, sentence);
        let words = ["ClusterRole", "another version", "deploy/crds", "too large", "log", "admission"];
        words.into_iter().find(|word| remedy.contains(word)).unwrap_or_default()
    }
}

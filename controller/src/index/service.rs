//! Services: the decision about one, and the content of its status.

use std::collections::BTreeSet;
use std::net::IpAddr;

use herald_crds::{
    address::IpFamily,
    names::{ANNOTATION_ADDRESSES, ANNOTATION_POOL, CONDITION_ADDRESS_ASSIGNED, FINALIZER_SERVICE_DEFAULT},
    service::Claim,
    virtual_ip::ServiceReference,
};

use super::{
    Index,
    conflict::{ADDRESS_CONFLICT, ANSWERED_BY_CLUSTER_NODE, Standing},
    content::Content,
    creation_dates::Dated,
    plan::Plan,
    told::DELETED,
};
use crate::{
    action::{Action, Change, ConditionValue, EventValue, Regarding, ServicePatch, Subject},
    advisory::Advisory,
    allocator::Refusal,
    view::{FamilyPolicy, Ingress, ServiceKey, ServiceView},
};

/// Reason of the condition where the Service has everything that it asks for.
const ASSIGNED: &str = "Assigned";
/// Reason of the condition where an address has left its pool by an edit.
const OUTSIDE_POOL: &str = "OutsidePool";

impl Index {
    pub(super) fn decide_service(&mut self, key: &ServiceKey) -> Option<Action> {
        let view = self.services.get(key)?.clone();
        self.waiting.remove(key);
        match view.claim {
            Some(claim) if view.wants_address() => self.serve(&view, claim),
            _ => self.release(&view),
        }
    }

    fn serve(&mut self, view: &ServiceView, claim: Claim) -> Option<Action> {
        let plan = self.plan(view);
        if plan.refusals.iter().any(Refusal::may_end_by_others) {
            self.waiting.insert(view.key());
        }
        if plan.awaits_input {
            self.waiting.insert(view.key());
            return None; // its arrival asks again
        }
        let is_made = |address: IpAddr| {
            self.vip_serves(address, &view.reference) && (view.shows(address) || !self.vips[&address].deleting())
        };
        if let Some(address) = plan.targets.iter().find(|address| !is_made(**address)) {
            return self.tell_refusal(view, *address); // the VirtualIP comes first; its arrival asks again
        }
        let unsettled =
            |address: &IpAddr| matches!(self.dated(*address), Dated::TooEarly { .. }) && !view.shows(*address);
        if plan.targets.iter().any(unsettled) {
            return None; // the VirtualIP is created again first
        }
        let awaited = plan.targets.iter().find(|address| self.standing(**address, view) == Standing::Awaited);
        if let Some(occupant) = awaited.and_then(|address| self.allocator.occupant(*address)) {
            self.mark(Subject::Pool(occupant.pool.clone()));
            return None; // the pool's status comes first; its arrival asks again
        }
        let burned = self.burned(view, &plan);
        let desired = plan.targets.clone();
        let observed: Vec<IpAddr> = view.addresses().collect();
        let ingress = if plan.foreign || desired == observed {
            Change::Keep
        } else if desired.is_empty() {
            Change::Remove
        } else {
            Change::Set(desired.clone())
        };
        let finalizer = claim.finalizer();
        let has_finalizer =
            view.finalizer == Some(finalizer) || (finalizer == FINALIZER_SERVICE_DEFAULT && view.default_finalizer);
        let allocated_from = self.allocated_from(view, &desired);
        let content =
            Content { verdict: self.verdict(view, &plan, &desired), caveats: self.caveats(view, &plan, &desired) };
        let shown = self.contents.replace(view, &content);
        let condition = content.condition();
        let changed = !condition.is(view.condition.as_ref());
        let patch = ServicePatch {
            condition: if changed { Change::Set(condition.following(view.condition.as_ref())) } else { Change::Keep },
            // The finalizer comes no later than the ingress; without an address there is nothing to clean up.
            add_finalizer: (!desired.is_empty() && !has_finalizer).then_some(finalizer),
            // The Service was given up on the way (its type changed there and back) and refused since. The address that
            // it shows may still be Herald's: its VirtualIP has not been seen, or is gone, and so is the pool.
            remove_finalizer: view.finalizer.filter(|_| {
                view.ingress.is_empty()
                    && self.allocator.held(&view.reference).is_empty()
                    && self.allocator.leaving(&view.reference).is_empty()
            }),
            ingress,
            allocated_from,
        };
        if patch == ServicePatch::default() {
            self.give_up_others(view, &desired);
            return None;
        }
        let ingress_changes = patch.ingress != Change::Keep;
        let is_told = shown.as_ref().is_some_and(|shown| shown.verdict == content.verdict);
        let mut events = events_of(view, &content.verdict, is_told, ingress_changes);
        let told = shown.map(|shown| shown.caveats).unwrap_or_default();
        events.extend(content.caveats.iter().filter(|caveat| !told.contains(caveat)).map(|caveat| {
            warning(view, caveat.reason(), "Serve", caveat.to_string()) // its sentence is in the condition from now on
        }));
        events.extend(burned.into_iter().filter(|_| ingress_changes));
        Some(patch_of(view, patch, events))
    }

    /// Gives up the addresses that the Service neither should have nor shows. This happens only once there is nothing
    /// to write: a version that the API server has not accepted a write on may be an old one, and a newer one may show
    /// the address.
    fn give_up_others(&mut self, view: &ServiceView, desired: &[IpAddr]) {
        for address in self.allocator.held(&view.reference) {
            if !desired.contains(&address) && !view.shows(address) {
                self.give_up(&view.reference, address);
            }
        }
    }

    /// Returns a Warning for each address that the plan replaces because a stranger holds it.
    fn burned(&self, view: &ServiceView, plan: &Plan) -> Vec<EventValue> {
        let event = |address: IpAddr| {
            if plan.targets.contains(&address) {
                return None;
            }
            let of_family = |other: &&IpAddr| IpFamily::of(**other) == IpFamily::of(address);
            let mut others = plan.targets.iter().filter(of_family);
            let other = others.clone().find(|other| !view.shows(**other)).or_else(|| others.next())?;
            let Standing::Replaced(says) = self.standing(address, view) else { return None };
            let note = format!("{says}. The Service gets {other}; {address} is in quarantine for an hour");
            Some(warning(view, "AddressQuarantined", "Replace", note))
        };
        self.allocator.held(&view.reference).into_iter().filter_map(event).collect()
    }

    /// Returns the change of the annotation that names the pools of its addresses.
    fn allocated_from(&self, view: &ServiceView, desired: &[IpAddr]) -> Change<String> {
        let mut pools: Vec<&str> = Vec::new();
        for occupant in desired.iter().filter_map(|address| self.allocator.occupant(*address)) {
            if !pools.contains(&occupant.pool.as_str()) {
                pools.push(&occupant.pool);
            }
        }
        match (pools.join(","), &view.allocated_from) {
            (pools, None) if pools.is_empty() => Change::Keep,
            (pools, Some(_)) if pools.is_empty() => Change::Remove,
            (pools, Some(observed)) if pools == *observed => Change::Keep,
            (pools, _) => Change::Set(pools),
        }
    }

    /// Returns the condition without caveats.
    fn verdict(&self, view: &ServiceView, plan: &Plan, desired: &[IpAddr]) -> ConditionValue {
        let from = |address: &IpAddr| match self.allocator.occupant(*address) {
            Some(occupant) => format!("{address} from AddressPool {}", occupant.pool),
            None => address.to_string(),
        };
        let has = desired.iter().map(from).collect::<Vec<_>>().join(", ");
        let refusals = plan.refusals.iter().map(|refusal| refusal.sentence(plan.asked_by.as_ref()));
        let refused = plan.short.iter().map(ToString::to_string).chain(refusals).collect::<Vec<_>>().join("; ");
        let outside = |address: &&IpAddr| {
            let occupant = self.allocator.occupant(**address);
            occupant.is_some_and(|o| !self.allocator.pool_contains(&o.pool, **address))
        };
        let pool_is_named = view.request.as_ref().is_ok_and(|request| !request.pools.is_empty());
        let preferred =
            view.family_policy == FamilyPolicy::Prefer && !desired.is_empty() && !plan.foreign && plan.short.is_empty();
        let (status, reason, message) = match plan.refusals.first() {
            None => {
                let outside: Vec<IpAddr> = desired.iter().filter(outside).copied().collect();
                if outside.is_empty() {
                    ("True", ASSIGNED, has)
                } else {
                    ("True", OUTSIDE_POOL, format!("{has}; {}", self.outside_pools(&view.reference, &outside)))
                }
            }
            Some(_) if preferred && plan.refusals.iter().all(|refusal| refusal.is_absence(pool_is_named)) => {
                ("True", ASSIGNED, format!("{has}; {refused}"))
            }
            Some(first) if desired.is_empty() => ("False", first.reason(), refused),
            Some(first) => ("False", first.reason(), format!("{refused}; until then the Service keeps {has}")),
        };
        let contested = desired.iter().find_map(|address| match self.standing(*address, view) {
            Standing::Kept { reason, message } => Some((reason, message)),
            Standing::Replaced(message) => Some((reason, message)), // there is no other address
            Standing::Uncontested | Standing::Awaited => None,
        });
        let (reason, message) = match contested {
            Some((why, says)) if status == "True" => (why, format!("{message}; {says}")),
            Some((_, says)) => (reason, format!("{message}; {says}")),
            None => (reason, message),
        };
        ConditionValue {
            type_: CONDITION_ADDRESS_ASSIGNED,
            status,
            reason: reason.to_owned(),
            message,
            generation: None, // the API server keeps no generation for Services
            since: None,
        }
    }

    /// Returns the sentence about addresses that have left their pools by an edit.
    fn outside_pools(&self, service: &ServiceReference, outside: &[IpAddr]) -> String {
        let ServiceReference { namespace, name, .. } = service;
        // A Service that names the pool from which an address came keeps the address, so the command names another pool.
        let other = |address: &IpAddr| {
            let from = self.allocator.occupant(*address).map_or("", |occupant| &occupant.pool);
            self.allocator.first_other_pool_with(IpFamily::of(*address), from)
        };
        let request = match outside.iter().map(other).collect::<Option<BTreeSet<&str>>>() {
            Some(others) => format!("{ANNOTATION_POOL}={}", others.into_iter().collect::<Vec<_>>().join(",")),
            None => format!("{ANNOTATION_ADDRESSES}=ADDRESS"),
        };
        let (are, them, another) = match outside {
            [_] => ("is", "it", "another address"),
            _ => ("are", "them", "other addresses"),
        };
        let listed = outside.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        format!(
            "{listed} {are} no longer in any AddressPool: the Service keeps {them}, and the advertisements it has. Put \
             {them} back into spec.addresses of a pool, or let the Service ask for {another}: kubectl -n {namespace} \
             annotate service {name} {request} --overwrite"
        )
    }

    /// Returns the further facts that the owner of the Service should know.
    fn caveats(&self, view: &ServiceView, plan: &Plan, desired: &[IpAddr]) -> Vec<Advisory> {
        let clash = |address: &IpAddr| {
            let (other, why) = self.allocator.clash(&view.reference, *address)?;
            let other = format!("{}/{}", other.namespace, other.name);
            Some(Advisory::SharingConflict { address: *address, other, why })
        };
        let reserved = |address: &IpAddr| {
            let by = self.allocator.reservation(*address)?;
            Some(Advisory::ReservedAddress { address: *address, by: by.clone() })
        };
        let shown_twice = |address: &IpAddr| {
            let other = self.allocator.also_shown_by(*address, &view.reference)?;
            Some(Advisory::ShownTwice { address: *address, other: other.clone() })
        };
        let of_addresses = desired.iter().filter_map(clash).chain(desired.iter().filter_map(reserved));
        let held = |address: &IpAddr| self.held(*address);
        let of_addresses =
            of_addresses.chain(desired.iter().filter_map(shown_twice)).chain(desired.iter().filter_map(held));
        view.caveats.iter().chain(&plan.caveat).cloned().chain(of_addresses).collect()
    }

    /// Takes back the addresses of a Service that should not, or should no longer, have any. A Service that never had
    /// one of ours is not touched.
    fn release(&mut self, view: &ServiceView) -> Option<Action> {
        let held = self.allocator.held(&view.reference);
        // The Service is another provider's from now on, by our own flag: our condition is removed first, then the
        // address. (A change of type removes both by itself; a deleted Service takes them with it.)
        if view.load_balancer && !view.deleting && view.condition.is_some() {
            let ours = |address| self.allocator.is_linked(&view.reference, address);
            let all_ours = view.ingress.iter().all(|i| matches!(i, Ingress::Vip(a) if ours(*a)));
            let ingress = if all_ours && !view.ingress.is_empty() { Change::Remove } else { Change::Keep };
            let allocated_from = unless(view.allocated_from.is_none());
            let patch = ServicePatch { ingress, condition: Change::Remove, allocated_from, ..ServicePatch::default() };
            return Some(patch_of(view, patch, Vec::new()));
        }
        let had = !held.is_empty() || !self.allocator.leaving(&view.reference).is_empty();
        if had && view.default_finalizer {
            // The VirtualIP proves that Herald served the Service, so this finalizer is ours to remove.
            if let Some(service) = self.services.get_mut(&view.key()) {
                service.finalizer = service.finalizer.or(Some(FINALIZER_SERVICE_DEFAULT));
            }
        }
        if !held.is_empty() && !view.deleting {
            // The Service may have lost its claim in an old version only: it is looked up first, and decided again.
            for address in held {
                self.mark(Subject::VirtualIp(address));
            }
            return None;
        }
        self.vacate_all(&view.reference);
        let leaving = self.allocator.leaving(&view.reference);
        let answered_for = |address: &IpAddr| {
            self.vip_serves(*address, &view.reference) || self.queue.is_in_flight(&Subject::VirtualIp(*address))
        };
        if leaving.iter().any(answered_for) {
            return None; // the last address that falls silent asks again
        }
        let ingress = if self.still_shows(view) { Change::Remove } else { Change::Keep };
        // A change of type empties status.loadBalancer and leaves the conditions.
        let condition = unless(view.condition.is_none());
        // The annotation of a Service that Herald never served is a copy from a manifest.
        let allocated_from = unless(view.allocated_from.is_none() || view.finalizer.is_none());
        let remove_finalizer = view.finalizer;
        let patch = ServicePatch { ingress, condition, allocated_from, remove_finalizer, ..ServicePatch::default() };
        if patch == ServicePatch::default() {
            return None;
        }
        // The Service is there to stay, and of a class that this controller does not serve: the flags are others than
        // before, or its owner has given it another class by way of another type.
        let of_another_class = view.load_balancer && !view.deleting;
        let note = if of_another_class {
            "every address is withdrawn and free again: the controller that leads does not serve the class of this Service: \
             the class has changed, or the controller's flags have (--default-provider, --lb-class)"
        } else {
            "every address is withdrawn and free again"
        };
        let deleted = view.finalizer.map(|_| EventValue {
            regarding: Regarding::Service(view.reference.clone()),
            warning: of_another_class,
            reason: DELETED,
            action: "Release",
            note: note.to_owned(),
        });
        Some(patch_of(view, patch, deleted.into_iter().collect()))
    }

    /// Returns whether a deleted Service of ours still shows addresses that it gave up, and only those. As long as it
    /// does, kube-proxy serves them under its name, so no other Service gets them. (The type stays LoadBalancer, so the
    /// API server does not empty the status.)
    pub(super) fn still_shows(&self, view: &ServiceView) -> bool {
        let leaving = self.allocator.leaving(&view.reference);
        view.claim.is_some()
            && view.deleting
            && !view.ingress.is_empty()
            && view.ingress.iter().all(|i| matches!(i, Ingress::Vip(a) if leaving.contains(a)))
    }

    pub(super) fn vip_serves(&self, address: IpAddr, service: &ServiceReference) -> bool {
        self.vips.get(&address).is_some_and(|entry| entry.vip.spec.services.contains(service))
    }
}

/// Returns the removal of a field, unless the field is absent.
fn unless<T>(absent: bool) -> Change<T> {
    if absent { Change::Keep } else { Change::Remove }
}

pub(super) fn patch_of(view: &ServiceView, patch: ServicePatch, events: Vec<EventValue>) -> Action {
    Action::PatchServiceStatus {
        service: view.reference.clone(),
        resource_version: view.resource_version.clone(),
        patch,
        events,
    }
}

fn warning(view: &ServiceView, reason: &'static str, action: &'static str, note: String) -> EventValue {
    EventValue { regarding: Regarding::Service(view.reference.clone()), warning: true, reason, action, note }
}

/// Returns the events of a verdict; `is_told` says whether the Service shows the verdict already. They follow the
/// condition, which outlives a restart, so that each fact is reported once.
pub(super) fn events_of(
    view: &ServiceView,
    verdict: &ConditionValue,
    is_told: bool,
    ingress_changes: bool,
) -> Vec<EventValue> {
    let observed = view.condition.as_ref();
    let was = |status: &str| observed.is_some_and(|c| c.status == status);
    if verdict.status == "False" {
        let note = format!("{}: {}", verdict.reason, verdict.message);
        return if is_told { Vec::new() } else { vec![warning(view, "SyncLoadBalancerFailed", "Assign", note)] };
    }
    let mut events = Vec::new();
    if ingress_changes || !was("True") {
        events.push(EventValue {
            warning: false,
            ..warning(view, "EnsuredLoadBalancer", "Assign", verdict.message.clone())
        });
    }
    if verdict.reason == OUTSIDE_POOL && observed.is_none_or(|c| c.reason != OUTSIDE_POOL) {
        events.push(warning(view, "AddressOutsidePool", "Keep", verdict.message.clone()));
    }
    let contested = [ADDRESS_CONFLICT, ANSWERED_BY_CLUSTER_NODE].into_iter().find(|r| verdict.reason == *r);
    let contested = contested.filter(|_| !is_told);
    events.extend(contested.map(|reason| warning(view, reason, "Announce", verdict.message.clone())));
    events
}

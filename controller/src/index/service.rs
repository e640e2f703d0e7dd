//! Services: which addresses one is to have, and what its status says.

use std::{collections::BTreeMap, net::IpAddr};

use herald_crds::{
    address::IpFamily,
    names::{ANNOTATION_POOL, CONDITION_ADDRESS_ASSIGNED, FINALIZER_SERVICE_DEFAULT},
    service::{Claim, Request},
    virtual_ip::ServiceReference,
};

use super::{
    Index,
    contested::{ADDRESS_CONFLICT, ANSWERED_BY_CLUSTER_NODE, Standing},
    creation_dates::Dated,
    told::DELETED,
};
use crate::{
    action::{Action, Change, ConditionValue, EventValue, Regarding, ServicePatch, Subject},
    allocator::{Asker, Refusal},
    caveat::Caveat,
    view::{FamilyPolicy, Ingress, ServiceKey, ServiceView},
};

/// Reason of the condition where everything asked for is there.
const ASSIGNED: &str = "Assigned";
/// Reason of the condition where an address has left its pool by an edit.
const OUTSIDE_POOL: &str = "OutsidePool";
/// Stands in the condition's message before each caveat.
const CAVEAT_MARK: &str = "; note: ";

/// What a Service is to have.
#[derive(Debug, Default)]
struct Plan {
    /// Its addresses.
    targets: BTreeMap<IpFamily, IpAddr>,
    /// What it asks for and does not get.
    refusals: Vec<Refusal>,
    /// Its status holds what is not ours: it is not overwritten.
    foreign: bool,
    /// Its namespace has not been seen, on whose labels it depends which pools give it an address.
    awaits_namespace: bool,
}

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
        if !plan.refusals.is_empty() {
            self.waiting.insert(view.key());
        }
        if plan.awaits_namespace {
            self.waiting.insert(view.key());
            return None; // its arrival asks again
        }
        let is_made = |address: IpAddr| {
            self.vip_serves(address, &view.reference) && (view.shows(address) || !self.vips[&address].deleting())
        };
        if let Some(address) = plan.targets.values().find(|address| !is_made(**address)) {
            return self.tell_refusal(view, *address); // the VirtualIP comes first; its arrival asks again
        }
        let unsettled =
            |address: &IpAddr| matches!(self.dated(*address), Dated::TooEarly { .. }) && !view.shows(*address);
        if plan.targets.values().any(unsettled) {
            return None; // the VirtualIP is created again first
        }
        let awaited = plan.targets.values().find(|address| self.standing(**address, view) == Standing::Awaited);
        if let Some(occupant) = awaited.and_then(|address| self.allocator.occupant(*address)) {
            self.mark(Subject::Pool(occupant.pool.clone()));
            return None; // the pool's status comes first; its arrival asks again
        }
        let burned = self.burned(view, &plan);
        let desired: Vec<IpAddr> = view.families.iter().filter_map(|f| plan.targets.get(f)).copied().collect();
        let observed: Vec<IpAddr> = view.addresses().collect();
        let ingress = match () {
            () if plan.foreign || desired == observed => Change::Keep,
            () if desired.is_empty() => Change::Remove,
            () => Change::Set(desired.clone()),
        };
        let finalizer = claim.finalizer();
        let has_finalizer =
            view.finalizer == Some(finalizer) || (finalizer == FINALIZER_SERVICE_DEFAULT && view.default_finalizer);
        let allocated_from = self.allocated_from(view, &desired);
        let verdict = self.condition(view, &plan, &desired);
        let caveats = self.caveats(view, &desired);
        let condition = with_caveats(verdict.clone(), &caveats);
        let changed = !condition.is(view.condition.as_ref());
        let patch = ServicePatch {
            condition: if changed {
                Change::Set(condition.clone().following(view.condition.as_ref()))
            } else {
                Change::Keep
            },
            // There no later than the ingress; nothing to clean up without an address.
            add_finalizer: (!desired.is_empty() && !has_finalizer).then_some(finalizer),
            // Given up on the way (its type changed there and back) and refused since. What it shows may be Herald's still:
            // its VirtualIP has not been seen, or is gone, and so is the pool.
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
        let mut events = events_of(view, &verdict, ingress_changes);
        events.extend(caveats.iter().filter(|caveat| !is_told(view, caveat)).map(|caveat| {
            warning(view, caveat.reason(), "Serve", caveat.to_string()) // its sentence stands in the condition from now on
        }));
        events.extend(burned.into_iter().filter(|_| ingress_changes));
        Some(patch_of(view, patch, events))
    }

    /// Which addresses it keeps, gets, and does not get.
    fn plan(&mut self, view: &ServiceView) -> Plan {
        let reference = &view.reference;
        let mut plan = Plan::default();
        for entry in &view.ingress {
            let refusal = match entry {
                Ingress::Vip(address) if self.allocator.held(reference).contains(address) => None,
                Ingress::Vip(address) => match self.allocator.adopt(reference, *address) {
                    Ok(()) => {
                        self.mark(Subject::VirtualIp(*address));
                        self.mark_pools();
                        self.mark_waiting();
                        None
                    }
                    Err(refusal) => Some(refusal),
                },
                Ingress::Other(value) => Some(Refusal::ForeignIngress { value: value.clone() }),
            };
            plan.refusals.extend(refusal);
        }
        plan.foreign = !plan.refusals.is_empty();
        self.give_way(view);
        if plan.foreign {
            self.give_up_unpublished(view);
            plan.targets = self.current(view, &self.allocator.held(reference), &Request::default());
            return plan;
        }
        let held = self.allocator.held(reference);
        let request = match &view.request {
            Ok(request) => request.clone(),
            Err(error) => {
                plan.refusals.push(error.clone().into());
                plan.targets = self.current(view, &held, &Request::default());
                return plan;
            }
        };
        let current = self.current(view, &held, &request);
        let unserved = request.addresses.iter().find(|(family, _)| !view.families.contains(family));
        if let Some((family, address)) = unserved {
            plan.refusals.push(Refusal::FamilyNotServed { address: *address, family: *family });
            plan.targets = current;
            return plan;
        }
        let mut fresh = Vec::new();
        for family in &view.families {
            let kept = current.get(family).copied();
            let wanted = request.addresses.get(family).copied();
            if let Some(address) = kept.filter(|address| self.may_stay(view, *address, wanted, &request.pools)) {
                self.count_to_requested_pool(address, &request.pools);
                plan.targets.insert(*family, address);
                continue;
            }
            let Some(namespace_labels) = self.namespaces.get(&view.reference.namespace) else {
                plan.awaits_namespace = true;
                return plan;
            };
            let asker = Asker {
                service: &view.reference,
                service_labels: &view.labels,
                namespace_labels,
                family: *family,
                pools: &request.pools,
                contested: &self.contested,
            };
            match self.allocator.assign(&asker, wanted) {
                Ok(address) => {
                    fresh.push(address);
                    plan.targets.insert(*family, address);
                }
                Err(refusal) => {
                    plan.refusals.push(refusal);
                    plan.targets.extend(kept.map(|address| (*family, address)));
                }
            }
        }
        let complete = plan.targets.len() == view.families.len();
        let published = view.addresses().any(|address| held.contains(&address));
        if view.family_policy == FamilyPolicy::Require && !complete && !published {
            // Both or none: nobody has seen these yet.
            for address in fresh {
                self.allocator.retract(reference, address);
            }
            plan.targets.clear();
        } else if !fresh.is_empty() {
            self.reconsider_among(&fresh);
            for address in fresh {
                self.mark(Subject::VirtualIp(address));
                self.wake_for_other_reasons(address);
            }
            self.mark_pools();
        }
        plan
    }

    /// The address lies in a pool that the Service asks for, and counts to another that holds it as well: it counts to the
    /// former unless a Service that has the address asks for the latter.
    fn count_to_requested_pool(&mut self, address: IpAddr, pools: &[String]) {
        let Some(occupant) = self.allocator.occupant(address) else { return };
        let requests = occupant.services.iter().filter_map(|service| self.service(service)?.request.as_ref().ok());
        let is_asked_for = requests.flat_map(|request| &request.pools).any(|pool| *pool == occupant.pool);
        let holding = pools.iter().find(|pool| self.allocator.pool_contains(pool, address)).filter(|_| !is_asked_for);
        let sharers: Vec<_> = occupant.services.iter().cloned().collect();
        if holding.is_some_and(|pool| self.allocator.count_to(address, pool)) {
            self.mark(Subject::VirtualIp(address));
            for service in sharers {
                self.mark_service(&service); // each names the pool in its condition
            }
            self.mark_pools();
        }
    }

    /// Gives up what it neither is to have nor shows. Only once there is nothing to write: a version that the API server
    /// has not taken a write upon may be an old one, and a newer one show the address.
    fn give_up_others(&mut self, view: &ServiceView, desired: &[IpAddr]) {
        for address in self.allocator.held(&view.reference) {
            if !desired.contains(&address) && !view.shows(address) {
                self.give_up(&view.reference, address);
            }
        }
    }

    /// Gives up what was never published: beside what another provider wrote into the status it cannot be. The finalizer
    /// comes with the first address; a Service that has it may have shown this one, and gets it back.
    fn give_up_unpublished(&mut self, view: &ServiceView) {
        if view.finalizer.is_some() {
            return;
        }
        for address in self.allocator.held(&view.reference).into_iter().filter(|address| !view.shows(*address)) {
            self.give_up(&view.reference, address);
        }
    }

    /// Gives up what another Service has or shows that may not share it, while this one does not show it yet: the other had
    /// it first, or an edit came between them.
    fn give_way(&mut self, view: &ServiceView) {
        let is_anothers = |address: &IpAddr| {
            self.allocator.also_shown_by(*address, &view.reference).is_some()
                || self.allocator.clash(&view.reference, *address).is_some()
        };
        let unpublished = self.allocator.held(&view.reference).into_iter().filter(|address| !view.shows(*address));
        for address in unpublished.filter(is_anothers).collect::<Vec<_>>() {
            self.give_up(&view.reference, address);
        }
    }

    /// An address was given out: who waits may wait for another reason from now on, and is to say so before a restart
    /// does.
    fn wake_for_other_reasons(&mut self, address: IpAddr) {
        let joined = self.allocator.occupant(address).is_some_and(|o| o.services.len() > 1);
        if joined || self.allocator.was_last(address) {
            return self.mark_waiting();
        }
        let asks = |key: &&ServiceKey| {
            let request = self.services.get(*key).and_then(|view| view.request.as_ref().ok());
            request.is_some_and(|r| r.addresses.values().any(|a| *a == address))
        };
        for key in self.waiting.iter().filter(asks).cloned().collect::<Vec<_>>() {
            self.mark(Subject::Service(key));
        }
    }

    /// The addresses that others of this plan replace because strangers hold them, each in a Warning of its own.
    fn burned(&self, view: &ServiceView, plan: &Plan) -> Vec<EventValue> {
        let event = |address: IpAddr| {
            let other = plan.targets.get(&IpFamily::of(address)).filter(|other| **other != address)?;
            let Standing::Replaced(says) = self.standing(address, view) else { return None };
            let note = format!("{says}. The Service gets {other}; {address} is in quarantine for an hour");
            Some(warning(view, "AddressQuarantined", "Replace", note))
        };
        self.allocator.held(&view.reference).into_iter().filter_map(event).collect()
    }

    /// The address it has of each family: the one asked for, else the one in its status, else the lowest; one that may
    /// stay before one that may not. (It has two while one replaces the other.)
    fn current(&self, view: &ServiceView, held: &[IpAddr], request: &Request) -> BTreeMap<IpFamily, IpAddr> {
        let address_of = |family: &IpFamily| {
            let wanted = request.addresses.get(family).copied();
            let published = view.addresses().find(|a| IpFamily::of(*a) == *family);
            let has = |address: &IpAddr| held.contains(address);
            let of_family = || held.iter().copied().filter(|a| IpFamily::of(*a) == *family);
            let by_choice = || published.filter(has).into_iter().chain(of_family());
            let stays = |address: &IpAddr| self.may_stay(view, *address, wanted, &request.pools);
            let address = wanted.filter(has).or_else(|| by_choice().find(stays)).or_else(|| by_choice().next())?;
            Some((*family, address))
        };
        view.families.iter().filter_map(address_of).collect()
    }

    fn may_stay(&self, view: &ServiceView, address: IpAddr, wanted: Option<IpAddr>, pools: &[String]) -> bool {
        if matches!(self.standing(address, view), Standing::Replaced(_)) {
            return false;
        }
        let from = |pool: &String| self.allocator.occupant(address).is_some_and(|o| o.pool == *pool);
        let is_in = |pool: &String| from(pool) || self.allocator.pool_contains(pool, address);
        match wanted {
            Some(wanted) => wanted == address,
            None => pools.is_empty() || pools.iter().any(is_in),
        }
    }

    /// What becomes of the annotation that names the pools of its addresses.
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

    fn condition(&self, view: &ServiceView, plan: &Plan, desired: &[IpAddr]) -> ConditionValue {
        let from = |address: &IpAddr| match self.allocator.occupant(*address) {
            Some(occupant) => format!("{address} from AddressPool {}", occupant.pool),
            None => address.to_string(),
        };
        let has = desired.iter().map(from).collect::<Vec<_>>().join(", ");
        let refused = plan.refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let outside = |address: &&IpAddr| {
            let occupant = self.allocator.occupant(**address);
            occupant.is_some_and(|o| !self.allocator.pool_contains(&o.pool, **address))
        };
        let pool_is_named = view.request.as_ref().is_ok_and(|request| !request.pools.is_empty());
        let preferred = view.family_policy == FamilyPolicy::Prefer && !desired.is_empty() && !plan.foreign;
        let (status, reason, message) = match plan.refusals.first() {
            None => match desired.iter().find(outside) {
                None => ("True", ASSIGNED, has),
                Some(address) => {
                    let ServiceReference { namespace, name, .. } = &view.reference;
                    let other = self.allocator.first_pool_with(IpFamily::of(*address)).unwrap_or("POOL");
                    let kept = format!(
                        "{has}; {address} is in no AddressPool any more: the Service keeps it, and the advertisements it \
                         has. Put it back into spec.addresses of a pool, or let the Service have one of another: kubectl \
                         -n {namespace} annotate service {name} {ANNOTATION_POOL}={other} --overwrite"
                    );
                    ("True", OUTSIDE_POOL, kept)
                }
            },
            Some(_) if preferred && plan.refusals.iter().all(|refusal| refusal.is_absence(pool_is_named)) => {
                ("True", ASSIGNED, format!("{has}; {refused}"))
            }
            Some(first) if desired.is_empty() => ("False", first.reason(), refused),
            Some(first) => ("False", first.reason(), format!("{refused}; until then the Service keeps {has}")),
        };
        let contested = desired.iter().find_map(|address| match self.standing(*address, view) {
            Standing::Kept { reason, message } => Some((reason, message)),
            Standing::Replaced(message) => Some((reason, message)), // and there is no other
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
            generation: None, // the API server keeps none for Services
            since: None,
        }
    }

    /// What its owner should know beside that.
    fn caveats(&self, view: &ServiceView, desired: &[IpAddr]) -> Vec<Caveat> {
        let clash = |address: &IpAddr| {
            let (other, why) = self.allocator.clash(&view.reference, *address)?;
            let other = format!("{}/{}", other.namespace, other.name);
            Some(Caveat::SharingConflict { address: *address, other, why })
        };
        let reserved = |address: &IpAddr| {
            let by = self.allocator.reservation(*address)?;
            Some(Caveat::ReservedAddress { address: *address, by: by.clone() })
        };
        let shown_twice = |address: &IpAddr| {
            let other = self.allocator.also_shown_by(*address, &view.reference)?;
            Some(Caveat::ShownTwice { address: *address, other: other.clone() })
        };
        let of_addresses = desired.iter().filter_map(clash).chain(desired.iter().filter_map(reserved));
        let of_addresses = of_addresses.chain(desired.iter().filter_map(shown_twice));
        view.caveats.iter().cloned().chain(of_addresses).collect()
    }

    /// Gives back what a Service has that is not, or no longer, to have an address. A Service that never had one of
    /// ours is not touched.
    fn release(&mut self, view: &ServiceView) -> Option<Action> {
        let held = self.allocator.held(&view.reference);
        // Another provider's from now on, by our own flag: our words go first, then the address. (A change of type
        // takes them away by itself; a deleted Service takes them with it.)
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
            // The VirtualIP proves that we served it, so its finalizer is ours to take away.
            if let Some(service) = self.services.get_mut(&view.key()) {
                service.finalizer = service.finalizer.or(Some(FINALIZER_SERVICE_DEFAULT));
            }
        }
        if !held.is_empty() && !view.deleting {
            // Maybe in an old version of it only: it is looked up first, and decided upon again.
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
        // On a Service that Herald never served it is a copy of a manifest's.
        let allocated_from = unless(view.allocated_from.is_none() || view.finalizer.is_none());
        let remove_finalizer = view.finalizer;
        let patch = ServicePatch { ingress, condition, allocated_from, remove_finalizer, ..ServicePatch::default() };
        if patch == ServicePatch::default() {
            return None;
        }
        let deleted = view.finalizer.map(|_| EventValue {
            regarding: Regarding::Service(view.reference.clone()),
            warning: false,
            reason: DELETED,
            action: "Release",
            note: "every address is withdrawn and free again".to_owned(),
        });
        Some(patch_of(view, patch, deleted.into_iter().collect()))
    }

    /// Does a deleted Service of ours still show addresses it gave up, and only those? As long as it does, kube-proxy
    /// serves them under its name: they go to nobody else. (Its type being what it is, the API server does not empty
    /// its status.)
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

/// The field is taken away, unless there is nothing to take away.
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

/// The condition with a sentence for each caveat.
fn with_caveats(mut condition: ConditionValue, caveats: &[Caveat]) -> ConditionValue {
    for caveat in caveats {
        condition.message.push_str(CAVEAT_MARK);
        condition.message.push_str(&caveat.to_string());
    }
    condition
}

fn is_told(view: &ServiceView, caveat: &Caveat) -> bool {
    view.condition.as_ref().is_some_and(|c| c.message.contains(&caveat.to_string()))
}

/// Events follow the condition, which outlives a restart: the same fact is told once.
pub(super) fn events_of(view: &ServiceView, verdict: &ConditionValue, ingress_changes: bool) -> Vec<EventValue> {
    let observed = view.condition.as_ref();
    let without_caveats = observed.cloned().map(|mut condition| {
        let end = condition.message.find(CAVEAT_MARK).unwrap_or(condition.message.len());
        condition.message.truncate(end);
        condition
    });
    let told = verdict.is(without_caveats.as_ref());
    let was = |status: &str| observed.is_some_and(|c| c.status == status);
    if verdict.status == "False" {
        let note = format!("{}: {}", verdict.reason, verdict.message);
        return if told { Vec::new() } else { vec![warning(view, "SyncLoadBalancerFailed", "Assign", note)] };
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
    let contested = contested.filter(|_| !told);
    events.extend(contested.map(|reason| warning(view, reason, "Announce", verdict.message.clone())));
    events
}

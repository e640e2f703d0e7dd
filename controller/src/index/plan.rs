//! The plan of a Service's addresses.

use std::{iter::repeat_n, net::IpAddr};

use herald_crds::{address::IpFamily, names::ANNOTATION_COUNT, service::Request};

use super::{Index, conflict::Standing};
use crate::{
    action::Subject,
    advisory::Advisory,
    allocator::{Asker, Refusal},
    gateway::Obstruction,
    gateway_view::GatewayKey,
    view::{FamilyPolicy, Ingress, ServiceKey, ServiceView},
};

/// The planned addresses of a Service, and the refusals.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The addresses, in the order of the families; within a family, those that the status shows come first, in its
    /// order.
    pub(super) targets: Vec<IpAddr>,
    /// The refused parts of the request.
    pub(super) refusals: Vec<Refusal>,
    /// The families of which the Service gets some addresses, but fewer than it asks for.
    pub(super) short: Vec<Short>,
    /// Whether the status holds another provider's entries: it is not overwritten.
    pub(super) foreign: bool,
    /// Whether the Service's namespace, whose labels decide which pools give an address, has not been seen yet, or its
    /// Gateway, which may ask for an address, has not.
    pub(super) awaits_input: bool,
    /// The Gateway that asks for the requested addresses.
    pub(super) asked_by: Option<GatewayKey>,
    /// The fact about its Gateway's addresses that the owner should know.
    pub(super) caveat: Option<Advisory>,
}

/// Fewer addresses of a family than the Service asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the Service has {has} of the {asked} {family} addresses that annotation {ANNOTATION_COUNT} asks for")]
pub(super) struct Short {
    family: IpFamily,
    has: usize,
    asked: usize,
}

/// The division of the addresses that a Service has of one family.
#[derive(Debug, Default, PartialEq, Eq)]
struct Division {
    /// The addresses that the Service keeps.
    stay: Vec<IpAddr>,
    /// The addresses that others should replace; the Service keeps each as long as there is no other.
    replaceable: Vec<IpAddr>,
    /// The addresses that the Service asks for and does not have.
    missing: Vec<IpAddr>,
    /// The number of further addresses that the Service should have, of any value.
    any: usize,
}

impl Division {
    /// Divides the held addresses, the dearest first, by the request: the addresses `asked`, and `count` in all.
    /// `may_stay` returns whether the Service may keep an address that it does not ask for.
    fn of(held: &[IpAddr], asked: &[IpAddr], count: usize, may_stay: impl Fn(IpAddr) -> bool) -> Self {
        let mut division = Self::default();
        let mut places = count.saturating_sub(asked.len());
        for address in held.iter().copied() {
            if asked.contains(&address) {
                division.stay.push(address);
            } else if places > 0 && may_stay(address) {
                places -= 1;
                division.stay.push(address);
            } else {
                division.replaceable.push(address);
            }
        }
        division.missing = asked.iter().copied().filter(|address| !held.contains(address)).collect();
        division.any = places;
        division
    }
}

impl Index {
    /// Plans the addresses that the Service keeps and gets, and the refusals.
    pub(super) fn plan(&mut self, view: &ServiceView) -> Plan {
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
            plan.targets = self.as_it_is(view);
            return plan;
        }
        let own = view.request.as_ref().map_err(|error| Obstruction::Refused(error.clone().into()));
        let request = match own.and_then(|own| self.combine(view, own)) {
            Ok(combined) => {
                (plan.asked_by, plan.caveat) = (combined.asked_by, combined.caveat);
                combined.request
            }
            Err(Obstruction::Awaited) => {
                plan.awaits_input = true;
                return plan;
            }
            Err(Obstruction::Refused(refusal)) => {
                plan.refusals.push(refusal);
                plan.targets = self.as_it_is(view);
                return plan;
            }
        };
        let unserved = request.addresses.iter().find(|address| !view.families.contains(&IpFamily::of(**address)));
        if let Some(address) = unserved {
            plan.refusals.push(Refusal::FamilyNotServed { address: *address, family: IpFamily::of(*address) });
            plan.targets = self.as_it_is(view);
            return plan;
        }
        let published = view.addresses().any(|address| self.allocator.held(reference).contains(&address));
        let mut fresh = Vec::new();
        for family in &view.families {
            if !self.plan_family(view, &request, *family, &mut plan, &mut fresh) {
                plan.awaits_input = true;
                return plan;
            }
        }
        let has = |family: &IpFamily| plan.targets.iter().any(|address| IpFamily::of(*address) == *family);
        let complete = view.families.iter().all(has);
        if view.family_policy == FamilyPolicy::Require && !complete && !published {
            // The policy requires both families or none, and these addresses have not been published.
            for address in fresh {
                self.allocator.retract(reference, address);
            }
            plan.targets.clear();
            plan.short.clear();
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

    /// Plans the addresses of one family, and adds the new ones to `fresh`. Returns whether the family can be decided:
    /// it cannot while the Service's namespace, whose labels decide which pools give an address, has not been seen.
    fn plan_family(
        &mut self,
        view: &ServiceView,
        request: &Request,
        family: IpFamily,
        plan: &mut Plan,
        fresh: &mut Vec<IpAddr>,
    ) -> bool {
        let asked: Vec<_> = request.addresses.iter().copied().filter(|a| IpFamily::of(*a) == family).collect();
        let may_stay = |address| self.may_stay(view, address, &request.pools);
        let division = Division::of(&self.held_of(view, family), &asked, request.count, may_stay);
        let Division { stay: mut targets, replaceable, missing, any } = division;
        for address in targets.clone() {
            self.count_to_requested_pool(address, &request.pools);
        }
        let mut lacking = 0;
        for wanted in missing.into_iter().map(Some).chain(repeat_n(None, any)) {
            let Some(namespace_labels) = self.namespaces.get(&view.reference.namespace) else { return false };
            let asker = Asker {
                service: &view.reference,
                service_labels: &view.labels,
                namespace_labels,
                family,
                pools: &request.pools,
                contested: &self.contested,
            };
            match self.allocator.assign(&asker, wanted) {
                Ok(address) => {
                    fresh.push(address);
                    targets.push(address);
                }
                Err(refusal) => {
                    lacking += 1;
                    if !plan.refusals.contains(&refusal) {
                        plan.refusals.push(refusal);
                    }
                }
            }
        }
        targets.extend(replaceable.into_iter().take(lacking));
        if !targets.is_empty() && targets.len() < request.count {
            plan.short.push(Short { family, has: targets.len(), asked: request.count });
        }
        // Addresses that the Service names are published in that order, even after a restart, which forgets the order
        // of planning.
        let named = |address: &IpAddr| asked.iter().position(|one| one == address).unwrap_or(usize::MAX);
        targets.sort_by_key(|address| (position(view, *address), named(address)));
        plan.targets.extend(targets);
        true
    }

    /// Returns the addresses of a family that the Service has: first those that the status shows, in that order.
    fn held_of(&self, view: &ServiceView, family: IpFamily) -> Vec<IpAddr> {
        let held = self.allocator.held(&view.reference).into_iter();
        let mut held: Vec<_> = held.filter(|address| IpFamily::of(*address) == family).collect();
        held.sort_by_key(|address| (position(view, *address), *address));
        held
    }

    /// Returns the addresses to keep while the request cannot be read or met: those that the Service has. One planned
    /// address is kept of a family that the status does not show. An address that may stay comes before one that should
    /// be replaced.
    fn as_it_is(&self, view: &ServiceView) -> Vec<IpAddr> {
        let of_family = |family: &IpFamily| {
            let held = self.held_of(view, *family);
            let count = held.iter().filter(|address| view.shows(**address)).count().max(1);
            let Division { stay, replaceable, .. } =
                Division::of(&held, &[], count, |address| self.may_stay(view, address, &[]));
            let mut targets: Vec<_> = stay.into_iter().chain(replaceable).take(count).collect();
            targets.sort_by_key(|address| position(view, *address));
            targets
        };
        view.families.iter().flat_map(of_family).collect()
    }

    /// Returns whether the Service may keep an address that it has and does not ask for.
    fn may_stay(&self, view: &ServiceView, address: IpAddr, pools: &[String]) -> bool {
        let from = |pool: &String| self.allocator.occupant(address).is_some_and(|o| o.pool == *pool);
        let is_in = |pool: &String| from(pool) || self.allocator.pool_contains(pool, address);
        !matches!(self.standing(address, view), Standing::Replaced(_)) && (pools.is_empty() || pools.iter().any(is_in))
    }

    /// Makes an address count to a requested pool that holds it. An address that counts to another pool moves, unless a
    /// Service that has the address asks for that pool.
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

    /// Gives up addresses that were never published, because they cannot be published next to another provider's
    /// entries in the status. The finalizer comes with the first address: a Service that has the finalizer may have
    /// shown this address, and gets it back.
    fn give_up_unpublished(&mut self, view: &ServiceView) {
        if view.finalizer.is_some() {
            return;
        }
        for address in self.allocator.held(&view.reference).into_iter().filter(|address| !view.shows(*address)) {
            self.give_up(&view.reference, address);
        }
    }

    /// Gives up addresses that this Service does not show yet and that another Service has or shows and may not share:
    /// the other had the address first, or an edit came between them.
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

    /// Wakes the waiting Services whose reason to wait may change because an address was given out, so that their
    /// conditions do not change only after a restart.
    fn wake_for_other_reasons(&mut self, address: IpAddr) {
        let joined = self.allocator.occupant(address).is_some_and(|o| o.services.len() > 1);
        if joined || self.allocator.was_last(address) {
            return self.mark_waiting();
        }
        let asks = |key: &&ServiceKey| self.services.get(*key).is_some_and(|view| self.asks_for(view, address));
        for key in self.waiting.iter().filter(asks).cloned().collect::<Vec<_>>() {
            self.mark(Subject::Service(key));
        }
    }
}

/// Returns the position of an address in the status of a Service; addresses that the status does not show come last.
fn position(view: &ServiceView, address: IpAddr) -> usize {
    view.addresses().position(|shown| shown == address).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    fn addresses(text: &str) -> Vec<IpAddr> {
        text.split_whitespace().map(|last| format!("192.0.2.{last}").parse().unwrap()).collect()
    }

    /// Each case holds the held addresses (those that may not stay with an exclamation mark), the requested ones and
    /// their number; then the staying, the replaceable and the missing addresses, and the number of further ones.
    #[test_case("", "", 1 => ("".into(), "".into(), "".into(), 1); "new")]
    #[test_case("1", "", 1 => ("1".into(), "".into(), "".into(), 0); "at rest")]
    #[test_case("1!", "", 1 => ("".into(), "1".into(), "".into(), 1); "address that may not stay")]
    #[test_case("1! 2", "", 1 => ("2".into(), "1".into(), "".into(), 0); "replacement is there")]
    #[test_case("1", "2", 1 => ("".into(), "1".into(), "2".into(), 0); "another is asked for")]
    #[test_case("1! 2", "1", 1 => ("1".into(), "2".into(), "".into(), 0); "requested address stays in any case")]
    #[test_case("3", "", 3 => ("3".into(), "".into(), "".into(), 2); "more")]
    #[test_case("3 1 2", "", 2 => ("3 1".into(), "2".into(), "".into(), 0); "fewer: the last goes")]
    #[test_case("3 1! 2", "", 2 => ("3 2".into(), "1".into(), "".into(), 0); "fewer, and one may not stay")]
    #[test_case("3 1 2", "9", 3 => ("3 1".into(), "2".into(), "9".into(), 0); "one of several is asked for")]
    #[test_case("3 1 2", "2 9", 2 => ("2".into(), "3 1".into(), "9".into(), 0); "all are asked for")]
    fn addresses_are_divided_by_the_request(held: &str, asked: &str, count: usize) -> (String, String, String, usize) {
        let unfit: Vec<_> = held.split_whitespace().filter_map(|text| text.strip_suffix('!')).collect();
        let unfit = addresses(&unfit.join(" "));
        let may_stay = |address| !unfit.contains(&address);
        let division = Division::of(&addresses(&held.replace('!', "")), &addresses(asked), count, may_stay);
        let last = |list: &[IpAddr]| {
            let all: Vec<_> = list.iter().map(|address| address.to_string().replace("192.0.2.", "")).collect();
            all.join(" ")
        };
        (last(&division.stay), last(&division.replaceable), last(&division.missing), division.any)
    }
}

//! VirtualIPs: their creation, spec and withdrawal.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use herald_crds::{
    VirtualIP, VirtualIPSpec,
    address::IpFamily,
    names::{FINALIZER_WITHDRAWAL, LABEL_ADOPTED, LABEL_SERVICE_NAME, LABEL_SERVICE_NAMESPACE, LABEL_SERVICE_SUFFIX},
    virtual_ip::{AdvertisementRule, ServiceReference, TrafficPolicy, names_of},
};
use k8s_openapi::jiff::Timestamp;

use super::{
    Index, Kind, NameAndUid, address_of, address_of_name, creation_dates::Dated, held_vip::held_by,
    speakers::SILENT_AFTER, uid, unkept::Unkept,
};
use crate::{
    action::{Action, Announcement, EventValue, Regarding, Subject},
    advertisement_rules::{self, Advertised, AdvertisedPool, Selection},
    placement::{self, Candidate},
    view::{ServiceKey, ServiceView},
};

/// Time that a deleted VirtualIP waits for its announcer to report that it fell silent. It is far above the time that a
/// living speaker takes (a watch event and a write); a hung one must not hold addresses and namespaces for ever.
const WITHDRAWAL_LIMIT: Duration = Duration::from_secs(10);
/// Reason of the event about a VirtualIP that speakers may take for an earlier one.
pub(crate) const MISDATED: &str = "VirtualIPMisdated";

#[derive(Clone, Debug)]
pub(super) struct VirtualIpEntry {
    pub(super) vip: VirtualIP,
    /// The present concern, and the time of its beginning.
    pub(super) concern: Option<(Concern, Duration)>,
    /// The announcement whose status was corrected. An announcement is corrected once, so that two programs never write
    /// against each other.
    pub(super) corrected: Option<Announcement>,
    /// The last spec written, where the API server kept another.
    pub(super) unkept: Option<Box<Unkept>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Concern {
    /// The VirtualIP is deleted and its announcer has not fallen silent.
    Deleted,
    /// The node in its status is lost.
    Lost(Announcement),
    /// The speaker of the node in its status is not Ready, and is not covered.
    Unanswered(Announcement),
    /// No node announces the address.
    Nobody,
}

/// The rules of a VirtualIP that is gone. The next one of the same address and Services has them: a person may have
/// deleted the first, while its rules came from a pool that is gone, or from an advertisement that is no longer accepted.
#[derive(Clone, Debug)]
pub(super) struct FormerAdvertisements {
    rules: Vec<AdvertisementRule>,
    by_pool: String,
}

impl FormerAdvertisements {
    fn of(spec: VirtualIPSpec) -> Self {
        Self { by_pool: advertised_by(&spec).clone(), rules: spec.advertisements }
    }
}

/// Returns the pool by which the advertisements of a VirtualIP were chosen.
fn advertised_by(spec: &VirtualIPSpec) -> &String {
    spec.advertised_by.as_ref().unwrap_or(&spec.pool)
}

impl VirtualIpEntry {
    pub(super) fn name(&self) -> &str {
        self.vip.metadata.name.as_deref().unwrap_or_default()
    }

    pub(super) fn uid(&self) -> &str {
        uid(&self.vip)
    }

    /// Returns whether this spec has been written, and the observed one is what the API server kept of it.
    fn is_unkept(&self, spec: &VirtualIPSpec) -> bool {
        self.unkept.as_ref().is_some_and(|unkept| unkept.covers(spec, &self.vip.spec))
    }

    pub(super) fn deleting(&self) -> bool {
        self.vip.metadata.deletion_timestamp.is_some()
    }

    fn finalizers(&self) -> &[String] {
        self.vip.metadata.finalizers.as_deref().unwrap_or_default()
    }

    pub(super) fn announcer(&self) -> Option<&str> {
        self.vip.status.as_ref()?.node.as_deref()
    }

    /// Returns the announcement that the status reports.
    pub(super) fn announcement(&self) -> Option<Announcement> {
        let status = self.vip.status.as_ref()?;
        Some(Announcement { node: status.node.clone()?, since: status.since.clone() })
    }

    fn regarding(&self) -> Regarding {
        let (name, uid) = (self.name().to_owned(), self.uid().to_owned());
        Regarding::Object { kind: Kind::VirtualIp.as_str(), name, uid }
    }

    pub(super) fn resource_version(&self) -> String {
        self.vip.metadata.resource_version.clone().unwrap_or_default()
    }
}

/// Returns the label by which a selector finds the VirtualIPs of a Service, also of one that shares an address.
fn label_of(service: &ServiceReference) -> String {
    format!("{}{LABEL_SERVICE_SUFFIX}/{}", service.namespace, service.name)
}

/// Returns the changes of our labels: labels of Services that are no longer served are removed.
fn label_changes(
    observed: Option<&BTreeMap<String, String>>,
    desired: BTreeMap<String, String>,
) -> BTreeMap<String, Option<String>> {
    let names_a_service =
        |label: &String| label.split_once('/').is_some_and(|(prefix, _)| prefix.ends_with(LABEL_SERVICE_SUFFIX));
    let stale = observed.into_iter().flatten().map(|(label, _)| label).filter(|label| names_a_service(label));
    let stale = stale.filter(|label| !desired.contains_key(*label)).map(|label| (label.clone(), None));
    let mut changes: BTreeMap<_, _> = stale.collect();
    let is_there = |(label, value): &(String, String)| observed.and_then(|all| all.get(label)) == Some(value);
    changes.extend(desired.into_iter().filter(|label| !is_there(label)).map(|(label, value)| (label, Some(value))));
    changes
}

impl Index {
    pub(super) fn apply_vip(&mut self, vip: VirtualIP) {
        let Some(address) = address_of(&vip) else { return self.apply_stray(vip) };
        let old = self.vips.get(&address).filter(|e| e.uid() == uid(&vip));
        let version = |v: &VirtualIP| v.metadata.resource_version.clone();
        if old.is_some_and(|o| self.is_outdated(version(&vip).as_deref(), version(&o.vip).as_deref())) {
            return;
        }
        let (concern, corrected, unkept) =
            old.map(|o| (o.concern.clone(), o.corrected.clone(), o.unkept.clone())).unwrap_or_default();
        let unannounced = old.is_some_and(|o| !o.was_announced());
        let before = old.map(|o| o.vip.spec.services.clone());
        let was_held_by = old.and_then(|o| held_by(&o.vip));
        if before.as_ref() != Some(&vip.spec.services) {
            let displaced = self.allocator.seize(address, &vip.spec.pool, &vip.spec.services);
            // Services removed from the spec may wait for this.
            let left = before.iter().flatten().filter(|s| !vip.spec.services.contains(s));
            for service in displaced.iter().chain(&vip.spec.services).chain(left) {
                self.mark_service(service);
            }
            self.mark_pools();
        }
        let date = vip.metadata.creation_timestamp.as_ref().map(|at| at.0.as_second());
        self.creation_dates.observe(address, uid(&vip), date.unwrap_or_default());
        self.former_advertisements.remove(&address);
        if was_held_by != held_by(&vip) {
            for service in &vip.spec.services {
                self.mark_service(service);
            }
        }
        let entry = VirtualIpEntry { vip, concern, corrected, unkept };
        if unannounced && entry.was_announced() {
            // The date no longer matters, so the Services that waited for a later one go on.
            for service in &entry.vip.spec.services {
                self.mark_service(service);
            }
        }
        self.vips.insert(address, entry);
        self.note_holder(address);
        self.mark(Subject::VirtualIp(address));
    }

    pub(super) fn delete_vip(&mut self, gone: &NameAndUid) {
        let is_gone = |vip: &VirtualIP| vip.metadata.uid == gone.uid;
        if let Some(address) = address_of_name(&gone.name)
            && self.vips.get(&address).is_some_and(|entry| is_gone(&entry.vip))
        {
            let gone = self.vips.remove(&address);
            self.contested.remove(&address);
            if self.leading {
                self.former_advertisements
                    .extend(gone.map(|entry| (address, FormerAdvertisements::of(entry.vip.spec))));
            }
            self.mark(Subject::VirtualIp(address));
        } else if self.strays.get(&gone.name).is_some_and(is_gone) {
            self.forget_stray(&gone.name);
        }
    }

    pub(super) fn decide_vip(&mut self, address: IpAddr, now: Duration) -> Option<Action> {
        self.part(address);
        if self.vips.get(&address).is_some_and(VirtualIpEntry::deleting) {
            return self.withdraw(address, now);
        }
        if let Some(question) = self.look_up(address, now) {
            return Some(question);
        }
        let wanted = self.allocator.occupant(address).is_some_and(|o| !o.services.is_empty());
        let Some(entry) = self.vips.get(&address) else {
            self.creation_dates.gone(now, address);
            let due = self.creation_dates.next(now, address);
            if wanted && now < due {
                self.queue.mark_at(due, Subject::VirtualIp(address));
                return None;
            }
            if wanted {
                let (mut labels, spec) = self.desired(address, None, now)?;
                let shows = |s| self.service(s).is_some_and(|view| view.shows(address));
                if spec.services.iter().any(shows) {
                    labels.insert(LABEL_ADOPTED.to_owned(), "true".to_owned());
                }
                self.homes_under_way.extend(spec.home_node.clone().map(|home| (address, home)));
                return Some(Action::CreateVirtualIp { address, labels, spec: Box::new(spec) });
            }
            self.free(address);
            return None;
        };
        if !wanted {
            return Some(Action::DeleteVirtualIp { address, uid: entry.uid().to_owned(), misdated: None });
        }
        match self.dated(address) {
            Dated::Later => {}
            Dated::TooEarly { until } if now < until => self.queue.mark_at(until, Subject::VirtualIp(address)),
            Dated::TooEarly { .. } => {
                let misdated = entry.vip.metadata.creation_timestamp.as_ref().map(|at| at.0);
                return Some(Action::DeleteVirtualIp { address, uid: entry.uid().to_owned(), misdated });
            }
            Dated::FarTooEarly { date, before } => self.tell_misdated(address, date, before, now),
        }
        let entry = self.vips.get(&address)?;
        let (labels, spec) = self.desired(address, Some(entry), now)?;
        let labels = label_changes(entry.vip.metadata.labels.as_ref(), labels);
        if !labels.is_empty() || (spec != entry.vip.spec && !entry.is_unkept(&spec)) {
            let resource_version = entry.resource_version();
            return Some(Action::UpdateVirtualIpSpec { address, resource_version, labels, spec: Box::new(spec) });
        }
        self.correct(address, now)
    }

    /// Returns whether speakers take the VirtualIP of an address for a new one. They do once they announce it.
    pub(super) fn dated(&self, address: IpAddr) -> Dated {
        match self.vips.get(&address) {
            Some(entry) if !entry.was_announced() => self.creation_dates.dated(address),
            _ => Dated::Later,
        }
    }

    /// Reports to the Services of an address, once, that no node announces it because of its date.
    fn tell_misdated(&mut self, address: IpAddr, date: Timestamp, before: Timestamp, now: Duration) {
        let Some(entry) = self.vips.get(&address) else { return };
        let name = entry.name().to_owned();
        for service in entry.vip.spec.services.clone() {
            let note = format!(
                "no node announces {address}: the API server dated VirtualIP {name} {date}, and an earlier one of the \
                 address {before}, so speakers take it for a deleted one: set the clocks of the control plane (NTP), \
                 then kubectl delete vip {name}"
            );
            let regarding = Regarding::Service(service);
            let event = EventValue { regarding, warning: true, reason: MISDATED, action: "Announce", note };
            if self.told.tell(now, &event) {
                self.events.push_back(event);
            }
        }
    }

    /// Parts leaving Services from an address that others keep: each is done once the VirtualIP does not name it and
    /// its own status does not show the address.
    fn part(&mut self, address: IpAddr) {
        let Some(occupant) = self.allocator.occupant(address).filter(|o| !o.services.is_empty()) else { return };
        let unnamed: Vec<_> = occupant.leaving.iter().filter(|s| !self.vip_serves(address, s)).cloned().collect();
        for service in unnamed {
            self.mark_service(&service);
            if self.service(&service).is_none_or(|view| !self.still_shows(view)) {
                self.allocator.forget_leaving(&service, address);
                self.mark_waiting();
            }
        }
    }

    pub(super) fn service(&self, reference: &ServiceReference) -> Option<&ServiceView> {
        let key = ServiceKey { namespace: reference.namespace.clone(), name: reference.name.clone() };
        self.services.get(&key).filter(|view| view.reference == *reference)
    }

    /// Frees an address whose VirtualIP is gone: it may be given out again, once the statuses of the Services that gave
    /// it up no longer show it. Wakes these Services and the waiting ones.
    fn free(&mut self, address: IpAddr) {
        let Some(occupant) = self.allocator.occupant(address) else { return };
        let leaving: Vec<_> = occupant.leaving.iter().cloned().collect();
        let shown = leaving.iter().any(|s| self.service(s).is_some_and(|view| self.still_shows(view)));
        for service in leaving {
            self.mark_service(&service);
        }
        if shown {
            return; // the next version of the Service asks again
        }
        self.allocator.free(address);
        self.refused_writes.remove(&address);
        self.former_advertisements.remove(&address);
        self.queue.forget(&Subject::VirtualIp(address));
        self.mark_waiting();
        self.mark_pools();
    }

    /// Returns the desired labels and spec; `None` where no Service has the address.
    fn desired(
        &self,
        address: IpAddr,
        entry: Option<&VirtualIpEntry>,
        now: Duration,
    ) -> Option<(BTreeMap<String, String>, VirtualIPSpec)> {
        let occupant = self.allocator.occupant(address)?;
        // A doubtful Service is not added, and is not removed before it was looked up.
        let names = |service: &&ServiceReference| entry.is_some_and(|entry| entry.vip.spec.services.contains(service));
        let is_sure = |service: &ServiceReference| !self.is_doubtful(service) && !self.is_unproved(service, address);
        let stays = |service: &&ServiceReference| names(service) || is_sure(service);
        let services: Vec<ServiceReference> = occupant.services.iter().filter(stays).cloned().collect();
        let views: Vec<&ServiceView> = services.iter().filter_map(|s| self.service(s)).collect();
        let first = views.first()?;
        let mut labels = BTreeMap::from([
            (LABEL_SERVICE_NAMESPACE.to_owned(), first.reference.namespace.clone()),
            (LABEL_SERVICE_NAME.to_owned(), first.reference.name.clone()),
        ]);
        labels.extend(services.iter().map(|service| (label_of(service), String::new())));
        let local = views.iter().find(|v| v.external_traffic_policy == TrafficPolicy::Local);
        let unlabelled = BTreeMap::new();
        let service_labels: Vec<_> = views.iter().map(|v| &v.labels).collect();
        let pool = |name| {
            let labels = self.pools.get(name).map(|entry| entry.pool.metadata.labels.as_ref().unwrap_or(&unlabelled));
            AdvertisedPool { name, labels }
        };
        let held_by: Vec<_> = self.allocator.pools_of(address).map(pool).collect();
        let of = Advertised {
            pool: pool(&occupant.pool),
            held_by: &held_by,
            had: match entry {
                Some(entry) => {
                    let spec = &entry.vip.spec;
                    Some((spec.advertisements.as_slice(), pool(advertised_by(spec))))
                }
                None => {
                    let former = self.former_advertisements.get(&address);
                    former.map(|former| (former.rules.as_slice(), pool(&former.by_pool)))
                }
            },
            service_labels: &service_labels,
        };
        let selection = advertisement_rules::select(self.advertisements.iter().map(|(name, a)| (name, &a.spec)), of);
        let Selection { rules: advertisements, by_pool: advertised_by } = selection;
        let home_node = match entry {
            // The home is set once. It changes only when the node has left the cluster.
            Some(entry) => match &entry.vip.spec.home_node {
                Some(node) if !self.nodes.contains_key(node) => {
                    self.new_home(address, &advertisements, Some(entry), now)
                }
                home => home.clone(),
            },
            None => self.new_home(address, &advertisements, None, now),
        };
        let spec = VirtualIPSpec {
            address: address.to_string(),
            pool: occupant.pool.clone(),
            service_names: names_of(&services),
            services,
            external_traffic_policy: local.map_or(TrafficPolicy::Cluster, |_| TrafficPolicy::Local),
            health_check_node_port: local.and_then(|v| v.health_check_node_port),
            advertisements,
            advertised_by,
            home_node,
        };
        Some((labels, spec))
    }

    /// Returns the node that announces the address already, else the best placed one; `None` where no node is known to
    /// reach it, which leaves the choice to the speakers.
    fn new_home(
        &self,
        address: IpAddr,
        rules: &[AdvertisementRule],
        entry: Option<&VirtualIpEntry>,
        now: Duration,
    ) -> Option<String> {
        let announcer = entry.and_then(VirtualIpEntry::announcer);
        if let Some(node) = announcer.filter(|node| self.nodes.contains_key(*node)) {
            return Some(node.to_owned());
        }
        self.place(address, rules, now).ok()
    }

    pub(super) fn place(
        &self,
        address: IpAddr,
        rules: &[AdvertisementRule],
        now: Duration,
    ) -> Result<String, placement::NoCandidate> {
        // A SpeakerStatus outlives its speaker.
        let has_pod = |node: &str| self.speaker_pods.absent_since(node).is_none_or(|since| now < since + SILENT_AFTER);
        let others = self.vips.iter().filter(|(a, e)| **a != address && !e.deleting());
        let observed = others.map(|(_, e)| e.announcer().or(e.vip.spec.home_node.as_deref()));
        let under_way = self.homes_under_way.values().map(|home| Some(home.as_str()));
        let counts = placement::counts(observed.chain(under_way));
        let siblings = self.siblings(address);
        let siblings = placement::counts(siblings.iter().map(|sibling| self.home_or_announcer(sibling)));
        let of = |counts: &BTreeMap<&str, usize>, node: &str| counts.get(node).copied().unwrap_or(0);
        let candidates = self.nodes.iter().map(|(name, node)| Candidate {
            name,
            node,
            segments: self.speakers.get(name).filter(|_| has_pod(name)).map(|entry| entry.view.segments.as_slice()),
            addresses: of(&counts, name),
            siblings: of(&siblings, name),
        });
        placement::home(address, rules, candidates).map(str::to_owned)
    }

    /// Returns the other addresses of this family that its Services have.
    fn siblings(&self, address: IpAddr) -> BTreeSet<IpAddr> {
        let services = self.allocator.occupant(address).into_iter().flat_map(|occupant| &occupant.services);
        let held = services.flat_map(|service| self.allocator.held(service));
        held.filter(|other| *other != address && IpFamily::of(*other) == IpFamily::of(address)).collect()
    }

    fn home_or_announcer(&self, address: &IpAddr) -> Option<&str> {
        let entry = self.vips.get(address).filter(|entry| !entry.deleting());
        let known = entry.and_then(|entry| entry.announcer().or(entry.vip.spec.home_node.as_deref()));
        known.or_else(|| self.homes_under_way.get(address).map(String::as_str))
    }

    /// Releases a deleted VirtualIP once no node answers for it.
    fn withdraw(&mut self, address: IpAddr, now: Duration) -> Option<Action> {
        let entry = self.vips.get(&address)?;
        if !entry.finalizers().iter().any(|f| f == FINALIZER_WITHDRAWAL) {
            self.tell_held(address, now);
            return None; // its deletion is on its way
        }
        let silent = entry.vip.is_withdrawn()
            || entry.announcer().is_none_or(|node| self.nodes.get(node).is_none_or(|node| !node.ready));
        if !silent {
            let since = self.concerned(address, Concern::Deleted, now);
            let limit = since + WITHDRAWAL_LIMIT;
            if now < limit {
                self.queue.mark_at(limit, Subject::VirtualIp(address));
                return None;
            }
        }
        let entry = self.vips.get(&address)?;
        let mut events = Vec::new();
        if !silent {
            let node = entry.announcer().unwrap_or_default();
            let note = format!(
                "the speaker of node {node} has not reported within {} s that it withdrew {address}; the address is \
                 given out again: see the speaker's log, and kubectl get speakerstatus {node}",
                WITHDRAWAL_LIMIT.as_secs()
            );
            let event = EventValue {
                regarding: entry.regarding(),
                warning: true,
                reason: "WithdrawalTimedOut",
                action: "Withdraw",
                note,
            };
            events.push(event);
        }
        Some(Action::RemoveVirtualIpFinalizer {
            address,
            resource_version: entry.resource_version(),
            remaining: entry.finalizers().iter().filter(|f| *f != FINALIZER_WITHDRAWAL).cloned().collect(),
            events,
        })
    }

    /// Returns the time since which this is the concern of the address.
    pub(super) fn concerned(&mut self, address: IpAddr, concern: Concern, now: Duration) -> Duration {
        let Some(entry) = self.vips.get_mut(&address) else { return now };
        match &entry.concern {
            Some((held, since)) if *held == concern => *since,
            _ => {
                entry.concern = Some((concern, now));
                now
            }
        }
    }
}

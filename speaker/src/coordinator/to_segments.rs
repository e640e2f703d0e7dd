//! The way to the segments of this node: which segments there are, and the facts that each receives.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use herald_protocol::{
    Config as SegmentConfig, Engine, Input as SegmentInput,
    api_view::{self, ExpectedPeer},
    mac::MacAddr,
    node::{Incarnation, NodeName},
    twins::Role,
    wire::FrameLimit,
};

use super::{
    ActiveSegment, ClusterKeys, Coordinator, Now, Output, SocketFailure,
    address_state::{Outage, OutageCause},
    vip_status,
};
use crate::{
    api_objects::Vip,
    interfaces::{self, LocalSegment},
    rank::{self, Ranking},
};

/// Number of Hello intervals for which a segment that is joined does not receive the nodes that the API lists there, while
/// the list lacks the SpeakerStatus of a Node. A segment that knows all nodes has joined as soon as it has heard these: a
/// list that lacks some would end the join barrier before they are heard. Where nobody is heard, the list still comes
/// before the barrier ends by itself, after ten intervals.
const INTERVALS_WITHOUT_STATIONS: u32 = 5;

impl Coordinator {
    /// Updates the segments after the interfaces or the keys have changed.
    pub(super) fn update_segments(&mut self, now: Now) {
        let (Some(interfaces), Some(_)) = (&self.interfaces, &self.keys) else { return };
        let mut present = interfaces.segments.clone();
        // SpeakerStatus reports the role of each interface.
        self.speaker_changed = true;
        self.decide_roles(now);
        self.unite(&mut present);
        let indices: BTreeSet<u32> = present.iter().map(|segment| segment.index).collect();
        let before: BTreeSet<u32> = self.segments.keys().copied().collect();
        if indices != before {
            self.outputs.push_back(Output::Segments(indices.clone()));
        }
        for gone in before.difference(&indices) {
            self.leave(now, *gone, OutageCause::Unusable);
        }
        for segment in present {
            let carrier = segment.carrier;
            match self.segments.get_mut(&segment.index) {
                Some(local) => {
                    let index = segment.index;
                    let changed = local.interface.carrier != carrier;
                    update(now, local, segment);
                    if changed {
                        self.carrier_changed(now, index, carrier);
                    }
                    self.take_role(now, index);
                }
                None => self.join(now, segment),
            }
        }
        self.tell_siblings(now);
        self.update_stations(now);
        self.evaluate_all(now);
    }

    pub(super) fn join(&mut self, now: Now, interface: LocalSegment) {
        let Some(keys) = self.keys.as_ref().map(ClusterKeys::keyring) else { return };
        let node = NodeName::new(&self.config.node);
        let incarnation = Incarnation(self.rng.u64(..));
        let config = SegmentConfig {
            address: interface.segment.address,
            timers: self.config.timers,
            pace: self.config.announcing.pace,
            first_claim_probe: self.config.announcing.first_claim_probe,
            seed: self.rng.u64(..),
            ..SegmentConfig::new(node, incarnation, interface.segment.mac)
        };
        let left = self.remembered.remove(&interface.segment.interface.name);
        // The claims of an interface that yields belong to the other interface.
        let left = left.filter(|_| !matches!(self.twins.role(interface.index), Role::Yields(_)));
        let restored = left.map(|(mut saved, same_boot)| {
            // The interface may have been away for long.
            saved.claims.retain(|claim| !self.is_gone(claim.address));
            (saved, same_boot)
        });
        let mut machine = Engine::new(now.monotonic, config, keys, restored);
        machine.handle(now.monotonic, SegmentInput::FrameLimit(FrameLimit::of_mtu(interface.mtu)));
        if let Some(neighbours) = self.neighbours.get(&interface.index) {
            machine.handle(now.monotonic, SegmentInput::Neighbours(Arc::clone(neighbours)));
        }
        let speaks = self.twins.role(interface.index) == Role::Speaks;
        if !(interface.carrier && speaks) {
            machine.handle(now.monotonic, SegmentInput::Carrier(false));
        }
        if let Some(kind) = self.stopping {
            machine.handle(now.monotonic, SegmentInput::Shutdown(kind));
        }
        self.segments.insert(interface.index, ActiveSegment::new(interface, machine, speaks));
        // The new segment has not received the time as of which the view is current.
        self.current_as_of = None;
    }

    /// Joins the segment with a new incarnation, which knows the claims of the one before it.
    pub(super) fn join_anew(&mut self, now: Now, index: u32) {
        let Some(local) = self.segments.get(&index) else { return };
        let (interface, neighbours) = (local.interface.clone(), self.neighbours.get(&index).cloned());
        self.leave(now, index, OutageCause::Unusable);
        self.neighbours.extend(neighbours.map(|neighbours| (index, neighbours)));
        self.join(now, interface);
        self.tell_siblings(now);
        self.update_stations(now);
        self.evaluate_all(now);
    }

    /// Removes an interface that is gone, with all that was announced there. The interface's claims are resumed when it
    /// is back.
    pub(super) fn leave(&mut self, now: Now, index: u32, why: OutageCause) {
        let Some(local) = self.segments.remove(&index) else { return };
        let interface = local.interface.segment.interface.name;
        self.neighbours.remove(&index);
        self.remembered.insert(interface.clone(), (local.engine.saved_state(), true));
        let outage = Outage { interface, why, since: now.monotonic };
        for duty in self.duties.values_mut().filter(|duty| duty.is_owned_on(index)) {
            duty.owned = None;
            duty.begin_outage(outage.clone());
        }
    }

    /// Begins or ends the outages of an interface whose carrier has gone or come.
    fn carrier_changed(&mut self, now: Now, index: u32, carrier: bool) {
        let Some(local) = self.segments.get(&index) else { return };
        let interface = local.interface.segment.interface.name.clone();
        let outage = Outage { interface, why: OutageCause::NoCarrier, since: now.monotonic };
        for (address, duty) in self.duties.iter_mut().filter(|(_, duty)| duty.is_owned_on(index)) {
            if carrier {
                duty.end_outage();
                self.unreported.insert(*address);
            } else {
                duty.begin_outage(outage.clone());
            }
        }
    }

    /// Hands each segment the nodes that the API lists there.
    pub(super) fn update_stations(&mut self, now: Now) {
        if !self.cluster.speakers.counted().is_listed() {
            return;
        }
        let lacks_some = self.cluster.lacks_statuses(&self.config.node);
        let hold = self.config.timers.interval(self.cluster.nodes.iter().len()) * INTERVALS_WITHOUT_STATIONS;
        for local in self.segments.values_mut() {
            if lacks_some && local.holds_stations(now.monotonic, hold) {
                continue;
            }
            let here = &local.interface.segment;
            let others = self.cluster.speakers.counted().iter().filter(|speaker| speaker.node != self.config.node);
            let station = |speaker: &crate::api_objects::Speaker| {
                let segment = speaker.segments.iter().find(|segment| segment.meets(here))?;
                Some(ExpectedPeer { node: NodeName::new(&speaker.node), mac: segment.mac, address: segment.address? })
            };
            let stations: Arc<[ExpectedPeer]> = others.filter_map(station).collect();
            if local.stations.as_ref() != Some(&stations) {
                local.stations = Some(Arc::clone(&stations));
                local.engine.handle(now.monotonic, SegmentInput::Stations(stations));
            }
        }
    }

    /// Returns the interface of this node on which an address lies. If it lies equally on several, the function prefers
    /// an interface on which another node is heard, and among these the one where it lies now.
    fn interface_of(&self, vip: &Vip, view: rank::View<'_>) -> Option<&str> {
        let node = self.cluster.nodes.get(&self.config.node);
        let speaking = self.segments.iter().filter(|(index, local)| local.speaks && !self.twins.is_deaf(**index));
        let segments = speaking.clone().map(|(_, local)| &local.interface.segment);
        let first = rank::segment_of(vip, view, node, segments)?;
        let name = &first.interface.name;
        if first.interface.longest_match(vip.address).is_none() || speaking.clone().nth(1).is_none() {
            return Some(name);
        }
        let fit = rank::fit(vip, view, node, first);
        let fits = |local: &ActiveSegment| rank::fit(vip, view, node, &local.interface.segment) == fit;
        let mut equal: Vec<(u32, &ActiveSegment)> =
            speaking.filter(|(_, local)| fits(local)).map(|(index, local)| (*index, local)).collect();
        equal.sort_by_key(|(_, local)| {
            (&local.interface.segment.interface.name != name, &local.interface.segment.interface.name)
        });
        let now_on = equal.iter().find(|(_, local)| local.has(vip.address)).map(|(index, _)| *index);
        let indices: Vec<u32> = equal.iter().map(|(index, _)| *index).collect();
        let chosen = self.twins.choose(&indices, now_on);
        let chosen = equal.iter().find(|(index, _)| Some(*index) == chosen);
        Some(chosen.map_or(name, |(_, local)| &local.interface.segment.interface.name))
    }

    /// Hands the segments the nodes that may announce an address.
    pub(super) fn tell_candidates(&mut self, now: Now, vip: &Vip) {
        let unsynced = self.gate.is_waiting(vip.address).then_some(self.config.node.as_str());
        let view = self.cluster.view(unsynced);
        let ranking = rank::rank(vip, view, &mut self.scores);
        let mine = self.interface_of(vip, view).map(str::to_owned);
        let id_of = |name: &String| match self.cluster.nodes.get(name) {
            Some(node) => node.id,
            None => NodeName::new(name).id(),
        };
        let announced_by = vip.status.node.as_ref().map(id_of);
        let given_up = vip_status::given_up(&vip.status, id_of);
        let held_here = self.own_addresses().any(|address| address == vip.address);
        let first = ranking.order.first().map(|candidate| candidate.segment.clone());
        let candidates = candidates(&ranking);
        let refusal = candidates.is_empty().then(|| ranking.refusal(&self.config.node));
        for local in self.segments.values_mut() {
            let segment = &local.interface.segment;
            let announced_here = first.as_ref().is_none_or(|first| first.meets(segment));
            let lies_here = mine.as_ref() == Some(&segment.interface.name) && announced_here;
            let lies_elsewhere = mine.as_ref().is_some_and(|mine| *mine != segment.interface.name);
            if lies_elsewhere && local.engine.resumes(vip.address) {
                local.engine.handle(now.monotonic, SegmentInput::LiesElsewhere(vip.address));
            }
            // The claims that an earlier run made here may lie elsewhere now.
            if !lies_here && !local.told.contains_key(&vip.address) && !local.engine.claims_or_resumes(vip.address) {
                continue;
            }
            // No node may announce the address on an interface where it no longer lies.
            let candidates = if lies_here { candidates.clone() } else { api_view::Candidates::default() };
            let told = api_view::Vip {
                birth: vip.birth,
                uid: vip.uid.as_str().into(),
                candidates,
                announced_by,
                given_up,
                held_here,
                ever_announced: vip.status.was_ever_announced(),
                cover: vip.rules.iter().all(|rule| rule.cover),
            };
            if local.told.get(&vip.address).is_some_and(|before| **before == told) {
                continue;
            }
            let told = Arc::new(told);
            if local.told.insert(vip.address, Arc::clone(&told)).is_none() {
                local.address_came(now.monotonic, vip.address);
            }
            local.engine.handle(now.monotonic, SegmentInput::Vip(vip.address, Some(told)));
        }
        self.duties.entry(vip.address).or_default().refusal = refusal;
    }

    /// Informs the segments that an address is gone.
    pub(super) fn tell_gone(&mut self, now: Now, address: IpAddr) {
        for local in self.segments.values_mut() {
            let told = local.told.remove(&address).is_some();
            if told {
                local.address_went(now.monotonic);
            }
            let claims = || local.engine.saved_state().claims.iter().any(|claim| claim.address == address);
            if told || claims() {
                local.engine.handle(now.monotonic, SegmentInput::Vip(address, None));
            }
        }
    }

    /// Emits the addresses that the segments let through, where that is due, ahead of all other outputs: a host that
    /// receives an announcement may ask at once.
    pub(super) fn listen(&mut self, now: Now) {
        for (index, local) in &mut self.segments {
            if let Some(addresses) = local.listen(now.monotonic) {
                // The output goes behind the opening of the segment, if that is still to come.
                let opening = self.outputs.iter().rposition(|output| matches!(output, Output::Segments(_)));
                self.outputs.insert(opening.map_or(0, |at| at + 1), Output::Listen { segment: *index, addresses });
            }
        }
    }

    /// Takes in the result of the kernel for the sockets of a segment.
    pub(super) fn sockets_are(&mut self, now: Now, segment: u32, result: Result<(), SocketFailure>) {
        let Some(local) = self.segments.get_mut(&segment) else { return };
        let had_carrier = local.has_carrier();
        match result {
            Ok(()) => local.sockets.work(),
            Err(failure) => local.sockets.failed(now.monotonic, failure),
        }
        carrier_changed(now, local, had_carrier);
        if self.segments.len() > 1 && self.decide_roles(now) {
            self.update_segments(now);
        }
    }

    /// Asks the kernel again for the sockets, filters and groups that it has refused.
    pub(super) fn retry_sockets(&mut self, now: Now) {
        let mut any = false;
        for local in self.segments.values_mut() {
            if local.sockets.retry(now.monotonic) {
                local.relisten(now.monotonic);
                any = true;
            }
        }
        if any {
            self.outputs.push_back(Output::Segments(self.segments.keys().copied().collect()));
        }
    }
}

fn candidates(ranking: &Ranking<'_>) -> api_view::Candidates {
    let order = ranking.order.iter();
    order.map(|candidate| api_view::Candidate { node: candidate.node.id, class: candidate.class }).collect()
}

/// Takes in the changes of an interface.
fn update(now: Now, local: &mut ActiveSegment, interface: LocalSegment) {
    let of = |interface: &LocalSegment| -> (MacAddr, Option<IpAddr>) {
        let interfaces::Segment { mac, address, .. } = &interface.segment;
        (*mac, *address)
    };
    let (mac, address) = of(&interface);
    if of(&local.interface) != (mac, address) {
        local.engine.handle(now.monotonic, SegmentInput::Interface { mac, address });
    }
    if local.interface.mtu != interface.mtu {
        local.engine.handle(now.monotonic, SegmentInput::FrameLimit(FrameLimit::of_mtu(interface.mtu)));
    }
    let had_carrier = local.has_carrier();
    local.interface = interface;
    carrier_changed(now, local, had_carrier);
}

/// Reports a change of the carrier to the engine. A segment without sockets counts as one without carrier: the engine
/// claims no address there that the node could not answer for.
pub(super) fn carrier_changed(now: Now, local: &mut ActiveSegment, before: bool) {
    let carrier = local.has_carrier();
    if carrier != before {
        local.engine.handle(now.monotonic, SegmentInput::Carrier(carrier));
    }
}

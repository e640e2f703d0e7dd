//! The way from the segments: their outputs become frames, and their events become statuses.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use herald_protocol::{Event as SegmentEvent, Output as SegmentOutput, Withdrawal, mac::MacAddr};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    ActiveSegment, Coordinator, Event, Now, Output, Purpose, VipWrite,
    address_state::{CONFLICT_OVER, Conflict, Contender, Obstacle, Owned},
    essence,
    speaker_status::WireFacts,
    vip_status::{self, Rival},
    wire_warnings::{self, Trouble},
};
use crate::packet;

impl Coordinator {
    /// Carries out the outputs of the segments until there are no more.
    pub(super) fn drain_segments(&mut self, now: Now) {
        let indices: Vec<u32> = self.segments.keys().copied().collect();
        for index in indices {
            self.drain_segment(now, index);
            self.note_answering(index);
        }
    }

    /// Does what one segment asks for.
    pub(super) fn drain_segment(&mut self, now: Now, index: u32) {
        while let Some(output) = self.segments.get_mut(&index).and_then(|local| local.engine.poll_output()) {
            self.carry_out(now, index, output);
        }
    }

    /// Marks the addresses that this node owns on a segment for a report, if the segment has started to answer again.
    fn note_answering(&mut self, index: u32) {
        let Some(local) = self.segments.get_mut(&index) else { return };
        let answering = local.engine.is_answering();
        if !std::mem::replace(&mut local.answering, answering) && answering {
            let owned = self.duties.iter().filter(|(_, duty)| duty.is_owned_on(index)).map(|(address, _)| *address);
            self.unreported.extend(owned);
        }
    }

    fn carry_out(&mut self, now: Now, segment: u32, output: SegmentOutput) {
        // While this node joins, peers may report claims of this node to an object that is gone. The segment gets to
        // know that in this call, and the address may belong to another Service.
        if let SegmentOutput::Announce { address, .. } = &output
            && self.is_gone(*address)
        {
            return;
        }
        let Some(local) = self.segments.get_mut(&segment) else { return };
        let own = local.interface.segment.mac;
        let (frame, purpose) = match output {
            SegmentOutput::Send(bytes) => {
                self.outputs.push_back(Output::Hello { segment, from: own, bytes });
                return;
            }
            SegmentOutput::Answers { address, mac } => {
                local.answers(now.monotonic, address, mac);
                return;
            }
            SegmentOutput::Event(event) => return self.happened(now, segment, event),
            SegmentOutput::Announce { address, mac } => return self.announce(segment, address, mac, own),
            SegmentOutput::Probe { address, mac } => (packet::probe(address, mac, &local.origin()), Purpose::Question),
            SegmentOutput::Ping { address, mac } => (packet::ping(address, mac, &local.origin()), Purpose::Question),
            SegmentOutput::Enquire(address) => (Some(packet::enquiry(address, &local.origin())), Purpose::Question),
            SegmentOutput::EchoAll => (packet::echo_all(&local.origin()), Purpose::Question),
        };
        // This question needs an own address of the family to ask from; questions to other hosts are sent even if it
        // has none.
        if let Some(frame) = frame {
            self.outputs.push_back(Output::Transmit { segment, frame, purpose });
        }
    }

    fn announce(&mut self, segment: u32, address: IpAddr, at: MacAddr, from: MacAddr) {
        let reply = match address {
            IpAddr::V4(address) if self.config.announcing.with_reply => Some(packet::reply_unasked(address, at, from)),
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        };
        let frames = [packet::announcement(address, at, from)].into_iter().chain(reply);
        let purpose = Purpose::Announcement(address);
        self.outputs.extend(frames.map(|frame| Output::Transmit { segment, frame, purpose }));
    }

    fn happened(&mut self, now: Now, segment: u32, event: SegmentEvent) {
        let Some(local) = self.segments.get_mut(&segment) else { return };
        let interface = local.interface.segment.interface.name.clone();
        match &event {
            SegmentEvent::Owned { claim, .. } => {
                let mac = local.interface.segment.mac;
                self.owns(now, claim.address, Owned { segment, interface: interface.clone(), mac, since: now.wall });
            }
            SegmentEvent::Lost { claim, .. } => self.lost(segment, claim.address, None),
            SegmentEvent::Withdrawn { address, why } => {
                let refusal = self.duties.get(address).and_then(|duty| duty.refusal.clone());
                let obstacle = match why {
                    Withdrawal::NoCandidate => refusal.map(Obstacle::Ineligible),
                    Withdrawal::HandedOver(to) => Some(Obstacle::HandedOver(*to)),
                    Withdrawal::TakenByUnheard(by) => Some(Obstacle::Yielded(*by)),
                    Withdrawal::Deleted => None,
                };
                self.lost(segment, *address, obstacle);
            }
            SegmentEvent::PeerUp(name) => {
                self.speaker_changed = true;
                local.dead.remove(&name.id());
                local.peers.insert(name.id(), name.clone());
                self.peers_to_count = true;
            }
            SegmentEvent::PeerSilent(id) => {
                self.speaker_changed = true;
                local.peers.remove(id);
            }
            SegmentEvent::PeerDead(id) => {
                self.speaker_changed = true;
                local.peers.remove(id);
                local.dead.insert(*id);
            }
            SegmentEvent::Conflict { address, mac } => self.conflict(now, *address, Contender::Stranger(*mac)),
            SegmentEvent::AnsweredByClusterNode { address, node } => {
                self.conflict(now, *address, Contender::Node(*node));
            }
            SegmentEvent::DuplicateNode(id) => {
                self.speaker_changed = true;
                self.wire_warnings.saw(now.monotonic, &interface, Trouble::DuplicateNode(*id));
            }
            SegmentEvent::SegmentLoop => {
                self.speaker_changed = true;
                self.wire_warnings.saw(now.monotonic, &interface, Trouble::Loop);
            }
            SegmentEvent::StateChanged => {
                self.outputs.push_back(Output::ClaimsChanged);
                return;
            }
            SegmentEvent::Finished => {
                local.finished = true;
                return;
            }
            SegmentEvent::ClaimsLacking(id) => {
                self.speaker_changed = true;
                self.wire_warnings.saw(now.monotonic, &interface, Trouble::ClaimsLacking(*id));
            }
            SegmentEvent::Reverted => self.join_anew(now, segment),
            SegmentEvent::Covering(id) => {
                self.speaker_changed = true;
                local.covering.insert(*id);
            }
            SegmentEvent::CoverEnded(id) => {
                self.speaker_changed = true;
                local.covering.remove(id);
            }
            SegmentEvent::BornOutOfOrder(_)
            | SegmentEvent::CannotBeAsked(_)
            | SegmentEvent::PeerUnheard(_)
            | SegmentEvent::CoveringLong(_)
            | SegmentEvent::Stalled(_) => {}
        }
        if self.is_for_an_event(&event) {
            self.coalescer.event(now.monotonic, now.wall, &interface, &event, &self.cluster);
        }
        self.outputs.push_back(Output::Event(Event { interface, what: event }));
    }

    /// Returns whether an event on the segment becomes a Kubernetes Event. The controller reports a conflict about an
    /// address that was never announced: the controller gives the Service another address.
    fn is_for_an_event(&self, event: &SegmentEvent) -> bool {
        match event {
            SegmentEvent::Conflict { address, .. } | SegmentEvent::AnsweredByClusterNode { address, .. } => {
                self.conflicts.contains_key(address)
            }
            _ => true,
        }
    }

    /// Returns whether the API has no VirtualIP of the address, or one that is being deleted.
    pub(super) fn is_gone(&self, address: IpAddr) -> bool {
        self.cluster.vips.is_listed() && self.cluster.vips.get(&address).is_none_or(|vip| vip.deleting)
    }

    fn owns(&mut self, now: Now, address: IpAddr, mut owned: Owned) {
        let vip = self.cluster.vips.get(&address);
        let status = vip.map(|vip| &vip.status);
        // This speaker announced the address before it restarted, and no other node has announced it since.
        let written = status.filter(|s| vip_status::announces(s, &self.config.node, &owned.interface, owned.mac));
        if let Some(Time(since)) = written.and_then(|status| status.since.clone()) {
            owned.since = since;
        }
        let deleted = self.is_gone(address);
        // The address may lie on another interface of this node than the claim that the node learns of from its peers.
        let here = self.segments.get(&owned.segment).and_then(|local| local.told.get(&address));
        let lies_elsewhere = vip.is_some() && here.is_none_or(|told| told.candidates.is_empty());
        let duty = self.duties.entry(address).or_default();
        duty.owned = Some(owned);
        duty.has_owned = true;
        if !lies_elsewhere {
            duty.end_outage();
            duty.obstacle = None;
        }
        self.unreported.insert(address);
        if deleted {
            // The VirtualIP was deleted while this speaker was away: the saved state holds the claim but not the
            // object.
            self.tell_gone(now, address);
        } else if lies_elsewhere {
            self.evaluate(now, address);
        }
    }

    fn lost(&mut self, segment: u32, address: IpAddr, obstacle: Option<Obstacle>) {
        let Some(duty) = self.duties.get_mut(&address) else { return };
        // The address may be owned on another segment by now.
        if duty.owned.as_ref().is_some_and(|owned| owned.segment == segment) {
            duty.owned = None;
            self.conflicts.remove(&address);
            if !matches!(duty.obstacle, Some(Obstacle::InterfaceLost(_))) {
                duty.obstacle = obstacle;
            }
        }
        self.unreported.insert(address);
    }

    /// Records that another host or node answers for an address. If this node does not own the address, it leaves the
    /// address to the other.
    fn conflict(&mut self, now: Now, address: IpAddr, with: Contender) {
        let duty = self.duties.entry(address).or_default();
        if duty.owned.is_some() {
            self.conflicts.insert(address, Conflict { with, seen: now.monotonic });
        } else {
            duty.obstacle = Some(match with {
                Contender::Stranger(mac) => Obstacle::Stranger(mac),
                Contender::Node(node) => Obstacle::ClusterNode(node),
            });
        }
        self.unreported.insert(address);
    }

    /// Marks the addresses for a report whose outage has lasted long enough.
    pub(super) fn tell_outages(&mut self, now: Now) {
        for (address, duty) in &mut self.duties {
            if duty.outage_due.is_some_and(|due| due <= now.monotonic) {
                duty.outage_due = None;
                self.unreported.insert(*address);
            }
        }
    }

    /// Returns the other host or node that answers for an address of this node: a kernel, by the account of its own
    /// speaker, or else the one that was seen on the wire.
    fn rival(&self, address: IpAddr) -> Option<Rival> {
        let held = self.cluster.held_by(address).map(|node| Rival::Kernel(node.to_owned()));
        held.or_else(|| match self.conflicts.get(&address)?.with {
            Contender::Stranger(mac) => Some(Rival::Stranger(mac)),
            Contender::Node(node) => Some(Rival::Kernel(self.name_of(node))),
        })
    }

    /// Returns the time at which the next conflict is over, unless it is seen again.
    pub(super) fn conflicts_end(&self) -> Option<Duration> {
        self.conflicts.values().map(|conflict| conflict.seen + CONFLICT_OVER).min()
    }

    /// Forgets conflicts that are over.
    pub(super) fn end_conflicts(&mut self, now: Now) {
        let over = |_: &IpAddr, conflict: &mut Conflict| conflict.seen + CONFLICT_OVER <= now.monotonic;
        self.unreported.extend(self.conflicts.extract_if(.., over).map(|(address, _)| address));
    }

    /// Emits the statuses that are due.
    pub(super) fn report_vips(&mut self, now: Now) {
        for address in std::mem::take(&mut self.unreported) {
            self.report_vip(now, address);
        }
    }

    fn report_vip(&mut self, now: Now, address: IpAddr) {
        let is_claimed = self.segments.values().any(|local| local.engine.is_claimed(address));
        let Some(duty) = self.duties.get_mut(&address) else { return };
        let Some(vip) = self.cluster.vips.get(&address) else {
            if duty.owned.is_none() {
                self.duties.remove(&address);
            }
            return;
        };
        let taken = vip.status.node.as_ref().is_some_and(|node| *node != self.config.node);
        match duty.obstacle {
            // The obstacle to this node's first claim has gone: another node has made a claim.
            Some(Obstacle::ClusterNode(_) | Obstacle::Stranger(_)) if is_claimed => duty.obstacle = None,
            // Another node announces the address.
            Some(Obstacle::HandedOver(_) | Obstacle::Yielded(_)) if taken => duty.obstacle = None,
            Some(Obstacle::InterfaceLost(_)) if taken && duty.owned.is_none() => duty.end_outage(),
            // An outage is not reported before it has lasted long enough.
            Some(Obstacle::InterfaceLost(_)) if duty.outage_due.is_some() => return,
            _ => {}
        }
        // The same node announces the address even if its interface has another link-layer address or name.
        if let Some(owned) = &mut duty.owned
            && let Some(local) = self.segments.get(&owned.segment)
        {
            let segment = &local.interface.segment;
            owned.mac = segment.mac;
            owned.interface.clone_from(&segment.interface.name);
            if !local.answering && !matches!(duty.obstacle, Some(Obstacle::InterfaceLost(_))) {
                // The link of this node has just come up, or the node has stood still: another may have taken the
                // address over.
                return;
            }
        }
        let Some(duty) = self.duties.get(&address) else { return };
        let ready = self.cluster.nodes.get(&self.config.node).is_some_and(|node| node.ready);
        if !ready && duty.owned.is_some() && vip_status::is_node_lost(&vip.status) {
            // The controller has written what the API knows of this node. The controller and this node would overwrite
            // each other for ever, so this node writes its status again when it is Ready.
            return;
        }
        let rival = self.rival(address);
        let name = |id| self.name_of(id);
        let Some(status) = vip_status::desired(vip, &self.config.node, duty, rival.as_ref(), name, now.wall) else {
            return;
        };
        let emitted = (vip.resource_version.clone(), essence::essence(&status));
        // The status emitted for this version may still wait (the API server was away, or the object is written too
        // often). That write is outdated, so the present status replaces it, even if the present status equals the one
        // in the object.
        let outdated = duty.emitted.as_ref().is_some_and(|(version, said)| *version == emitted.0 && *said != emitted.1);
        if emitted.1 == essence::essence(&vip.status) && !outdated || duty.emitted.as_ref() == Some(&emitted) {
            return;
        }
        let (name, uid) = (vip.name.clone(), vip.uid.clone());
        let write = VipWrite { name, uid, resource_version: vip.resource_version.clone(), status };
        let held_by = self.cluster.held_by(address).and_then(|node| self.cluster.nodes.get(&node.to_owned()));
        if let (Some(node), Some(owned)) = (held_by, &duty.owned) {
            let held = SegmentEvent::AnsweredByClusterNode { address, node: node.id };
            self.coalescer.event(now.monotonic, now.wall, &owned.interface, &held, &self.cluster);
        }
        if let Some(why) = vip_status::outage(&write.status) {
            self.coalescer.unannounced(now.monotonic, now.wall, address, why, &self.cluster);
        }
        if let Some(duty) = self.duties.get_mut(&address) {
            duty.emitted = Some(emitted);
        }
        self.outputs.push_back(Output::WriteVip(write));
    }

    /// Emits this node's SpeakerStatus where the API has another or none.
    pub(super) fn report_speaker(&mut self, now: Now) {
        let due = self.report.poll_timeout().into_iter().chain(self.wire_warnings.expire_at());
        let due = due.min().is_some_and(|at| at <= now.monotonic);
        // The warnings expire even if a later condition prevents the write: otherwise this timer would stay due for
        // ever.
        self.wire_warnings.expire(now.monotonic);
        // The role of an interface is written once, after the decision about it.
        if !self.cluster.speakers.counted().is_listed() || self.twins.is_deciding(now.monotonic) {
            return;
        }
        if !(std::mem::take(&mut self.speaker_changed) || due) {
            return;
        }
        let facts = self.wire_facts();
        let written = self.cluster.speakers.written(&self.config.node);
        self.report.observe(now.monotonic, written.and_then(|speaker| speaker.own.as_ref()), &facts);
        let (Some(interfaces), Some(node)) = (&self.interfaces, self.cluster.nodes.get(&self.config.node)) else {
            // The Node owns the object, so the Node must be known.
            return;
        };
        let published = self.published(interfaces);
        if let Some(write) = self.report.write(&self.config.version, node, &published, self.held_addresses(), written) {
            self.outputs.push_back(Output::WriteSpeaker(write));
        }
    }

    /// Returns the addresses of VirtualIPs that this node's kernel has itself.
    fn held_addresses(&self) -> Vec<String> {
        let held: BTreeSet<IpAddr> =
            self.own_addresses().filter(|address| self.cluster.vips.get(address).is_some()).collect();
        held.iter().map(ToString::to_string).collect()
    }

    fn wire_facts(&self) -> WireFacts {
        let peers = self.segments.values().filter(|local| local.speaks);
        let peers = peers.map(|local| (local.interface.segment.interface.name.clone(), local.peers.len()));
        let is_ready = |name: &str| self.cluster.nodes.get(&name.to_owned()).is_some_and(|node| node.ready);
        let carriers = self.segments.values().filter(|local| local.has_carrier());
        let unheard = carriers.filter_map(|local| wire_warnings::unheard(local, is_ready));
        let keys = wire_warnings::keys(self.keys_error.as_ref(), self.keys.is_some());
        let of = |local: &ActiveSegment| local.sockets.warning(&local.interface.segment.interface.name);
        let sockets = self.segments.values().filter_map(of);
        let told = self.wire_warnings.list(|id| self.name_of(id));
        let covering = self.segments.values().flat_map(|local| &local.covering).map(|id| self.name_of(*id)).collect();
        WireFacts {
            peers: peers.collect(),
            covering,
            warnings: keys.into_iter().chain(sockets).chain(told).chain(unheard).chain(self.twin_warnings()).collect(),
        }
    }
}

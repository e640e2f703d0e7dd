//! The case of several interfaces of this node on one segment: which of them takes part, and what SpeakerStatus
//! reports.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use herald_crds::speaker_status::{LinkStatus, LinkUse, SpeakerWarning, WarningKind};
use herald_protocol::{
    Deletion, Input as SegmentInput,
    mac::MacAddr,
    node::Incarnation,
    twins::{Interface, Others, Role},
};

use super::{ActiveSegment, Coordinator, Interfaces, Now, address_state::OutageCause, to_segments::carrier_changed};
use crate::{interfaces::LocalSegment, warnings::ambiguous};

impl Coordinator {
    /// Decides the role of each interface, and returns whether a role has changed.
    pub(super) fn decide_roles(&mut self, now: Now) -> bool {
        let Some(interfaces) = &self.interfaces else { return false };
        let subnets_of = |interface: &LocalSegment| -> Vec<(IpAddr, u8)> {
            interface.segment.interface.prefixes.iter().map(|prefix| (prefix.network(), prefix.prefix_len())).collect()
        };
        let subnets: Vec<Vec<(IpAddr, u8)>> = interfaces.segments.iter().map(subnets_of).collect();
        let heard_on = |interface: &LocalSegment| -> BTreeSet<Incarnation> {
            // No decision depends on it where the node has one interface.
            let local = self.segments.get(&interface.index).filter(|_| self.segments.len() > 1);
            local.map(|local| local.engine.heard_runs(now.monotonic)).unwrap_or_default()
        };
        let runs: Vec<BTreeSet<Incarnation>> = interfaces.segments.iter().map(heard_on).collect();
        let closed = |index: u32| self.segments.get(&index).is_some_and(|local| local.sockets.are_closed());
        let interfaces: Vec<Interface<'_>> = interfaces
            .segments
            .iter()
            .zip(subnets.iter().zip(&runs))
            .map(|(LocalSegment { index, carrier, macvlan_on, segment, .. }, (subnets, runs))| Interface {
                index: *index,
                name: &segment.interface.name,
                able: *carrier && !closed(*index),
                default_route: segment.interface.default_route,
                macvlan_on: *macvlan_on,
                has_claims: self
                    .remembered
                    .get(&segment.interface.name)
                    .is_some_and(|(left, _)| !left.claims.is_empty()),
                hears: self.segments.get(index).is_some_and(|local| local.engine.is_hearing()),
                heard: self.segments.get(index).map(|local| local.engine.last_evidence()).unwrap_or_default(),
                runs,
                in_use: self.segments.get(index).is_some_and(ActiveSegment::is_in_use),
                subnets,
            })
            .collect();
        let has_stations = |local: &ActiveSegment| local.stations.as_ref().is_some_and(|stations| !stations.is_empty());
        let others = Others {
            heard: self.segments.values().any(|local| local.speaks && !local.peers.is_empty()),
            listed: self.segments.values().any(has_stations),
        };
        let intervals = self.segments.values().map(|local| local.engine.interval());
        let interval = intervals.max().unwrap_or_else(|| self.config.timers.interval(0));
        let named = |name: &str| self.selection.as_ref().is_some_and(|selection| selection.names(name));
        self.twins.decide(now.monotonic, interval, &interfaces, others, named)
    }

    /// Adds the prefixes and the default route of an interface that yields to the interface that it yields to, which
    /// then also stands for it where settings name it.
    pub(super) fn unite(&self, present: &mut [LocalSegment]) {
        for (index, to) in self.twins.yielding() {
            let Some(yielding) =
                present.iter().find(|other| other.index == index).map(|other| other.segment.interface.clone())
            else {
                continue;
            };
            if let Some(LocalSegment { segment, .. }) = present.iter_mut().find(|other| other.index == to) {
                let interface = &mut segment.interface;
                interface.prefixes.extend(yielding.prefixes);
                interface.prefixes.sort();
                interface.prefixes.dedup();
                interface.default_route |= yielding.default_route;
                interface.speaks_for.push(yielding.name);
            }
        }
    }

    /// Gives an interface the role that was decided.
    pub(super) fn take_role(&mut self, now: Now, index: u32) {
        let speaks = self.twins.role(index) == Role::Speaks;
        let Some(local) = self.segments.get_mut(&index) else { return };
        if local.speaks == speaks {
            return;
        }
        if !speaks {
            return self.give_up(now, index);
        }
        let had_carrier = local.has_carrier();
        local.speaks = speaks;
        carrier_changed(now, local, had_carrier);
    }

    /// Takes an interface out of the protocol. The claims pass to its twin, which hears of them from the peers or finds
    /// the addresses vacant.
    fn give_up(&mut self, now: Now, index: u32) {
        if let Some(local) = self.segments.get_mut(&index) {
            local.engine.handle(now.monotonic, SegmentInput::Superseded);
        }
        self.share_deletions(now);
        self.drain_segment(now, index);
        let Some(local) = self.segments.get(&index) else { return };
        let (interface, neighbours) = (local.interface.clone(), self.neighbours.get(&index).cloned());
        let name_of =
            |index: u32| self.segments.get(&index).map(|local| local.interface.segment.interface.name.clone());
        let why = match self.twins.role(index) {
            Role::Yields(to) => name_of(to).map_or(OutageCause::Unusable, OutageCause::Yields),
            Role::Tried | Role::Speaks => OutageCause::Tried,
        };
        self.leave(now, index, why);
        self.remembered.remove(&interface.segment.interface.name);
        self.neighbours.extend(neighbours.map(|neighbours| (index, neighbours)));
        self.join(now, interface);
    }

    /// Hands each engine the incarnations of the others in this process.
    pub(super) fn tell_siblings(&mut self, now: Now) {
        let run = |local: &ActiveSegment| (local.engine.incarnation(), local.interface.segment.mac);
        let runs: BTreeMap<u32, (Incarnation, MacAddr)> =
            self.segments.iter().map(|(index, local)| (*index, run(local))).collect();
        let known: Vec<(u32, Deletion)> = self.known_deletions().collect();
        for (index, local) in &mut self.segments {
            let others: BTreeMap<Incarnation, MacAddr> =
                runs.iter().filter(|(other, _)| *other != index).map(|(_, run)| *run).collect();
            if local.siblings != others {
                local.siblings.clone_from(&others);
                local.engine.handle(now.monotonic, SegmentInput::Siblings(others));
                let known = known.iter().filter(|(other, _)| other != index).map(|(_, deletion)| deletion.clone());
                local.engine.handle(now.monotonic, SegmentInput::Deletions(known.collect()));
            }
        }
    }

    /// The objects that the runs know to be gone, each with the interface of the run; none where there is one run.
    fn known_deletions(&self) -> impl Iterator<Item = (u32, Deletion)> {
        let several = self.segments.iter().filter(|_| self.segments.len() > 1);
        several.flat_map(|(index, local)| local.engine.deletions().map(|deletion| (*index, deletion.clone())))
    }

    /// Tells each run of the deletions that the others have learned of: it may have to follow one of them while the API is
    /// away.
    pub(super) fn share_deletions(&mut self, now: Now) {
        if self.segments.len() < 2 {
            return;
        }
        for learner in self.segments.keys().copied().collect::<Vec<_>>() {
            let deletions = self.segments.get_mut(&learner).map(|local| local.engine.take_deletions());
            let Some(deletions) = deletions.filter(|deletions| !deletions.is_empty()) else { continue };
            for (_, local) in self.segments.iter_mut().filter(|(index, _)| **index != learner) {
                local.engine.handle(now.monotonic, SegmentInput::Deletions(deletions.clone()));
            }
        }
    }

    /// Takes notice of frames on an interface that matter to the others: frames of another incarnation of this process,
    /// and the claims of this node that peers report.
    pub(super) fn note_sibling(&mut self, now: Now, index: u32) {
        let reminded = self.segments.get_mut(&index).map(|local| local.engine.take_reminded()).unwrap_or_default();
        for address in reminded {
            self.evaluate(now, address);
        }
        let heard = self.segments.get_mut(&index).and_then(|local| local.engine.take_sibling());
        let Some(sibling) = heard else { return };
        let sent = |(_, local): &(&u32, &ActiveSegment)| local.engine.has_sent(sibling);
        let Some(other) = self.segments.iter().find(sent).map(|(other, _)| *other) else { return };
        if self.twins.heard(now.monotonic, other, index) {
            self.speaker_changed = true;
            self.update_segments(now);
        }
    }

    /// Returns the interfaces as other nodes see them: those that take part, or will take part unless they turn out to
    /// be on the segment of another.
    pub(super) fn published(&self, interfaces: &Interfaces) -> Interfaces {
        let speaking = || self.segments.values().filter(|local| local.speaks);
        let segments = interfaces.segments.iter().filter_map(|interface| {
            let Some(local) = self.segments.get(&interface.index) else { return Some(interface.clone()) };
            let shown = match self.twins.role(interface.index) {
                Role::Speaks => true,
                Role::Tried => !speaking().any(|other| other.interface.segment.meets(&local.interface.segment)),
                Role::Yields(_) => false,
            };
            shown.then(|| local.interface.clone())
        });
        let segments: Vec<_> = segments.collect();
        let warnings = interfaces.warnings.iter().cloned().chain(ambiguous(&segments)).collect();
        Interfaces { segments, links: self.links(), warnings, ..*interfaces }
    }

    /// Returns the links of this node that have addresses, each with the use made of it.
    pub fn links(&self) -> Vec<LinkStatus> {
        let mut links = self.interfaces.as_ref().map(|interfaces| interfaces.links.clone()).unwrap_or_default();
        for (yielding, speaking) in self.yielding_names() {
            if let Some(link) = links.iter_mut().find(|link| link.interface == yielding) {
                link.link_use = LinkUse::Skipped;
                link.message = Some(format!("it is on the same segment as {speaking}, which speaks for it"));
            }
        }
        for (standing_by, speaking) in self.names_of(self.twins.standing_by()) {
            if let Some(link) = links.iter_mut().find(|link| link.interface == standing_by) {
                link.link_use = LinkUse::Skipped;
                link.message =
                    Some(format!("{speaking} is in the same subnets and hears other nodes; this interface stands by"));
            }
        }
        links
    }

    /// Returns the warnings about the interfaces that yield.
    pub(super) fn twin_warnings(&self) -> impl Iterator<Item = SpeakerWarning> {
        self.yielding_names().map(|(yielding, speaking)| SpeakerWarning {
            kind: WarningKind::InterfacesOnOneSegment,
            message: format!(
                "{yielding} is on the same segment as {speaking}: addresses are announced on {speaking} alone; an \
                 L2Advertisement that names {yielding} in spec.interfaces has them announced there, unless another names \
                 {speaking}"
            ),
        })
    }

    /// Returns the names of the interfaces that yield, and of those that they yield to.
    fn yielding_names(&self) -> impl Iterator<Item = (&str, &str)> {
        self.names_of(self.twins.yielding())
    }

    /// Returns the names of pairs of interfaces.
    fn names_of<'a>(
        &'a self,
        pairs: impl Iterator<Item = (u32, u32)> + 'a,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        let name = |index: u32| self.segments.get(&index).map(|local| local.interface.segment.interface.name.as_str());
        pairs.filter_map(move |(index, to)| Some((name(index)?, name(to)?)))
    }
}

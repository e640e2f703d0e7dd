//! The engine's knowledge, for a person to read.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use super::Engine;
use crate::{
    conflict_detection,
    inspect::{
        Address, CANDIDATES, Candidate, KernelState, KeyUse, Owner, Peer, Snapshot, SpeakerState, Totals, Waiting,
    },
    node::NodeId,
    peer::{self, Presence},
    wire::{KeyId, State},
};

impl Engine {
    /// Returns the segment in numbers.
    pub fn totals(&self) -> Totals {
        let covered = self.announcements.answers().filter(|mac| *mac != self.local.mac()).count();
        Totals { peers: self.peers.speaking(), owned: self.claims.addresses_of(self.local.id()).count(), covered }
    }

    /// Returns all that a person may want to see. This takes time in proportion to addresses and peers: it is for a
    /// request, not for every event.
    pub fn snapshot(&self, now: Duration) -> Snapshot {
        let mut peers: Vec<Peer> = self.peers.iter().map(|(id, peer)| self.peer_shown(now, id, peer)).collect();
        peers.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let addresses: BTreeSet<IpAddr> = self.objects.addresses().chain(self.claims.addresses()).collect();
        Snapshot {
            node: self.local.name().to_string(),
            incarnation: format!("{:?}", self.local.incarnation()),
            state: if self.is_deaf(now) { SpeakerState::Deaf } else { said(self.participation.stated()) },
            answering: self.is_answering(),
            carrier: self.participation.has_carrier(),
            hearing: self.is_hearing(),
            mac: self.local.mac().to_string(),
            interval_ms: millis(self.interval()),
            totals: self.totals(),
            keys: self.key_uses(),
            peers,
            addresses: addresses.into_iter().map(|address| self.address_shown(now, address)).collect(),
        }
    }

    /// Returns the keys that this node accepts, oldest first, with the use that is made of each.
    pub fn key_uses(&self) -> Vec<KeyUse> {
        let heard: Vec<(Option<KeyId>, &[KeyId])> = self
            .peers
            .iter()
            .filter_map(|(_, peer)| Some((self.signing_key_of(peer), peer.accepted_keys()?)))
            .collect();
        let own = self.transmitter.keys().signing_key(heard.iter().map(|(_, accepted)| *accepted), 0);
        let key_use = |id: &KeyId| KeyUse {
            id: id.to_string(),
            signs: heard.is_empty() || own == *id,
            peers_signing: heard.iter().filter(|(signing, _)| *signing == Some(*id)).count(),
            peers_accepting: heard.iter().filter(|(_, accepted)| accepted.contains(id)).count(),
        };
        self.transmitter.keys().ids().iter().map(key_use).collect()
    }

    /// Returns the key with which a speaking peer signs: a frame that was accepted is signed with the only key there
    /// is.
    fn signing_key_of(&self, peer: &peer::Peer) -> Option<KeyId> {
        peer.accepted_keys()?;
        match self.transmitter.keys().ids() {
            [only] => Some(*only),
            _ => peer.rest.signed_with,
        }
    }

    fn name_of(&self, id: NodeId) -> String {
        if id == self.local.id() {
            return self.local.name().to_string();
        }
        self.peers.get(id).map_or_else(|| format!("{id:?}"), |peer| peer.rest.name.to_string())
    }

    fn peer_shown(&self, now: Duration, id: NodeId, peer: &peer::Peer) -> Peer {
        // A pending incarnation is the one that speaks now.
        let pending = peer.pending.as_ref().map(|pending| (pending.incarnation, pending.heard));
        let last = pending.or(peer.run.as_ref().map(|run| (run.incarnation, run.heard())));
        let state = match (peer.presence(), &peer.run) {
            (Presence::Speaking, Some(run)) if run.deaf => SpeakerState::Deaf,
            (Presence::Speaking, Some(run)) => said(run.state),
            _ if peer.pending.is_some() => SpeakerState::OneWay,
            (Presence::Silent { .. } | Presence::Speaking, _) => SpeakerState::Silent,
            (Presence::Dead, _) => SpeakerState::Dead,
            (Presence::Unheard, _) => SpeakerState::Unheard,
        };
        let watched = peer.rest.kernel.is_watched();
        let kernel = if self.kernel_silence(peer).is_some() {
            Some(KernelState::Silent)
        } else if watched && peer.rest.kernel.is_alive(now) {
            Some(KernelState::Answers)
        } else {
            watched.then_some(KernelState::Asked)
        };
        Peer {
            name: peer.rest.name.to_string(),
            state,
            heard_ms: last.map(|(_, heard)| millis(now.saturating_sub(heard))),
            incarnation: last.map(|(incarnation, _)| format!("{incarnation:?}")),
            mac: peer.mac().map(|mac| mac.to_string()),
            claims: self.claims.addresses_of(id).count(),
            lacking: self.sync.lacks(id),
            kernel,
            covered_by: self.covered_by(now, id, peer),
            signs_with: self.signing_key_of(peer).map(|id| id.to_string()),
        }
    }

    fn covered_by(&self, now: Duration, id: NodeId, peer: &peer::Peer) -> Vec<String> {
        let (needed, unheard) = self.needs_cover(now, id, peer);
        let coverers = if needed { self.coverers(id, unheard) } else { Vec::new() };
        coverers.into_iter().map(|node| self.name_of(node)).collect()
    }

    fn address_shown(&self, now: Duration, address: IpAddr) -> Address {
        let holder = self.best_claim(address);
        let vip = self.objects.get(address);
        let order = || vip.into_iter().flat_map(|vip| vip.candidates.iter());
        let shown = order().take(CANDIDATES).map(|candidate| Candidate {
            node: self.name_of(candidate.node),
            class: candidate.class.0,
            able: self.could_claim(candidate.node),
        });
        let owner = holder.map(|(id, _)| id);
        let next = order().find(|candidate| Some(candidate.node) != owner && self.could_claim(candidate.node));
        Address {
            address,
            owner: holder.map(|(id, claim)| Owner {
                node: self.name_of(id),
                epoch: claim.epoch.0,
                reason: claim.reason,
                since_ms: self
                    .announcements
                    .gained_at(address)
                    .filter(|_| id == self.local.id())
                    .map(|at| millis(now.saturating_sub(at))),
            }),
            claims: self.claims.on(address).len(),
            answer: self.answer(address).map(|mac| mac.to_string()),
            waiting: self.waiting(now, address),
            candidates: shown.collect(),
            candidates_total: order().count(),
            next: next.map(|candidate| self.name_of(candidate.node)),
        }
    }

    /// Returns whether this node or peer could claim an address now.
    fn could_claim(&self, id: NodeId) -> bool {
        if id == self.local.id() { self.may_claim() } else { self.peers.get(id).is_some_and(peer::Peer::takes_part) }
    }

    fn waiting(&self, now: Duration, address: IpAddr) -> Option<Waiting> {
        match self.conflict_detection.verdict(now, address) {
            conflict_detection::Verdict::Probing => return Some(Waiting::Enquiry),
            conflict_detection::Verdict::Conflict { mac, .. } => {
                return Some(Waiting::Conflict { mac: mac.to_string() });
            }
            conflict_detection::Verdict::AnsweredByCluster { node, .. } => {
                return Some(Waiting::AnsweredByClusterNode { node: self.name_of(node) });
            }
            conflict_detection::Verdict::Unknown | conflict_detection::Verdict::Free { .. } => {}
        }
        if let Some(contention) = self.contest.get(address) {
            return Some(Waiting::Turn { reason: contention.reason });
        }
        let presumed = if self.best_claim(address).is_none() { self.presumed(address) } else { None };
        presumed.map(|node| Waiting::Presumed { node: self.name_of(node) })
    }
}

fn said(state: State) -> SpeakerState {
    match state {
        State::Listening => SpeakerState::Listening,
        State::Active => SpeakerState::Active,
        State::Restarting => SpeakerState::Restarting,
        State::Leaving => SpeakerState::Leaving,
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

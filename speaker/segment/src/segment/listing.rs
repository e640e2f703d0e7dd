//! Claims on the wire: changes at once, full lists on request, and what comes from others.

use std::{collections::VecDeque, net::IpAddr, ops::Bound, time::Duration};

use super::Segment;
use crate::{
    claim::{Birth, Claim},
    mutation::Mutation,
    node::NodeId,
    peers::Peer,
    types::Withdrawal,
    wire::{self, Body, Change, Claims, Sender, State},
};

/// Frames of a full list sent at once: 32 of 1,400 bytes stay well below the 212,992 bytes of a socket's default
/// receive buffer (net.core.rmem_default), which counts 2,304 bytes for each.
const PART: usize = 32;

/// Between two parts: 3,200 frames/s at most, 10,000 addresses in a tenth of a second.
const PART_EVERY: Duration = Duration::from_millis(10);

/// A full list on its way out.
#[derive(Debug)]
pub(super) struct FullList {
    frames: VecDeque<Claims>,
    next: Duration,
}

impl FullList {
    pub(super) fn next(&self) -> Duration {
        self.next
    }
}

impl Segment {
    /// Does this node know all that a peer claims? A peer that listens claims nothing yet; what its last run claimed
    /// stays as it is until then.
    pub(super) fn is_in_sync(&self, id: NodeId, peer: &Peer) -> bool {
        let claimed = peer.run.as_ref().filter(|run| run.state != State::Listening).map(|run| run.digest);
        claimed.is_none_or(|claimed| claimed == self.book.digest(id)) || self.breaks(Mutation::IgnoreDigests)
    }

    /// Does it know all that anybody who is heard claims?
    pub(super) fn is_all_in_sync(&self) -> bool {
        self.peers.iter().all(|(id, peer)| !peer.speaks() || self.is_in_sync(id, peer))
    }

    /// Sends this node's changed claims.
    pub(super) fn send_changes(&mut self, now: Duration) {
        if self.changes.is_empty() {
            return;
        }
        let changes = std::mem::take(&mut self.changes);
        for claims in wire::delta(self.id, changes.into_values().collect()) {
            self.send(Body::Claims(claims));
        }
        if let Some(list) = self.full_list.take() {
            // What is left of it is out of date.
            self.begin_full_list(now);
            if let Some(renewed) = &mut self.full_list {
                renewed.next = list.next;
            }
        }
    }

    /// Begins to send all claims, unless that is under way.
    pub(super) fn begin_full_list(&mut self, now: Duration) {
        if self.full_list.is_some() {
            return;
        }
        let claimed = self.book.range(self.id, ..).map(|claim| Change::Claimed(*claim));
        let gone = self.deleted.iter().map(|(address, birth)| withdrawn(address, *birth, true));
        let frames = wire::full_list(self.id, gone.chain(claimed).collect()).into();
        self.full_list = Some(FullList { frames, next: now });
    }

    /// Sends the next part of a full list that is on its way.
    pub(super) fn continue_full_list(&mut self, now: Duration) {
        if self.full_list.as_ref().is_none_or(|list| list.next > now) {
            return;
        }
        let Some(mut list) = self.full_list.take() else { return };
        let part = list.frames.len().min(PART);
        for claims in list.frames.drain(..part).collect::<Vec<_>>() {
            self.send(Body::Claims(claims));
        }
        if !list.frames.is_empty() {
            self.full_list = Some(FullList { next: now + PART_EVERY, ..list });
        }
    }

    /// Tells a peer that has restarted what its last run claimed, if this node is one of those that cover for it.
    pub(super) fn remind(&mut self, id: NodeId) {
        if self.state != State::Active || !self.is_coverer(id, false) {
            return;
        }
        let remembered: Vec<Change> = self.book.range(id, ..).map(|claim| Change::Claimed(*claim)).collect();
        for claims in wire::delta(id, remembered) {
            self.send(Body::Claims(claims));
        }
    }

    /// Takes in a part of somebody's claims.
    pub(super) fn claims_received(&mut self, now: Duration, sender: Sender, claims: &Claims) {
        let known = self.peers.get_mut(sender.node).and_then(|peer| peer.run.as_mut());
        let Some(run) = known.filter(|run| run.incarnation == sender.incarnation && run.sequence < sender.sequence)
        else {
            self.counters.replayed += 1;
            return;
        };
        run.sequence = sender.sequence;
        self.counters.accepted += 1;
        if claims.subject == self.id {
            self.reminded(claims);
        } else if claims.subject == sender.node {
            self.take_claims(now, sender.node, claims);
        }
    }

    /// Peers remember what this node claimed before it restarted.
    fn reminded(&mut self, claims: &Claims) {
        if self.state != State::Listening {
            return;
        }
        for change in &claims.changes {
            if let Change::Claimed(claim) = change {
                self.note_floor(claim);
                let known = self.resume.entry(claim.address).or_insert(*claim);
                if known.precedence() < claim.precedence() {
                    *known = *claim;
                }
            }
        }
    }

    fn take_claims(&mut self, now: Duration, id: NodeId, claims: &Claims) {
        let mut touched: Vec<IpAddr> = Vec::new();
        if let Some((first, last)) = claims.range {
            let said: std::collections::BTreeSet<_> = claims.changes.iter().map(Change::address).collect();
            let range = (Bound::Included(first), Bound::Included(last));
            let gone = self.book.range(id, range).map(|claim| claim.address).filter(|address| !said.contains(address));
            touched.extend(gone);
            for address in &touched {
                self.book.remove(id, *address);
            }
        }
        for change in &claims.changes {
            match change {
                Change::Claimed(claim) => {
                    self.note_floor(claim);
                    if self.book.set(id, *claim) {
                        touched.push(claim.address);
                    }
                    self.insist(now, claim);
                }
                Change::Withdrawn { address, birth, deleted } => {
                    if *deleted && !self.breaks(Mutation::ForgetDeletions) {
                        self.note_deleted(now, *address, *birth);
                    }
                    self.book.remove(id, *address);
                    touched.push(*address);
                }
            }
        }
        for address in touched {
            self.evaluate(now, address);
        }
        if self.peers.silent().any(|silent| !self.covers.contains(&silent)) {
            // A cover may have waited for this.
            self.peers_at = now;
        }
    }

    /// The owner that hears a losing claim says again that the address is its own, to the claimant and to everybody whom
    /// the claimant may have told otherwise.
    fn insist(&mut self, now: Duration, losing: &Claim) {
        let own = self.book.of(self.id, losing.address).copied();
        let Some(own) = own.filter(|own| own.precedence() > losing.precedence()) else { return };
        self.changes.insert(own.address, Change::Claimed(own));
        self.announce(now, own.address);
    }

    /// This node claims an address no more.
    pub(super) fn strike(&mut self, address: IpAddr, why: Option<Withdrawal>) {
        if let Some(claim) = self.book.remove(self.id, address) {
            let deleted = why == Some(Withdrawal::Deleted);
            self.changes.insert(address, withdrawn(address, claim.birth, deleted));
            self.announcer.cancel(address);
            self.state_changed = true;
        }
    }
}

fn withdrawn(address: IpAddr, birth: Birth, deleted: bool) -> Change {
    Change::Withdrawn { address, birth, deleted }
}

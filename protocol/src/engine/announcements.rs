//! The answers of this node, and their announcements (docs/protocol/announcements.md#when).

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use super::Engine;
use crate::{
    announce::{Announcer, Pace},
    io::Output,
    mac::MacAddr,
    mutation::Mutation,
    node::NodeId,
    peer::Peer,
    timers::{DEFEND_EVERY, lost_after},
};

/// What this node answers, and the announcements of it that are still to come.
#[derive(Debug)]
pub(super) struct Announcements {
    /// With which link-layer address a solicitation for each address is answered.
    answers: BTreeMap<IpAddr, MacAddr>,
    announcer: Announcer,
    /// When this node came to own each of its addresses.
    gained: BTreeMap<IpAddr, Duration>,
    /// When each address was last defended against another host.
    defended: BTreeMap<IpAddr, Duration>,
}

impl Announcements {
    pub(super) fn new(pace: Pace) -> Self {
        Self {
            answers: BTreeMap::new(),
            announcer: Announcer::new(pace),
            gained: BTreeMap::new(),
            defended: BTreeMap::new(),
        }
    }

    pub(super) fn answer(&self, address: IpAddr) -> Option<MacAddr> {
        self.answers.get(&address).copied()
    }

    pub(super) fn answers(&self) -> impl Iterator<Item = MacAddr> {
        self.answers.values().copied()
    }

    /// Sets the answer for an address. Returns whether it is another than before.
    fn set_answer(&mut self, address: IpAddr, answer: Option<MacAddr>) -> bool {
        let before = match answer {
            Some(mac) => self.answers.insert(address, mac),
            None => self.answers.remove(&address),
        };
        before != answer
    }

    /// Notes that this node has come to own an address.
    pub(super) fn gain(&mut self, now: Duration, address: IpAddr) {
        self.gained.insert(address, now);
    }

    /// Returns when this node came to own an address.
    pub(super) fn gained_at(&self, address: IpAddr) -> Option<Duration> {
        self.gained.get(&address).copied()
    }

    /// Notes that this node owns an address no longer: it announces the address no longer either.
    pub(super) fn lose(&mut self, address: IpAddr) {
        self.announcer.cancel(address);
        self.gained.remove(&address);
    }

    /// Returns whether announcements of an address are still to come.
    pub(super) fn are_pending(&self, address: IpAddr) -> bool {
        self.announcer.is_pending(address)
    }

    /// Announces an address once, in its turn from `at` on.
    pub(super) fn announce_in_turn(&mut self, at: Duration, address: IpAddr) {
        self.announcer.resumed(at, address);
    }

    /// Announces an address once, in its turn from `at` on, unless announcements of it are still to come anyway.
    pub(super) fn announce_unless_pending(&mut self, at: Duration, address: IpAddr) {
        if !self.are_pending(address) {
            self.announce_in_turn(at, address);
        }
    }

    /// Takes an address whose announcement is due.
    pub(super) fn poll(&mut self, now: Duration) -> Option<IpAddr> {
        self.announcer.poll(now)
    }

    pub(super) fn next(&self) -> Option<Duration> {
        self.announcer.poll_timeout()
    }

    /// Returns whether an address may be defended now (RFC 5227 section 2.4, DEFEND_INTERVAL), and notes that it is.
    pub(super) fn begin_defence(&mut self, now: Duration, address: IpAddr) -> bool {
        let due = self.defended.get(&address).is_none_or(|last| now >= *last + DEFEND_EVERY);
        if due {
            self.defended.insert(address, now);
        }
        due
    }

    /// Forgets the history of an address whose object is gone.
    pub(super) fn forget(&mut self, address: IpAddr) {
        self.defended.remove(&address);
    }
}

impl Engine {
    /// Sends the announcements that are due.
    pub(super) fn send_due_announcements(&mut self, now: Duration) {
        while self.may_announce()
            && let Some(address) = self.announcements.poll(now)
        {
            self.send_announcement(address);
        }
    }

    /// Renews the answers for the addresses of a node for which this node begins or ceases to cover.
    pub(super) fn refresh_answers_of(&mut self, id: NodeId) {
        let claimed: Vec<IpAddr> = self.claims.addresses_of(id).collect();
        for address in claimed.into_iter().chain(self.presumed_of(id)) {
            self.refresh_answer(address);
        }
    }

    /// Renews the answer for an address: it follows from who holds the address.
    pub(super) fn refresh_answer(&mut self, address: IpAddr) {
        let covered = |id: NodeId| self.peers.get(id).filter(|_| self.covers.contains(id)).and_then(Peer::mac);
        let answer = match self.best_claim(address) {
            Some((id, _)) if id == self.local.id() => Some(self.local.mac()),
            // An owner that is silent cannot withdraw an address that was deleted since.
            Some((id, claim)) if claim.cover && self.objects.deleted_birth(address) < Some(claim.birth) => covered(id),
            Some(_) => None,
            None if self.objects.contains(address) => {
                let seen = |id: &NodeId| self.overhearing.announcer(address) == Some(*id);
                self.presumed(address).filter(|id| seen(id) || !self.goes_by_saved_view()).and_then(covered)
            }
            None => None,
        };
        let ends = answer.is_none() && self.announcements.answer(address) == Some(self.local.mac());
        if ends && self.local.breaks(Mutation::KeepAnsweringAfterLoss) {
            return;
        }
        if self.announcements.set_answer(address, answer) {
            self.outbox.push(Output::Answers { address, mac: answer });
        }
    }

    /// Announces an address for which this node answers, now and in the rounds that follow.
    pub(super) fn announce(&mut self, now: Duration, address: IpAddr) {
        let own = self.claims.of(self.local.id(), address).is_some();
        if self.is_answering() {
            self.send_announcement(address);
            if own {
                self.announcements.announcer.gained(now, address);
            } else {
                self.announcements.announcer.gained_by_another(now, address);
            }
        } else if own {
            self.announcements.announce_in_turn(now, address);
        }
    }

    /// Sends an announcement of an address: at this node, or at a node for which it covers.
    pub(super) fn send_announcement(&mut self, address: IpAddr) {
        if let Some(mac) = self.announcements.answer(address) {
            self.outbox.push(Output::Announce { address, mac });
        }
    }

    /// Announces an address that another node has lost, which may have announced it. Hosts that believed that node
    /// learn where the address is from the owner, and from the nodes that cover for an owner that is silent.
    pub(super) fn announce_after_loss(&mut self, now: Duration, address: IpAddr) {
        if self.announcements.answer(address).is_some() {
            self.announce(now, address);
        }
    }

    /// Announces in turn, once, the addresses that this node has gained since a peer fell silent which is heard again
    /// and has been at work: the peer may have announced them as its own to others, which hear this node better.
    /// `since`: when the peer fell silent, if that is known.
    pub(super) fn announce_after_separation(&mut self, now: Duration, since: Duration) {
        let gained: Vec<IpAddr> =
            self.announcements.gained.iter().filter(|(_, at)| **at >= since).map(|(address, _)| *address).collect();
        for address in gained {
            self.announcements.announce_unless_pending(now, address);
        }
    }

    /// Announces this node's addresses after it was deaf. A peer may have taken them meanwhile and died since. Nobody
    /// contradicts this node's old claims then, but clients still use the dead peer's link-layer address. The
    /// announcements wait as long as a peer with a better claim needs to contradict.
    pub(super) fn announce_after_deafness(&mut self, now: Duration) {
        let at = now + lost_after(self.interval());
        let own: Vec<IpAddr> = self.claims.addresses_of(self.local.id()).collect();
        for address in own {
            self.announcements.announce_unless_pending(at, address);
        }
    }
}

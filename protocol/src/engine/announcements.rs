//! What this node answers for, and when it announces that (docs/protocol/announcements.md#when).

use std::{net::IpAddr, time::Duration};

use super::Engine;
use crate::{io::Output, mutation::Mutation, node::NodeId, peer::Peer, timers::lost_after};

impl Engine {
    /// What this node answers for the addresses of a node that it begins or ceases to cover for.
    pub(super) fn refresh_answers_of(&mut self, id: NodeId) {
        let claimed: Vec<IpAddr> = self.book.addresses_of(id).collect();
        for address in claimed.into_iter().chain(self.presumed_of(id)) {
            self.refresh_answer(address);
        }
    }

    /// What this node answers for an address with follows from who holds it.
    pub(super) fn refresh_answer(&mut self, address: IpAddr) {
        let covered = |id: NodeId| self.peers.get(id).filter(|_| self.covers.contains(&id)).and_then(Peer::mac);
        let answer = match self.best_claim(address) {
            Some((id, _)) if id == self.id => Some(self.config.mac),
            // Its owner cannot withdraw what was deleted since it fell silent.
            Some((id, claim)) if claim.cover && self.deleted_birth(address) < Some(claim.birth) => covered(id),
            Some(_) => None,
            None if self.vips.contains_key(&address) => {
                let seen = |id: &NodeId| self.announced_unheard.get(&address) == Some(id);
                self.presumed(address).filter(|id| seen(id) || !self.goes_by_saved_view()).and_then(covered)
            }
            None => None,
        };
        let before = self.answers.get(&address).copied();
        if answer == before
            || answer.is_none() && before == Some(self.config.mac) && self.breaks(Mutation::KeepAnsweringAfterLoss)
        {
            return;
        }
        match answer {
            Some(mac) => self.answers.insert(address, mac),
            None => self.answers.remove(&address),
        };
        self.outputs.push_back(Output::Answers { address, mac: answer });
    }

    /// Tells everybody where an address is for which this node answers, now and in the rounds that follow.
    pub(super) fn announce(&mut self, now: Duration, address: IpAddr) {
        let own = self.book.of(self.id, address).is_some();
        if self.is_answering() {
            self.send_announcement(address);
            if own {
                self.announcer.gained(now, address);
            } else {
                self.announcer.gained_by_another(now, address);
            }
        } else if own {
            self.announcer.resumed(now, address);
        }
    }

    /// An address is where this node answers that it is: with itself, or with a node that it covers for.
    pub(super) fn send_announcement(&mut self, address: IpAddr) {
        if let Some(mac) = self.answers.get(&address).copied() {
            self.outputs.push_back(Output::Announce { address, mac });
        }
    }

    /// Somebody has lost an address who may have announced it. Whoever believed it hears where the address is: from the
    /// owner, and from those who cover for an owner that is silent.
    pub(super) fn announce_after_loss(&mut self, now: Duration, address: IpAddr) {
        if self.answers.contains_key(&address) {
            self.announce(now, address);
        }
    }

    /// A peer is heard again that was not, and has been at work: it may have told others that what this node has come to
    /// own since is its own. They hear better, once, in turn. `since`: when it fell silent, if that is known.
    pub(super) fn announce_after_separation(&mut self, now: Duration, since: Duration) {
        let gained: Vec<IpAddr> =
            self.gained.iter().filter(|(_, at)| **at >= since).map(|(address, _)| *address).collect();
        for address in gained {
            if !self.announcer.is_pending(address) {
                self.announcer.resumed(now, address);
            }
        }
    }

    /// Who heard nothing may have been succeeded, and the successor may be gone again, with all that it knew: nobody says
    /// then that this node's claim is not the best, and clients follow the successor still. In the meantime whoever has a
    /// better claim says so.
    pub(super) fn announce_after_deafness(&mut self, now: Duration) {
        let at = now + lost_after(self.interval());
        let own: Vec<IpAddr> = self.book.addresses_of(self.id).collect();
        for address in own {
            if !self.announcer.is_pending(address) {
                self.announcer.resumed(at, address);
            }
        }
    }
}

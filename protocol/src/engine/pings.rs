//! Pings: to silent nodes, as a second opinion on their kernels, and to speaking ones, to find out which nodes answer
//! pings at all.

use std::{net::IpAddr, time::Duration};

use super::Engine;
use crate::{
    io::Output,
    mac::MacAddr,
    node::NodeId,
    timers::{self, PING_HABIT_EVERY, PING_HABIT_GAP},
};

impl Engine {
    /// Pings a silent node that is known to answer, if it is time.
    pub(super) fn ping_if_due(&mut self, now: Duration, id: NodeId, address: IpAddr, mac: MacAddr) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        if !peer.rest.kernel.ping_due(now) {
            return;
        }
        let wants_controls = peer.rest.kernel.wants_controls();
        self.outbox.push(Output::Ping { address, mac });
        if wants_controls {
            self.ask_controls();
        }
    }

    /// Returns how long an answer to a ping shows that its sender answers pings.
    pub(super) fn ping_habit_lasts(&self) -> Duration {
        timers::ping_habit_lasts(self.peers.iter().count())
    }

    /// Hastens the next question after ping habits, because there is a peer whose habit is not known. All nodes may
    /// learn of it at the same time, so each waits for a random time.
    pub(super) fn ping_soon(&mut self, now: Duration) {
        let delay = self.local.part_of(PING_HABIT_GAP);
        self.detector.pings_mut().hasten(now, delay, PING_HABIT_GAP);
    }

    /// Asks the peer whose turn it is whether it answers pings.
    pub(super) fn ask_who_answers_pings(&mut self, now: Duration) {
        if self.detector.pings().next().is_none_or(|next| next > now) {
            return;
        }
        // Of the peers that are due, one that used to answer comes first; and two nodes ask the same peers in different
        // orders.
        let place = |(id, due, again): (NodeId, Duration, bool)| {
            (due > now, due <= now && !again, due, id.0 ^ self.local.id().0)
        };
        let due = self.peers.iter().filter_map(|(id, peer)| {
            let (due, again) = peer.rest.kernel.ask_habit(peer.speaks())?;
            peer.probe_target().map(|_| (id, due, again))
        });
        let Some((id, due, _)) = due.min_by_key(|candidate| place(*candidate)) else {
            // A peer may come to state an address at which it can be asked.
            self.detector.pings_mut().rest_until((self.peers.speaking() > 0).then_some(now + PING_HABIT_EVERY));
            return;
        };
        if due > now {
            self.detector.pings_mut().rest_until(Some(due));
            return;
        }
        self.detector.pings_mut().asked(now, PING_HABIT_GAP);
        let Some(peer) = self.peers.get_for_note(id) else { return };
        let Some((address, mac)) = peer.probe_target() else { return };
        peer.rest.kernel.habit().aim((address, mac));
        peer.rest.kernel.habit().ask(now);
        self.outbox.push(Output::Ping { address, mac });
    }
}

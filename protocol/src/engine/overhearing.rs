//! Packets of nodes about addresses that they have not claimed.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use crate::{node::NodeId, timer_queue::TimerQueue};

/// A node announces an address and claims it at once, by two sockets: the claim may come after the announcement.
const CLAIM_MAY_FOLLOW: Duration = Duration::from_millis(100);

/// A node that was asked whether it has an address answers within this: 100 ms pass before the answer is judged, and a
/// busy kernel takes no longer than that once more.
const KERNEL_ANSWERS_WITHIN: Duration = Duration::from_millis(1000);

/// A packet that binds an address to a node which has not claimed it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Overheard {
    pub(super) node: NodeId,
    /// Whether the node sent the packet itself. Switches and routers answer for others.
    pub(super) itself: bool,
}

/// What was overheard, until it is judged, and what has come of it.
#[derive(Debug, Default)]
pub(super) struct Overhearing {
    /// What was overheard, until the moment in which it is judged.
    unjudged: TimerQueue<Overheard>,
    /// The nodes that took addresses by the evidence of an announcement, though they are not heard.
    announcers: BTreeMap<IpAddr, NodeId>,
    /// Addresses of this node's that another node was asked for, and until when it may answer.
    asked: TimerQueue<()>,
}

impl Overhearing {
    /// Takes in a packet, to be judged when the claim has had time to come. What was overheard before stands.
    pub(super) fn note(&mut self, now: Duration, address: IpAddr, overheard: Overheard) {
        if self.unjudged.get(address).is_none() {
            self.unjudged.set(now + CLAIM_MAY_FOLLOW, address, overheard);
        }
    }

    /// Returns when what was overheard of an address is judged.
    pub(super) fn judged_at(&self, address: IpAddr) -> Option<Duration> {
        self.unjudged.get(address).map(|(at, _)| at)
    }

    /// Drops what was overheard of an address.
    pub(super) fn drop_unjudged(&mut self, address: IpAddr) {
        self.unjudged.remove(address);
    }

    pub(super) fn pop_due(&mut self, now: Duration) -> Option<(IpAddr, Overheard)> {
        self.unjudged.pop_due(now).map(|(_, address, overheard)| (address, overheard))
    }

    pub(super) fn next(&self) -> Option<Duration> {
        self.unjudged.next()
    }

    /// Returns the node that is not heard and was overheard to announce the address.
    pub(super) fn announcer(&self, address: IpAddr) -> Option<NodeId> {
        self.announcers.get(&address).copied()
    }

    pub(super) fn set_announcer(&mut self, address: IpAddr, node: NodeId) {
        self.announcers.insert(address, node);
    }

    pub(super) fn forget_announcer(&mut self, address: IpAddr) {
        self.announcers.remove(&address);
    }

    /// Asks whether another node has an address of this node's. Returns until when it may answer; nothing, if the
    /// question is out already.
    pub(super) fn ask(&mut self, now: Duration, address: IpAddr) -> Option<Duration> {
        while self.asked.pop_due(now).is_some() {}
        if self.asked.get(address).is_some() {
            return None;
        }
        let until = now + KERNEL_ANSWERS_WITHIN;
        self.asked.set(until, address, ());
        Some(until)
    }
}

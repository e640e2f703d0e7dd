//! The contest for addresses: which this node is about to claim, and when each is to be looked at again.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use crate::{
    claim::Reason,
    hold_down::{HoldDown, Takes},
    node::NodeId,
    timer_queue::TimerQueue,
};

/// An address that this node is about to claim unless another does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Contention {
    pub(super) reason: Reason,
    /// Since when nobody holds the address as it should be held, and this node could claim it.
    pub(super) since: Duration,
    /// The node that held it and is dead.
    pub(super) left_by: Option<NodeId>,
}

/// The addresses that this node contends for, and what keeps it from claiming some of them.
#[derive(Debug, Default)]
pub(super) struct Contest {
    contentions: BTreeMap<IpAddr, Contention>,
    /// When addresses are to be decided about again.
    turns: TimerQueue<()>,
    hold_down: HoldDown,
    takes: Takes,
}

impl Contest {
    pub(super) fn is_empty(&self) -> bool {
        self.contentions.is_empty()
    }

    pub(super) fn get(&self, address: IpAddr) -> Option<Contention> {
        self.contentions.get(&address).copied()
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.contentions.keys().copied()
    }

    /// Begins to contend for an address, whatever was known of it before.
    pub(super) fn begin(&mut self, address: IpAddr, contention: Contention) {
        self.contentions.insert(address, contention);
    }

    /// Begins to contend for an address, or goes on. The reason of an address that is vacant for all that is known does
    /// not replace another one. A node that may not claim now has its turn counted from when it may.
    pub(super) fn go_on(&mut self, now: Duration, address: IpAddr, reason: Reason, may_claim: bool) -> Contention {
        let contention = self.contentions.entry(address).or_insert(Contention { reason, since: now, left_by: None });
        if reason != Reason::Vacant {
            contention.reason = reason;
        }
        if !may_claim {
            contention.since = now;
        }
        *contention
    }

    /// Ends the contention for an address. Returns whether there was one.
    pub(super) fn settle(&mut self, address: IpAddr) -> bool {
        self.contentions.remove(&address).is_some()
    }

    /// Counts every turn from now on.
    pub(super) fn restart(&mut self, now: Duration) {
        for contention in self.contentions.values_mut() {
            contention.since = now;
        }
    }

    /// Ends all contentions. The addresses are decided about again at the moments that are set.
    pub(super) fn settle_all(&mut self) {
        self.contentions.clear();
    }

    /// Ends all contentions, and forgets when addresses were to be decided about again.
    pub(super) fn clear(&mut self) {
        self.settle_all();
        self.turns.clear();
    }

    /// Sets when an address is decided about again; what was set before is replaced.
    pub(super) fn decide_at(&mut self, at: Duration, address: IpAddr) {
        self.turns.set(at, address, ());
    }

    pub(super) fn pop_due(&mut self, now: Duration) -> Option<IpAddr> {
        self.turns.pop_due(now).map(|(_, address, ())| address)
    }

    pub(super) fn next(&self) -> Option<Duration> {
        self.turns.next()
    }

    /// Notes that a fitter node has taken an address from this one.
    pub(super) fn note_deposed(&mut self, now: Duration, address: IpAddr) {
        self.hold_down.deposed(now, address);
    }

    /// Returns until when this node may not take an address for being fitter.
    pub(super) fn held_down_until(&self, now: Duration, address: IpAddr) -> Option<Duration> {
        self.hold_down.until(now, address)
    }

    /// Notes that this node has taken an address from an owner that is no candidate.
    pub(super) fn note_taken(&mut self, now: Duration, address: IpAddr) {
        self.takes.took(now, address);
    }

    /// Returns until when this node may not take an address from an owner that is no candidate.
    pub(super) fn pauses_until(&self, now: Duration, address: IpAddr) -> Option<Duration> {
        self.takes.until(now, address)
    }

    /// Forgets the history of an address whose object is gone.
    pub(super) fn forget(&mut self, address: IpAddr) {
        self.hold_down.forget(address);
        self.takes.forget(address);
    }
}

//! The identity of this node on the segment, and the source of its jitter.

use std::{net::IpAddr, time::Duration};

use crate::{
    io::Config,
    mac::MacAddr,
    mutation::Mutation,
    node::{Incarnation, NodeId, NodeName},
    timers::Timers,
};

/// This node, as its configuration describes it. Only its link-layer address and its own address change later.
#[derive(Debug)]
pub(super) struct Local {
    config: Config,
    id: NodeId,
    rng: fastrand::Rng,
}

impl Local {
    pub(super) fn new(config: Config) -> Self {
        Self { id: config.node.id(), rng: fastrand::Rng::with_seed(config.seed), config }
    }

    pub(super) fn id(&self) -> NodeId {
        self.id
    }

    pub(super) fn name(&self) -> &NodeName {
        &self.config.node
    }

    pub(super) fn incarnation(&self) -> Incarnation {
        self.config.incarnation
    }

    pub(super) fn mac(&self) -> MacAddr {
        self.config.mac
    }

    /// Returns an address of the node's own on the segment.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.config.address
    }

    pub(super) fn timers(&self) -> Timers {
        self.config.timers
    }

    /// Returns whether an address is probed before its first claim ever (RFC 5227 section 2.1.1).
    pub(super) fn probes_first_claims(&self) -> bool {
        self.config.first_claim_probe
    }

    /// Takes in the node's own addresses on the segment. Returns whether the link-layer address has changed.
    pub(super) fn take_interface(&mut self, mac: MacAddr, address: Option<IpAddr>) -> bool {
        self.config.address = address;
        std::mem::replace(&mut self.config.mac, mac) != mac
    }

    /// Returns a random part of a time.
    pub(super) fn part_of(&mut self, time: Duration) -> Duration {
        time.mul_f64(self.rng.f64())
    }

    /// Returns a random percentage of a time, `least` at least.
    pub(super) fn percentage_of(&mut self, time: Duration, least: u32) -> Duration {
        time * self.rng.u32(least..=100) / 100
    }

    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        self.rng.shuffle(items);
    }

    /// Returns whether this rule is broken on purpose.
    #[cfg(feature = "mutations")]
    pub(super) fn breaks(&self, mutation: Mutation) -> bool {
        self.config.mutation == Some(mutation)
    }

    /// Returns whether this rule is broken on purpose: never in a build without the feature.
    #[cfg(not(feature = "mutations"))]
    #[expect(clippy::unused_self, reason = "the same call with and without the feature")]
    pub(super) const fn breaks(&self, _: Mutation) -> bool {
        false
    }
}

//! The other runs of this speaker: one for each interface of the node that has a segment.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{io::Sibling, mac::MacAddr, node::Incarnation};

/// The runs that this speaker has on other interfaces, and what is kept for them until the caller takes it.
#[derive(Debug, Default)]
pub(super) struct Siblings {
    macs: BTreeMap<Incarnation, MacAddr>,
    /// What peers said that an earlier run of this node claimed.
    reminded_of: BTreeSet<IpAddr>,
    /// The last frame of a sibling that was heard here: both are on one segment.
    heard: Option<Sibling>,
}

impl Siblings {
    pub(super) fn set(&mut self, macs: BTreeMap<Incarnation, MacAddr>) {
        self.macs = macs;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.macs.is_empty()
    }

    pub(super) fn contains(&self, incarnation: Incarnation) -> bool {
        self.macs.contains_key(&incarnation)
    }

    /// Returns whether a sibling's interface has this link-layer address.
    pub(super) fn have_mac(&self, mac: MacAddr) -> bool {
        self.macs.values().any(|sibling| *sibling == mac)
    }

    /// Notes an address that an earlier run of this node claimed: it may lie on a sibling's interface. Without siblings
    /// nobody asks for that.
    pub(super) fn note_reminded(&mut self, address: IpAddr) {
        if !self.is_empty() {
            self.reminded_of.insert(address);
        }
    }

    pub(super) fn take_reminded(&mut self) -> BTreeSet<IpAddr> {
        std::mem::take(&mut self.reminded_of)
    }

    pub(super) fn note_heard(&mut self, frame: Sibling) {
        self.heard = Some(frame);
    }

    pub(super) fn take_heard(&mut self) -> Option<Sibling> {
        self.heard.take()
    }
}

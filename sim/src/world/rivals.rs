//! A second cluster on the segment that announces some of the same addresses.
//!
//! A speaker's key is derived from the Secret and the cluster's own UID (docs/protocol/frames.md#keys), so the two
//! clusters drop each other's frames even if they have one Secret, and each is a stranger to the other. Only clusters
//! with one UID, as a snapshot of etcd makes them, read each other's frames: [`Rivals::Cloned`].

use std::{sync::Arc, time::Duration};

use herald_protocol::{
    api_view::{Candidate, Class, Vip},
    claim::Birth,
};

use super::World;
use crate::{
    api::{FIRST_BIRTH, first_uid},
    check::{Invariant, Violation},
    history::{History, Rivals, Role},
    names::{AddrIx, NodeIx},
    node::Node,
};

/// Births of the other cluster's objects: in between those of the cluster's own, which are created again now and then.
const RIVAL_BIRTH: Birth = Birth(1_700_000_015);

/// The other cluster.
#[derive(Debug)]
pub(super) struct Other {
    /// By address: its object, if it has one.
    pub(super) view: Vec<Option<Arc<Vip>>>,
    /// By address: the other cluster's node that owns it, and since when.
    owner: Vec<Option<(NodeIx, Duration)>>,
}

impl Other {
    pub(super) fn new(history: &History, nodes: &[Node]) -> Self {
        let rivals = &nodes[history.nodes..history.nodes + history.rivals];
        let object = |address: AddrIx| {
            let (birth, uid) = match history.rivals_are {
                Rivals::Another => (RIVAL_BIRTH, format!("other-uid-{address}").into()),
                Rivals::Cloned => (FIRST_BIRTH, first_uid(address)),
            };
            let candidates = rivals.iter().map(|node| Candidate { node: node.id, class: Class(0) }).collect();
            Arc::new(Vip {
                birth,
                uid,
                candidates,
                announced_by: None,
                given_up: None,
                held_here: false,
                ever_announced: false,
                cover: true,
            })
        };
        let addresses = 0..history.addresses;
        Self {
            view: addresses.map(|address| history.is_contested(address).then(|| object(address))).collect(),
            owner: vec![None; history.addresses],
        }
    }
}

impl World<'_> {
    pub(super) fn is_rival(&self, node: NodeIx) -> bool {
        self.history.role(node) == Role::Rival
    }

    /// Notes that a node of the other cluster owns an address, or has ceased to.
    pub(super) fn rival_owns(&mut self, node: NodeIx, address: AddrIx, owns: bool) {
        let owner = &mut self.other.owner[address];
        if owns {
            *owner = Some((node, self.now));
        } else if owner.is_some_and(|(by, _)| by == node) {
            *owner = None;
        }
    }

    /// Returns the node of the other cluster that owns an address, and since when.
    pub(super) fn rival_owner(&self, address: AddrIx) -> Option<(NodeIx, Duration)> {
        self.other.owner[address]
    }

    /// For each address that both clusters use, a node must have reported the conflict, whichever cluster has the
    /// address.
    pub(super) fn look_for_untold_conflicts(&mut self) {
        if self.history.rivals_are == Rivals::Cloned {
            return;
        }
        for address in (0..self.history.addresses).filter(|address| self.history.is_contested(*address)) {
            let both = self.judges.owners.holders(address).next().is_some() && self.rival_owner(address).is_some();
            if both && !self.strangers.is_told(address) {
                let seen = format!("two clusters announce address {address}, and no node has reported a conflict");
                self.violate(Violation { invariant: Invariant::Stranger, at: self.now, seen });
                return;
            }
        }
    }
}

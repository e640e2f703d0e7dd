//! The known claims.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::RangeBounds,
};

use crate::{
    claim::{Claim, Digest},
    node::{NodeId, NodeMap},
};

/// Every claim that this node knows of, its own included, by address and by node.
#[derive(Debug, Default)]
pub(crate) struct ClaimTable {
    /// The claims on each address; nearly always one.
    by_address: BTreeMap<IpAddr, Vec<(NodeId, Claim)>>,
    by_node: NodeMap<Holdings>,
}

#[derive(Debug, Default)]
struct Holdings {
    addresses: BTreeSet<IpAddr>,
    digest: Digest,
}

impl ClaimTable {
    /// Enters a claim. Returns whether that changes anything.
    pub(crate) fn set(&mut self, node: NodeId, claim: Claim) -> bool {
        let claims = self.by_address.entry(claim.address).or_default();
        let holdings = self.by_node.entry(node).or_default();
        match claims.iter_mut().find(|(holder, _)| *holder == node) {
            Some((_, known)) if *known == claim => return false,
            Some((_, known)) => {
                holdings.digest.remove(known.fingerprint());
                *known = claim;
            }
            None => {
                claims.push((node, claim));
                holdings.addresses.insert(claim.address);
            }
        }
        holdings.digest.add(claim.fingerprint());
        true
    }

    /// Removes a claim.
    pub(crate) fn remove(&mut self, node: NodeId, address: IpAddr) -> Option<Claim> {
        let claims = self.by_address.get_mut(&address)?;
        let index = claims.iter().position(|(holder, _)| *holder == node)?;
        let (_, claim) = claims.swap_remove(index);
        if claims.is_empty() {
            self.by_address.remove(&address);
        }
        if let Some(holdings) = self.by_node.get_mut(&node) {
            holdings.addresses.remove(&address);
            holdings.digest.remove(claim.fingerprint());
            if holdings.addresses.is_empty() {
                self.by_node.remove(&node);
            }
        }
        Some(claim)
    }

    /// Removes all claims of a node.
    pub(crate) fn remove_node(&mut self, node: NodeId) -> Vec<Claim> {
        let addresses: Vec<IpAddr> = self.addresses_of(node).collect();
        addresses.into_iter().filter_map(|address| self.remove(node, address)).collect()
    }

    /// Returns the highest claim on an address, by `order`.
    pub(crate) fn best<K: Ord>(&self, address: IpAddr, order: impl Fn(NodeId, &Claim) -> K) -> Option<(NodeId, Claim)> {
        let claims = self.by_address.get(&address)?;
        claims.iter().max_by_key(|(node, claim)| order(*node, claim)).copied()
    }

    /// Returns every claim on an address.
    pub(crate) fn on(&self, address: IpAddr) -> &[(NodeId, Claim)] {
        self.by_address.get(&address).map(Vec::as_slice).unwrap_or_default()
    }

    /// Returns every address that any node claims, in ascending order.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.by_address.keys().copied()
    }

    /// Returns a node's claim on an address.
    pub(crate) fn of(&self, node: NodeId, address: IpAddr) -> Option<&Claim> {
        self.by_address.get(&address)?.iter().find(|(holder, _)| *holder == node).map(|(_, claim)| claim)
    }

    /// Returns the addresses that a node claims, in ascending order.
    pub(crate) fn addresses_of(&self, node: NodeId) -> impl Iterator<Item = IpAddr> {
        self.by_node.get(&node).into_iter().flat_map(|holdings| holdings.addresses.iter().copied())
    }

    /// A node's claims within a range, in ascending order of addresses.
    pub(crate) fn range(&self, node: NodeId, range: impl RangeBounds<IpAddr> + Clone) -> impl Iterator<Item = &Claim> {
        let holdings = self.by_node.get(&node).into_iter();
        holdings
            .flat_map(move |holdings| holdings.addresses.range(range.clone()))
            .filter_map(move |address| self.of(node, *address))
    }

    /// A node's claims in short.
    pub(crate) fn digest(&self, node: NodeId) -> Digest {
        self.by_node.get(&node).map(|holdings| holdings.digest).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::claim::{Birth, ClaimKey, Epoch, Reason};

    fn claim(address: u8, epoch: u32) -> Claim {
        Claim {
            address: IpAddr::from([192, 0, 2, address]),
            birth: Birth(1),
            epoch: Epoch(epoch),
            key: ClaimKey(u64::from(address)),
            reason: Reason::Vacant,
            cover: true,
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Set(u64, u8, u32),
        Remove(u64, u8),
        RemoveNode(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (0u64..4, 0u8..6, 0u32..4).prop_map(|(n, a, e)| Step::Set(n, a, e)),
            3 => (0u64..4, 0u8..6).prop_map(|(n, a)| Step::Remove(n, a)),
            1 => (0u64..4).prop_map(Step::RemoveNode),
        ];
        prop::collection::vec(step, 0..60)
    }

    proptest! {
        /// Compares the table with the naive model: one map of claims by node and address.
        #[test]
        fn agrees_with_one_map(steps in steps()) {
            let mut book = ClaimTable::default();
            let mut model: BTreeMap<(u64, IpAddr), Claim> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Set(node, address, epoch) => {
                        let claim = claim(address, epoch);
                        let changed = book.set(NodeId(node), claim);
                        prop_assert_eq!(changed, model.insert((node, claim.address), claim) != Some(claim));
                    }
                    Step::Remove(node, address) => {
                        let address = IpAddr::from([192, 0, 2, address]);
                        prop_assert_eq!(book.remove(NodeId(node), address), model.remove(&(node, address)));
                    }
                    Step::RemoveNode(node) => {
                        let mut removed = book.remove_node(NodeId(node));
                        removed.sort();
                        let mut expected: Vec<_> = model.extract_if(.., |(n, _), _| *n == node).map(|(_, c)| c).collect();
                        expected.sort();
                        prop_assert_eq!(removed, expected);
                    }
                }
            }
            for node in 0..4 {
                let claims: Vec<Claim> = model.iter().filter(|((n, _), _)| *n == node).map(|(_, c)| *c).collect();
                let mut digest = Digest::default();
                claims.iter().for_each(|claim| digest.add(claim.fingerprint()));
                prop_assert_eq!(book.digest(NodeId(node)), digest);
                prop_assert_eq!(book.range(NodeId(node), ..).copied().collect::<Vec<_>>(), claims);
            }
            for address in 0..6 {
                let address = IpAddr::from([192, 0, 2, address]);
                let best = book.best(address, |node, claim| (claim.precedence(), node)).map(|(node, claim)| (claim.precedence(), node.0));
                let expected = model.iter().filter(|((_, a), _)| *a == address).map(|((n, _), c)| (c.precedence(), *n)).max();
                prop_assert_eq!(best, expected);
            }
        }
    }
}

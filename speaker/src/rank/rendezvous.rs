//! The order of nodes that are equal in everything else: highest random weight (Thaler and Ravishankar 1998).
//!
//! A score is the hash of an address, its object and a node. A score depends on nothing that changes every day, so it
//! is computed once and kept: 8 bytes for each address and node, 8 MB for 10,000 addresses and 100 nodes.

use std::{collections::BTreeMap, net::IpAddr, num::NonZeroU64};

use sha2::{Digest, Sha256};

use crate::api_objects::Vip;

/// The scores computed so far.
#[derive(Debug, Default)]
pub struct Scores {
    /// The place of a node's score in each row.
    columns: BTreeMap<String, usize>,
    /// Columns of nodes that are gone: empty in every row.
    free: Vec<usize>,
    rows: BTreeMap<IpAddr, Row>,
}

/// The scores of one address.
#[derive(Debug, Default)]
struct Row {
    /// The UID of the object that the scores were computed for.
    uid: String,
    scores: Vec<Option<NonZeroU64>>,
}

impl Scores {
    /// Returns the score of a node for an address: the higher one comes first.
    pub fn score(&mut self, vip: &Vip, node: &str) -> NonZeroU64 {
        let column = self.column(node);
        let row = self.rows.entry(vip.address).or_default();
        if row.uid != vip.uid {
            *row = Row { uid: vip.uid.clone(), scores: Vec::new() };
        }
        if row.scores.len() <= column {
            row.scores.resize(column + 1, None);
        }
        match row.scores.get_mut(column) {
            Some(kept) => *kept.get_or_insert_with(|| rendezvous(vip, node)),
            None => rendezvous(vip, node),
        }
    }

    /// Forgets a node that is gone.
    pub fn forget_node(&mut self, node: &str) {
        let Some(column) = self.columns.remove(node) else { return };
        for row in self.rows.values_mut() {
            if let Some(score) = row.scores.get_mut(column) {
                *score = None;
            }
        }
        self.free.push(column);
    }

    /// Forgets an address that is gone.
    pub fn forget_address(&mut self, address: IpAddr) {
        self.rows.remove(&address);
    }

    fn column(&mut self, node: &str) -> usize {
        if let Some(column) = self.columns.get(node) {
            return *column;
        }
        let column = self.free.pop().unwrap_or(self.columns.len());
        self.columns.insert(node.to_owned(), column);
        column
    }
}

/// Returns the first eight bytes of the hash, which order as the whole does but for one pair in 2^64.
fn rendezvous(vip: &Vip, node: &str) -> NonZeroU64 {
    #[cfg(test)]
    tests::count_hash();
    // NUL cannot occur in any of the three, so no two inputs run together.
    let mut hash = Sha256::new();
    for part in [vip.address.to_string().as_str(), &vip.uid, node] {
        hash.update(part);
        hash.update([0]);
    }
    let [a, b, c, d, e, f, g, h, ..] = <[u8; 32]>::from(hash.finalize());
    NonZeroU64::new(u64::from_be_bytes([a, b, c, d, e, f, g, h])).unwrap_or(NonZeroU64::MIN)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::rank::tests::vip;

    thread_local! {
        static HASHES: Cell<u64> = const { Cell::new(0) };
    }

    pub(super) fn count_hash() {
        HASHES.set(HASHES.get() + 1);
    }

    /// Returns the number of hashes that this thread has computed.
    pub(crate) fn hashes() -> u64 {
        HASHES.get()
    }

    #[test]
    fn score_is_computed_once() {
        let mut scores = Scores::default();
        let (vip, before) = (vip("192.0.2.10"), hashes());
        let first = scores.score(&vip, "a");
        assert_eq!(scores.score(&vip, "a"), first);
        assert_ne!(scores.score(&vip, "b"), first);
        assert_eq!(hashes() - before, 2);
    }

    #[test]
    fn address_with_another_object_is_scored_again() {
        let mut scores = Scores::default();
        let first = vip("192.0.2.10");
        let second = Vip { uid: "another".to_owned(), ..first.clone() };
        assert_ne!(scores.score(&first, "a"), scores.score(&second, "a"));
        assert_eq!(scores.score(&second, "a"), Scores::default().score(&second, "a"));
    }

    #[test]
    fn column_of_a_gone_node_is_reused() {
        let mut scores = Scores::default();
        let vip = vip("192.0.2.10");
        let b = ["a", "b"].map(|node| scores.score(&vip, node))[1];
        scores.forget_node("a");
        assert_eq!(scores.score(&vip, "c"), Scores::default().score(&vip, "c"));
        assert_eq!(scores.score(&vip, "b"), b);
        assert_eq!(scores.rows[&vip.address].scores.len(), 2, "nodes that come and go take no additional room");
        scores.forget_address(vip.address);
        assert!(scores.rows.is_empty());
    }
}

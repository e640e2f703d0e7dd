//! Sets of addresses as sorted runs, so that a /8 costs the same as a /28.

use std::net::IpAddr;

use super::{AddressBlock, IpFamily, bits};

/// A set of addresses of both families.
///
/// Guarantees: runs of one family are sorted, disjoint and not adjacent; every operation costs time in the number of
/// runs, never in the number of addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressSet {
    v4: Runs,
    v6: Runs,
}

/// Sorted inclusive runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Runs(Vec<(u128, u128)>);

impl AddressSet {
    /// Returns the empty set.
    pub fn new() -> Self {
        Self::default()
    }

    fn runs(&self, family: IpFamily) -> &Runs {
        match family {
            IpFamily::V4 => &self.v4,
            IpFamily::V6 => &self.v6,
        }
    }

    fn runs_mut(&mut self, family: IpFamily) -> &mut Runs {
        match family {
            IpFamily::V4 => &mut self.v4,
            IpFamily::V6 => &mut self.v6,
        }
    }

    /// Adds a block.
    pub fn insert(&mut self, block: &AddressBlock) {
        self.runs_mut(block.family()).insert(block.bounds());
    }

    /// Removes a block.
    pub fn remove(&mut self, block: &AddressBlock) {
        self.runs_mut(block.family()).remove(block.bounds());
    }

    /// Returns whether the address is in the set.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.runs(IpFamily::of(address)).run_holding(bits(address)).is_some()
    }

    /// Returns whether the set has no address of either family.
    pub fn is_empty(&self) -> bool {
        self.v4.0.is_empty() && self.v6.0.is_empty()
    }

    /// Returns the number of addresses of a family; saturates at 2^128 - 1 (only `::/0` has one more).
    pub fn len(&self, family: IpFamily) -> u128 {
        self.runs(family).0.iter().fold(0, |sum: u128, (a, b)| sum.saturating_add((b - a).saturating_add(1)))
    }

    /// Returns the lowest address of the family.
    pub fn first(&self, family: IpFamily) -> Option<IpAddr> {
        self.runs(family).0.first().map(|run| family.address(run.0))
    }

    /// Returns the lowest address of the family at or above `from`, else the lowest of all: a next-fit search that
    /// comes back to a freed address last.
    pub fn first_from(&self, family: IpFamily, from: IpAddr) -> Option<IpAddr> {
        let from = bits(from);
        let runs = &self.runs(family).0;
        let next = runs.iter().find(|(_, last)| *last >= from).map(|(first, _)| (*first).max(from));
        next.map(|bits| family.address(bits)).or_else(|| self.first(family))
    }

    /// Returns the runs of a family as blocks, lowest first.
    pub fn blocks(&self, family: IpFamily) -> impl Iterator<Item = (IpAddr, IpAddr)> {
        self.runs(family).0.iter().map(move |(a, b)| (family.address(*a), family.address(*b)))
    }

    /// Adds all addresses of another set.
    pub fn unite(&mut self, other: &Self) {
        for family in IpFamily::ALL {
            other.runs(family).0.iter().for_each(|run| self.runs_mut(family).insert(*run));
        }
    }

    /// Removes all addresses of another set.
    pub fn subtract(&mut self, other: &Self) {
        for family in IpFamily::ALL {
            other.runs(family).0.iter().for_each(|run| self.runs_mut(family).remove(*run));
        }
    }

    /// Returns the addresses that are in both sets.
    pub fn intersection(&self, other: &Self) -> Self {
        Self { v4: self.v4.intersection(&other.v4), v6: self.v6.intersection(&other.v6) }
    }
}

impl<'a> FromIterator<&'a AddressBlock> for AddressSet {
    fn from_iter<I: IntoIterator<Item = &'a AddressBlock>>(blocks: I) -> Self {
        let mut set = Self::new();
        for block in blocks {
            set.insert(block);
        }
        set
    }
}

impl Runs {
    fn run_holding(&self, bits: u128) -> Option<usize> {
        let after = self.0.partition_point(|(first, _)| *first <= bits);
        let at = after.checked_sub(1)?;
        (self.0[at].1 >= bits).then_some(at)
    }

    fn insert(&mut self, (first, last): (u128, u128)) {
        // These runs touch or overlap the new one: they end at first - 1 or later and start at last + 1 or before.
        let from = self.0.partition_point(|(_, end)| end.saturating_add(1) < first);
        let to = self.0.partition_point(|(start, _)| *start <= last.saturating_add(1));
        let merged = self.0[from..to].iter().fold((first, last), |m, r| (m.0.min(r.0), m.1.max(r.1)));
        self.0.splice(from..to, [merged]);
    }

    fn remove(&mut self, (first, last): (u128, u128)) {
        let from = self.0.partition_point(|(_, end)| *end < first);
        let to = self.0.partition_point(|(start, _)| *start <= last);
        let mut kept = Vec::new();
        for (start, end) in &self.0[from..to] {
            if *start < first {
                kept.push((*start, first - 1));
            }
            if *end > last {
                kept.push((last + 1, *end));
            }
        }
        self.0.splice(from..to, kept);
    }

    fn intersection(&self, other: &Self) -> Self {
        let (mut i, mut j, mut out) = (0, 0, Vec::new());
        while let (Some(a), Some(b)) = (self.0.get(i), other.0.get(j)) {
            let (first, last) = (a.0.max(b.0), a.1.min(b.1));
            if first <= last {
                out.push((first, last));
            }
            if a.1 < b.1 { i += 1 } else { j += 1 }
        }
        Self(out)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn set(blocks: &[&str]) -> AddressSet {
        blocks.iter().map(|b| b.parse().unwrap()).collect::<Vec<AddressBlock>>().iter().collect()
    }

    #[test]
    fn length_of_the_whole_space_saturates() {
        assert_eq!(set(&["::/0"]).len(IpFamily::V6), u128::MAX);
        assert_eq!(set(&["0.0.0.0/0"]).len(IpFamily::V4), 1 << 32);
        assert_eq!(set(&["2001:db8::/64"]).len(IpFamily::V6), 1 << 64);
    }

    #[test]
    fn ends_of_the_space_can_be_removed() {
        let mut all = set(&["::/0"]);
        all.remove(&"::".parse().unwrap());
        all.remove(&"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap());
        assert_eq!(all.first(IpFamily::V6), Some("::1".parse().unwrap()));
        assert_eq!(all.len(IpFamily::V6), u128::MAX - 1);
    }

    #[test]
    fn next_fit_search_wraps() {
        let free = set(&["10.0.0.2-10.0.0.3", "10.0.0.8"]);
        let from = |a: &str| free.first_from(IpFamily::V4, a.parse().unwrap()).unwrap().to_string();
        assert_eq!(from("10.0.0.3"), "10.0.0.3");
        assert_eq!(from("10.0.0.4"), "10.0.0.8");
        assert_eq!(from("10.0.0.9"), "10.0.0.2");
    }

    proptest! {
        /// The set equals a naive set of integers after inserts and removals of short runs in a small space, in any
        /// order.
        #[test]
        fn behaves_like_a_naive_set(steps in prop::collection::vec((any::<bool>(), 0u32..64, 0u32..16), 0..40)) {
            let (mut runs, mut naive) = (AddressSet::new(), BTreeSet::new());
            for (insert, first, extra) in steps {
                let last = first + extra;
                let address = |bits| IpAddr::V4(std::net::Ipv4Addr::from_bits(bits));
                let block: AddressBlock = format!("{}-{}", address(first), address(last)).parse().unwrap();
                if insert { runs.insert(&block); naive.extend(first..=last); }
                else { runs.remove(&block); naive.retain(|a| *a < first || *a > last); }
                prop_assert_eq!(runs.len(IpFamily::V4), naive.len() as u128);
                for bits in 0..96 {
                    prop_assert_eq!(runs.contains(address(bits)), naive.contains(&bits));
                }
                // The runs are disjoint, sorted and not adjacent.
                let bounds: Vec<_> = runs.blocks(IpFamily::V4).map(|(a, b)| (bits(a), bits(b))).collect();
                prop_assert!(bounds.windows(2).all(|w| w[0].1 + 1 < w[1].0));
            }
        }

        #[test]
        fn intersection_holds_the_common_addresses(a in prop::collection::vec((0u32..64, 0u32..9), 0..6),
                                             b in prop::collection::vec((0u32..64, 0u32..9), 0..6)) {
            let address = |bits| IpAddr::V4(std::net::Ipv4Addr::from_bits(bits));
            let make = |runs: &[(u32, u32)]| -> AddressSet {
                let blocks: Vec<AddressBlock> = runs.iter()
                    .map(|(f, n)| format!("{}-{}", address(*f), address(f + n)).parse().unwrap()).collect();
                blocks.iter().collect()
            };
            let (a, b) = (make(&a), make(&b));
            let both = a.intersection(&b);
            for bits in 0..80 {
                prop_assert_eq!(both.contains(address(bits)), a.contains(address(bits)) && b.contains(address(bits)));
            }
        }
    }
}

//! Actions with their times, one per address.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

/// Addresses with a moment each and the action due then, found by address and by moment in O(log n): a segment may lose
/// 1,000 addresses at once.
#[derive(Debug)]
pub(crate) struct TimerQueue<T> {
    entries: BTreeMap<IpAddr, (Duration, T)>,
    /// The same addresses, the earliest first. Only the methods below touch the two, always both.
    order: BTreeSet<(Duration, IpAddr)>,
    /// The moment of the first of them: it is read at each event, and the tree lies elsewhere in memory.
    next: Option<Duration>,
}

impl<T> Default for TimerQueue<T> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), order: BTreeSet::new(), next: None }
    }
}

impl<T> TimerQueue<T> {
    /// Sets the action for an address at a moment; replaces what was set before.
    pub(crate) fn set(&mut self, at: Duration, address: IpAddr, what: T) {
        if let Some((before, _)) = self.entries.insert(address, (at, what)) {
            self.order.remove(&(before, address));
        }
        self.order.insert((at, address));
        self.look_up_next();
    }

    /// Returns what is set for an address, and for when.
    pub(crate) fn get(&self, address: IpAddr) -> Option<(Duration, &T)> {
        self.entries.get(&address).map(|(at, what)| (*at, what))
    }

    /// Returns every address and its action, in ascending order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (IpAddr, &T)> {
        self.entries.iter().map(|(address, (_, what))| (*address, what))
    }

    /// Removes an address.
    pub(crate) fn remove(&mut self, address: IpAddr) -> Option<T> {
        let (at, what) = self.entries.remove(&address)?;
        self.order.remove(&(at, address));
        self.look_up_next();
        Some(what)
    }

    fn look_up_next(&mut self) {
        self.next = self.order.first().map(|(at, _)| *at);
    }

    /// Removes every address.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Returns the earliest moment.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.next
    }

    /// Removes the earliest entry, if its moment has come, and returns its moment, address and action.
    pub(crate) fn pop_due(&mut self, now: Duration) -> Option<(Duration, IpAddr, T)> {
        self.next.filter(|at| *at <= now)?;
        let (at, address) = self.order.first().copied()?;
        self.remove(address).map(|what| (at, address, what))
    }

    /// Returns the number of addresses.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        assert_eq!(self.entries.len(), self.order.len());
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Compares the queue with a plain map that is searched from end to end.
        #[test]
        fn behaves_like_a_list(steps in prop::collection::vec((0u8..3, 0u8..6, 0u64..20), 0..60)) {
            let mut agenda = TimerQueue::default();
            let mut model: BTreeMap<IpAddr, (Duration, usize)> = BTreeMap::new();
            for (index, (step, address, at)) in steps.into_iter().enumerate() {
                let address = IpAddr::from(Ipv4Addr::new(192, 0, 2, address));
                let at = Duration::from_secs(at);
                match step {
                    0 => {
                        agenda.set(at, address, index);
                        model.insert(address, (at, index));
                    }
                    1 => prop_assert_eq!(agenda.remove(address), model.remove(&address).map(|(_, what)| what)),
                    _ => {
                        let first = model.iter().map(|(address, (at, _))| (*at, *address)).min();
                        let due = first.filter(|(first, _)| *first <= at);
                        let expected = due.and_then(|(at, address)| Some((at, address, model.remove(&address)?.1)));
                        prop_assert_eq!(agenda.pop_due(at), expected);
                    }
                }
                prop_assert_eq!(agenda.len(), model.len());
                prop_assert_eq!(agenda.next(), model.values().map(|(at, _)| *at).min());
                let expected = model.get(&address).map(|(at, what)| (*at, what));
                prop_assert_eq!(agenda.get(address), expected);
            }
        }
    }
}

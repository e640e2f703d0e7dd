//! Interfaces of this node that are on one segment: two network cards in one subnet, Ethernet and Wi-Fi, a macvlan beside its
//! parent, a second port in the wrong socket. The node has one run of the protocol on a segment, or its addresses would have
//! two link-layer addresses. Pure.
//!
//! That two interfaces are on one segment shows when the protocol's frames of the one are heard on the other; of a macvlan and
//! its parent, which do not hear each other, the kernel tells it. Then one of them speaks, and the other **yields** to it: it sends and answers nothing, and goes on listening. An interface that comes while
//! another is in use listens first (**trial**), so that plugging in a cable disturbs nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Hello intervals of a trial. One Hello is enough, and one may be lost.
const TRIAL_INTERVALS: u32 = 3;
/// Hello intervals for which an interface stays away whose twin has failed. Peers take over within some three of them; what
/// else went through the failed one (the node's own address, the way to the pods) may be gone with it, so they are the better
/// choice.
const FOLLOW_INTERVALS: u32 = 10;
/// Hello intervals in which an interface that yields has to hear the other once: with 30 % of frames lost, twenty in a row are
/// lost once in 10^10.
const LAPSE_INTERVALS: u32 = 20;

/// An interface, for [`Twins::decide`].
#[derive(Clone, Debug)]
pub(super) struct Interface<'a> {
    /// Index.
    pub index: u32,
    /// Name.
    pub name: &'a str,
    /// Has it carrier, and sockets?
    pub able: bool,
    /// Does a default route leave here?
    pub default_route: bool,
    /// The interface that it is a macvlan on.
    pub macvlan_on: Option<u32>,
}

/// What an interface does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Role {
    /// It takes part in the protocol.
    #[default]
    Speaks,
    /// It listens whether another of the node's interfaces is on its segment.
    Tried,
    /// Another, by its index, speaks for it.
    Yields(u32),
}

/// What is known of the node's interfaces.
#[derive(Debug, Default)]
pub(super) struct Twins {
    /// When an interface was last heard on another, by both indices, the lower first.
    heard: BTreeMap<(u32, u32), Duration>,
    /// Macvlans and their parents, in the same way.
    kin: BTreeSet<(u32, u32)>,
    roles: BTreeMap<u32, Role>,
    /// Until when an interface is tried.
    trials: BTreeMap<u32, Duration>,
    /// The longest Hello interval in use.
    interval: Duration,
}

impl Twins {
    /// Two interfaces are on one segment: the one was heard on the other. Returns whether that is new.
    pub(super) fn heard(&mut self, now: Duration, one: u32, other: u32) -> bool {
        let before = self.heard.insert(pair(one, other), now);
        before.is_none_or(|before| before + self.lapse() <= now)
    }

    /// What an interface does.
    pub(super) fn role(&self, index: u32) -> Role {
        self.roles.get(&index).copied().unwrap_or_default()
    }

    /// Is any interface being tried? It is known before long what it does.
    pub(super) fn is_deciding(&self) -> bool {
        !self.trials.is_empty()
    }

    /// Those that yield, and to whom.
    pub(super) fn yielding(&self) -> impl Iterator<Item = (u32, u32)> {
        self.roles.iter().filter_map(|(index, role)| match role {
            Role::Yields(to) => Some((*index, *to)),
            Role::Speaks | Role::Tried => None,
        })
    }

    /// When [`Twins::decide`] may decide otherwise.
    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        let lapses = self.heard.values().map(|at| *at + self.lapse());
        self.trials.values().copied().chain(lapses).min()
    }

    /// Decides what each interface does, and returns whether that has changed. `interval`: the longest Hello interval in
    /// use. `named`: does a setting or an L2Advertisement name the interface?
    pub(super) fn decide(
        &mut self,
        now: Duration,
        interval: Duration,
        interfaces: &[Interface<'_>],
        named: impl Fn(&str) -> bool,
    ) -> bool {
        self.interval = interval;
        let lapse = self.lapse();
        let able: BTreeSet<u32> = interfaces.iter().filter(|i| i.able).map(|i| i.index).collect();
        self.heard.retain(|(a, b), at| *at + lapse > now && able.contains(a) && able.contains(b));
        let kin = interfaces.iter().filter_map(|i| Some((i.index, i.macvlan_on?)));
        self.kin = kin.filter(|(a, b)| able.contains(a) && able.contains(b)).map(|(a, b)| pair(a, b)).collect();
        let before = std::mem::take(&mut self.roles);
        let spoke = |index: u32| before.get(&index) == Some(&Role::Speaks);
        let followed = |index: u32| before.values().any(|role| *role == Role::Yields(index));
        let left = |index: u32| matches!(before.get(&index), Some(Role::Yields(to)) if !able.contains(to));
        let mut order: Vec<&Interface<'_>> = interfaces.iter().collect();
        order.sort_by_key(|i| (!i.able, !spoke(i.index), !i.default_route, i.name));
        for interface in &order {
            let twins = self.on_one_segment_with(interface.index);
            let first = order.iter().filter(|other| twins.contains(&other.index)).min_by_key(|i| !named(i.name));
            let role = match first {
                Some(first) if first.index != interface.index => Role::Yields(first.index),
                // It has become the first of several.
                _ if twins.len() > 1 => Role::Speaks,
                // What it claims it keeps while it has no carrier, unless there is another that may follow it.
                _ if spoke(interface.index) && (interface.able || !followed(interface.index)) => Role::Speaks,
                _ if left(interface.index) => self.tried(now, interface, FOLLOW_INTERVALS),
                // No other of the node's interfaces speaks.
                _ if order[0].index == interface.index && !self.trials.contains_key(&interface.index) => Role::Speaks,
                _ => self.tried(now, interface, TRIAL_INTERVALS),
            };
            self.roles.insert(interface.index, role);
        }
        let roles = &self.roles;
        self.trials.retain(|index, _| roles.get(index) == Some(&Role::Tried));
        self.roles != before
    }

    fn tried(&mut self, now: Duration, interface: &Interface<'_>, intervals: u32) -> Role {
        if !interface.able {
            // Its trial begins when it could speak.
            self.trials.remove(&interface.index);
            return Role::Tried;
        }
        let until = *self.trials.entry(interface.index).or_insert(now + self.interval * intervals);
        if until <= now { Role::Speaks } else { Role::Tried }
    }

    /// The interface, and all that were heard on it, or on one of these, or it on them.
    fn on_one_segment_with(&self, index: u32) -> BTreeSet<u32> {
        let mut found = BTreeSet::from([index]);
        loop {
            let touching = self.heard.keys().chain(&self.kin).filter(|(a, b)| found.contains(a) || found.contains(b));
            let all: BTreeSet<u32> = touching.flat_map(|(a, b)| [*a, *b]).chain([index]).collect();
            if all == found {
                return found;
            }
            found = all;
        }
    }

    fn lapse(&self) -> Duration {
        self.interval * LAPSE_INTERVALS
    }
}

fn pair(one: u32, other: u32) -> (u32, u32) {
    (one.min(other), one.max(other))
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    const INTERVAL: Duration = Duration::from_millis(100);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn interface(index: u32, name: &str) -> Interface<'_> {
        Interface { index, name, able: true, default_route: false, macvlan_on: None }
    }

    /// The roles of interfaces 2 (eth0) and 3 (eth1).
    fn decide(twins: &mut Twins, at: u64, interfaces: &[Interface<'_>], named: &str) -> [Role; 2] {
        twins.decide(ms(at), INTERVAL, interfaces, |name| name == named);
        [twins.role(2), twins.role(3)]
    }

    fn both() -> [Interface<'static>; 2] {
        [interface(2, "eth0"), interface(3, "eth1")]
    }

    #[test]
    fn interface_that_is_alone_speaks_at_once() {
        let mut twins = Twins::default();
        assert_eq!(decide(&mut twins, 0, &both()[..1], "")[0], Role::Speaks);
        assert_eq!(twins.poll_timeout(), None);
    }

    #[test]
    fn interface_that_comes_is_tried_and_then_speaks() {
        let mut twins = Twins::default();
        decide(&mut twins, 0, &both()[..1], "");
        assert_eq!(decide(&mut twins, 1000, &both(), ""), [Role::Speaks, Role::Tried]);
        assert_eq!(twins.poll_timeout(), Some(ms(1300)));
        assert_eq!(decide(&mut twins, 1299, &both(), ""), [Role::Speaks, Role::Tried]);
        assert_eq!(decide(&mut twins, 1300, &both(), ""), [Role::Speaks, Role::Speaks]);
        assert_eq!(twins.poll_timeout(), None);
    }

    #[test_case("eth0", "eth1"; "by name")]
    #[test_case("eth9", "eth1"; "the one in use stays, whatever the other is called")]
    fn interface_on_the_same_segment_yields_to_the_one_in_use(first: &str, second: &str) {
        let mut twins = Twins::default();
        let interfaces = [interface(2, first), interface(3, second)];
        decide(&mut twins, 0, &interfaces[..1], "");
        decide(&mut twins, 1000, &interfaces, "");
        assert!(twins.heard(ms(1100), 3, 2), "that is new");
        assert!(!twins.heard(ms(1200), 2, 3), "that is known");
        assert_eq!(decide(&mut twins, 1200, &interfaces, ""), [Role::Speaks, Role::Yields(2)]);
        assert_eq!(twins.yielding().collect::<Vec<_>>(), [(3, 2)]);
    }

    #[test_case(false, "", [Role::Speaks, Role::Yields(2)]; "by name")]
    #[test_case(true, "", [Role::Yields(3), Role::Speaks]; "by the default route")]
    #[test_case(true, "eth0", [Role::Speaks, Role::Yields(2)]; "an advertisement wins")]
    fn of_two_that_start_together_the_same_one_speaks_each_time(default_route: bool, named: &str, expected: [Role; 2]) {
        let mut twins = Twins::default();
        let interfaces = [interface(2, "eth0"), Interface { default_route, ..interface(3, "eth1") }];
        let first = decide(&mut twins, 0, &interfaces, named);
        assert_eq!(first.iter().filter(|role| **role == Role::Speaks).count(), 1, "{first:?}");
        twins.heard(ms(100), 2, 3);
        assert_eq!(decide(&mut twins, 100, &interfaces, named), expected);
    }

    #[test]
    fn advertisement_that_names_the_other_moves_the_node_there() {
        let mut twins = Twins::default();
        decide(&mut twins, 0, &both()[..1], "");
        decide(&mut twins, 0, &both(), "");
        twins.heard(ms(100), 2, 3);
        assert_eq!(decide(&mut twins, 100, &both(), ""), [Role::Speaks, Role::Yields(2)]);
        assert_eq!(decide(&mut twins, 200, &both(), "eth1"), [Role::Yields(3), Role::Speaks]);
        twins.heard(ms(300), 2, 3);
        assert_eq!(decide(&mut twins, 300, &both(), ""), [Role::Yields(3), Role::Speaks], "nothing moves back");
    }

    /// Its cable is pulled: the other is tried, while peers take over.
    #[test]
    fn interface_that_fails_is_followed_by_the_other() {
        let mut twins = Twins::default();
        decide(&mut twins, 0, &both(), "");
        twins.heard(ms(100), 2, 3);
        decide(&mut twins, 100, &both(), "");
        let failed = [Interface { able: false, ..interface(2, "eth0") }, interface(3, "eth1")];
        assert_eq!(decide(&mut twins, 500, &failed, "")[1], Role::Tried);
        assert_eq!(twins.poll_timeout(), Some(ms(1500)));
        assert_eq!(decide(&mut twins, 1499, &failed, "")[1], Role::Tried);
        assert_eq!(decide(&mut twins, 1500, &failed, "")[1], Role::Speaks);
        // It is plugged in again: the other goes on.
        assert_eq!(decide(&mut twins, 2000, &both(), ""), [Role::Tried, Role::Speaks]);
        twins.heard(ms(2100), 2, 3);
        assert_eq!(decide(&mut twins, 2100, &both(), ""), [Role::Yields(3), Role::Speaks]);
    }

    #[test]
    fn interface_that_hears_the_other_no_more_speaks_again() {
        let mut twins = Twins::default();
        decide(&mut twins, 0, &both(), "");
        twins.heard(ms(100), 2, 3);
        decide(&mut twins, 100, &both(), "");
        assert_eq!(twins.poll_timeout(), Some(ms(2100)));
        assert_eq!(decide(&mut twins, 2100, &both(), ""), [Role::Speaks, Role::Tried]);
        assert_eq!(decide(&mut twins, 2400, &both(), ""), [Role::Speaks, Role::Speaks]);
    }

    #[test]
    fn macvlan_yields_to_its_parent_at_once_and_for_good() {
        let mut twins = Twins::default();
        let interfaces = [interface(2, "eth0"), Interface { macvlan_on: Some(2), ..interface(3, "a-shim") }];
        decide(&mut twins, 0, &interfaces[..1], "");
        for at in [1000, 10_000] {
            assert_eq!(decide(&mut twins, at, &interfaces, ""), [Role::Speaks, Role::Yields(2)]);
            assert_eq!(twins.poll_timeout(), None);
        }
    }

    /// Two networks: the node keeps what it claims on the one whose cable is pulled for a moment.
    #[test]
    fn interface_on_another_segment_speaks_again_at_once() {
        let mut twins = Twins::default();
        decide(&mut twins, 0, &both(), "");
        decide(&mut twins, 300, &both(), "");
        let failed = [interface(2, "eth0"), Interface { able: false, ..interface(3, "eth1") }];
        assert_eq!(decide(&mut twins, 1000, &failed, ""), [Role::Speaks, Role::Speaks]);
        assert_eq!(decide(&mut twins, 1100, &both(), ""), [Role::Speaks, Role::Speaks]);
    }

    #[test]
    fn three_on_one_segment_yield_to_one() {
        let mut twins = Twins::default();
        let interfaces = [interface(2, "eth0"), interface(3, "eth1"), interface(4, "eth2")];
        decide(&mut twins, 0, &interfaces, "");
        twins.heard(ms(100), 2, 3);
        twins.heard(ms(100), 3, 4);
        twins.decide(ms(100), INTERVAL, &interfaces, |_| false);
        assert_eq!([2, 3, 4].map(|index| twins.role(index)), [Role::Speaks, Role::Yields(2), Role::Yields(2)]);
    }
}

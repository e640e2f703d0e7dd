//! Interfaces of this node that are on one segment: two network cards in one subnet, Ethernet and Wi-Fi, a macvlan and
//! its parent, a second port in the wrong socket. The node has one run of the protocol on a segment, or its addresses
//! would have two link-layer addresses. Pure.
//!
//! Two interfaces are known to be on one segment when the protocol's frames of one are heard on the other; of a macvlan
//! and its parent, which do not hear each other, the kernel reports it. Then one of them speaks, and the other
//! **yields** to it: it sends and answers nothing, and goes on listening. An interface that comes while another is in
//! use listens first (**trial**), so that plugging in a cable disturbs nothing.
//!
//! If neither hears the other, both speak, unless one of them **stands by**: every address that could lie on it could
//! equally lie on the other, and the two are not known to be on one wire. A second run of the node would serve nobody,
//! and nodes that hear that run alone would conclude that the node has given up its claims.
//!
//! The interface that speaks may fail without the kernel's noticing. It is **deaf** if it hears no node while the other
//! does, and **mute** if the other does not hear it. Then the other speaks.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use crate::node::Incarnation;

/// Length of a trial in Hello intervals. One Hello is enough, and one may be lost.
const TRIAL_INTERVALS: u32 = 3;
/// Hello intervals for which an interface stays away whose twin has failed, if the node has peers. The peers take over
/// within some three of them. Everything else that went through the failed one (the node's own address, the way to the
/// pods) may be gone with it, so the peers are the better choice.
const FOLLOW_INTERVALS: u32 = 10;
/// Hello intervals in which an interface that yields has to hear the other once: with 30 % of frames lost, twenty in a
/// row are lost once in 10^10.
const LAPSE_INTERVALS: u32 = 20;
/// Hello intervals after which an interface is deaf or mute. With 30 % of frames lost and one peer, ten in a row are
/// lost once in 170,000, and the node then goes on with its other interface.
pub(crate) const FAILED_INTERVALS: u32 = 10;
/// Maximum number of doublings of the trial of an interface that hears the other now and then: the longest trial takes
/// 19 s.
const MAX_DOUBLINGS: u32 = 6;
/// An interface that has not ceased to hear the other for this long is tried as if it never had.
const LAPSES_FORGOTTEN: Duration = Duration::from_secs(600);
/// Maximum time for which trials may keep the node's report from being written: the role of an interface is decided
/// within a second, unless interfaces come and go all the time.
const LONGEST_SUSPENSE: Duration = Duration::from_secs(5);

/// The link on which another link stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    /// Its index.
    pub index: u32,
    /// The network namespace that it is in, as the kernel numbers it (IFLA_LINK_NETNSID); `None`: this one. A node in a
    /// container has macvlans on links of its host, whose indices may be those of links of its own.
    pub namespace: Option<i32>,
}

/// An interface, for [`Twins::decide`].
#[derive(Clone, Debug)]
pub struct Interface<'a> {
    /// Index.
    pub index: u32,
    /// Name.
    pub name: &'a str,
    /// Whether it has carrier and sockets.
    pub able: bool,
    /// Whether a default route leaves here.
    pub default_route: bool,
    /// The link that it is a macvlan on.
    pub macvlan_on: Option<Parent>,
    /// Whether an earlier run of this speaker has left claims here. If so, it spoke here.
    pub has_claims: bool,
    /// Whether any host is heard here.
    pub hears: bool,
    /// When another host was last heard here.
    pub heard: Duration,
    /// The runs of other nodes of which a frame was heard here within the last ten intervals.
    pub runs: &'a BTreeSet<Incarnation>,
    /// Whether any address lies here.
    pub in_use: bool,
    /// The subnets in which the node has addresses here: network and prefix length.
    pub subnets: &'a [(IpAddr, u8)],
}

/// Knowledge of other nodes, on any interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Others {
    /// Whether any of them is heard both ways.
    pub heard: bool,
    /// Whether the API lists any of them on a segment of this node.
    pub listed: bool,
}

impl Interface<'_> {
    /// Returns whether every address that could lie on another interface could equally lie on this one. No packet goes
    /// out by a default route over an interface that hears no host, not even the gateway.
    fn has_all_of(&self, other: &Self) -> bool {
        let has_route = self.default_route || !(other.default_route && other.hears);
        has_route && other.subnets.iter().all(|subnet| self.subnets.contains(subnet))
    }

    /// Returns whether it is useless that another interface speaks as well, which has nothing that this one lacks and
    /// does not hear it.
    fn is_enough_without(&self, other: &Self, others: Others) -> bool {
        if self.runs.is_empty() && other.runs.is_empty() {
            // The network drops the protocol on all ports; unless this node is alone.
            return others.listed;
        }
        // If both hear one run, they are on one wire, and this one's frames get lost. If not, they are on two wires,
        // and no address is to lie on the other; or the network drops the protocol at the port of one of them, and this
        // one is in use.
        self.runs.is_disjoint(other.runs)
    }
}

/// The role of an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// It takes part in the protocol.
    #[default]
    Speaks,
    /// It listens to find out whether another of the node's interfaces is on its segment.
    Tried,
    /// Another interface, by its index, speaks for it.
    Yields(u32),
}

/// The trial of an interface.
#[derive(Clone, Copy, Debug)]
struct Trial {
    /// Its length in Hello intervals.
    intervals: u32,
    /// When it is over; `None`: the interface is not able to speak.
    until: Option<Duration>,
    /// The interface that it yielded to and that has failed.
    follows: Option<u32>,
}

/// The knowledge about the node's interfaces.
#[derive(Debug, Default)]
pub struct Twins {
    /// When frames of one interface were last heard on another, by the indices of sender and hearer.
    heard: BTreeMap<(u32, u32), Duration>,
    /// Macvlans and their parents, and macvlans on one parent; the lower index first.
    kin: BTreeSet<(u32, u32)>,
    /// Pairs that were heard on one segment since both of them have had carrier, the lower index first.
    met: BTreeSet<(u32, u32)>,
    /// How often an interface that yielded has ceased to hear the other, and when it last did.
    lapses: BTreeMap<u32, (u32, Duration)>,
    roles: BTreeMap<u32, Role>,
    /// The interfaces that speak and hear no host, while another that was on their segment does.
    deaf: BTreeSet<u32>,
    /// The interfaces that speak and hear no host, while another does, whether it was on their segment or not.
    quiet: BTreeSet<u32>,
    /// Since when an interface speaks, is able to, and is not quiet.
    speaks_since: BTreeMap<u32, Duration>,
    /// Since when an interface yields.
    yields_since: BTreeMap<u32, Duration>,
    trials: BTreeMap<u32, Trial>,
    /// The interfaces that stand by, and for which other.
    stand_by: BTreeMap<u32, u32>,
    /// Whether two interfaces speak of which one has nothing that the other lacks. One of them may stand by as soon as
    /// the other hears nodes.
    is_double: bool,
    /// Since when some interface has been on trial without a pause.
    deciding_since: Option<Duration>,
    /// The longest Hello interval in use.
    interval: Duration,
    /// When roles were last decided.
    decided_at: Duration,
}

impl Twins {
    /// Two interfaces are on one segment: a frame of `sender` was heard on `hearer`. Returns whether that is new.
    pub fn heard(&mut self, now: Duration, sender: u32, hearer: u32) -> bool {
        let is_fresh = |at: &Duration| *at + self.lapse() > now;
        let is_new = !self.heard.get(&(sender, hearer)).is_some_and(is_fresh)
            && !self.heard.get(&(hearer, sender)).is_some_and(is_fresh);
        self.heard.insert((sender, hearer), now);
        self.met.insert(pair(sender, hearer));
        is_new
    }

    /// Returns the role of an interface.
    pub fn role(&self, index: u32) -> Role {
        self.roles.get(&index).copied().unwrap_or_default()
    }

    /// Returns whether any interface is on trial, so that its role is known before long. Interfaces that come and go
    /// all the time do not count for longer than five seconds.
    pub fn is_deciding(&self, now: Duration) -> bool {
        self.suspense_ends().is_some_and(|end| now < end)
    }

    /// Returns when [`Twins::is_deciding`] ends at the latest, while any interface is on trial.
    pub fn suspense_ends(&self) -> Option<Duration> {
        self.deciding_since.map(|since| since + LONGEST_SUSPENSE)
    }

    /// Returns the interfaces that yield, each with the one to which it yields.
    pub fn yielding(&self) -> impl Iterator<Item = (u32, u32)> {
        self.roles.iter().filter_map(|(index, role)| match role {
            Role::Yields(to) => Some((*index, *to)),
            Role::Speaks | Role::Tried => None,
        })
    }

    /// Returns the interfaces that neither speak nor hear the one that makes another run superfluous, each with that
    /// one.
    pub fn standing_by(&self) -> impl Iterator<Item = (u32, u32)> {
        let yields = |index: &u32| matches!(self.roles.get(index), Some(Role::Yields(_)));
        self.stand_by.iter().filter(move |(index, _)| !yields(index)).map(|(index, to)| (*index, *to))
    }

    /// Returns, of interfaces on which an address could equally lie, in the order of their preference, the one on which
    /// it is to lie: one where a host is heard; of these the one where it lies now.
    pub fn choose(&self, equal: &[u32], now_on: Option<u32>) -> Option<u32> {
        let heard: Vec<u32> = equal.iter().copied().filter(|index| !self.is_quiet(*index)).collect();
        let of = if heard.is_empty() { equal } else { &heard };
        now_on.filter(|index| of.contains(index)).or(of.first().copied())
    }

    /// Returns when [`Twins::decide`] may decide otherwise, or [`Twins::is_deciding`] end.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let lapses = self.heard.values().map(|at| *at + self.lapse());
        // The interfaces that hear each other may change without a frame.
        let looks = !self.met.is_empty() || !self.quiet.is_empty() || !self.stand_by.is_empty() || self.is_double;
        let look = looks.then(|| self.decided_at + self.failed());
        let told = self.suspense_ends().filter(|at| *at > self.decided_at);
        self.trials.values().filter_map(|trial| trial.until).chain(lapses).chain(look).chain(told).min()
    }

    /// Decides the role of each interface, and returns whether a role has changed. `interval`: the longest Hello
    /// interval in use. `named`: returns whether a setting or an L2Advertisement names the interface.
    pub fn decide(
        &mut self,
        now: Duration,
        interval: Duration,
        interfaces: &[Interface<'_>],
        others: Others,
        named: impl Fn(&str) -> bool,
    ) -> bool {
        (self.interval, self.decided_at) = (interval, now);
        let able = self.forget(now, interfaces);
        let mute = self.mute(now, interfaces);
        let before = std::mem::take(&mut self.roles);
        let spoke = |interface: &Interface<'_>| match before.get(&interface.index) {
            Some(role) => *role == Role::Speaks,
            None => before.is_empty() && interface.has_claims,
        };
        let is_able = |index: u32| able.contains(&index);
        let mut order: Vec<&Interface<'_>> = interfaces.iter().collect();
        order.sort_by_key(|i| {
            let newness = self.newness(now, i.index);
            (!is_able(i.index), !spoke(i), newness, !i.in_use, !i.default_route, i.name)
        });
        self.stand_by.clear();
        // The interfaces whose part another takes.
        let mut succeeded = BTreeSet::new();
        for interface in &order {
            let index = interface.index;
            let twins = self.on_one_segment_with(index);
            let members = order.iter().filter(|other| twins.contains(&other.index));
            let first = members.min_by_key(|i| (mute.contains(&i.index), !named(i.name)));
            let failed = match before.get(&index) {
                Some(Role::Yields(to)) if !is_able(*to) => Some(*to),
                _ => None,
            };
            let stands_by = || {
                let speaks = |other: u32| is_able(other) && self.roles.get(&other) == Some(&Role::Speaks);
                let enough = |other: &&&Interface<'_>| {
                    other.hears && other.has_all_of(interface) && other.is_enough_without(interface, others)
                };
                let first = order.iter().filter(|other| speaks(other.index)).find(enough);
                first.map(|other| other.index).filter(|_| !named(interface.name))
            };
            // The interface has nothing to announce, and no peer hears it.
            let is_unnoticed = |i: &Interface<'_>| is_able(i.index) && i.runs.is_empty() && !i.in_use;
            let role = if let Some(first) = first.filter(|first| first.index != index) {
                Role::Yields(first.index)
            } else if twins.len() > 1
                || spoke(interface)
                    && !succeeded.contains(&index)
                    && !(is_unnoticed(interface) && stands_by().is_some())
            {
                // The interface is the first of several, or alone. It keeps its claims while it has no carrier, until
                // another that has yielded to it speaks.
                Role::Speaks
            } else if let Some(to) = stands_by() {
                self.stand_by.insert(index, to);
                let trial = Trial { intervals: TRIAL_INTERVALS, until: None, follows: None };
                if before.get(&index) == Some(&Role::Yields(to)) {
                    Role::Yields(to)
                } else {
                    self.tried(now, index, false, trial)
                }
            } else if let Some(failed) = failed {
                // A deaf interface has had its time, and without other nodes none takes over.
                let is_deaf = interfaces.iter().any(|other| other.index == failed && other.able);
                let intervals = if is_deaf || !others.heard { TRIAL_INTERVALS } else { FOLLOW_INTERVALS };
                self.tried(now, index, is_able(index), Trial { intervals, until: None, follows: Some(failed) })
            } else if order[0].index == index && !self.trials.contains_key(&index) {
                // No other of the node's interfaces speaks.
                Role::Speaks
            } else {
                self.return_to_trial(now, index, &able, &succeeded);
                let is_needed = !order.iter().any(|other| {
                    other.index != index && self.role(other.index) == Role::Speaks && other.has_all_of(interface)
                });
                let intervals = match before.get(&index) {
                    Some(Role::Yields(_)) => self.trial_after_lapses(now, index, before.get(&index)),
                    _ if is_needed => self.trial_after_lapses(now, index, None),
                    _ => LAPSE_INTERVALS,
                };
                let trial = Trial { intervals, until: None, follows: None };
                self.tried(now, index, is_able(index), trial)
            };
            if role == Role::Speaks {
                succeeded.extend(self.trials.get(&index).and_then(|trial| trial.follows));
            }
            self.roles.insert(index, role);
        }
        let quiet = self.hear_nobody(interfaces, |_, _| true);
        let deaf = self.hear_nobody(interfaces, |one, other| self.met.contains(&pair(one, other)));
        self.note_times(now, &able, &quiet);
        let speaking = || interfaces.iter().filter(|i| able.contains(&i.index) && self.role(i.index) == Role::Speaks);
        self.is_double =
            speaking().any(|one| speaking().any(|other| other.index != one.index && one.has_all_of(other)));
        let is_same = self.roles == before && self.deaf == deaf && self.quiet == quiet;
        (self.deaf, self.quiet) = (deaf, quiet);
        !is_same
    }

    /// Returns whether an interface speaks and hears no host, while another that was on its segment does both: an
    /// address that could lie on both lies on the other.
    pub fn is_deaf(&self, index: u32) -> bool {
        self.deaf.contains(&index)
    }

    /// Returns whether an interface speaks and hears no host, while another does both. It may be on a segment without
    /// other hosts; or its switch port forwards nothing yet (a spanning tree makes it wait for 30 s), and it is on the
    /// other's segment. An address that could equally lie on both lies on the other.
    pub fn is_quiet(&self, index: u32) -> bool {
        self.quiet.contains(&index)
    }

    /// Returns the interfaces that speak and hear no host, while another with which they are compared does both.
    fn hear_nobody(&self, interfaces: &[Interface<'_>], are_compared: impl Fn(u32, u32) -> bool) -> BTreeSet<u32> {
        let speaking = || interfaces.iter().filter(|i| i.able && self.role(i.index) == Role::Speaks);
        let is_outdone = |i: &Interface<'_>| speaking().any(|other| other.hears && are_compared(i.index, other.index));
        speaking().filter(|i| !i.hears && is_outdone(i)).map(|i| i.index).collect()
    }

    /// Returns a rank by which an interface that has lately come (back) to the segment of another does not displace
    /// that one.
    fn newness(&self, now: Duration, index: u32) -> Duration {
        let since = self.speaks_since.get(&index).copied().unwrap_or(Duration::MAX);
        if since.saturating_add(self.lapse()) > now { since } else { Duration::ZERO }
    }

    /// Returns the length of the trial of an interface that is not needed now. An interface that yields and hears the
    /// other too seldom would speak again and again, so it listens for longer each time.
    fn trial_after_lapses(&mut self, now: Duration, index: u32, before: Option<&Role>) -> u32 {
        if matches!(before, Some(Role::Yields(_))) {
            let (lapses, at) = self.lapses.get(&index).copied().unwrap_or((0, now));
            let lapses = if now > at + LAPSES_FORGOTTEN { 0 } else { lapses };
            self.lapses.insert(index, (lapses + 1, now));
        }
        let lapses = self.lapses.get(&index).map_or(0, |(lapses, _)| lapses.saturating_sub(1));
        TRIAL_INTERVALS << lapses.min(MAX_DOUBLINGS)
    }

    /// Forgets ended states, and returns the interfaces that are able to speak.
    fn forget(&mut self, now: Duration, interfaces: &[Interface<'_>]) -> BTreeSet<u32> {
        let lapse = self.lapse();
        let linked: BTreeSet<u32> = interfaces.iter().filter(|i| i.able).map(|i| i.index).collect();
        self.met.retain(|(a, b)| linked.contains(a) && linked.contains(b));
        self.lapses.retain(|index, _| linked.contains(index));
        let able: BTreeSet<u32> = linked.iter().copied().filter(|index| !self.has_failed(*index, interfaces)).collect();
        self.heard.retain(|(a, b), at| *at + lapse > now && able.contains(a) && able.contains(b));
        let mut kin = BTreeSet::new();
        for interface in interfaces {
            let Some(parent) = interface.macvlan_on else { continue };
            let is_kin = |other: &&Interface<'_>| {
                other.macvlan_on == Some(parent) || parent.namespace.is_none() && other.index == parent.index
            };
            kin.extend(interfaces.iter().filter(is_kin).map(|other| pair(interface.index, other.index)));
        }
        kin.retain(|(a, b)| a != b && able.contains(a) && able.contains(b));
        self.kin = kin;
        able
    }

    /// Returns whether an interface has ceased to hear hosts, while one that yields to it hears some.
    fn has_failed(&self, index: u32, interfaces: &[Interface<'_>]) -> bool {
        let find = |wanted: u32| interfaces.iter().find(|interface| interface.index == wanted);
        let Some(own) = find(index).filter(|own| !own.hears) else { return false };
        let mut others = self.yielding().filter(|(_, to)| *to == index).filter_map(|(other, _)| find(other));
        // It counts as failed until the other speaks.
        let is_followed = self.trials.values().any(|trial| trial.follows == Some(index) && trial.until.is_some());
        is_followed || others.any(|other| other.heard > own.heard + self.failed())
    }

    /// Returns the interfaces to which others yield that have heard them since and were not heard by them, though the
    /// others hear other hosts.
    fn mute(&self, now: Duration, interfaces: &[Interface<'_>]) -> BTreeSet<u32> {
        let unheard = self.yielding().filter(|(index, to)| {
            let Some(since) = self.yields_since.get(index) else { return false };
            let hears_others = interfaces.iter().any(|other| other.index == *index && other.heard > *since);
            let is_one_way = self.heard.contains_key(&(*index, *to)) && !self.heard.contains_key(&(*to, *index));
            *since + self.failed() <= now && hears_others && is_one_way
        });
        unheard.map(|(_, to)| to).collect()
    }

    /// Puts the interface on trial, from now on or as before; a trial that is under way does not depend on `trial`.
    fn tried(&mut self, now: Duration, index: u32, is_able: bool, trial: Trial) -> Role {
        let interval = self.interval;
        let trial = self.trials.entry(index).or_insert(trial);
        if !is_able {
            // The trial begins when the interface becomes able to speak.
            trial.until = None;
            return Role::Tried;
        }
        let until = *trial.until.get_or_insert(now + interval * trial.intervals);
        if until <= now { Role::Speaks } else { Role::Tried }
    }

    /// The interface that this one was to follow is back, or another has followed it: this one has to listen to the
    /// present state first.
    fn return_to_trial(&mut self, now: Duration, index: u32, able: &BTreeSet<u32>, succeeded: &BTreeSet<u32>) {
        let over = now + self.interval * TRIAL_INTERVALS;
        let is_over = |failed: u32| able.contains(&failed) || succeeded.contains(&failed);
        if let Some(trial) = self.trials.get_mut(&index).filter(|trial| trial.follows.is_some_and(is_over)) {
            let until = trial.until.map(|until| until.max(over));
            *trial = Trial { intervals: TRIAL_INTERVALS, until, follows: None };
        }
    }

    /// Notes since when each interface has had its role.
    fn note_times(&mut self, now: Duration, able: &BTreeSet<u32>, quiet: &BTreeSet<u32>) {
        let roles = &self.roles;
        // The interface that it follows is not forgotten when it loses its carrier too.
        let lasts = |index: &u32, trial: &Trial| able.contains(index) || trial.follows.is_some();
        self.trials.retain(|index, trial| roles.get(index) == Some(&Role::Tried) && lasts(index, trial));
        let is_well = |index: &u32| able.contains(index) && !quiet.contains(index);
        let speaks = |index: &u32| roles.get(index) == Some(&Role::Speaks) && is_well(index);
        let yields = |index: &u32| matches!(roles.get(index), Some(Role::Yields(_)));
        self.speaks_since.retain(|index, _| speaks(index));
        self.yields_since.retain(|index, _| yields(index));
        for index in roles.keys() {
            if speaks(index) {
                self.speaks_since.entry(*index).or_insert(now);
            } else if yields(index) {
                self.yields_since.entry(*index).or_insert(now);
            }
        }
        let is_deciding = self.trials.values().any(|trial| trial.until.is_some());
        self.deciding_since = is_deciding.then(|| self.deciding_since.unwrap_or(now));
    }

    /// Returns the interface, and all that were heard on it, or on one of these, or the other way round.
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

    fn failed(&self) -> Duration {
        self.interval * FAILED_INTERVALS
    }
}

fn pair(one: u32, other: u32) -> (u32, u32) {
    (one.min(other), one.max(other))
}

#[cfg(test)]
mod tests;

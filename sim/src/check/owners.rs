//! I3: the owner of an address changes only for a reason that the design names, and never goes back and forth.
//!
//! Every claim carries its reason. The check compares the reason with the true state of the nodes.

use std::time::Duration;

use herald_protocol::claim::{Birth, Claim, Reason};
use herald_protocol::timers::{COVER_MAX, HOLD_DOWN};

use super::{Invariant, Violation};
use crate::names::{AddrIx, NodeIx};

/// Facts about the present and the last few seconds: a verdict rests on what a node saw before it. All facts are about
/// interfaces: if a node has two, it matters which one claims, and on which one an address is held.
pub trait Facts {
    /// Returns the node to which an interface belongs.
    fn node(&self, interface: NodeIx) -> NodeIx {
        interface
    }
    /// Returns whether one node cannot reach the other's kernel, or could not within the last seconds.
    fn apart(&self, a: NodeIx, b: NodeIx) -> bool;
    /// Returns for how long nothing of this node's speaker has been on the wire.
    fn silent_for(&self, node: NodeIx) -> Duration;
    /// Returns whether the node's speaker was told to stop for good.
    fn leaving(&self, node: NodeIx) -> bool;
    /// Returns whether the node hears nothing, or heard nothing within the last seconds.
    fn deaf(&self, node: NodeIx) -> bool;
    /// Returns whether the first node was of a better class for the address than the second, by a view not older than
    /// the design allows.
    fn better(&self, address: AddrIx, first: NodeIx, second: NodeIx) -> bool;
    /// Returns whether the node was not a candidate for the address, by a view not older than the design allows. Such a
    /// node serves nobody.
    fn excluded(&self, address: AddrIx, node: NodeIx) -> bool;
    /// Returns whether the protocol's EtherType is dropped between the two, or was within the last seconds.
    fn unheard(&self, a: NodeIx, b: NodeIx) -> bool;
    /// Returns whether no frame of any other host has reached the node for so long that it must know.
    fn hears_nothing(&self, node: NodeIx) -> bool;
    /// Returns when the node's speaker started.
    fn started(&self, node: NodeIx) -> Duration;
    /// Returns how long a frame to this node may take. The node need not know of anything sent more recently than that.
    fn flight(&self, to: NodeIx) -> Duration;
}

/// One change of owner.
#[derive(Clone, Copy, Debug)]
struct Change {
    at: Duration,
    /// The interface on which the address was claimed.
    node: NodeIx,
    claim: Claim,
}

/// An owner gave the address up because its object is gone.
#[derive(Clone, Debug)]
struct Deleted {
    at: Duration,
    birth: Birth,
    told: Vec<NodeIx>,
}

#[derive(Clone, Debug, Default)]
struct History {
    /// The nodes that hold the address by their own word; more than one on a divided segment.
    holders: Vec<Change>,
    /// All changes, latest last.
    changes: Vec<Change>,
    /// The nodes that lost the address to a node of a better class, with the time.
    deposed: Vec<(NodeIx, Duration)>,
    /// The last deletion that an owner reported.
    deleted: Option<Deleted>,
}

/// Number of changes that are remembered per address.
const REMEMBERED: usize = 16;

/// The owners so far.
#[derive(Debug)]
pub struct Owners {
    addresses: Vec<History>,
}

/// An address does not return to a former owner within this time (the hold-down, less what clocks and frames take).
const NO_RETURN: Duration = HOLD_DOWN.saturating_sub(Duration::from_secs(1));

impl Owners {
    /// Returns a record without owners.
    pub fn new(addresses: usize) -> Self {
        Self { addresses: vec![History::default(); addresses] }
    }

    /// Returns the interfaces that hold an address by their own word.
    pub fn holders(&self, address: AddrIx) -> impl Iterator<Item = NodeIx> {
        self.addresses[address].holders.iter().map(|change| change.node)
    }

    /// Returns, of those that hold an address, the one with the highest claim. After a segment was divided there are
    /// several.
    pub fn highest(&self, address: AddrIx) -> Option<NodeIx> {
        self.addresses[address].holders.iter().max_by_key(|holder| holder.claim.precedence()).map(|holder| holder.node)
    }

    /// Returns whether the address was ever claimed for the object of this birth, or for a younger one.
    pub fn has_claimed(&self, address: AddrIx, birth: Birth) -> bool {
        self.addresses[address].changes.iter().any(|change| change.claim.birth >= birth)
    }

    /// Returns whether any address is held on this interface.
    pub fn is_in_use(&self, interface: NodeIx) -> bool {
        self.addresses.iter().any(|history| history.holders.iter().any(|holder| holder.node == interface))
    }

    /// Returns whether the owner of an address has changed since then.
    pub fn changed_since(&self, address: AddrIx, since: Duration) -> bool {
        self.addresses[address].changes.last().is_some_and(|change| change.at >= since)
    }

    /// A node's memory is as it was some time ago: by its memory, the node holds an address.
    pub fn reverted(&mut self, now: Duration, address: AddrIx, node: NodeIx, claim: Claim) {
        self.gave_up(address, node);
        self.addresses[address].holders.push(Change { at: now, node, claim });
    }

    /// Another object exists whose birth is not later than the last one's: what nodes were told of births does not
    /// concern it.
    pub fn born_before(&mut self, address: AddrIx) {
        self.addresses[address].deleted = None;
    }

    /// Returns how often the owner of an address has changed since then.
    pub fn changes_since(&self, address: AddrIx, since: Duration) -> usize {
        self.addresses[address].changes.iter().filter(|change| change.at >= since).count()
    }

    /// A node has given up an address on this interface.
    pub fn gave_up(&mut self, address: AddrIx, node: NodeIx) {
        self.addresses[address].holders.retain(|holder| holder.node != node);
    }

    /// A node gives an address up because its object is gone; `told` are the nodes that hear it.
    pub fn deleted(&mut self, now: Duration, address: AddrIx, node: NodeIx, told: Vec<NodeIx>) {
        let history = &mut self.addresses[address];
        if let Some(holder) = history.holders.iter().find(|holder| holder.node == node) {
            history.deleted = Some(Deleted { at: now, birth: holder.claim.birth, told });
        }
        self.gave_up(address, node);
    }

    /// A node reports that it lost an address to a better claim.
    pub fn lost(&mut self, now: Duration, address: AddrIx, node: NodeIx, to: &Claim) {
        self.gave_up(address, node);
        if to.reason == Reason::Class {
            let deposed = &mut self.addresses[address].deposed;
            deposed.retain(|(other, _)| *other != node);
            deposed.push((node, now));
        }
    }

    /// A node reports that it owns an address now.
    pub fn owned(
        &mut self,
        now: Duration,
        address: AddrIx,
        node: NodeIx,
        claim: Claim,
        facts: &impl Facts,
    ) -> Option<Violation> {
        let history = &mut self.addresses[address];
        if history.changes.last().is_some_and(|last| last.claim.birth < claim.birth) {
            // Another object has the address now: no node was deposed from that object.
            history.deposed.clear();
        }
        let wrong = history.judge(now, address, node, &claim, facts);
        let ping_pong = history.ping_pong(now, address, node, &claim, facts);
        let change = Change { at: now, node, claim };
        history.holders.retain(|holder| facts.node(holder.node) != facts.node(node));
        history.holders.push(change);
        if history.changes.len() == REMEMBERED {
            history.changes.remove(0);
        }
        history.changes.push(change);
        let (invariant, why) = match (wrong, ping_pong) {
            (Some(why), _) => (Invariant::Reason, why),
            (None, Some(why)) => (Invariant::PingPong, why),
            (None, None) => return None,
        };
        let (epoch, reason) = (claim.epoch.0, claim.reason);
        let seen = format!("node {node} claims address {address} (epoch {epoch}, reason {reason:?}), but {why}");
        Some(Violation { invariant, at: now, seen })
    }
}

impl History {
    /// Returns what contradicts the reason of a claim.
    fn judge(&self, now: Duration, address: AddrIx, node: NodeIx, claim: &Claim, facts: &impl Facts) -> Option<String> {
        let is_same = |other: NodeIx| facts.node(other) == facts.node(node);
        let known = |change: &&Change| !is_same(change.node) && now > change.at + facts.flight(node);
        let others = || self.holders.iter().filter(known);
        let lower = || others().filter(|holder| holder.claim.precedence() < claim.precedence());
        // The holders of which the node can know: one of them must be why it claims.
        let near = || lower().filter(|h| !facts.apart(node, h.node) && !facts.unheard(node, h.node));
        let none_is = |is: &dyn Fn(NodeIx) -> bool| {
            if near().any(|holder| is(holder.node)) { None } else { near().next().map(|holder| holder.node) }
        };
        if facts.hears_nothing(node) {
            return Some("it hears nothing of any other host".to_owned());
        }
        let told = |deleted: &&Deleted| deleted.birth >= claim.birth && deleted.told.contains(&node);
        if let Some(deleted) = self.deleted.iter().find(told).filter(|deleted| facts.started(node) < deleted.at) {
            return Some(format!("it was told at {:.3} s that the object is gone", deleted.at.as_secs_f64()));
        }
        match claim.reason {
            Reason::Vacant => {
                // A holder that is not a candidate may be heard again and still be in its barrier: then no other node
                // knows that it holds the address.
                let known = |h: &&Change| !facts.apart(node, h.node) && !facts.unheard(node, h.node);
                let candidates = others().filter(|h| h.claim.birth == claim.birth && !facts.excluded(address, h.node));
                let alive = candidates.into_iter().find(known)?;
                Some(format!("node {} holds it and is within reach", alive.node))
            }
            Reason::Resumed => {
                let Some(own) = self.changes.iter().rev().find(|change| is_same(change.node)) else {
                    return Some("it never owned it".to_owned());
                };
                // A claim that its node has forgotten since does not count: a machine that loses power claims by what
                // others tell it.
                let holds = |change: &Change| {
                    let still = |holder: &Change| holder.claim.precedence() >= change.claim.precedence();
                    self.holders.iter().any(|holder| holder.node == change.node && still(holder))
                };
                let later = self.changes.iter().rev().take_while(|change| !is_same(change.node)).find(|change| {
                    change.claim.precedence() > own.claim.precedence()
                        && !facts.apart(node, change.node)
                        && !facts.unheard(node, change.node)
                        && holds(change)
                })?;
                Some(format!("node {} has owned it since {:.3} s", later.node, later.at.as_secs_f64()))
            }
            Reason::Dead => {
                if lower().any(|holder| facts.apart(node, holder.node)) {
                    return None;
                }
                none_is(&|_| false).map(|alive| format!("node {alive}, which it takes for dead, can be reached"))
            }
            Reason::Leaving => {
                none_is(&|holder| facts.leaving(holder)).map(|stays| format!("node {stays} was not told to leave"))
            }
            // A deaf owner is out of reach, so it is not among the near ones.
            Reason::Deaf if lower().any(|holder| facts.deaf(holder.node)) => None,
            Reason::Deaf => near().next().map(|hears| format!("node {} is not deaf", hears.node)),
            // The owner may also be out of reach: a silent node is succeeded for a class as well.
            Reason::Class if lower().any(|holder| facts.better(address, node, holder.node)) => None,
            Reason::Class => {
                near().next().map(|as_good| format!("it is of no better class than node {}", as_good.node))
            }
            Reason::CoverExpired => {
                // The claimant counted the time, and its clock began with the silence.
                let least = COVER_MAX - Duration::from_secs(1);
                none_is(&|holder| facts.silent_for(holder) >= least)
                    .map(|silent| format!("node {silent} was silent for only {:?}", facts.silent_for(silent)))
            }
            Reason::Recreated => {
                let young = near().find(|holder| holder.claim.birth >= claim.birth)?;
                Some(format!("node {} claims for an object as young", young.node))
            }
            Reason::Later(code) => Some(format!("no speaker of this build claims for the reason {code}")),
        }
    }

    /// Returns whether an address comes back to a node that lost it for its class a moment ago. (A restart forgets
    /// that.) An owner that serves nobody does not count.
    fn ping_pong(
        &self,
        now: Duration,
        address: AddrIx,
        node: NodeIx,
        claim: &Claim,
        facts: &impl Facts,
    ) -> Option<String> {
        let is_same = |other: NodeIx| facts.node(other) == facts.node(node);
        let others = self.changes.iter().rev().filter(|change| !is_same(change.node));
        if others.take(2).any(|change| facts.excluded(address, change.node)) {
            return None;
        }
        let (_, at) = self.deposed.iter().rev().find(|(deposed, _)| is_same(*deposed))?;
        let returns = claim.reason == Reason::Class && now < *at + NO_RETURN && facts.started(node) < *at;
        returns.then(|| format!("it was deposed for its class at {:.3} s", at.as_secs_f64()))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use herald_protocol::claim::{ClaimKey, Epoch};
    use test_case::test_case;

    use super::*;

    /// Facts about node 0, from which node 1 takes address 0.
    #[derive(Clone, Copy, Default)]
    struct Truth {
        apart: bool,
        silent_s: u64,
        leaving: bool,
        deaf: bool,
        better: bool,
        excluded: bool,
        hears_nothing: bool,
        /// This node alone is deaf, and therefore out of reach.
        deaf_node: Option<NodeIx>,
    }

    impl Facts for Truth {
        fn apart(&self, a: NodeIx, b: NodeIx) -> bool {
            self.apart || self.deaf_node.is_some_and(|deaf| deaf == a || deaf == b)
        }
        fn silent_for(&self, _: NodeIx) -> Duration {
            Duration::from_secs(self.silent_s)
        }
        fn leaving(&self, _: NodeIx) -> bool {
            self.leaving
        }
        fn deaf(&self, node: NodeIx) -> bool {
            self.deaf || self.deaf_node == Some(node)
        }
        fn better(&self, _: AddrIx, _: NodeIx, _: NodeIx) -> bool {
            self.better
        }
        fn excluded(&self, _: AddrIx, _: NodeIx) -> bool {
            self.excluded
        }
        fn unheard(&self, _: NodeIx, _: NodeIx) -> bool {
            false
        }
        fn hears_nothing(&self, _: NodeIx) -> bool {
            self.hears_nothing
        }
        fn started(&self, _: NodeIx) -> Duration {
            Duration::ZERO
        }
        fn flight(&self, _: NodeIx) -> Duration {
            Duration::from_millis(1)
        }
    }

    const SOUND: Truth = Truth {
        apart: false,
        silent_s: 0,
        leaving: false,
        deaf: false,
        better: false,
        excluded: false,
        hears_nothing: false,
        deaf_node: None,
    };

    fn claim(birth: u64, epoch: u32, reason: Reason) -> Claim {
        let address = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 0));
        Claim { address, birth: Birth(birth), epoch: Epoch(epoch), key: ClaimKey(0), reason, cover: true }
    }

    fn s(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test_case(Reason::Vacant, SOUND => Some(Invariant::Reason); "vacant with a live owner")]
    #[test_case(Reason::Vacant, Truth { apart: true, ..SOUND } => None; "vacant as far as the claimant sees")]
    #[test_case(Reason::Dead, SOUND => Some(Invariant::Reason); "dead but alive")]
    #[test_case(Reason::Dead, Truth { apart: true, ..SOUND } => None; "dead")]
    #[test_case(Reason::Dead, Truth { apart: true, hears_nothing: true, ..SOUND } => Some(Invariant::Reason); "deaf itself")]
    #[test_case(Reason::Leaving, SOUND => Some(Invariant::Reason); "leaving but not told")]
    #[test_case(Reason::Leaving, Truth { leaving: true, ..SOUND } => None; "leaving")]
    #[test_case(Reason::Deaf, SOUND => Some(Invariant::Reason); "deaf but hearing")]
    #[test_case(Reason::Deaf, Truth { deaf: true, ..SOUND } => None; "deaf")]
    #[test_case(Reason::Class, SOUND => Some(Invariant::Reason); "class but no better")]
    #[test_case(Reason::Class, Truth { better: true, ..SOUND } => None; "class")]
    #[test_case(Reason::CoverExpired, Truth { silent_s: 500, ..SOUND } => Some(Invariant::Reason); "cover ends early")]
    #[test_case(Reason::CoverExpired, Truth { silent_s: 600, ..SOUND } => None; "cover ends")]
    #[test_case(Reason::Recreated, SOUND => Some(Invariant::Reason); "recreated but as old")]
    #[test_case(Reason::Resumed, SOUND => Some(Invariant::Reason); "resumed but never held")]
    fn reasons(reason: Reason, truth: Truth) -> Option<Invariant> {
        let mut check = Owners::new(1);
        assert_eq!(check.owned(s(1), 0, 0, claim(5, 1, Reason::Vacant), &SOUND), None);
        check.owned(s(100), 0, 1, claim(5, 2, reason), &truth).map(|violation| violation.invariant)
    }

    #[test]
    fn node_told_of_a_deletion_does_not_claim_for_the_object() {
        for (claimant, birth, expected) in [(1, 5, Some(Invariant::Reason)), (2, 5, None), (1, 6, None)] {
            let mut check = Owners::new(1);
            check.owned(s(1), 0, 0, claim(5, 1, Reason::Vacant), &SOUND);
            check.deleted(s(10), 0, 0, vec![1]);
            let revived = check.owned(s(20), 0, claimant, claim(birth, 1, Reason::Vacant), &SOUND);
            assert_eq!(revived.map(|violation| violation.invariant), expected);
        }
    }

    #[test]
    fn claims_that_cross_are_accepted() {
        let mut check = Owners::new(1);
        let ms = Duration::from_millis;
        check.owned(ms(1000), 0, 0, claim(5, 1, Reason::Vacant), &SOUND);
        assert_eq!(check.owned(ms(1001), 0, 1, claim(5, 1, Reason::Vacant), &SOUND), None);
        assert!(check.owned(ms(1003), 0, 2, claim(5, 1, Reason::Vacant), &SOUND).is_some());
    }

    #[test]
    fn restarted_owner_resumes_only_addresses_not_taken_since() {
        let mut check = Owners::new(1);
        check.owned(s(1), 0, 0, claim(5, 1, Reason::Vacant), &SOUND);
        assert_eq!(check.owned(s(2), 0, 0, claim(5, 1, Reason::Resumed), &SOUND), None);
        check.owned(s(3), 0, 1, claim(5, 2, Reason::Dead), &Truth { apart: true, ..SOUND });
        let violation = check.owned(s(50), 0, 0, claim(5, 1, Reason::Resumed), &SOUND).unwrap();
        assert_eq!(violation.invariant, Invariant::Reason);
    }

    /// The node that took an address over loses power, and with it its memory. It claims the address with the first
    /// epoch again; the former owner comes back and has the better claim.
    #[test]
    fn claim_that_its_node_has_forgotten_does_not_count() {
        let taken = Truth { apart: true, ..SOUND };
        for (forgotten, expected) in [(true, None), (false, Some(Invariant::Reason))] {
            let mut check = Owners::new(1);
            check.owned(s(1), 0, 0, claim(5, 2, Reason::Vacant), &SOUND);
            check.owned(s(10), 0, 1, claim(5, 3, Reason::Dead), &taken);
            if forgotten {
                check.gave_up(0, 1);
                check.owned(s(20), 0, 1, claim(5, 1, Reason::Vacant), &taken);
            }
            let resumed = check.owned(s(30), 0, 0, claim(5, 2, Reason::Resumed), &SOUND);
            assert_eq!(resumed.map(|violation| violation.invariant), expected, "forgotten: {forgotten}");
        }
    }

    /// A silent node held the address first and never heard that another took it. That other node goes deaf.
    #[test]
    fn deaf_owner_is_succeeded_though_a_former_one_is_covered() {
        let mut check = Owners::new(1);
        check.owned(s(1), 0, 0, claim(5, 1, Reason::Vacant), &SOUND);
        check.owned(s(10), 0, 1, claim(5, 2, Reason::Class), &Truth { better: true, ..SOUND });
        let one_is_deaf = Truth { deaf_node: Some(1), ..SOUND };
        assert_eq!(check.owned(s(20), 0, 2, claim(5, 3, Reason::Deaf), &one_is_deaf), None);
    }

    #[test]
    fn address_does_not_return_for_class_within_a_minute() {
        let better = Truth { better: true, ..SOUND };
        for (at, expected) in [(s(30), Some(Invariant::PingPong)), (s(75), None)] {
            let mut check = Owners::new(1);
            check.owned(s(1), 0, 0, claim(5, 1, Reason::Vacant), &SOUND);
            check.owned(s(10), 0, 1, claim(5, 2, Reason::Class), &better);
            check.lost(s(10), 0, 0, &claim(5, 2, Reason::Class));
            let back = check.owned(at, 0, 0, claim(5, 3, Reason::Class), &better);
            assert_eq!(back.map(|violation| violation.invariant), expected);
        }
    }
}

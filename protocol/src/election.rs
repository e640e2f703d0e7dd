//! The decision about one address: a function of values.

use crate::{
    api_view::Class,
    claim::{Birth, Claim, Reason},
    io::Withdrawal,
    node::NodeId,
};

/// The holder of an address, as this node sees it: the highest claim that is live, and the standing of its claimant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// No node claims it.
    Nobody,
    /// A node that is not heard is taken to hold it: its kernel answers, and the API or the wire says that the address
    /// is its.
    Presumed,
    /// This node.
    Me(Claim),
    /// A peer.
    Peer(Claim, Standing),
}

/// The standing of a peer that holds an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It speaks, or its silence is covered.
    Holding,
    /// Its speaker has been silent for longer than cover lasts.
    CoverExpired,
    /// It has been silent for three intervals, and does not want to be covered.
    Uncovered,
    /// It has announced that it leaves.
    Leaving,
    /// It reports that it hears nothing.
    Deaf,
}

/// An address that was handed over by way of the API, and that no node holds yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HandedOver {
    /// By this node: its successor may be about to claim it. By another node: its coverers may not know it yet.
    Lately,
    /// By this node, and its successor has had the time to claim it.
    InVain,
}

/// All facts that bear on the decision.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    /// This node's own claim, if it has one.
    pub(crate) own: Option<Claim>,
    /// The highest live claim.
    pub(crate) holder: Holder,
    /// The object, as this node's API view has it.
    pub(crate) vip: Option<VipFacts>,
    /// Birth of the latest object that is known to be deleted.
    pub(crate) deleted: Option<Birth>,
    /// Whether the API's view is fresh, so that addresses may move by it.
    pub(crate) fresh: bool,
    /// Whether this node lost the address for its class a while ago.
    pub(crate) held_down: bool,
    /// Whether this node has taken the address from owners that are not candidates so often that it waits now.
    pub(crate) pausing: bool,
    /// Whether this node has just joined.
    pub(crate) settling: bool,
    /// A fitter node that is not heard, to which this node's address is to be handed over by way of the API.
    pub(crate) successor: Option<NodeId>,
    /// Whether the address was handed over and no node has taken it.
    pub(crate) handed_over: Option<HandedOver>,
}

/// The content of the API's view.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VipFacts {
    /// When the object was created.
    pub(crate) birth: Birth,
    /// Whether any node may announce it.
    pub(crate) has_candidates: bool,
    /// This node's class, if it may announce it.
    pub(crate) mine: Option<Class>,
    /// The holder's class, if it may announce it.
    pub(crate) holders: Option<Class>,
}

/// The action to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// No action.
    Rest,
    /// Stop: the holder's claim is better.
    Yield,
    /// Stop: there is nothing to announce.
    Withdraw(Withdrawal),
    /// Claim it, in this node's turn.
    Contend(Reason),
    /// Stop, so that this node, which is not heard, can claim it.
    HandOver(NodeId),
    /// Claim it at once: it was handed over, and no node has taken it.
    TakeBack,
    /// Claim it again at once: this node has it under an object that no longer exists.
    Renew,
}

/// Returns what to do about the address.
pub(crate) fn decide(facts: &Facts) -> Verdict {
    let deleted = |birth| facts.deleted >= Some(birth);
    if let (Some(_), Holder::Peer(..)) = (facts.own, facts.holder) {
        return Verdict::Yield;
    }
    if let Some(own) = facts.own
        && deleted(own.birth)
        && facts.vip.is_none_or(|vip| vip.mine.is_none() || deleted(vip.birth))
    {
        return Verdict::Withdraw(Withdrawal::Deleted);
    }
    // No VirtualIP in our view: make no new claim, keep an existing one. Absence from a view is not deletion.
    let Some(vip) = facts.vip.filter(|vip| !deleted(vip.birth)) else { return Verdict::Rest };
    match facts.holder {
        Holder::Me(_) if !vip.has_candidates => Verdict::Withdraw(Withdrawal::NoCandidate),
        Holder::Me(claim) if claim.birth < vip.birth && vip.mine.is_some() => Verdict::Renew,
        // Other nodes are fitter, or will be: this node answers until one of them claims, if they can be heard.
        Holder::Me(_) => facts.successor.map_or(Verdict::Rest, Verdict::HandOver),
        Holder::Presumed => Verdict::Rest,
        Holder::Nobody if facts.handed_over == Some(HandedOver::Lately) => Verdict::Rest,
        Holder::Nobody if facts.handed_over == Some(HandedOver::InVain) => Verdict::TakeBack,
        _ if vip.mine.is_none() => Verdict::Rest,
        Holder::Nobody => Verdict::Contend(Reason::Vacant),
        Holder::Peer(claim, _) if claim.birth < vip.birth => Verdict::Contend(Reason::Recreated),
        Holder::Peer(_, Standing::Leaving) => Verdict::Contend(Reason::Leaving),
        Holder::Peer(_, Standing::Deaf) => Verdict::Contend(Reason::Deaf),
        Holder::Peer(_, Standing::Uncovered) => Verdict::Contend(Reason::Dead),
        Holder::Peer(_, Standing::CoverExpired) => Verdict::Contend(Reason::CoverExpired),
        Holder::Peer(_, Standing::Holding) if facts.fresh && facts.is_fitter(&vip) => Verdict::Contend(Reason::Class),
        Holder::Peer(_, Standing::Holding) => Verdict::Rest,
    }
}

impl Facts {
    /// Returns whether this node is fitter than the holder and may claim for it. A holder that is not a candidate at
    /// all serves nobody (it is excluded, or has no endpoint), so waiting gains nothing. A holder that only ends its
    /// present connections does not get fitter again, so there is no danger of ping-pong.
    fn is_fitter(&self, vip: &VipFacts) -> bool {
        match (vip.mine, vip.holders) {
            (Some(mine), Some(theirs)) if theirs.is_ending() && !mine.is_ending() => !self.settling,
            (Some(mine), Some(theirs)) => mine < theirs && !self.settling && !self.held_down,
            (Some(_), None) => !self.pausing,
            (None, _) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use test_case::test_case;

    use super::*;
    use crate::claim::{ClaimKey, Epoch};

    fn claim(birth: u64) -> Claim {
        Claim {
            address: IpAddr::from([192, 0, 2, 1]),
            birth: Birth(birth),
            epoch: Epoch(1),
            key: ClaimKey(7),
            reason: Reason::Vacant,
            cover: true,
        }
    }

    /// Returns facts with an object of birth 5; this node is of class 1, the holder of class 1, the view fresh.
    fn facts(holder: Holder) -> Facts {
        let own = match holder {
            Holder::Me(claim) => Some(claim),
            _ => None,
        };
        let vip = VipFacts { birth: Birth(5), has_candidates: true, mine: Some(Class(1)), holders: Some(Class(1)) };
        Facts {
            own,
            holder,
            vip: Some(vip),
            deleted: None,
            fresh: true,
            held_down: false,
            pausing: false,
            settling: false,
            successor: None,
            handed_over: None,
        }
    }

    fn peer(standing: Standing) -> Holder {
        Holder::Peer(claim(5), standing)
    }

    #[test_case(Holder::Nobody, Verdict::Contend(Reason::Vacant))]
    #[test_case(Holder::Presumed, Verdict::Rest; "a node that is not heard holds it")]
    #[test_case(Holder::Me(claim(5)), Verdict::Rest)]
    #[test_case(Holder::Me(claim(4)), Verdict::Renew; "own claim, of the previous object")]
    #[test_case(peer(Standing::Holding), Verdict::Rest; "equal classes never move")]
    #[test_case(peer(Standing::CoverExpired), Verdict::Contend(Reason::CoverExpired))]
    #[test_case(peer(Standing::Uncovered), Verdict::Contend(Reason::Dead))]
    #[test_case(peer(Standing::Leaving), Verdict::Contend(Reason::Leaving))]
    #[test_case(peer(Standing::Deaf), Verdict::Contend(Reason::Deaf))]
    #[test_case(Holder::Peer(claim(4), Standing::Holding), Verdict::Contend(Reason::Recreated))]
    #[test_case(Holder::Peer(claim(6), Standing::Holding), Verdict::Rest; "this node's view is the old one")]
    fn by_holder(holder: Holder, expected: Verdict) {
        assert_eq!(decide(&facts(holder)), expected);
    }

    const OLD_VIEW: fn(Facts) -> Facts = |facts| Facts { fresh: false, ..facts };
    const HELD_DOWN: fn(Facts) -> Facts = |facts| Facts { held_down: true, ..facts };
    const PAUSING: fn(Facts) -> Facts = |facts| Facts { pausing: true, ..facts };
    const SETTLING: fn(Facts) -> Facts = |facts| Facts { settling: true, ..facts };
    const AT_EASE: fn(Facts) -> Facts = |facts| facts;

    #[test_case(Some(0), Some(1), AT_EASE, true; "better")]
    #[test_case(Some(0), Some(1), OLD_VIEW, false; "better by an old view")]
    #[test_case(Some(0), Some(1), HELD_DOWN, false; "better, and held down")]
    #[test_case(Some(0), Some(1), SETTLING, false; "better, and just joined")]
    #[test_case(Some(1), Some(0), AT_EASE, false; "worse")]
    #[test_case(Some(99), Some(100), HELD_DOWN, true; "the holder ends, held down or not")]
    #[test_case(Some(99), Some(100), SETTLING, false; "the holder ends, and this node has just joined")]
    #[test_case(Some(99), Some(100), OLD_VIEW, false; "the holder ends by an old view")]
    #[test_case(Some(100), Some(101), AT_EASE, true; "both end")]
    #[test_case(Some(100), Some(101), HELD_DOWN, false; "both end, and held down")]
    #[test_case(Some(3), None, AT_EASE, true; "the holder is excluded")]
    #[test_case(Some(3), None, HELD_DOWN, true; "the holder is excluded, held down or not")]
    #[test_case(Some(3), None, PAUSING, false; "the holder is excluded again and again")]
    #[test_case(Some(0), Some(1), PAUSING, true; "better, after moves for another reason")]
    #[test_case(Some(3), None, SETTLING, true; "the holder is excluded, however new this node is")]
    #[test_case(Some(3), None, OLD_VIEW, false; "excluded by an old view")]
    #[test_case(None, None, AT_EASE, false; "this node is excluded too")]
    fn by_class(mine: Option<u8>, holders: Option<u8>, circumstances: fn(Facts) -> Facts, moves: bool) {
        let facts = facts(peer(Standing::Holding));
        let (mine, holders) = (mine.map(Class), holders.map(Class));
        let vip = facts.vip.map(|vip| VipFacts { mine, holders, ..vip });
        let expected = if moves { Verdict::Contend(Reason::Class) } else { Verdict::Rest };
        assert_eq!(decide(&circumstances(Facts { vip, ..facts })), expected);
    }

    #[test_case(Holder::Me(claim(5)), Verdict::HandOver(NodeId(9)); "own address")]
    #[test_case(Holder::Nobody, Verdict::Contend(Reason::Vacant); "unclaimed address")]
    #[test_case(peer(Standing::Holding), Verdict::Rest; "address of a peer")]
    fn only_own_address_is_handed_over(holder: Holder, expected: Verdict) {
        assert_eq!(decide(&Facts { successor: Some(NodeId(9)), ..facts(holder) }), expected);
    }

    #[test_case(HandedOver::Lately, Holder::Nobody, Verdict::Rest)]
    #[test_case(HandedOver::InVain, Holder::Nobody, Verdict::TakeBack)]
    #[test_case(HandedOver::InVain, Holder::Presumed, Verdict::Rest; "its successor is overheard")]
    fn address_that_no_node_takes_is_taken_back(handed_over: HandedOver, holder: Holder, expected: Verdict) {
        for mine in [None, Some(Class(1))] {
            let facts = facts(holder);
            let vip = facts.vip.map(|vip| VipFacts { mine, ..vip });
            assert_eq!(decide(&Facts { vip, handed_over: Some(handed_over), ..facts }), expected);
        }
    }

    #[test]
    fn better_claim_ends_the_own_one_in_any_case() {
        for standing in [Standing::Holding, Standing::Leaving, Standing::Deaf, Standing::CoverExpired] {
            let facts = Facts { own: Some(claim(5)), ..facts(peer(standing)) };
            assert_eq!(decide(&facts), Verdict::Yield);
            assert_eq!(decide(&Facts { vip: None, deleted: Some(Birth(5)), ..facts }), Verdict::Yield);
        }
    }

    #[test_case(None, None, Verdict::Rest; "unknown object is not deleted")]
    #[test_case(None, Some(4), Verdict::Rest; "the previous object was deleted")]
    #[test_case(None, Some(5), Verdict::Withdraw(Withdrawal::Deleted))]
    #[test_case(Some(5), Some(5), Verdict::Withdraw(Withdrawal::Deleted); "this node's view lags")]
    #[test_case(Some(6), Some(5), Verdict::Renew; "there is a new one")]
    fn mine_and_the_object(vip: Option<u64>, deleted: Option<u64>, expected: Verdict) {
        let facts = facts(Holder::Me(claim(5)));
        let vip = vip.and_then(|birth| facts.vip.map(|vip| VipFacts { birth: Birth(birth), ..vip }));
        assert_eq!(decide(&Facts { vip, deleted: deleted.map(Birth), ..facts }), expected);
    }

    #[test]
    fn deleted_address_is_not_claimed_by_a_node_whose_view_lags() {
        assert_eq!(decide(&Facts { deleted: Some(Birth(5)), ..facts(Holder::Nobody) }), Verdict::Rest);
        assert_eq!(
            decide(&Facts { deleted: Some(Birth(4)), ..facts(Holder::Nobody) }),
            Verdict::Contend(Reason::Vacant)
        );
    }

    #[test]
    fn owner_stops_without_any_candidate() {
        let mut facts = facts(Holder::Me(claim(5)));
        facts.vip = facts.vip.map(|vip| VipFacts { has_candidates: false, mine: None, holders: None, ..vip });
        assert_eq!(decide(&facts), Verdict::Withdraw(Withdrawal::NoCandidate));
    }

    #[test]
    fn owner_that_is_not_a_candidate_answers_until_another_claims() {
        let mut facts = facts(Holder::Me(claim(5)));
        facts.vip = facts.vip.map(|vip| VipFacts { mine: None, holders: None, ..vip });
        assert_eq!(decide(&facts), Verdict::Rest);
    }
}

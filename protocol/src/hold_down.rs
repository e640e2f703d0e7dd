//! Hold-down: a node that lost an address because another was fitter does not come back for it at once.
//!
//! A node whose readiness comes and goes would else take its addresses along each time. Only moves for a class are held
//! down: a dead, leaving or deaf owner is succeeded at once, whichever node comes first.

use std::{net::IpAddr, time::Duration};

use crate::{
    timer_queue::TimerQueue,
    timers::{HOLD_DOWN, HOLD_DOWN_MAX},
};

/// The addresses that this node was deposed from, until each deposition is forgiven: each is queued for the moment
/// after which the deposition no longer counts as a repeat.
#[derive(Debug, Default)]
pub(crate) struct HoldDown {
    deposed: TimerQueue<Held>,
}

/// One hold-down.
#[derive(Clone, Copy, Debug)]
struct Held {
    length: Duration,
    until: Duration,
}

impl HoldDown {
    /// This node has lost an address for a class reason: it may not take it back for one for 60 s. The time is twice
    /// that of the last hold-down if that one is still on, or ended no longer ago than twice its length.
    pub(crate) fn deposed(&mut self, now: Duration, address: IpAddr) {
        // Forgiven depositions are dropped here, where entries are made: there are never more than the recent ones.
        while self.deposed.pop_due(now).is_some() {}
        let length = match self.deposed.get(address) {
            Some((_, last)) => (last.length * 2).min(HOLD_DOWN_MAX),
            None => HOLD_DOWN,
        };
        let until = now + length;
        self.deposed.set(until + length * 2, address, Held { length, until });
    }

    /// Returns the end of the hold-down of an address; `None` if the address may be taken.
    pub(crate) fn until(&self, now: Duration, address: IpAddr) -> Option<Duration> {
        self.deposed.get(address).map(|(_, held)| held.until).filter(|until| *until > now)
    }

    /// The address is deleted: its next object has no history.
    pub(crate) fn forget(&mut self, address: IpAddr) {
        self.deposed.remove(address);
    }
}

/// How often this node has lately taken each address from an owner that is not a candidate. Such an owner serves
/// nobody, so waiting gains nothing; but if two nodes' views differ for good (their speakers are configured
/// differently), each takes the address from the other whenever it hears the other's claim.
#[derive(Debug, Default)]
pub(crate) struct Takes {
    /// Queued for the time at which they are forgotten.
    taken: TimerQueue<Taken>,
}

#[derive(Clone, Copy, Debug)]
struct Taken {
    times: u32,
    until: Duration,
}

/// Number of takes that follow each other without a pause. A rolling update moves the address of a Local Service two or
/// three times within a minute, and each node takes it back once at most; a second update may follow at once.
const FREE_TAKES: u32 = 3;

/// The first pause, which doubles up to [`HOLD_DOWN`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Takes that are further apart than this, besides the pauses of both nodes, do not count together. Two nodes whose
/// views differ take an address from each other as soon as they may, within milliseconds. Endpoints that come and go do
/// so in many seconds, and an address that did not follow them would stay at a node that serves nobody.
const APART: Duration = Duration::from_secs(10);

impl Takes {
    /// This node has taken an address from an owner that is not a candidate.
    pub(crate) fn took(&mut self, now: Duration, address: IpAddr) {
        while self.taken.pop_due(now).is_some() {}
        let times = self.taken.get(address).map_or(0, |(_, taken)| taken.times).saturating_add(1);
        let pause = match times.checked_sub(FREE_TAKES) {
            None => Duration::ZERO,
            Some(doublings) => FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(doublings)).min(HOLD_DOWN),
        };
        let until = now + pause;
        // The other node pauses for twice as long at most: it may have taken the address once more often.
        self.taken.set(until + pause * 2 + APART, address, Taken { times, until });
    }

    /// Returns until when an address is not taken from an owner that is not a candidate; `None` if it may be taken.
    pub(crate) fn until(&self, now: Duration, address: IpAddr) -> Option<Duration> {
        self.taken.get(address).map(|(_, taken)| taken.until).filter(|until| *until > now)
    }

    /// The address is deleted.
    pub(crate) fn forget(&mut self, address: IpAddr) {
        self.taken.remove(address);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        net::Ipv4Addr,
    };

    use proptest::prelude::*;
    use test_case::test_case;

    use super::*;

    fn address(last: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, last).into()
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    /// Depositions come at these seconds; `length` is how long the last one holds the address down, in seconds.
    #[test_case(&[0], 60)]
    #[test_case(&[0, 10], 120; "a repeat while it is held down")]
    #[test_case(&[0, 60], 120; "a repeat as soon as it is over")]
    #[test_case(&[0, 179], 120; "twice 60 s after its end at 60 s")]
    #[test_case(&[0, 180], 60; "later, it is forgiven")]
    #[test_case(&[0, 60, 180], 240)]
    #[test_case(&[0, 60, 180 + 239], 240; "twice 120 s after its end at 180 s")]
    #[test_case(&[0, 60, 180 + 240], 60)]
    #[test_case(&[0, 1, 2, 3, 4, 5], 1920)]
    #[test_case(&[0, 1, 2, 3, 4, 5, 6], 3840)]
    #[test_case(&[0, 1, 2, 3, 4, 5, 6, 7], 3840; "it grows no further")]
    fn doubles_with_each_repeat(depositions: &[u64], length: u64) {
        let mut holds = HoldDown::default();
        for at in depositions {
            holds.deposed(secs(*at), address(1));
        }
        let last = depositions[depositions.len() - 1];
        let end = secs(last + length);
        assert_eq!(holds.until(secs(last), address(1)), Some(end));
        assert_eq!(holds.until(end - Duration::from_nanos(1), address(1)), Some(end));
        assert_eq!(holds.until(end, address(1)), None);
        assert_eq!(holds.until(secs(last), address(2)), None, "each address has its own hold-down");
    }

    #[test_case(&[0], 0)]
    #[test_case(&[0, 1], 0)]
    #[test_case(&[0, 1, 2], 1; "the third waits")]
    #[test_case(&[0, 1, 2, 3], 2)]
    #[test_case(&[0, 1, 2, 3, 5, 9, 17, 33, 65, 125], 60; "it grows no further")]
    #[test_case(&[0, 10, 20, 30], 0; "endpoints that come and go are followed")]
    #[test_case(&[0, 1, 2, 14], 2; "soon after the other node's pause")]
    #[test_case(&[0, 1, 2, 15], 0; "later, it is forgiven")]
    fn takes_from_unfit_owners_pause(takes: &[u64], pause: u64) {
        let mut taken = Takes::default();
        for at in takes {
            taken.took(secs(*at), address(1));
        }
        let last = takes[takes.len() - 1];
        let expected = Some(secs(last + pause)).filter(|_| pause > 0);
        assert_eq!(taken.until(secs(last), address(1)), expected);
        assert_eq!(taken.until(secs(last), address(2)), None, "each address has its own hold-down");
        taken.forget(address(1));
        assert_eq!(taken.until(secs(last), address(1)), None);
    }

    #[test]
    fn forgotten_address_starts_from_the_beginning() {
        let mut holds = HoldDown::default();
        holds.deposed(secs(0), address(1));
        holds.forget(address(1));
        assert_eq!(holds.until(secs(0), address(1)), None);
        holds.deposed(secs(1), address(1));
        assert_eq!(holds.until(secs(1), address(1)), Some(secs(61)));
    }

    proptest! {
        /// A hold-down is never shorter than 60 s after a deposition, and never longer than the maximum; no entry is
        /// kept that has been over for longer than any hold-down looks back.
        #[test]
        fn bounds(steps in prop::collection::vec((0u64..4000, 0u8..5, any::<bool>()), 1..80)) {
            let mut holds = HoldDown::default();
            let mut last: BTreeMap<u8, Duration> = BTreeMap::new();
            let mut now = Duration::ZERO;
            for (wait, who, forget) in steps {
                now += secs(wait);
                if forget {
                    holds.forget(address(who));
                    last.remove(&who);
                } else {
                    holds.deposed(now, address(who));
                    last.insert(who, now);
                    let recent: BTreeSet<_> = last.iter().filter(|(_, at)| now < **at + HOLD_DOWN_MAX * 3).collect();
                    prop_assert!(holds.deposed.len() <= recent.len());
                }
                for who in 0..5 {
                    let until = holds.until(now, address(who));
                    match last.get(&who) {
                        None => prop_assert_eq!(until, None),
                        Some(at) => {
                            prop_assert!(until.is_some() || *at + HOLD_DOWN <= now);
                            prop_assert!(until.is_none_or(|until| until >= *at + HOLD_DOWN));
                            prop_assert!(until.is_none_or(|until| until <= *at + HOLD_DOWN_MAX));
                        }
                    }
                }
            }
        }
    }
}

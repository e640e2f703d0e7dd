//! One candidate's decision about the Lease. Pure.
//!
//! A candidate whose watches are broken (*blind*, [`crate::watch_health`]) leaves the Lease to another that sees. The
//! Lease does not say which candidate sees, so a blind leader finds out: it releases the Lease and stands aside for
//! longer than another takes to notice. A candidate that takes the Lease meanwhile sees, for all blind ones stand
//! aside. If no candidate takes it, all are blind, and one of them leads again, because a leader that sees a part is
//! better than none; it offers the Lease again every 5 min.
//!
//! Upstream goes less far: with client-go's `leaderelection.HealthzAdaptor` the kubelet restarts a leader that could
//! not renew and did not notice; kube-controller-manager goes on leading, however old its caches are.

use std::time::Duration;

use k8s_openapi::{api::coordination::v1::LeaseSpec, apimachinery::pkg::apis::meta::v1::MicroTime};

use super::{ATTEMPT_LIMIT, LEASE_DURATION, RETRY_PERIOD};

/// Time for which a blind candidate does not take a Lease that is free or has expired: two attempts of another that
/// sees, each after its pause.
const STAND_ASIDE: Duration = RETRY_PERIOD.saturating_add(ATTEMPT_LIMIT).saturating_mul(2);
/// Time for which a blind leader keeps a Lease that no other took, until it offers the Lease again: there is then no
/// leader for 12 s of each 5 min, 4 %.
const OFFER_AGAIN: Duration = Duration::from_secs(300);
/// Time for which a candidate has to hold the Lease before it offers it. After an outage of the API server every
/// replica is blind at first: the watches are tried again within 5 s, and show within 5 s more whether anything was
/// missed.
const SETTLE: Duration = Duration::from_secs(15);

/// The next step with the Lease.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// The Lease does not exist.
    Create(LeaseSpec),
    /// The Lease is ours, or free, or has expired.
    Replace(LeaseSpec),
    /// The Lease is ours, and another replica may see more.
    Release,
    /// The Lease is another's, or another replica that sees may want it.
    Wait,
}

/// One candidate's view of the Lease.
#[derive(Clone, Debug)]
pub(super) struct Elector {
    identity: String,
    /// The Lease as last seen, and the time of its first sighting in this form.
    seen: Option<(LeaseSpec, Duration)>,
    /// The time since which this candidate has held the Lease without a break.
    held_since: Option<Duration>,
    /// The time at which this candidate last took the Lease although blind, since no other wanted it.
    unwanted: Option<Duration>,
}

impl Elector {
    pub(super) fn new(identity: String) -> Self {
        Self { identity, seen: None, held_since: None, unwanted: None }
    }

    /// Records whether this candidate holds the Lease.
    pub(super) fn note_holding(&mut self, now: Duration, holds: bool) {
        self.held_since = holds.then(|| self.held_since.unwrap_or(now));
    }

    /// Decides the next step. `now` is monotonic; `clock` is written for people to read.
    pub(super) fn step(&mut self, now: Duration, clock: MicroTime, lease: Option<&LeaseSpec>, blind: bool) -> Step {
        if !blind {
            self.unwanted = None;
        }
        let duration = i32::try_from(LEASE_DURATION.as_secs()).unwrap_or(i32::MAX);
        let fresh = |transitions| LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(duration),
            acquire_time: Some(clock.clone()),
            renew_time: Some(clock.clone()),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        };
        let Some(lease) = lease else { return Step::Create(fresh(0)) };
        let since = match &self.seen {
            Some((seen, since)) if seen == lease => *since,
            _ => now,
        };
        self.seen = Some((lease.clone(), since));
        let holder = lease.holder_identity.as_deref().unwrap_or_default();
        if holder == self.identity {
            if blind && self.is_to_offer(now) {
                return Step::Release;
            }
            return Step::Replace(LeaseSpec {
                renew_time: Some(clock),
                lease_duration_seconds: Some(duration),
                ..lease.clone()
            });
        }
        let theirs = lease.lease_duration_seconds.and_then(|s| u64::try_from(s).ok()).map(Duration::from_secs);
        let free_from = if holder.is_empty() { since } else { since + theirs.unwrap_or(LEASE_DURATION) };
        let aside = if blind { STAND_ASIDE } else { Duration::ZERO };
        if now < free_from + aside {
            return Step::Wait;
        }
        let taken = fresh(lease.lease_transitions.unwrap_or(0).saturating_add(1));
        self.unwanted = blind.then_some(now);
        Step::Replace(taken)
    }

    fn is_to_offer(&self, now: Duration) -> bool {
        let settled = self.held_since.is_some_and(|since| now >= since + SETTLE);
        settled && self.unwanted.is_none_or(|at| now >= at + OFFER_AGAIN)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use test_case::test_case;

    use super::*;

    fn clock(second: i64) -> MicroTime {
        MicroTime(Timestamp::from_second(second).unwrap())
    }

    fn at(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    fn spec(step: Step) -> LeaseSpec {
        match step {
            Step::Create(spec) | Step::Replace(spec) => spec,
            Step::Wait | Step::Release => panic!("{step:?}"),
        }
    }

    #[test]
    fn first_candidate_creates_and_renews() {
        let mut a = Elector::new("a".to_owned());
        let held = spec(a.step(at(0), clock(0), None, false));
        let renewed = spec(a.step(at(2), clock(2), Some(&held), false));
        assert_eq!(renewed.acquire_time, Some(clock(0)));
        assert_eq!(renewed.renew_time, Some(clock(2)));
        assert_eq!(renewed.lease_transitions, Some(0));
    }

    #[test]
    fn second_candidate_waits_until_it_has_seen_no_renewal_for_the_duration() {
        let (mut a, mut b) = (Elector::new("a".to_owned()), Elector::new("b".to_owned()));
        let held = spec(a.step(at(0), clock(1_000_000), None, false));
        // The other's clock is far off; only b's own observations, and their times, count.
        assert_eq!(b.step(at(0), clock(0), Some(&held), false), Step::Wait);
        assert_eq!(b.step(at(14), clock(14), Some(&held), false), Step::Wait);
        let renewed = spec(a.step(at(14), clock(1_000_014), Some(&held), false));
        assert_eq!(b.step(at(16), clock(16), Some(&renewed), false), Step::Wait, "renewed meanwhile");
        let taken = spec(b.step(at(31), clock(31), Some(&renewed), false));
        assert_eq!((taken.holder_identity.as_deref(), taken.lease_transitions), (Some("b"), Some(1)));
    }

    #[test]
    fn released_lease_is_taken_at_once() {
        let mut b = Elector::new("b".to_owned());
        let free = LeaseSpec { holder_identity: Some(String::new()), ..LeaseSpec::default() };
        assert_eq!(spec(b.step(at(0), clock(0), Some(&free), false)).holder_identity.as_deref(), Some("b"));
    }

    /// A Lease and its candidates, which look at it every 2 s, one second apart.
    struct Replicas {
        lease: Option<LeaseSpec>,
        electors: Vec<Elector>,
        now: u64,
        /// The seconds that each has led.
        led: Vec<u64>,
        nobody: u64,
        /// The number of changes of the holder.
        moves: u64,
    }

    impl Replicas {
        /// Returns replicas that see, of which the first leads.
        fn new(count: usize) -> Self {
            let electors = ["a", "b", "c"][..count].iter().map(|name| Elector::new((*name).to_owned())).collect();
            let mut replicas = Self { lease: None, electors, now: 0, led: vec![0; count], nobody: 0, moves: 0 };
            replicas.pass(60, |_, _| false);
            replicas.forget();
            replicas
        }

        fn forget(&mut self) {
            self.led.fill(0);
            (self.nobody, self.moves) = (0, 0);
        }

        fn leader(&self) -> Option<&str> {
            self.lease.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
        }

        /// Lets some seconds pass; `blind` returns for each candidate and second whether the candidate is blind.
        fn pass(&mut self, seconds: u64, blind: impl Fn(usize, u64) -> bool) {
            let from = self.now;
            for _ in 0..seconds {
                let before = self.leader().map(str::to_owned);
                for (index, elector) in self.electors.iter_mut().enumerate() {
                    if (self.now + index as u64) % 2 == 1 {
                        continue;
                    }
                    let time = clock(i64::try_from(self.now).unwrap());
                    let step = elector.step(at(self.now), time, self.lease.as_ref(), blind(index, self.now - from));
                    elector.note_holding(at(self.now), matches!(step, Step::Create(_) | Step::Replace(_)));
                    match step {
                        Step::Create(spec) | Step::Replace(spec) => self.lease = Some(spec),
                        Step::Release => self.lease.as_mut().unwrap().holder_identity = Some(String::new()),
                        Step::Wait => {}
                    }
                }
                let after = self.leader().map(str::to_owned);
                match after.as_deref().map(|name| self.electors.iter().position(|e| e.identity == name).unwrap()) {
                    Some(leader) => self.led[leader] += 1,
                    None => self.nobody += 1,
                }
                self.moves += u64::from(after.is_some() && after != before);
                self.now += 1;
            }
        }
    }

    #[test_case(&[false, false], [600, 0], 0; "both see")]
    #[test_case(&[true, false], [0, 600], 1; "the leader is blind")]
    #[test_case(&[false, true], [600, 0], 0; "the other is blind")]
    fn leader_that_is_blind_gives_the_lease_to_one_that_sees(blind: &[bool], led: [u64; 2], moves: u64) {
        let mut replicas = Replicas::new(2);
        assert_eq!(replicas.leader(), Some("a"));
        replicas.pass(600, |index, _| blind[index]);
        // The other replica takes the Lease within its next look.
        assert!(replicas.nobody <= RETRY_PERIOD.as_secs(), "{} s", replicas.nobody);
        let near = |seconds: u64, expected: u64| seconds.abs_diff(expected) <= RETRY_PERIOD.as_secs();
        assert!(near(replicas.led[0], led[0]) && near(replicas.led[1], led[1]), "{:?}", replicas.led);
        assert_eq!(replicas.moves, moves);
    }

    #[test_case(1; "a single one")]
    #[test_case(2; "two")]
    #[test_case(3; "three")]
    fn where_all_are_blind_one_of_them_leads_almost_always(count: usize) {
        let mut replicas = Replicas::new(count);
        replicas.pass(3600, |_, _| true);
        // There is an offer every 5 min and 12 s, with no leader for 12 s, or 2 s more to the next look.
        assert!((11..=12).contains(&replicas.moves), "{}", replicas.moves);
        assert!(replicas.nobody <= 12 * 15, "{} s of an hour without a leader", replicas.nobody);
    }

    #[test]
    fn replica_that_recovers_among_blind_ones_gets_the_lease_at_the_next_offer() {
        let mut replicas = Replicas::new(3);
        replicas.pass(100, |_, _| true);
        let sees = replicas.electors.iter().position(|e| Some(&*e.identity) != replicas.leader()).unwrap();
        let name = replicas.electors[sees].identity.clone();
        replicas.forget();
        replicas.pass(400, |index, _| index != sees);
        assert_eq!((replicas.leader(), replicas.moves), (Some(&*name), 1));
        replicas.pass(3600, |index, _| index != sees);
        assert_eq!((replicas.leader(), replicas.moves), (Some(&*name), 1), "and keeps it");
    }

    #[test]
    fn leader_that_recovers_takes_a_free_lease_back() {
        let mut replicas = Replicas::new(1);
        replicas.pass(6, |_, second| second < 3);
        assert_eq!((replicas.leader(), replicas.moves), (Some("a"), 1));
        replicas.forget();
        replicas.pass(600, |_, _| false);
        assert_eq!((replicas.nobody, replicas.moves), (0, 0));
        replicas.pass(3, |_, _| true);
        assert_eq!(replicas.leader(), None, "it offers the Lease again, being blind again");
    }

    /// The Lease of a dead leader is left to a replica that sees, too.
    #[test]
    fn expired_lease_is_taken_by_one_that_sees_first() {
        let (mut dead, mut blind, mut seeing) =
            (Elector::new("a".into()), Elector::new("b".into()), Elector::new("c".into()));
        let held = spec(dead.step(at(0), clock(0), None, false));
        assert_eq!(blind.step(at(0), clock(0), Some(&held), true), Step::Wait);
        assert_eq!(seeing.step(at(0), clock(0), Some(&held), false), Step::Wait);
        assert_eq!(blind.step(at(26), clock(26), Some(&held), true), Step::Wait);
        assert!(matches!(seeing.step(at(15), clock(15), Some(&held), false), Step::Replace(_)));
        assert!(matches!(blind.step(at(27), clock(27), Some(&held), true), Step::Replace(_)));
    }

    /// Every replica becomes blind in an outage of the API server; afterwards the leader goes on at once.
    #[test]
    fn leader_that_could_not_renew_gets_time_to_recover() {
        let mut a = Elector::new("a".to_owned());
        let held = spec(a.step(at(0), clock(0), None, false));
        a.note_holding(at(0), true);
        a.note_holding(at(10), false);
        let again = a.step(at(300), clock(300), Some(&held), true);
        let held = spec(again);
        a.note_holding(at(300), true);
        assert!(matches!(a.step(at(314), clock(314), Some(&held), true), Step::Replace(_)));
        assert_eq!(a.step(at(315), clock(315), Some(&held), true), Step::Release);
    }
}

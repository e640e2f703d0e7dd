//! Address conflict detection: before an address is claimed for the first time ever, all hosts are asked whether one
//! has it already.
//!
//! RFC 5227 section 2.1.1, shortened: two enquiries 100 ms apart, and another 100 ms of silence, mean that the address
//! is free. After an answer the address is not claimed, and asked for again later: the host that has it may go away
//! without a word.

use std::{net::IpAddr, time::Duration};

use crate::{
    mac::MacAddr,
    node::NodeId,
    timer_queue::TimerQueue,
    timers::{CONFLICT_RETRY, FIRST_CLAIM_PROBE_EVERY, FIRST_CLAIM_PROBES},
};

/// Silence counts for this long; a claim that comes later needs new enquiries. RFC 5227 lets a claim follow the last
/// probe by 2 s (section 1.1, ANNOUNCE_WAIT): with the 100 ms after the last enquiry this is about half of it.
const FREE_FOR: Duration = Duration::from_secs(1);

/// If a node of the cluster answers, the address is asked for again after this time, which doubles per answer up to
/// [`CONFLICT_RETRY`]: most often the node's claim is late, or another provider has just been removed.
const CLUSTER_RETRY: Duration = Duration::from_secs(1);

/// The addresses that are asked for, or were a short while ago.
#[derive(Debug, Default)]
pub(crate) struct ConflictDetection {
    /// Queued for the end of their state.
    addresses: TimerQueue<State>,
}

/// The state of the enquiries for an address.
#[derive(Clone, Copy, Debug)]
enum State {
    /// This number of enquiries was sent since this round began. `last`: how the previous round ended.
    Enquiring { begun: Duration, sent: u32, last: Option<Refusal> },
    /// No host has answered since the round began.
    Free { begun: Duration },
    /// A host has answered; the next round begins when this state ends.
    Refused(Refusal),
}

/// The answer that ended a round.
#[derive(Clone, Copy, Debug)]
struct Refusal {
    answer: Answer,
    /// Time until the next round.
    wait: Duration,
}

/// The host that says that an address is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A host outside the cluster.
    Stranger(MacAddr),
    /// A node of the cluster, without a claim.
    Cluster(NodeId),
}

/// The knowledge about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing is known: the address was not asked for, or too long ago.
    Unknown,
    /// The enquiries are under way.
    Probing,
    /// No host has answered since the first enquiry: the address may be claimed now, if this node would have heard an
    /// answer.
    Free { begun: Duration },
    /// A stranger has it.
    Conflict { mac: MacAddr, until: Duration },
    /// A node of the cluster answers for it without a claim.
    AnsweredByCluster { node: NodeId, until: Duration },
}

/// A result of [`ConflictDetection::poll`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Ask all hosts for this address now.
    Enquire(IpAddr),
    /// No host answered: the address is [`Verdict::Free`] from now on, for a while.
    Free(IpAddr),
}

impl ConflictDetection {
    /// Begins to ask for an address, unless that is under way or its result still counts.
    pub(crate) fn begin(&mut self, now: Duration, address: IpAddr) {
        if self.verdict(now, address) == Verdict::Unknown {
            self.ask_again(now, address);
        }
    }

    /// Begins to ask for an address, whatever its result was.
    pub(crate) fn ask_again(&mut self, now: Duration, address: IpAddr) {
        self.addresses.set(now, address, State::Enquiring { begun: now, sent: 0, last: None });
    }

    /// Ceases to ask: a node has claimed the address, or none is to claim it any longer.
    pub(crate) fn cancel(&mut self, address: IpAddr) {
        self.addresses.remove(address);
    }

    /// Ceases to ask for any address.
    pub(crate) fn clear(&mut self) {
        self.addresses.clear();
    }

    /// Returns whether this address is asked for, or was a short while ago.
    pub(crate) fn is_asked_for(&self, address: IpAddr) -> bool {
        self.addresses.get(address).is_some()
    }

    /// Returns what is known about an address.
    pub(crate) fn verdict(&self, now: Duration, address: IpAddr) -> Verdict {
        match self.addresses.get(address) {
            None => Verdict::Unknown,
            Some((_, State::Enquiring { .. })) => Verdict::Probing,
            Some((until, State::Free { .. })) if until <= now => Verdict::Unknown,
            Some((_, State::Free { begun })) => Verdict::Free { begun: *begun },
            Some((until, State::Refused(refusal))) => match refusal.answer {
                Answer::Stranger(mac) => Verdict::Conflict { mac, until },
                Answer::Cluster(node) => Verdict::AnsweredByCluster { node, until },
            },
        }
    }

    /// A host says that an address is its own, in answer or unasked. Returns whether that is news: it is not if the
    /// address is not asked for, or if the same was heard in the previous round.
    pub(crate) fn heard(&mut self, now: Duration, address: IpAddr, answer: Answer) -> bool {
        let last = match self.addresses.get(address) {
            None => return false,
            Some((_, State::Enquiring { last, .. })) => *last,
            Some((until, State::Free { .. })) if until <= now => return false,
            Some((_, State::Free { .. })) => None,
            // The answer to a round stands until the next round, or else an owner that repeats itself would put the
            // next round off for ever. But a stranger outweighs a node of the cluster, which has to stop by itself.
            Some((_, State::Refused(last))) => match (last.answer, answer) {
                (Answer::Cluster(_), Answer::Stranger(_)) => Some(*last),
                _ => return false,
            },
        };
        let wait = match (answer, last) {
            (Answer::Stranger(_), _) => CONFLICT_RETRY,
            (Answer::Cluster(_), Some(Refusal { answer: Answer::Cluster(_), wait })) => (wait * 2).min(CONFLICT_RETRY),
            (Answer::Cluster(_), _) => CLUSTER_RETRY,
        };
        self.addresses.set(now + wait, address, State::Refused(Refusal { answer, wait }));
        last.is_none_or(|last| last.answer != answer)
    }

    /// Returns the next step that is due; call it until there is none.
    pub(crate) fn poll(&mut self, now: Duration) -> Option<Step> {
        loop {
            let (due, address, state) = self.addresses.pop_due(now)?;
            let (begun, sent, last) = match state {
                State::Free { .. } => continue,
                State::Enquiring { begun, sent, .. } if sent == FIRST_CLAIM_PROBES && now < due + FREE_FOR => {
                    self.addresses.set(due + FREE_FOR, address, State::Free { begun });
                    return Some(Step::Free(address));
                }
                // Noticed too late to count.
                State::Enquiring { sent, last, .. } if sent == FIRST_CLAIM_PROBES => (now, 0, last),
                State::Enquiring { begun, sent, last } => (begun, sent, last),
                State::Refused(refusal) => (now, 0, Some(refusal)),
            };
            let state = State::Enquiring { begun, sent: sent + 1, last };
            self.addresses.set(now + FIRST_CLAIM_PROBE_EVERY, address, state);
            return Some(Step::Enquire(address));
        }
    }

    /// Returns when to poll again; `None` if nothing is asked for.
    pub(crate) fn poll_timeout(&self) -> Option<Duration> {
        self.addresses.next()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, net::Ipv4Addr};

    use proptest::prelude::*;
    use test_case::test_case;

    use super::*;

    const A: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
    const X: Answer = Answer::Stranger(MacAddr([2, 0, 0, 0, 0, 1]));
    const Y: Answer = Answer::Stranger(MacAddr([2, 0, 0, 0, 0, 2]));
    const N: Answer = Answer::Cluster(NodeId(1));
    const M: Answer = Answer::Cluster(NodeId(2));

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Returns that X has it.
    fn conflict(until: u64) -> Verdict {
        Verdict::Conflict { mac: MacAddr([2, 0, 0, 0, 0, 1]), until: ms(until) }
    }

    /// Returns that N has it.
    fn answered(until: u64) -> Verdict {
        Verdict::AnsweredByCluster { node: NodeId(1), until: ms(until) }
    }

    /// Runs from timeout to timeout, until nothing is left or that moment. Returns each step with its time.
    fn run(claims: &mut ConflictDetection, until: Duration) -> Vec<(Duration, Step)> {
        let mut steps = Vec::new();
        while let Some(now) = claims.poll_timeout().filter(|at| *at <= until) {
            while let Some(step) = claims.poll(now) {
                steps.push((now, step));
            }
            assert!(claims.poll_timeout().is_none_or(|at| at > now), "a timeout in the past makes a hot loop");
        }
        steps
    }

    #[test]
    fn two_enquiries_and_silence() {
        let mut claims = ConflictDetection::default();
        claims.begin(ms(5000), A);
        assert_eq!(claims.verdict(ms(5000), A), Verdict::Probing);
        claims.begin(ms(5000), A);
        let mut steps = run(&mut claims, ms(5050));
        claims.begin(ms(5050), A);
        steps.extend(run(&mut claims, ms(5200)));
        let expected = [(5000, Step::Enquire(A)), (5100, Step::Enquire(A)), (5200, Step::Free(A))];
        assert_eq!(steps, expected.map(|(at, step)| (ms(at), step)));
        claims.begin(ms(6199), A);
        assert_eq!(claims.verdict(ms(6199), A), Verdict::Free { begun: ms(5000) });
        assert_eq!(claims.verdict(ms(6200), A), Verdict::Unknown, "the silence is too old");
        assert!(!claims.heard(ms(6200), A, X), "the address is not asked for");
        assert_eq!(claims.verdict(ms(5200), B), Verdict::Unknown);
        claims.begin(ms(6200), A);
        assert_eq!(claims.verdict(ms(6200), A), Verdict::Probing);
        assert_eq!(run(&mut claims, ms(9000)).len(), 3);
        assert_eq!(claims.addresses.len(), 0, "a finished address is not kept");
    }

    /// Answers come at these moments, of which these are news; the verdict is that at the last of them.
    #[test_case(&[(0, X, true)], conflict(60_000))]
    #[test_case(&[(150, X, true), (200, X, false)], conflict(60_150); "it stands until the next round")]
    #[test_case(&[(0, X, true), (0, Y, false)], conflict(60_000); "the first stranger counts")]
    #[test_case(&[(0, X, true), (0, N, false)], conflict(60_000); "a node does not outweigh a stranger")]
    #[test_case(&[(0, N, true), (5, X, true)], conflict(60_005); "a stranger outweighs a node")]
    #[test_case(&[(0, X, true), (60_001, X, false)], conflict(120_001); "the same in the next round is not news")]
    #[test_case(&[(0, Y, true), (60_001, X, true)], conflict(120_001); "another in the next round is")]
    #[test_case(&[(900, X, true)], conflict(60_900); "late, but not claimed yet")]
    #[test_case(&[(1200, X, false)], Verdict::Unknown; "the silence is too old")]
    #[test_case(&[(0, N, true)], answered(1000))]
    #[test_case(&[(0, N, true), (1000, N, false)], answered(3000); "twice as long")]
    #[test_case(&[(0, M, true), (1000, N, true), (3000, N, false)], answered(7000); "also if it is another node")]
    #[test_case(&[(0, X, true), (60_000, N, true)], answered(61_000); "the stranger has gone")]
    #[test_case(&[(0, N, true), (1300, N, true)], answered(2300); "free in between")]
    fn answers(answers: &[(u64, Answer, bool)], expected: Verdict) {
        let mut claims = ConflictDetection::default();
        claims.begin(ms(0), A);
        for (at, answer, news) in answers {
            run(&mut claims, ms(*at));
            assert_eq!(claims.heard(ms(*at), A, *answer), *news, "at {at} ms");
            assert!(!claims.heard(ms(*at), B, *answer), "the address was not asked for");
        }
        assert_eq!(claims.verdict(ms(answers[answers.len() - 1].0), A), expected);
    }

    #[test]
    fn node_that_always_answers_is_asked_once_a_minute_in_the_end() {
        let mut claims = ConflictDetection::default();
        claims.begin(ms(0), A);
        let mut waits = Vec::new();
        for _ in 0..9 {
            let at = claims.poll_timeout().unwrap();
            assert_eq!(claims.poll(at), Some(Step::Enquire(A)));
            claims.heard(at, A, N);
            waits.push((claims.poll_timeout().unwrap() - at).as_secs());
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn cancelled_address_is_not_asked_for() {
        let mut claims = ConflictDetection::default();
        claims.begin(ms(0), A);
        claims.begin(ms(0), B);
        claims.cancel(A);
        assert!(run(&mut claims, ms(200)).iter().all(|(_, step)| matches!(step, Step::Enquire(B) | Step::Free(B))));
        assert_eq!(
            (claims.verdict(ms(200), A), claims.verdict(ms(200), B)),
            (Verdict::Unknown, Verdict::Free { begun: ms(0) })
        );
        claims.clear();
        assert_eq!((claims.verdict(ms(200), B), claims.poll_timeout()), (Verdict::Unknown, None));
    }

    #[test]
    fn silence_that_is_noticed_too_late_does_not_count() {
        let mut claims = ConflictDetection::default();
        claims.begin(ms(0), A);
        assert_eq!(run(&mut claims, ms(100)).len(), 2);
        assert_eq!(claims.poll(ms(1200)), Some(Step::Enquire(A)));
        assert_eq!(claims.verdict(ms(1200), A), Verdict::Probing);
        let steps = run(&mut claims, ms(2000));
        assert_eq!(steps, [(ms(1300), Step::Enquire(A)), (ms(1400), Step::Free(A))]);
        assert_eq!(claims.verdict(ms(1400), A), Verdict::Free { begun: ms(1200) });
    }

    #[test]
    fn round_without_a_result_is_repeated() {
        let mut claims = ConflictDetection::default();
        claims.begin(ms(0), A);
        run(&mut claims, ms(200));
        claims.ask_again(ms(210), A);
        let steps = run(&mut claims, ms(500));
        let expected = [(210, Step::Enquire(A)), (310, Step::Enquire(A)), (410, Step::Free(A))];
        assert_eq!(steps, expected.map(|(at, step)| (ms(at), step)));
        assert_eq!(claims.verdict(ms(410), A), Verdict::Free { begun: ms(210) });
    }

    #[derive(Clone, Debug)]
    enum Happening {
        Begin,
        Cancel,
        Hear(Answer),
    }

    fn happening() -> impl Strategy<Value = Happening> {
        prop_oneof![
            3 => Just(Happening::Begin),
            1 => Just(Happening::Cancel),
            1 => prop::sample::select(vec![X, Y, N, M]).prop_map(Happening::Hear),
        ]
    }

    /// The record that an outside observer keeps about one address.
    #[derive(Debug, Default)]
    struct Seen {
        enquiries: Vec<Duration>,
        answered: bool,
    }

    proptest! {
        /// Whatever happens: an address is free only after exactly two enquiries at least 100 ms apart and another 100
        /// ms, without an answer since before the first, and no longer than a second; nothing is due in the past; only
        /// addresses that were asked for are kept.
        #[test]
        fn free_means_asked_twice_and_not_answered(
            happenings in prop::collection::vec((0u64..400, 0u8..3, happening()), 1..60),
            late in prop::collection::vec(0u64..1300, 1..10),
        ) {
            let mut claims = ConflictDetection::default();
            let mut seen: BTreeMap<IpAddr, Seen> = BTreeMap::new();
            let mut now = Duration::ZERO;
            let mut late = late.into_iter().cycle();
            for (wait, who, happening) in happenings {
                let next = now + ms(wait);
                // The timer may fire late.
                while let Some(at) = claims.poll_timeout().map(|at| at.max(now)).filter(|at| *at <= next) {
                    let at = (at + ms(late.next().unwrap_or(0) / 10 * 10)).min(next);
                    while let Some(step) = claims.poll(at) {
                        match step {
                            Step::Enquire(address) => {
                                let seen = seen.get_mut(&address).unwrap();
                                if seen.answered || seen.enquiries.len() == 2 {
                                    *seen = Seen::default();
                                }
                                seen.enquiries.push(at);
                            }
                            Step::Free(address) => {
                                let seen = &seen[&address];
                                prop_assert!(!seen.answered);
                                prop_assert_eq!(seen.enquiries.len(), 2);
                                prop_assert!(seen.enquiries[1] - seen.enquiries[0] >= ms(100));
                                prop_assert!(at - seen.enquiries[1] >= ms(100));
                            }
                        }
                    }
                    prop_assert!(claims.poll_timeout().is_none_or(|timeout| timeout > at));
                    now = at;
                }
                now = next;
                let address = IpAddr::from([192, 0, 2, who]);
                match happening {
                    Happening::Begin => {
                        if claims.verdict(now, address) == Verdict::Unknown {
                            seen.insert(address, Seen::default());
                        }
                        claims.begin(now, address);
                        prop_assert_ne!(claims.verdict(now, address), Verdict::Unknown);
                    }
                    Happening::Cancel => {
                        claims.cancel(address);
                        seen.remove(&address);
                    }
                    Happening::Hear(answer) => {
                        claims.heard(now, address, answer);
                        seen.entry(address).and_modify(|seen| seen.answered = true);
                    }
                }
                prop_assert!(claims.addresses.len() <= seen.len());
                for (address, seen) in &seen {
                    if let Verdict::Free { begun } = claims.verdict(now, *address) {
                        prop_assert!(!seen.answered && now - seen.enquiries[1] < ms(100) + FREE_FOR);
                        prop_assert!(begun <= seen.enquiries[0]);
                    }
                }
            }
        }
    }
}

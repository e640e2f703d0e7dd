//! I1: on a connected segment no address is answered with two MACs for longer than the bound of P4.
//!
//! The bound is two hello intervals of the slower node, counted from the first Hello that gets through from either node
//! to the other after both answer and can reach each other both ways. It allows for a Hello (one interval until it
//! comes), by whose digest the receiver sees that it lacks claims; for the receiver's request, in a Hello that may have
//! to come a quarter of an interval after the one before; and for the claims at once. Each of the three frames may be
//! lost: on a path that loses frames, each is repeated with the next Hello, so the bound grows by 3 x retries(loss)
//! intervals.

use std::time::Duration;

use herald_protocol::mac::MacAddr;

use super::{Invariant, Violation, retries};
use crate::names::{AddrIx, NodeIx};

/// A node that answers, and with which MAC.
pub type Answer = (NodeIx, MacAddr);

/// Two nodes that answer differently for one address.
#[derive(Clone, Debug)]
struct Contest {
    address: AddrIx,
    a: Answer,
    b: Answer,
    since: Duration,
    /// When the first Hello got through, and when the contest must be over.
    heard: Option<(Duration, Duration)>,
}

/// If more nodes than this answer one address, they are not compared with each other: two suffice for a violation.
const COMPARED: usize = 6;

/// The present contests.
#[derive(Debug, Default)]
pub struct TwoMacs {
    contests: Vec<Contest>,
}

impl TwoMacs {
    /// The nodes that answer an address have changed, or the nodes that can reach each other.
    pub fn update(
        &mut self,
        now: Duration,
        address: AddrIx,
        answers: &[Answer],
        connected: impl Fn(&Answer, &Answer) -> bool,
    ) {
        let before = std::mem::take(&mut self.contests);
        let (mut of_address, others): (Vec<_>, Vec<_>) = before.into_iter().partition(|c| c.address == address);
        self.contests = others;
        let answers = &answers[..answers.len().min(COMPARED)];
        for (index, a) in answers.iter().enumerate() {
            for b in &answers[index + 1..] {
                if a.1 == b.1 || !connected(a, b) {
                    continue;
                }
                let known = of_address.iter().position(|c| (c.a, c.b) == (*a, *b) || (c.a, c.b) == (*b, *a));
                self.contests.push(match known {
                    Some(index) => of_address.swap_remove(index),
                    None => Contest { address, a: *a, b: *b, since: now, heard: None },
                });
            }
        }
    }

    /// Returns whether there is no contest, so that no Hello matters.
    pub fn is_empty(&self) -> bool {
        self.contests.is_empty()
    }

    /// Returns a contested address, if there is one.
    pub fn any(&self) -> Option<(AddrIx, Answer, Answer)> {
        self.contests.first().map(|c| (c.address, c.a, c.b))
    }

    /// Some pairs know of their contests without a Hello.
    pub fn known(&mut self, now: Duration, bound: Duration, know: impl Fn(&Answer, &Answer) -> bool) {
        for contest in self.contests.iter_mut().filter(|contest| know(&contest.a, &contest.b)) {
            contest.heard.get_or_insert((now, now + bound));
        }
    }

    /// A Hello got through.
    pub fn hello(&mut self, now: Duration, from: NodeIx, to: NodeIx, bound: Duration) {
        for contest in &mut self.contests {
            let (a, b) = (contest.a.0, contest.b.0);
            if ((a, b) == (from, to) || (a, b) == (to, from)) && contest.heard.is_none() {
                contest.heard = Some((now, now + bound));
            }
        }
    }

    /// Returns a contest that is not over when it must be.
    pub fn overdue(&self, now: Duration) -> Option<Violation> {
        let contest = self.contests.iter().find(|c| c.heard.is_some_and(|(_, due)| now > due))?;
        let (heard, due) = contest.heard?;
        Some(Violation {
            invariant: Invariant::TwoMacs,
            at: now,
            seen: format!(
                "address {} is answered by node {} with {} and by node {} with {} since {:.3} s; a Hello got through at \
                 {:.3} s, so it had to be over by {:.3} s",
                contest.address,
                contest.a.0,
                contest.a.1,
                contest.b.0,
                contest.b.1,
                contest.since.as_secs_f64(),
                heard.as_secs_f64(),
                due.as_secs_f64()
            ),
        })
    }
}

/// Returns how long a contest may last after the first Hello.
pub fn bound(interval: Duration, loss: f64, longest_delay: Duration) -> Duration {
    interval * (2 + 3 * retries(loss)) + longest_delay * 3 + Duration::from_millis(5)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::mac;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn fires_after_the_bound_from_the_first_hello() {
        let mut check = TwoMacs::default();
        check.update(ms(0), 3, &[(0, mac(0)), (1, mac(1))], |_, _| true);
        assert_eq!(check.overdue(ms(5000)), None, "no Hello got through");
        check.hello(ms(5000), 1, 0, ms(200));
        check.hello(ms(5100), 0, 1, ms(200));
        assert_eq!(check.overdue(ms(5200)), None);
        assert_eq!(check.overdue(ms(5201)).unwrap().invariant, Invariant::TwoMacs);
    }

    #[test]
    fn fires_without_a_hello_if_both_are_of_one_process() {
        let mut check = TwoMacs::default();
        check.update(ms(0), 3, &[(0, mac(0)), (1, mac(1)), (5, mac(5))], |_, _| true);
        check.known(ms(0), ms(200), |a, b| (a.0, b.0) == (0, 5));
        check.known(ms(100), ms(200), |a, b| (a.0, b.0) == (0, 5));
        assert_eq!(check.overdue(ms(200)), None);
        assert!(check.overdue(ms(201)).unwrap().seen.contains("node 5"));
    }

    #[test]
    fn node_that_yields_in_time_is_fine() {
        let mut check = TwoMacs::default();
        check.update(ms(0), 3, &[(0, mac(0)), (1, mac(1))], |_, _| true);
        check.hello(ms(10), 1, 0, ms(200));
        check.update(ms(100), 3, &[(1, mac(1))], |_, _| true);
        assert_eq!(check.overdue(ms(1000)), None);
    }

    #[test]
    fn cover_and_unconnected_nodes_do_not_count_as_a_second_mac() {
        let mut check = TwoMacs::default();
        check.update(ms(0), 3, &[(0, mac(0)), (1, mac(0))], |_, _| true);
        assert!(check.is_empty());
        check.update(ms(0), 3, &[(0, mac(0)), (1, mac(1))], |_, _| false);
        assert!(check.is_empty());
    }

    #[test]
    fn contest_goes_on_when_a_third_joins() {
        let mut check = TwoMacs::default();
        check.update(ms(0), 3, &[(0, mac(0)), (1, mac(1))], |_, _| true);
        check.hello(ms(0), 0, 1, ms(200));
        check.update(ms(150), 3, &[(2, mac(2)), (1, mac(1)), (0, mac(0))], |_, _| true);
        assert!(check.overdue(ms(201)).is_some());
    }
}

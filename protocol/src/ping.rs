//! Whether a node answers this node's pings (ICMP and ICMPv6 echo requests). If a node has answered before, a missing
//! answer is a sign; otherwise it is not, as many firewalls drop pings.

use std::{net::IpAddr, time::Duration};

use crate::{
    mac::MacAddr,
    timers::{PING_HABIT_EVERY, PING_HABIT_MISSES, PING_HABIT_RETRY},
};

/// Whether a node answers, found out by asking it now and then while it is known to be alive.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PingHabit {
    /// Where it was asked: at another address, or with another link-layer address, it may not answer.
    target: Option<(IpAddr, MacAddr)>,
    /// When it is to be asked again; the start of time if it never was.
    next: Duration,
    /// Whether the last question has not been answered yet.
    outstanding: bool,
    /// Questions in a row that were not answered.
    missed: u32,
    /// When it last answered; `None`: it is not known to answer.
    answered: Option<Duration>,
}

impl PingHabit {
    /// Notes where the node is asked. An answer from elsewhere does not count.
    pub(crate) fn aim(&mut self, target: (IpAddr, MacAddr)) {
        if self.target != Some(target) {
            *self = Self { target: Some(target), ..Self::default() };
        }
    }

    /// The node is asked.
    pub(crate) fn ask(&mut self, now: Duration) {
        if self.outstanding {
            self.missed = self.missed.saturating_add(1);
            if self.missed >= PING_HABIT_MISSES {
                self.answered = None;
            }
        }
        self.outstanding = true;
        // A node that never answers is not asked more often than others.
        self.next = now + if self.answered.is_some() { PING_HABIT_RETRY } else { PING_HABIT_EVERY };
    }

    /// The node has answered a question, of these or of those about its kernel.
    pub(crate) fn answered(&mut self, now: Duration) {
        if self.target.is_none() {
            return;
        }
        self.next = now + PING_HABIT_EVERY;
        (self.outstanding, self.missed) = (false, 0);
        self.answered = Some(now);
    }

    /// Returns when it last answered; `None`: it is not known to answer.
    pub(crate) fn last_answer(&self) -> Option<Duration> {
        self.answered
    }

    /// Answers from before this moment cease to count.
    pub(crate) fn expire(&mut self, before: Duration) {
        self.answered = self.answered.filter(|answered| *answered >= before);
    }

    /// Its answers cease to count; it is asked again at once.
    pub(crate) fn forget(&mut self) {
        *self = Self { target: self.target, ..Self::default() };
    }

    /// Returns when it is to be asked again, and whether that is because a node that used to answer did not.
    pub(crate) fn next(&self) -> (Duration, bool) {
        (self.next, self.answered.is_some() && self.outstanding)
    }
}

/// The time at which the next node is asked.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PingClock {
    next: Option<Duration>,
    /// When the last node was asked.
    asked: Option<Duration>,
}

impl PingClock {
    /// Returns when a node is to be looked for.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.next
    }

    /// A node is to be asked after `delay`, but never sooner than `gap` after the last.
    pub(crate) fn hasten(&mut self, now: Duration, delay: Duration, gap: Duration) {
        let earliest = self.asked.map_or(now, |asked| asked + gap);
        let at = (now + delay).max(earliest);
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }

    /// A node is asked now.
    pub(crate) fn asked(&mut self, now: Duration, gap: Duration) {
        self.asked = Some(now);
        self.next = Some(now + gap);
    }

    /// No node is to be asked before this; `None`: there is none.
    pub(crate) fn rest_until(&mut self, next: Option<Duration>) {
        self.next = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: (IpAddr, MacAddr) = (IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)), MacAddr([2, 0, 0, 0, 0, 1]));

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn asked(at: Duration) -> PingHabit {
        let mut habit = PingHabit::default();
        habit.aim(TARGET);
        habit.ask(at);
        habit
    }

    #[test]
    fn node_that_never_answers_is_asked_once_a_minute() {
        let mut habit = asked(s(10));
        for at in [70, 130, 190, 250] {
            assert_eq!(habit.next(), (s(at), false));
            habit.ask(s(at));
        }
        assert_eq!(habit.last_answer(), None);
    }

    #[test]
    fn node_that_ceases_to_answer_is_asked_again_soon_and_then_forgotten() {
        let mut habit = asked(s(10));
        habit.answered(s(11));
        assert_eq!(habit.next(), (s(71), false));
        habit.ask(s(71));
        for at in [72, 73] {
            assert_eq!(habit.next(), (s(at), true));
            habit.ask(s(at));
            assert_eq!(habit.last_answer(), Some(s(11)), "one answer may be lost, or two");
        }
        habit.ask(s(74));
        assert_eq!((habit.last_answer(), habit.next()), (None, (s(134), false)));
    }

    #[test]
    fn lost_answer_changes_nothing() {
        let mut habit = asked(s(10));
        habit.answered(s(11));
        habit.ask(s(71));
        habit.ask(s(72));
        habit.answered(s(72));
        assert_eq!((habit.last_answer(), habit.next()), (Some(s(72)), (s(132), false)));
        habit.ask(s(132));
        habit.ask(s(133));
        habit.ask(s(134));
        assert_eq!(habit.last_answer(), Some(s(72)), "the earlier ones were answered");
    }

    #[test]
    fn answers_from_elsewhere_do_not_count() {
        let mut habit = asked(s(10));
        habit.answered(s(11));
        habit.aim(TARGET);
        assert_eq!(habit.last_answer(), Some(s(11)));
        habit.aim((TARGET.0, MacAddr([2, 0, 0, 0, 0, 7])));
        assert_eq!((habit.last_answer(), habit.next()), (None, (s(0), false)));
    }

    #[test]
    fn requests_keep_their_distance() {
        let (mut clock, gap) = (PingClock::default(), Duration::from_millis(500));
        clock.hasten(s(10), Duration::ZERO, gap);
        assert_eq!(clock.next(), Some(s(10)));
        clock.asked(s(10), gap);
        clock.hasten(s(10), Duration::ZERO, gap);
        assert_eq!(clock.next(), Some(s(10) + gap));
        clock.rest_until(Some(s(60)));
        clock.hasten(s(20), Duration::from_millis(100), gap);
        assert_eq!(clock.next(), Some(s(20) + Duration::from_millis(100)));
    }
}

//! Everything that the engine does at a moment of its own, in one table.

use std::time::Duration;

use super::{Engine, shutdown::Stopping};

/// Something that is due at a moment. Each variant has its moment in [`Engine::due`] and its action in
/// [`Engine::fire`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// The end of the barrier is looked at.
    Barrier,
    /// The end of the pause after a stall is looked at.
    Stall,
    /// A packet of a node about an address that it has not claimed is judged. This comes before the turns, which wait
    /// for it.
    Overheard,
    /// An address is decided about again.
    Turn,
    /// A peer needs attention.
    Peers,
    /// A claim of two nodes on one address is looked into.
    Dispute,
    /// A new claim is repeated.
    Repeat,
    /// An address is probed before its first claim, or was.
    FirstClaim,
    /// Other hosts are asked for a sign of life.
    Solicitation,
    /// A peer is asked whether it answers pings.
    PingHabit,
    /// An address is announced.
    Announcement,
    /// A part of a full list goes out.
    FullList,
    /// A shutdown takes its next step.
    Shutdown,
    /// A Hello goes out.
    Hello,
}

impl Timer {
    /// All timers, in the order in which those that are due at one moment are fired.
    pub(super) const ALL: [Self; 14] = [
        Self::Barrier,
        Self::Stall,
        Self::Overheard,
        Self::Turn,
        Self::Peers,
        Self::Dispute,
        Self::Repeat,
        Self::FirstClaim,
        Self::Solicitation,
        Self::PingHabit,
        Self::Announcement,
        Self::FullList,
        Self::Shutdown,
        Self::Hello,
    ];
}

impl Engine {
    /// Returns when a timer is due; nothing, if it is not set.
    pub(super) fn due(&self, timer: Timer) -> Option<Duration> {
        match timer {
            Timer::Barrier => self.participation.next_barrier_look(),
            Timer::Stall => self.participation.next_stall_look(),
            Timer::Overheard => self.overhearing.next(),
            Timer::Turn => self.contest.next(),
            Timer::Peers => Some(self.detector.next_look()),
            Timer::Dispute => self.sync.next_dispute(),
            Timer::Repeat => self.sync.next_repeat(),
            Timer::FirstClaim => self.conflict_detection.poll_timeout(),
            Timer::Solicitation => self.hearing.solicit_at(),
            Timer::PingHabit => self.detector.pings().next(),
            Timer::Announcement => self.announcements.next().filter(|_| self.may_announce()),
            Timer::FullList => self.sync.next_part(),
            Timer::Shutdown => self.stopping.as_ref().and_then(Stopping::next),
            Timer::Hello => Some(self.transmitter.next_hello()),
        }
    }

    /// Does what a timer is for, if it is due.
    pub(super) fn fire(&mut self, now: Duration, timer: Timer) {
        match timer {
            Timer::Barrier => self.step_barrier(now),
            Timer::Stall => self.step_stall(now),
            Timer::Overheard => self.judge_overheard(now),
            Timer::Turn => {
                while let Some(address) = self.contest.pop_due(now) {
                    self.evaluate(now, address);
                }
            }
            Timer::Peers => self.attend_due_peers(now),
            Timer::Dispute => self.judge_disputes(now),
            Timer::Repeat => self.repeat_claims(now),
            Timer::FirstClaim => self.step_first_claims(now),
            Timer::Solicitation => {
                self.solicit(now);
                // Nothing depends on the moment: the dead are asked with the first timer after their pause.
                self.ask_the_dead(now);
            }
            Timer::PingHabit => self.ask_who_answers_pings(now),
            Timer::Announcement => self.send_due_announcements(now),
            Timer::FullList => {
                // Changes go out first: what is left of a list that was begun before them is out of date.
                self.settle(now);
                self.continue_full_list(now);
            }
            Timer::Shutdown => self.step_shutdown(now),
            Timer::Hello if self.transmitter.next_hello() <= now => self.send_hellos(now),
            Timer::Hello => {}
        }
    }
}

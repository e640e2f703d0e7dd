//! The invariants that must hold at every step.

pub mod answered;
pub mod flows;
pub mod load;
pub mod owners;
pub mod two_macs;

use std::{fmt, time::Duration};

/// An invariant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// I1: an address has one MAC.
    TwoMacs,
    /// I1: of two interfaces of a node on one wire, the yielding one sends nothing.
    Yielding,
    /// I2: an address with a live eligible candidate is answered.
    Unanswered,
    /// I2: an address does not stay with a node that serves nobody while another node would.
    Unserved,
    /// I2: an address that does not exist is not answered.
    Ghost,
    /// I1: a speaker that was stopped answers only after it has heard what it missed.
    AnsweredUnheard,
    /// I3: the owner changes only for a reason that the design names.
    Reason,
    /// I3: while nothing goes wrong, no owner changes.
    QuietChange,
    /// I3: an address does not go back to a former owner.
    PingPong,
    /// I4: a client's connection goes on.
    FlowBroken,
    /// I4: clients' caches agree with the owner.
    StaleCache,
    /// I5: frames, timers and events stay bounded.
    Unbounded,
    /// I5: forged input changes nothing.
    Forgery,
    /// I6: an address that a stranger holds is not claimed; an owned address is defended, but seldom.
    Stranger,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TwoMacs => "I1 two MACs",
            Self::Yielding => "I1 yielding interface speaks",
            Self::Unanswered => "I2 unanswered",
            Self::Unserved => "I2 address left with a node that serves nobody",
            Self::Ghost => "I2 deleted address answered",
            Self::AnsweredUnheard => "I1 answered before it listened",
            Self::Reason => "I3 owner changed without a reason",
            Self::QuietChange => "I3 owner changed while nothing happened",
            Self::PingPong => "I3 ping-pong",
            Self::FlowBroken => "I4 flow broken",
            Self::StaleCache => "I4 stale cache",
            Self::Unbounded => "I5 unbounded",
            Self::Forgery => "I5 forgery believed",
            Self::Stranger => "I6 stranger",
        })
    }
}

/// An invariant that was violated.
#[derive(Clone, Debug, PartialEq)]
pub struct Violation {
    /// The invariant.
    pub invariant: Invariant,
    /// Time of the violation.
    pub at: Duration,
    /// What was seen.
    pub seen: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:.3} s: {}", self.invariant, self.at.as_secs_f64(), self.seen)
    }
}

/// Returns after how many more tries one of them has got through a path that loses frames with probability `loss`, but
/// for one case in ten million: the smallest k with loss^k <= 1e-7. No wait for one frame of a peer can be bounded more
/// tightly.
pub fn retries(loss: f64) -> u32 {
    if loss <= 0.0 {
        return 0;
    }
    // A path that loses every frame does not count as a path; the cap keeps the arithmetic finite.
    (1e-7_f64.ln() / loss.min(0.95).ln()).ceil() as u32
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    #[test_case(0.0 => 0)]
    #[test_case(0.01 => 4; "1 percent")]
    #[test_case(0.03 => 5; "3 percent")]
    #[test_case(0.5 => 24; "half")]
    fn retries(loss: f64) -> u32 {
        super::retries(loss)
    }
}

//! I5: the number of frames that a node sends and of its wake-ups stays bounded, whatever it receives.

use std::time::Duration;

use herald_protocol::timers::TRIGGERED_GAP_DIVISOR;

use super::{Invariant, Violation};
use crate::names::NodeIx;

/// The load of one node in one second.
#[derive(Clone, Copy, Debug, Default)]
struct Second {
    index: u64,
    frames: u32,
    wakes: u32,
}

/// Limits of a node's load in one second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Frames of the protocol.
    pub frames: u32,
    /// Firings of its timer.
    pub wakes: u32,
}

/// Hellos sent at once, if the heard list is long.
const HELLOS_AT_ONCE: u32 = 5;

/// Number of claims that surely fit a frame (about 40 bytes each in 1,400).
const CLAIMS_PER_FRAME: u32 = 25;

impl Limits {
    /// Returns the limits for a segment.
    ///
    /// Frames: a node sends Hellos at most every quarter of an interval, five at once. Each peer may ask for all claims
    /// with each of its Hellos; each address may change a few times. Wake-ups: each frame and packet may set a timer
    /// (probes every 50 ms for each silent peer, announcements five rounds for each address).
    pub fn of(interval: Duration, nodes: usize, addresses: usize) -> Self {
        let (nodes, addresses) = (nodes as u32, addresses as u32);
        let hellos =
            (TRIGGERED_GAP_DIVISOR * HELLOS_AT_ONCE).saturating_mul((1.0 / interval.as_secs_f64()).ceil() as u32);
        let claims = addresses.div_ceil(CLAIMS_PER_FRAME) * nodes.min(10) * TRIGGERED_GAP_DIVISOR + 4 * addresses;
        Self { frames: hellos + claims, wakes: 200 + hellos + claims + 40 * nodes + 10 * addresses }
    }
}

/// The load so far.
#[derive(Debug)]
pub struct Load {
    seconds: Vec<Second>,
    /// Frames of the protocol that all nodes sent.
    pub frames: u64,
    /// The largest number of frames that one node sent in one second.
    pub peak: u32,
}

impl Load {
    /// Returns the load of nodes that have sent nothing.
    pub fn new(nodes: usize) -> Self {
        Self { seconds: vec![Second::default(); nodes], frames: 0, peak: 0 }
    }

    fn second(&mut self, now: Duration, node: NodeIx) -> &mut Second {
        let second = &mut self.seconds[node];
        if second.index != now.as_secs() {
            *second = Second { index: now.as_secs(), ..Second::default() };
        }
        second
    }

    /// Counts a frame that a node sends. Returns a violation if the limit is passed.
    pub fn frame(&mut self, now: Duration, node: NodeIx, limits: Limits) -> Option<Violation> {
        self.frames += 1;
        let second = self.second(now, node);
        second.frames += 1;
        let frames = second.frames;
        self.peak = self.peak.max(frames);
        (frames > limits.frames).then(|| Violation {
            invariant: Invariant::Unbounded,
            at: now,
            seen: format!("node {node} sent more than {} frames within a second", limits.frames),
        })
    }

    /// Counts a firing of a node's timer. Returns a violation if the limit is passed.
    pub fn wake(&mut self, now: Duration, node: NodeIx, limits: Limits) -> Option<Violation> {
        let second = self.second(now, node);
        second.wakes += 1;
        (second.wakes > limits.wakes).then(|| Violation {
            invariant: Invariant::Unbounded,
            at: now,
            seen: format!("node {node}'s timer fired more than {} times within a second", limits.wakes),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fires_above_the_limit_of_one_second() {
        let limits = Limits { frames: 3, wakes: 2 };
        let mut load = Load::new(2);
        let ms = Duration::from_millis;
        for at in [0, 300, 600, 1000, 1300, 1600] {
            assert_eq!(load.frame(ms(at), 1, limits), None);
        }
        assert_eq!(load.frame(ms(1700), 0, limits), None, "each node has a count of its own");
        assert_eq!(load.frame(ms(1700), 1, limits).unwrap().invariant, Invariant::Unbounded);
        assert!(load.wake(ms(0), 0, limits).is_none() && load.wake(ms(1), 0, limits).is_none());
        assert!(load.wake(ms(2), 0, limits).is_some());
    }

    #[test]
    fn plain_segment_has_this_limit() {
        let limits = Limits::of(Duration::from_millis(100), 3, 10);
        assert!(limits.frames >= 200 && limits.frames < 300, "{limits:?}");
    }
}

//! When which fault last touched a node: what a verdict about it has to allow for.

use std::time::Duration;

/// The faults of the history, as the nodes feel them. Vectors are by node.
#[derive(Debug)]
pub(super) struct Trouble {
    /// When a fault last kept others from reaching the node, or it from reaching others.
    pub(super) unreachable: Vec<Duration>,
    /// When a path between some nodes was last broken.
    pub(super) paths_broken: Duration,
    /// When the protocol's EtherType was last dropped somewhere.
    pub(super) unheard: Option<Duration>,
    /// When a recorded frame was last played back.
    pub(super) played_back: Option<Duration>,
    /// When the node was last told to leave for good.
    pub(super) told_to_leave: Vec<Option<Duration>>,
    /// Since when no frame of any other host reaches the node.
    pub(super) deaf_since: Vec<Option<Duration>>,
    /// When the node was last cut off from clients without being able to tell: deaf, mute, or paused while its clock
    /// stood still.
    pub(super) impaired: Vec<Duration>,
    /// When the node's speaker was last down with no second one on the segment to cover it.
    pub(super) uncovered: Vec<Duration>,
    /// When the node's last frame went out.
    pub(super) last_sent: Vec<Duration>,
}

impl Trouble {
    pub(super) fn none(nodes: usize) -> Self {
        Self {
            unreachable: vec![Duration::ZERO; nodes],
            paths_broken: Duration::ZERO,
            unheard: None,
            played_back: None,
            told_to_leave: vec![None; nodes],
            deaf_since: vec![None; nodes],
            impaired: vec![Duration::ZERO; nodes],
            uncovered: vec![Duration::ZERO; nodes],
            last_sent: vec![Duration::ZERO; nodes],
        }
    }
}

//! The judges of a history, each of which follows the world for one kind of invariant.

use std::time::Duration;

use super::pace::Pace;
use crate::{
    check::{
        answered::Answered,
        load::{Limits, Load},
        owners::Owners,
        two_macs::{Answer, TwoMacs},
    },
    history::History,
};

/// What the invariants are checked by. Vectors are by address.
#[derive(Debug)]
pub(super) struct Judges {
    /// Since when everything should be well.
    pub(super) settled: Option<Duration>,
    pub(super) limits: Limits,
    pub(super) load: Load,
    pub(super) two_macs: TwoMacs,
    /// The nodes that answer by their own word, with the MAC.
    pub(super) answers: Vec<Vec<Answer>>,
    pub(super) answered: Answered,
    /// Since when some node can and may announce the address.
    pub(super) eligible: Vec<Option<Duration>>,
    /// Since when the address has been with a node that serves nobody while another node could serve it.
    pub(super) unserved: Vec<Option<Duration>>,
    pub(super) owners: Owners,
    pub(super) pace: Pace,
    /// The last step until which the owner of an address might change often.
    pub(super) no_pace_until_step: Option<Duration>,
}

impl Judges {
    pub(super) fn of(history: &History) -> Self {
        let (nodes, addresses) = (history.speakers(), history.addresses);
        Self {
            settled: None,
            limits: Limits::of(history.timers.interval(0), nodes, addresses),
            load: Load::new(nodes),
            two_macs: TwoMacs::default(),
            answers: vec![Vec::new(); addresses],
            answered: Answered::new(addresses),
            eligible: vec![None; addresses],
            unserved: vec![None; addresses],
            owners: Owners::new(addresses),
            pace: Pace::of(history),
            no_pace_until_step: None,
        }
    }
}

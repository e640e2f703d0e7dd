//! Frames that no node of the cluster sent.

use std::time::Duration;

use herald_protocol::{
    node::Incarnation,
    wire::{Keyring, VERSION},
};

use super::{Event, World, keys::foreign_keyring};
use crate::{
    check::{Invariant, Violation},
    fault::{Condition, Forgery, Step},
    names::NodeIx,
    net::Kind,
};

/// Time from one forged frame to the next.
const FORGE_EVERY: Duration = Duration::from_millis(20);

/// A frame that a forger has recorded.
#[derive(Clone, Debug)]
pub(super) struct Recorded {
    pub(super) from: NodeIx,
    pub(super) run: Incarnation,
    pub(super) hello: bool,
    pub(super) bytes: Vec<u8>,
}

/// The sender of frames that no node of the cluster sent.
#[derive(Debug)]
pub(super) struct Forger {
    /// Frames of the cluster's nodes.
    pub(super) recorded: Vec<Recorded>,
    /// Whether the history has forged frames, so that frames are recorded.
    pub(super) records: bool,
    /// Number of forgeries under way.
    pub(super) forging: u32,
    foreign_keys: Keyring,
}

impl Forger {
    pub(super) fn new(steps: &[Step]) -> Self {
        let records = steps.iter().any(|step| matches!(step.condition, Condition::Forged(_)));
        Self { recorded: Vec::new(), records, forging: 0, foreign_keys: foreign_keyring() }
    }
}

impl World<'_> {
    /// A forged frame reaches all nodes; the next follows while the condition holds.
    pub(super) fn forge(&mut self, turn: usize) {
        let kinds: Vec<_> = self
            .conditions
            .iter()
            .filter_map(|condition| match condition {
                Condition::Forged(forgery) => Some(*forgery),
                _ => None,
            })
            .collect();
        if kinds.is_empty() {
            return;
        }
        let kind = kinds[turn % kinds.len()];
        self.queue.push(self.now + FORGE_EVERY, Event::Forge(turn + 1));
        let Some((from, bytes)) = self.forged(kind) else { return };
        if kind == Forgery::Replay {
            self.trouble.played_back = Some(self.now);
        }
        let forger = self.nodes.len();
        for index in 0..self.nodes.len() {
            let node = &mut self.nodes[index];
            // A node's own frames that come back are a loop, not a forgery. The forger is connected where the clients
            // are.
            if !node.speaks() || from == Some(index) || !self.net.carries(forger, index, Kind::Other) {
                continue;
            }
            let now = node.local(self.now);
            let Some(speaker) = &mut node.speaker else { continue };
            let believed = speaker.machine.hear_forged(now, &bytes);
            self.after(index);
            // A replay may bring a frame that a node had not received; the other invariants judge that.
            if believed && !matches!(kind, Forgery::Replay | Forgery::FormerRuns) {
                self.violate(Violation {
                    invariant: Invariant::Forgery,
                    at: self.now,
                    seen: format!("node {index} accepts a forged frame ({kind:?})"),
                });
                return;
            }
        }
    }

    fn forged(&mut self, kind: Forgery) -> Option<(Option<usize>, Vec<u8>)> {
        let some = |rng: &mut fastrand::Rng, recorded: &[Recorded]| {
            (!recorded.is_empty()).then(|| recorded[rng.usize(0..recorded.len())].clone())
        };
        match kind {
            Forgery::Noise => {
                let length = self.rng.usize(0..200);
                // The version comes first: otherwise the first byte would end the parsing.
                let noise = |rng: &mut fastrand::Rng| rng.u8(..);
                let bytes = (0..length).map(|at| if at == 0 { VERSION } else { noise(&mut self.rng) }).collect();
                Some((None, bytes))
            }
            Forgery::Foreign => {
                let Recorded { bytes, .. } = some(&mut self.rng, &self.forger.recorded)?;
                let frame = self.keys.open(&bytes).ok()?;
                let key = *self.forger.foreign_keys.ids().first()?;
                Some((None, self.forger.foreign_keys.seal(key, VERSION, &frame).ok()?))
            }
            Forgery::Flipped => {
                let Recorded { mut bytes, .. } = some(&mut self.rng, &self.forger.recorded)?;
                let at = self.rng.usize(0..bytes.len());
                bytes[at] ^= 1 << self.rng.u32(0..8);
                Some((None, bytes))
            }
            Forgery::Replay => some(&mut self.rng, &self.forger.recorded).map(|frame| (Some(frame.from), frame.bytes)),
            Forgery::FormerRuns => {
                let is_over = |frame: &&Recorded| {
                    let speaker = self.nodes[frame.from].speaker.as_ref();
                    frame.hello && speaker.is_none_or(|speaker| speaker.incarnation != frame.run)
                };
                let over: Vec<_> = self.forger.recorded.iter().filter(is_over).cloned().collect();
                some(&mut self.rng, &over).map(|frame| (Some(frame.from), frame.bytes))
            }
        }
    }
}

//! Frames that no node of the cluster sent.

use std::time::Duration;

use herald_protocol::wire::VERSION;

use super::{Event, Recorded, World};
use crate::{
    check::{Invariant, Violation},
    fault::{Condition, Forgery},
    net::Kind,
};

/// Time from one forged frame to the next.
const FORGE_EVERY: Duration = Duration::from_millis(20);

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
            self.played_back = Some(self.now);
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
                let Recorded { bytes, .. } = some(&mut self.rng, &self.recorded)?;
                let frame = self.keys.open(&bytes).ok()?;
                let key = *self.foreign_keys.ids().first()?;
                Some((None, self.foreign_keys.seal(key, VERSION, &frame).ok()?))
            }
            Forgery::Flipped => {
                let Recorded { mut bytes, .. } = some(&mut self.rng, &self.recorded)?;
                let at = self.rng.usize(0..bytes.len());
                bytes[at] ^= 1 << self.rng.u32(0..8);
                Some((None, bytes))
            }
            Forgery::Replay => some(&mut self.rng, &self.recorded).map(|frame| (Some(frame.from), frame.bytes)),
            Forgery::FormerRuns => {
                let is_over = |frame: &&Recorded| {
                    let speaker = self.nodes[frame.from].speaker.as_ref();
                    frame.hello && speaker.is_none_or(|speaker| speaker.incarnation != frame.run)
                };
                let over: Vec<_> = self.recorded.iter().filter(is_over).cloned().collect();
                some(&mut self.rng, &over).map(|frame| (Some(frame.from), frame.bytes))
            }
        }
    }
}

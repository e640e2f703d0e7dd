//! Whose turn it is in the loop. Pure.
//!
//! Frames come first, for an answer is not to be late because facts pour in. But in one turn only so many of them are
//! taken, and of everything else that is ready one each: whatever pours in, all others are served once in every turn.

/// Frames in one turn. At some 5 us each, and 50 us for a full list of claims, they keep everything else waiting for a
/// third of a millisecond, and for 3 ms at the worst.
const MOST_FRAMES: u32 = 64;

/// What the loop serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Frames of the wire.
    Frames,
    /// Timers of the machine.
    Timers,
    /// Facts of the API and the kernel.
    Facts,
    /// SIGTERM and SIGINT.
    Signals,
    /// Tasks that end, and the end of the time for stopping.
    Ends,
    /// The kubelet's probes.
    Probes,
    /// Readers of the metrics.
    Scrapes,
    /// `herald-speaker inspect`.
    Inspections,
    /// Claims that are to be kept.
    Claims,
    /// A view that is to be kept.
    View,
}

/// What has been served in the present turn.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    frames: u32,
    /// One bit for each source but frames.
    served: u16,
}

impl Turn {
    /// Returns whether a source may be served before the next turn.
    pub(crate) fn allows(&self, source: Source) -> bool {
        match source {
            Source::Frames => self.frames < MOST_FRAMES,
            other => self.served & bit(other) == 0,
        }
    }

    /// Counts that a source is served.
    pub(crate) fn serve(&mut self, source: Source) {
        match source {
            Source::Frames => self.frames += 1,
            other => self.served |= bit(other),
        }
    }

    /// Returns whether nothing has been served in this turn: then every source may be waited for.
    pub(crate) fn is_fresh(&self) -> bool {
        self.frames == 0 && self.served == 0
    }

    /// Begins the next turn.
    pub(crate) fn next(&mut self) {
        *self = Self::default();
    }
}

fn bit(source: Source) -> u16 {
    1 << source as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turn_allows_so_many_frames_and_one_of_everything_else() {
        let mut turn = Turn::default();
        for _ in 0..MOST_FRAMES {
            assert!(turn.allows(Source::Frames));
            turn.serve(Source::Frames);
        }
        assert!(!turn.allows(Source::Frames) && turn.allows(Source::Timers));
        turn.serve(Source::Timers);
        assert!(!turn.allows(Source::Timers) && turn.allows(Source::Facts));
        turn.next();
        assert!(turn.is_fresh() && turn.allows(Source::Frames) && turn.allows(Source::Timers));
    }
}

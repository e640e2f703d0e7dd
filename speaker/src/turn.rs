//! The order in which the event loop serves its sources. Pure.
//!
//! Frames come first, so that answers are not late when facts pour in. But one turn takes at most [`MOST_FRAMES`] of
//! them, and one item of each other source that is ready: a flood of one source does not keep the others from being
//! served once in every turn.

/// Number of frames in one turn at most. A frame takes some 5 us, and a full list of claims 50 us, so a turn of frames
/// delays everything else by a third of a millisecond, and by 3 ms at the worst.
const MOST_FRAMES: u32 = 64;

/// Number of frames that are taken in before a timer or a fact at most: the Hellos of 100 peers while this process was not
/// run for 120 ms. It takes 0.7 ms to take them in; a flood delays each timer and each fact by that.
pub(crate) const HEARD_OUT: usize = 128;

/// A source that the event loop serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Frames of the wire.
    Frames,
    /// Timers of the coordinator.
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
    /// The claims that wait to be saved.
    Claims,
    /// The view that waits to be saved.
    View,
}

/// The sources that were served in the present turn.
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

    /// Returns whether nothing has been served in this turn: then the loop may wait for every source.
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
    fn turn_allows_64_frames_and_one_of_each_other_source() {
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

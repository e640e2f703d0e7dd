//! How many frames are taken in before everything else has its turn. Pure.

/// Frames in a row. At some 5 us each they keep timers, facts and signals waiting for a third of a millisecond, where a
/// flood without this bound kept them waiting for as long as it lasted.
const LONGEST: u32 = 64;

/// The frames that were taken in since something else was looked at.
#[derive(Debug, Default)]
pub(crate) struct FrameBurst {
    taken: u32,
}

impl FrameBurst {
    /// Returns whether another frame may be taken in before anything else.
    pub(crate) fn goes_on(&self) -> bool {
        self.taken < LONGEST
    }

    /// Counts a frame.
    pub(crate) fn took_one(&mut self) {
        self.taken += 1;
    }

    /// Everything else has had its turn.
    pub(crate) fn end(&mut self) {
        self.taken = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_frames_keeps_no_timer_waiting() {
        let (flood, mut frames) = tokio::sync::mpsc::unbounded_channel();
        let mut burst = FrameBurst::default();
        let (mut served, mut timers) = (0, 0);
        // The loop of `run`: frames first, but for the end of a burst.
        while timers < 10 {
            // There is always another.
            flood.send(()).unwrap();
            tokio::select! {
                biased;
                Some(()) = frames.recv(), if burst.goes_on() => {
                    burst.took_one();
                    served += 1;
                    continue;
                }
                () = std::future::ready(()) => timers += 1,
            }
            burst.end();
        }
        assert_eq!(served, 10 * LONGEST);
    }
}

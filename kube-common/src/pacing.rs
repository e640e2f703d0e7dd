//! The rate at which one object is written, whatever two programs believe. Pure.
//!
//! Two writers that contradict each other would go on for ever, at the speed of the API server. An object may therefore
//! be written a few times at once, which is more than any change of an address needs, and after that with doubling
//! pauses, until it has been left alone for a while.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use crate::pause::doubled;

/// Number of writes without a pause. The new owner of an address that moves writes once, and once more if the two
/// writes crossed.
const BURST: u32 = 5;
/// Pause after the last write of a burst. Each further write doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause: the age, at most, of a contested status.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Time after which an object that was not written starts with a burst again: twice the longest pause, so that a
/// contest does not start over each time the longest pause ends.
const CALM: Duration = Duration::from_secs(60);

/// The writes of the last minute, by object.
#[derive(Clone, Debug)]
pub struct Pacing<K> {
    recent: BTreeMap<K, Recent>,
    /// Every write of the last minute, oldest first.
    order: VecDeque<(Duration, K)>,
    /// The number of writes without a pause.
    burst: u32,
}

#[derive(Clone, Copy, Debug)]
struct Recent {
    writes: u32,
    last: Duration,
}

impl<K> Default for Pacing<K> {
    fn default() -> Self {
        Self::with_burst(BURST)
    }
}

impl<K> Pacing<K> {
    /// Returns a pacing that allows this number of writes of an object without a pause.
    pub fn with_burst(burst: u32) -> Self {
        Self { recent: BTreeMap::new(), order: VecDeque::new(), burst }
    }
}

impl<K: Clone + Ord> Pacing<K> {
    /// Counts a write of an object, and returns the pause before the next one.
    pub fn written(&mut self, now: Duration, object: &K) -> Duration {
        self.forget_calm(now);
        let recent = self.recent.entry(object.clone()).or_insert(Recent { writes: 0, last: now });
        recent.writes = recent.writes.saturating_add(1);
        recent.last = now;
        self.order.push_back((now, object.clone()));
        pause_after(recent.writes, self.burst)
    }

    /// Forgets a deleted object: another of the same name starts with a burst.
    pub fn forget(&mut self, object: &K) {
        self.recent.remove(object);
    }

    fn forget_calm(&mut self, now: Duration) {
        while let Some((at, object)) = self.order.pop_front_if(|(at, _)| *at + CALM <= now) {
            if self.recent.get(&object).is_some_and(|recent| recent.last == at) {
                self.recent.remove(&object);
            }
        }
    }
}

/// Returns the pause after this number of writes of an object, of which `burst` may come at once.
fn pause_after(writes: u32, burst: u32) -> Duration {
    match writes.checked_sub(burst) {
        None => Duration::ZERO,
        Some(over) => doubled(FIRST_PAUSE, over, LONGEST_PAUSE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Writes an object as often as the pacing allows for a while, and returns the times.
    fn contested(pacing: &mut Pacing<&'static str>, from: Duration, lasts: Duration) -> Vec<Duration> {
        let mut now = from;
        let mut writes = Vec::new();
        while now < from + lasts {
            writes.push(now - from);
            now += pacing.written(now, &"x").max(Duration::from_millis(10));
        }
        writes
    }

    #[test]
    fn contested_object_is_written_less_and_less_often() {
        let mut pacing = Pacing::default();
        let writes = contested(&mut pacing, s(0), s(120));
        let pauses: Vec<_> = writes.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect();
        assert_eq!(pauses[..4], [10; 4], "a burst of five");
        assert_eq!(pauses[4..], [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
    }

    #[test]
    fn contest_goes_on_slowly_for_as_long_as_it_lasts() {
        let mut pacing = Pacing::default();
        contested(&mut pacing, s(0), s(3600));
        assert_eq!(contested(&mut pacing, s(3630), s(60)).len(), 2);
    }

    #[test]
    fn object_that_was_left_alone_is_written_at_once() {
        let mut pacing = Pacing::default();
        contested(&mut pacing, s(0), s(120));
        assert_eq!(pacing.written(s(300), &"x"), Duration::ZERO);
    }

    #[test]
    fn object_that_is_gone_is_forgotten() {
        let mut pacing = Pacing::default();
        contested(&mut pacing, s(0), s(120));
        pacing.forget(&"x");
        assert_eq!(contested(&mut pacing, s(121), s(1)).len(), 6, "five at once, and one after half a second");
    }

    #[test]
    fn objects_are_paced_each_for_itself_and_forgotten() {
        let mut pacing = Pacing::default();
        for object in 0..10_000 {
            assert_eq!(pacing.written(s(1), &object), Duration::ZERO);
        }
        pacing.written(s(100), &0);
        assert_eq!((pacing.recent.len(), pacing.order.len()), (1, 1));
    }
}

//! The statuses that wait to be written to the API, and when each is written. Pure.
//!
//! At most one write per object waits: a later one replaces it, so an API server that was away does not receive
//! history. A write that fails for a passing reason is retried with growing delay for as long as no other write
//! replaces it. An object that was written often of late waits longer and longer ([`Pacing`]); a SpeakerStatus does so
//! much later than a VirtualIP, since peers depend on it.

use std::{collections::BTreeMap, time::Duration};

use herald_kube_common::{pacing::Pacing, pause::doubled};

use crate::coordinator::{SpeakerWrite, VipWrite};

/// First delay after a failure. Each further failure doubles the delay.
const FIRST_RETRY: Duration = Duration::from_millis(200);
/// Longest delay. An API server that returns receives the statuses within this.
const LONGEST_RETRY: Duration = Duration::from_secs(10);
/// First delay after a refusal, and the longest one: a policy that is mended takes effect within a minute, and a thousand
/// statuses that are refused for ever cost some 20 requests a second.
const FIRST_RETRY_OF_REFUSED: Duration = Duration::from_secs(1);
const LONGEST_RETRY_OF_REFUSED: Duration = Duration::from_secs(60);
/// Time between two writes of a SpeakerStatus: a flapping link deserves at most one a second.
const SPEAKER_INTERVAL: Duration = Duration::from_secs(1);
/// Number of writes of a SpeakerStatus, without a minute's rest between them, before the next waits for longer than
/// [`SPEAKER_INTERVAL`]. A person who edits or deletes the object causes fewer writes; a program that contradicts it
/// for ever causes more, and must not lead to one write a second for ever.
const SPEAKER_BURST: u32 = 30;

/// An object whose status is written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// This node's SpeakerStatus.
    Speaker,
    /// A VirtualIP, by name.
    Vip(String),
}

/// A write.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// A write of a SpeakerStatus.
    Speaker(SpeakerWrite),
    /// A write of a VirtualIP's status.
    Vip(VipWrite),
}

impl Write {
    /// Returns the object written.
    pub fn key(&self) -> Key {
        match self {
            Self::Speaker(_) => Key::Speaker,
            Self::Vip(write) => Key::Vip(write.name.clone()),
        }
    }

    /// Returns the UID, which distinguishes an object from the next one of its name. (No other program writes a
    /// SpeakerStatus, so its UID does not matter.)
    fn uid(&self) -> &str {
        match self {
            Self::Speaker(_) => "",
            Self::Vip(write) => &write.uid,
        }
    }
}

/// The end of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The status is written, or the write is pointless: the object changed or is gone, and the watch reports that.
    Settled,
    /// The write may succeed later.
    Failed,
    /// The API server refuses the status. The write may succeed once a person has changed a policy or the kind's
    /// schema, which no watch reports.
    Refused,
}

/// The queue.
#[derive(Debug)]
pub struct Queue {
    slots: BTreeMap<Key, Slot>,
    /// The pacing by name and UID: an address that is assigned again and again belongs to another object each time.
    pacing: Pacing<(Key, String)>,
    speaker_pacing: Pacing<()>,
}

#[derive(Debug)]
struct Slot {
    /// The UID of the object of the last or the waiting write.
    uid: String,
    waiting: Option<Write>,
    in_flight: Option<Write>,
    failures: u32,
    not_before: Duration,
}

impl Default for Queue {
    /// Returns an empty queue.
    fn default() -> Self {
        let speaker_pacing = Pacing::with_burst(SPEAKER_BURST);
        Self { slots: BTreeMap::new(), pacing: Pacing::default(), speaker_pacing }
    }
}

impl Queue {
    /// Lets a write wait for its turn, in the place of an earlier write that waits for the same object.
    pub fn push(&mut self, now: Duration, write: Write) {
        let uid = write.uid().to_owned();
        let slot = self.slots.entry(write.key()).or_insert_with(|| Slot {
            uid: uid.clone(),
            waiting: None,
            in_flight: None,
            failures: 0,
            not_before: now,
        });
        if slot.uid != uid {
            (slot.uid, slot.failures, slot.not_before) = (uid, 0, now);
        }
        if slot.failures > 0 && matches!(write, Write::Speaker(_)) {
            // A change may mean that the watch has found the kind again that the API server did not know.
            slot.not_before = slot.not_before.min(now + SPEAKER_INTERVAL);
        }
        slot.waiting = Some(write);
    }

    /// Returns the next write whose time has come. The write is in flight until [`Queue::ended`].
    pub fn next(&mut self, now: Duration) -> Option<Write> {
        let slot = self.slots.values_mut().find(|s| s.is_startable() && s.not_before <= now)?;
        slot.in_flight = slot.waiting.take();
        slot.in_flight.clone()
    }

    /// Records the end of a write.
    pub fn ended(&mut self, now: Duration, key: &Key, outcome: Outcome) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let ended = slot.in_flight.take();
        match outcome {
            Outcome::Settled => {
                slot.failures = 0;
                let object = (key.clone(), ended.as_ref().map_or("", Write::uid).to_owned());
                let pause = match key {
                    Key::Speaker => self.speaker_pacing.written(now, &()).max(SPEAKER_INTERVAL),
                    Key::Vip(_) => self.pacing.written(now, &object),
                };
                if slot.uid == object.1 {
                    slot.not_before = now + pause;
                }
            }
            Outcome::Failed | Outcome::Refused => {
                let (first, longest) = match outcome {
                    Outcome::Refused => (FIRST_RETRY_OF_REFUSED, LONGEST_RETRY_OF_REFUSED),
                    _ => (FIRST_RETRY, LONGEST_RETRY),
                };
                slot.waiting = slot.waiting.take().or(ended);
                slot.not_before = now + doubled(first, slot.failures, longest);
                slot.failures = slot.failures.saturating_add(1);
            }
        }
        // A slot that only remembers a time in the past is dropped.
        self.slots.retain(|_, s| s.waiting.is_some() || s.in_flight.is_some() || s.not_before > now);
    }

    /// Returns the time at which [`Queue::next`] has a write; `None`: not before a write is pushed or ends.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.slots.values().filter(|s| s.is_startable()).map(|s| s.not_before).min()
    }
}

impl Slot {
    /// Returns whether the slot's write may start. Two writes of one object are never in flight together: the later
    /// could arrive first.
    fn is_startable(&self) -> bool {
        self.waiting.is_some() && self.in_flight.is_none()
    }
}

#[cfg(test)]
mod tests {
    use herald_crds::{speaker_status::SpeakerStatusStatus, virtual_ip::VirtualIPStatus};

    use super::*;

    fn vip(name: &str, version: &str) -> Write {
        object(name, "u", version)
    }

    fn object(name: &str, uid: &str, version: &str) -> Write {
        let [name, uid, resource_version] = [name, uid, version].map(str::to_owned);
        Write::Vip(VipWrite { name, uid, resource_version, status: VirtualIPStatus::default() })
    }

    fn speaker(version: &str) -> Write {
        let status = SpeakerStatusStatus { version: version.to_owned(), ..SpeakerStatusStatus::default() };
        Write::Speaker(SpeakerWrite { node: "a".to_owned(), node_uid: "u".to_owned(), status })
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn latest_write_replaces_a_waiting_one() {
        let mut queue = Queue::default();
        queue.push(ms(0), vip("x", "1"));
        queue.push(ms(0), vip("x", "2"));
        assert_eq!(queue.next(ms(0)), Some(vip("x", "2")));
        assert_eq!(queue.next(ms(0)), None);
    }

    #[test]
    fn writes_of_one_object_are_serial_and_those_of_others_parallel() {
        let mut queue = Queue::default();
        queue.push(ms(0), vip("x", "1"));
        queue.next(ms(0));
        queue.push(ms(0), vip("x", "2"));
        queue.push(ms(0), vip("y", "1"));
        assert_eq!(queue.next(ms(0)), Some(vip("y", "1")));
        assert_eq!((queue.next(ms(0)), queue.poll_timeout()), (None, None));
        queue.ended(ms(5), &Key::Vip("x".into()), Outcome::Settled);
        assert_eq!(queue.next(ms(5)), Some(vip("x", "2")));
    }

    #[test]
    fn failed_write_is_retried_with_growing_delay() {
        let mut queue = Queue::default();
        queue.push(ms(0), vip("x", "1"));
        let mut now = ms(0);
        let mut delays = Vec::new();
        for _ in 0..9 {
            assert_eq!(queue.next(now), Some(vip("x", "1")));
            queue.ended(now, &Key::Vip("x".into()), Outcome::Failed);
            let next = queue.poll_timeout().unwrap();
            assert_eq!(queue.next(next - ms(1)), None);
            delays.push((next - now).as_millis());
            now = next;
        }
        assert_eq!(delays, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000]);
    }

    /// A policy forbids the status for an hour.
    #[test]
    fn refused_write_is_retried_once_a_minute() {
        let mut queue = Queue::default();
        queue.push(ms(0), speaker("1"));
        let (mut now, mut attempts) = (ms(0), 0);
        while now < ms(3_600_000) {
            assert_eq!(queue.next(now), Some(speaker("1")));
            queue.ended(now, &Key::Speaker, Outcome::Refused);
            attempts += 1;
            now = queue.poll_timeout().unwrap();
        }
        assert!((60..=67).contains(&attempts), "{attempts} attempts");
        queue.next(now);
        queue.ended(now, &Key::Speaker, Outcome::Settled);
        assert_eq!(queue.poll_timeout(), None);
    }

    #[test]
    fn failed_write_that_was_replaced_is_not_retried() {
        let mut queue = Queue::default();
        queue.push(ms(0), vip("x", "1"));
        queue.next(ms(0));
        queue.push(ms(0), vip("x", "2"));
        queue.ended(ms(0), &Key::Vip("x".into()), Outcome::Failed);
        assert_eq!(queue.next(ms(200)), Some(vip("x", "2")));
        queue.ended(ms(200), &Key::Vip("x".into()), Outcome::Settled);
        assert_eq!((queue.next(ms(9000)), queue.poll_timeout()), (None, None));
    }

    #[test]
    fn status_that_another_program_contradicts_is_written_ten_times_a_minute_at_most() {
        let mut queue = Queue::default();
        let (mut now, mut writes) = (ms(0), 0);
        while now < ms(60_000) {
            queue.push(now, vip("x", &now.as_millis().to_string()));
            if queue.next(now).is_some() {
                writes += 1;
                queue.ended(now, &Key::Vip("x".into()), Outcome::Settled);
            }
            now += ms(10);
        }
        assert!((5..=11).contains(&writes), "{writes} writes");
        queue.push(now, vip("y", "1"));
        assert!(queue.next(now).is_some(), "another object does not wait");
    }

    /// Services that come and go get the lowest free address, each time the same: each is announced and withdrawn.
    #[test]
    fn objects_of_one_name_that_follow_each_other_do_not_wait() {
        let mut queue = Queue::default();
        for n in 0..20 {
            for version in ["announced", "withdrawn"] {
                let (now, write) = (ms(n * 1000), object("x", &n.to_string(), version));
                queue.push(now, write.clone());
                assert_eq!(queue.next(now), Some(write));
                queue.ended(now, &Key::Vip("x".into()), Outcome::Settled);
            }
        }
    }

    #[test]
    fn object_does_not_wait_for_the_pause_of_the_one_before() {
        let mut queue = Queue::default();
        for n in 0..10 {
            queue.push(ms(0), object("x", "one", &n.to_string()));
            if queue.next(ms(0)).is_some() {
                queue.ended(ms(0), &Key::Vip("x".into()), Outcome::Settled);
            }
        }
        assert_eq!(queue.next(ms(0)), None);
        queue.push(ms(1), object("x", "two", "1"));
        assert_eq!(queue.next(ms(1)), Some(object("x", "two", "1")));
    }

    #[test]
    fn speaker_status_is_paced() {
        let mut queue = Queue::default();
        queue.push(ms(0), speaker("1"));
        assert_eq!(queue.next(ms(0)), Some(speaker("1")));
        queue.ended(ms(10), &Key::Speaker, Outcome::Settled);
        queue.push(ms(20), speaker("2"));
        assert_eq!(queue.next(ms(20)), None);
        assert_eq!(queue.poll_timeout(), Some(ms(1010)));
        assert_eq!(queue.next(ms(1010)), Some(speaker("2")));
    }

    /// Writes the SpeakerStatus whenever it may be written, for this number of seconds, and returns the times.
    fn contested_speaker_status(seconds: u64) -> Vec<u64> {
        let mut queue = Queue::default();
        let mut writes = Vec::new();
        for now in (0..seconds * 1000).step_by(10) {
            queue.push(ms(now), speaker(&now.to_string()));
            if queue.next(ms(now)).is_some() {
                writes.push(now);
                queue.ended(ms(now), &Key::Speaker, Outcome::Settled);
            }
        }
        writes
    }

    #[test]
    fn speaker_status_that_a_person_edits_again_and_again_is_written_again_within_a_second() {
        let writes = contested_speaker_status(25);
        assert!(writes.windows(2).all(|pair| pair[1] - pair[0] <= 1000), "{writes:?}");
    }

    #[test]
    fn speaker_status_that_another_program_contradicts_is_written_less_and_less_often() {
        let writes = contested_speaker_status(600);
        let late = writes.iter().filter(|at| **at >= 300_000).count();
        assert!((10..=11).contains(&late), "{late} writes in the last five minutes");
    }

    #[test]
    fn speaker_status_that_is_pushed_during_an_outage_is_tried_within_a_second() {
        let mut queue = Queue::default();
        queue.push(ms(0), speaker("1"));
        let mut now = ms(0);
        for _ in 0..9 {
            queue.next(now);
            queue.ended(now, &Key::Speaker, Outcome::Failed);
            now = queue.poll_timeout().unwrap();
        }
        let begun = now - ms(9000);
        queue.push(begun, speaker("2"));
        assert_eq!(queue.poll_timeout(), Some(begun + ms(1000)));
    }
}

//! The queue of decisions: the subjects, their times, and the writes under way.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use herald_kube_common::{pacing::Pacing, pause::doubled};

use crate::action::Subject;

/// The first pause after a failed write. The watch, which is some milliseconds behind, mends a conflict.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Subjects that need a decision. At most one write per subject is under way. A subject whose write failed waits,
/// longer each time; so does a subject that was written often recently, since another program may undo the writes
/// ([`Pacing`]).
#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    /// The marked subjects, by order, then subject: see [`Queue::mark`].
    ready: BTreeSet<(i64, Subject)>,
    in_flight: BTreeSet<Subject>,
    failures: BTreeMap<Subject, Failure>,
    pacing: Pacing<Subject>,
    /// The end of the pause of each subject that was written often recently.
    paced: BTreeMap<Subject, Duration>,
    timers: BTreeSet<(Duration, Subject)>,
}

/// A subject whose last write failed.
#[derive(Clone, Copy, Debug)]
struct Failure {
    attempts: u32,
    until: Duration,
}

/// The end of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The write changed the object, and another program may change it back.
    Written,
    /// The write changed the object, and no other program can cause it by undoing the last one.
    WrittenUnprompted,
    /// The write failed at this object.
    Failed,
    /// The API server takes no writes: the breaker decides when the write is repeated.
    Unavailable,
}

impl Queue {
    /// Requests a decision. Addresses come first (a Service waits for them), pools last; Services by age.
    pub(super) fn mark(&mut self, subject: Subject, created: i64) {
        let order = match subject {
            Subject::VirtualIp(_) => i64::MIN,
            Subject::Service(_) => created,
            Subject::Pool(_) | Subject::Advertisement(_) | Subject::StrayVirtualIp(_) | Subject::SpeakerStatus(_) => {
                i64::MAX
            }
        };
        self.ready.insert((order, subject));
    }

    /// Requests a decision at a time.
    pub(super) fn mark_at(&mut self, at: Duration, subject: Subject) {
        self.timers.insert((at, subject));
    }

    /// Returns the next subject that needs a decision.
    pub(super) fn pop(&mut self, now: Duration) -> Option<Subject> {
        loop {
            let (_, subject) = self.ready.pop_first()?;
            if self.in_flight.contains(&subject) {
                continue; // the result of its write asks again
            }
            match self.failures.get(&subject) {
                Some(failure) if failure.until > now => self.timers.insert((failure.until, subject)),
                _ => return Some(subject),
            };
        }
    }

    /// Returns whether the subject may be written now. If it was written often recently, it is decided again when it
    /// may be written. (Only the write waits: other consequences of a decision do not.)
    pub(super) fn admits(&mut self, subject: &Subject, now: Duration) -> bool {
        match self.paced.get(subject) {
            Some(until) if *until > now => {
                self.timers.insert((*until, subject.clone()));
                false
            }
            _ => {
                self.paced.remove(subject);
                true
            }
        }
    }

    /// Returns whether the next write of the subject waits, since it was written often recently.
    pub(super) fn pauses(&self, subject: &Subject) -> bool {
        self.paced.contains_key(subject)
    }

    /// Returns the number of subjects that wait for a decision, including those that pause.
    pub(super) fn depth(&self) -> usize {
        let awaited: BTreeSet<_> = self.timers.iter().map(|(_, subject)| subject).collect();
        let pausing: BTreeSet<_> = self.failures.keys().chain(self.paced.keys()).collect();
        self.ready.len() + pausing.intersection(&awaited).count()
    }

    /// Records that a write of the subject is under way.
    pub(super) fn started(&mut self, subject: Subject) {
        self.in_flight.insert(subject);
    }

    /// Returns whether a write of the subject is under way.
    pub(super) fn is_in_flight(&self, subject: &Subject) -> bool {
        self.in_flight.contains(subject)
    }

    /// Records that the write has ended.
    pub(super) fn ended(&mut self, subject: &Subject, ended: Ended, now: Duration) {
        self.in_flight.remove(subject);
        if ended == Ended::Failed {
            let attempts = self.failures.get(subject).map_or(0, |failure| failure.attempts.saturating_add(1));
            let until = now + pause(subject, attempts);
            self.failures.insert(subject.clone(), Failure { attempts, until });
        } else {
            self.failures.remove(subject);
        }
        if ended == Ended::Written {
            let pause = self.pacing.written(now, subject);
            if pause > Duration::ZERO {
                self.paced.insert(subject.clone(), now + pause);
            }
        }
    }

    /// Records that no write is necessary: the obstacle to the last write is gone.
    pub(super) fn settled(&mut self, subject: &Subject) {
        self.failures.remove(subject);
    }

    /// Forgets the pauses of an object that is gone and not wanted: another of its name does not inherit them.
    pub(super) fn forget(&mut self, subject: &Subject) {
        self.failures.remove(subject);
        self.paced.remove(subject);
        self.pacing.forget(subject);
    }

    /// Forgets the writes under way.
    pub(super) fn forget_in_flight(&mut self) {
        self.in_flight.clear();
    }

    /// Returns when [`Self::due`] has a subject.
    pub(super) fn next_timer(&self) -> Option<Duration> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Returns the subjects whose time has come.
    pub(super) fn due(&mut self, now: Duration) -> Vec<Subject> {
        let mut due = Vec::new();
        while self.timers.first().is_some_and(|(at, _)| *at <= now) {
            due.extend(self.timers.pop_first().map(|(_, subject)| subject));
        }
        due
    }
}

/// Returns a pause that doubles from [`FIRST_PAUSE`] to [`LONGEST_PAUSE`], of which a part between half and all is
/// taken: writers that failed together do not return together. The part follows from subject and attempt, so that the
/// same history gives the same pauses.
fn pause(subject: &Subject, attempts: u32) -> Duration {
    let whole = doubled(FIRST_PAUSE, attempts, LONGEST_PAUSE);
    let mut hasher = DefaultHasher::new();
    subject.hash(&mut hasher);
    attempts.hash(&mut hasher);
    let percent = 50 + u32::try_from(hasher.finish() % 51).unwrap_or(0);
    whole * percent / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        let subject = Subject::Pool("p".to_owned());
        for attempts in 0..64 {
            let whole = doubled(FIRST_PAUSE, attempts, LONGEST_PAUSE);
            let pause = pause(&subject, attempts);
            assert!(pause >= whole / 2 && pause <= whole, "{attempts}: {pause:?}");
        }
    }

    #[test]
    fn one_write_per_subject_and_a_pause_after_a_failure() {
        let (mut queue, subject) = (Queue::default(), Subject::Pool("p".to_owned()));
        queue.started(subject.clone());
        queue.mark(subject.clone(), 0);
        assert_eq!(queue.pop(Duration::ZERO), None, "a write is under way");
        queue.ended(&subject, Ended::Failed, Duration::ZERO);
        queue.mark(subject.clone(), 0);
        assert_eq!(queue.pop(Duration::ZERO), None, "it has just failed");
        let at = queue.next_timer().unwrap();
        assert!(at > Duration::ZERO);
        assert_eq!(queue.due(at), vec![subject.clone()]);
        queue.mark(subject.clone(), 0);
        assert_eq!(queue.pop(at), Some(subject));
    }

    #[test]
    fn pause_ends_with_its_cause() {
        let (mut queue, subject) = (Queue::default(), Subject::Pool("p".to_owned()));
        let pause = |queue: &Queue| queue.failures[&subject].until;
        for _ in 0..10 {
            queue.ended(&subject, Ended::Failed, Duration::ZERO);
        }
        assert!(pause(&queue) > FIRST_PAUSE);
        queue.settled(&subject);
        queue.ended(&subject, Ended::Failed, Duration::ZERO);
        assert!(pause(&queue) <= FIRST_PAUSE, "another writer has corrected it meanwhile");
    }

    #[test]
    fn pauses_of_a_deleted_object_are_forgotten() {
        let (mut queue, subject) = (Queue::default(), Subject::Pool("p".to_owned()));
        for _ in 0..10 {
            queue.ended(&subject, Ended::Written, Duration::ZERO);
        }
        queue.ended(&subject, Ended::Failed, Duration::ZERO);
        queue.forget(&subject);
        queue.mark(subject.clone(), 0);
        assert_eq!(queue.pop(Duration::ZERO), Some(subject.clone()));
        assert!(queue.admits(&subject, Duration::ZERO));
        queue.ended(&subject, Ended::Written, Duration::ZERO);
        assert!(queue.paced.is_empty() && queue.failures.is_empty());
    }
}

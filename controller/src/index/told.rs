//! The reported facts, so that each is reported once, however often its status has to be written again.
//!
//! client-go's `EventCorrelator` (tools/record/events_cache.go) counts an Event that is equal to an earlier one in
//! object, reason and message, and keeps the last 4,096. Herald's Events have no count, so an equal one is not posted.

use std::{
    collections::{BTreeMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use crate::action::{EventValue, Regarding};

/// Time for which a fact counts as reported: the API server keeps its Event for the same time (`--event-ttl`, 1 h
/// unless configured).
const TOLD_FOR: Duration = Duration::from_secs(3600);
/// Maximum of remembered facts, of which the oldest goes first; client-go keeps the same number (`maxLruCacheEntries`).
const REMEMBERED: usize = 4096;
/// The reason that ends the story of an object: facts reported before it are news when they are true again.
pub(super) const DELETED: &str = "DeletedLoadBalancer";

/// One fact: a hash of the object's UID, the reason, and a hash of the note. The texts of a thousand facts would be 0.4 MiB. Two
/// notes have one hash once in 10^19 times; then the second is not posted.
type Fact = (u64, &'static str, u64);

/// The facts that were reported recently.
#[derive(Debug, Default)]
pub(super) struct Told {
    facts: BTreeMap<Fact, Duration>,
    /// Every fact, the oldest first; a forgotten one may still be in the list.
    order: VecDeque<(Duration, Fact)>,
}

impl Told {
    /// Returns whether an event is news, and remembers it as reported.
    pub(super) fn tell(&mut self, now: Duration, event: &EventValue) -> bool {
        self.forget_old(now);
        let fact = fact(event);
        if self.facts.contains_key(&fact) {
            return false;
        }
        let (uid, ends) = (fact.0, fact.1 == DELETED);
        // Assignment and release each end the other part of the object's story.
        self.facts.retain(|(of, reason, _), _| *of != uid || (*reason != DELETED) != ends);
        self.order.push_back((now, fact));
        self.facts.insert(fact, now);
        true
    }

    /// Forgets an event that the API server has refused: it has not been reported.
    pub(super) fn untell(&mut self, event: &EventValue) {
        self.facts.remove(&fact(event));
    }

    fn forget_old(&mut self, now: Duration) {
        let is_old = |(at, _): &mut (Duration, Fact)| *at + TOLD_FOR <= now;
        let mut surplus = (self.order.len() + 1).saturating_sub(REMEMBERED);
        while let Some((at, fact)) = self.order.pop_front_if(|oldest| surplus > 0 || is_old(oldest)) {
            surplus = surplus.saturating_sub(1);
            if self.facts.get(&fact) == Some(&at) {
                self.facts.remove(&fact);
            }
        }
    }
}

fn fact(event: &EventValue) -> Fact {
    let uid = match &event.regarding {
        Regarding::Service(service) => &service.uid,
        Regarding::Object { uid, .. } => uid,
    };
    (hash_of(uid), event.reason, hash_of(&event.note))
}

fn hash_of(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(uid: &str, reason: &'static str, note: &str) -> EventValue {
        let regarding = Regarding::Object { kind: "VirtualIP", name: "192.0.2.1".to_owned(), uid: uid.to_owned() };
        EventValue { regarding, warning: false, reason, action: "A", note: note.to_owned() }
    }

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn fact_is_reported_once_an_hour() {
        let mut told = Told::default();
        assert!(told.tell(s(0), &event("u", "R", "n")));
        assert!(!told.tell(s(3599), &event("u", "R", "n")));
        let others = [event("v", "R", "n"), event("u", "S", "n"), event("u", "R", "m")];
        assert!(others.iter().all(|other| told.tell(s(3599), other)), "other object, reason or note");
        assert!(told.tell(s(3600), &event("u", "R", "n")), "the API server has forgotten it");
    }

    #[test]
    fn refused_event_is_reported_again() {
        let mut told = Told::default();
        told.tell(s(0), &event("u", "R", "n"));
        told.untell(&event("u", "R", "n"));
        assert!(told.tell(s(1), &event("u", "R", "n")));
    }

    #[test]
    fn release_and_assignment_each_renew_the_report_of_the_other() {
        let mut told = Told::default();
        for second in [0, 1] {
            assert!(told.tell(s(second), &event("u", "EnsuredLoadBalancer", "n")));
            assert!(told.tell(s(second), &event("u", DELETED, "n")));
            assert!(!told.tell(s(second), &event("u", DELETED, "n")));
        }
    }

    #[test]
    fn number_of_remembered_facts_is_bounded() {
        let mut told = Told::default();
        for n in 0..2 * REMEMBERED {
            told.tell(s(0), &event(&n.to_string(), "R", "n"));
            told.tell(s(0), &event(&n.to_string(), DELETED, "n"));
        }
        assert!(told.facts.len() <= REMEMBERED && told.order.len() <= REMEMBERED);
    }
}

//! The part between decisions and the API server: it bounds the writes under way, logs those that ended, and repeats
//! events.

use std::{
    collections::{BTreeMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use herald_telemetry::log_once::LogOnce;

use crate::{
    action::{Action, Subject},
    decision_log,
    writer::{
        Failure,
        breaker::{Breaker, Signal},
    },
};

/// Time after which the same error of an object is logged again: logs are rotated.
const LOGGED_FOR: Duration = Duration::from_secs(3600);
/// Number of failing objects from which on those that have not failed anew for [`LOGGED_FOR`] are forgotten.
const REMEMBERED: usize = 4096;

/// The outbox. Times are monotonic, since any one moment.
#[derive(Debug, Default)]
pub struct Outbox {
    breaker: Breaker,
    outage: LogOnce,
    /// Events that the API server could not take: at most as many as can be under way, because the breaker stops the
    /// next. Their writes are not decided again, so they would be lost.
    events: VecDeque<Action>,
    failing: Failing,
}

impl Outbox {
    /// Returns how many writes may be under way now.
    pub fn limit(&self, now: Duration) -> usize {
        self.breaker.limit(now)
    }

    /// Returns when the limit changes by itself.
    pub fn timeout(&self, now: Duration) -> Option<Duration> {
        self.breaker.timeout(now)
    }

    /// Returns the next write: an event to repeat, or the next decision.
    pub fn next(&mut self, decide: impl FnOnce() -> Option<Action>) -> Option<Action> {
        self.events.pop_front().or_else(decide)
    }

    /// Records that a write that began at `begun` has ended.
    pub fn ended(&mut self, now: Duration, begun: Duration, action: &Action, failure: Option<(Failure, String)>) {
        let signal = failure.as_ref().map_or(Signal::Answers, |(failure, _)| failure.signal());
        self.breaker.ended(now, begun, signal, fastrand::f64());
        if signal == Signal::Answers && self.outage.is_over() {
            tracing::info!("the API server accepts writes again");
        }
        let Some((failure, error)) = failure else {
            self.failing.ended(action.subject().as_ref());
            return decision_log::decision(action);
        };
        match (failure, action, action.subject()) {
            // The API server may have accepted the event, and a second one would report it twice.
            (Failure::TimedOut, Action::Event(_), _) => tracing::warn!(?action, error, "an Event may be lost"),
            (_, Action::Event(_), _) if signal != Signal::Answers => self.events.push_back(action.clone()),
            // A person who deletes a namespace does not read the Events in it, and each of its Services has one.
            (Failure::Refused { .. }, _, None) if is_about_a_namespace_that_goes(&error) => {
                tracing::debug!(?action, error, "an Event goes with its namespace");
            }
            (_, _, None) => tracing::warn!(?action, error, "an Event is lost"),
            (Failure::Conflict, _, _) => {
                tracing::debug!(?action, error, "a write was decided on an outdated object; it is decided again");
            }
            (Failure::Server | Failure::Refused { .. }, _, Some(subject)) => {
                if self.failing.is_news(now, &subject, &error) {
                    tracing::warn!(?subject, error, "a write failed and is retried");
                } else {
                    tracing::debug!(?subject, error, "a write failed again");
                }
            }
            _ => {}
        }
        if signal != Signal::Answers && self.outage.is_new(failure.as_str()) {
            let reason = failure.as_str();
            tracing::warn!(reason, error, "the API server accepts no writes; each is retried, and none is lost");
        }
    }
}

/// Returns whether the API server takes no object because its namespace is being deleted or is gone (apiserver,
/// `admission/plugin/namespace/lifecycle`).
fn is_about_a_namespace_that_goes(sentence: &str) -> bool {
    sentence.ends_with("because it is being terminated")
        || (sentence.starts_with("namespaces \"") && sentence.ends_with("\" not found"))
}

/// The objects whose last writes failed, each with a hash of the error and the time of its line in the log. Where the
/// API server refuses the writes of a thousand objects, a line for each attempt would be fifty lines a second.
#[derive(Debug, Default)]
struct Failing(BTreeMap<Subject, (u64, Duration)>);

impl Failing {
    /// Returns whether an error of an object is not in the log yet, or has been there for [`LOGGED_FOR`]; remembers it.
    fn is_news(&mut self, now: Duration, subject: &Subject, error: &str) -> bool {
        let mut hasher = DefaultHasher::new();
        error.hash(&mut hasher);
        let error = hasher.finish();
        if self.0.get(subject).is_some_and(|(logged, at)| *logged == error && now < *at + LOGGED_FOR) {
            return false;
        }
        // An object that is gone has no further write that would remove its entry.
        if self.0.len() >= REMEMBERED {
            self.0.retain(|_, (_, at)| now < *at + LOGGED_FOR);
        }
        self.0.insert(subject.clone(), (error, now));
        true
    }

    /// Forgets an object that has been written.
    fn ended(&mut self, subject: Option<&Subject>) {
        if let Some(subject) = subject {
            self.0.remove(subject);
        }
    }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;
    use crate::action::{EventValue, Regarding};

    fn event() -> Action {
        Action::Event(EventValue {
            regarding: Regarding::Object { kind: "VirtualIP", name: "192.0.2.1".to_owned(), uid: "u".to_owned() },
            warning: false,
            reason: "R",
            action: "A",
            note: String::new(),
        })
    }

    #[test_case(Failure::Unreachable, true)]
    #[test_case(Failure::Throttled { retry_after: None }, true)]
    #[test_case(Failure::TimedOut, false; "it may have been accepted")]
    #[test_case(Failure::Refused { code: 403 }, false)]
    fn event_is_posted_again_if_it_was_surely_not_accepted(failure: Failure, expected: bool) {
        let mut outbox = Outbox::default();
        outbox.ended(Duration::ZERO, Duration::ZERO, &event(), Some((failure, "no".to_owned())));
        assert_eq!(outbox.next(|| None), expected.then(event));
        assert_eq!(outbox.next(|| None), None);
    }

    #[test]
    fn error_of_an_object_is_logged_once_until_it_changes_or_ends() {
        let second = Duration::from_secs;
        let (mut failing, web, dns) = (Failing::default(), Subject::Pool("web".into()), Subject::Pool("dns".into()));
        assert!(failing.is_news(second(0), &web, "denied"));
        assert!(!failing.is_news(second(1), &web, "denied"));
        assert!(failing.is_news(second(1), &dns, "denied"), "another object");
        assert!(failing.is_news(second(2), &web, "too large"), "another error");
        assert!(failing.is_news(second(3602), &web, "too large"), "an hour later");
        failing.ended(Some(&web));
        assert!(failing.is_news(second(3603), &web, "too large"), "it was written in between");
    }

    #[test]
    fn objects_that_are_gone_are_forgotten() {
        let mut failing = Failing::default();
        for n in 0..3 * REMEMBERED {
            failing.is_news(Duration::from_secs(n as u64), &Subject::Pool(n.to_string()), "denied");
        }
        assert!(failing.0.len() <= REMEMBERED, "{}", failing.0.len());
    }

    #[test_case("events.events.k8s.io \"web.1\" is forbidden: unable to create new content in namespace shop because it is being terminated", true; "being deleted")]
    #[test_case("namespaces \"shop\" not found", true; "gone")]
    #[test_case("events.events.k8s.io is forbidden: User \"u\" cannot create resource \"events\"", false; "another refusal")]
    fn event_goes_with_its_namespace(sentence: &str, expected: bool) {
        assert_eq!(is_about_a_namespace_that_goes(sentence), expected);
    }
}

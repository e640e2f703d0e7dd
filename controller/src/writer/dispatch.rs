//! The part between decisions and the API server: it bounds the writes under way, logs those that ended, and repeats
//! events.

use std::{collections::VecDeque, time::Duration};

use herald_telemetry::log_once::LogOnce;

use crate::{
    action::Action,
    decision_log,
    writer::{
        Failure,
        breaker::{Breaker, Signal},
    },
};

/// The outbox. Times are monotonic, since any one moment.
#[derive(Debug, Default)]
pub struct Outbox {
    breaker: Breaker,
    outage: LogOnce,
    /// Events that the API server could not take: at most as many as can be under way, because the breaker stops the
    /// next. Their writes are not decided again, so they would be lost.
    events: VecDeque<Action>,
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
        let Some((failure, error)) = failure else { return decision_log::decision(action) };
        match (failure, action, action.subject()) {
            // The API server may have accepted the event, and a second one would report it twice.
            (Failure::TimedOut, Action::Event(_), _) => tracing::warn!(?action, error, "an Event may be lost"),
            (_, Action::Event(_), _) if signal != Signal::Answers => self.events.push_back(action.clone()),
            (_, _, None) => tracing::warn!(?action, error, "an Event is lost"),
            (Failure::Conflict, _, _) => {
                tracing::debug!(?action, error, "a write was decided on an outdated object; it is decided again");
            }
            (Failure::Server | Failure::Refused, _, Some(subject)) => {
                tracing::warn!(?subject, error, "a write failed and is retried");
            }
            _ => {}
        }
        if signal != Signal::Answers && self.outage.is_new(failure.as_str()) {
            let reason = failure.as_str();
            tracing::warn!(reason, error, "the API server accepts no writes; each is retried, and none is lost");
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
    #[test_case(Failure::Refused, false)]
    fn event_is_posted_again_if_it_was_surely_not_accepted(failure: Failure, expected: bool) {
        let mut outbox = Outbox::default();
        outbox.ended(Duration::ZERO, Duration::ZERO, &event(), Some((failure, "no".to_owned())));
        assert_eq!(outbox.next(|| None), expected.then(event));
        assert_eq!(outbox.next(|| None), None);
    }
}

//! What the engine has to say to its caller.

use std::{collections::VecDeque, time::Duration};

use crate::io::{Event, Output};

/// An event that a peer could cause with every frame is reported once within this time.
const REPEATED_AFTER: Duration = Duration::from_secs(60);

/// The outputs that the caller has yet to take, in the order in which they arose.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    outputs: VecDeque<Output>,
    /// The events of the last minute that are reported once a minute, and when each was reported; the oldest first.
    reported: VecDeque<(Duration, Event)>,
    saved_state_changed: bool,
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.outputs.is_empty()
    }

    pub(super) fn pop(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub(super) fn push(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(super) fn report(&mut self, event: Event) {
        self.push(Output::Event(event));
    }

    /// Reports an event unless the same one was reported within the last minute.
    pub(super) fn report_once_a_minute(&mut self, now: Duration, event: Event) {
        while self.reported.front().is_some_and(|(at, _)| now >= *at + REPEATED_AFTER) {
            self.reported.pop_front();
        }
        if self.reported.iter().all(|(_, reported)| *reported != event) {
            self.reported.push_back((now, event.clone()));
            self.report(event);
        }
    }

    /// Notes that [`Engine::saved_state`](super::Engine::saved_state) has changed.
    pub(super) fn note_saved_state_changed(&mut self) {
        self.saved_state_changed = true;
    }

    /// Reports that the saved state has changed, if it has since the last call.
    pub(super) fn report_saved_state(&mut self) {
        if std::mem::take(&mut self.saved_state_changed) {
            self.report(Event::StateChanged);
        }
    }
}

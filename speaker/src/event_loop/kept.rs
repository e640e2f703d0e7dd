//! Values that are kept in files while the speaker runs.

use std::time::Duration;

use tokio::sync::watch as latest;

/// A value that is kept in a file, and the time at which its next version is due.
pub(super) struct Kept<T> {
    sender: latest::Sender<T>,
    settle: Duration,
    pub due: Option<Duration>,
}

impl<T> Kept<T> {
    pub(super) fn new(sender: latest::Sender<T>, settle: Duration) -> Self {
        Self { sender, settle, due: None }
    }

    pub(super) fn changed(&mut self, now: Duration) {
        self.due.get_or_insert(now + self.settle);
    }

    pub(super) fn keep(&mut self, value: T) {
        self.due = None;
        // The channel has no receiver if there is no state directory.
        self.sender.send_replace(value);
    }
}

//! Retries of sockets that the kernel refuses: the interface may just have come up, or memory or group memberships may
//! have run out. Pure.

use std::time::Duration;

use herald_crds::speaker_status::{SpeakerWarning, WarningKind};

/// Time before the second attempt. Each further attempt doubles the time, up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest time between two attempts: the speaker notices within it that the trouble has ended.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The refusal of the kernel, with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketFailure {
    /// The kernel refuses a socket: the node neither hears the segment nor speaks on it.
    Open(String),
    /// The kernel refuses a filter or a group: the node does not hear all solicitations on the segment.
    Listen(String),
}

/// The sockets of one segment.
#[derive(Debug, Default)]
pub(super) struct Sockets(Option<Trouble>);

#[derive(Debug)]
struct Trouble {
    failure: SocketFailure,
    wait: Duration,
    /// The time of the next attempt; `None`: an attempt is under way.
    retry_at: Option<Duration>,
}

impl Sockets {
    /// Records that an attempt has failed.
    pub(super) fn failed(&mut self, now: Duration, failure: SocketFailure) {
        let wait = self.0.as_ref().map_or(FIRST_WAIT, |trouble| match trouble.retry_at {
            // The attempt failed for another reason than the one that waits for its next attempt.
            Some(_) => trouble.wait,
            None => (trouble.wait * 2).min(LONGEST_WAIT),
        });
        self.0 = Some(Trouble { failure, wait, retry_at: Some(now + wait) });
    }

    /// Records that the kernel has granted everything.
    pub(super) fn work(&mut self) {
        self.0 = None;
    }

    /// Returns the time at which the next attempt is due.
    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        self.0.as_ref()?.retry_at
    }

    /// Returns whether an attempt is due, which is then under way.
    pub(super) fn retry(&mut self, now: Duration) -> bool {
        let due = self.0.as_mut().and_then(|trouble| trouble.retry_at.take_if(|at| *at <= now));
        due.is_some()
    }

    /// Returns whether the node neither hears the segment nor speaks on it.
    pub(super) fn are_closed(&self) -> bool {
        matches!(&self.0, Some(Trouble { failure: SocketFailure::Open(_), .. }))
    }

    /// Returns the warning that stands while the sockets do not work.
    pub(super) fn warning(&self, interface: &str) -> Option<SpeakerWarning> {
        let message = match &self.0.as_ref()?.failure {
            SocketFailure::Open(error) => format!(
                "{interface}: no address is announced there, because the kernel refuses a socket ({error}); the \
                 speaker asks again every {LONGEST_WAIT:?}"
            ),
            SocketFailure::Listen(error) => format!(
                "{interface}: some requests for an address are not answered, because the kernel refuses the filter or \
                 a multicast group ({error}); the speaker asks again every {LONGEST_WAIT:?}"
            ),
        };
        Some(SpeakerWarning { kind: WarningKind::SocketRefused, message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> SocketFailure {
        SocketFailure::Open("ENOBUFS".to_owned())
    }

    #[test]
    fn refused_socket_is_retried_with_growing_delay() {
        let mut sockets = Sockets::default();
        let (mut now, mut waits) = (Duration::ZERO, Vec::new());
        for _ in 0..8 {
            sockets.failed(now, refused());
            let at = sockets.poll_timeout().unwrap();
            waits.push((at - now).as_secs());
            assert!(!sockets.retry(at - Duration::from_millis(1)));
            assert!(sockets.retry(at) && !sockets.retry(at), "once");
            assert!(sockets.are_closed() && sockets.warning("eth0").is_some(), "while it lasts");
            now = at;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
        sockets.work();
        assert!(!sockets.are_closed() && sockets.warning("eth0").is_none());
        sockets.failed(now, refused());
        assert_eq!(sockets.poll_timeout(), Some(now + FIRST_WAIT), "another trouble begins from the start");
    }

    #[test]
    fn failures_between_two_attempts_do_not_stretch_the_wait() {
        let mut sockets = Sockets::default();
        for _ in 0..10 {
            sockets.failed(Duration::ZERO, SocketFailure::Listen("ENOMEM".to_owned()));
        }
        assert_eq!(sockets.poll_timeout(), Some(FIRST_WAIT));
        assert!(!sockets.are_closed());
    }
}

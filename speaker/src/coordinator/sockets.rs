//! Sockets that the kernel refuses are asked for again: the interface may just have come up, memory or group memberships
//! may have run out. Pure.

use std::time::Duration;

use herald_crds::speaker_status::{SpeakerWarning, WarningKind};

/// Before the second attempt. Doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest time between two attempts: a trouble that ends is noticed within it.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// What the kernel has refused, and its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketFailure {
    /// A socket: the segment is neither heard nor spoken to.
    Open(String),
    /// A filter or a group: not all that is asked on the segment is heard.
    Listen(String),
}

/// The sockets of one segment.
#[derive(Debug, Default)]
pub(super) struct Sockets(Option<Trouble>);

#[derive(Debug)]
struct Trouble {
    failure: SocketFailure,
    wait: Duration,
    /// `None`: an attempt is under way.
    retry_at: Option<Duration>,
}

impl Sockets {
    /// An attempt has failed.
    pub(super) fn failed(&mut self, now: Duration, failure: SocketFailure) {
        let wait = self.0.as_ref().map_or(FIRST_WAIT, |trouble| match trouble.retry_at {
            // It failed for another reason than the one for which it is to be tried again.
            Some(_) => trouble.wait,
            None => (trouble.wait * 2).min(LONGEST_WAIT),
        });
        self.0 = Some(Trouble { failure, wait, retry_at: Some(now + wait) });
    }

    /// The kernel has granted everything.
    pub(super) fn work(&mut self) {
        self.0 = None;
    }

    /// When the next attempt is due.
    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        self.0.as_ref()?.retry_at
    }

    /// Returns whether an attempt is due, which is then under way.
    pub(super) fn retry(&mut self, now: Duration) -> bool {
        let due = self.0.as_mut().and_then(|trouble| trouble.retry_at.take_if(|at| *at <= now));
        due.is_some()
    }

    /// Returns whether the segment is neither heard nor spoken to.
    pub(super) fn are_closed(&self) -> bool {
        matches!(&self.0, Some(Trouble { failure: SocketFailure::Open(_), .. }))
    }

    /// The warning that stands while they do not work.
    pub(super) fn warning(&self, interface: &str) -> Option<SpeakerWarning> {
        let message = match &self.0.as_ref()?.failure {
            SocketFailure::Open(error) => format!(
                "{interface}: nothing is announced there, for the kernel refuses a socket ({error}); it is asked again \
                 every {LONGEST_WAIT:?}"
            ),
            SocketFailure::Listen(error) => format!(
                "{interface}: not every question for an address is answered, for the kernel refuses to let them through \
                 ({error}); it is asked again every {LONGEST_WAIT:?}"
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
    fn refused_socket_is_asked_for_again_ever_less_often() {
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

//! Waits for sockets with a resolution below a millisecond.

use std::io;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, ppoll};
use nix::sys::time::TimeSpec;

/// The longest sleep of a prober, so that it notices the end of the run.
const LONGEST: Duration = Duration::from_millis(20);

/// Waits until one of `sockets` is ready or the time is over.
pub(super) fn ready(sockets: &mut [PollFd<'_>], at_most: Duration) -> io::Result<()> {
    match ppoll(sockets, Some(TimeSpec::from_duration(at_most.min(LONGEST))), None) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

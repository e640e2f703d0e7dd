//! The prober of new connections: one every 20 ms, each with its own time limit.

use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags};

use super::clock::{Beat, Clock, FirstAnswer};
use super::{dial, server_line, wait};
use crate::probe::sample::{Answerer, At, Connection, Outcome, Reason};
use crate::probe::spec::{CONNECT_INTERVAL, CONNECT_LIMIT};

/// The source ports of connections, used one after the other, also from one run to the next: 31,744 ports, so that each
/// is used again after 635 s.
///
/// A node that had the address when a connection was half established keeps its conntrack entry, in state ESTABLISHED,
/// for 300 s (`nf_conntrack_tcp_timeout_unacknowledged`): the packets that would end it go to the next owner. A SYN
/// from the same port that returns to the first node would match that entry and be translated to the endpoint of that
/// time, which may be gone. At this rate the kernel's own choice of ports (`net.ipv4.ip_local_port_range` begins where
/// these end) would repeat after a minute, which does not happen to real clients.
const PORTS: Range<u16> = 1024..32_768;

/// A prober that repeatedly connects to one address.
pub(super) struct Prober {
    target: SocketAddr,
}

/// A connection under way.
struct Attempt {
    stream: TcpStream,
    started: At,
    established: bool,
    heard: Vec<u8>,
}

impl Prober {
    pub(super) fn new(target: SocketAddr) -> Self {
        Self { target }
    }

    pub(super) fn run(self, clock: &Clock) -> anyhow::Result<Vec<Connection>> {
        let mut seen = Vec::new();
        let mut attempts: Vec<Attempt> = Vec::new();
        let mut beat = Beat::every(CONNECT_INTERVAL);
        let mut first = FirstAnswer::default();
        // Attempts end by their own limit, so the run ends at most that limit after the last beat.
        while clock.sending() || !attempts.is_empty() {
            if clock.sending() && beat.due(clock.now()) {
                let started = clock.now();
                match dial::start(self.target, Some(port(clock.origin_ns(), started))) {
                    Ok(stream) => {
                        attempts.push(Attempt { stream, started, established: false, heard: Vec::new() });
                    }
                    Err(error) => {
                        let outcome = Outcome::Failed(Reason::of(&error, false));
                        seen.push(Connection { started, ended: clock.now(), outcome });
                    }
                }
            }
            let mut sockets: Vec<PollFd<'_>> = attempts.iter().map(Attempt::poll).collect();
            wait::ready(&mut sockets, beat.wait(clock))?;
            attempts.retain_mut(|attempt| {
                let now = clock.now();
                let Some(outcome) = attempt.advance(now) else { return true };
                if matches!(outcome, Outcome::Answered(_)) {
                    first.came(clock);
                }
                seen.push(Connection { started: attempt.started, ended: now, outcome });
                false
            });
        }
        seen.sort_by_key(|connection| connection.started);
        Ok(seen)
    }
}

impl Attempt {
    fn poll(&self) -> PollFd<'_> {
        let wanted = if self.established { PollFlags::POLLIN } else { PollFlags::POLLOUT };
        PollFd::new(self.stream.as_fd(), wanted)
    }

    /// Returns the outcome of the attempt, or `None` while it is under way.
    fn advance(&mut self, now: At) -> Option<Outcome> {
        match self.try_advance() {
            Ok(Some(by)) => Some(Outcome::Answered(by)),
            Ok(None) if now.0 - self.started.0 >= micros(CONNECT_LIMIT) => Some(Outcome::Failed(Reason::TimedOut)),
            Ok(None) => None,
            Err(reason) => Some(Outcome::Failed(reason)),
        }
    }

    fn try_advance(&mut self) -> Result<Option<Answerer>, Reason> {
        if !self.established {
            if let Some(error) = self.stream.take_error().map_err(|error| Reason::of(&error, false))? {
                return Err(Reason::of(&error, false));
            }
            // Without a peer address the handshake is still under way.
            self.established = self.stream.peer_addr().is_ok();
            if !self.established {
                return Ok(None);
            }
        }
        let closed = dial::read(&self.stream, &mut self.heard).map_err(|error| Reason::of(&error, true))?;
        match dial::take_line(&mut self.heard) {
            Some(line) => server_line::read(&line).map(|answer| Some(answer.by)),
            None if closed => Err(Reason::Closed),
            None => Ok(None),
        }
    }
}

/// Returns the source port of a connection that starts at `at`, on a clock with the origin `origin_ns`.
fn port(origin_ns: u64, at: At) -> u16 {
    // Both terms are rounded down, so that no two beats of a run share a port, however late one of them is.
    let beats = origin_ns / 1000 / micros(CONNECT_INTERVAL) + at.0 / micros(CONNECT_INTERVAL);
    let count = u64::from(PORTS.end - PORTS.start);
    PORTS.start + u16::try_from(beats % count).unwrap_or_default()
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_repeats_after_ten_minutes() {
        let at = |seconds: u64| port(7_000_000_000, At(seconds * 1_000_000));
        assert!((0..10_000).all(|second| PORTS.contains(&at(second))));
        assert!((1..634).all(|second| at(second) != at(0)));
        assert_eq!(port(0, At(20_000)), port(0, At(0)) + 1, "the next beat");
        assert_eq!(port(11_000_000, At(40_000)), port(11_000_000, At(39_000)) + 1, "after one that was late");
        assert_eq!(port(7_000_000_000, At(0)), port(0, At(7_000_000)), "another run, the same moment");
    }
}

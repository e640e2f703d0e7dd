//! The prober of one long connection: it sends a numbered line per beat, and the server echoes each.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags};

use super::clock::{Beat, Clock, FirstAnswer};
use super::{dial, server_line, wait};
use crate::probe::sample::{At, Failure, LineEcho, Opened, Reason, StreamSamples};
use crate::probe::spec::{CONNECT_LIMIT, INTERVAL};

/// Time for which a connection may be silent before it is given up, like the time limit of a real client. Without a
/// limit, TCP keeps a connection for minutes whose other end is gone.
const GIVE_UP: Duration = Duration::from_secs(3);

/// A prober that keeps one connection to an address, and establishes it again after a failure.
pub(super) struct Prober {
    target: SocketAddr,
}

/// The state of the connection.
enum State {
    Broken,
    Connecting(TcpStream, At),
    Open(Open),
}

/// An established connection.
struct Open {
    stream: TcpStream,
    /// Whether the server has sent its first line.
    introduced: bool,
    /// Time of the last received data, or of the establishment.
    heard_at: At,
    heard: Vec<u8>,
    unsent: Vec<u8>,
}

impl Prober {
    pub(super) fn new(target: SocketAddr) -> Self {
        Self { target }
    }

    pub(super) fn run(self, clock: &Clock) -> anyhow::Result<StreamSamples> {
        let mut seen = StreamSamples::default();
        let mut state = State::Broken;
        let mut beat = Beat::every(INTERVAL);
        let mut first = FirstAnswer::default();
        while !clock.over() {
            let due = clock.sending() && beat.due(clock.now());
            let before = seen.echoes.len();
            state = match self.step(state, due, clock, &mut seen) {
                Ok(state) => state,
                Err(reason) => {
                    seen.breaks.push(Failure { at: clock.now(), reason });
                    State::Broken
                }
            };
            if seen.echoes.len() > before {
                first.came(clock);
            }
            let mut sockets: Vec<PollFd<'_>> = state.poll().into_iter().collect();
            wait::ready(&mut sockets, beat.wait(clock))?;
        }
        Ok(seen)
    }

    fn step(&self, state: State, due: bool, clock: &Clock, seen: &mut StreamSamples) -> Result<State, Reason> {
        match state {
            State::Broken if due => {
                let stream = dial::start(self.target, None).map_err(|error| Reason::of(&error, false))?;
                Ok(State::Connecting(stream, clock.now()))
            }
            State::Broken => Ok(State::Broken),
            State::Connecting(stream, since) => {
                if let Some(error) = stream.take_error().map_err(|error| Reason::of(&error, false))? {
                    return Err(Reason::of(&error, false));
                }
                if stream.peer_addr().is_ok() {
                    return Ok(State::Open(Open {
                        stream,
                        introduced: false,
                        heard_at: clock.now(),
                        heard: Vec::new(),
                        unsent: Vec::new(),
                    }));
                }
                if u128::from(clock.now().0 - since.0) >= CONNECT_LIMIT.as_micros() {
                    return Err(Reason::TimedOut);
                }
                Ok(State::Connecting(stream, since))
            }
            State::Open(mut open) => {
                if due {
                    open.unsent.extend(format!("{}\n", seen.sent.len()).as_bytes());
                    seen.sent.push(clock.now());
                }
                open.flush()?;
                open.listen(clock, seen)?;
                if u128::from(clock.now().0 - open.heard_at.0) >= GIVE_UP.as_micros() {
                    return Err(Reason::TimedOut);
                }
                Ok(State::Open(open))
            }
        }
    }
}

impl State {
    fn poll(&self) -> Option<PollFd<'_>> {
        match self {
            Self::Broken => None,
            Self::Connecting(stream, _) => Some(PollFd::new(stream.as_fd(), PollFlags::POLLOUT)),
            Self::Open(open) => Some(PollFd::new(open.stream.as_fd(), PollFlags::POLLIN)),
        }
    }
}

impl Open {
    /// Writes as much as the kernel accepts; if its buffer is full, the rest waits for the next beat.
    fn flush(&mut self) -> Result<(), Reason> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(written) => {
                    self.unsent.drain(..written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Reason::of(&error, true)),
            }
        }
        Ok(())
    }

    fn listen(&mut self, clock: &Clock, seen: &mut StreamSamples) -> Result<(), Reason> {
        let closed = dial::read(&self.stream, &mut self.heard).map_err(|error| Reason::of(&error, true))?;
        let at = clock.now();
        while let Some(line) = dial::take_line(&mut self.heard) {
            self.heard_at = at;
            if self.introduced {
                seen.echoes.push(LineEcho { line: number(&line, seen.sent.len())?, at });
            } else {
                let by = server_line::read(&line)?.by;
                self.introduced = true;
                seen.opened.push(Opened { at, by });
            }
        }
        if closed { Err(Reason::Closed) } else { Ok(()) }
    }
}

/// Returns the number of an echoed line, given that `sent` lines were sent.
fn number(line: &[u8], sent: usize) -> Result<usize, Reason> {
    std::str::from_utf8(line)
        .ok()
        .and_then(|text| text.parse().ok())
        .filter(|&number| number < sent)
        .ok_or_else(|| server_line::garbled(line))
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_case::test_case;

    #[test_case(b"0", 1, Some(0); "first")]
    #[test_case(b"7", 7, None; "never sent")]
    #[test_case(b"", 7, None; "empty")]
    #[test_case(b"x", 7, None; "not a number")]
    fn line_number_is_validated(line: &[u8], sent: usize, expected: Option<usize>) {
        assert_eq!(number(line, sent).ok(), expected);
    }
}

//! The UDP prober: one flow, one numbered datagram per beat.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use anyhow::Context;
use nix::poll::{PollFd, PollFlags};

use super::clock::{Beat, Clock, FirstAnswer};
use super::{server_line, wait};
use crate::probe::sample::{Failure, Reason, UdpAnswer, UdpSamples};
use crate::probe::spec::INTERVAL;

/// A prober that sends datagrams to one address from one port.
pub(super) struct Prober {
    socket: UdpSocket,
}

impl Prober {
    pub(super) fn open(target: SocketAddr) -> anyhow::Result<Self> {
        let any: SocketAddr = match target {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).context("cannot open a UDP socket")?;
        // The socket is connected so that the kernel reports ICMP errors and drops answers from other addresses.
        socket.connect(target).with_context(|| format!("no route from this host to {}", target.ip()))?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket })
    }

    pub(super) fn run(self, clock: &Clock) -> anyhow::Result<UdpSamples> {
        let mut seen = UdpSamples::default();
        let mut beat = Beat::every(INTERVAL);
        let mut first = FirstAnswer::default();
        while !clock.over() {
            self.receive(clock, &mut seen, &mut first);
            if clock.sending() && beat.due(clock.now()) {
                let at = clock.now();
                if let Err(error) = self.socket.send(seen.sent.len().to_string().as_bytes()) {
                    seen.errors.push(Failure { at, reason: Reason::of(&error, false) });
                }
                // The datagram counts even if the kernel could not send it: a client that cannot reach the address has
                // lost a datagram.
                seen.sent.push(at);
            }
            let mut sockets = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            wait::ready(&mut sockets, beat.wait(clock))?;
        }
        Ok(seen)
    }

    fn receive(&self, clock: &Clock, seen: &mut UdpSamples, first: &mut FirstAnswer) {
        let mut buffer = [0; 2048];
        loop {
            let received = self.socket.recv(&mut buffer);
            let at = clock.now();
            match received {
                Ok(length) => match server_line::read(&buffer[..length]) {
                    Ok(server_line::Answer { by, seq: Some(seq) }) if seq < seen.sent.len() => {
                        first.came(clock);
                        seen.answers.push(UdpAnswer { seq, at, by });
                    }
                    Ok(_) => {
                        let reason = server_line::garbled(&buffer[..length]);
                        seen.errors.push(Failure { at, reason });
                    }
                    Err(reason) => seen.errors.push(Failure { at, reason }),
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // A pending ICMP error; reading the error clears it.
                Err(error) => seen.errors.push(Failure { at, reason: Reason::of(&error, false) }),
            }
        }
    }
}

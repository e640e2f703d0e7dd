//! The ARP and neighbour-discovery prober: the hosts that answer for an address, and the MACs in their answers.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;

use anyhow::Context;
use herald_packet_socket::PacketSocket;
use nix::poll::{PollFd, PollFlags};

use super::clock::{Beat, Clock, FirstAnswer};
use super::route::{Link, Question};
use super::{advertisements, wait};
use crate::probe::frame::{self, Advertisement, Arp};
use crate::probe::sample::{Mac, NeighbourAnswer, NeighbourSamples};
use crate::probe::spec::INTERVAL;

/// Buffer length in bytes, longer than any expected frame; the rest of a larger one is not needed.
pub(super) const FRAME: usize = 2048;

/// A prober that solicits one address and collects the answers.
pub(super) struct Prober {
    socket: PacketSocket,
    question: Question,
    request: Vec<u8>,
}

impl Prober {
    pub(super) fn open(address: IpAddr, link: &Link) -> anyhow::Result<Self> {
        let question = link.question(address)?;
        let (socket, request) = match question {
            Question::Arp { own, target } => {
                (PacketSocket::open(link.index, frame::ETHERTYPE_ARP, None), frame::arp_request(link.mac, own, target))
            }
            Question::Nd { own, target } => (
                PacketSocket::open(link.index, frame::ETHERTYPE_IPV6, Some(&advertisements::filter())),
                frame::solicitation(link.mac, own, target),
            ),
        };
        let socket = socket.with_context(|| format!("cannot open a packet socket on {}", link.name))?;
        Ok(Self { socket, question, request })
    }

    pub(super) fn run(self, clock: &Clock) -> anyhow::Result<NeighbourSamples> {
        let mut seen = NeighbourSamples::default();
        let mut beat = Beat::every(INTERVAL);
        let mut first = FirstAnswer::default();
        let mut buffer = [0; FRAME];
        while !clock.over() {
            if clock.sending() && beat.due(clock.now()) {
                let at = clock.now();
                match self.socket.send(&self.request) {
                    // A link that is down (ENETDOWN) or a full queue loses the frame, like a cut cable.
                    Ok(()) | Err(_) => seen.sent.push(at),
                }
            }
            let mut sockets = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            wait::ready(&mut sockets, beat.wait(clock))?;
            while let Some(length) = receive(&self.socket, &mut buffer)? {
                if let Some((mac, source)) = self.answer(&buffer[..length]) {
                    first.came(clock);
                    seen.answers.push(NeighbourAnswer { at: clock.now(), mac, source });
                }
            }
        }
        Ok(seen)
    }

    /// Returns the MAC that an answer gives for the address, and its Ethernet source; `None` for every other frame.
    fn answer(&self, frame: &[u8]) -> Option<(Mac, Mac)> {
        match self.question {
            Question::Arp { own, target } => Arp::parse(frame)
                .filter(|arp| arp.operation == 2 && arp.sender_ip == target && arp.target_ip == own)
                .map(|arp| (arp.sender_mac, arp.source)),
            Question::Nd { target, .. } => Advertisement::parse(frame)
                .filter(|advertisement| advertisement.solicited && advertisement.target == target)
                .and_then(|advertisement| Some((advertisement.mac?, advertisement.source))),
        }
    }
}

/// Receives the next frame and returns its length, or `None` if no frame is queued.
pub(super) fn receive(socket: &PacketSocket, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    match socket.recv(buffer) {
        Ok(received) => Ok(Some(received.len.min(buffer.len()))),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock => Ok(None),
            // The kernel reports this error once when the link goes down; the socket works again when the link is back.
            io::ErrorKind::NetworkDown => Ok(None),
            _ => Err(error),
        },
    }
}

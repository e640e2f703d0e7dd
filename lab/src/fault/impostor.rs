//! A host that answers ARP in the name of another, with that host's own MAC as Ethernet source and as sender. Switches
//! with ARP suppression do this for addresses they have learnt (`neigh_suppress` of a Linux bridge, EVPN leaves; before
//! Linux 6.16 also for unicast requests, commit 827b2ac8e796).

use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result};
use herald_packet_socket::{MAX_FRAME, PacketSocket};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::background::{Background, Stop};
use crate::cluster::Host;
use crate::probe::Mac;
use crate::probe::frame::{Arp, ETHERTYPE_ARP, arp_reply};

/// Interval at which the end is checked.
const LOOK_EVERY: Duration = Duration::from_millis(50);

const REQUEST: u16 = 1;

/// An impostor; dropping it ends it.
#[derive(Debug)]
pub struct Impostor(Background<usize>);

impl Impostor {
    /// Makes `host` answer for an address from one of its interfaces, with the other host's MAC.
    ///
    /// # Errors
    /// If the host has no such interface, or no socket can be opened on it.
    pub fn start(host: &Host, interface: &str, address: Ipv4Addr, mac: Mac) -> Result<Self> {
        let (name, interface) = (host.name().to_owned(), interface.to_owned());
        let open = move || {
            let index = nix::net::if_::if_nametoindex(interface.as_str())
                .with_context(|| format!("{name} has no interface {interface}"))?;
            PacketSocket::open(index, ETHERTYPE_ARP, None).context("opening a packet socket")
        };
        Background::start(host, open, move |socket, stop| answer(&socket, stop, address, mac)).map(Self)
    }

    /// Ends the impostor and returns the number of answered requests.
    ///
    /// # Errors
    /// If it could not receive or send.
    pub fn end(self) -> Result<usize> {
        self.0.end()
    }
}

fn answer(socket: &PacketSocket, stop: &Stop, address: Ipv4Addr, mac: Mac) -> Result<usize> {
    let mut frame = [0; MAX_FRAME];
    let mut answered = 0;
    while !stop.is_asked_for() {
        let timeout = PollTimeout::try_from(LOOK_EVERY).context("a timeout")?;
        match poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("waiting for requests"),
        }
        while let Ok(received) = socket.recv(&mut frame) {
            if let Some(reply) = reply(frame.get(..received.len).unwrap_or(&frame), address, mac) {
                socket.send(&reply).context("answering")?;
                answered += 1;
            }
        }
    }
    Ok(answered)
}

/// Returns the answer to a frame if that is a request for the address which the other host did not send itself.
fn reply(frame: &[u8], address: Ipv4Addr, mac: Mac) -> Option<Vec<u8>> {
    let asked = Arp::parse(frame)?;
    let asks = asked.operation == REQUEST && asked.target_ip == address && asked.sender_mac != mac;
    asks.then(|| arp_reply(mac, address, asked.sender_mac, asked.sender_ip))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::frame::arp_request;
    use test_case::test_case;

    const NODE: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const ASKER: Mac = Mac([2, 0, 0, 0, 0, 2]);

    #[test_case(ASKER, 1, true; "a question for it")]
    #[test_case(ASKER, 9, false; "a question for another address")]
    #[test_case(NODE, 1, false; "the node announces its own address")]
    fn only_requests_of_others_for_the_address_are_answered(asker: Mac, target: u8, answered: bool) {
        let ip = |last| Ipv4Addr::new(10, 10, 0, last);
        let reply = reply(&arp_request(asker, ip(2), ip(target)), ip(1), NODE);
        assert_eq!(reply.is_some(), answered);
        if let Some(reply) = reply.and_then(|reply| Arp::parse(&reply)) {
            assert_eq!((reply.source, reply.sender_mac, reply.operation), (NODE, NODE, 2));
            assert_eq!((reply.sender_ip, reply.target_ip), (ip(1), ip(2)));
        }
    }
}

//! The least program that answers for an address: a filter in the kernel, a receive, a send. Benchmarks compare Herald's
//! answering times with its times: no program that answers in user space can be much faster.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result};
use herald_packet_socket::{MAX_FRAME, PacketSocket, SockFilter};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::background::{Background, Stop};
use crate::cluster::Host;
use crate::probe::Mac;
use crate::probe::frame::{self, Arp, ETHERTYPE_ARP, ETHERTYPE_IPV6, Solicitation};

/// Interval at which the end is checked.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Instructions of classic BPF (linux/filter.h): load a byte, a half word, a word; compare; return.
const LD_B: u16 = 0x30;
const LD_H: u16 = 0x28;
const LD_W: u16 = 0x20;
const JEQ: u16 = 0x15;
const RET: u16 = 0x06;

/// A responder; dropping it ends it.
#[derive(Debug)]
pub struct MinimalResponder(Background<()>);

impl MinimalResponder {
    /// Makes `host` answer for an address that it does not have, from one of its interfaces.
    ///
    /// # Errors
    /// If the host has no such interface, or no socket can be opened on it.
    pub fn start(host: &Host, interface: &str, address: IpAddr, mac: Mac) -> Result<Self> {
        let (name, interface) = (host.name().to_owned(), interface.to_owned());
        let open = move || {
            let index = nix::net::if_::if_nametoindex(interface.as_str())
                .with_context(|| format!("{name} has no interface {interface}"))?;
            let ethertype = if address.is_ipv4() { ETHERTYPE_ARP } else { ETHERTYPE_IPV6 };
            PacketSocket::open(index, ethertype, Some(&questions_for(address))).context("opening a packet socket")
        };
        Background::start(host, open, move |socket, stop| answer(&socket, stop, address, mac)).map(Self)
    }

    /// Ends the responder.
    ///
    /// # Errors
    /// If it could not receive or send.
    pub fn end(self) -> Result<()> {
        self.0.end()
    }
}

fn answer(socket: &PacketSocket, stop: &Stop, address: IpAddr, mac: Mac) -> Result<()> {
    let mut buffer = [0; MAX_FRAME];
    let timeout = PollTimeout::try_from(LOOK_EVERY).context("a timeout")?;
    while !stop.is_asked_for() {
        match poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("waiting for questions"),
        }
        while let Ok(received) = socket.recv(&mut buffer) {
            if let Some(reply) = reply(buffer.get(..received.len).unwrap_or(&buffer), address, mac) {
                socket.send(&reply).context("answering")?;
            }
        }
    }
    Ok(())
}

/// Returns the answer to a question for the address.
fn reply(question: &[u8], address: IpAddr, mac: Mac) -> Option<Vec<u8>> {
    match address {
        IpAddr::V4(address) => {
            let asked = Arp::parse(question).filter(|asked| asked.operation == 1 && asked.target_ip == address)?;
            Some(frame::arp_reply(mac, address, asked.sender_mac, asked.sender_ip))
        }
        IpAddr::V6(address) => {
            let asked = Solicitation::parse(question).filter(|asked| asked.target == address)?;
            Some(frame::advertisement(mac, address, asked.source, asked.asker))
        }
    }
}

/// Returns the filter that lets through the questions for an address: of an IPv6 address, those for its last four bytes.
fn questions_for(address: IpAddr) -> Vec<SockFilter> {
    let (kind, question, target, end) = match address {
        IpAddr::V4(address) => (SockFilter::new(LD_H, 0, 0, 20), 1, 38, address.to_bits()),
        IpAddr::V6(address) => (SockFilter::new(LD_B, 0, 0, 54), 135, 74, address.to_bits() as u32),
    };
    vec![
        kind,
        SockFilter::new(JEQ, 0, 3, question),
        SockFilter::new(LD_W, 0, 0, target),
        SockFilter::new(JEQ, 0, 1, end),
        SockFilter::new(RET, 0, 0, u32::MAX),
        SockFilter::new(RET, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::frame::{Advertisement, arp_request, solicitation};

    const NODE: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const ASKER: Mac = Mac([2, 0, 0, 0, 0, 2]);

    #[test]
    fn only_questions_for_the_address_are_answered() {
        let v4 = |last| std::net::Ipv4Addr::new(10, 10, 0, last);
        let answer = |target| reply(&arp_request(ASKER, v4(2), v4(target)), v4(1).into(), NODE);
        let told = Arp::parse(&answer(1).unwrap()).unwrap();
        assert_eq!((told.sender_mac, told.sender_ip, told.target_ip, answer(9)), (NODE, v4(1), v4(2), None));
        let v6 = |last: u16| std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last);
        let answer = |target| reply(&solicitation(ASKER, v6(2), v6(target)), v6(1).into(), NODE);
        let told = Advertisement::parse(&answer(1).unwrap()).unwrap();
        assert_eq!((told.mac, told.target, told.solicited, answer(9)), (Some(NODE), v6(1), true, None));
    }
}

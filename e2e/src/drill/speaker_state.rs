//! The state of the speakers according to their own Hellos (docs/protocol/frames.md#hello), read by a client on their
//! segment.
//!
//! The Hellos are read without their key: a laboratory may trust the frames it receives.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use herald_packet_socket::{MAX_FRAME, PacketSocket};
use herald_protocol::wire::{ETHERTYPE, GROUP};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use herald_lab::cluster::Host;
use herald_lab::probe::Mac;

/// Each speaker sends a Hello every 100 ms on a segment of up to 101 nodes (docs/protocol/timers.md#hellos): two and a
/// half intervals.
const LISTEN: Duration = Duration::from_millis(250);

/// The state of a speaker according to its Hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) active: bool,
    /// Number of nodes that it hears both ways.
    pub(crate) peers: u16,
}

/// Returns the last Hello of each sender within a quarter of a second, by its MAC.
pub(crate) fn heard(client: &Host, interface: &str) -> Result<BTreeMap<Mac, Standing>> {
    client.inside(|| {
        let index = nix::net::if_::if_nametoindex(interface).context("the client's interface")?;
        let socket = PacketSocket::open(index, ETHERTYPE, None).context("opening a packet socket")?;
        socket.join_multicast(GROUP.0).context("joining the speakers' group")?;
        let mut heard = BTreeMap::new();
        let mut frame = [0; MAX_FRAME];
        let end = Instant::now() + LISTEN;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            let timeout = PollTimeout::try_from(left).context("a timeout")?;
            match poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("waiting for Hellos"),
            }
            while let Ok(received) = socket.recv(&mut frame) {
                let bytes = frame.get(..received.len).unwrap_or(&frame);
                heard.extend(standing(bytes));
            }
        }
        Ok(heard)
    })
}

/// Parses a Hello; returns `None` for any other frame.
fn standing(frame: &[u8]) -> Option<(Mac, Standing)> {
    const ETHERNET: usize = 14;
    const HEADER: usize = 36;
    const HELLO: u8 = 1;
    const ACTIVE: u8 = 1;
    let source = Mac(frame.get(6..12)?.try_into().ok()?);
    let message = frame.get(ETHERNET..)?;
    if *message.get(1)? != HELLO {
        return None;
    }
    // State, flags, highest version, interval (2), uptime (8), peers (2).
    let body = message.get(HEADER..)?;
    let peers = u16::from_be_bytes(body.get(13..15)?.try_into().ok()?);
    Some((source, Standing { active: *body.first()? == ACTIVE, peers }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use herald_protocol::claim::Digest;
    use herald_protocol::mac::MacAddr;
    use herald_protocol::node::{Incarnation, NodeName};
    use herald_protocol::wire::{Body, Frame, Hello, Key, Keyring, Sender, State};
    use test_case::test_case;

    fn hello(state: State, peers: u16) -> Vec<u8> {
        let key = Key::new(&[7; 32]).unwrap();
        let id = key.id();
        let name = NodeName::new("node1");
        let frame = Frame {
            sender: Sender { node: name.id(), incarnation: Incarnation(5), sequence: 1 },
            body: Body::Hello(Hello {
                state,
                highest_version: 1,
                deaf: false,
                interval: Duration::from_millis(100),
                uptime: Duration::from_secs(9),
                peers,
                claims: Digest::default(),
                name,
                mac: MacAddr([2, 0, 0, 0, 0, 1]),
                address: None,
                keys: vec![id],
                heard: Vec::new(),
            }),
        };
        let mut bytes = GROUP.0.to_vec();
        bytes.extend([2, 0, 0, 0, 0, 1]);
        bytes.extend(ETHERTYPE.to_be_bytes());
        bytes.extend(Keyring::new(vec![key]).unwrap().seal(id, 1, &frame).unwrap());
        bytes
    }

    #[test_case(State::Active, 2, true)]
    #[test_case(State::Listening, 300, false)]
    fn hello_shows_state_and_peers(state: State, peers: u16, active: bool) {
        let read = standing(&hello(state, peers));
        assert_eq!(read, Some((Mac([2, 0, 0, 0, 0, 1]), Standing { active, peers })));
    }

    #[test]
    fn other_frames_are_ignored() {
        let mut claims = hello(State::Active, 1);
        claims[15] = 2;
        assert_eq!(standing(&claims), None);
        assert_eq!(standing(&hello(State::Active, 1)[..60]), None);
        assert_eq!(standing(&[]), None);
    }
}

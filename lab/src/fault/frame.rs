//! Frames with arbitrary content.

use std::str::FromStr;

use anyhow::{Context, Result};
use herald_packet_socket::PacketSocket;

use crate::cluster::Host;

/// Length in bytes of the Ethernet header, the shortest possible frame.
const SHORTEST: usize = 14;
/// Length in bytes of the header and the payload of an ordinary link (MTU 1,500).
const LONGEST: usize = 1514;

/// A whole Ethernet frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame(Vec<u8>);

impl Frame {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The error for a text or bytes that do not form a frame.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum NotAFrame {
    #[error("{0:?} is not a hexadecimal digit")]
    Digit(char),
    #[error("an odd number of hexadecimal digits ({0}): every byte has two")]
    Odd(usize),
    #[error("{0} bytes: a frame has {SHORTEST} to {LONGEST}, destination, source and EtherType included")]
    Length(usize),
}

impl FromStr for Frame {
    type Err = NotAFrame;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The separators of tcpdump and Wireshark.
        let digits: Vec<u8> = text
            .chars()
            .filter(|c| !c.is_whitespace() && *c != ':')
            .map(|c| c.to_digit(16).map(|digit| digit as u8).ok_or(NotAFrame::Digit(c)))
            .collect::<Result<_, _>>()?;
        if !digits.len().is_multiple_of(2) {
            return Err(NotAFrame::Odd(digits.len()));
        }
        let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
        Self::try_from(bytes.as_slice())
    }
}

impl TryFrom<&[u8]> for Frame {
    type Error = NotAFrame;

    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        if (SHORTEST..=LONGEST).contains(&bytes.len()) {
            Ok(Self(bytes.to_vec()))
        } else {
            Err(NotAFrame::Length(bytes.len()))
        }
    }
}

/// Sends a frame from an interface of a host.
pub(super) fn send(host: &Host, interface: &str, Frame(bytes): &Frame) -> Result<()> {
    host.inside(|| {
        let index = nix::net::if_::if_nametoindex(interface)
            .with_context(|| format!("{} has no interface {interface}", host.name()))?;
        let ethertype = u16::from_be_bytes([bytes[12], bytes[13]]);
        let socket = PacketSocket::open(index, ethertype, None).context("opening a packet socket")?;
        socket.send(bytes).with_context(|| format!("sending from {interface} of {}", host.name()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_case::test_case;

    #[test_case("ffffffffffff 020000000001 0806", Ok(14); "blanks between fields")]
    #[test_case("ff:ff:ff:ff:ff:ff:02:00:00:00:00:01:08:06", Ok(14); "colons between bytes")]
    #[test_case("ffffffffffff0200000000010806\n00", Ok(15); "a line's end")]
    #[test_case("ffff", Err(NotAFrame::Length(2)); "too short")]
    #[test_case("fffff", Err(NotAFrame::Odd(5)); "half a byte")]
    #[test_case("0xffff", Err(NotAFrame::Digit('x')); "a prefix")]
    fn hexadecimal_frame_is_parsed(text: &str, expected: Result<usize, NotAFrame>) {
        assert_eq!(text.parse::<Frame>().map(|frame| frame.0.len()), expected);
    }

    #[test]
    fn frame_longer_than_the_link_allows_is_refused() {
        assert!("00".repeat(LONGEST).parse::<Frame>().is_ok());
        assert_eq!("00".repeat(LONGEST + 1).parse::<Frame>(), Err(NotAFrame::Length(LONGEST + 1)));
    }
}

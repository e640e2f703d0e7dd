//! The passive recorder of unsolicited announcements.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::Context;
use herald_packet_socket::PacketSocket;
use nix::poll::{PollFd, PollFlags};

use super::clock::Clock;
use super::neighbour::{FRAME, receive};
use super::route::Link;
use super::{advertisements, wait};
use crate::probe::frame::{self, Advertisement, Arp};
use crate::probe::sample::{Announcement, AnnouncementKind, At, Mac};

/// A recorder that listens on one link.
pub(super) struct Recorder {
    arp: PacketSocket,
    nd: PacketSocket,
    own: Mac,
}

impl Recorder {
    pub(super) fn open(link: &Link) -> anyhow::Result<Self> {
        let arp = PacketSocket::open(link.index, frame::ETHERTYPE_ARP, None);
        let nd = PacketSocket::open(link.index, frame::ETHERTYPE_IPV6, Some(&advertisements::filter()));
        let refused = || format!("cannot open a packet socket on {}", link.name);
        Ok(Self { arp: arp.with_context(refused)?, nd: nd.with_context(refused)?, own: link.mac })
    }

    pub(super) fn run(self, clock: &Clock) -> anyhow::Result<Vec<Announcement>> {
        let mut seen = Vec::new();
        let mut buffer = [0; FRAME];
        while !clock.over() {
            let mut sockets =
                [PollFd::new(self.arp.as_fd(), PollFlags::POLLIN), PollFd::new(self.nd.as_fd(), PollFlags::POLLIN)];
            wait::ready(&mut sockets, Duration::MAX)?;
            for socket in [&self.arp, &self.nd] {
                while let Some(length) = receive(socket, &mut buffer)? {
                    let heard = announcement(&buffer[..length], clock.now());
                    seen.extend(heard.filter(|announcement| announcement.source != self.own));
                }
            }
        }
        Ok(seen)
    }
}

/// Parses an announcement; returns `None` for every other frame.
fn announcement(frame: &[u8], at: At) -> Option<Announcement> {
    if let Some(Arp { source, operation, sender_mac, sender_ip, target_ip }) = Arp::parse(frame) {
        let kind = if operation == 2 { AnnouncementKind::ArpReply } else { AnnouncementKind::ArpRequest };
        let address = IpAddr::V4(sender_ip);
        return (sender_ip == target_ip).then_some(Announcement { at, kind, address, mac: sender_mac, source });
    }
    let Advertisement { source, target, mac, solicited, overriding } = Advertisement::parse(frame)?;
    let kind = if overriding { AnnouncementKind::AdvertisementOverride } else { AnnouncementKind::Advertisement };
    let mac = mac?;
    (!solicited).then_some(Announcement { at, kind, address: IpAddr::V6(target), mac, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);

    #[test]
    fn only_gratuitous_arp_is_an_announcement() {
        let (address, other) = ([192, 0, 2, 10].into(), [192, 0, 2, 11].into());
        let mut gratuitous = frame::arp_request(MAC, address, address);
        let heard = announcement(&gratuitous, At(5)).unwrap();
        let expected = Announcement {
            at: At(5),
            kind: AnnouncementKind::ArpRequest,
            address: IpAddr::V4(address),
            mac: MAC,
            source: MAC,
        };
        assert_eq!(heard, expected);
        gratuitous[21] = 2;
        assert_eq!(announcement(&gratuitous, At(5)).unwrap().kind, AnnouncementKind::ArpReply);
        assert_eq!(announcement(&frame::arp_request(MAC, other, address), At(5)), None);
    }
}

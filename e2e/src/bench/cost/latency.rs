//! How long an answer takes: a host of the segment asks for one address after the other.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use herald_lab::cluster::Host;
use herald_lab::probe::Mac;
use herald_lab::probe::frame::{Advertisement, Arp, ETHERTYPE_ARP, ETHERTYPE_IPV6, arp_request, solicitation};
use herald_packet_socket::{MAX_FRAME, PacketSocket};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;

/// Time after which an answer counts as lost.
const LOST_AFTER: Duration = Duration::from_millis(500);
/// Pause between two questions, in which every program that was woken sleeps again.
const PAUSE: Duration = Duration::from_millis(2);

/// Quantiles of the answering times, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Quantiles {
    /// Half of the answers took no longer.
    pub(super) p50: f64,
    /// 99 of 100 answers took no longer.
    pub(super) p99: f64,
    /// Questions without an answer.
    pub(super) lost: usize,
}

impl Quantiles {
    fn of(mut times: Vec<f64>, lost: usize) -> Option<Self> {
        times.sort_by(f64::total_cmp);
        let at =
            |share: f64| times.get(((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1))).copied();
        Some(Self { p50: at(0.5)?, p99: at(0.99)?, lost })
    }
}

/// Asks `host` for the addresses of each group in turn, one of each group in each round. Returns the quantiles of each
/// group. All addresses are of one family.
pub(super) fn measure<const N: usize>(host: &Host, rounds: usize, groups: [&[IpAddr]; N]) -> Result<[Quantiles; N]> {
    let (mac, interface) = (Mac::from(host.mac(0)?), host.interface(0)?.to_owned());
    let is_v4 = groups.iter().all(|group| group.iter().all(IpAddr::is_ipv4));
    let own = host.addresses(0).into_iter().find(|own| own.is_ipv4() == is_v4).context("the asker's address")?;
    let groups = groups.map(<[IpAddr]>::to_vec);
    host.inside(move || {
        let index = nix::net::if_::if_nametoindex(interface.as_str()).context("the asker's interface")?;
        let ethertype = if is_v4 { ETHERTYPE_ARP } else { ETHERTYPE_IPV6 };
        let socket = PacketSocket::open(index, ethertype, None).context("opening a packet socket")?;
        let mut times: [Vec<f64>; N] = std::array::from_fn(|_| Vec::new());
        let mut lost = [0; N];
        for round in 0..rounds {
            for (group, addresses) in groups.iter().enumerate() {
                let target = addresses[round % addresses.len()];
                match ask(&socket, &question(mac, own, target)?, target)? {
                    Some(took) => times[group].push(took.as_secs_f64() * 1e6),
                    None => lost[group] += 1,
                }
                std::thread::sleep(PAUSE);
            }
        }
        let mut found = Vec::new();
        for (times, lost) in times.into_iter().zip(lost) {
            found.push(Quantiles::of(times, lost).context("an address that nobody answers for")?);
        }
        found.try_into().map_err(|_| anyhow::anyhow!("one result of each group"))
    })
}

fn question(mac: Mac, own: IpAddr, target: IpAddr) -> Result<Vec<u8>> {
    match (own, target) {
        (IpAddr::V4(own), IpAddr::V4(target)) => Ok(arp_request(mac, own, target)),
        (IpAddr::V6(own), IpAddr::V6(target)) => Ok(solicitation(mac, own, target)),
        _ => bail!("{own} cannot ask for {target}"),
    }
}

/// Sends a question and waits for its answer. Returns how long it took.
fn ask(socket: &PacketSocket, question: &[u8], target: IpAddr) -> Result<Option<Duration>> {
    let mut buffer = [0; MAX_FRAME];
    let begun = Instant::now();
    socket.send(question).context("asking")?;
    loop {
        while let Ok(received) = socket.recv(&mut buffer) {
            if answers(buffer.get(..received.len).unwrap_or(&buffer), target) {
                return Ok(Some(begun.elapsed()));
            }
        }
        let Some(left) = LOST_AFTER.checked_sub(begun.elapsed()).filter(|left| left.as_millis() > 0) else {
            return Ok(None);
        };
        match poll(
            &mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)],
            PollTimeout::try_from(left).context("a timeout")?,
        ) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("waiting for an answer"),
        }
    }
}

fn answers(frame: &[u8], target: IpAddr) -> bool {
    match target {
        IpAddr::V4(target) => Arp::parse(frame).is_some_and(|arp| arp.operation == 2 && arp.sender_ip == target),
        IpAddr::V6(target) => Advertisement::parse(frame).is_some_and(|told| told.solicited && told.target == target),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_answers_that_came() {
        let times = (1..=200).rev().map(f64::from).collect();
        assert_eq!(Quantiles::of(times, 3), Some(Quantiles { p50: 101.0, p99: 199.0, lost: 3 }));
        assert_eq!(Quantiles::of(Vec::new(), 3), None);
    }
}

//! A host floods the wire with what every speaker has to look at, and something fails meanwhile.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, Result};
use herald_segment::wire::{ETHERTYPE, GROUP};
use nix::sys::signal::Signal;

use super::{phase, power};
use crate::failover::{Bounds, Drill, Place, Play, Promise, Tried};
use crate::fault::Flood;
use crate::probe::Mac;
use crate::probe::frame::arp_request;

/// Frames a second: half of them ARP requests for an address, half frames of the protocol's EtherType. Sending, answering and
/// taking in what is answered, all on one machine, keeps its two processors busy for 85 % (two machines of the laboratory).
/// A machine on which that leaves the nodes' programs no time gets half as many the next time, and half of that.
const RATE: u32 = 20_000;

/// terminationGracePeriodSeconds of the DaemonSet (deploy/herald/speaker.yaml).
const GRACE: Duration = Duration::from_secs(5);

/// P1: others answer within 150 ms as a rule; the rest is for a machine that the flood keeps busy.
const COVERED: Bounds = Bounds { unanswered_ms: 1000.0, ..Bounds::CONTEST };

/// P2: another node within 500 ms as a rule; the rest is for a machine that the flood keeps busy.
const TAKEN_OVER: Bounds = Bounds { traffic_ms: 2000.0, ..Bounds::CONTEST };

pub(super) const DRILLS: &[Drill] = &[
    Drill {
        name: "flood-speaker",
        about: "a host floods the wire, and the announcing speaker is killed, and then ended by SIGTERM",
        places: &[Place::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: flood,
        phases: &[
            phase("flood-speaker-killed", Promise::NOTHING, |take| {
                take.strike(|play| play.signal_speaker(Signal::SIGKILL))?;
                take.play.speaker_runs_again()
            })
            .within(COVERED),
            phase("flood-speaker-ended", Promise::NOTHING, |take| {
                take.strike(|play| play.faults().terminate(play.speaker(&play.victim)?, GRACE).map(drop))
            })
            .within(COVERED),
        ],
    },
    Drill {
        name: "flood-power-off",
        about: "a host floods the wire, and the announcing node loses power",
        places: &[Place::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: flood,
        phases: &[power::off("flood-power-off").within(TAKEN_OVER)],
    },
];

/// From the watching client's host: the other's traffic is measured.
fn flood(play: &Play<'_>) -> Result<()> {
    let host = play.stage.watching_host();
    let mac = Mac::from(host.mac(play.stage.segment)?);
    let v4 = |address: IpAddr| if let IpAddr::V4(address) = address { Some(address) } else { None };
    let address = play.addresses().into_iter().find_map(v4).context("an IPv4 address of a Service")?;
    let own: Ipv4Addr = host.addresses(play.stage.segment).into_iter().find_map(v4).context("the host's address")?;
    let mut rubbish = [&GROUP.0[..], &mac.0, &ETHERTYPE.to_be_bytes()].concat();
    // The shortest frame of Ethernet, without its check sequence.
    rubbish.resize(60, 0x5a);
    let frames = [arp_request(mac, own, address), rubbish];
    let rate = RATE >> (play.attempt - 1);
    play.stage.progress().step(format!("  {rate} frames a second"));
    play.stage.hold(Flood::start(host, host.interface(play.stage.segment)?, &frames, rate)?);
    Ok(())
}

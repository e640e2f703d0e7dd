//! A host floods the wire with frames that every speaker must examine, while something fails.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, Result};
use herald_protocol::wire::{ETHERTYPE, GROUP};
use nix::sys::signal::Signal;

use super::{phase, power};
use crate::drill::{Bounds, Drill, DrillRun, Promise, Topology, Tried};
use herald_lab::cluster::Bystanders;
use herald_lab::fault::Flood;
use herald_lab::probe::Mac;
use herald_lab::probe::frame::arp_request;

/// Frames per second: half of them are ARP requests for an address, half are frames of the protocol's EtherType.
/// Sending, answering and receiving the answers on one machine keeps its two processors busy (three nodes, three hosts).
/// A machine that cannot bear this gets half of it, or a quarter, and so on.
const RATE: u32 = 20_000;

/// The least rate: a hundred times the Hellos that a node hears of two peers.
const LEAST_RATE: u32 = 2_500;

/// Time for which a rate is tried before the drill begins.
const TRIAL: Duration = Duration::from_secs(1);

/// A machine bears a rate if no ordinary process of a node is kept from running for longer: a speaker is covered after
/// 150 ms of silence.
const BEARABLE_STALL: Duration = Duration::from_millis(60);

/// A machine bears a rate if this share of its processors is idle: the clients' probes, which start with the drill and look
/// at each frame, take about as much again as the flood.
const IDLE: f64 = 0.5;

/// terminationGracePeriodSeconds of the DaemonSet (deploy/herald/speaker.yaml).
const GRACE: Duration = Duration::from_secs(5);

/// P1: other nodes answer within 150 ms as a rule; the rest is a margin for a machine that the flood keeps busy.
const COVERED: Bounds = Bounds { unanswered_ms: 1000.0, ..Bounds::CONTEST };

/// P2: another node takes over within 500 ms as a rule; the rest is a margin for a machine that the flood keeps busy.
const TAKEN_OVER: Bounds = Bounds { traffic_ms: 2000.0, ..Bounds::CONTEST };

pub(super) const DRILLS: &[Drill] = &[
    Drill {
        name: "flood-speaker",
        about: "a host floods the wire, and the announcing speaker is killed, and then ended by SIGTERM",
        places: &[Topology::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: flood,
        phases: &[
            phase("flood-speaker-killed", Promise::NOTHING, |active| {
                active.strike(|run| run.signal_speaker(Signal::SIGKILL))?;
                active.run.speaker_runs_again()
            })
            .within(COVERED),
            phase("flood-speaker-ended", Promise::NOTHING, |active| {
                active.strike(|run| run.faults().terminate(run.speaker(&run.victim)?, GRACE).map(drop))
            })
            .within(COVERED),
        ],
    },
    Drill {
        name: "flood-power-off",
        about: "a host floods the wire, and the announcing node loses power",
        places: &[Topology::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: flood,
        phases: &[power::off("flood-power-off").within(TAKEN_OVER)],
    },
];

/// Floods from the watching client, because the traffic of the other one is measured.
fn flood(run: &DrillRun<'_>) -> Result<()> {
    let host = run.setup.watching_host();
    let mac = Mac::from(host.mac(run.setup.segment)?);
    let v4 = |address: IpAddr| if let IpAddr::V4(address) = address { Some(address) } else { None };
    let address = run.addresses().into_iter().find_map(v4).context("an IPv4 address of a Service")?;
    let own: Ipv4Addr = host.addresses(run.setup.segment).into_iter().find_map(v4).context("the host's address")?;
    let mut rubbish = [&GROUP.0[..], &mac.0, &ETHERTYPE.to_be_bytes()].concat();
    // The shortest Ethernet frame without its frame check sequence.
    rubbish.resize(60, 0x5a);
    let frames = [arp_request(mac, own, address), rubbish];
    let interface = host.interface(run.setup.segment)?;
    let mut rate = RATE >> (run.attempt - 1);
    loop {
        let flood = Flood::start(host, interface, &frames, rate)?;
        let bystanders = Bystanders::start(run.setup.lab())?;
        let before = ProcessorTime::read()?;
        std::thread::sleep(TRIAL);
        let idle = ProcessorTime::read()?.idle_since(before);
        let stalled = bystanders.end()?;
        let seen = format!("nodes stalled {} ms, processors {:.0} % idle", stalled.as_millis(), idle * 100.0);
        run.setup.progress().step(format!("  {rate} frames a second: {seen}"));
        if stalled <= BEARABLE_STALL && idle >= IDLE || rate <= LEAST_RATE {
            run.setup.hold(flood);
            return Ok(());
        }
        flood.end()?;
        rate /= 2;
    }
}

/// Time of all processors since the machine was booted, in clock ticks.
#[derive(Clone, Copy, Debug, PartialEq)]
struct ProcessorTime {
    idle: f64,
    all: f64,
}

impl ProcessorTime {
    fn read() -> Result<Self> {
        let text = std::fs::read_to_string("/proc/stat").context("/proc/stat")?;
        Self::parse(&text).context("/proc/stat has no line of all processors")
    }

    /// Parses `cpu user nice system idle iowait irq softirq steal guest guest_nice` (proc_stat(5)); the times of guests are
    /// counted in the first two as well.
    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let ticks: Vec<f64> = line.split_whitespace().map_while(|field| field.parse().ok()).take(8).collect();
        Some(Self { idle: ticks.get(3)? + ticks.get(4)?, all: ticks.iter().sum() })
    }

    /// Returns the share of the time since then in which processors were idle.
    fn idle_since(self, before: Self) -> f64 {
        (self.idle - before.idle) / (self.all - before.all).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_share_counts_waiting_for_disks_and_not_the_guests_twice() {
        let at = |idle: u32, user: u32| {
            ProcessorTime::parse(&format!("cpu  {user} 0 10 {idle} 5 0 0 5 7 7\ncpu0 1 1 1 1 1 1 1 1 1 1\n")).unwrap()
        };
        assert_eq!(at(130, 170).idle_since(at(100, 100)), 0.3);
        assert_eq!(ProcessorTime::parse("intr 5"), None);
    }
}

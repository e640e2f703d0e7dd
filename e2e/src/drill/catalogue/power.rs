//! A node loses power: another one takes over within half a second (P2), and a node that returns takes nothing back.

use anyhow::Result;

use super::speaker::until_covered;
use super::{nothing, phase};
use crate::drill::{ActivePhase, Drill, Phase, Promise, Topology, Tried};
use herald_lab::fault::{Fault, Link};

pub(super) const DRILLS: &[Drill] = &[
    Drill {
        name: "node-power-off",
        about: "the announcing node loses power, and gets it back",
        places: &[Topology::Three, Topology::Iptables, Topology::Two],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[
            off("node-power-off").metallb("traffic back after 6.1 s, 273 to 339 connections failed"),
            phase("node-returns", Promise::NOTHING, |active| {
                active.strike(|run| run.faults().heal(&Fault::PoweredOff { host: run.victim.clone() }))?;
                active.run.setup.whole()
            })
            .metallb("fails back, reset every time, two owners up to 0.12 s"),
        ],
    },
    Drill {
        name: "node-power-off-covered",
        about: "the announcing speaker hangs, others answer for it, and then its node loses power",
        places: &[Topology::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: |run| {
            run.faults().freeze(run.speaker(&run.victim)?)?;
            until_covered(run)
        },
        phases: &[off("node-power-off-covered")],
    },
    Drill {
        name: "node-power-off-impostor",
        about: "a host answers ARP and ND for the node that loses power",
        places: &[Topology::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[phase("node-power-off-impostor", Promise::SUCCEEDED, |active| {
            active.strike(|run| {
                let segment = run.setup.segment;
                for address in run.host(&run.victim)?.addresses(segment) {
                    let link = Link { host: run.setup.watcher().to_owned(), segment };
                    run.faults().inject(Fault::AddressAdded { link, address: address.into() })?;
                }
                run.power_off()
            })
        })],
    },
    Drill {
        name: "node-power-off-100",
        about: "the announcing node loses power with 100 addresses",
        places: &[Topology::Three],
        more_services: 48,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[off("node-power-off-100")],
    },
    Drill {
        name: "node-power-off-1000",
        about: "the announcing node loses power with 1,000 addresses",
        places: &[Topology::Three],
        more_services: 498,
        tried: Tried::Benchmark,
        prepare: nothing,
        phases: &[off("node-power-off-1000")],
    },
];

/// Returns a phase in which the victim loses power.
pub(super) const fn off(name: &'static str) -> Phase {
    phase(name, Promise::SUCCEEDED, power_off)
}

fn power_off(active: &mut ActivePhase<'_>) -> Result<()> {
    active.strike(|run| run.power_off())
}

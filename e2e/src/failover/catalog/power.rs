//! A node loses power: another takes over within half a second (P2), and a node that returns takes nothing back.

use anyhow::Result;

use super::speaker::until_covered;
use super::{nothing, phase};
use crate::failover::{Drill, Phase, Place, Promise, Take, Tried};
use crate::fault::{Fault, Link};

pub(super) const DRILLS: &[Drill] = &[
    Drill {
        name: "node-power-off",
        about: "the announcing node loses power, and gets it back",
        places: &[Place::Three, Place::Iptables, Place::Two],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[
            off("node-power-off").metallb("traffic back after 6.1 s, 273 to 339 connections failed"),
            phase("node-returns", Promise::NOTHING, |take| {
                take.strike(|play| play.faults().heal(&Fault::PoweredOff { host: play.victim.clone() }))?;
                take.play.stage.whole()
            })
            .metallb("fails back, reset every time, two owners up to 0.12 s"),
        ],
    },
    Drill {
        name: "node-power-off-covered",
        about: "the announcing speaker hangs, others answer for it, and then its node loses power",
        places: &[Place::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: |play| {
            play.faults().freeze(play.speaker(&play.victim)?)?;
            until_covered(play)
        },
        phases: &[off("node-power-off-covered")],
    },
    Drill {
        name: "node-power-off-impostor",
        about: "a host answers ARP and ND for the node that loses power",
        places: &[Place::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[phase("node-power-off-impostor", Promise::SUCCEEDED, |take| {
            take.strike(|play| {
                let segment = play.stage.segment;
                for address in play.host(&play.victim)?.addresses(segment) {
                    let link = Link { host: play.stage.watcher().to_owned(), segment };
                    play.faults().inject(Fault::AddressAdded { link, address: address.into() })?;
                }
                play.power_off()
            })
        })],
    },
    Drill {
        name: "node-power-off-100",
        about: "the announcing node loses power with 100 addresses",
        places: &[Place::Three],
        more_services: 48,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[off("node-power-off-100")],
    },
    Drill {
        name: "node-power-off-1000",
        about: "the announcing node loses power with 1,000 addresses",
        places: &[Place::Three],
        more_services: 498,
        tried: Tried::Benchmark,
        prepare: nothing,
        phases: &[off("node-power-off-1000")],
    },
];

/// The victim loses power.
pub(super) const fn off(name: &'static str) -> Phase {
    phase(name, Promise::SUCCEEDED, power_off)
}

fn power_off(take: &mut Take<'_>) -> Result<()> {
    take.strike(|play| play.power_off())
}

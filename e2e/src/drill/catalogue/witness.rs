//! A node loses power, and a switch goes on answering ARP for it with the node's own MAC, as a switch with ARP
//! suppression does for addresses it has learnt. The answer to a probe of the node's kernel then does not prove that
//! the node lives.

use std::net::IpAddr;

use anyhow::{Context, Result};

use super::{nothing, phase};
use crate::drill::{Bounds, Drill, DrillRun, Promise, Topology, Tried};
use herald_lab::fault::Impostor;

/// Traffic is back within 2 s of the power-off: peers probe the node in a second way, which no other host can answer.
const WITHIN: Bounds = Bounds { traffic_ms: 2000.0, ..Bounds::CONTEST };

pub(super) const DRILLS: &[Drill] = &[Drill {
    name: "node-power-off-false-witness",
    about: "a switch answers ARP for the node that loses power, with the node's own MAC",
    places: &[Topology::Three],
    more_services: 0,
    tried: Tried::Always,
    prepare: nothing,
    phases: &[phase("node-power-off-false-witness", Promise::SUCCEEDED, |active| {
        active.strike(|run| {
            impersonate(run)?;
            run.power_off()
        })
    })
    .within(WITHIN)],
}];

/// Starts the impostor at the moment of the power-off: while the node lives, the answers would misdirect its traffic.
/// They leave by another port of the switch here, while a real switch with ARP suppression answers on the port of the
/// asker.
fn impersonate(run: &DrillRun<'_>) -> Result<()> {
    let (victim, witness) = (run.host(&run.victim)?, run.setup.watching_host());
    let address = victim.addresses(run.setup.segment).into_iter().find_map(|address| match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    });
    let mac = run.mac(&run.victim)?;
    let interface = witness.interface(run.setup.segment)?;
    run.setup.hold(Impostor::start(witness, interface, address.context("the node's IPv4 address")?, mac)?);
    Ok(())
}

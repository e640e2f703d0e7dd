//! A node loses power, and a switch goes on answering ARP for it with the node's own MAC, as one does that suppresses ARP for
//! what it has learnt: what its peers ask its kernel is answered, and proves nothing.

use std::net::IpAddr;

use anyhow::{Context, Result};

use super::{nothing, phase};
use crate::failover::{Bounds, Drill, Place, Play, Promise, Tried};
use crate::fault::Impostor;

/// Traffic is back within 2 s of the power-off: the node is asked in a second way, which nobody else can answer.
const WITHIN: Bounds = Bounds { traffic_ms: 2000.0, ..Bounds::CONTEST };

pub(super) const DRILLS: &[Drill] = &[Drill {
    name: "node-power-off-false-witness",
    about: "a switch answers ARP for the node that loses power, with the node's own MAC",
    places: &[Place::Three],
    more_services: 0,
    tried: Tried::Always,
    prepare: nothing,
    phases: &[phase("node-power-off-false-witness", Promise::SUCCEEDED, |take| {
        take.strike(|play| {
            impersonate(play)?;
            play.power_off()
        })
    })
    .within(WITHIN)],
}];

/// Only now, for as long as the node lives the answers lead its traffic astray: they come from another port of the switch
/// here, where a switch that suppresses ARP sends them by the port of the one that asked.
fn impersonate(play: &Play<'_>) -> Result<()> {
    let (victim, witness) = (play.host(&play.victim)?, play.stage.watching_host());
    let address = victim.addresses(play.stage.segment).into_iter().find_map(|address| match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    });
    let mac = play.mac(&play.victim)?;
    let interface = witness.interface(play.stage.segment)?;
    play.stage.hold(Impostor::start(witness, interface, address.context("the node's IPv4 address")?, mac)?);
    Ok(())
}

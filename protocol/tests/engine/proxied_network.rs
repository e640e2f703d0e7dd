//! A switch or gateway answers for every address (local proxy ARP): each address would be taken for one in use, unless
//! the probe before the first claim is left out.

use std::{sync::Arc, time::Duration};

use crate::bus::{GATEWAY, SECRET, address, keys, mac, ms, name, stations};
use herald_protocol::{
    Config, Engine, Event, Input, Output,
    api_view::{Candidate, Class, Packet, Vip},
    claim::Birth,
    node::Incarnation,
};
use test_case::test_case;

/// The actions of a lone node for a new address within ten seconds, in a network whose gateway answers for every
/// address.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    enquiries: usize,
    announcements: usize,
    conflicts: usize,
}

fn seen(first_claim_probe: bool) -> Seen {
    let config = Config { first_claim_probe, ..Config::new(name(1), Incarnation(1), mac(1)) };
    let mut now = ms(1000);
    let mut segment = Engine::new(now, config, Arc::new(keys(&[SECRET[0]])), None);
    segment.handle(now, stations([]));
    segment.handle(now, Input::Neighbours([GATEWAY].into()));
    segment.handle(now, Input::Fresh(now));
    let vip = Vip {
        birth: Birth(1),
        uid: "uid".into(),
        candidates: [Candidate { node: name(1).id(), class: Class(0) }].into_iter().collect(),
        announced_by: None,
        given_up: None,
        held_here: false,
        ever_announced: false,
        cover: true,
    };
    segment.handle(now, Input::Vip(address(1), Some(Arc::new(vip))));
    let mut seen = Seen::default();
    while now < ms(11_000) {
        while let Some(output) = segment.poll_output() {
            let answer = |address| Packet { source: GATEWAY.mac, binding: Some((address, GATEWAY.mac)), asks: None };
            match output {
                Output::Enquire(asked) => {
                    seen.enquiries += 1;
                    segment.handle_packet(now, &answer(asked));
                }
                Output::Probe { address, .. } => {
                    segment.handle_packet(now, &answer(address));
                }
                Output::Announce { .. } => seen.announcements += 1,
                Output::Event(Event::Conflict { .. }) => seen.conflicts += 1,
                _ => {}
            }
        }
        now = segment.poll_timeout().unwrap_or(now + Duration::from_secs(1)).max(now + ms(1));
        segment.handle_timeout(now);
    }
    seen
}

#[test_case(true => Seen { enquiries: 1, announcements: 0, conflicts: 1 }; "asked for, and taken for one in use")]
#[test_case(false => Seen { enquiries: 0, announcements: 5, conflicts: 0 }; "announced at once, and in four repeats")]
fn gateway_that_answers_for_every_address_conflicts_if_it_is_asked(first_claim_probe: bool) -> Seen {
    seen(first_claim_probe)
}

//! The network fails, in part or as a whole.

use std::time::Duration;

use anyhow::Result;
use herald_crds::SpeakerStatus;
use herald_crds::speaker_status::WarningKind;
use herald_segment::wire::ETHERTYPE;

use super::{nothing, phase};
use crate::failover::{Drill, Owner, Place, Play, Promise, Traffic, Tried};
use crate::fault::{Direction, Fault, Percent};
use crate::probe::Mac;

const HALF_A_SECOND: Duration = Duration::from_millis(500);

pub(super) const DRILLS: &[Drill] = &[
    Drill {
        name: "cable",
        about: "the announcing node's cable is pulled, and plugged back",
        places: &[Place::Three, Place::Iptables, Place::TwoSegments],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[
            phase("cable-pulled", Promise::SUCCEEDED, |take| {
                take.strike(|play| play.faults().inject(Fault::Cut(play.link())))
            })
            .metallb("5.2 s"),
            phase("cable-plugged-back", Promise::NOTHING, |take| {
                take.strike(|play| play.faults().heal(&Fault::Cut(play.link())))?;
                take.play.stage.whole()
            })
            .metallb("two owners for 24 to 28 s; resets"),
        ],
    },
    Drill {
        name: "protocol-dropped",
        about: "the switch drops EtherType 0x88b5 (3 s; 60 s in the benchmark), and passes it again",
        places: &[Place::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[
            phase("protocol-dropped", Promise::NOTHING, |take| {
                take.strike(drop_protocol)?;
                take.lasts(Duration::from_secs(3), Duration::from_secs(60));
                Ok(())
            })
            .metallb("all 3 nodes answer all addresses for 54 s"),
            phase("protocol-passes-again", Promise::NOTHING, |take| {
                take.strike(|play| play.faults().heal(&protocol_dropped(play)))?;
                take.play.stage.whole()
            })
            .metallb("all 3 nodes answer for 1 to 43 s more"),
        ],
    },
    Drill {
        name: "protocol-dropped-power-off",
        about: "the announcing node loses power while the switch drops EtherType 0x88b5",
        places: &[Place::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: drop_protocol,
        // Coverers do not hear the successor's claim, and go on until they have overheard its announcement
        // (docs/protocol.md, section 21).
        phases: &[phase(
            "protocol-dropped-power-off",
            Promise { owner: Owner::Moves, traffic: Traffic::Resumes },
            |take| take.strike(|play| play.power_off()),
        )],
    },
    Drill {
        name: "mute",
        about: "nobody hears the announcing node, which hears all; then they hear it again",
        places: &[Place::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[
            phase("mute", Promise::SUCCEEDED, |take| {
                take.strike(|play| play.faults().inject(dropping(play, Direction::Out, Percent::ALL)))
            }),
            phase("mute-no-more", Promise::NOTHING, |take| {
                take.strike(|play| play.faults().heal(&dropping(play, Direction::Out, Percent::ALL)))?;
                take.play.stage.whole()
            }),
        ],
    },
    Drill {
        name: "deaf",
        about: "the announcing node hears nobody, and all hear it; then it hears again",
        places: &[Place::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[
            phase("deaf", Promise::SUCCEEDED, |take| {
                take.strike(|play| play.faults().inject(dropping(play, Direction::In, Percent::ALL)))
            }),
            phase("deaf-no-more", Promise::ONE_IN_THE_END, |take| {
                take.strike(|play| play.faults().heal(&dropping(play, Direction::In, Percent::ALL)))?;
                take.play.stage.whole()
            }),
        ],
    },
    Drill {
        name: "partition",
        about: "the announcing node is cut off from all but the control plane, and joined again",
        places: &[Place::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[
            phase("partition", Promise::SUCCEEDED, |take| take.strike(|play| play.faults().inject(alone(play)))),
            phase("partition-heals", Promise::ONE_IN_THE_END, |take| {
                take.strike(|play| play.faults().heal(&alone(play)))?;
                take.play.stage.whole()
            }),
        ],
    },
    Drill {
        name: "loss",
        about: "30 % of the announcing node's frames are lost, for 5 s (60 s in the benchmark)",
        places: &[Place::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[phase("loss", Promise::ONE_IN_THE_END, |take| {
            let some = Percent::try_from(30)?;
            take.strike(|play| play.faults().inject(dropping(play, Direction::Both, some)))?;
            take.lasts(Duration::from_secs(5), Duration::from_secs(60));
            take.play.faults().heal(&dropping(take.play, Direction::Both, some))
        })],
    },
    Drill {
        name: "carrier-flaps",
        about: "the announcing node's cable is loose: five times out and in within some seconds",
        places: &[Place::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[phase("carrier-flaps", Promise::ONE_IN_THE_END, |take| {
            for _ in 0..5 {
                take.strike(|play| play.faults().inject(Fault::Cut(play.link())))?;
                take.lasts(HALF_A_SECOND / 5, HALF_A_SECOND / 5);
                take.play.faults().heal(&Fault::Cut(take.play.link()))?;
                take.lasts(HALF_A_SECOND, HALF_A_SECOND);
            }
            take.play.stage.whole()
        })],
    },
    Drill {
        name: "port-learns",
        about: "the cable is back, but the switch's port forwards nothing for 3 s (30 s in the benchmark)",
        places: &[Place::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: |play| {
            play.faults().inject(Fault::Cut(play.link()))?;
            play.until_succeeded()
        },
        phases: &[phase("port-learns", Promise::NOTHING, |take| {
            take.strike(|play| {
                play.faults().inject(dropping(play, Direction::Both, Percent::ALL))?;
                play.faults().heal(&Fault::Cut(play.link()))
            })?;
            take.lasts(Duration::from_secs(3), Duration::from_secs(30));
            take.play.faults().heal(&dropping(take.play, Direction::Both, Percent::ALL))?;
            take.play.stage.whole()
        })],
    },
    Drill {
        name: "mac-changes",
        about: "the announcing node's interface gets another link-layer address",
        places: &[Place::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        // The address stays on its node, but its clients see it move.
        phases: &[phase("mac-changes", Promise { owner: Owner::Moves, traffic: Traffic::Resumes }, |take| {
            let Mac([a, b, c, _, e, f]) = take.play.mac(&take.play.victim)?;
            let mac = Mac([a, b, c, 0x77, e, f]);
            take.strike(|play| play.faults().inject(Fault::MacChanged { link: play.link(), mac }))?;
            take.play.until(&format!("{mac} to answer"), |now| {
                now.values().all(|seen| crate::failover::look::itself(seen) == Some(mac))
            })
        })],
    },
];

fn dropping(play: &Play<'_>, direction: Direction, percent: Percent) -> Fault {
    Fault::Dropping { link: play.link(), direction, percent }
}

/// The victim on one side, all others and the clients on the other. The control plane reaches both.
fn alone(play: &Play<'_>) -> Fault {
    let others = play.stage.nodes().iter().filter(|node| **node != play.victim).cloned();
    let clients = [play.stage.talker().to_owned(), play.stage.watcher().to_owned()];
    let groups = vec![[play.victim.clone()].into(), others.chain(clients).collect()];
    Fault::Partition { segment: play.stage.segment, groups }
}

fn protocol_dropped(play: &Play<'_>) -> Fault {
    Fault::EtherTypeDropped { segment: play.stage.segment, ethertype: ETHERTYPE }
}

/// The switch drops Herald's frames; every speaker says that it hears no other.
pub(super) fn drop_protocol(play: &Play<'_>) -> Result<()> {
    // What is said of the drill before would be taken for what is said of this one.
    play.stage.wait("no speaker to report PeersUnheard", || {
        let speakers = play.stage.scene.list_cluster::<SpeakerStatus>()?;
        Ok((!speakers.iter().any(hears_nobody)).then_some(()))
    })?;
    play.faults().inject(protocol_dropped(play))?;
    play.stage.wait("every speaker to report PeersUnheard", || {
        let speakers = play.stage.scene.list_cluster::<SpeakerStatus>()?;
        Ok(speakers.iter().all(hears_nobody).then_some(()))
    })
}

fn hears_nobody(speaker: &SpeakerStatus) -> bool {
    let status = speaker.status.as_ref();
    status.is_some_and(|status| status.warnings.iter().any(|warning| warning.kind == WarningKind::PeersUnheard))
}

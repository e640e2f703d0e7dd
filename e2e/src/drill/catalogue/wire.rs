//! The network fails, partly or completely.

use std::time::Duration;

use anyhow::Result;
use herald_crds::SpeakerStatus;
use herald_crds::speaker_status::WarningKind;
use herald_protocol::wire::ETHERTYPE;

use super::{nothing, phase};
use crate::drill::{Drill, DrillRun, Owner, Promise, Topology, Traffic, Tried};
use herald_lab::fault::{Direction, Fault, Percent};
use herald_lab::probe::Mac;

const HALF_A_SECOND: Duration = Duration::from_millis(500);

pub(super) const DRILLS: &[Drill] = &[
    Drill {
        name: "cable",
        about: "the announcing node's cable is pulled, and plugged back",
        places: &[Topology::Three, Topology::Iptables, Topology::TwoSegments],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[
            phase("cable-pulled", Promise::SUCCEEDED, |active| {
                active.strike(|run| run.faults().inject(Fault::Cut(run.link())))
            })
            .metallb("5.2 s"),
            phase("cable-plugged-back", Promise::NOTHING, |active| {
                active.strike(|run| run.faults().heal(&Fault::Cut(run.link())))?;
                active.run.setup.whole()
            })
            .metallb("two owners for 24 to 28 s; resets"),
        ],
    },
    Drill {
        name: "protocol-dropped",
        about: "the switch drops EtherType 0x88b5 (3 s; 60 s in the benchmark), and passes it again",
        places: &[Topology::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[
            phase("protocol-dropped", Promise::NOTHING, |active| {
                active.strike(drop_protocol)?;
                active.lasts(Duration::from_secs(3), Duration::from_secs(60));
                Ok(())
            })
            .metallb("all 3 nodes answer all addresses for 54 s"),
            phase("protocol-passes-again", Promise::NOTHING, |active| {
                active.strike(|run| run.faults().heal(&protocol_dropped(run)))?;
                active.run.setup.whole()
            })
            .metallb("all 3 nodes answer for 1 to 43 s more"),
        ],
    },
    Drill {
        name: "protocol-dropped-power-off",
        about: "the announcing node loses power while the switch drops EtherType 0x88b5",
        places: &[Topology::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: drop_protocol,
        // Coverers do not receive the successor's claim and continue until they have overheard its announcement
        // (docs/protocol/unheard.md#overheard).
        phases: &[phase(
            "protocol-dropped-power-off",
            Promise { owner: Owner::Moves, traffic: Traffic::Resumes },
            |active| active.strike(|run| run.power_off()),
        )],
    },
    Drill {
        name: "mute",
        about: "no node hears the announcing node, which hears all; then they hear it again",
        places: &[Topology::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[
            phase("mute", Promise::SUCCEEDED, |active| {
                active.strike(|run| run.faults().inject(dropping(run, Direction::Out, Percent::ALL)))
            }),
            phase("mute-no-more", Promise::NOTHING, |active| {
                active.strike(|run| run.faults().heal(&dropping(run, Direction::Out, Percent::ALL)))?;
                active.run.setup.whole()
            }),
        ],
    },
    Drill {
        name: "deaf",
        about: "the announcing node hears no node, and all hear it; then it hears again",
        places: &[Topology::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[
            phase("deaf", Promise::SUCCEEDED, |active| {
                active.strike(|run| run.faults().inject(dropping(run, Direction::In, Percent::ALL)))
            }),
            phase("deaf-no-more", Promise::ONE_IN_THE_END, |active| {
                active.strike(|run| run.faults().heal(&dropping(run, Direction::In, Percent::ALL)))?;
                active.run.setup.whole()
            }),
        ],
    },
    Drill {
        name: "partition",
        about: "the announcing node is cut off from all but the control plane, and joined again",
        places: &[Topology::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[
            phase("partition", Promise::SUCCEEDED, |active| active.strike(|run| run.faults().inject(alone(run)))),
            phase("partition-heals", Promise::ONE_IN_THE_END, |active| {
                active.strike(|run| run.faults().heal(&alone(run)))?;
                active.run.setup.whole()
            }),
        ],
    },
    Drill {
        name: "loss",
        about: "30 % of the announcing node's frames are lost, for 5 s (60 s in the benchmark)",
        places: &[Topology::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[phase("loss", Promise::ONE_IN_THE_END, |active| {
            let some = Percent::try_from(30)?;
            active.strike(|run| run.faults().inject(dropping(run, Direction::Both, some)))?;
            active.lasts(Duration::from_secs(5), Duration::from_secs(60));
            active.run.faults().heal(&dropping(active.run, Direction::Both, some))
        })],
    },
    Drill {
        name: "carrier-flaps",
        about: "the announcing node's cable is loose: five times out and in within some seconds",
        places: &[Topology::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[phase("carrier-flaps", Promise::ONE_IN_THE_END, |active| {
            for _ in 0..5 {
                active.strike(|run| run.faults().inject(Fault::Cut(run.link())))?;
                active.lasts(HALF_A_SECOND / 5, HALF_A_SECOND / 5);
                active.run.faults().heal(&Fault::Cut(active.run.link()))?;
                active.lasts(HALF_A_SECOND, HALF_A_SECOND);
            }
            active.run.setup.whole()
        })],
    },
    Drill {
        name: "port-learns",
        about: "the cable is back, but the switch's port forwards nothing for 3 s (30 s in the benchmark)",
        places: &[Topology::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: |run| {
            run.faults().inject(Fault::Cut(run.link()))?;
            run.until_succeeded()
        },
        phases: &[phase("port-learns", Promise::NOTHING, |active| {
            active.strike(|run| {
                run.faults().inject(dropping(run, Direction::Both, Percent::ALL))?;
                run.faults().heal(&Fault::Cut(run.link()))
            })?;
            active.lasts(Duration::from_secs(3), Duration::from_secs(30));
            active.run.faults().heal(&dropping(active.run, Direction::Both, Percent::ALL))?;
            active.run.setup.whole()
        })],
    },
    Drill {
        name: "mac-changes",
        about: "the announcing node's interface gets another link-layer address",
        places: &[Topology::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        // The address stays on its node, but clients see another MAC.
        phases: &[phase("mac-changes", Promise { owner: Owner::Moves, traffic: Traffic::Resumes }, |active| {
            let Mac([a, b, c, _, e, f]) = active.run.mac(&active.run.victim)?;
            let mac = Mac([a, b, c, 0x77, e, f]);
            active.strike(|run| run.faults().inject(Fault::MacChanged { link: run.link(), mac }))?;
            active.run.until(&format!("{mac} to answer"), |now| {
                now.values().all(|seen| crate::drill::answerers::itself(seen) == Some(mac))
            })
        })],
    },
];

fn dropping(run: &DrillRun<'_>, direction: Direction, percent: Percent) -> Fault {
    Fault::Dropping { link: run.link(), direction, percent }
}

/// Returns a partition with the victim on one side, all other nodes and the clients on the other. The control plane
/// reaches both.
fn alone(run: &DrillRun<'_>) -> Fault {
    let others = run.setup.nodes().iter().filter(|node| **node != run.victim).cloned();
    let clients = [run.setup.talker().to_owned(), run.setup.watcher().to_owned()];
    let groups = vec![[run.victim.clone()].into(), others.chain(clients).collect()];
    Fault::Partition { segment: run.setup.segment, groups }
}

fn protocol_dropped(run: &DrillRun<'_>) -> Fault {
    Fault::EtherTypeDropped { segment: run.setup.segment, ethertype: ETHERTYPE }
}

/// Makes the switch drop Herald's frames and waits until every speaker reports that it hears no other.
pub(super) fn drop_protocol(run: &DrillRun<'_>) -> Result<()> {
    // A report that is left from the previous drill would be mistaken for one of this drill.
    run.setup.wait("no speaker to report PeersUnheard", || {
        let speakers = run.setup.ns.list_cluster::<SpeakerStatus>()?;
        Ok((!speakers.iter().any(hears_nobody)).then_some(()))
    })?;
    run.faults().inject(protocol_dropped(run))?;
    run.setup.wait("every speaker to report PeersUnheard", || {
        let speakers = run.setup.ns.list_cluster::<SpeakerStatus>()?;
        Ok(speakers.iter().all(hears_nobody).then_some(()))
    })
}

fn hears_nobody(speaker: &SpeakerStatus) -> bool {
    let status = speaker.status.as_ref();
    status.is_some_and(|status| status.warnings.iter().any(|warning| warning.kind == WarningKind::PeersUnheard))
}

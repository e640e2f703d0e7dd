//! Planned moves while the network drops the speakers' frames, so that no speaker hears another. These moves go by the
//! API: the old owner stops first, which leaves a gap, and the new owner follows soon after the API shows that the old
//! one may no longer announce.

use anyhow::Result;

use super::endpoints::{WITH_PODS, endpoint_moves, one_endpoint, readiness_seen};
use super::moves::{drain_taint, hung, report};
use super::phase;
use super::wire::drop_protocol;
use crate::drill::{ActivePhase, Bounds, Drill, Owner, Promise, Topology, Traffic, Tried};

/// The address moves within 5 s of the change in the API, and is unanswered for at most 1 s meanwhile. A fitter node
/// that received the owner's claim before the network began to drop frames may claim by itself; then both answer for
/// 100 ms (docs/protocol/unheard.md#remembered-claim).
const BY_THE_API: Bounds = Bounds { moved_ms: 5000.0, unanswered_ms: 1000.0, ..Bounds::CONTEST };

/// The same bounds where no node ever received a claim: break before make, never two owners at once.
const BREAK_BEFORE_MAKE: Bounds = Bounds { two_macs_ms: 0.0, ..BY_THE_API };

const MOVES: Promise = Promise { owner: Owner::Moves, traffic: Traffic::Resumes };

pub(super) const DRILLS: &[Drill] = &[
    Drill {
        name: "unheard-endpoint-moves",
        about: "the only endpoint moves while the switch drops EtherType 0x88b5",
        places: &[Topology::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: |run| {
            one_endpoint(run)?;
            drop_protocol(run)
        },
        phases: &[phase("unheard-endpoint-moves", WITH_PODS, |active| {
            endpoint_moves(active)?;
            readiness_seen(active.run, &active.run.victim, false)?;
            active.mark()
        })
        .local(MOVES)
        .within(BY_THE_API)],
    },
    Drill {
        name: "unheard-drain-taint",
        about: "the announcing node gets the taint heraldlb.io/drain while the switch drops EtherType 0x88b5",
        places: &[Topology::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: drop_protocol,
        phases: &[phase("unheard-drain-taint", MOVES, drain_taint).within(BY_THE_API)],
    },
    Drill {
        name: "unheard-not-ready",
        about: "the announcing node is NotReady while the switch drops EtherType 0x88b5",
        places: &[Topology::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: drop_protocol,
        phases: &[phase("unheard-not-ready", MOVES, not_ready).within(BY_THE_API)],
    },
    Drill {
        name: "unheard-restarted-drain-taint",
        about: "the same with the taint, after every speaker has been replaced by one that never heard another",
        places: &[Topology::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: |run| {
            drop_protocol(run)?;
            run.replace_speakers()?;
            run.setup.calm(&run.addresses())
        },
        phases: &[phase("unheard-restarted-drain-taint", MOVES, drain_taint).within(BREAK_BEFORE_MAKE)],
    },
];

/// The kubelet hangs, and the API shows at once what the node controller would set after 20 s.
fn not_ready(active: &mut ActivePhase<'_>) -> Result<()> {
    active.strike(|run| {
        run.faults().inject(hung(run))?;
        report(run, &run.victim, false)
    })?;
    active.mark()
}

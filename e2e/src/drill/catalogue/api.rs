//! The API server is away while something else fails: the promises hold as if it were there (P6).

use anyhow::Result;
use nix::sys::signal::Signal;

use super::phase;
use super::power::off;
use crate::drill::{Drill, DrillRun, Promise, Topology, Tried};
use herald_lab::fault::{ApiServerFault, Fault};

pub(super) const DRILLS: &[Drill] = &[
    Drill {
        name: "api-server-hung",
        about: "the API server hangs; a speaker is killed; then its node loses power",
        places: &[Topology::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: |run| away(run, ApiServerFault::Hung),
        phases: &[
            phase("api-server-hung-speaker-killed", Promise::NOTHING, |active| {
                active.strike(|run| run.signal_speaker(Signal::SIGKILL))
            })
            .metallb("no answers until the API is back; another node takes over after 17 s"),
            off("api-server-hung-power-off"),
        ],
    },
    Drill {
        name: "api-server-stopped",
        about: "the API server refuses connections; a speaker is restarted; then its node loses power",
        places: &[Topology::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: |run| away(run, ApiServerFault::Stopped),
        phases: &[
            phase("api-server-stopped-speaker-restarted", Promise::NOTHING, |active| {
                active.strike(|run| run.signal_speaker(Signal::SIGTERM))
            })
            .metallb("exits in a loop; another node takes over after 5.3 s"),
            off("api-server-stopped-power-off"),
        ],
    },
];

fn away(run: &DrillRun<'_>, how: ApiServerFault) -> Result<()> {
    run.faults().inject(Fault::ApiServer(how))
}

//! Herald is upgraded from its last release to today's and rolled back: clients do not notice (P1 and P5 of the design).

use anyhow::Result;

use super::phase;
use crate::drill::{Drill, DrillRun, Promise, Topology, Tried};
use crate::testbed::Expose;
use crate::testbed::install::{self, documented};
use crate::testbed::last_release::LastRelease;
use crate::testbed::manifests::Manifest;

pub(super) const DRILLS: &[Drill] = &[Drill {
    name: "upgrade",
    about: "from the last release to today's, part by part; back; and to today's by one command",
    places: &[Topology::Three],
    more_services: 0,
    tried: Tried::Always,
    prepare: |run| {
        let release = LastRelease::build(run.setup.progress())?;
        release.load(run.setup.lab())?;
        run.setup.to_be_undone(&["apply", "-f", &Manifest::CLASS.file().to_string_lossy()]);
        release.apply(run.setup.lab(), run.setup.progress())?;
        run.setup.whole()?;
        run.setup.calm(&run.addresses())
    },
    phases: &[
        phase("upgrade-by-parts", Promise::NOTHING, |active| {
            active.strike(|_| Ok(()))?;
            let commands = documented(include_str!("../../../../docs/install.md"), "### Upgrading and rolling back")?;
            for (number, command) in commands.iter().enumerate() {
                active.run.setup.progress().step(format!("kubectl {}", command.join(" ")));
                install::documented_kubectl(active.run.setup.lab(), command)?;
                // Between the commands, programs of two versions share the cluster, and definitions may be newer.
                serves_a_new_service(active.run, &format!("part{number}"))?;
            }
            install::wait_for_rollout(active.run.setup.lab())
        }),
        phase("roll-back", Promise::NOTHING, |active| {
            active.strike(|_| Ok(()))?;
            LastRelease::build(active.run.setup.progress())?
                .apply(active.run.setup.lab(), active.run.setup.progress())?;
            serves_a_new_service(active.run, "back")
        }),
        phase("upgrade-at-once", Promise::NOTHING, |active| {
            active.strike(|_| Ok(()))?;
            install::apply(active.run.setup.lab(), Manifest::CLASS, active.run.setup.progress())?;
            serves_a_new_service(active.run, "once")
        }),
    ],
}];

/// Creates a Service, which gets an address that a node announces, and that a client reaches. It is deleted after the
/// drill.
fn serves_a_new_service(run: &DrillRun<'_>, name: &str) -> Result<()> {
    let ns = run.setup.ns;
    run.setup.to_be_undone(&["-n", &ns.namespace, "delete", "service", name, "--ignore-not-found", "--timeout=60s"]);
    ns.expose(&Expose::ours(name))?;
    let address = ns.external_ip(name)?;
    ns.announcer(address)?;
    ns.reachable(address).map(drop)
}

//! The nodes' link carries less than the longest frame of the protocol, as below VXLAN over WireGuard or IPsec: lists of
//! claims that do not fit are sent in more frames, and no address is claimed by a node that has not heard them all.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::phase;
use crate::drill::answerers::{look, only};
use crate::drill::{Drill, DrillRun, Promise, Topology, Tried};
use crate::testbed::audit_log::{AuditLog, SPEAKER};
use herald_lab::fault::{Fault, Link};

/// Less than the longest frame of the protocol carries, 1,400 bytes (docs/protocol.md), and enough for IPv6 (1,280, RFC 8200
/// section 5).
const MTU: u16 = 1300;

/// Two speakers that start write their SpeakerStatus, and the others that they have gone and come: with room, no more than
/// ten writes each. What is caught is one write for each address.
const MOST_WRITES: usize = 20;

pub(super) const DRILLS: &[Drill] = &[Drill {
    name: "small-mtu-speakers-replaced",
    about: "the MTU is 1,300, one node has 100 addresses, and the other nodes' speakers are replaced",
    places: &[Topology::Three],
    more_services: 48,
    tried: Tried::Always,
    prepare: |run| {
        // The API server's link as well, as on any network of such hosts: what it sends would not fit the nodes', without a
        // word, and a kubelet whose connection waits for a long answer renews no lease. Its node is NotReady 40 s later, and
        // loses its addresses.
        let control = run.setup.lab().control()?.name().to_owned();
        run.setup.nodes().iter().chain([&control]).try_for_each(|host| {
            let link = Link { host: host.clone(), segment: run.setup.segment };
            run.faults().inject(Fault::MtuChanged { link, mtu: MTU })
        })
    },
    phases: &[phase("small-mtu-speakers-replaced", Promise::NOTHING, |active| {
        let mut log = AuditLog::from_now(&active.run.setup.lab().audit_log())?;
        active.strike(|run| {
            let mut others = run.setup.nodes().iter().filter(|node| **node != run.victim);
            others.try_for_each(|node| run.replace_speaker(node))
        })?;
        // Whoever finds an address vacant claims it within a second of its start, and both then answer for good. All are looked
        // at once: so many questions are a load on a small machine.
        active.lasts(Duration::from_secs(2), Duration::from_secs(20));
        one_owner(active.run)?;
        let mut writes = log.writes().context("the audit log")?;
        writes.retain(|write| write.account == SPEAKER);
        let writes: Vec<_> = writes.iter().map(ToString::to_string).collect();
        ensure!(writes.len() <= MOST_WRITES, "the speakers wrote {} times: {writes:#?}", writes.len());
        Ok(())
    })],
}];

/// Checks that nobody but the victim answers for its addresses, and that it does for each. (That none of so many questions
/// about one is answered within a moment says that the machine is busy.)
fn one_owner(run: &DrillRun<'_>) -> Result<()> {
    let mac = run.mac(&run.victim)?;
    run.setup.wait("an answer for each of the many addresses", || {
        let seen = look(run.setup.lab(), run.setup.watcher(), &run.bystanders)?;
        let (unanswered, answered): (Vec<_>, Vec<_>) = seen.iter().partition(|(_, macs)| macs.is_empty());
        let wrong: Vec<_> = answered.into_iter().filter(|(_, macs)| only(macs) != Some(mac)).collect();
        let (count, all) = (wrong.len(), seen.len());
        ensure!(wrong.is_empty(), "{count} of {all} addresses are not answered by {mac} alone: {wrong:?}");
        Ok(unanswered.is_empty().then_some(()))
    })
}

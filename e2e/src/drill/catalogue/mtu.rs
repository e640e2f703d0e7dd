//! The nodes' link has a smaller MTU than the longest frame of the protocol, as below VXLAN over WireGuard or IPsec.
//! Claim lists that do not fit are sent in more frames, and no node claims an address before it has received the whole
//! list.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::phase;
use crate::drill::answerers::{look, only};
use crate::drill::{Drill, DrillRun, Promise, Topology, Tried};
use crate::testbed::audit_log::{AuditLog, SPEAKER};
use herald_lab::fault::{Fault, Link};

/// An MTU below the longest frame of the protocol, 1,400 bytes (docs/protocol/frames.md#transport), and above the
/// minimum of IPv6 (1,280, RFC 8200 section 5).
const MTU: u16 = 1300;

/// Two speakers that start write their SpeakerStatus, and the other speakers write that these left and returned: with a
/// margin, ten writes each at most. The bound detects one write per address.
const MOST_WRITES: usize = 20;

pub(super) const DRILLS: &[Drill] = &[Drill {
    name: "small-mtu-speakers-replaced",
    about: "the MTU is 1,300, one node has 100 addresses, and the other nodes' speakers are replaced",
    places: &[Topology::Three],
    more_services: 48,
    tried: Tried::Always,
    prepare: |run| {
        // The API server's link gets the MTU too, as on any network of such hosts: its longer frames would be dropped
        // silently at the nodes, and a kubelet whose connection waits for a long answer renews no lease. Its node would
        // be NotReady after 40 s and lose its addresses.
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
        // A speaker that finds an address vacant claims it within a second of its start, and then both nodes answer
        // permanently. One look at all addresses is enough: so many solicitations load a small machine.
        active.lasts(Duration::from_secs(2), Duration::from_secs(20));
        one_owner(active.run)?;
        let mut writes = log.writes().context("the audit log")?;
        writes.retain(|write| write.account == SPEAKER);
        let writes: Vec<_> = writes.iter().map(ToString::to_string).collect();
        ensure!(writes.len() <= MOST_WRITES, "the speakers wrote {} times: {writes:#?}", writes.len());
        Ok(())
    })],
}];

/// Checks that the victim, and no other node, answers for each of its addresses. An address without any answer means
/// that the machine is busy, so the check is repeated.
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

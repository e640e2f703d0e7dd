//! The laboratory's own promise for the faults of the wire, of a container and of the API server: each has its
//! documented effect, and healing undoes it. Herald's reactions are checked on the way: a node that is cut off from the
//! segment is succeeded, one that is cut off from a client only is not; a frozen speaker is covered, a killed one keeps
//! its address; a hanging API server silences no address.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use super::unnoticed::Unnoticed;
use crate::testbed::{TestNamespace, install};
use herald_lab::fault::{ApiServerFault, Direction, Fault, Faults, Link, Percent, PodChoice, PodFound};

/// EtherType of ARP (RFC 826).
const ARP: u16 = 0x0806;

pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    let faults = Faults::of(ns.bed.lab());
    let result = try_each(ns, &faults);
    // The faults are healed regardless of the result, for the next scenario.
    let healed = faults.heal_all();
    result?;
    let left = healed?;
    ensure!(left.is_empty(), "every fault was healed by its own inverse, but these were left: {left:?}");
    Ok(())
}

fn try_each(ns: &TestNamespace<'_>, faults: &Faults<'_>) -> Result<()> {
    let (address, _) = ns.announced_service(3)?;
    let client = ns.client()?.name().to_owned();

    // Only the client is cut off from the owner: no other node has a reason to answer.
    let between: [fn(Link, &str) -> Fault; 2] = [
        |link, _| Fault::EtherTypeDropped { segment: link.segment, ethertype: ARP },
        |link, client| Fault::Partition {
            segment: link.segment,
            groups: vec![BTreeSet::from([client.to_owned()]), BTreeSet::from([link.host])],
        },
    ];
    for fault in between {
        let node = ns.announcer(address)?;
        ns.answered_by(address, &node)?;
        let fault = fault(Link { host: node.clone(), segment: 0 }, &client);
        faults.inject(fault.clone())?;
        ns.eventually(&format!("silence while {fault}"), || Ok(ns.who_has(address)?.is_empty().then_some(())))?;
        faults.heal(&fault)?;
        ns.answered_by(address, &node)?;
        ensure!(ns.announcer(address)? == node, "{fault} moves nothing");
    }

    // The owner is cut off from all hosts, in one direction or both: another node takes over.
    let cut_off: [fn(Link) -> Fault; 3] = [
        |link| Fault::Dropping { link, direction: Direction::In, percent: Percent::ALL },
        |link| Fault::Dropping { link, direction: Direction::Out, percent: Percent::ALL },
        Fault::Cut,
    ];
    for fault in cut_off {
        let node = ns.announcer(address)?;
        ns.answered_by(address, &node)?;
        let fault = fault(Link { host: node.clone(), segment: 0 });
        faults.inject(fault.clone())?;
        let successor = ns.successor(address, &node).with_context(|| format!("while {fault}"))?;
        ns.answered_by(address, &successor)?;
        faults.heal(&fault)?;
        ns.answered_by(address, &successor)?;
    }

    let node = ns.announcer(address)?;
    let speaker = speaker_on(faults, &node)?;
    faults.freeze(&speaker)?;
    ns.answered_by(address, &node)?;
    faults.thaw(&speaker)?;
    ns.answered_by(address, &node)?;

    let before = restarts(ns, &speaker)?;
    faults.signal(&speaker, Signal::SIGKILL)?;
    ns.bed.wait_for("the kubelet to start the killed container again", install::ROLLOUT, || {
        Ok((restarts(ns, &speaker)? > before).then_some(()))
    })?;
    ns.answered_by(address, &node)?;
    ensure!(ns.announcer(address)? == node, "a killed speaker's address stays where it is");

    let unnoticed = Unnoticed::from_here(ns, [(address, node)].into())?;
    let hung = Fault::ApiServer(ApiServerFault::Hung);
    faults.inject(hung.clone())?;
    let unanswered = ns.kubectl(&["get", "--raw", "/version", "--request-timeout=1s"]);
    let watched = unnoticed.until_here(ns);
    faults.heal(&hung)?;
    ensure!(unanswered.is_err(), "the API server answered although it hung: {unanswered:?}");
    watched.context("while the API server hung")?;
    ns.reachable(address)?;
    Ok(())
}

/// Returns how often the pod's container was restarted.
fn restarts(ns: &TestNamespace<'_>, pod: &PodFound) -> Result<i32> {
    let path = "-o=jsonpath={.status.containerStatuses[0].restartCount}";
    Ok(ns.kubectl(&["get", "pod", "-n", &pod.namespace, &pod.name, path])?.parse()?)
}

fn speaker_on(faults: &Faults<'_>, node: &str) -> Result<PodFound> {
    let choice = PodChoice {
        namespace: install::NAMESPACE.to_owned(),
        pod: None,
        selector: Some("app.kubernetes.io/component=speaker".to_owned()),
        node: Some(node.to_owned()),
        container: None,
    };
    faults.pods(&choice)?.into_iter().next().with_context(|| format!("a speaker on {node}"))
}

//! Several addresses of one family for a Service: they are on different nodes, and each of them answers. A smaller
//! count releases the last addresses.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use herald_crds::names;

use crate::testbed::{Expose, TestNamespace};

pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    ns.known_pool(&ns.namespace, &[ns.range(1, 3)])?;
    ns.deploy_echo(1)?;
    asks_for(ns, 3)?;
    let address = |last| ns.address(last);
    let all = [address(1), address(2), address(3)];
    ns.eventually("three addresses", || Ok((ns.ingress("web")? == all).then_some(())))?;
    let mut nodes = BTreeSet::new();
    for address in all {
        let node = ns.announcer(address)?;
        ns.answered_by(address, &node)?;
        ns.reachable(address)?;
        nodes.extend(ns.virtual_ip(address)?.and_then(|vip| vip.spec.home_node));
    }
    ensure!(nodes.len() == all.len(), "their homes are on different nodes: {nodes:?}");

    // The pool has no fourth address: the existing ones stay, and the condition gives both numbers.
    asks_for(ns, 4)?;
    let short = ns.eventually("the Service to report that one is missing", || {
        Ok(ns.assigned("web")?.filter(|c| c.status == "False" && c.message.contains("3 of the 4")))
    })?;
    ensure!(ns.ingress("web")? == all, "{}: the present addresses stay", short.message);

    asks_for(ns, 1)?;
    ns.eventually("one address", || Ok((ns.ingress("web")? == [address(1)]).then_some(())))?;
    for released in [address(2), address(3)] {
        // An address is released once the Service no longer shows it.
        ns.eventually("a released address to be free", || Ok(ns.virtual_ip(released)?.is_none().then_some(())))?;
        ns.silent(released)?;
    }
    ns.reachable(address(1)).map(drop)
}

fn asks_for(ns: &TestNamespace<'_>, count: u8) -> Result<()> {
    let annotations = format!("{{{}: {:?}}}", names::ANNOTATION_COUNT, count.to_string());
    ns.expose(&Expose { annotations: &annotations, ..Expose::ours("web") })
}

//! Every connection of the leading controller to the API server dies silently, as when a firewall forgets it or a
//! server behind a balancer loses power: new connections pass, and no packet reports the loss of the old ones. The
//! leader detects it, and a Service that was created meanwhile gets its address.

use std::io::Write;
use std::net::IpAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::testbed::controllers;
use crate::testbed::{Expose, TestNamespace};
use herald_lab::cluster::{Host, netns};

/// Name of the nftables table that drops the packets.
const TABLE: &str = "dead_connections";

/// A dead connection is detected 20 to 25 s after its last packet (kube-common/src/client.rs); the watch restarts after
/// a second or two. The rest is a margin for a busy machine; without keepalive the detection takes five minutes.
const FOUND_WITHIN: Duration = Duration::from_secs(40);

pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    ns.pool(&ns.namespace, &[ns.range(1, 9)])?;
    let replicas = controllers::all(ns)?;
    let leader = &replicas[controllers::leader(ns, &replicas)?];
    let node = ns.bed.lab().host(&leader.pod.node)?;
    // The table is removed regardless of the result, for the next scenario.
    let result = silence(&node, leader.address()).and_then(|()| is_found(ns, &node));
    netns::run(node.net_command("nft").args(["delete", "table", "inet", TABLE]))?;
    result
}

/// Drops all packets of the pod's existing connections from now on, in both directions.
fn silence(node: &Host, pod: IpAddr) -> Result<()> {
    let rules = format!(
        "table inet {TABLE} {{
          chain forward {{
            type filter hook forward priority -10;
            ip saddr {pod} tcp flags & (syn | ack) == syn ct mark set 1 accept
            ip saddr {pod} ct mark != 1 counter drop
            ip daddr {pod} ct mark != 1 counter drop
          }}
        }}\n"
    );
    let mut nft = node.net_command("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().context("starting nft")?;
    nft.stdin.take().context("nft's input")?.write_all(rules.as_bytes())?;
    let status = nft.wait()?;
    ensure!(status.success(), "nft: {status}\n{rules}");
    Ok(())
}

fn is_found(ns: &TestNamespace<'_>, node: &Host) -> Result<()> {
    ns.expose(&Expose::ours("web"))?;
    ns.bed.wait_for("an EXTERNAL-IP though the leader's connections are dead", FOUND_WITHIN, || {
        Ok(ns.ingress("web")?.first().copied())
    })?;
    let rules = netns::output_of(node.net_command("nft").args(["list", "table", "inet", TABLE]))?;
    ensure!(!rules.contains("counter packets 0 bytes 0 drop\n\t\tip daddr"), "nothing was dropped:\n{rules}");
    Ok(())
}

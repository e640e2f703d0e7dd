//! Another program empties a Service's status after every write, as MetalLB without a pool does (its issue 2887):
//! Herald writes less and less often, reports it once, and the address is shown again after the other program stops.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::testbed::audit_log::{AuditLog, CONTROLLER};
use crate::testbed::{Expose, TestNamespace};

/// Time for which the other program continues.
const CONTEST: Duration = Duration::from_secs(20);
/// A burst of five writes, then pauses of 0.5, 1, 2, 4 and 8 s (kube-common/src/pacing.rs): ten writes in 20 s. One
/// more if a write crossed with one of the other program.
const MOST_WRITES: usize = 11;
/// The longest pause, plus the time of a write on a busy machine.
const MENDED_WITHIN: Duration = Duration::from_secs(40);

pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    // The controller must know the pool first: the test expects a single Warning, and not one about a missing pool.
    ns.known_pool(&ns.namespace, &[ns.range(1, 9)])?;
    ns.expose(&Expose::ours("web"))?;
    let address = ns.external_ip("web")?;
    let mut log = AuditLog::from_now(&ns.bed.lab().audit_log())?;
    let begun = Instant::now();
    while begun.elapsed() < CONTEST {
        if !ns.ingress("web")?.is_empty() {
            let nothing = r#"{"status":{"loadBalancer":{"ingress":null}}}"#;
            ns.kubectl_here(&["patch", "service", "web", "--subresource=status", "--type=merge", "-p", nothing])?;
        }
    }
    let written = log
        .read()?
        .into_iter()
        .filter(|request| request.account == CONTROLLER && request.is_write() && request.resource == "services/status");
    let writes = written.filter(|request| request.name == "web" && request.namespace == ns.namespace).count();
    ensure!(writes <= MOST_WRITES, "{writes} writes of the status in {CONTEST:?}");
    ns.eventually("a Warning that another program writes the status", || {
        Ok(ns.events("web")?.into_iter().find(|(_, reason, _)| reason == "StatusOverwritten"))
    })?;
    ns.bed.wait_for("the address to be there again", MENDED_WITHIN, || {
        Ok((ns.ingress("web")? == [address]).then_some(()))
    })?;
    let warnings = ns.events("web")?.into_iter().filter(|(kind, ..)| kind == "Warning").count();
    ensure!(warnings == 1, "{:?}", ns.events("web")?);
    Ok(())
}

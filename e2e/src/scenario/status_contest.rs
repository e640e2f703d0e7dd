//! Another program empties a Service's status as often as it is written, as MetalLB without a pool does (its issue 2887):
//! Herald writes less and less often, says so once, and when the other stops the address is there again.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{Expose, Scene};
use crate::audit_log::{AuditLog, CONTROLLER};

/// How long the other program goes on.
const CONTEST: Duration = Duration::from_secs(20);
/// A burst of five, then pauses of 0.5, 1, 2, 4 and 8 s (kube-common/src/pacing.rs): ten writes in 20 s. One more if a
/// write crossed with one of the other program's.
const MOST_WRITES: usize = 11;
/// The longest pause, and what a write takes on a busy machine.
const MENDED_WITHIN: Duration = Duration::from_secs(40);

pub(super) fn run(scene: &Scene<'_>) -> Result<()> {
    // Known: one Warning is to be told, and none that there is no pool.
    scene.known_pool(&scene.namespace, &[scene.range(1, 9)])?;
    scene.expose(&Expose::ours("web"))?;
    let address = scene.external_ip("web")?;
    let mut log = AuditLog::from_now(&scene.bed.lab().audit_log())?;
    let begun = Instant::now();
    while begun.elapsed() < CONTEST {
        if !scene.ingress("web")?.is_empty() {
            let nothing = r#"{"status":{"loadBalancer":{"ingress":null}}}"#;
            scene.kubectl_here(&["patch", "service", "web", "--subresource=status", "--type=merge", "-p", nothing])?;
        }
    }
    let written = log
        .read()?
        .into_iter()
        .filter(|request| request.account == CONTROLLER && request.is_write() && request.resource == "services/status");
    let writes = written.filter(|request| request.name == "web" && request.namespace == scene.namespace).count();
    ensure!(writes <= MOST_WRITES, "{writes} writes of the status in {CONTEST:?}");
    scene.eventually("a Warning that another program writes the status", || {
        Ok(scene.events("web")?.into_iter().find(|(_, reason, _)| reason == "StatusOverwritten"))
    })?;
    scene.bed.wait_for("the address to be there again", MENDED_WITHIN, || {
        Ok((scene.ingress("web")? == [address]).then_some(()))
    })?;
    let warnings = scene.events("web")?.into_iter().filter(|(kind, ..)| kind == "Warning").count();
    ensure!(warnings == 1, "{:?}", scene.events("web")?);
    Ok(())
}

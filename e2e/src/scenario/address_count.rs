//! Several addresses of one family for a Service: on different nodes, each of them answers; a smaller number releases the last.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use herald_crds::names;

use super::{Expose, Scene};

pub(super) fn run(scene: &Scene<'_>) -> Result<()> {
    scene.known_pool(&scene.namespace, &[scene.range(1, 3)])?;
    scene.deploy_echo(1)?;
    asks_for(scene, 3)?;
    let address = |last| scene.address(last);
    let all = [address(1), address(2), address(3)];
    scene.eventually("three addresses", || Ok((scene.ingress("web")? == all).then_some(())))?;
    let mut nodes = BTreeSet::new();
    for address in all {
        let node = scene.announcer(address)?;
        scene.answered_by(address, &node)?;
        scene.reachable(address)?;
        nodes.extend(scene.virtual_ip(address)?.and_then(|vip| vip.spec.home_node));
    }
    ensure!(nodes.len() == all.len(), "their homes are on different nodes: {nodes:?}");

    // There is no fourth: those there are stay, and the sentence says how many of how many.
    asks_for(scene, 4)?;
    let short = scene.eventually("the Service to say that one is missing", || {
        Ok(scene.assigned("web")?.filter(|c| c.status == "False" && c.message.contains("3 of the 4")))
    })?;
    ensure!(scene.ingress("web")? == all, "{}: those there are stay", short.message);

    asks_for(scene, 1)?;
    scene.eventually("one address", || Ok((scene.ingress("web")? == [address(1)]).then_some(())))?;
    for released in [address(2), address(3)] {
        // It is given up once the Service shows it no more.
        scene
            .eventually("a released address to be free", || Ok(scene.virtual_ip(released)?.is_none().then_some(())))?;
        scene.silent(released)?;
    }
    scene.reachable(address(1)).map(drop)
}

fn asks_for(scene: &Scene<'_>, count: u8) -> Result<()> {
    let annotations = format!("{{{}: {:?}}}", names::ANNOTATION_COUNT, count.to_string());
    scene.expose(&Expose { annotations: &annotations, ..Expose::ours("web") })
}

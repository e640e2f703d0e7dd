//! The leading controller is killed, paused past its lease and cut off from the API server, each time in the middle of a
//! burst of Services: every Service gets one address, no address goes to two, none changes, whatever the old leader
//! still writes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use herald_crds::names;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::PostParams;
use nix::sys::signal::Signal;
use tokio::task::JoinHandle;

use super::Scene;
use crate::controllers::{self, Controller};
use crate::fault::{Fault, Faults};
use crate::stamps::{Ingress, watch_ingress};

/// Services of a burst.
const BURST: u8 = 40;
/// With so many addresses given out the leader fails: the burst is under way, and most of it is still to come.
const FAILS_AFTER: usize = 5;
/// A lease of 15 s that is looked at every 2 s has to expire first.
const WITHIN: Duration = Duration::from_secs(60);

pub(super) fn run(scene: &Scene<'_>) -> Result<()> {
    scene.pool("leader", &[scene.range(1, 240)])?;
    let faults = Faults::of(scene.bed.lab());
    let mut given = Given { created: 0, seen: BTreeMap::new(), events: watch_ingress(scene)? };
    let result = try_each(scene, &faults, &mut given);
    // Whatever was found, the next scenario gets a whole cluster.
    let healed = faults.heal_all();
    result?;
    healed?;
    Ok(())
}

fn try_each(scene: &Scene<'_>, faults: &Faults<'_>, given: &mut Given) -> Result<()> {
    given.burst(scene, "killed", |leader| faults.signal(&leader.pod, Signal::SIGKILL))?;

    let paused = given.burst(scene, "paused", |leader| faults.freeze(&leader.pod))?;
    faults.thaw(&paused.pod)?;
    resumed(scene, given, &paused)?;

    let control = scene.bed.lab().control()?.name().to_owned();
    let mut partition = None;
    let cut = given.burst(scene, "cut", |leader| {
        let groups = vec![[control.clone()].into(), [leader.pod.node.clone()].into()];
        let fault = partition.insert(Fault::Partition { segment: 0, groups });
        faults.inject(fault.clone())
    })?;
    faults.heal(&partition.context("a partition")?)?;
    resumed(scene, given, &cut)?;

    let virtual_ips = scene.virtual_ips()?.len();
    ensure!(virtual_ips == given.seen.len(), "{virtual_ips} VirtualIPs for {} Services", given.seen.len());
    Ok(())
}

/// The old leader is back, whether or not it still thought that it leads: it follows, and new Services fare no worse.
fn resumed(scene: &Scene<'_>, given: &mut Given, old: &Controller) -> Result<()> {
    scene.bed.wait_for(&format!("{} to follow", old.pod), WITHIN, || {
        Ok((old.leads() == Some(false) && old.is_ready()).then_some(()))
    })?;
    let created = given.create(scene, &format!("after-{}", given.seen.len()))?;
    given.all(scene, created)
}

/// What addresses Services were ever seen with.
struct Given {
    /// Services there are, or will be in a moment.
    created: usize,
    seen: BTreeMap<String, IpAddr>,
    events: Receiver<Ingress>,
}

impl Given {
    /// Creates Services; with a few addresses given out the leader fails; waits until another leads, if it has to be
    /// another, and every Service has its address. Returns who led.
    fn burst(
        &mut self,
        scene: &Scene<'_>,
        name: &str,
        fail: impl FnOnce(&Controller) -> Result<()>,
    ) -> Result<Controller> {
        let mut controllers = controllers::all(scene)?;
        let leader = controllers.swap_remove(controllers::leader(scene, &controllers)?);
        scene.bed.progress.step(format!("{BURST} Services, and {} is {name}", leader.pod));
        let before = self.seen.len();
        let created = self.create(scene, name)?;
        scene.bed.wait_for("the first addresses of the burst", WITHIN, || {
            self.take_in()?;
            Ok((self.seen.len() >= before + FAILS_AFTER).then_some(()))
        })?;
        fail(&leader)?;
        self.all(scene, created)?;
        Ok(leader)
    }

    /// Begins to create Services, one after the other: they go on being created while the leader fails.
    fn create(&mut self, scene: &Scene<'_>, name: &str) -> Result<JoinHandle<Result<()>>> {
        let services: Api<Service> = Api::namespaced(scene.bed.kube(), &scene.namespace);
        let objects: Vec<Service> = (1..=BURST).map(|n| service(&format!("{name}-{n}"))).collect::<Result<_>>()?;
        self.created += objects.len();
        Ok(scene.bed.handle().spawn(async move {
            for object in objects {
                services.create(&PostParams::default(), &object).await?;
            }
            Ok(())
        }))
    }

    /// Waits until all are created, and each has an address.
    fn all(&mut self, scene: &Scene<'_>, created: JoinHandle<Result<()>>) -> Result<()> {
        scene.bed.block_on(async { created.await? }).context("creating Services")?;
        scene.bed.wait_for("an address for every Service", WITHIN, || {
            self.take_in()?;
            Ok((self.created == self.seen.len()).then_some(()))
        })
    }

    /// Takes in what has happened: no Service has ever had two addresses, no address two Services.
    fn take_in(&mut self) -> Result<()> {
        for Ingress { service, address, .. } in self.events.try_iter() {
            if let Some(before) = self.seen.get(&service) {
                ensure!(*before == address, "{service} had {before}, and now has {address}");
                continue;
            }
            let other = self.seen.iter().find(|(_, theirs)| **theirs == address);
            ensure!(other.is_none(), "{address} is given to {service}, and {other:?} has it");
            self.seen.insert(service, address);
        }
        Ok(())
    }
}

fn service(name: &str) -> Result<Service> {
    Ok(serde_json::from_value(serde_json::json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"type": "LoadBalancer", "loadBalancerClass": names::CLASS, "allocateLoadBalancerNodePorts": false,
                 "selector": {"app": "echo"}, "ports": [{"port": 80}]},
    }))?)
}

//! The leading controller is killed, paused past its lease and cut off from the API server, and the API server
//! restarts, each time in the middle of a burst of Services. Every Service gets one address, no address is assigned to
//! two Services, and none changes, whatever the old leader still writes.

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

use crate::bench::stamps::{Ingress, watch_ingress};
use crate::testbed::TestNamespace;
use crate::testbed::controllers::{self, Controller};
use herald_lab::fault::{ApiServerFault, Fault, Faults};

/// Services of a burst.
const BURST: u8 = 40;
/// Number of assigned addresses at which the leader fails: the burst is under way, and most of it is still to come.
const FAILS_AFTER: usize = 5;
/// A lease of 15 s, checked every 2 s, has to expire first.
const WITHIN: Duration = Duration::from_secs(60);
/// Pause before a Service that the API server could not accept is created again.
const ONCE_MORE: Duration = Duration::from_millis(100);

pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    ns.pool("leader", &[ns.range(1, 240)])?;
    let faults = Faults::of(ns.bed.lab());
    let mut given = Given { created: 0, seen: BTreeMap::new(), events: watch_ingress(ns)? };
    let result = try_each(ns, &faults, &mut given);
    // The faults are healed regardless of the result, for the next scenario.
    let healed = faults.heal_all();
    result?;
    healed?;
    // A node that was cut off for 20 s is NotReady, and its addresses move.
    ns.every_node_ready(WITHIN)
}

fn try_each(ns: &TestNamespace<'_>, faults: &Faults<'_>, given: &mut Given) -> Result<()> {
    given.burst(ns, "is killed", |leader| faults.signal(&leader.pod, Signal::SIGKILL))?;

    let paused = given.burst(ns, "is paused", |leader| faults.freeze(&leader.pod))?;
    faults.thaw(&paused.pod)?;
    resumed(ns, given, &paused)?;

    let control = ns.bed.lab().control()?.name().to_owned();
    let mut partition = None;
    let cut = given.burst(ns, "is cut off", |leader| {
        let groups = vec![[control.clone()].into(), [leader.pod.node.clone()].into()];
        let fault = partition.insert(Fault::Partition { segment: 0, groups });
        faults.inject(fault.clone())
    })?;
    faults.heal(&partition.context("a partition")?)?;
    resumed(ns, given, &cut)?;

    given.burst(ns, "loses its API server", |_| {
        let fault = Fault::ApiServer(ApiServerFault::Stopped);
        faults.inject(fault.clone())?;
        faults.heal(&fault)
    })?;

    let virtual_ips = ns.virtual_ips()?.len();
    ensure!(virtual_ips == given.seen.len(), "{virtual_ips} VirtualIPs for {} Services", given.seen.len());
    Ok(())
}

/// Waits until the old leader follows, whether or not it still considered itself the leader, and checks that new
/// Services get their addresses.
fn resumed(ns: &TestNamespace<'_>, given: &mut Given, old: &Controller) -> Result<()> {
    ns.bed.wait_for(&format!("{} to follow", old.pod), WITHIN, || {
        Ok((old.leads() == Some(false) && old.is_ready()).then_some(()))
    })?;
    let created = given.create(ns)?;
    given.all(ns, created)
}

/// Creates a Service, also if the API server goes away meanwhile.
async fn create(services: &Api<Service>, object: &Service) -> Result<()> {
    loop {
        match services.create(&PostParams::default(), object).await {
            Ok(_) => return Ok(()),
            // The request was accepted and its answer was lost.
            Err(kube::Error::Api(status)) if status.is_already_exists() => return Ok(()),
            // The error is neither a server error nor "too many requests".
            Err(kube::Error::Api(status)) if status.code < 500 && status.code != 429 => {
                return Err(kube::Error::Api(status).into());
            }
            Err(_) => tokio::time::sleep(ONCE_MORE).await,
        }
    }
}

/// The addresses that Services were ever seen with.
struct Given {
    /// Number of Services that exist or will exist in a moment.
    created: usize,
    seen: BTreeMap<String, IpAddr>,
    events: Receiver<Ingress>,
}

impl Given {
    /// Creates Services and makes the leader fail when a few addresses are assigned. Waits until another controller
    /// leads, if the failure requires it, and every Service has its address. Returns the former leader.
    fn burst(
        &mut self,
        ns: &TestNamespace<'_>,
        fate: &str,
        fail: impl FnOnce(&Controller) -> Result<()>,
    ) -> Result<Controller> {
        let mut controllers = controllers::all(ns)?;
        let leader = controllers.swap_remove(controllers::leader(ns, &controllers)?);
        ns.bed.progress.step(format!("{BURST} Services, and {} {fate}", leader.pod));
        let before = self.seen.len();
        let created = self.create(ns)?;
        ns.bed.wait_for("the first addresses of the burst", WITHIN, || {
            self.take_in()?;
            Ok((self.seen.len() >= before + FAILS_AFTER).then_some(()))
        })?;
        fail(&leader)?;
        self.all(ns, created)?;
        Ok(leader)
    }

    /// Starts to create Services one after the other; the creation continues while the leader fails.
    fn create(&mut self, ns: &TestNamespace<'_>) -> Result<JoinHandle<Result<()>>> {
        let services: Api<Service> = Api::namespaced(ns.bed.kube(), &ns.namespace);
        let numbers = self.created + 1..=self.created + usize::from(BURST);
        let objects: Vec<Service> = numbers.map(|n| service(&format!("web-{n}"))).collect::<Result<_>>()?;
        self.created += objects.len();
        Ok(ns.bed.handle().spawn(async move {
            for object in objects {
                tokio::time::timeout(WITHIN, create(&services, &object)).await??;
            }
            Ok(())
        }))
    }

    /// Waits until all Services are created and each has an address.
    fn all(&mut self, ns: &TestNamespace<'_>, created: JoinHandle<Result<()>>) -> Result<()> {
        ns.bed.block_on(async { created.await? }).context("creating Services")?;
        ns.bed.wait_for("an address for every Service", WITHIN, || {
            self.take_in()?;
            Ok((self.created == self.seen.len()).then_some(()))
        })
    }

    /// Processes the events and checks that no Service has ever had two addresses, and no address two Services.
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

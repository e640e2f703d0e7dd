//! The environment of drills: an endpoint on each node, two Services in front of them, two clients, and the restoration
//! of the cluster after a drill.

use std::any::Any;
use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;

use super::answerers::{itself, look};
use super::{Policy, address_ranges, speaker_state, workload};
use crate::testbed::{TestNamespace, install};
use herald_lab::cluster::{Host, Lab};
use herald_lab::fault::{Faults, PodChoice, PodFound};
use herald_lab::probe::{Probe, ProbeSpec, Probers};
use herald_lab::progress::Progress;

/// A booting node is Ready within 10 s; the rest is a margin for a busy machine.
const WHOLE_WITHIN: Duration = Duration::from_secs(120);

/// Length of a traffic sample without a failed connection: 20 connections to each address.
const CALM: Duration = Duration::from_millis(400);

/// An owner repeats the announcement of a new address for 3 s (docs/protocol/announcements.md#rounds).
const ROUNDS: Duration = Duration::from_millis(3200);

/// Timeout of one request to a pod, from its own node, on a busy machine.
const REQUEST: Duration = Duration::from_secs(5);

/// Label selector of the speakers' pods.
const SPEAKERS: &str = "app.kubernetes.io/component=speaker";

/// The length of faults that have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultLength {
    /// Long enough for every timer of the protocol that matters for the fault: for scenarios.
    Short,
    /// The length that the benchmark reports.
    Full,
}

/// A test namespace with everything that drills need.
pub struct Setup<'a> {
    pub(super) ns: &'a TestNamespace<'a>,
    pub(super) segment: u8,
    pub(super) pace: FaultLength,
    nodes: Vec<String>,
    talker: Host,
    watcher: Host,
    /// Arguments of kubectl that undo the changes of drills to the cluster.
    undo: RefCell<Vec<Vec<String>>>,
    /// Values that must live until the drill is over.
    held: RefCell<Vec<Box<dyn Any>>>,
    placed: RefCell<Option<Placed>>,
}

/// The Services as they were created last.
#[derive(Clone)]
struct Placed {
    node: String,
    /// Services besides the two that are probed.
    more: u16,
    at: Instant,
}

impl<'a> Setup<'a> {
    /// Prepares the namespace: a pool for this number of dual-stack Services on a segment, and an endpoint on each
    /// node.
    ///
    /// # Errors
    /// When the laboratory has fewer than two clients, or a part does not become ready.
    pub fn set(ns: &'a TestNamespace<'a>, segment: u8, services: u16, pace: FaultLength) -> Result<Self> {
        let lab = ns.bed.lab();
        let [talker, watcher, ..] = <[Host; 2]>::try_from(lab.clients()?.into_iter().take(2).collect::<Vec<_>>())
            .ok()
            .context("two clients: one talks, one watches")?;
        let nodes: Vec<String> = lab.nodes()?.iter().map(|node| node.name().to_owned()).collect();
        ns.pool(&ns.namespace, &address_ranges::ranges(segment, ns.block(), services))?;
        for node in &nodes {
            ns.apply(&workload::endpoint(node, &nodes).to_string())?;
        }
        let (undo, held, placed) = (RefCell::default(), RefCell::default(), RefCell::default());
        let setup = Self { ns, segment, pace, nodes, talker, watcher, undo, held, placed };
        setup.whole()?;
        Ok(setup)
    }

    /// Returns the nodes' names.
    #[must_use]
    pub fn nodes(&self) -> &[String] {
        &self.nodes
    }

    /// Returns the laboratory.
    #[must_use]
    pub fn lab(&self) -> &'a Lab {
        self.ns.bed.lab()
    }

    /// Returns the progress output of the laboratory.
    #[must_use]
    pub fn progress(&self) -> &'a Progress {
        &self.ns.bed.progress
    }

    pub(super) fn faults(&self) -> Faults<'a> {
        Faults::of(self.lab())
    }

    /// Returns the client whose traffic is measured. It does nothing else, so that nothing refreshes its caches.
    pub(super) fn talker(&self) -> &str {
        self.talker.name()
    }

    /// Returns the client that solicits the addresses, and from which drills act as a host on the wire.
    pub(super) fn watcher(&self) -> &str {
        self.watcher.name()
    }

    /// Ensures that one node has all the addresses and returns it. If the last drill left them all in place, they stay.
    pub(super) fn gather(&self, more: u16) -> Result<String> {
        let placed = self.placed.borrow().clone();
        if let Some(placed) = placed
            && placed.more == more
            && self.all_answered_by(&placed.node)?
        {
            return Ok(placed.node);
        }
        let node = self.nodes.first().context("a node")?;
        self.placed.replace(None);
        self.place(node, more)?;
        self.wait(&format!("{node} to answer for all addresses"), || Ok(self.all_answered_by(node)?.then_some(())))?;
        self.placed.replace(Some(Placed { node: node.clone(), more, at: Instant::now() }));
        Ok(node.clone())
    }

    /// Waits until the owner of the addresses has sent the last announcement of a new address.
    pub(super) fn settle(&self) {
        let placed = self.placed.borrow().as_ref().map(|placed| placed.at);
        if let Some(left) = placed.and_then(|at| ROUNDS.checked_sub(at.elapsed())) {
            // The absence of further announcements cannot be waited for.
            std::thread::sleep(left);
        }
    }

    fn all_answered_by(&self, node: &str) -> Result<bool> {
        let mac = self.lab().host(node)?.mac(self.segment)?.into();
        let addresses: Vec<IpAddr> = self.targets()?.iter().map(|target| target.address).collect();
        let seen = look(self.lab(), self.watcher(), &addresses)?;
        Ok(addresses.len() == 2 * Policy::ALL.len() && seen.values().all(|seen| itself(seen) == Some(mac)))
    }

    /// Returns the host of the watching client.
    pub(super) fn watching_host(&self) -> &Host {
        &self.watcher
    }

    /// Keeps a value, whose effect ends when it is dropped, until the drill is over.
    pub(super) fn hold(&self, what: impl Any) {
        self.held.borrow_mut().push(Box::new(what));
    }

    /// Changes something in the cluster with kubectl; the change is undone when the drill is over.
    pub(super) fn change(&self, what: &[&str], undo: &[&str]) -> Result<()> {
        self.to_be_undone(undo);
        self.ns.kubectl(what).map(drop)
    }

    /// Records arguments of kubectl, which are run when the drill is over, the last ones first.
    pub(super) fn to_be_undone(&self, undo: &[&str]) {
        self.undo.borrow_mut().push(undo.iter().map(|&word| word.to_owned()).collect());
    }

    /// Does the same in the namespace of the setup.
    pub(super) fn change_here(&self, what: &[&str], undo: &[&str]) -> Result<()> {
        let here = ["-n", self.ns.namespace.as_str()];
        self.change(&[&here[..], what].concat(), &[&here[..], undo].concat())
    }

    /// Adds an object to the namespace of the setup; it is removed when the drill is over.
    pub(super) fn add_here(&self, object: &str, undo: &[&str]) -> Result<()> {
        let here = ["-n", self.ns.namespace.as_str()];
        self.to_be_undone(&[&here[..], undo].concat());
        self.ns.apply(object)
    }

    /// Sets how the endpoint on a node answers its readiness probe.
    pub(super) fn set_ready(&self, node: &str, ready: bool) -> Result<()> {
        let endpoints = self.endpoints()?;
        let (_, address) = endpoints.iter().find(|(at, _)| at == node).with_context(|| format!("a pod on {node}"))?;
        let answer = self.http(node, *address, &format!("POST /ready?set={ready}"))?;
        anyhow::ensure!(answer.starts_with("HTTP/1.1 200"), "{address} answered {answer}");
        Ok(())
    }

    /// Sends an HTTP request from a node and returns the answer.
    pub(super) fn http(&self, node: &str, server: SocketAddr, request: &str) -> Result<String> {
        let request = format!("{request} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n");
        self.lab().host(node)?.inside(|| {
            let mut stream = TcpStream::connect_timeout(&server, REQUEST)?;
            stream.set_read_timeout(Some(REQUEST))?;
            stream.write_all(request.as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        })
    }

    /// Undoes every fault and change and waits until no effect of them is left.
    pub(super) fn restore(&self) -> Result<()> {
        self.held.take();
        self.faults().heal_all()?;
        for command in self.undo.take().into_iter().rev() {
            self.ns.kubectl(&command.iter().map(String::as_str).collect::<Vec<_>>())?;
        }
        self.fresh_speakers()?;
        self.whole()?;
        self.nodes.iter().try_for_each(|node| self.set_ready(node, true))?;
        self.all_serve("echo")
    }

    /// Waits until the pods of an app are as many as the nodes, all ready, and no terminating one is left.
    pub(super) fn all_serve(&self, app: &str) -> Result<()> {
        self.wait(&format!("every pod of {app} to be ready, and no other to be left"), || {
            let pods = self.pods(app)?;
            Ok((pods.len() == self.nodes.len() && pods.iter().all(is_serving)).then_some(()))
        })
    }

    /// Removes what would affect others than this setup: the existence of an L2Advertisement ends the default by which
    /// every pool is announced.
    ///
    /// # Errors
    /// When the removal fails.
    pub fn leave(&self) -> Result<()> {
        self.clear()?;
        self.ns.kubectl(&["delete", "l2adv", &self.ns.namespace, "--ignore-not-found"]).map(drop)
    }

    /// Waits until nodes, endpoints and speakers are in order.
    pub(super) fn whole(&self) -> Result<()> {
        self.ns.every_node_ready(WHOLE_WITHIN)?;
        install::wait_for_rollout(self.lab())?;
        self.wait("an endpoint on each node", || Ok(self.endpoints_serve()?.then_some(())))?;
        self.wait("every speaker to be active and to hear all others", || Ok(self.speakers_stand()?.then_some(())))
    }

    /// Replaces speakers that have restarted. The kubelet waits longer with each restart of a container
    /// (CrashLoopBackOff), and the result of a drill must not depend on the number of earlier restarts.
    fn fresh_speakers(&self) -> Result<()> {
        for pod in self.speakers()? {
            let restarts = "-o=jsonpath={.status.containerStatuses[*].restartCount}";
            let said = self.ns.kubectl(&["get", "pod", "-n", &pod.namespace, &pod.name, restarts])?;
            if said.split_whitespace().any(|count| count != "0") {
                self.ns.kubectl(&["delete", "pod", "-n", &pod.namespace, &pod.name, "--timeout=60s"])?;
            }
        }
        Ok(())
    }

    /// Returns the speakers' pods without terminating ones.
    pub(super) fn speakers(&self) -> Result<Vec<PodFound>> {
        let mut pods = self.faults().pods(&PodChoice {
            namespace: install::NAMESPACE.to_owned(),
            selector: Some(SPEAKERS.to_owned()),
            ..PodChoice::default()
        })?;
        pods.retain(|pod| !pod.ending);
        Ok(pods)
    }

    /// Returns whether a speaker's pod with another UID than this one is ready on a node.
    pub(super) fn has_other_speaker(&self, node: &str, former: &str) -> Result<bool> {
        let pods: Api<Pod> = Api::namespaced(self.ns.bed.kube(), install::NAMESPACE);
        let speakers = ListParams::default().labels(SPEAKERS);
        let pods = self.ns.bed.block_on(async move { Ok(pods.list(&speakers).await?.items) })?;
        let is_there = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node);
        let is_other = |pod: &Pod| pod.metadata.uid.as_deref() != Some(former);
        Ok(pods.iter().any(|pod| is_there(pod) && is_other(pod) && is_serving(pod)))
    }

    /// Returns whether each node has one endpoint and each endpoint answers on its node. (For a while after a power
    /// loss the API still shows the pods of the node as they were.)
    fn endpoints_serve(&self) -> Result<bool> {
        let pods = self.endpoints()?;
        if pods.len() != self.nodes.len() {
            return Ok(false);
        }
        for (node, address) in pods {
            let host = self.lab().host(&node)?;
            if host.inside(|| Ok(TcpStream::connect_timeout(&address, REQUEST)?)).is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns node and HTTP address of each endpoint that is not terminating.
    pub(super) fn endpoints(&self) -> Result<Vec<(String, SocketAddr)>> {
        let pods = self.pods("echo")?.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        let place = |pod: Pod| {
            let address: IpAddr = pod.status?.pod_ip?.parse().ok()?;
            Some((pod.spec?.node_name?, SocketAddr::new(address, 8080)))
        };
        Ok(pods.filter_map(place).collect())
    }

    fn pods(&self, app: &str) -> Result<Vec<Pod>> {
        let mut pods = self.ns.list::<Pod>()?;
        pods.retain(|pod| pod.metadata.labels.as_ref().and_then(|labels| labels.get("app")).is_some_and(|a| a == app));
        Ok(pods)
    }

    fn speakers_stand(&self) -> Result<bool> {
        let heard = speaker_state::heard(&self.watcher, self.watcher.interface(self.segment)?)?;
        let others = self.nodes.len() - 1;
        for node in self.lab().nodes()? {
            let stands = heard.get(&node.mac(self.segment)?.into());
            if stands.is_none_or(|standing| !standing.active || usize::from(standing.peers) < others) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Waits until no connection to any of the addresses fails: kube-proxy may lag behind.
    pub(super) fn calm(&self, addresses: &[IpAddr]) -> Result<()> {
        let probers = Probers { neighbour: false, udp: false, stream: false, connections: true, announcements: false };
        let spec = ProbeSpec::all(addresses.iter().copied()).with(probers);
        self.wait("connections that do not fail", || {
            let running = Probe::start(self.lab(), self.talker(), &spec)?;
            // The absence of failures cannot be waited for.
            std::thread::sleep(CALM);
            let report = running.stop()?;
            let calm = |target: &herald_lab::probe::analysis::TargetReport| {
                target.connections.as_ref().is_some_and(|c| c.answers.lost == 0 && c.answers.answered > 0)
            };
            Ok(report.targets.iter().all(calm).then_some(()))
        })
    }

    /// Evaluates a condition until it holds.
    pub(super) fn wait<T>(&self, what: &str, look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        self.ns.bed.wait_for(what, WHOLE_WITHIN, look)
    }
}

fn is_serving(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"));
    ready && pod.metadata.deletion_timestamp.is_none()
}

//! A namespace and a block of addresses, with the actions and observations of a user.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use herald_crds::{VirtualIP, address::name_of_address, names};
use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use super::Testbed;
use super::install::{self, ECHO_IMAGE};
use herald_lab::cluster::Host;
use herald_lab::probe::{Mac, Probe, ProbeSpec, Probers};
use herald_lab::wait_factor::kubectl_timeout;

/// Time limit for steps that take Herald or Kubernetes well under a second on an idle machine. It bounds a failing run;
/// no promise is judged by it.
const SOON: Duration = Duration::from_secs(30);

/// Unused pools are deleted at once, and Services within seconds: the namespace controller deletes kind after kind, and
/// a scenario has up to 200 Services. The rest is a margin for a busy machine.
const DELETED_WITHIN: Duration = Duration::from_secs(60);

/// Time for which answers on the wire are collected: the probes are 10 ms apart, so there are 30 of them.
pub(crate) const LISTEN: Duration = Duration::from_millis(300);

/// Port of a speaker's metrics (docs/observe.md).
const SPEAKER_METRICS: u16 = 7475;

/// A namespace of the cluster with a block of addresses of its own.
pub struct TestNamespace<'a> {
    /// The laboratory of the namespace.
    pub bed: &'a Testbed,
    /// The name of the namespace.
    pub namespace: String,
    block: u8,
}

/// A Service to create in front of the echo server.
#[derive(Clone, Debug)]
pub struct Expose<'a> {
    /// Its name.
    pub name: &'a str,
    /// `spec.type`.
    pub service_type: &'a str,
    /// `spec.loadBalancerClass`.
    pub class: Option<&'a str>,
    /// Further fields of the spec, as YAML in flow style.
    pub spec: &'a str,
    /// Annotations, as YAML in flow style.
    pub annotations: &'a str,
}

impl<'a> Expose<'a> {
    /// Returns a Service of type LoadBalancer and our class.
    pub fn ours(name: &'a str) -> Self {
        Self { name, service_type: "LoadBalancer", class: Some(names::CLASS), spec: "", annotations: "{}" }
    }
}

impl<'a> TestNamespace<'a> {
    /// Creates a namespace with the addresses 10.10.`block`.0/24.
    ///
    /// # Errors
    /// When the namespace cannot be created.
    pub fn named(bed: &'a Testbed, namespace: &str, block: u8) -> Result<Self> {
        let ns = Self { bed, namespace: namespace.to_owned(), block };
        ns.apply(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}}}}}"))?;
        Ok(ns)
    }

    /// Deletes the scenario's namespace and its pools. The namespace is deleted while the next scenario starts
    /// ([`Testbed::swept`]). An object that is not deleted is an error, for example because of a stuck finalizer.
    pub(crate) fn close(&self) -> Result<()> {
        self.kubectl(&["delete", "namespace", &self.namespace, "--wait=false"])?;
        let selector = format!("scenario={}", self.namespace);
        if self.kubectl(&["get", "crd", "addresspools.heraldlb.io", "--ignore-not-found", "-o", "name"])?.is_empty() {
            return Ok(());
        }
        self.kubectl(&["delete", "pool,l2adv", "-l", &selector, &kubectl_timeout(DELETED_WITHIN)?])?;
        self.bed.wait_for("no VirtualIP of the scenario", DELETED_WITHIN, || {
            Ok(self.virtual_ips()?.is_empty().then_some(()))
        })
    }

    // The following functions do what a user does.

    /// Runs kubectl as the cluster's administrator.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        install::kubectl(&self.bed.lab, args)
    }

    /// Runs kubectl in the scenario's namespace.
    pub fn kubectl_here(&self, args: &[&str]) -> Result<String> {
        let mut all = vec!["-n", self.namespace.as_str()];
        all.extend(args);
        self.kubectl(&all)
    }

    /// Runs `kubectl apply -f -` in the scenario's namespace.
    pub fn apply(&self, yaml: &str) -> Result<()> {
        let (ok, said) = self.try_apply(yaml)?;
        ensure!(ok, "kubectl apply: {said}\n{yaml}");
        Ok(())
    }

    /// Applies an object that must be refused, and returns kubectl's message.
    pub fn refused(&self, yaml: &str) -> Result<String> {
        let (ok, said) = self.try_apply(yaml)?;
        ensure!(!ok, "this should have been refused:\n{yaml}");
        Ok(said)
    }

    fn try_apply(&self, yaml: &str) -> Result<(bool, String)> {
        let mut child = self
            .bed
            .lab
            .kubectl(["-n", &self.namespace, "apply", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting kubectl")?;
        child.stdin.take().context("kubectl's input")?.write_all(yaml.as_bytes())?;
        let output = child.wait_with_output()?;
        Ok((output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned()))
    }

    /// Returns the third octet of the scenario's addresses.
    pub fn block(&self) -> u8 {
        self.block
    }

    /// Returns the address with this last octet in the scenario's block, which lies in the nodes' subnet.
    pub fn address(&self, last: u8) -> IpAddr {
        Ipv4Addr::new(10, 10, self.block, last).into()
    }

    /// Returns the range between two addresses of the scenario, in the notation of a pool.
    pub fn range(&self, first: u8, last: u8) -> String {
        format!("{}-{}", self.address(first), self.address(last))
    }

    /// Applies a pool that serves this namespace only.
    pub fn pool(&self, name: &str, addresses: &[String]) -> Result<()> {
        self.apply(&self.pool_yaml(name, addresses))
    }

    /// Returns such a pool as YAML.
    pub fn pool_yaml(&self, name: &str, addresses: &[String]) -> String {
        format!(
            "{{apiVersion: heraldlb.io/v1alpha1, kind: AddressPool, metadata: {{name: {name}, labels: {{scenario: {ns}}}}}, \
             spec: {{addresses: [{list}], serviceAllocation: {{namespaces: [{ns}]}}}}}}",
            ns = self.namespace,
            list = addresses.iter().map(|a| format!("{a:?}")).collect::<Vec<_>>().join(", "),
        )
    }

    /// Applies a Deployment of echo servers and waits for it.
    pub fn deploy_echo(&self, replicas: u8) -> Result<()> {
        self.apply(&format!(
            r"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: echo}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: echo}}}}
  template:
    metadata: {{labels: {{app: echo}}}}
    spec:
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints:
        - {{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway,
           labelSelector: {{matchLabels: {{app: echo}}}}}}
      containers:
        - name: echo
          image: {ECHO_IMAGE}
          imagePullPolicy: Never
          ports:
            - {{name: http, containerPort: 8080}}
            - {{name: echo, containerPort: 9000}}
          env:
            - {{name: POD_NAME, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}
            - {{name: POD_NAMESPACE, valueFrom: {{fieldRef: {{fieldPath: metadata.namespace}}}}}}
            - {{name: NODE_NAME, valueFrom: {{fieldRef: {{fieldPath: spec.nodeName}}}}}}
            - {{name: POD_IP, valueFrom: {{fieldRef: {{fieldPath: status.podIP}}}}}}
          readinessProbe: {{httpGet: {{path: /ready, port: 8080}}, periodSeconds: 1}}
"
        ))?;
        self.echo_rolled_out()
    }

    /// Waits until all replicas of the echo server are ready.
    pub fn echo_rolled_out(&self) -> Result<()> {
        self.kubectl_here(&["rollout", "status", "deployment/echo", &kubectl_timeout(install::ROLLOUT)?]).map(drop)
    }

    /// Applies a Service in front of the echo servers: HTTP on port 80.
    pub fn expose(&self, expose: &Expose<'_>) -> Result<()> {
        let class = expose.class.map(|class| format!("loadBalancerClass: {class},")).unwrap_or_default();
        self.apply(&format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: {}, annotations: {}}}, spec: {{type: {}, {class} {} \
             selector: {{app: echo}}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}}}",
            expose.name, expose.annotations, expose.service_type, expose.spec
        ))
    }

    /// Creates a pool with the scenario's name, echo servers, and the Service `web` in front of them. Waits until a
    /// node announces its address and answers for it, and returns both.
    pub fn announced_service(&self, replicas: u8) -> Result<(IpAddr, String)> {
        self.pool(&self.namespace, &[self.range(1, 9)])?;
        self.deploy_echo(replicas)?;
        self.expose(&Expose::ours("web"))?;
        let address = self.external_ip("web")?;
        let node = self.announcer(address)?;
        self.answered_by(address, &node)?;
        Ok((address, node))
    }

    /// Creates a pool with the scenario's name, an echo server, and so many Services in front of it. Waits until a node
    /// announces the address of each, and returns the addresses with these nodes.
    pub fn announced_services(&self, count: u8) -> Result<BTreeMap<IpAddr, String>> {
        self.pool(&self.namespace, &[self.range(1, 9)])?;
        self.deploy_echo(1)?;
        let mut owners = BTreeMap::new();
        for number in 1..=count {
            let name = format!("web{number}");
            self.expose(&Expose::ours(&name))?;
            let address = self.external_ip(&name)?;
            owners.insert(address, self.announcer(address)?);
        }
        Ok(owners)
    }

    // The following functions observe what a user sees.

    /// Evaluates a condition until it holds.
    pub fn eventually<T>(&self, what: &str, look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        self.bed.wait_for(what, SOON, look)
    }

    /// Returns an object of the scenario's namespace.
    pub fn get<K>(&self, name: &str) -> Result<Option<K>>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug + Send,
        K::DynamicType: Default,
    {
        let api: Api<K> = Api::namespaced(self.bed.client.clone(), &self.namespace);
        self.bed.runtime.block_on(async { Ok(api.get_opt(name).await?) })
    }

    /// Returns all objects of a kind in the scenario's namespace.
    pub fn list<K>(&self) -> Result<Vec<K>>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug + Send,
        K::DynamicType: Default,
    {
        let api: Api<K> = Api::namespaced(self.bed.client.clone(), &self.namespace);
        self.bed.runtime.block_on(async { Ok(api.list(&Default::default()).await?.items) })
    }

    /// Returns a cluster-scoped object.
    pub fn get_cluster<K>(&self, name: &str) -> Result<Option<K>>
    where
        K: Resource<Scope = ClusterResourceScope> + Clone + DeserializeOwned + Debug + Send,
        K::DynamicType: Default,
    {
        let api: Api<K> = Api::all(self.bed.client.clone());
        self.bed.runtime.block_on(async { Ok(api.get_opt(name).await?) })
    }

    /// Returns all cluster-scoped objects of a kind.
    pub fn list_cluster<K>(&self) -> Result<Vec<K>>
    where
        K: Resource<Scope = ClusterResourceScope> + Clone + DeserializeOwned + Debug + Send,
        K::DynamicType: Default,
    {
        let api: Api<K> = Api::all(self.bed.client.clone());
        self.bed.runtime.block_on(async { Ok(api.list(&Default::default()).await?.items) })
    }

    /// Returns the Service.
    pub fn service(&self, name: &str) -> Result<Service> {
        self.get(name)?.with_context(|| format!("Service {}/{name} is gone", self.namespace))
    }

    /// Returns the first node port of the Service, if it has one.
    pub fn node_port(&self, name: &str) -> Result<Option<i32>> {
        let ports = self.service(name)?.spec.and_then(|s| s.ports).unwrap_or_default();
        Ok(ports.first().and_then(|p| p.node_port).filter(|port| *port != 0))
    }

    /// Returns the addresses in the Service's status.
    pub fn ingress(&self, name: &str) -> Result<Vec<IpAddr>> {
        let service = self.service(name)?;
        let ingress = service.status.and_then(|s| s.load_balancer).and_then(|lb| lb.ingress).unwrap_or_default();
        ingress.into_iter().filter_map(|i| i.ip).map(|ip| Ok(ip.parse()?)).collect()
    }

    /// Waits until the Service has an address, and returns it.
    pub fn external_ip(&self, name: &str) -> Result<IpAddr> {
        self.eventually(&format!("an EXTERNAL-IP of {}/{name}", self.namespace), || {
            Ok(self.ingress(name)?.first().copied())
        })
    }

    /// Returns the Service's condition on its addresses.
    pub fn assigned(&self, name: &str) -> Result<Option<Condition>> {
        let conditions = self.service(name)?.status.and_then(|s| s.conditions).unwrap_or_default();
        Ok(conditions.into_iter().find(|c| c.type_ == names::CONDITION_ADDRESS_ASSIGNED))
    }

    /// Waits until the Service's condition is False for this reason, and returns the message.
    pub fn refusal(&self, name: &str, reason: &str) -> Result<String> {
        self.eventually(&format!("{}/{name} to report {reason}", self.namespace), || {
            let condition = self.assigned(name)?.filter(|c| c.status == "False" && c.reason == reason);
            Ok(condition.map(|c| c.message))
        })
    }

    /// Returns the VirtualIP of an address.
    pub fn virtual_ip(&self, address: IpAddr) -> Result<Option<VirtualIP>> {
        self.get_cluster(&name_of_address(address))
    }

    /// Returns the VirtualIPs of the scenario's Services.
    pub fn virtual_ips(&self) -> Result<Vec<VirtualIP>> {
        let mut all = self.list_cluster::<VirtualIP>()?;
        all.retain(|vip| vip.spec.services.iter().any(|s| s.namespace == self.namespace));
        Ok(all)
    }

    /// Waits until the status names a node that announces the address, and returns its name.
    pub fn announcer(&self, address: IpAddr) -> Result<String> {
        self.eventually(&format!("a node that announces {address}"), || {
            let Some(vip) = self.virtual_ip(address)? else { return Ok(None) };
            let announced = vip.announced().is_some_and(|c| c.status == "True");
            Ok(vip.status.and_then(|s| s.node).filter(|_| announced))
        })
    }

    /// Waits until the status names another node than `former` as announcing, and returns its name.
    pub fn successor(&self, address: IpAddr, former: &str) -> Result<String> {
        self.eventually(&format!("another node than {former} to announce {address}"), || {
            Ok(Some(self.announcer(address)?).filter(|node| node != former))
        })
    }

    /// Waits until this node announces the address on this interface according to the status, and returns the MAC in
    /// the status.
    pub fn announced_on(&self, address: IpAddr, node: &str, interface: &str) -> Result<String> {
        self.eventually(&format!("{node} to announce {address} on {interface}"), || {
            let Some(vip) = self.virtual_ip(address)? else { return Ok(None) };
            let announced = vip.announced().is_some_and(|c| c.status == "True");
            let Some(status) = vip.status else { return Ok(None) };
            let here = status.node.as_deref() == Some(node) && status.interface.as_deref() == Some(interface);
            Ok(status.mac_address.filter(|_| announced && here))
        })
    }

    /// Announces the scenario's pool from the nodes whose host name is `In` or `NotIn` the single value `host`. Waits
    /// until the controller has read the L2Advertisement: it receives Services by another watch.
    pub fn advertise_from(&self, operator: &str, host: &str) -> Result<()> {
        self.apply(&format!(
            "{{apiVersion: heraldlb.io/v1alpha1, kind: L2Advertisement, \
             metadata: {{name: {namespace}, labels: {{scenario: {namespace}}}}}, spec: {{addressPools: [{namespace}], \
             nodeSelectors: [{{matchExpressions: [{{key: kubernetes.io/hostname, operator: {operator}, values: [{host}]}}]}}]}}}}",
            namespace = self.namespace,
        ))?;
        self.advertisement_is_read(&self.namespace)
    }

    /// Waits until every node is Ready.
    pub fn every_node_ready(&self, within: Duration) -> Result<()> {
        self.bed.wait_for("every node to be Ready", within, || {
            Ok(self.list_cluster::<Node>()?.iter().all(is_ready).then_some(()))
        })
    }

    /// Returns Herald's events on the object of this name in the scenario's namespace: type, reason, note.
    pub fn events(&self, name: &str) -> Result<Vec<(String, String, String)>> {
        let mut events = self.told()?;
        events.retain(|e| e.regarding.as_ref().and_then(|r| r.name.as_deref()) == Some(name));
        let text = |t: Option<String>| t.unwrap_or_default();
        Ok(events.into_iter().map(|e| (text(e.type_), text(e.reason), text(e.note))).collect())
    }

    /// Returns every event of Herald in the scenario's namespace. Other components also post events on Services: the
    /// API server's repair loop calls the cluster IP of a Service that is created at that moment
    /// `ClusterIPNotAllocated` (kubernetes, pkg/registry/core/service/ipallocator/controller/repairip.go).
    pub fn told(&self) -> Result<Vec<Event>> {
        let mut events = self.list::<Event>()?;
        events.retain(|event| event.reporting_controller.as_deref().is_some_and(|who| who.starts_with(names::GROUP)));
        Ok(events)
    }

    /// Returns the value of a metric of a node's speaker; the series is written as `name{label="value"}`.
    pub fn metric(&self, node: &str, series: &str) -> Result<f64> {
        let port = SocketAddr::from((Ipv4Addr::LOCALHOST, SPEAKER_METRICS));
        let text = self.bed.lab.host(node)?.inside(|| page(port, "/metrics"))?;
        let value = text.lines().find_map(|line| line.strip_prefix(series)).map(str::trim);
        let value = value.with_context(|| format!("{node}'s speaker has no {series}"))?;
        value.parse().with_context(|| format!("{series} is {value}"))
    }

    // The following functions observe the wire.

    /// Returns a client outside the cluster, on the nodes' segment.
    pub fn client(&self) -> Result<Host> {
        self.bed.lab.clients()?.into_iter().next().context("this laboratory has no client")
    }

    /// Returns every MAC that answers an ARP request of the client for the address.
    pub fn who_has(&self, address: IpAddr) -> Result<Vec<Mac>> {
        Ok(self.who_have(&[address])?.remove(&address).unwrap_or_default())
    }

    /// Does the same for several addresses at once.
    pub fn who_have(&self, addresses: &[IpAddr]) -> Result<BTreeMap<IpAddr, Vec<Mac>>> {
        let probers = Probers { announcements: false, ..Probers::NEIGHBOUR };
        let spec = ProbeSpec::all(addresses.iter().copied()).with(probers);
        let running = Probe::start(&self.bed.lab, self.client()?.name(), &spec)?;
        // The absence of further answers cannot be waited for.
        std::thread::sleep(LISTEN);
        let report = running.stop()?;
        let macs = |address| {
            let neighbour = report.target(address).and_then(|target| target.neighbour.as_ref());
            neighbour.map_or_else(Vec::new, |seen| seen.macs.iter().map(|mac| mac.mac).collect())
        };
        Ok(addresses.iter().map(|address| (*address, macs(*address))).collect())
    }

    /// Waits until the named node, and no other host, answers ARP for the address.
    pub fn answered_by(&self, address: IpAddr, node: &str) -> Result<()> {
        let mac = Mac::from(self.bed.lab.host(node)?.mac(0)?);
        let mut last = Vec::new();
        self.eventually(&format!("{address} to be answered by {node} ({mac})"), || {
            last = self.who_has(address)?;
            Ok((last == [mac]).then_some(()))
        })
        .with_context(|| format!("answered last by {last:?}"))
    }

    /// Checks that no host answers ARP for the address.
    pub fn silent(&self, address: IpAddr) -> Result<()> {
        let macs = self.who_has(address)?;
        ensure!(macs.is_empty(), "{address} is answered by {macs:?}; no node should answer");
        Ok(())
    }

    /// Requests / from the address on the client, and returns what the echo server reports of itself and of the client.
    pub fn fetch(&self, address: IpAddr) -> Result<serde_json::Value> {
        self.client()?.inside(|| get(SocketAddr::new(address, 80)))
    }

    /// Waits until the address answers HTTP, and returns the answer.
    pub fn reachable(&self, address: IpAddr) -> Result<serde_json::Value> {
        let mut last = None;
        self.eventually(&format!("an answer from http://{address}/"), || match self.fetch(address) {
            Ok(answer) => Ok(Some(answer)),
            Err(error) => {
                last = Some(error);
                Ok(None)
            }
        })
        .with_context(|| format!("the last attempt: {last:?}"))
    }

    /// Returns whether the namespace exists.
    pub fn namespace_exists(&self, name: &str) -> Result<bool> {
        Ok(self.get_cluster::<Namespace>(name)?.is_some())
    }
}

/// Returns whether the Node's condition Ready is True.
pub(crate) fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

/// Requests / over a connection of its own, so that each request is balanced separately.
pub(crate) fn get(to: SocketAddr) -> Result<serde_json::Value> {
    Ok(serde_json::from_str(&page(to, "/")?)?)
}

/// Returns the body of a page, requested over a connection of its own.
fn page(to: SocketAddr, path: &str) -> Result<String> {
    let limit = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&to, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", to.ip()).as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an HTTP answer has a head and a body")?;
    if !head.starts_with("HTTP/1.1 200") {
        bail!("{to} answered {head}");
    }
    Ok(body.to_owned())
}

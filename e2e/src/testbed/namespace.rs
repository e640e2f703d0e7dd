//! A namespace and a block of addresses, and what a user does and sees there.

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

/// How long a scenario waits for something that Herald or Kubernetes does in well under a second on an idle machine.
/// It bounds a failing run; no promise is judged by it.
const SOON: Duration = Duration::from_secs(30);

/// Pools that no Service uses go at once, and Services within seconds: the namespace's controller takes kind after kind, and
/// a scenario has up to 200. The rest is for a busy machine.
const DELETED_WITHIN: Duration = Duration::from_secs(60);

/// How long the wire is listened to for all who answer: the probes are 10 ms apart, so 30 of them.
pub(crate) const LISTEN: Duration = Duration::from_millis(300);

/// Where a speaker serves its metrics (docs/observe.md).
const SPEAKER_METRICS: u16 = 7475;

/// A namespace of the cluster with a block of addresses of its own.
pub struct TestNamespace<'a> {
    /// Its cluster.
    pub bed: &'a Testbed,
    /// Its namespace.
    pub namespace: String,
    block: u8,
}

/// A Service to create for the echo server.
#[derive(Clone, Debug)]
pub struct Expose<'a> {
    /// Its name.
    pub name: &'a str,
    /// `spec.type`.
    pub service_type: &'a str,
    /// `spec.loadBalancerClass`.
    pub class: Option<&'a str>,
    /// Further lines of the spec, as YAML in flow style.
    pub spec: &'a str,
    /// Annotations, as YAML in flow style.
    pub annotations: &'a str,
}

impl<'a> Expose<'a> {
    /// A Service of type LoadBalancer and our class.
    pub fn ours(name: &'a str) -> Self {
        Self { name, service_type: "LoadBalancer", class: Some(names::CLASS), spec: "", annotations: "{}" }
    }
}

impl<'a> TestNamespace<'a> {
    /// Makes a namespace with the addresses 10.10.`block`.0/24.
    ///
    /// # Errors
    /// When the namespace cannot be made.
    pub fn named(bed: &'a Testbed, namespace: &str, block: u8) -> Result<Self> {
        let ns = Self { bed, namespace: namespace.to_owned(), block };
        ns.apply(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}}}}}"))?;
        Ok(ns)
    }

    /// Deletes what the scenario made: its namespace and its pools. The namespace goes while the next scenario begins
    /// ([`Testbed::swept`]). What does not go is an error: a finalizer stuck.
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

    // What a user does.

    /// kubectl as the cluster's administrator.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        install::kubectl(&self.bed.lab, args)
    }

    /// kubectl in the scenario's namespace.
    pub fn kubectl_here(&self, args: &[&str]) -> Result<String> {
        let mut all = vec!["-n", self.namespace.as_str()];
        all.extend(args);
        self.kubectl(&all)
    }

    /// `kubectl apply -f -` in the scenario's namespace.
    pub fn apply(&self, yaml: &str) -> Result<()> {
        let (ok, said) = self.try_apply(yaml)?;
        ensure!(ok, "kubectl apply: {said}\n{yaml}");
        Ok(())
    }

    /// What kubectl says when it is refused.
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

    /// The third octet of the scenario's addresses.
    pub fn block(&self) -> u8 {
        self.block
    }

    /// The address with this last octet in the scenario's block, which lies in the nodes' subnet.
    pub fn address(&self, last: u8) -> IpAddr {
        Ipv4Addr::new(10, 10, self.block, last).into()
    }

    /// The scenario's addresses from one last octet to another, as a pool writes them.
    pub fn range(&self, first: u8, last: u8) -> String {
        format!("{}-{}", self.address(first), self.address(last))
    }

    /// A pool that serves this namespace only.
    pub fn pool(&self, name: &str, addresses: &[String]) -> Result<()> {
        self.apply(&self.pool_yaml(name, addresses))
    }

    /// The same as text.
    pub fn pool_yaml(&self, name: &str, addresses: &[String]) -> String {
        format!(
            "{{apiVersion: heraldlb.io/v1alpha1, kind: AddressPool, metadata: {{name: {name}, labels: {{scenario: {ns}}}}}, \
             spec: {{addresses: [{list}], serviceAllocation: {{namespaces: [{ns}]}}}}}}",
            ns = self.namespace,
            list = addresses.iter().map(|a| format!("{a:?}")).collect::<Vec<_>>().join(", "),
        )
    }

    /// A Deployment of echo servers, and waits for it.
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

    /// Waits until as many echo servers are ready as there should be.
    pub fn echo_rolled_out(&self) -> Result<()> {
        self.kubectl_here(&["rollout", "status", "deployment/echo", &kubectl_timeout(install::ROLLOUT)?]).map(drop)
    }

    /// A Service before the echo servers: HTTP on port 80.
    pub fn expose(&self, expose: &Expose<'_>) -> Result<()> {
        let class = expose.class.map(|class| format!("loadBalancerClass: {class},")).unwrap_or_default();
        self.apply(&format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: {}, annotations: {}}}, spec: {{type: {}, {class} {} \
             selector: {{app: echo}}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}}}",
            expose.name, expose.annotations, expose.service_type, expose.spec
        ))
    }

    /// A pool of the scenario's name, echo servers, and the Service `web` before them: waits until a node announces its
    /// address and answers for it, and returns both.
    pub fn announced_service(&self, replicas: u8) -> Result<(IpAddr, String)> {
        self.pool(&self.namespace, &[self.range(1, 9)])?;
        self.deploy_echo(replicas)?;
        self.expose(&Expose::ours("web"))?;
        let address = self.external_ip("web")?;
        let node = self.announcer(address)?;
        self.answered_by(address, &node)?;
        Ok((address, node))
    }

    // What a user sees.

    /// Looks at a condition until it holds.
    pub fn eventually<T>(&self, what: &str, look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        self.bed.wait_for(what, SOON, look)
    }

    /// An object of the scenario's namespace.
    pub fn get<K>(&self, name: &str) -> Result<Option<K>>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug + Send,
        K::DynamicType: Default,
    {
        let api: Api<K> = Api::namespaced(self.bed.client.clone(), &self.namespace);
        self.bed.runtime.block_on(async { Ok(api.get_opt(name).await?) })
    }

    /// All objects of a kind in the scenario's namespace.
    pub fn list<K>(&self) -> Result<Vec<K>>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug + Send,
        K::DynamicType: Default,
    {
        let api: Api<K> = Api::namespaced(self.bed.client.clone(), &self.namespace);
        self.bed.runtime.block_on(async { Ok(api.list(&Default::default()).await?.items) })
    }

    /// A cluster-scoped object.
    pub fn get_cluster<K>(&self, name: &str) -> Result<Option<K>>
    where
        K: Resource<Scope = ClusterResourceScope> + Clone + DeserializeOwned + Debug + Send,
        K::DynamicType: Default,
    {
        let api: Api<K> = Api::all(self.bed.client.clone());
        self.bed.runtime.block_on(async { Ok(api.get_opt(name).await?) })
    }

    /// All cluster-scoped objects of a kind.
    pub fn list_cluster<K>(&self) -> Result<Vec<K>>
    where
        K: Resource<Scope = ClusterResourceScope> + Clone + DeserializeOwned + Debug + Send,
        K::DynamicType: Default,
    {
        let api: Api<K> = Api::all(self.bed.client.clone());
        self.bed.runtime.block_on(async { Ok(api.list(&Default::default()).await?.items) })
    }

    /// The Service.
    pub fn service(&self, name: &str) -> Result<Service> {
        self.get(name)?.with_context(|| format!("Service {}/{name} is gone", self.namespace))
    }

    /// The first node port of the Service, if it has one.
    pub fn node_port(&self, name: &str) -> Result<Option<i32>> {
        let ports = self.service(name)?.spec.and_then(|s| s.ports).unwrap_or_default();
        Ok(ports.first().and_then(|p| p.node_port).filter(|port| *port != 0))
    }

    /// The addresses in the Service's status.
    pub fn ingress(&self, name: &str) -> Result<Vec<IpAddr>> {
        let service = self.service(name)?;
        let ingress = service.status.and_then(|s| s.load_balancer).and_then(|lb| lb.ingress).unwrap_or_default();
        ingress.into_iter().filter_map(|i| i.ip).map(|ip| Ok(ip.parse()?)).collect()
    }

    /// Waits until the Service has an address.
    pub fn external_ip(&self, name: &str) -> Result<IpAddr> {
        self.eventually(&format!("an EXTERNAL-IP of {}/{name}", self.namespace), || {
            Ok(self.ingress(name)?.first().copied())
        })
    }

    /// The Service's condition on its addresses.
    pub fn assigned(&self, name: &str) -> Result<Option<Condition>> {
        let conditions = self.service(name)?.status.and_then(|s| s.conditions).unwrap_or_default();
        Ok(conditions.into_iter().find(|c| c.type_ == names::CONDITION_ADDRESS_ASSIGNED))
    }

    /// Waits until the Service says that it waits, for this reason; returns its sentence.
    pub fn refusal(&self, name: &str, reason: &str) -> Result<String> {
        self.eventually(&format!("{}/{name} to say {reason}", self.namespace), || {
            let condition = self.assigned(name)?.filter(|c| c.status == "False" && c.reason == reason);
            Ok(condition.map(|c| c.message))
        })
    }

    /// The object of an address.
    pub fn virtual_ip(&self, address: IpAddr) -> Result<Option<VirtualIP>> {
        self.get_cluster(&name_of_address(address))
    }

    /// The VirtualIPs of the scenario's Services.
    pub fn virtual_ips(&self) -> Result<Vec<VirtualIP>> {
        let mut all = self.list_cluster::<VirtualIP>()?;
        all.retain(|vip| vip.spec.services.iter().any(|s| s.namespace == self.namespace));
        Ok(all)
    }

    /// Waits until a node says that it announces the address, and returns its name.
    pub fn announcer(&self, address: IpAddr) -> Result<String> {
        self.eventually(&format!("a node that announces {address}"), || {
            let Some(vip) = self.virtual_ip(address)? else { return Ok(None) };
            let announced = vip.announced().is_some_and(|c| c.status == "True");
            Ok(vip.status.and_then(|s| s.node).filter(|_| announced))
        })
    }

    /// Waits until another node than this one is said to announce the address, and returns which.
    pub fn successor(&self, address: IpAddr, former: &str) -> Result<String> {
        self.eventually(&format!("another node than {former} to announce {address}"), || {
            Ok(Some(self.announcer(address)?).filter(|node| node != former))
        })
    }

    /// Waits until this node is said to announce the address on this interface, and returns the MAC that the status names.
    pub fn announced_on(&self, address: IpAddr, node: &str, interface: &str) -> Result<String> {
        self.eventually(&format!("{node} to announce {address} on {interface}"), || {
            let Some(vip) = self.virtual_ip(address)? else { return Ok(None) };
            let announced = vip.announced().is_some_and(|c| c.status == "True");
            let Some(status) = vip.status else { return Ok(None) };
            let here = status.node.as_deref() == Some(node) && status.interface.as_deref() == Some(interface);
            Ok(status.mac_address.filter(|_| announced && here))
        })
    }

    /// The scenario's pool is announced from nodes whose host name is `In` or `NotIn` this one alone. Waits until the
    /// controller has read that: it hears of Services by another watch.
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

    /// What Herald tells of the object of this name in the scenario's namespace: type, reason, note.
    pub fn events(&self, name: &str) -> Result<Vec<(String, String, String)>> {
        let mut events = self.told()?;
        events.retain(|e| e.regarding.as_ref().and_then(|r| r.name.as_deref()) == Some(name));
        let text = |t: Option<String>| t.unwrap_or_default();
        Ok(events.into_iter().map(|e| (text(e.type_), text(e.reason), text(e.note))).collect())
    }

    /// Every Event of Herald's in the scenario's namespace. Others tell of Services as well: the API server's repair loop
    /// calls the cluster IP of one that is created in that moment `ClusterIPNotAllocated` (kubernetes,
    /// pkg/registry/core/service/ipallocator/controller/repairip.go).
    pub fn told(&self) -> Result<Vec<Event>> {
        let mut events = self.list::<Event>()?;
        events.retain(|event| event.reporting_controller.as_deref().is_some_and(|who| who.starts_with(names::GROUP)));
        Ok(events)
    }

    /// The value of a metric of a node's speaker, as `name{label="value"}`.
    pub fn metric(&self, node: &str, series: &str) -> Result<f64> {
        let port = SocketAddr::from((Ipv4Addr::LOCALHOST, SPEAKER_METRICS));
        let text = self.bed.lab.host(node)?.inside(|| page(port, "/metrics"))?;
        let value = text.lines().find_map(|line| line.strip_prefix(series)).map(str::trim);
        let value = value.with_context(|| format!("{node}'s speaker has no {series}"))?;
        value.parse().with_context(|| format!("{series} is {value}"))
    }

    // What is on the wire.

    /// A client outside the cluster, on the nodes' segment.
    pub fn client(&self) -> Result<Host> {
        self.bed.lab.clients()?.into_iter().next().context("this laboratory has no client")
    }

    /// Who answers an ARP request of the client for the address: every MAC that does.
    pub fn who_has(&self, address: IpAddr) -> Result<Vec<Mac>> {
        Ok(self.who_have(&[address])?.remove(&address).unwrap_or_default())
    }

    /// The same for several addresses at once.
    pub fn who_have(&self, addresses: &[IpAddr]) -> Result<BTreeMap<IpAddr, Vec<Mac>>> {
        let probers = Probers { announcements: false, ..Probers::NEIGHBOUR };
        let spec = ProbeSpec::all(addresses.iter().copied()).with(probers);
        let running = Probe::start(&self.bed.lab, self.client()?.name(), &spec)?;
        // No condition can be waited for: that nobody else answers is what is looked for.
        std::thread::sleep(LISTEN);
        let report = running.stop()?;
        let macs = |address| {
            let neighbour = report.target(address).and_then(|target| target.neighbour.as_ref());
            neighbour.map_or_else(Vec::new, |seen| seen.macs.iter().map(|mac| mac.mac).collect())
        };
        Ok(addresses.iter().map(|address| (*address, macs(*address))).collect())
    }

    /// Waits until exactly the named node answers ARP for the address.
    pub fn answered_by(&self, address: IpAddr, node: &str) -> Result<()> {
        let mac = Mac::from(self.bed.lab.host(node)?.mac(0)?);
        let mut last = Vec::new();
        self.eventually(&format!("{address} to be answered by {node} ({mac})"), || {
            last = self.who_has(address)?;
            Ok((last == [mac]).then_some(()))
        })
        .with_context(|| format!("answered last by {last:?}"))
    }

    /// Checks that nobody answers ARP for the address.
    pub fn silent(&self, address: IpAddr) -> Result<()> {
        let macs = self.who_has(address)?;
        ensure!(macs.is_empty(), "{address} is answered by {macs:?}; nobody should");
        Ok(())
    }

    /// GET / through the address, from the client: what the echo server says of itself and of the client.
    pub fn fetch(&self, address: IpAddr) -> Result<serde_json::Value> {
        self.client()?.inside(|| get(SocketAddr::new(address, 80)))
    }

    /// Waits until the address answers HTTP.
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

    /// Does the namespace exist?
    pub fn namespace_exists(&self, name: &str) -> Result<bool> {
        Ok(self.get_cluster::<Namespace>(name)?.is_some())
    }
}

/// Returns whether the Node's condition says that it is Ready.
pub(crate) fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

/// A GET of / with a connection of its own, so that each is balanced anew.
pub(crate) fn get(to: SocketAddr) -> Result<serde_json::Value> {
    Ok(serde_json::from_str(&page(to, "/")?)?)
}

/// What is served there, over a connection of its own.
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

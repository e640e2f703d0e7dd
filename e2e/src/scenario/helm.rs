//! Herald by its Helm chart: the objects are those of the manifests; an installation by kubectl is taken over without a pod that
//! is restarted; an upgrade and a rollback are noticed by no client; `helm uninstall` leaves the addresses to their Services, and
//! the next installation goes on with them.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;

use super::unnoticed::Unnoticed;
use crate::testbed::chart::{self, RELEASE};
use crate::testbed::manifests::{self, Manifest};
use crate::testbed::{TestNamespace, install};

/// How long Helm waits for what it has changed.
const TIMEOUT: &str = "--timeout=3m";
/// The Secret with the cluster's key.
const KEY: &str = "herald-cluster-key";

/// A key as a user makes one, of 32 bytes.
const OWN_KEY: &str = "--from-literal=mine=0123456789abcdef0123456789abcdef";

/// Objects by kind and name.
type Objects = BTreeMap<(String, String), Value>;

pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    let helm = Helm::new(ns)?;
    chart::is_golden(&helm.helm)?;
    makes_the_manifests(&helm)?;
    values_are_used(&helm)?;
    let result = lives(ns, &helm);
    // Whatever was found, the next scenario gets Herald as kubectl installs it.
    if helm.run(&["status", RELEASE, "-n", install::NAMESPACE]).is_ok() {
        helm.run(&["uninstall", RELEASE, "-n", install::NAMESPACE, "--wait", TIMEOUT])?;
    }
    install::apply(ns.bed.lab(), Manifest::CLASS, &ns.bed.progress)?;
    result
}

/// With the default values the chart makes the objects of `deploy/herald.yaml`, without the namespace, which is the release's, and
/// the definitions, of which the chart has copies (`manifests::tests`).
fn makes_the_manifests(helm: &Helm<'_>) -> Result<()> {
    for (manifest, values) in
        [(Manifest::CLASS, &[] as &[&str]), (Manifest::DEFAULT_PROVIDER, &["--set", "defaultProvider=true"])]
    {
        let made = objects(&helm.template(values)?)?;
        let mut shipped = objects(&std::fs::read_to_string(manifest.file()).context("a manifest")?)?;
        shipped.retain(|(kind, _), _| kind != "Namespace" && kind != "CustomResourceDefinition");
        let names = |objects: &Objects| objects.keys().cloned().collect::<Vec<_>>();
        ensure!(names(&made) == names(&shipped), "{:?} instead of {:?}", names(&made), names(&shipped));
        for (name, object) in &made {
            let object = without_helms_own(object.clone());
            ensure!(object == shipped[name], "{name:?} is {object:#}, and in the manifest {:#}", shipped[name]);
        }
    }
    Ok(())
}

/// An object without the annotations that only Helm reads.
fn without_helms_own(mut object: Value) -> Value {
    if let Some(metadata) = object["metadata"].as_object_mut()
        && let Some(Value::Object(annotations)) = metadata.get_mut("annotations")
    {
        annotations.retain(|name, _| !name.starts_with("helm.sh/"));
        if annotations.is_empty() {
            metadata.remove("annotations");
        }
    }
    object
}

/// What a user sets reaches the objects, and what the schema does not know is refused.
fn values_are_used(helm: &Helm<'_>) -> Result<()> {
    let values = [
        "image.repository=registry.example/herald",
        "image.digest=sha256:0000000000000000000000000000000000000000000000000000000000000000",
        "imagePullSecrets[0].name=registry",
        "clusterKey.create=false",
        "interfaces={eth*,!eth9}",
        "loadBalancerClasses={metallb.io/metallb,example.com/other}",
        "includeExcludedNodes=true",
        "gatewayAddresses=true",
        "commonLabels.team=network",
        "controller.podDisruptionBudget.minAvailable=1",
        "speaker.extraArgs={--announce-rate=15}",
        "speaker.resources.limits.memory=200Mi",
    ];
    let args: Vec<&str> = values.iter().flat_map(|value| ["--set", value]).collect();
    let made = objects(&helm.template(&args)?)?;
    let object = |kind: &str, name: &str| made.get(&(kind.to_owned(), name.to_owned()));
    ensure!(object("Secret", KEY).is_none(), "the Secret is the user's own");
    ensure!(object("PodDisruptionBudget", "herald-controller").is_some(), "there is a PodDisruptionBudget");
    ensure!(object("ConfigMap", "herald").context("the ConfigMap")?["data"]["includeExcludedNodes"] == "true", "set");
    ensure!(object("ClusterRole", "herald-gateway-addresses").is_some(), "the controller may read Gateways");
    ensure!(
        made.values().all(|object| object["metadata"]["labels"]["team"] == "network"),
        "every object has the label"
    );
    let image = "registry.example/herald@sha256:0000000000000000000000000000000000000000000000000000000000000000";
    for (kind, name, args) in [
        (
            "Deployment",
            "herald-controller",
            vec!["--lb-class=metallb.io/metallb,example.com/other", "--gateway-addresses"],
        ),
        ("DaemonSet", "herald-speaker", vec!["--interfaces=eth*,!eth9", "--announce-rate=15"]),
    ] {
        let pod = &object(kind, name).context("a workload")?["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        ensure!(container["image"] == image && pod["imagePullSecrets"][0]["name"] == "registry", "{name}: {pod:#}");
        ensure!(container["args"] == serde_json::json!(args), "{name} has {}", container["args"]);
    }
    for unknown in ["speaker.replicas=2", "image.pullPolicy=Sometimes", "interfaces=eth0"] {
        ensure!(helm.template(&["--set", unknown]).is_err(), "the schema lets {unknown} pass");
    }
    Ok(())
}

/// Takes an installation over, upgrades it, rolls it back, takes it away and installs it again.
fn lives(ns: &TestNamespace<'_>, helm: &Helm<'_>) -> Result<()> {
    let (address, node) = ns.announced_service(1)?;
    let unnoticed = Unnoticed::from_here(ns, BTreeMap::from([(address, node)]))?;
    let (pods, key) = (pods(ns)?, key(ns)?);
    let release = [RELEASE, &helm.chart, "-n", install::NAMESPACE, "--wait", TIMEOUT];
    let with = |verb: &'static str, more: &[&'static str]| {
        let mut args = vec![verb];
        args.extend(release);
        args.extend(more);
        helm.run(&args)
    };

    ns.bed.progress.step("helm: taking over what kubectl installed");
    // kubectl owns every field: a server-side apply, Helm 4's own way, would conflict with it at each change. Upgrades and
    // rollbacks go on in the way of the installation.
    let said = with("install", &["--take-ownership", "--server-side=false"])?;
    ensure!(said.contains("kubectl get vip"), "the notes say what to type next: {said}");
    ensure!(self::pods(ns)? == pods, "no pod is restarted");
    ns.bed.progress.step("helm: upgrade, with other values");
    with("upgrade", &["--set", "speaker.extraArgs={--announce-rate=50}", "--set", "controller.replicas=1"])?;
    install::wait_for_rollout(ns.bed.lab())?;
    ns.eventually("every speaker to be another", || {
        let is_new = |pod: &String| !pods.contains_key(pod) || pod.contains("controller");
        Ok(self::pods(ns)?.keys().all(is_new).then_some(()))
    })?;
    ns.bed.progress.step("helm: rollback");
    helm.run(&["rollback", RELEASE, "1", "-n", install::NAMESPACE, "--wait", TIMEOUT])?;
    install::wait_for_rollout(ns.bed.lab())?;
    ensure!(self::key(ns)? == key, "the cluster's key is the same");
    unnoticed.until_here(ns)?;

    ns.bed.progress.step("helm: uninstall");
    helm.run(&["uninstall", RELEASE, "-n", install::NAMESPACE, "--wait", TIMEOUT])?;
    // The pods have a moment to end.
    ns.eventually("no node to answer", || Ok(ns.who_has(address)?.is_empty().then_some(())))?;
    left(ns, address, &key)?;
    ns.bed.progress.step("helm: install again, with a key of the user's own");
    let own = ["create", "secret", "generic", KEY, "-n", install::NAMESPACE, OWN_KEY];
    ns.kubectl(&["delete", "secret", "-n", install::NAMESPACE, KEY])?;
    ns.kubectl(&own)?;
    let key = self::key(ns)?;
    with("install", &["--set", "clusterKey.create=false"])?;
    let node = ns.announcer(address)?;
    ns.answered_by(address, &node)?;
    left(ns, address, &key)
}

/// What an uninstallation leaves: the address, with its Service, its VirtualIP and its pool, and the cluster's key.
fn left(ns: &TestNamespace<'_>, address: IpAddr, key: &Value) -> Result<()> {
    ensure!(ns.ingress("web")? == [address], "the Service keeps {address}");
    ensure!(ns.virtual_ip(address)?.is_some(), "the VirtualIP stays");
    ns.kubectl(&["get", "pool", &ns.namespace])?;
    ensure!(self::key(ns)? == *key, "the cluster's key stays");
    Ok(())
}

/// Herald's pods: name and UID.
fn pods(ns: &TestNamespace<'_>) -> Result<BTreeMap<String, Option<String>>> {
    let api: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(ns.bed.kube(), install::NAMESPACE);
    let pods = ns.bed.block_on(async move { Ok(api.list(&ListParams::default()).await?.items) })?;
    Ok(pods.into_iter().map(|pod| (pod.name_any(), pod.uid())).collect())
}

/// What the cluster's key is.
fn key(ns: &TestNamespace<'_>) -> Result<Value> {
    let api: Api<Secret> = Api::namespaced(ns.bed.kube(), install::NAMESPACE);
    let secret = ns.bed.block_on(async move { Ok(api.get(KEY).await?) })?;
    ensure!(secret.data.as_ref().is_some_and(|data| !data.is_empty()), "there is a key");
    serde_json::to_value(secret.data).context("the key's values")
}

fn objects(yaml: &str) -> Result<Objects> {
    let mut found = Objects::new();
    for document in yaml.split("\n---\n").map(|part| part.strip_prefix("---\n").unwrap_or(part)) {
        let object: Value =
            serde_saphyr::from_str(document).with_context(|| format!("a document of YAML:\n{document}"))?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if object.is_object() {
            found.insert((text(&object["kind"]), text(&object["metadata"]["name"])), object);
        }
    }
    Ok(found)
}

/// Helm, with the rights of the cluster's administrator.
struct Helm<'a> {
    ns: &'a TestNamespace<'a>,
    helm: chart::Helm,
    chart: String,
}

impl<'a> Helm<'a> {
    fn new(ns: &'a TestNamespace<'_>) -> Result<Self> {
        let helm = chart::Helm::new(&ns.bed.progress)?;
        Ok(Self { ns, helm, chart: manifests::chart().to_string_lossy().into_owned() })
    }

    /// Runs Helm on the cluster and returns what it printed.
    fn run(&self, args: &[&str]) -> Result<String> {
        self.helm.run(self.ns.bed.lab().admin_command(self.helm.program()), args)
    }

    /// Returns the objects that the chart makes.
    fn template(&self, values: &[&str]) -> Result<String> {
        self.helm.template(values)
    }
}

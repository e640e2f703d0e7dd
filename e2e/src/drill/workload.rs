//! The pods behind the setup's Services.

use serde_json::{Value, json};

use crate::testbed::install;

/// Seconds for which a pod serves on after it was asked to end: longer than kube-proxy and the speakers need to hear of
/// it.
const LINGER_SECONDS: u8 = 3;

/// Without a request a pod has a weight of 2 where a process of its node has 1,024 (kubernetes, pkg/kubelet/cm,
/// MinShares): on a busy machine the server then answers late by half a second, whoever announces its address.
const CPU: &str = "100m";

/// How long a readiness probe may active. Drills make servers unready by what they answer (503): a busy machine must not.
const PROBE_SECONDS: u8 = 5;

/// A workload of several pods that stands in for the endpoints of the setup while it is updated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Updated {
    /// One pod on each node; the next starts after the last has ended.
    DaemonSet,
    /// As many pods as nodes; the next is ready before the last is asked to end.
    Deployment,
}

impl Updated {
    /// The label `app` of its pods.
    pub(super) const APP: &'static str = "updated";

    /// What kubectl calls it.
    pub(super) fn reference(self) -> &'static str {
        match self {
            Self::DaemonSet => "daemonset/updated",
            Self::Deployment => "deployment/updated",
        }
    }

    /// The object, on so many nodes. How it is updated is Kubernetes' default.
    pub(super) fn object(self, nodes: usize) -> Value {
        let labels = json!({"app": Self::APP});
        let mut object = json!({
            "apiVersion": "apps/v1", "metadata": {"name": Self::APP},
            "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod()}},
        });
        match self {
            Self::DaemonSet => object["kind"] = "DaemonSet".into(),
            Self::Deployment => {
                object["kind"] = "Deployment".into();
                object["spec"]["replicas"] = nodes.into();
                // One pod of a revision on each node. Of the old ones, that which shares its node with a new one ends
                // first (kubernetes, pkg/controller/replicaset, getPodsRankedByRelatedPodsOnSameNode): a Local address
                // need not move, and in the runs seen it did not.
                object["spec"]["template"]["spec"]["topologySpreadConstraints"] = json!([{
                    "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
                    "labelSelector": {"matchLabels": labels}, "matchLabelKeys": ["pod-template-hash"],
                }]);
            }
        }
        object
    }
}

/// A Deployment of one echo server on a node. Its successor starts after it has ended.
pub(super) fn endpoint(node: &str, nodes: &[String]) -> Value {
    let mut labels = json!({"app": "echo", "on": node});
    for other in nodes.iter().filter(|other| *other != node) {
        labels[survives(other)] = "yes".into();
    }
    let mut pod = pod();
    pod["nodeSelector"] = json!({"kubernetes.io/hostname": node});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": format!("echo-{node}"), "labels": {"app": "echo"}},
        "spec": {
            "replicas": 1, "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": {"on": node}},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    })
}

/// A pod with an echo server, on any node in any state.
fn pod() -> Value {
    let field = |name, path| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    json!({
        "tolerations": [{"operator": "Exists"}],
        "terminationGracePeriodSeconds": 10,
        "containers": [{
            "name": "echo", "image": install::ECHO_IMAGE, "imagePullPolicy": "Never",
            "args": ["--linger", LINGER_SECONDS.to_string()],
            "env": [
                field("POD_NAME", "metadata.name"),
                field("POD_NAMESPACE", "metadata.namespace"),
                field("NODE_NAME", "spec.nodeName"),
                field("POD_IP", "status.podIP"),
            ],
            "readinessProbe": {
                "httpGet": {"path": "/ready", "port": 8080},
                "periodSeconds": 1, "timeoutSeconds": PROBE_SECONDS, "failureThreshold": 1,
            },
            "resources": {"requests": {"cpu": CPU}},
        }],
    })
}

/// Label of the endpoints that are there when a node is not.
pub(super) fn survives(node: &str) -> String {
    format!("survives-{node}")
}

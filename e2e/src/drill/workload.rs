//! The pods behind the setup's Services.

use serde_json::{Value, json};

use crate::testbed::install;

/// Seconds for which a pod goes on serving after SIGTERM: longer than kube-proxy and the speakers need to see its
/// deletion.
const LINGER_SECONDS: u8 = 3;

/// CPU request of a pod. Without one, a pod has a CPU weight of 2 where a process of its node has 1,024 (kubernetes,
/// pkg/kubelet/cm, MinShares): on a busy machine the server then answers up to half a second late, whichever node
/// announces its address.
const CPU: &str = "100m";

/// Timeout of a readiness probe. Drills make servers unready by their answer (503); a busy machine must not do so by a
/// delay.
const PROBE_SECONDS: u8 = 5;

/// A workload of several pods that replaces the endpoints of the setup while it is updated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Updated {
    /// One pod on each node; the next one starts after the last one has ended.
    DaemonSet,
    /// As many pods as nodes; the next one is ready before the last one is ended.
    Deployment,
}

impl Updated {
    /// The label `app` of its pods.
    pub(super) const APP: &'static str = "updated";

    /// Returns its name for kubectl.
    pub(super) fn reference(self) -> &'static str {
        match self {
            Self::DaemonSet => "daemonset/updated",
            Self::Deployment => "deployment/updated",
        }
    }

    /// Returns the object for this number of nodes. The update strategy is Kubernetes' default.
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
                // One pod of a revision on each node. The old pod that shares its node with a new one ends first
                // (kubernetes, pkg/controller/replicaset, getPodsRankedByRelatedPodsOnSameNode): a Local address need
                // not move, and in the observed runs it did not.
                object["spec"]["template"]["spec"]["topologySpreadConstraints"] = json!([{
                    "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
                    "labelSelector": {"matchLabels": labels}, "matchLabelKeys": ["pod-template-hash"],
                }]);
            }
        }
        object
    }
}

/// Returns a Deployment of one echo server on a node. A new pod starts after the old one has ended.
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

/// Returns the spec of a pod with an echo server that runs on any node in any state.
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

/// Returns the label of the endpoints that survive the loss of a node.
pub(super) fn survives(node: &str) -> String {
    format!("survives-{node}")
}

//! The choice of the pods that a fault hits.

use std::fmt;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;

use crate::cluster::Lab;
use crate::cluster::netns::output_of;

/// A choice of pods: all given conditions must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct PodChoice {
    /// Namespace of the pods.
    #[arg(long, short, default_value = "default")]
    pub namespace: String,
    /// Name of the pod.
    #[arg(long)]
    pub pod: Option<String>,
    /// Label selector, as in app=web.
    #[arg(long, short = 'l')]
    pub selector: Option<String>,
    /// Node the pods run on.
    #[arg(long)]
    pub node: Option<String>,
    /// Container; required for a pod with several ones.
    #[arg(long, short)]
    pub container: Option<String>,
}

/// A container of a pod that was found. The value stays valid when the container restarts, and while the API server is
/// away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodFound {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// UID of the pod.
    pub uid: String,
    /// Its node.
    pub node: String,
    /// Name of the container.
    pub container: String,
    /// Whether the pod was being deleted: it may be gone by now.
    pub ending: bool,
}

impl fmt::Display for PodFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The relevant part of `kubectl get -o json`.
#[derive(Deserialize)]
struct List {
    items: Vec<Pod>,
}

/// Requests the matching pods from the API server.
pub(super) fn find(lab: &Lab, choice: &PodChoice) -> Result<Vec<PodFound>> {
    let PodChoice { namespace, pod: _, selector, node: _, container: _ } = choice;
    let mut kubectl = lab.kubectl(["--request-timeout=30s", "get", "pods", "-o", "json", "--namespace", namespace]);
    if let Some(selector) = selector {
        kubectl.args(["--selector", selector]);
    }
    let List { items } = serde_json::from_str(&output_of(&mut kubectl)?).context("reading kubectl's list of pods")?;
    choose(&items, choice)
}

/// Returns the containers of the pods that match by name and node.
fn choose(pods: &[Pod], choice: &PodChoice) -> Result<Vec<PodFound>> {
    let PodChoice { namespace, pod: name, selector: _, node, container } = choice;
    let mut found = Vec::new();
    for pod in pods {
        let (Some(pod_name), Some(uid), Some(spec)) = (&pod.metadata.name, &pod.metadata.uid, &pod.spec) else {
            continue;
        };
        let Some(pod_node) = &spec.node_name else { continue };
        if name.as_ref().is_some_and(|name| name != pod_name) || node.as_ref().is_some_and(|node| node != pod_node) {
            continue;
        }
        let names: Vec<&str> = spec.containers.iter().map(|container| container.name.as_str()).collect();
        let container = match (container, names.as_slice()) {
            (Some(container), names) if names.contains(&container.as_str()) => container.clone(),
            (None, [only]) => (*only).to_owned(),
            _ => bail!("pod {namespace}/{pod_name} has the containers {}: name one of them", names.join(", ")),
        };
        found.push(PodFound {
            namespace: pod.metadata.namespace.clone().unwrap_or_else(|| namespace.clone()),
            name: pod_name.clone(),
            uid: uid.clone(),
            node: pod_node.clone(),
            container,
            ending: pod.metadata.deletion_timestamp.is_some(),
        });
    }
    if found.is_empty() {
        bail!("no scheduled pod in namespace {namespace} fits {}", choice.conditions());
    }
    Ok(found)
}

impl PodChoice {
    fn conditions(&self) -> String {
        let Self { namespace: _, pod, selector, node, container: _ } = self;
        let given = [("name", pod), ("labels", selector), ("node", node)];
        let told: Vec<String> =
            given.iter().filter_map(|(what, value)| value.as_ref().map(|value| format!("{what} {value}"))).collect();
        if told.is_empty() { "(none at all)".to_owned() } else { told.join(", ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_case::test_case;

    fn pod(name: &str, node: Option<&str>, containers: &[&str]) -> Pod {
        let containers: Vec<_> = containers.iter().map(|name| serde_json::json!({ "name": name })).collect();
        serde_json::from_value(serde_json::json!({
            "metadata": { "name": name, "namespace": "shop", "uid": format!("uid-{name}") },
            "spec": { "nodeName": node, "containers": containers },
        }))
        .unwrap()
    }

    fn choice(pod: Option<&str>, node: Option<&str>, container: Option<&str>) -> PodChoice {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        PodChoice {
            namespace: "shop".into(),
            pod: owned(pod),
            selector: None,
            node: owned(node),
            container: owned(container),
        }
    }

    #[test]
    fn terminating_pod_is_marked() {
        let mut ends = pod("web-1", Some("node1"), &["main"]);
        ends.metadata.deletion_timestamp = Some(serde_json::from_str(r#""2026-01-01T00:00:00Z""#).unwrap());
        let found = choose(&[ends, pod("web-2", Some("node1"), &["main"])], &choice(None, None, None)).unwrap();
        assert_eq!(found.iter().map(|pod| pod.ending).collect::<Vec<_>>(), [true, false]);
    }

    #[test_case(choice(None, None, Some("main")), Ok(&["shop/web-1 main", "shop/web-2 main"]); "all")]
    #[test_case(choice(Some("web-1"), None, None), Ok(&["shop/web-1 main"]); "by name")]
    #[test_case(choice(None, Some("node2"), Some("side")), Ok(&["shop/web-2 side"]); "by node, one of two containers")]
    #[test_case(choice(None, Some("node2"), None), Err("pod shop/web-2 has the containers main, side: name one of them"); "which container")]
    #[test_case(choice(Some("web-1"), None, Some("x")), Err("pod shop/web-1 has the containers main: name one of them"); "no such container")]
    #[test_case(choice(Some("web-3"), None, None), Err("no scheduled pod in namespace shop fits name web-3"); "not scheduled")]
    #[test_case(choice(Some("web-1"), Some("node2"), None), Err("no scheduled pod in namespace shop fits name web-1, node node2"); "on another node")]
    fn pods_are_chosen_by_conditions(choice: PodChoice, expected: Result<&[&str], &str>) {
        let pods = [
            pod("web-1", Some("node1"), &["main"]),
            pod("web-2", Some("node2"), &["main", "side"]),
            pod("web-3", None, &["main"]),
        ];
        let found = choose(&pods, &choice).map_err(|error| error.to_string());
        let found = found.map(|found| found.iter().map(|pod| format!("{pod} {}", pod.container)).collect::<Vec<_>>());
        let expected = expected.map(|names| names.iter().map(|&name| name.to_owned()).collect()).map_err(str::to_owned);
        assert_eq!(found, expected);
    }
}

//! The contract of a `type: LoadBalancer` provider, row by row, on the real API server. docs/contract.md lists all rows
//! with their proofs; this module has the rows that no other scenario or drill proves.

mod changes;
mod endings;
mod families;
mod neighbours;
mod selection;

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use herald_crds::names;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::strangers::v6_range;
use crate::testbed::namespace::{TestNamespace, get};
use herald_lab::cluster::Host;

/// A row of the contract.
#[derive(Clone, Copy)]
struct Row {
    /// Its name in docs/contract.md.
    name: &'static str,
    /// Checks the row.
    check: fn(&TestNamespace<'_>) -> Result<()>,
}

pub(super) fn selection(ns: &TestNamespace<'_>) -> Result<()> {
    ns.pool(&ns.namespace, &[ns.range(1, 99)])?;
    all_of(ns, selection::ROWS)
}

pub(super) fn lifecycle(ns: &TestNamespace<'_>) -> Result<()> {
    ns.pool(&ns.namespace, &[ns.range(1, 99)])?;
    ns.deploy_echo(1)?;
    all_of(ns, &[changes::ROWS, endings::ROWS].concat())
}

pub(super) fn families(ns: &TestNamespace<'_>) -> Result<()> {
    let v6 = v6_range(ns);
    ns.pool(&ns.namespace, &[ns.range(1, 39), format!("{}-{}", v6(1), v6(39))])?;
    ns.deploy_echo(1)?;
    all_of(ns, families::ROWS)
}

pub(super) fn neighbours(ns: &TestNamespace<'_>) -> Result<()> {
    ns.pool(&ns.namespace, &[ns.range(1, 99)])?;
    ns.deploy_echo(1)?;
    all_of(ns, neighbours::ROWS)
}

/// Checks every row; a failure does not stop the others.
fn all_of(ns: &TestNamespace<'_>, rows: &[Row]) -> Result<()> {
    let mut failures = Vec::new();
    for row in rows {
        ns.bed.progress.step(format!("{}: row {}", ns.namespace, row.name));
        if let Err(error) = (row.check)(ns) {
            failures.push(format!("{}: {error:#}", row.name));
        }
    }
    if !failures.is_empty() {
        bail!("{}", failures.join("\n"));
    }
    Ok(())
}

// The following functions do what a user does, through the API: kubectl would take long for many small changes.

/// Creates a Service of our class in front of the echo servers, HTTP on port 80, with the fields of `spec` overriding
/// these.
fn create(ns: &TestNamespace<'_>, name: &str, spec: Value) -> Result<Service> {
    create_annotated(ns, name, json!({}), spec)
}

/// Does the same with annotations.
fn create_annotated(ns: &TestNamespace<'_>, name: &str, annotations: Value, spec: Value) -> Result<Service> {
    let mut object = json!({
        "metadata": {"name": name, "annotations": annotations},
        "spec": {
            "type": "LoadBalancer", "loadBalancerClass": names::CLASS, "selector": {"app": "echo"},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
        },
    });
    if let (Value::Object(all), Value::Object(fields)) = (&mut object["spec"], spec) {
        all.extend(fields);
    }
    let service: Service = serde_json::from_value(object)?;
    let api = services(ns);
    ns.bed.block_on(async move { Ok(api.create(&PostParams::default(), &service).await?) })
}

/// Changes a Service by a JSON merge patch.
fn change(ns: &TestNamespace<'_>, name: &str, patch: Value) -> Result<Service> {
    let api = services(ns);
    let changed = async move { Ok(api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?) };
    ns.bed.block_on(changed).with_context(|| format!("changing Service {name}"))
}

/// Changes a Service's status as another controller does.
fn change_status(ns: &TestNamespace<'_>, name: &str, patch: Patch<Value>) -> Result<Service> {
    let api = services(ns);
    let changed = async move { Ok(api.patch_status(name, &PatchParams::default(), &patch).await?) };
    ns.bed.block_on(changed).with_context(|| format!("changing the status of Service {name}"))
}

/// Deletes a Service and does not wait for its finalizers.
fn delete(ns: &TestNamespace<'_>, name: &str) -> Result<()> {
    let api = services(ns);
    ns.bed.block_on(async move { Ok(api.delete(name, &DeleteParams::default()).await.map(drop)?) })
}

fn services(ns: &TestNamespace<'_>) -> Api<Service> {
    Api::namespaced(ns.bed.kube(), &ns.namespace)
}

// The following functions check what a user sees.

/// Waits until Herald has processed all earlier changes of Services: it receives them in their order, and this Service,
/// the last one, gets its address.
fn caught_up(ns: &TestNamespace<'_>, marker: &str) -> Result<()> {
    let name = format!("after-{marker}");
    create(ns, &name, json!({"allocateLoadBalancerNodePorts": false}))?;
    ns.external_ip(&name).map(drop)
}

/// Returns the number of events with this reason that regard the object.
fn told(ns: &TestNamespace<'_>, name: &str, reason: &str) -> Result<usize> {
    Ok(ns.events(name)?.iter().filter(|(_, told, _)| told == reason).count())
}

/// Waits until an event with this reason regards the object, and checks that there is only one.
fn told_once(ns: &TestNamespace<'_>, name: &str, reason: &str) -> Result<()> {
    ns.told_once(name, reason).map(drop)
}

fn finalizers(ns: &TestNamespace<'_>, name: &str) -> Result<Vec<String>> {
    Ok(ns.service(name)?.metadata.finalizers.unwrap_or_default())
}

fn version(service: &Service) -> Result<String> {
    service.metadata.resource_version.clone().context("a resource version")
}

/// Returns the echo server's address and node.
fn endpoint(ns: &TestNamespace<'_>) -> Result<(String, String)> {
    let pods = ns.list::<Pod>()?;
    let pod = pods.into_iter().find(|pod| pod.metadata.deletion_timestamp.is_none()).context("a pod")?;
    let address = pod.status.and_then(|status| status.pod_ip).context("a pod's address")?;
    Ok((address, pod.spec.and_then(|spec| spec.node_name).context("a pod's node")?))
}

/// Waits until a host gets an HTTP answer.
fn answers(ns: &TestNamespace<'_>, from: &Host, to: SocketAddr) -> Result<Value> {
    let mut last = None;
    ns.eventually(&format!("an answer of http://{to}/ to {}", from.name()), || match from.inside(|| get(to)) {
        Ok(answer) => Ok(Some(answer)),
        Err(error) => {
            last = Some(error);
            Ok(None)
        }
    })
    .with_context(|| format!("the last attempt: {last:?}"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::drill;

    /// Checks that docs/contract.md lists every row, and that every proof it names exists.
    #[test]
    fn contract_page_names_existing_rows_and_proofs() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let page = std::fs::read_to_string(root.join("docs/contract.md")).unwrap();
        let scenarios = [
            ("contract-selection", selection::ROWS),
            ("contract-lifecycle", changes::ROWS),
            ("contract-lifecycle", endings::ROWS),
            ("contract-families", families::ROWS),
            ("contract-neighbours", neighbours::ROWS),
        ];
        let rows: Vec<_> = scenarios
            .into_iter()
            .flat_map(|(scenario, rows)| rows.iter().map(move |row| format!("{scenario}: {}", row.name)))
            .collect();
        for row in &rows {
            assert!(page.contains(&format!("`scenario {row}`")), "docs/contract.md does not name {row}");
        }
        let mut proofs = 0;
        for quoted in page.split('`').skip(1).step_by(2) {
            let Some((kind, proof)) = quoted.split_once(' ') else { continue };
            let exists = match kind {
                "scenario" if proof.contains(": ") => rows.iter().any(|row| row == proof),
                "scenario" => crate::scenario::all().iter().any(|scenario| scenario.name == proof),
                "drill" => drill::drills().any(|drill| drill.name == proof),
                "test" => {
                    let (file, test) = proof.split_once(' ').unwrap_or((proof, ""));
                    std::fs::read_to_string(root.join(file)).is_ok_and(|text| text.contains(&format!("fn {test}(")))
                }
                _ => continue,
            };
            assert!(exists, "there is no {quoted:?}");
            proofs += 1;
        }
        assert!(proofs > rows.len(), "{proofs}");
    }
}

//! `herald-controller uninstall`: releases everything that Herald holds. A Job runs it once while Herald is removed.
//!
//! It works whether the controller still runs or is long gone. It first stops Herald's programs, so that none adds a
//! finalizer again; then it releases the Services; then it removes the VirtualIPs. Each step may be repeated.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use herald_crds::{
    VirtualIP,
    names::{
        ANNOTATION_ALLOCATED_FROM, CONDITION_ADDRESS_ASSIGNED, FINALIZER_SERVICE_CLASS, FINALIZER_SERVICE_DEFAULT,
        FINALIZER_WITHDRAWAL, MANAGER_CONTROLLER,
    },
};
use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, Deployment},
        core::v1::{Pod, Service},
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use tokio::time::{Instant, sleep};

use crate::{
    action::{Change, ServicePatch},
    default_finalizer::put_by_us,
    writer::patch,
};

/// Selector of the controller's and the speakers' pods, but not of the pod that this runs in.
const PROGRAMS: &str = "app.kubernetes.io/name=herald,app.kubernetes.io/component in (controller,speaker)";
/// Time to wait for the pods to stop. Their termination grace is 5 s; the rest is for a loaded kubelet. A pod on a dead
/// node never goes, and its speaker does not answer: after this time the uninstallation goes on without it.
const STOPPING: Duration = Duration::from_secs(40);
/// Pause between two looks at the pods that are stopping.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The reason why an uninstallation did not complete; another run goes on where it stopped.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {object}")]
pub struct UninstallError {
    /// The step that failed.
    step: &'static str,
    /// The object of the step.
    object: String,
    /// The reason of the failure.
    #[source]
    source: Box<kube::Error>,
}

/// Stops Herald's programs in `namespace`, releases every Service and removes every VirtualIP.
///
/// # Errors
/// When the API server refuses a request for another reason than that the object is gone.
pub async fn uninstall(client: Client, namespace: &str) -> Result<(), UninstallError> {
    // Deletion in the background does not wait for the pods; `stopped` waits for them below.
    let background = DeleteParams::background();
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    gone_or(deployments.delete("herald-controller", &background).await, "stopping Deployment", "herald-controller")?;
    let daemon_sets: Api<DaemonSet> = Api::namespaced(client.clone(), namespace);
    gone_or(daemon_sets.delete("herald-speaker", &background).await, "stopping DaemonSet", "herald-speaker")?;
    stopped(&Api::namespaced(client.clone(), namespace)).await?;

    let vips: Api<VirtualIP> = Api::all(client.clone());
    let held = match vips.list(&ListParams::default()).await {
        Ok(list) => list.items,
        // The definition of VirtualIPs is gone, and they with it. The Services still have to be released.
        Err(kube::Error::Api(status)) if status.code == 404 => Vec::new(),
        Err(error) => return Err(failed("listing", "VirtualIPs", error)),
    };
    let services: Api<Service> = Api::all(client.clone());
    let list = |e| failed("listing", "Services", e);
    for service in services.list(&ListParams::default()).await.map_err(list)?.items {
        let Some(release) = release_of(&service, &held) else { continue };
        let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
        let version = service.resource_version().unwrap_or_default();
        let body = patch::service(&release, &version, &service.uid().unwrap_or_default(), &Time(Timestamp::now()));
        let here: Api<Service> = Api::namespaced(client.clone(), &namespace);
        let manager = PatchParams { field_manager: Some(MANAGER_CONTROLLER.to_owned()), ..PatchParams::default() };
        let written = here.patch_status(&name, &manager, &Patch::Strategic(body)).await;
        gone_or(written, "releasing Service", &format!("{namespace}/{name}"))?;
        tracing::info!("released Service {namespace}/{name}");
    }
    for vip in held {
        let name = vip.name_any();
        gone_or(vips.delete(&name, &DeleteParams::default()).await, "deleting VirtualIP", &name)?;
        let finalizers: Vec<_> = vip.finalizers().iter().filter(|f| *f != FINALIZER_WITHDRAWAL).collect();
        let body = serde_json::json!({"metadata": {"finalizers": finalizers}});
        let written = vips.patch(&name, &PatchParams::default(), &Patch::Merge(body)).await;
        gone_or(written, "removing the finalizer of VirtualIP", &name)?;
        tracing::info!("removed VirtualIP {name}");
    }
    Ok(())
}

/// Returns a patch that removes every trace of Herald from a Service; `None` where there is none. An ingress entry that
/// is the address of no VirtualIP is another provider's.
fn release_of(service: &Service, vips: &[VirtualIP]) -> Option<ServicePatch> {
    let addresses: BTreeSet<IpAddr> = vips.iter().filter_map(|vip| vip.spec.address.parse().ok()).collect();
    let uid = service.metadata.uid.as_deref();
    let served = vips.iter().flat_map(|vip| &vip.spec.services).any(|named| Some(named.uid.as_str()) == uid);
    let status = service.status.as_ref();
    let conditions = status.and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let ingress = status.and_then(|s| s.load_balancer.as_ref()?.ingress.as_deref()).unwrap_or_default();
    let ours = |ip: &str| ip.parse().is_ok_and(|address| addresses.contains(&address));
    let all_ours = !ingress.is_empty() && ingress.iter().all(|i| i.ip.as_deref().is_some_and(ours));
    let told = conditions.iter().any(|c| c.type_ == CONDITION_ADDRESS_ASSIGNED);
    let finalizer = service.finalizers().iter().find_map(|f| match f.as_str() {
        FINALIZER_SERVICE_CLASS => Some(FINALIZER_SERVICE_CLASS),
        // Other providers use this finalizer too: it is ours where Herald put it, or a VirtualIP names the Service.
        FINALIZER_SERVICE_DEFAULT if served || put_by_us(&service.metadata) => Some(FINALIZER_SERVICE_DEFAULT),
        _ => None,
    });
    let patch = ServicePatch {
        ingress: if all_ours { Change::Remove } else { Change::Keep },
        condition: if told { Change::Remove } else { Change::Keep },
        allocated_from: match service.annotations().contains_key(ANNOTATION_ALLOCATED_FROM) {
            true => Change::Remove,
            false => Change::Keep,
        },
        add_finalizer: None,
        remove_finalizer: finalizer,
    };
    (patch != ServicePatch::default()).then_some(patch)
}

/// Waits until no program of Herald runs.
async fn stopped(pods: &Api<Pod>) -> Result<(), UninstallError> {
    let end = Instant::now() + STOPPING;
    loop {
        let list = |e| failed("listing", "Herald's pods", e);
        let left = pods.list_metadata(&ListParams::default().labels(PROGRAMS)).await.map_err(list)?.items;
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > end {
            let names: Vec<_> = left.iter().map(ResourceExt::name_any).collect();
            tracing::warn!("continuing although these pods still exist, apparently on dead nodes: {names:?}");
            return Ok(());
        }
        sleep(LOOK_EVERY).await;
    }
}

fn failed(step: &'static str, object: &str, source: kube::Error) -> UninstallError {
    UninstallError { step, object: object.to_owned(), source: Box::new(source) }
}

/// Turns a 404 into success: an object that is gone needs no further step.
fn gone_or<T>(result: kube::Result<T>, step: &'static str, object: &str) -> Result<(), UninstallError> {
    match result {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(failed(step, object, error)),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::{Arc, Mutex},
    };

    use http::{Request, Response};
    use http_body_util::Full;
    use kube::client::Body;
    use serde_json::{Value, json};
    use test_case::test_case;

    use super::*;

    const KEPT: Change<Vec<IpAddr>> = Change::Keep;

    fn service(finalizers: &[&str], ingress: &[&str], told: bool) -> Service {
        let conditions: Vec<Value> = told
            .then(|| {
                json!({"type": CONDITION_ADDRESS_ASSIGNED, "status": "True", "reason": "Assigned", "message": "",
                       "lastTransitionTime": "2026-01-01T00:00:00Z"})
            })
            .into_iter()
            .collect();
        let ingress: Vec<Value> = ingress.iter().map(|ip| json!({ "ip": ip })).collect();
        serde_json::from_value(json!({
            "metadata": {"name": "web", "uid": "web", "finalizers": finalizers},
            "status": {"loadBalancer": {"ingress": ingress}, "conditions": conditions},
        }))
        .unwrap()
    }

    #[test_case(&[FINALIZER_SERVICE_CLASS], &["192.0.2.1"], true, Some((Change::Remove, Some(FINALIZER_SERVICE_CLASS))); "ours")]
    #[test_case(&[FINALIZER_SERVICE_DEFAULT], &["192.0.2.1"], true, Some((Change::Remove, Some(FINALIZER_SERVICE_DEFAULT))); "ours as the default provider")]
    #[test_case(&[FINALIZER_SERVICE_DEFAULT], &["198.51.100.1"], false, None; "another provider's")]
    #[test_case(&[FINALIZER_SERVICE_DEFAULT], &["198.51.100.1"], true, Some((KEPT, None)); "another provider's, with our condition")]
    #[test_case(&[], &["198.51.100.1"], true, Some((KEPT, None)); "only our condition")]
    #[test_case(&[FINALIZER_SERVICE_CLASS], &[], false, Some((KEPT, Some(FINALIZER_SERVICE_CLASS))); "released half way")]
    #[test_case(&["example.com/theirs"], &[], false, None; "no trace")]
    fn traces_of_herald_are_removed_and_others_stay(
        finalizers: &[&str],
        ingress: &[&str],
        told: bool,
        expected: Option<(Change<Vec<IpAddr>>, Option<&'static str>)>,
    ) {
        let spec = json!({"address": "192.0.2.1", "pool": "lan", "advertisements": [],
            "services": [{"namespace": "ns", "name": "web", "uid": if ingress == ["192.0.2.1"] { "web" } else { "other" }}]});
        let vip = VirtualIP::new("192.0.2.1", serde_json::from_value(spec).unwrap());
        let patch = release_of(&service(finalizers, ingress, told), &[vip]);
        assert_eq!(patch.map(|p| (p.ingress, p.remove_finalizer)), expected);
    }

    /// Returns a client of an API server on which the Services are the only trace of Herald: programs, VirtualIPs and
    /// their definition are gone. It records the patched paths.
    fn only_services(service: &Service, patched: Arc<Mutex<Vec<String>>>) -> Client {
        let services = json!({"metadata": {}, "items": [service]});
        let service = serde_json::to_value(service).unwrap();
        let answer = move |request: Request<Body>| {
            let (code, body) = match (request.method().as_str(), request.uri().path()) {
                ("GET", "/api/v1/services") => (200, services.clone()),
                ("GET", "/api/v1/namespaces/herald-system/pods") => (200, json!({"metadata": {}, "items": []})),
                ("PATCH", path) => {
                    patched.lock().unwrap().push(path.to_owned());
                    (200, service.clone())
                }
                _ => (404, json!({"status": "Failure", "message": "gone", "reason": "NotFound", "code": 404})),
            };
            let body = Full::new(body.to_string().into_bytes().into());
            std::future::ready(Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap()))
        };
        Client::new(tower::service_fn(answer), "default")
    }

    #[tokio::test]
    async fn services_are_released_though_the_definition_of_virtual_ips_is_gone() {
        let mut held = service(&[FINALIZER_SERVICE_CLASS], &[], false);
        held.metadata.namespace = Some("shop".to_owned());
        let patched = Arc::default();
        uninstall(only_services(&held, Arc::clone(&patched)), "herald-system").await.unwrap();
        assert_eq!(*patched.lock().unwrap(), ["/api/v1/namespaces/shop/services/web/status"]);
    }
}

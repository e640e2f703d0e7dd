//! The processes of the control plane's host: etcd, API server, controller manager, scheduler.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result};

use super::init::{Ready, Service};
use super::paths::Paths;
use super::pki::{Authority, write_kubeconfig};
use super::plan::{Plan, SERVICE_NETWORKS};

/// Port of the API server.
const API_PORT: u16 = 6443;

const ETCD_CLIENTS: &str = "http://127.0.0.1:2379";
const ETCD_PEERS: &str = "http://127.0.0.1:2380";

/// Returns the URL of the API server, for kubeconfigs.
pub(super) fn server_url(plan: &Plan) -> String {
    format!("https://{}:{API_PORT}", plan.api_server())
}

/// Returns the readiness check of the API server.
pub(super) fn api_answers(plan: &Plan) -> Ready {
    Ready::Tcp(SocketAddr::from((plan.api_server(), API_PORT)))
}

/// Writes the certificates and files of the control plane, and returns its services.
pub(super) fn prepare(plan: &Plan, paths: &Paths, bin_dir: &Path, ca: &Authority) -> Result<Vec<Service>> {
    let server = server_url(plan);
    for (name, user, group) in [
        ("admin", "kubernetes-admin", Some("system:masters")),
        ("kube-controller-manager", "system:kube-controller-manager", None),
        ("kube-scheduler", "system:kube-scheduler", None),
    ] {
        write_kubeconfig(&paths.kubeconfig(name), &server, &ca.ca_certificate(), &ca.client(name, user, group)?)?;
    }
    let program = |name: &str| bin_dir.join(name).display().to_string();
    Ok(vec![
        service("etcd", None, program("etcd"), etcd_flags()),
        service(
            "kube-apiserver",
            Some(Ready::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 2379)))),
            program("kube-apiserver"),
            api_server_flags(plan, paths, ca)?,
        ),
        service(
            "kube-controller-manager",
            Some(api_answers(plan)),
            program("kube-controller-manager"),
            controller_manager_flags(paths, ca),
        ),
        service("kube-scheduler", Some(api_answers(plan)), program("kube-scheduler"), scheduler_flags(paths)),
    ])
}

fn service(name: &str, after: Option<Ready>, program: String, flags: Vec<String>) -> Service {
    let command = std::iter::once(program).chain(flags).collect();
    Service { name: name.to_owned(), command, env: Default::default(), after }
}

fn etcd_flags() -> Vec<String> {
    vec![
        "--name=lab".to_owned(),
        "--data-dir=/var/lib/etcd".to_owned(),
        format!("--listen-client-urls={ETCD_CLIENTS}"),
        format!("--advertise-client-urls={ETCD_CLIENTS}"),
        format!("--listen-peer-urls={ETCD_PEERS}"),
        format!("--initial-advertise-peer-urls={ETCD_PEERS}"),
        format!("--initial-cluster=lab={ETCD_PEERS}"),
        // A laboratory does not have to survive a power failure of its machine.
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
    ]
}

fn api_server_flags(plan: &Plan, paths: &Paths, ca: &Authority) -> Result<Vec<String>> {
    let address = plan.api_server();
    let (services_v4, services_v6) = SERVICE_NETWORKS;
    let own_service = services_v4.hosts().next().context("an empty service network")?;
    let serving = ca.server(
        "kube-apiserver",
        vec![
            address.to_string(),
            own_service.to_string(),
            Ipv4Addr::LOCALHOST.to_string(),
            "kubernetes".to_owned(),
            "kubernetes.default".to_owned(),
            "kubernetes.default.svc".to_owned(),
            "kubernetes.default.svc.cluster.local".to_owned(),
        ],
    )?;
    let to_kubelets =
        ca.client("kube-apiserver-kubelet-client", "kube-apiserver-kubelet-client", Some("system:masters"))?;
    let policy = paths.host_conf("control").join("audit-policy.json");
    let rule = serde_json::json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        // The log has user, request and response code, once per request at its end.
        "rules": [{"level": "Metadata"}],
        "omitStages": ["RequestReceived"],
    });
    fs::write(&policy, rule.to_string()).with_context(|| policy.display().to_string())?;
    Ok(vec![
        format!("--advertise-address={address}"),
        format!("--secure-port={API_PORT}"),
        format!("--etcd-servers={ETCD_CLIENTS}"),
        format!("--tls-cert-file={}", serving.certificate.display()),
        format!("--tls-private-key-file={}", serving.key.display()),
        format!("--client-ca-file={}", ca.ca_certificate().display()),
        format!("--kubelet-client-certificate={}", to_kubelets.certificate.display()),
        format!("--kubelet-client-key={}", to_kubelets.key.display()),
        format!("--kubelet-certificate-authority={}", ca.ca_certificate().display()),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={}", ca.service_account_public_key().display()),
        format!("--service-account-signing-key-file={}", ca.service_account_key().display()),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        format!("--service-cluster-ip-range={services_v4},{services_v6}"),
        "--allow-privileged=true".to_owned(),
        format!("--audit-policy-file={}", policy.display()),
        format!("--audit-log-path={}", paths.audit_log().display()),
        "--profiling=false".to_owned(),
    ])
}

fn controller_manager_flags(paths: &Paths, ca: &Authority) -> Vec<String> {
    let kubeconfig = paths.kubeconfig("kube-controller-manager").display().to_string();
    vec![
        format!("--kubeconfig={kubeconfig}"),
        // --authentication-kubeconfig is omitted: it would only serve requests for metrics, and makes the start fail
        // until the API server has created the ConfigMap that it reads.
        "--bind-address=127.0.0.1".to_owned(),
        "--use-service-account-credentials=true".to_owned(),
        format!("--service-account-private-key-file={}", ca.service_account_key().display()),
        format!("--root-ca-file={}", ca.ca_certificate().display()),
        format!("--cluster-signing-cert-file={}", ca.ca_certificate().display()),
        format!("--cluster-signing-key-file={}", ca.ca_key().display()),
        // Upstream's default is 50 s. Two renewals of a node's lease (10 s each) fit in 20 s too.
        "--node-monitor-grace-period=20s".to_owned(),
        // A new node waits for one period to lose its not-ready taint; upstream's default is 5 s.
        "--node-monitor-period=1s".to_owned(),
        // The default is below /usr, which belongs to the machine, and is created at start.
        "--flex-volume-plugin-dir=/var/lib/kubelet/volume-plugins".to_owned(),
        // Each of its controllers fetches a token at start; that takes 3 s at the default of 20 requests a second.
        "--kube-api-qps=100".to_owned(),
        "--kube-api-burst=200".to_owned(),
        // Each component has a single replica, so no leader election is needed.
        "--leader-elect=false".to_owned(),
        "--profiling=false".to_owned(),
    ]
}

fn scheduler_flags(paths: &Paths) -> Vec<String> {
    let kubeconfig = paths.kubeconfig("kube-scheduler").display().to_string();
    vec![
        format!("--kubeconfig={kubeconfig}"),
        "--bind-address=127.0.0.1".to_owned(),
        "--leader-elect=false".to_owned(),
        "--profiling=false".to_owned(),
    ]
}

//! The processes of a node (containerd, kubelet, kube-proxy) and its images.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::control_plane;
use super::host::Host;
use super::init::{Ready, Service};
use super::paths::Paths;
use super::pki::{Authority, Credentials, write_kubeconfig};
use super::plan::{HostPlan, POD_NETWORKS, Plan, Role, pod_networks};
use super::spec::ProxyMode;
use crate::images::PAUSE_IMAGE;

const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";
/// Directory of the CNI plugins in Debian.
pub(super) const CNI_PLUGINS: &str = "/usr/lib/cni";

/// Writes the certificates and files of a node, and returns its services.
pub(super) fn prepare(
    plan: &Plan,
    node: &HostPlan,
    proxy: ProxyMode,
    paths: &Paths,
    bin_dir: &Path,
    ca: &Authority,
) -> Result<Vec<Service>> {
    let name = &node.name;
    let server = control_plane::server_url(plan);
    let kubelet_user = ca.client(&format!("{name}-kubelet"), &format!("system:node:{name}"), Some("system:nodes"))?;
    write_kubeconfig(&paths.kubeconfig(&format!("{name}-kubelet")), &server, &ca.ca_certificate(), &kubelet_user)?;
    // Upstream's bootstrap policy binds this user to system:node-proxier.
    let proxy_user = ca.client(&format!("{name}-kube-proxy"), "system:kube-proxy", None)?;
    write_kubeconfig(&paths.kubeconfig(&format!("{name}-kube-proxy")), &server, &ca.ca_certificate(), &proxy_user)?;
    let addresses = node.addresses(0);
    let mut names: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    names.push(name.clone());
    let serving = ca.server(&format!("{name}-kubelet"), names)?;

    let file = |file: &str, text: String| -> Result<PathBuf> {
        let path = paths.host_conf(name).join(file);
        fs::write(&path, text).with_context(|| path.display().to_string())?;
        Ok(path)
    };
    let containerd = file("containerd.toml", containerd_config(bin_dir))?;
    let kubelet = file("kubelet.json", kubelet_config(&ca.ca_certificate(), &serving).to_string())?;
    let kube_proxy = file(
        "kube-proxy.json",
        proxy_config(&paths.kubeconfig(&format!("{name}-kube-proxy")), name, proxy).to_string(),
    )?;
    let node_ips = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let api = control_plane::api_answers(plan);
    Ok(vec![
        service(bin_dir, "containerd", None, vec![format!("--config={}", containerd.display())]),
        service(
            bin_dir,
            "kubelet",
            Some(Ready::Unix(CONTAINERD_SOCKET.into())),
            vec![
                format!("--config={}", kubelet.display()),
                format!("--kubeconfig={}", paths.kubeconfig(&format!("{name}-kubelet")).display()),
                format!("--hostname-override={name}"),
                format!("--node-ip={node_ips}"),
            ],
        ),
        service(bin_dir, "kube-proxy", Some(api), vec![format!("--config={}", kube_proxy.display())]),
    ])
}

fn service(bin_dir: &Path, name: &str, after: Option<Ready>, flags: Vec<String>) -> Service {
    let command = std::iter::once(bin_dir.join(name).display().to_string()).chain(flags).collect();
    // containerd finds its shim through PATH.
    let path = format!("{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", bin_dir.display());
    Service { name: name.to_owned(), command, env: BTreeMap::from([("PATH".to_owned(), path)]), after }
}

/// Returns the files below /etc that a node has in addition to those of every host.
pub(super) fn etc(node: &HostPlan) -> BTreeMap<PathBuf, String> {
    let Role::Node(number) = node.role else { return BTreeMap::new() };
    let (pods_v4, pods_v6) = pod_networks(number);
    let network = json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isDefaultGateway": true,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    // The allocations are in memory: a node that lost power has no pods, so no address is in use.
                    "dataDir": "/run/cni-addresses",
                    "ranges": [[{"subnet": pods_v4.to_string()}], [{"subnet": pods_v6.to_string()}]],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    });
    BTreeMap::from([("cni/net.d/10-pods.conflist".into(), network.to_string())])
}

/// The directory in which a node's containerd looks up what it has to know of a registry, whenever it pulls.
pub(crate) const REGISTRIES: &str = "/etc/containerd/certs.d";

fn containerd_config(bin_dir: &Path) -> String {
    let shim = bin_dir.join("containerd-shim-runc-v2");
    // restrict_oom_score_adj: without CAP_SYS_RESOURCE runc may not lower its score, and fails with only "can't get
    // final child's PID from pipe: EOF".
    format!(
        "version = 3\n\
         root = '/var/lib/containerd'\n\
         state = '/run/containerd'\n\
         [grpc]\n\
         address = '{CONTAINERD_SOCKET}'\n\
         [plugins.'io.containerd.cri.v1.images']\n\
         snapshotter = 'overlayfs'\n\
         [plugins.'io.containerd.cri.v1.images'.registry]\n\
         config_path = '{REGISTRIES}'\n\
         [plugins.'io.containerd.cri.v1.images'.pinned_images]\n\
         sandbox = '{PAUSE_IMAGE}'\n\
         [plugins.'io.containerd.cri.v1.runtime']\n\
         restrict_oom_score_adj = true\n\
         [plugins.'io.containerd.cri.v1.runtime'.cni]\n\
         bin_dirs = ['{CNI_PLUGINS}']\n\
         conf_dir = '/etc/cni/net.d'\n\
         [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\n\
         runtime_type = 'io.containerd.runc.v2'\n\
         runtime_path = '{}'\n\
         [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]\n\
         SystemdCgroup = false\n",
        shim.display()
    )
}

fn kubelet_config(ca: &Path, serving: &Credentials) -> serde_json::Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        // An image that a pod pulled with a password may be run by others without it, since the same image is loaded into each
        // node (kubernetes, pkg/kubelet/images/pullmanager: the kubelet would ask the registry again, by the image's digest).
        "imagePullCredentialsVerificationPolicy": "NeverVerify",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": ca},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": serving.certificate,
        "tlsPrivateKeyFile": serving.key,
        "containerRuntimeEndpoint": format!("unix://{CONTAINERD_SOCKET}"),
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": true,
        "enforceNodeAllocatable": ["pods"],
        "failCgroupV1": false,
        "failSwapOn": false,
        "protectKernelDefaults": false,
        // The default lowers its own score, which needs CAP_SYS_RESOURCE.
        "oomScoreAdj": 0,
        // With the defaults (10 s, 5 min) a returning node takes up to 25 s to become Ready.
        "nodeStatusUpdateFrequency": "4s",
        "nodeStatusReportFrequency": "4s",
        "clusterDomain": "cluster.local",
        "clusterDNS": ["10.96.0.10"],
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        // The disk belongs to the machine, so its usage does not describe the node.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%"},
        "maxPods": 200,
    })
}

fn proxy_config(kubeconfig: &Path, node: &str, mode: ProxyMode) -> serde_json::Value {
    let (pods_v4, pods_v6) = POD_NETWORKS;
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": mode.to_string(),
        "hostnameOverride": node,
        "clusterCIDR": format!("{pods_v4},{pods_v6}"),
        "clientConnection": {"kubeconfig": kubeconfig},
        "oomScoreAdj": 0,
        // kube-ipvs0 of every node has every Service's address. Without strictARP each node's kernel answers ARP for
        // them, so every provider that announces on layer 2 requires it. The other modes do not read this field.
        "ipvs": {"strictARP": true},
        // 0 keeps the kernel's values, which apply to the whole machine.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s",
            "udpTimeout": "0s", "udpStreamTimeout": "0s"},
    })
}

/// Returns whether a node's containerd answers.
pub(super) fn containerd_answers(node: &Host, bin_dir: &Path) -> Result<bool> {
    Ok(ctr(node, bin_dir)?.arg("version").output().context("starting ctr")?.status.success())
}

/// Imports an image archive on all of these nodes concurrently.
pub(super) fn import_everywhere(nodes: &[Host], bin_dir: &Path, archive: &Path) -> Result<()> {
    let archive = archive.canonicalize().with_context(|| archive.display().to_string())?;
    let mut running = Vec::new();
    for node in nodes.iter().filter(|node| node.init().is_some()) {
        // The file is opened here because the node need not see it.
        let input = fs::File::open(&archive).with_context(|| archive.display().to_string())?;
        let mut command = ctr(node, bin_dir)?;
        command.args(["images", "import", "--all-platforms", "-"]).stdin(input);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        running.push((node.name(), command.spawn().with_context(|| format!("starting ctr on {}", node.name()))?));
    }
    for (node, child) in running {
        let output = child.wait_with_output().with_context(|| format!("waiting for ctr on {node}"))?;
        if !output.status.success() {
            bail!("importing {} on {node}: {}", archive.display(), String::from_utf8_lossy(&output.stderr).trim());
        }
    }
    Ok(())
}

fn ctr(node: &Host, bin_dir: &Path) -> Result<std::process::Command> {
    let mut command = node.command(bin_dir.join("ctr"))?;
    command.args(["--address", CONTAINERD_SOCKET, "--namespace", "k8s.io"]);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kube_proxy_config_has_strict_arp() {
        let config = proxy_config(Path::new("/kubeconfig"), "node1", ProxyMode::Ipvs);
        assert_eq!((&config["mode"], &config["ipvs"]["strictARP"]), (&json!("ipvs"), &json!(true)));
    }
}

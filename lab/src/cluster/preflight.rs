//! Checks whether this machine can carry a laboratory; all missing parts are reported at once.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use super::node_agents::CNI_PLUGINS;
use super::spec::{ProxyMode, Spec};

/// Programs that the laboratory starts, and their Debian packages.
const PROGRAMS: [(&str, &str); 13] = [
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
    ("mount", "mount"),
    ("kill", "procps"),
    ("runc", "runc"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("tcpdump", "tcpdump"),
    ("buildah", "buildah"),
    ("modprobe", "kmod"),
];

/// CNI plugins that connect the nodes' pods.
const PLUGINS: [&str; 4] = ["bridge", "host-local", "loopback", "portmap"];

/// buildah pulls nothing here, but does not start without a policy for pulls.
const BUILDER_POLICY: &str = "/etc/containers/policy.json";

/// A kernel feature that some scenarios need and most laboratories do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// Several network cards as one interface.
    Bonding,
    /// Networks that are distinguished by a tag.
    Vlan,
    /// Separate routing tables for some interfaces.
    Vrf,
    /// kube-proxy's mode `ipvs`.
    Ipvs,
    /// Control groups of version 2, and none of version 1.
    CgroupV2,
}

impl Feature {
    /// Returns its name, and a script that succeeds where the kernel has the feature.
    fn attempt(self) -> Attempt {
        match self {
            Self::Bonding => ("bonding (CONFIG_BONDING)", "ip link add bond0 type bond mode active-backup miimon 100"),
            Self::Vlan => (
                "VLANs (CONFIG_VLAN_8021Q)",
                "ip link add veth0 type veth peer name veth1 && ip link add link veth0 name veth0.100 type vlan id 100",
            ),
            Self::Vrf => ("VRFs (CONFIG_NET_VRF)", "ip link add blue type vrf table 100"),
            Self::Ipvs => (
                "IPVS (CONFIG_IP_VS), which kube-proxy's ipvs mode needs; choose --proxy nftables or iptables",
                "test -e /proc/net/ip_vs || { modprobe ip_vs && test -e /proc/net/ip_vs; }",
            ),
            Self::CgroupV2 => (
                "cgroup version 2 alone (CONFIG_CGROUPS; systemd.unified_cgroup_hierarchy=1)",
                "test -e /sys/fs/cgroup/cgroup.controllers && test \"$(grep -vc ^0:: /proc/self/cgroup)\" = 0",
            ),
        }
    }
}

/// Checks that this machine's kernel has all of these features.
///
/// # Errors
/// When the kernel lacks a feature; the error names all missing ones.
pub fn check_features(features: &[Feature]) -> Result<()> {
    let mut features = features.to_vec();
    features.sort_unstable();
    features.dedup();
    let lacking = lacking(features.into_iter().map(Feature::attempt));
    if lacking.is_empty() {
        return Ok(());
    }
    let list: String = lacking.iter().map(|feature| format!("\n  - {feature}")).collect();
    bail!(
        "this machine's kernel cannot run these scenarios; it lacks:{list}\n`make vm-test` runs them in one that can"
    );
}

/// The check of a kernel feature: its name for readers, and a script that succeeds where the kernel has the feature.
type Attempt = (&'static str, &'static str);

fn lacking(attempts: impl IntoIterator<Item = Attempt>) -> Vec<&'static str> {
    attempts.into_iter().filter(|(_, attempt)| !works_in_a_namespace(attempt)).map(|(feature, _)| feature).collect()
}

/// A part that this machine lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Lack {
    Root,
    Program { program: &'static str, package: &'static str },
    File { file: PathBuf, package: &'static str },
    Kernel { feature: &'static str },
    Watches { limit: u32, needed: u32 },
}

impl std::fmt::Display for Lack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Root => write!(f, "root: namespaces, mounts and cgroups need it (run it with sudo)"),
            Self::Program { program, package } => write!(f, "the program {program} (Debian package {package})"),
            Self::File { file, package } => write!(f, "{} (Debian package {package})", file.display()),
            Self::Kernel { feature } => write!(f, "the kernel's {feature}"),
            Self::Watches { limit, needed } => write!(
                f,
                "inotify instances for that many nodes: {needed} needed, fs.inotify.max_user_instances is {limit} \
                 (sysctl -w fs.inotify.max_user_instances=1024)"
            ),
        }
    }
}

/// Checks that this machine can carry the laboratory.
///
/// # Errors
/// When a part is missing; the error names all missing ones.
pub fn check(spec: &Spec) -> Result<()> {
    let lacks = lacks(spec);
    if lacks.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<&str> = lacks.iter().filter_map(Lack::package).collect();
    packages.sort_unstable();
    packages.dedup();
    let list = lacks.iter().map(|lack| format!("\n  - {lack}")).collect::<String>();
    if packages.is_empty() {
        bail!("this machine cannot carry a lab; it lacks:{list}");
    }
    bail!(
        "this machine cannot carry a lab; it lacks:{list}\non Debian or Ubuntu: apt-get install {}",
        packages.join(" ")
    );
}

impl Lack {
    fn package(&self) -> Option<&'static str> {
        match self {
            Self::Program { package, .. } | Self::File { package, .. } => Some(package),
            Self::Root | Self::Kernel { .. } | Self::Watches { .. } => None,
        }
    }
}

fn lacks(spec: &Spec) -> Vec<Lack> {
    let mut lacks = Vec::new();
    let root = nix::unistd::geteuid().is_root();
    if !root {
        lacks.push(Lack::Root);
    }
    lacks.extend(
        PROGRAMS
            .iter()
            .filter(|(program, _)| !on_path(program))
            .map(|&(program, package)| Lack::Program { program, package }),
    );
    lacks.extend(
        PLUGINS
            .iter()
            .map(|plugin| (Path::new(CNI_PLUGINS).join(plugin), "containernetworking-plugins"))
            .chain([(PathBuf::from(BUILDER_POLICY), "golang-github-containers-common")])
            .filter(|(file, _)| !file.exists())
            .map(|(file, package)| Lack::File { file, package }),
    );
    let limit =
        std::fs::read_to_string("/proc/sys/fs/inotify/max_user_instances").ok().and_then(|n| n.trim().parse().ok());
    lacks.extend(limit.and_then(|limit| watches_lack(spec.nodes, limit)));
    // Kernel features are tested by using them, in namespaces that end with the test; this needs root.
    if root && on_path("ip") && on_path("unshare") && on_path("nft") {
        lacks.extend(kernel_lacks(spec.proxy).into_iter().map(|feature| Lack::Kernel { feature }));
    }
    lacks
}

/// Checks the number of inotify instances, as counted on a running laboratory: kubelet 6, containerd 2 and kube-proxy 1
/// per node; 8 for the control plane. (The limit is per user, so other laboratories and programs of this user count
/// too: the reserve for them equals that of the control plane.)
fn watches_lack(nodes: u8, limit: u32) -> Option<Lack> {
    let needed = 9 * u32::from(nodes) + 8 + 8;
    (needed > limit).then_some(Lack::Watches { limit, needed })
}

fn kernel_lacks(proxy: ProxyMode) -> Vec<&'static str> {
    let mut attempts = vec![
        ("network namespaces (CONFIG_NET_NS)", "true"),
        ("veth pairs (CONFIG_VETH)", "ip link add veth0 type veth peer name veth1"),
        ("bridges (CONFIG_BRIDGE)", "ip link add br0 type bridge"),
        (
            "nftables with masquerading (CONFIG_NF_TABLES, CONFIG_NFT_MASQ)",
            "nft 'add table inet t; add chain inet t c { type nat hook postrouting priority 0; }; add rule inet t c masquerade'",
        ),
        (
            "br_netfilter (CONFIG_BRIDGE_NETFILTER)",
            "test -e /proc/sys/net/bridge/bridge-nf-call-iptables || { modprobe br_netfilter && test -e /proc/sys/net/bridge/bridge-nf-call-iptables; }",
        ),
        (
            "overlay file system (CONFIG_OVERLAY_FS), over directories in /var/tmp (which may not be an overlay itself)",
            OVERLAY,
        ),
    ];
    match proxy {
        ProxyMode::Nftables => {}
        ProxyMode::Iptables => attempts.push(("iptables (CONFIG_NETFILTER_XTABLES)", "iptables -t nat -L -n")),
        ProxyMode::Ipvs => attempts.push(Feature::Ipvs.attempt()),
    }
    lacking(attempts)
}

/// Mounts an overlay whose writable layer is in the directory where the nodes will have theirs.
const OVERLAY: &str = "d=$(mktemp -d /var/tmp/herald-lab-preflight.XXXXXX) || exit 1
mkdir $d/lower $d/upper $d/work $d/merged
mount -t overlay overlay -o lowerdir=$d/lower,upperdir=$d/upper,workdir=$d/work $d/merged && umount $d/merged
worked=$?
rm -rf $d
exit $worked";

fn works_in_a_namespace(attempt: &str) -> bool {
    Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", attempt])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // An unprivileged user's PATH often lacks the administrator's directories.
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .any(|directory| directory.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_part_names_its_package() {
        let lack = Lack::Program { program: "nft", package: "nftables" };
        assert_eq!(lack.to_string(), "the program nft (Debian package nftables)");
        let lack = Lack::File { file: "/usr/lib/cni/bridge".into(), package: "containernetworking-plugins" };
        assert_eq!(lack.to_string(), "/usr/lib/cni/bridge (Debian package containernetworking-plugins)");
    }

    #[test]
    fn default_inotify_limit_carries_twelve_nodes() {
        assert_eq!(watches_lack(12, 128), None);
        assert_eq!(watches_lack(13, 128), Some(Lack::Watches { limit: 128, needed: 133 }));
    }

    #[test]
    fn program_is_found_on_the_path() {
        assert!(on_path("sh"));
        assert!(!on_path("no-such-program-anywhere"));
    }
}

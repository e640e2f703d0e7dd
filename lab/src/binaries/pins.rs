//! The sources of the cluster's programs and their build settings.

use anyhow::{Context, Result};

use super::cache::hash_of;

/// A set of modules that are built together.
pub(super) struct Pin {
    /// Its name.
    pub(super) name: &'static str,
    /// Build tags.
    pub(super) tags: &'static str,
    /// go.mod, go.sum, and the program, or a file whose imports keep the requirements in place under `go mod tidy`.
    pub(super) files: [(&'static str, &'static str); 3],
    /// The programs that are built from it.
    pub(super) packages: &'static [Package],
}

/// A program of the cluster.
pub(super) struct Package {
    /// Name of the program.
    pub(super) program: &'static str,
    /// Path of its package.
    pub(super) path: &'static str,
}

/// All pins.
pub(super) const PINS: [&Pin; 2] = [&KUBERNETES, &CONTAINERD];

const KUBERNETES: Pin = Pin {
    name: "Kubernetes",
    tags: "",
    files: [
        ("go.mod", include_str!("../../binaries/kubernetes/go.mod")),
        ("go.sum", include_str!("../../binaries/kubernetes/go.sum")),
        ("tools.go", include_str!("../../binaries/kubernetes/tools.go")),
    ],
    packages: &[
        Package { program: "kube-apiserver", path: "k8s.io/kubernetes/cmd/kube-apiserver" },
        Package { program: "kubectl", path: "k8s.io/kubernetes/cmd/kubectl" },
        Package { program: "etcd", path: "go.etcd.io/etcd/server/v3" },
        Package { program: "kube-controller-manager", path: "k8s.io/kubernetes/cmd/kube-controller-manager" },
        Package { program: "kube-scheduler", path: "k8s.io/kubernetes/cmd/kube-scheduler" },
        Package { program: "kube-proxy", path: "k8s.io/kubernetes/cmd/kube-proxy" },
        Package { program: "kubelet", path: "k8s.io/kubernetes/cmd/kubelet" },
    ],
};

const CONTAINERD: Pin = Pin {
    name: "containerd",
    // Unused snapshotters.
    tags: "no_btrfs no_zfs no_devmapper",
    files: [
        ("go.mod", include_str!("../../binaries/containerd/go.mod")),
        ("go.sum", include_str!("../../binaries/containerd/go.sum")),
        ("tools.go", include_str!("../../binaries/containerd/tools.go")),
    ],
    packages: &[
        Package { program: "containerd", path: "github.com/containerd/containerd/v2/cmd/containerd" },
        Package { program: "ctr", path: "github.com/containerd/containerd/v2/cmd/ctr" },
        Package {
            program: "containerd-shim-runc-v2",
            path: "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
        },
    ],
};

/// Helm, by which a chart is tried. It is no program of the cluster.
pub(super) const HELM: Pin = Pin {
    name: "Helm",
    tags: "",
    files: [
        ("go.mod", include_str!("../../binaries/helm/go.mod")),
        ("go.sum", include_str!("../../binaries/helm/go.sum")),
        ("tools.go", include_str!("../../binaries/helm/tools.go")),
    ],
    packages: &[Package { program: "helm", path: "helm.sh/helm/v4/cmd/helm" }],
};

/// A registry of images for one user, of go-containerregistry's package.
pub(super) const REGISTRY: Pin = Pin {
    name: "the registry",
    tags: "",
    files: [
        ("go.mod", include_str!("../../binaries/registry/go.mod")),
        ("go.sum", include_str!("../../binaries/registry/go.sum")),
        ("main.go", include_str!("../../binaries/registry/main.go")),
    ],
    packages: &[Package { program: "registry", path: "heraldlb.io/e2e/binaries/registry" }],
};

/// The module whose version the Kubernetes binaries report.
const KUBERNETES_MODULE: &str = "k8s.io/kubernetes";

impl Pin {
    /// Returns the flags of the linker: no symbols, and the version that the programs report.
    ///
    /// # Errors
    /// When the version of Kubernetes in go.mod is invalid.
    pub(super) fn linker_flags(&self) -> Result<String> {
        let Some(version) = required_version(self.files[0].1, KUBERNETES_MODULE) else { return Ok("-s -w".to_owned()) };
        let mut parts = version.trim_start_matches('v').split('.');
        let (major, minor) =
            parts.next().zip(parts.next()).with_context(|| format!("{KUBERNETES_MODULE} {version}"))?;
        let variable = "-X k8s.io/component-base/version";
        Ok(format!("-s -w {variable}.gitVersion={version} {variable}.gitMajor={major} {variable}.gitMinor={minor}"))
    }
}

impl Package {
    /// Returns the name that `go build -o DIRECTORY/` gives the program: the last element of its path that is not a
    /// major version.
    pub(super) fn built_as(&self) -> &'static str {
        let version = |element: &str| element.strip_prefix('v').is_some_and(|rest| rest.parse::<u8>().is_ok());
        self.path.rsplit('/').find(|element| !version(element)).unwrap_or(self.path)
    }
}

/// Returns a text that changes whenever a build with these flags could have another result. (The version of Go does not
/// count: the result of an older one is as good.)
pub(super) fn hash_of_pins(compiler_flags: &str) -> String {
    let texts = PINS.into_iter().flat_map(|pin| pin.files.into_iter().map(|(_, text)| text).chain([pin.tags]));
    hash_of(texts.chain([compiler_flags]).map(str::as_bytes))
}

/// Returns a text that changes whenever a build of this pin alone would give something else.
pub(super) fn hash_of_pin(pin: &Pin, compiler_flags: &str) -> String {
    let texts = pin.files.into_iter().map(|(_, text)| text);
    hash_of(texts.chain([pin.tags, compiler_flags]).map(str::as_bytes))
}

/// Returns the version that a go.mod requires of a module: `v1.36.3`.
fn required_version<'a>(go_mod: &'a str, module: &str) -> Option<&'a str> {
    go_mod.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip_while(|word| *word == "require");
        (words.next() == Some(module)).then(|| words.next()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_version_comes_from_its_pin() {
        let version = required_version(KUBERNETES.files[0].1, KUBERNETES_MODULE).unwrap();
        let flags = KUBERNETES.linker_flags().unwrap();
        assert!(flags.contains(&format!("gitVersion={version} ")), "{flags}");
        assert_eq!(CONTAINERD.linker_flags().unwrap(), "-s -w");
    }

    #[test]
    fn single_requirement_is_parsed() {
        assert_eq!(required_version("module x\nrequire example.org/y v1.2.3\n", "example.org/y"), Some("v1.2.3"));
        assert_eq!(required_version("module example.org/y\n", "example.org/y"), None);
    }

    #[test]
    fn built_program_is_found_under_gos_name() {
        let names: Vec<_> = KUBERNETES.packages.iter().map(|package| (package.program, package.built_as())).collect();
        assert!(names.contains(&("etcd", "server")), "{names:?}");
        assert!(names.contains(&("kubelet", "kubelet")), "{names:?}");
    }
}

//! The shipped manifests in one file each, as a user applies them: the output of kubectl's kustomize for a directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use herald_lab::binaries;
use herald_lab::progress::Progress;

/// A set of objects that is applied at once: a directory below `deploy` for kustomize, and the file with all its
/// objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manifest {
    directory: &'static str,
    file: &'static str,
    about: &'static str,
}

impl Manifest {
    /// Serves the Services of Herald's class.
    pub const CLASS: Self =
        Self { directory: "herald", file: "herald.yaml", about: "Herald serves the Services of class heraldlb.io/l2." };
    /// Serves Services without a class too.
    pub const DEFAULT_PROVIDER: Self = Self {
        directory: "default-provider",
        file: "herald-default-provider.yaml",
        about: "Herald serves the Services of class heraldlb.io/l2, and those that name no class.",
    };
    /// Releases Services, pools and VirtualIPs from Herald.
    pub const UNINSTALL: Self = Self {
        directory: "uninstall",
        file: "herald-uninstall.yaml",
        about: "The first step of Herald's uninstallation: Services lose their addresses and Herald's finalizers.",
    };
    /// Lets the controller read Gateways, and tells it to.
    pub const GATEWAY_ADDRESSES: Self = Self {
        directory: "gateway-addresses",
        file: "herald-gateway-addresses.yaml",
        about: "Herald honours spec.addresses of Gateways: apply it in addition to Herald, then restart the \
                controller.",
    };
    /// All that are shipped.
    pub const ALL: [Self; 4] = [Self::CLASS, Self::DEFAULT_PROVIDER, Self::UNINSTALL, Self::GATEWAY_ADDRESSES];

    /// Returns the directory for kustomize.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        deploy().join(self.directory)
    }

    /// Returns the path of the file.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        deploy().join(self.file)
    }

    /// Returns the file's name in `deploy`.
    #[must_use]
    pub fn file_name(&self) -> &'static str {
        self.file
    }

    /// Returns the content that the file must have.
    ///
    /// # Errors
    /// When kubectl cannot be started or refuses the directory.
    pub fn content(&self, kubectl: &Path) -> Result<String> {
        let Self { directory, about, .. } = self;
        let mut command = Command::new(kubectl);
        let output = command.arg("kustomize").arg(self.directory()).output();
        let output = output.with_context(|| format!("starting {}", kubectl.display()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl kustomize deploy/{directory}: {said}");
        let objects = String::from_utf8(output.stdout).context("kubectl writes UTF-8")?;
        Ok(format!("# {about}\n# `make manifests` makes this file of deploy/{directory}: edit that.\n{objects}"))
    }
}

/// Returns the directory of the shipped manifests.
#[must_use]
pub fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

/// The Helm chart.
#[must_use]
pub fn chart() -> PathBuf {
    deploy().join("helm/herald")
}

/// The CustomResourceDefinitions, which the chart has copies of: the name of each file, and what it holds.
///
/// # Errors
/// When one cannot be read.
pub fn definitions(directory: &Path) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let file = entry.with_context(|| directory.display().to_string())?.path();
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if name != "kustomization.yaml" {
            found.insert(name, std::fs::read_to_string(&file).with_context(|| file.display().to_string())?);
        }
    }
    Ok(found)
}

/// Writes all files, and the chart's copies of the CustomResourceDefinitions.
///
/// # Errors
/// When kubectl cannot be built or refuses a directory, or a file cannot be written.
pub fn write(progress: &Progress) -> Result<()> {
    let kubectl = binaries::provide(None, progress)?.join("kubectl");
    for manifest in Manifest::ALL {
        let file = manifest.file();
        std::fs::write(&file, manifest.content(&kubectl)?).with_context(|| file.display().to_string())?;
    }
    for (name, definition) in definitions(&deploy().join("crds"))? {
        let file = chart().join("crds").join(name);
        std::fs::write(&file, definition).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_of_the_chart_are_the_shipped_ones() {
        let (shipped, copied) = (definitions(&deploy().join("crds")), definitions(&chart().join("crds")));
        assert_eq!(shipped.unwrap(), copied.unwrap(), "`make manifests` copies them");
    }
}

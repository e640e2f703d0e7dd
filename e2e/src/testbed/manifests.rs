//! The shipped manifests in one file each, as a user applies them: what kubectl's kustomize makes of a directory.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use herald_lab::binaries;
use herald_lab::progress::Progress;

/// What is applied in one go: a directory below `deploy` for kustomize, and the file with all its objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manifest {
    directory: &'static str,
    file: &'static str,
    about: &'static str,
}

impl Manifest {
    /// Services of Herald's class.
    pub const CLASS: Self =
        Self { directory: "herald", file: "herald.yaml", about: "Herald serves the Services of class heraldlb.io/l2." };
    /// Also Services of no class.
    pub const DEFAULT_PROVIDER: Self = Self {
        directory: "default-provider",
        file: "herald-default-provider.yaml",
        about: "Herald serves the Services of class heraldlb.io/l2, and those that name no class.",
    };
    /// Takes Services, pools and VirtualIPs out of Herald's hands.
    pub const UNINSTALL: Self = Self {
        directory: "uninstall",
        file: "herald-uninstall.yaml",
        about: "The first step of Herald's uninstallation: Services lose their addresses and Herald's finalizers.",
    };
    /// Lets the controller read Gateways, and tells it to.
    pub const GATEWAY_ADDRESSES: Self = Self {
        directory: "gateway-addresses",
        file: "herald-gateway-addresses.yaml",
        about: "Herald honours spec.addresses of Gateways: apply it beside Herald, then restart the controller.",
    };
    /// All that are shipped.
    pub const ALL: [Self; 4] = [Self::CLASS, Self::DEFAULT_PROVIDER, Self::UNINSTALL, Self::GATEWAY_ADDRESSES];

    /// The directory for kustomize.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        deploy().join(self.directory)
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        deploy().join(self.file)
    }

    /// Its name in `deploy`.
    #[must_use]
    pub fn file_name(&self) -> &'static str {
        self.file
    }

    /// What the file has to hold.
    ///
    /// # Errors
    /// When kubectl cannot be started, or refuses the directory.
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

/// The shipped manifests.
#[must_use]
pub fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

/// Writes all files.
///
/// # Errors
/// When kubectl cannot be built or refuses a directory, or a file cannot be written.
pub fn write(progress: &Progress) -> Result<()> {
    let kubectl = binaries::provide(None, progress)?.join("kubectl");
    for manifest in Manifest::ALL {
        let file = manifest.file();
        std::fs::write(&file, manifest.content(&kubectl)?).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

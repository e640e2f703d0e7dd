//! Installation of Herald in the laboratory in the way a user does it: image, `kubectl apply -f`, wait.

use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::testbed::manifests::{Manifest, deploy};
use herald_lab::binaries;
use herald_lab::cluster::Lab;
use herald_lab::images;
use herald_lab::progress::Progress;
use herald_lab::wait_factor::kubectl_timeout;

/// The image of the laboratory's workload.
pub const ECHO_IMAGE: &str = "localhost/herald-echo:lab";
/// The image that the shipped manifests name.
pub const HERALD_IMAGE: &str = "ghcr.io/heraldlb/herald:v0.1.0";
/// The namespace of Herald in the shipped manifests.
pub const NAMESPACE: &str = "herald-system";

/// Time for the pods of a rollout: images are present, so it takes seconds; the rest is a margin for a busy machine.
pub(crate) const ROLLOUT: Duration = Duration::from_secs(90);

/// Archives of the images that a cluster with Herald needs.
#[derive(Clone, Debug)]
pub struct Images {
    /// The archive of Herald's image.
    pub herald: PathBuf,
    /// The archive of the echo server's image.
    pub echo: PathBuf,
}

impl Images {
    /// Builds what has changed since the last build: static binaries, then the images with buildah.
    ///
    /// # Errors
    /// When a build fails.
    pub fn build(progress: &Progress) -> Result<Self> {
        let built = binaries::build_static(progress)?;
        let image = |containerfile: &Path, programs: &[&Path], tag| -> Result<PathBuf> {
            let context = tempfile::tempdir().context("making a directory for the build")?;
            for program in programs {
                let name = program.file_name().context("a program has a name")?;
                std::fs::copy(program, context.path().join(name)).with_context(|| program.display().to_string())?;
            }
            images::build(containerfile, context.path(), tag, progress)
        };
        let echo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lab/images/echo/Containerfile");
        Ok(Self {
            herald: image(&deploy().join("Containerfile"), &[&built.controller, &built.speaker], HERALD_IMAGE)?,
            echo: image(&echo, &[&built.echo], ECHO_IMAGE)?,
        })
    }

    /// Copies Herald's image to `target/image/herald.tar`, which the README loads on other clusters' nodes, and returns
    /// that path.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn export(&self) -> Result<PathBuf> {
        export(&self.herald, "herald.tar")
    }

    /// Copies the echo server's image to `target/image/echo.tar` and returns that path.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn export_echo(&self) -> Result<PathBuf> {
        export(&self.echo, "echo.tar")
    }

    /// Loads the images into every node.
    ///
    /// # Errors
    /// When a node refuses an image.
    pub fn load(&self, lab: &Lab) -> Result<()> {
        lab.load_image(&self.herald)?;
        lab.load_image(&self.echo)
    }
}

/// Copies an archive to `target/image`.
fn export(archive: &Path, name: &str) -> Result<PathBuf> {
    let directory = binaries::workspace()?.join("target/image");
    std::fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    let (file, next) = (directory.join(name), directory.join(format!("{name}.next")));
    std::fs::copy(archive, &next).with_context(|| next.display().to_string())?;
    std::fs::rename(&next, &file).with_context(|| file.display().to_string())?;
    // Under sudo the files would belong to root in the checkout of another user.
    let owner = std::fs::metadata(binaries::workspace()?).context("the checkout")?;
    for made in [&directory, &file] {
        chown(made, Some(owner.uid()), Some(owner.gid())).with_context(|| made.display().to_string())?;
    }
    Ok(file)
}

/// Applies a shipped manifest and waits until every pod of Herald is up.
///
/// # Errors
/// When kubectl fails or a rollout does not end.
pub fn apply(lab: &Lab, manifest: Manifest, progress: &Progress) -> Result<()> {
    progress.step(format!("kubectl apply -f deploy/{}", manifest.file_name()));
    kubectl(lab, &["apply", "-f", &manifest.file().to_string_lossy()])?;
    wait_for_rollout(lab)
}

/// Uninstalls Herald with the commands below "Uninstall" in the README, which are read from there so that the
/// documented commands are the tested ones.
///
/// # Errors
/// When one of the commands fails.
pub fn uninstall(lab: &Lab) -> Result<()> {
    let readme = include_str!("../../../README.md");
    let section = readme.split("### Uninstall").nth(1).unwrap_or_default();
    let block = section.split("```").nth(1).unwrap_or_default();
    let commands: Vec<_> = block.lines().filter_map(|line| line.strip_prefix("kubectl ")).collect();
    ensure!(!commands.is_empty(), "the README documents no uninstallation");
    for command in commands {
        // The documented paths are relative to the root of the checkout.
        let word = |word: &str| match word.strip_prefix("deploy/") {
            Some(below) => deploy().join(below).to_string_lossy().into_owned(),
            None => word.to_owned(),
        };
        let args: Vec<String> = command.split_whitespace().map(word).collect();
        kubectl(lab, &args.iter().map(String::as_str).collect::<Vec<_>>())?;
    }
    Ok(())
}

/// Replaces controllers and speakers, and waits until all are ready.
///
/// # Errors
/// When they are not ready within the time of a rollout.
pub fn restart(lab: &Lab) -> Result<()> {
    for workload in ["deployment/herald-controller", "daemonset/herald-speaker"] {
        kubectl(lab, &["rollout", "restart", "-n", NAMESPACE, workload])?;
    }
    wait_for_rollout(lab)
}

/// Waits until controller and speakers run as specified in their manifests.
///
/// # Errors
/// When the rollout does not end within the limit.
pub fn wait_for_rollout(lab: &Lab) -> Result<()> {
    for workload in ["deployment/herald-controller", "daemonset/herald-speaker"] {
        kubectl(lab, &["rollout", "status", "-n", NAMESPACE, workload, &kubectl_timeout(ROLLOUT)?])?;
    }
    Ok(())
}

/// Runs kubectl as the cluster's administrator and returns its standard output.
///
/// # Errors
/// When kubectl cannot be started or fails; the error contains its output.
pub fn kubectl(lab: &Lab, args: &[&str]) -> Result<String> {
    let output = lab.kubectl(args).output().context("starting kubectl")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "kubectl {}: {}{said}", args.join(" "), String::from_utf8_lossy(&output.stderr));
    Ok(said)
}

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
        let echo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lab/images/echo/Containerfile");
        Ok(Self {
            herald: image(
                &deploy().join("Containerfile"),
                &[&built.controller, &built.speaker],
                HERALD_IMAGE,
                progress,
            )?,
            echo: image(&echo, &[&built.echo], ECHO_IMAGE, progress)?,
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

/// Builds an image of a Containerfile and some programs.
pub(super) fn image(containerfile: &Path, programs: &[&Path], tag: &str, progress: &Progress) -> Result<PathBuf> {
    let context = tempfile::tempdir().context("making a directory for the build")?;
    for program in programs {
        let name = program.file_name().context("a program has a name")?;
        std::fs::copy(program, context.path().join(name)).with_context(|| program.display().to_string())?;
    }
    images::build(containerfile, context.path(), tag, progress)
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
    apply_file(lab, &manifest.file())
}

/// Applies a manifest of Herald and waits until every pod of Herald is up.
///
/// # Errors
/// When kubectl fails or a rollout does not end.
pub fn apply_file(lab: &Lab, manifest: &Path) -> Result<()> {
    kubectl(lab, &["apply", "-f", &manifest.to_string_lossy()])?;
    wait_for_rollout(lab)
}

/// Uninstalls Herald with the commands below "Uninstall" in the README, which are read from there so that the
/// documented commands are the tested ones.
///
/// # Errors
/// When one of the commands fails.
pub fn uninstall(lab: &Lab) -> Result<()> {
    let readme = include_str!("../../../README.md");
    documented(readme, "### Uninstall")?.iter().try_for_each(|command| documented_kubectl(lab, command))
}

/// Returns the commands of kubectl, without that word, in the first block of code below a heading of a page: so the
/// documented commands are the tested ones. Their paths are made absolute.
///
/// # Errors
/// When there is none.
pub fn documented(page: &str, heading: &str) -> Result<Vec<Vec<String>>> {
    let section = page.split_once(&format!("{heading}\n")).map(|(_, below)| below).unwrap_or_default();
    let block = section.split("```").nth(1).unwrap_or_default();
    let commands = block.lines().filter_map(|line| line.strip_prefix("kubectl "));
    // The documented paths are relative to the root of the checkout.
    let word = |word: &str| match word.strip_prefix("deploy/") {
        Some(below) => deploy().join(below).to_string_lossy().into_owned(),
        None => word.to_owned(),
    };
    let commands: Vec<Vec<String>> = commands.map(|line| line.split_whitespace().map(word).collect()).collect();
    ensure!(!commands.is_empty(), "there is no command of kubectl below {heading:?}");
    Ok(commands)
}

/// Runs a documented command.
///
/// # Errors
/// When it fails.
pub fn documented_kubectl(lab: &Lab, command: &[String]) -> Result<()> {
    kubectl(lab, &command.iter().map(String::as_str).collect::<Vec<_>>()).map(drop)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documented_commands_are_those_of_the_first_block_below_the_heading() {
        let page = "## A\n```\nkubectl get pods\n```\n## B\nText.\n```\nkubectl apply -f deploy/herald.yaml\nmake image\n```\n\
                    ```\nkubectl delete x\n```\n";
        let file = deploy().join("herald.yaml").to_string_lossy().into_owned();
        assert_eq!(documented(page, "## B").unwrap(), [["apply", "-f", file.as_str()]]);
        assert!(documented(page, "## C").is_err());
    }
}

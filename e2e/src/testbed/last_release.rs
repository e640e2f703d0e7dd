//! Herald's last release in the laboratory: its image and its manifest.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::install;
use herald_lab::binaries::{self, LAST_RELEASE};
use herald_lab::cluster::Lab;
use herald_lab::progress::Progress;

/// The name of its image in the laboratory: today's image may have the name in its manifest.
const IMAGE: &str = "localhost/herald:last-release";

/// The last release, built.
#[derive(Clone, Debug)]
pub struct LastRelease {
    image: PathBuf,
    manifest: PathBuf,
}

impl LastRelease {
    /// Builds what is not built yet.
    ///
    /// # Errors
    /// When the history of the checkout lacks the release's commit, or a build fails.
    pub fn build(progress: &Progress) -> Result<Self> {
        let release = binaries::last_release(progress)?;
        let deploy = release.sources.join("deploy");
        let programs = [release.controller.as_path(), &release.speaker];
        let image = install::image(&deploy.join("Containerfile"), &programs, IMAGE, progress)?;
        let shipped = deploy.join("herald.yaml");
        let text = std::fs::read_to_string(&shipped).with_context(|| shipped.display().to_string())?;
        let manifest = release.sources.with_file_name("herald.yaml");
        // Another run may be reading it.
        let next = manifest.with_extension(format!("{}.next", std::process::id()));
        std::fs::write(&next, with_image(&text, IMAGE)?).with_context(|| next.display().to_string())?;
        std::fs::rename(&next, &manifest).with_context(|| manifest.display().to_string())?;
        Ok(Self { image, manifest })
    }

    /// Loads its image into every node.
    ///
    /// # Errors
    /// When a node refuses the image.
    pub fn load(&self, lab: &Lab) -> Result<()> {
        lab.load_image(&self.image)
    }

    /// Installs it, or rolls Herald back to it, and waits until every pod of it is up.
    ///
    /// # Errors
    /// When kubectl fails or a rollout does not end.
    pub fn apply(&self, lab: &Lab, progress: &Progress) -> Result<()> {
        progress.step(format!("kubectl apply -f herald.yaml of the last release, {}", &LAST_RELEASE[..12]));
        install::apply_file(lab, &self.manifest)
    }
}

/// Returns a manifest in which both programs run another image.
fn with_image(manifest: &str, image: &str) -> Result<String> {
    let mut replaced = 0;
    let mut text = String::with_capacity(manifest.len());
    for line in manifest.lines() {
        match line.split_once("image: ") {
            Some((before, _)) if before.trim_start_matches([' ', '-']).is_empty() => {
                replaced += 1;
                text.extend([before, "image: ", image]);
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    ensure!(replaced == 2, "the manifest names {replaced} images, and not those of controller and speaker");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_of_both_programs_is_replaced() {
        let manifest = "a:\n  - image: herald:v1\n    # its image: that\n---\nb:\n  image: herald:v1\n";
        let expected = "a:\n  - image: x:y\n    # its image: that\n---\nb:\n  image: x:y\n";
        assert_eq!(with_image(manifest, "x:y").unwrap(), expected);
        assert!(with_image("image: herald:v1\n", "x:y").is_err());
    }
}

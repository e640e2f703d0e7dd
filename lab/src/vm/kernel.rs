//! The build of user-mode Linux from Debian's kernel source, once, into the cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::binaries::{cache_dir, hash_of, lock};
use crate::cluster::netns::output_of;
use crate::long_command;
use crate::progress::Progress;

/// Debian's package with the source, which `e2e/setup.sh vm-kernel` installs.
const PACKAGE: &str = "linux-source-6.12";
const ARCHIVE: &str = "/usr/src/linux-source-6.12.tar.xz";

/// The settings beyond the defaults.
const CONFIGURATION: &str = include_str!("../../vm/kernel.config");

/// The only change of the source. kubelet (cadvisor) exits on a machine whose /proc/cpuinfo has no clock speed, and
/// user-mode Linux has none.
const PATCH: Patch = Patch {
    file: "arch/um/kernel/um_arch.c",
    after: r#"	seq_printf(m, "mode\t\t: skas\n");"#,
    added: r#"	seq_printf(m, "cpu MHz\t\t: 2000.000\n");"#,
};

/// A line that is added to a file of the source.
struct Patch {
    file: &'static str,
    after: &'static str,
    added: &'static str,
}

/// Returns the kernel of this source, configuration and patch, and builds it if it is not in the cache yet. An
/// interrupted build continues where it stopped.
///
/// # Errors
/// When the source is not installed, a step fails, or the operation is interrupted.
pub fn build(jobs: usize, progress: &Progress) -> Result<PathBuf> {
    let mut ask = Command::new("dpkg-query");
    let version = output_of(ask.args(["--show", "--showformat=${Version}", PACKAGE]))
        .with_context(|| format!("Debian's package {PACKAGE} is not installed: e2e/setup.sh vm-kernel"))?;
    let cache = cache_dir()?.join("vm");
    fs::create_dir_all(&cache).with_context(|| cache.display().to_string())?;
    let parts = [CONFIGURATION, PATCH.file, PATCH.after, PATCH.added].map(str::as_bytes);
    let kernel = cache.join(format!("linux-{version}-{}", hash_of(parts)));
    let _lock = lock(&cache.join("kernel.lock"), progress)?;
    if kernel.exists() {
        return Ok(kernel);
    }
    // The directory depends on the version alone: a changed configuration does not need another unpacking.
    let source = cache.join(format!("source-{version}"));
    if !source.exists() {
        unpack(&source, progress)?;
    }
    let patched = source.join(PATCH.file);
    let text = fs::read_to_string(&patched).with_context(|| patched.display().to_string())?;
    fs::write(&patched, PATCH.apply(&text)?).with_context(|| patched.display().to_string())?;
    configure(&source, progress)?;
    let mut make = make(&source, &[&format!("-j{jobs}"), "linux"]);
    long_command::run_measured(&mut make, "building user-mode Linux", compiled, progress)?;
    let next = kernel.with_extension("next");
    fs::copy(source.join("linux"), &next).with_context(|| next.display().to_string())?;
    fs::rename(&next, &kernel).with_context(|| kernel.display().to_string())?;
    progress.step(format!("the kernel is {}; removing its source and objects", kernel.display()));
    fs::remove_dir_all(&source).with_context(|| source.display().to_string())?;
    Ok(kernel)
}

fn unpack(source: &Path, progress: &Progress) -> Result<()> {
    let next = source.with_extension("next");
    if next.exists() {
        fs::remove_dir_all(&next).with_context(|| next.display().to_string())?;
    }
    fs::create_dir_all(&next).with_context(|| next.display().to_string())?;
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--strip-components=1", "--file", ARCHIVE, "--directory"]).arg(&next);
    long_command::run(&mut tar, &format!("unpacking {ARCHIVE}"), progress)?;
    fs::rename(&next, source).with_context(|| source.display().to_string())
}

fn configure(source: &Path, progress: &Progress) -> Result<()> {
    long_command::run(&mut make(source, &["defconfig"]), "configuring user-mode Linux", progress)?;
    let fragment = source.join("herald.config");
    fs::write(&fragment, CONFIGURATION).with_context(|| fragment.display().to_string())?;
    let mut merge = Command::new("scripts/kconfig/merge_config.sh");
    merge.args(["-m", ".config", "herald.config"]).current_dir(source);
    long_command::run(&mut merge, "adding what scenarios need of it", progress)?;
    long_command::run(&mut make(source, &["olddefconfig"]), "settling its configuration", progress)
}

/// Returns a make command for user-mode Linux whose output goes to standard error, where `long_command` reads it.
fn make(source: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", r#"exec make ARCH=um "$@" >&2"#, "make"]).args(arguments).current_dir(source);
    command
}

impl Patch {
    /// Returns the text with the line added, or as it is if an earlier build has added it.
    fn apply(&self, text: &str) -> Result<String> {
        let (after, added) = (format!("{}\n", self.after), format!("{}\n", self.added));
        if text.contains(&added) {
            return Ok(text.to_owned());
        }
        let found = text.matches(&after).count();
        ensure!(
            found == 1,
            "{} of {PACKAGE} has {found} lines `{}`, where one was expected: adapt PATCH in lab/src/vm/kernel.rs",
            self.file,
            self.after.trim()
        );
        Ok(text.replace(&after, &format!("{after}{added}")))
    }
}

/// Number of files that the configuration compiles, counted with 6.12.
const FILES: usize = 1300;

/// Counts make's lines `  CC      kernel/fork.o`.
fn compiled(output: &str) -> Option<String> {
    let files = output.lines().filter(|line| line.trim_start().starts_with("CC ")).count();
    (files > 0).then(|| format!("{files} of about {FILES} files compiled"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "int show(struct seq_file *m)\n{\n\tseq_printf(m, \"mode\\t\\t: skas\\n\");\n\treturn 0;\n}\n";

    #[test]
    fn patch_is_applied_once() {
        let once = PATCH.apply(SOURCE).unwrap();
        assert_eq!(
            once,
            "int show(struct seq_file *m)\n{\n\tseq_printf(m, \"mode\\t\\t: skas\\n\");\n\
             \tseq_printf(m, \"cpu MHz\\t\\t: 2000.000\\n\");\n\treturn 0;\n}\n"
        );
        assert_eq!(PATCH.apply(&once).unwrap(), once);
    }

    #[test]
    fn source_without_the_line_is_refused() {
        let error = PATCH.apply("int main;\n").unwrap_err().to_string();
        assert!(error.contains("arch/um/kernel/um_arch.c of linux-source-6.12 has 0 lines"), "{error}");
        assert!(error.contains("lab/src/vm/kernel.rs"), "{error}");
    }

    #[test]
    fn compiled_files_are_counted() {
        let output =
            "  SYNC    include/config/auto.conf.cmd\n  CC      init/main.o\n  HOSTCC  scripts/a\n  CC      init/b.o\n";
        assert_eq!(compiled(output).as_deref(), Some("2 of about 1300 files compiled"));
        assert_eq!(compiled("  HOSTCC  scripts/a\n"), None);
    }

    #[test]
    fn configuration_has_only_settings_and_comments() {
        for line in CONFIGURATION.lines() {
            assert!(line.starts_with("CONFIG_") || line.starts_with("# "), "{line}");
        }
    }
}

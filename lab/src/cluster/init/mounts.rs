//! A host's view of the files: the machine's files, with its own /run, /tmp, /etc, /var/lib, /var/log, /sys.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::InitSpec;

/// Kernel settings that kubelet insists on and that apply to the whole machine (kubelet, container manager,
/// setupKernelTunables): plain files with the wanted values are mounted over them, and kubelet writes only to these.
const SHIELDED: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

pub(super) fn make(spec: &InitSpec) -> Result<()> {
    // The following mounts must not propagate to the machine.
    mount_raw(None, Path::new("/"), None, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None)?;
    let stage = spec.services_dir.join("stage");
    fs::create_dir_all(&stage).with_context(|| stage.display().to_string())?;
    for (name, point) in [("lib", "/var/lib"), ("log", "/var/log")] {
        let own = spec.data.join(name);
        fs::create_dir_all(&own).with_context(|| own.display().to_string())?;
        bind(&own, Path::new(point))?;
    }
    etc(spec)?;
    // A sysfs shows the network namespace in which it was mounted.
    if umount2("/sys", MntFlags::MNT_DETACH).is_err() {
        tracing::warn!("/sys was not mounted");
    }
    mount_raw(Some("sysfs"), Path::new("/sys"), Some("sysfs"), MsFlags::empty(), None)?;
    spec.cgroups.mount_inside()?;
    for point in ["/tmp", "/run"] {
        fresh_tmpfs(Path::new(point), &spec.visible, &stage)?;
    }
    shield_kernel_settings()?;
    // kubelet and the runtime need mounts in volumes to propagate to the containers.
    mount_raw(None, Path::new("/"), None, MsFlags::MS_REC | MsFlags::MS_SHARED, None)
}

/// Mounts /etc with a writable layer of its own, and writes the host's files into it.
fn etc(spec: &InitSpec) -> Result<()> {
    let layer = spec.data.join("etc");
    let (upper, work) = (layer.join("upper"), layer.join("work"));
    for directory in [&upper, &work] {
        fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    }
    let options = format!("lowerdir=/etc,upperdir={},workdir={}", upper.display(), work.display());
    mount_raw(Some("overlay"), Path::new("/etc"), Some("overlay"), MsFlags::empty(), Some(&options))?;
    for (name, text) in &spec.etc {
        let file = Path::new("/etc").join(name);
        if let Some(directory) = file.parent() {
            fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
        }
        // /etc/resolv.conf is often a symbolic link to a file below /run, which must not be overwritten.
        if file.is_symlink() {
            fs::remove_file(&file).with_context(|| file.display().to_string())?;
        }
        fs::write(&file, text).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

/// Mounts an empty tmpfs on `point`, in which the `visible` directories below `point` still appear.
fn fresh_tmpfs(point: &Path, visible: &[PathBuf], stage: &Path) -> Result<()> {
    mount_raw(Some("tmpfs"), stage, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
    for directory in visible {
        if let Ok(below) = directory.strip_prefix(point) {
            let seen = stage.join(below);
            fs::create_dir_all(&seen).with_context(|| seen.display().to_string())?;
            bind(directory, &seen)?;
        }
    }
    if point == Path::new("/tmp") {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(stage, fs::Permissions::from_mode(0o1777)).context("opening /tmp to all")?;
    } else {
        // Programs expect these directories to exist (xtables and runc lock files, named namespaces).
        for directory in ["lock", "netns"] {
            let directory = stage.join(directory);
            fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
        }
    }
    mount_raw(Some(path_str(stage)?), point, None, MsFlags::MS_MOVE, None)
}

fn shield_kernel_settings() -> Result<()> {
    let plain = Path::new("/run/kernel-settings");
    fs::create_dir_all(plain).with_context(|| plain.display().to_string())?;
    let lay_over = |setting: &str, value: &str| {
        let file = plain.join(setting.replace('/', "."));
        fs::write(&file, format!("{value}\n")).with_context(|| file.display().to_string())?;
        bind(&file, &Path::new("/proc/sys").join(setting))
    };
    for (setting, value) in SHIELDED {
        lay_over(setting, value)?;
    }
    // The hosts share one kernel, but each boots by itself: kubelet reports this ID as the Node's boot ID.
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/uuid").context("drawing a boot id")?;
    lay_over("kernel/random/boot_id", boot_id.trim())
}

fn bind(source: &Path, target: &Path) -> Result<()> {
    mount_raw(Some(path_str(source)?), target, None, MsFlags::MS_BIND, None)
}

fn path_str(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

fn mount_raw(
    source: Option<&str>,
    target: &Path,
    kind: Option<&str>,
    flags: MsFlags,
    options: Option<&str>,
) -> Result<()> {
    mount(source, target, kind, flags, options)
        .with_context(|| format!("mounting {} on {} ({flags:?})", source.unwrap_or("-"), target.display()))
}

//! A registry of container images that asks for a name and a password, as a company has one. It is a process in the network of the
//! control plane's host.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::binaries;
use crate::cluster::{Host, Lab, REGISTRIES};
use crate::images;
use crate::progress::Progress;
use crate::wait_factor::scaled;

/// The port of registries by custom.
const PORT: u16 = 5000;
/// The name, and the password.
const USER: &str = "laboratory";
/// Time in which the registry listens: it has nothing to read.
const LISTENS_WITHIN: Duration = Duration::from_secs(10);

/// A registry that runs; dropping it ends it.
#[derive(Debug)]
pub struct Registry {
    process: Child,
    host: Host,
    address: SocketAddr,
}

impl Registry {
    /// Starts a registry, and lets the nodes know that it speaks HTTP without TLS. They have no password yet.
    ///
    /// # Errors
    /// When the program cannot be built, or does not listen.
    pub fn start(lab: &Lab, progress: &Progress) -> Result<Self> {
        let program = binaries::registry(progress)?;
        let host = lab.control()?;
        let ip = host.addresses(0).into_iter().find(IpAddr::is_ipv4).context("the control plane's IPv4 address")?;
        let address = SocketAddr::new(ip, PORT);
        let mut command = host.net_command(&program);
        command.args([&address.to_string(), USER, USER]).stdin(Stdio::null());
        let process = command.spawn().with_context(|| format!("starting {}", program.display()))?;
        let mut registry = Self { process, host, address };
        registry.listens()?;
        for node in lab.nodes()? {
            registry.is_known_to(&node)?;
        }
        Ok(registry)
    }

    /// Returns the arguments of `kubectl create secret` for a Secret with the password.
    #[must_use]
    pub fn secret(&self, name: &str) -> Vec<String> {
        let server = format!("--docker-server={}", self.address);
        let user = [format!("--docker-username={USER}"), format!("--docker-password={USER}")];
        ["docker-registry".to_owned(), name.to_owned(), server].into_iter().chain(user).collect()
    }

    /// Returns the repository with this name.
    #[must_use]
    pub fn repository(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// Pushes an image to a repository. `archive`: an OCI archive of the image `tagged`; its tag stays.
    ///
    /// # Errors
    /// When buildah fails.
    pub fn push(&self, archive: &Path, tagged: &str, repository: &str, progress: &Progress) -> Result<()> {
        let tag = tagged.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        let to = format!("docker://{repository}:{tag}");
        images::push(|program| self.host.net_command(program), archive, tagged, &to, (USER, USER), progress)
    }

    fn listens(&mut self) -> Result<()> {
        let limit = scaled(LISTENS_WITHIN)?;
        let begun = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().context("the registry")? {
                bail!("the registry ended with {status}");
            }
            let address = self.address;
            if self.host.inside(|| Ok(TcpStream::connect(address).is_ok()))? {
                return Ok(());
            }
            ensure!(begun.elapsed() < limit, "the registry does not listen on {address} after {limit:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Writes what containerd of a node has to know of the registry (the page hosts.md of its documentation).
    fn is_known_to(&self, node: &Host) -> Result<()> {
        let directory = format!("{}/{}", REGISTRIES, self.address);
        let hosts = format!("server = \"http://{}\"", self.address);
        let script = format!("mkdir -p '{directory}' && printf '%s\\n' '{hosts}' > '{directory}/hosts.toml'");
        let mut command: Command = node.command("sh")?;
        let status = command.args(["-c", &script]).status().context("starting a shell")?;
        ensure!(status.success(), "{}: cannot write {directory}/hosts.toml", node.name());
        Ok(())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // `net_command` replaces itself by the program, so this process is the registry. It may have ended already.
        if let Err(error) = self.process.kill().and_then(|()| self.process.wait()) {
            tracing::debug!(%error, "ending the registry");
        }
    }
}

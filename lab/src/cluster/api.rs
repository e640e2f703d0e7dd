//! The cluster's API for the laboratory's own processes. The API server is reachable only from inside the network
//! namespaces, so the threads that talk to it run in that of the control plane.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::runtime::Handle;

use super::netns;

/// A multi-threaded runtime whose threads are all inside one network namespace.
#[derive(Debug)]
pub struct ApiRuntime {
    runtime: tokio::runtime::Runtime,
    netns: PathBuf,
}

impl ApiRuntime {
    pub(super) fn new(netns: &Path) -> Result<Self> {
        // A thread starts in the namespace of its creator, so building the runtime inside is enough. Threads for
        // blocking work may be started from anywhere later and enter the namespace by themselves.
        let for_threads = netns.to_owned();
        let runtime = netns::inside(netns, || {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .thread_name("lab-api")
                .enable_all()
                .on_thread_start(move || {
                    if let Err(error) = netns::enter(&for_threads) {
                        tracing::error!("a runtime thread stays outside the cluster's network: {error:#}");
                    }
                })
                .build()
                .context("starting the runtime")
        })?;
        Ok(Self { runtime, netns: netns.to_owned() })
    }

    /// Runs a future to its end. A thread inside the namespace polls it, so it may open sockets itself; tasks that it
    /// spawns keep running on this runtime afterwards.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or the future fails.
    pub fn block_on<F, T>(&self, future: F) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
        T: Send,
    {
        let handle = self.handle().clone();
        netns::inside(&self.netns, move || handle.block_on(future))
    }

    /// Returns the handle for spawning tasks, which run inside the namespace.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        self.runtime.handle()
    }
}

/// Creates a client with the rights of a kubeconfig's user. It must be created and used on an [`ApiRuntime`].
pub(super) async fn client(kubeconfig: &Path) -> Result<kube::Client> {
    let file = Kubeconfig::read_from(kubeconfig).with_context(|| kubeconfig.display().to_string())?;
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .with_context(|| kubeconfig.display().to_string())?;
    kube::Client::try_from(config).context("making the API client")
}

/// Returns a `kubectl` command with a kubeconfig's user, inside the control plane's network. Its caches are kept in the
/// laboratory.
pub(super) fn kubectl(bin_dir: &Path, netns: &Path, kubeconfig: &Path, cache: &Path) -> Command {
    let mut command = super::host::netns_command(netns, bin_dir.join("kubectl"));
    command.env("KUBECONFIG", kubeconfig).env("KUBECACHEDIR", cache);
    command
}

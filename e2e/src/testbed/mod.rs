//! A laboratory with Herald installed, and the operations that scenarios, drills and benchmarks share.

pub(crate) mod at_rest;
pub(crate) mod audit_log;
pub mod chart;
pub(crate) mod controllers;
pub mod install;
pub(crate) mod last_release;
pub mod manifests;
pub(crate) mod namespace;
pub(crate) mod waits;

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use tokio::runtime::Handle;

pub use install::Images;
use manifests::Manifest;
pub(crate) use namespace::is_ready;
pub use namespace::{Expose, TestNamespace};

use herald_lab::cluster::{ApiRuntime, Lab, Spec};
use herald_lab::progress::Progress;

/// The deletion of a namespace with a handful of pods takes up to 10 s.
const SWEPT_WITHIN: Duration = Duration::from_secs(60);

/// A laboratory with Herald installed.
pub struct Testbed {
    pub(crate) lab: Lab,
    pub(crate) runtime: ApiRuntime,
    pub(crate) client: Client,
    pub(crate) progress: Progress,
    passed: Mutex<BTreeSet<&'static str>>,
}

impl Testbed {
    /// Brings a laboratory up, loads the images and installs Herald. Dropping the testbed takes the laboratory down.
    ///
    /// # Errors
    /// When one of these steps fails.
    pub fn up(spec: &Spec, images: &Images, progress: &Progress) -> Result<Self> {
        let lab = Lab::up(spec, progress)?;
        progress.step("loading the images into each node");
        images.load(&lab)?;
        install::apply(&lab, Manifest::CLASS, progress)?;
        progress.step("Herald is up");
        Self::on(lab, progress)
    }

    /// Uses a laboratory that is up and has Herald.
    ///
    /// # Errors
    /// When its API cannot be reached.
    pub fn on(lab: Lab, progress: &Progress) -> Result<Self> {
        let runtime = lab.runtime()?;
        let client = runtime.block_on(lab.client())?;
        Ok(Self { lab, runtime, client, progress: progress.clone(), passed: Mutex::default() })
    }

    /// Returns the laboratory.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Returns a client with the administrator's rights, for use on [`Testbed::handle`] and in [`Testbed::block_on`].
    pub fn kube(&self) -> Client {
        self.client.clone()
    }

    /// Returns the runtime handle for tasks that talk to the API server.
    pub fn handle(&self) -> &Handle {
        self.runtime.handle()
    }

    /// Runs a future on the runtime that reaches the API server.
    ///
    /// # Errors
    /// When the future fails.
    pub fn block_on<T: Send>(&self, future: impl Future<Output = Result<T>> + Send) -> Result<T> {
        self.runtime.block_on(future)
    }

    /// Waits until nothing is left of the scenarios that passed: their namespaces are deleted while others run.
    ///
    /// # Errors
    /// When a namespace is not deleted, for example because of a stuck finalizer.
    pub fn swept(&self) -> Result<()> {
        let mut left = Vec::new();
        let waited = self.wait_for("the scenarios' namespaces to go", SWEPT_WITHIN, || {
            let namespaces: Api<Namespace> = Api::all(self.client.clone());
            let all = self.block_on(async move { Ok(namespaces.list(&ListParams::default()).await?.items) })?;
            let going = all.into_iter().filter(|namespace| namespace.metadata.deletion_timestamp.is_some());
            left = going.map(|namespace| namespace.name_any()).collect();
            Ok(left.is_empty().then_some(()))
        });
        waited.with_context(|| format!("still being deleted: {}", left.join(", ")))
    }

    /// Returns the laboratory and drops the rest.
    pub fn into_lab(self) -> Lab {
        self.lab
    }

    /// Evaluates a condition until it holds.
    ///
    /// # Errors
    /// When the condition does not hold within the limit or cannot be evaluated.
    pub fn wait_for<T>(&self, what: &str, within: Duration, look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        self.progress.wait_for(what, within, look)
    }

    /// Returns the names of the scenarios that have passed here.
    pub fn passed(&self) -> BTreeSet<&'static str> {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Records that a scenario passed.
    pub fn add_passed(&self, scenario: &'static str) {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner).insert(scenario);
    }
}

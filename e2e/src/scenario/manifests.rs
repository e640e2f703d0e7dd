//! The committed manifests, which users and the laboratory apply, are what kustomize generates from the directories in
//! `deploy`.

use anyhow::{Context, Result, ensure};

use crate::testbed::TestNamespace;
use crate::testbed::manifests::Manifest;

pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    let kubectl = ns.bed.lab().bin_dir().join("kubectl");
    for manifest in Manifest::ALL {
        let file = manifest.file();
        let shipped = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let name = manifest.file_name();
        ensure!(shipped == manifest.content(&kubectl)?, "deploy/{name} is out of date: `make manifests` writes it");
    }
    Ok(())
}

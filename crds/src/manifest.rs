//! The CustomResourceDefinitions as files.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::{AddressPool, L2Advertisement, SpeakerStatus, VirtualIP};

/// Returns every definition, with the name of its file in `deploy/crds`.
pub fn definitions() -> [(&'static str, CustomResourceDefinition); 4] {
    [
        ("addresspools.yaml", AddressPool::crd()),
        ("l2advertisements.yaml", L2Advertisement::crd()),
        ("virtualips.yaml", VirtualIP::crd()),
        ("speakerstatuses.yaml", SpeakerStatus::crd()),
    ]
}

/// Returns every file of `deploy/crds` with its text.
///
/// # Errors
/// When a definition cannot be written as YAML, which would be a defect of its type.
pub fn files() -> Result<Vec<(&'static str, String)>, serde_saphyr::ser::Error> {
    let file = |(name, crd)| {
        let yaml = serde_saphyr::to_string(&crd)?;
        Ok((name, format!("# Generated from the types in crds/src by `make crds`; do not edit.\n{yaml}")))
    };
    definitions().into_iter().map(file).collect()
}

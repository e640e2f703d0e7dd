//! Herald's last release serves Services, and is upgraded to today's, rolled back and upgraded again while clients talk
//! through their addresses ([`Subject::Upgrade`](crate::drill::Subject::Upgrade)).

use anyhow::Result;

use super::drills;
use crate::testbed::last_release::LastRelease;
use crate::testbed::manifests::Manifest;
use crate::testbed::{TestNamespace, install};

pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    let (lab, progress) = (ns.bed.lab(), &ns.bed.progress);
    let release = LastRelease::build(progress)?;
    release.load(lab)?;
    // Nothing of today's Herald may be left: its definitions and what its programs have written.
    install::uninstall(lab)?;
    ns.eventually("the namespace to go", || Ok((!ns.namespace_exists(install::NAMESPACE)?).then_some(())))?;
    let result = release.apply(lab, progress).and_then(|()| drills::upgrade(ns));
    // Today's Herald is installed regardless of the result, for the next scenario.
    install::apply(lab, Manifest::CLASS, progress)?;
    result
}

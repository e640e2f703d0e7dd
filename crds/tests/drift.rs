//! The definitions in `deploy/crds` are those of the types.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, path::Path};

#[test]
fn deployed_definitions_are_those_of_the_types() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/crds");
    for (file, text) in herald_crds::manifest::files().unwrap() {
        let deployed = fs::read_to_string(deploy.join(file)).unwrap();
        assert!(deployed == text, "deploy/crds/{file} differs from the types: run `make crds` and read the difference");
    }
}

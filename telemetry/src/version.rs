//! The version that a program reports.

/// Returns the version of the program that expands the macro: `0.1.0 (71c0c242cbf7, 2026-11-30)`, with the commit it was
/// built from and the date of that commit, which `e2e/programs.sh` gives to the compiler. They stand in a macro because
/// the compiler then builds again only the programs, and not the crates, when nothing but the commit has changed.
#[macro_export]
macro_rules! version {
    () => {
        match option_env!("HERALD_VERSION") {
            Some(version) => version,
            None => concat!(env!("CARGO_PKG_VERSION"), " (commit unknown: not built by e2e/programs.sh)"),
        }
    };
}

#[cfg(test)]
mod tests {
    #[test]
    fn version_begins_with_that_of_the_package() {
        let version: &str = crate::version!();
        assert!(version.starts_with(concat!(env!("CARGO_PKG_VERSION"), " (")), "{version}");
    }
}

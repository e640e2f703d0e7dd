//! A network namespace for a test on real interfaces; it goes with its test.

use std::{process::Command, thread};

/// Runs a test in a network namespace of its own, on a thread of its own: links that `ip` makes there go with the
/// thread. Returns `None`, and prints why, where the process may not make a namespace (it needs root).
pub(crate) fn in_a_network_namespace<T: Send>(test: impl FnOnce() -> T + Send) -> Option<T> {
    let isolated = || {
        // `unshare` affects the calling thread alone, which runs nothing but the test.
        if let Err(error) = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET) {
            eprintln!("not run: no network namespace can be made: {error}");
            return None;
        }
        Some(test())
    };
    thread::scope(|scope| scope.spawn(isolated).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Runs `ip` in the namespace of the calling thread. Returns whether `ip` succeeds: a kernel may lack a kind of link.
pub(crate) fn ip(words: &str) -> bool {
    Command::new("ip").args(words.split_whitespace()).status().unwrap().success()
}

/// Returns the output of `ip`.
pub(crate) fn ip_output(words: &str) -> String {
    let output = Command::new("ip").args(words.split_whitespace()).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

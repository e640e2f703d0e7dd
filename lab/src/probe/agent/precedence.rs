//! Scheduling priority for the client, as if it were a machine of its own.

use std::process::{Command, Stdio};

/// The lowest real-time priority: it precedes everything without real-time scheduling, which includes all of the
/// laboratory; the kernel's own real-time threads precede it (sched(7)).
const PRIORITY: &str = "1";

/// Requests priority over the nodes and the control plane, which share this machine with the client, for all threads of
/// this process and those they will start. A starting pod keeps an ordinary thread from running for 30 to 140 ms on two
/// processors; without priority, probes that the client sends or reads late in this time would be attributed to a node.
///
/// The request needs CAP_SYS_NICE. If it fails nothing changes, and the witness shows how often the client was late.
pub(super) fn take() {
    let pid = std::process::id().to_string();
    let mut chrt = Command::new("chrt");
    chrt.args(["--all-tasks", "--rr", "--pid", PRIORITY, &pid]);
    chrt.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // chrt may be missing or may be refused: the witness detects the effect of both.
    drop(chrt.status());
}

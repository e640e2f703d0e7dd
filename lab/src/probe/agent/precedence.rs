//! A processor when it needs one, as a client has that is a machine of its own.

use std::process::{Command, Stdio};

/// Before everything that does not ask for real time, which is all of the laboratory; the kernel's own threads of the
/// real-time class come first (sched(7)).
const PRIORITY: &str = "1";

/// Asks for precedence over the nodes and the control plane, which share this machine with the client, for all threads
/// of this process and those they will start. A starting pod keeps a thread of the ordinary class from running for 30 to
/// 140 ms on two processors; what the client did not send then, or read late, is not what a node did.
///
/// It takes CAP_SYS_NICE. Without it nothing changes, and the witness tells how often the client came late.
pub(super) fn take() {
    let pid = std::process::id().to_string();
    let mut chrt = Command::new("chrt");
    chrt.args(["--all-tasks", "--rr", "--pid", PRIORITY, &pid]);
    chrt.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // Refused or not there: the witness is the judge of both.
    drop(chrt.status());
}

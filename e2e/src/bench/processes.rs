//! Cost of Herald's programs and the API server: CPU time and resident memory, from /proc.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use herald_lab::cluster::{Host, Lab};

/// Clock ticks per second in /proc/PID/stat: `USER_HZ`, 100 on every architecture that Kubernetes runs on
/// (proc_pid_stat(5)).
const TICKS: f64 = 100.0;

/// The measured programs. The kernel cuts a name to 15 characters.
const PROGRAMS: [(&str, &str); 3] =
    [("herald-controll", "controller"), ("herald-speaker", "speakers"), ("kube-apiserver", "apiserver")];

/// The usage of one program, summed over its processes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Usage {
    /// CPU seconds, user and system.
    pub(super) cpu_s: f64,
    /// Resident memory of the largest process, MiB.
    pub(super) rss_mib: f64,
}

/// Returns the current usage of every program of the laboratory: `controller`, `speakers`, `apiserver`.
pub(super) fn usage(lab: &Lab) -> Result<BTreeMap<&'static str, Usage>> {
    let mut found = BTreeMap::new();
    for host in lab.nodes()?.into_iter().chain([lab.control()?]) {
        for (program, process) in look(&host)? {
            let usage: &mut Usage = found.entry(program).or_default();
            usage.cpu_s += process.cpu_s;
            usage.rss_mib = usage.rss_mib.max(process.rss_mib);
        }
    }
    Ok(found)
}

fn look(host: &Host) -> Result<Vec<(&'static str, Usage)>> {
    // A process may end between the two reads; its line is then incomplete and is skipped.
    let script = "for d in /proc/[0-9]*; do echo \"$(cat $d/stat) $(grep VmRSS $d/status)\"; done 2>/dev/null";
    let output = host.command("sh")?.args(["-c", script]).output().context("reading /proc of a host")?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(parse).collect())
}

/// Parses `PID (comm) state ppid ... utime stime ... VmRSS: 8192 kB`; returns `None` for other programs.
fn parse(line: &str) -> Option<(&'static str, Usage)> {
    let (head, tail) = line.rsplit_once(')')?;
    let comm = head.split_once('(')?.1;
    let (_, program) = PROGRAMS.iter().find(|(name, _)| *name == comm)?;
    let words: Vec<&str> = tail.split_whitespace().collect();
    // utime and stime are fields 14 and 15; field 3 is the first one after the name.
    let ticks = words.get(11)?.parse::<f64>().ok()? + words.get(12)?.parse::<f64>().ok()?;
    let at = words.iter().position(|word| *word == "VmRSS:")?;
    let kib: f64 = words.get(at + 1)?.parse().ok()?;
    Some((program, Usage { cpu_s: ticks / TICKS, rss_mib: kib / 1024.0 }))
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("7 (herald-controll) S 1 7 7 0 -1 4194560 900 0 0 0 150 50 0 0 20 0 3 0 100 VmRSS:\t 8192 kB", Some(("controller", 2.0, 8.0)))]
    #[test_case("9 (herald-speaker) S 1 7 7 0 -1 4194560 900 0 0 0 1 0 0 0 20 0 VmRSS: 1024 kB", Some(("speakers", 0.01, 1.0)))]
    #[test_case("8 (sh) S 1 7 7 0 -1 4194560 900 0 0 0 150 50 0 0 20 VmRSS: 8192 kB", None)]
    #[test_case("7 (herald-controll) S 1 7", None; "ended meanwhile")]
    fn proc_line_is_parsed(line: &str, expected: Option<(&str, f64, f64)>) {
        assert_eq!(parse(line).map(|(program, usage)| (program, usage.cpu_s, usage.rss_mib)), expected);
    }
}

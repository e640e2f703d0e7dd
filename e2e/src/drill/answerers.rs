//! The hosts that answer for addresses, as asked from the watching client.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;

use herald_lab::cluster::Lab;
use herald_lab::probe::analysis::MacSeen;
use herald_lab::probe::{Mac, Probe, ProbeSpec, Probers};

/// Time for which answers are collected: solicitations go out every 10 ms.
const LISTEN: Duration = Duration::from_millis(300);

/// Addresses that one process probes at a time: each has a thread that asks every 10 ms.
const AT_ONCE: usize = 50;

/// Returns every MAC that answers for each of the addresses.
pub(super) fn look(lab: &Lab, client: &str, addresses: &[IpAddr]) -> Result<BTreeMap<IpAddr, Vec<MacSeen>>> {
    let probers = Probers { announcements: false, ..Probers::NEIGHBOUR };
    let mut found = BTreeMap::new();
    for some in addresses.chunks(AT_ONCE) {
        let running = Probe::start(lab, client, &ProbeSpec::all(some.iter().copied()).with(probers))?;
        // The absence of further answers cannot be waited for.
        std::thread::sleep(LISTEN);
        let report = running.stop()?;
        found.extend(report.targets.into_iter().map(|target| {
            let macs = target.neighbour.map(|neighbour| neighbour.macs).unwrap_or_default();
            (target.address, macs)
        }));
    }
    Ok(found)
}

/// Returns the MAC that answers, if exactly one does.
pub(super) fn only(seen: &[MacSeen]) -> Option<Mac> {
    if let [one] = seen { Some(one.mac) } else { None }
}

/// Returns the MAC that answers, if exactly one does and its owner gave at least one of the answers itself.
pub(super) fn itself(seen: &[MacSeen]) -> Option<Mac> {
    if let [one] = seen { (one.covered < one.answers).then_some(one.mac) } else { None }
}

/// Returns the MAC that answers, if exactly one does and other nodes gave all the answers.
pub(super) fn covered(seen: &[MacSeen]) -> Option<Mac> {
    if let [one] = seen { (one.covered == one.answers).then_some(one.mac) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_case::test_case;

    const A: Mac = Mac([2, 0, 0, 0, 0, 0xa]);
    const B: Mac = Mac([2, 0, 0, 0, 0, 0xb]);

    fn seen(mac: Mac, answers: usize, covered: usize) -> MacSeen {
        MacSeen { mac, first_ms: 0.0, last_ms: 9.0, answers, covered }
    }

    #[test_case(&[], [None, None, None]; "silence")]
    #[test_case(&[seen(A, 9, 0)], [Some(A), Some(A), None]; "its owner")]
    #[test_case(&[seen(A, 9, 9)], [Some(A), None, Some(A)]; "a coverer")]
    #[test_case(&[seen(A, 9, 4)], [Some(A), Some(A), None]; "both")]
    #[test_case(&[seen(A, 9, 0), seen(B, 9, 0)], [None, None, None]; "two owners")]
    fn answerer_is_classified(found: &[MacSeen], expected: [Option<Mac>; 3]) {
        assert_eq!([only(found), itself(found), covered(found)], expected);
    }
}

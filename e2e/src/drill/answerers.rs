//! Who answers for addresses at the moment, asked from the watching client.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;

use herald_lab::cluster::Lab;
use herald_lab::probe::analysis::MacSeen;
use herald_lab::probe::{Mac, Probe, ProbeSpec, Probers};

/// How long all who answer are listened to: solicitations go out every 10 ms.
const LISTEN: Duration = Duration::from_millis(300);

/// As many as one process asks for at a time: each address is a thread of it, and a question each 10 ms.
const AT_ONCE: usize = 50;

/// Everybody who answers for each of the addresses.
pub(super) fn look(lab: &Lab, client: &str, addresses: &[IpAddr]) -> Result<BTreeMap<IpAddr, Vec<MacSeen>>> {
    let probers = Probers { announcements: false, ..Probers::NEIGHBOUR };
    let mut found = BTreeMap::new();
    for some in addresses.chunks(AT_ONCE) {
        let running = Probe::start(lab, client, &ProbeSpec::all(some.iter().copied()).with(probers))?;
        // No condition can be waited for: that nobody else answers is what is looked for.
        std::thread::sleep(LISTEN);
        let report = running.stop()?;
        found.extend(report.targets.into_iter().map(|target| {
            let macs = target.neighbour.map(|neighbour| neighbour.macs).unwrap_or_default();
            (target.address, macs)
        }));
    }
    Ok(found)
}

/// The one MAC that answers, if it is one.
pub(super) fn only(seen: &[MacSeen]) -> Option<Mac> {
    if let [one] = seen { Some(one.mac) } else { None }
}

/// The one MAC that answers, if its owner does so itself, whether or not others do so for it as well.
pub(super) fn itself(seen: &[MacSeen]) -> Option<Mac> {
    if let [one] = seen { (one.covered < one.answers).then_some(one.mac) } else { None }
}

/// The one MAC that answers, if others gave all the answers.
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
    fn answers(found: &[MacSeen], expected: [Option<Mac>; 3]) {
        assert_eq!([only(found), itself(found), covered(found)], expected);
    }
}

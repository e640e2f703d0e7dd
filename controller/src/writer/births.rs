//! When the VirtualIPs were created.
//!
//! Speakers tell an address's object from the one before by when it was created: whoever claimed for the one that was
//! deleted gives way, and nobody claims for it again (docs/protocol.md, section 23). The API server notes that in whole
//! seconds (`metav1.Time`). Of two objects that were created in one second the later would never be announced.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use tokio::time::Instant;

/// What the API server tells apart.
const RESOLUTION: Duration = Duration::from_secs(1);

/// The addresses for which this process created an object within the last second. A leader that has just taken over
/// knows of none. Where its predecessor released the lease, that may be less than a second ago: an address that is
/// created, deleted and created anew across such a handover, all in one second, is not kept apart.
#[derive(Debug, Default)]
pub(super) struct Births {
    last: BTreeMap<IpAddr, Instant>,
}

impl Births {
    /// An object was created, at this moment or before.
    pub(super) fn note(&mut self, now: Instant, address: IpAddr) {
        self.last.retain(|_, at| *at + RESOLUTION > now);
        self.last.insert(address, now);
    }

    /// From when on another one for the address is younger by its `creationTimestamp`.
    pub(super) fn next(&self, now: Instant, address: IpAddr) -> Instant {
        self.last.get(&address).map_or(now, |at| now.max(*at + RESOLUTION))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_objects_of_one_address_are_a_second_apart() {
        let (start, ms) = (Instant::now(), Duration::from_millis);
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(|address| address.parse().unwrap());
        let mut births = Births::default();
        assert_eq!(births.next(start, one), start);
        births.note(start, one);
        assert_eq!(births.next(start + ms(300), one), start + ms(1000));
        assert_eq!(births.next(start + ms(300), other), start + ms(300));
        assert_eq!(births.next(start + ms(1500), one), start + ms(1500));
        births.note(start + ms(1500), other);
        assert_eq!(births.last.keys().collect::<Vec<_>>(), [&other], "what is old is forgotten");
    }
}

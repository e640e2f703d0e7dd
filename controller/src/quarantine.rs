//! Quarantine: the addresses of a pool that are kept back because hosts outside the cluster use them. This module uses
//! neither Kubernetes nor a clock.
//!
//! An address goes into quarantine only before it was ever announced, and its Service gets another. Both are bounded: a
//! router that answers ARP for everything (proxy ARP) must not use up a pool.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use herald_crds::{address::IpFamily, pool::QuarantinedAddress, virtual_ip::ServiceReference};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

/// Time that an address stays in quarantine. It is long enough that not every burst of Services gets the address again,
/// and short enough that a host which was taken off the network needs no command.
pub const HOLD: Duration = Duration::from_secs(60 * 60);
/// Maximum of addresses of one Service in quarantine at once. A further conflict shows that the network is at fault,
/// not the address.
pub const PER_SERVICE: usize = 3;
/// The share of a pool that may be in quarantine at once is 1/20, and at least one address.
const SHARE: u128 = 20;
/// Maximum of one family in one pool, so that the quarantine of a /64 does not make its status arbitrarily large.
const MOST: usize = 256;
/// The word in the annotation that stands for every address.
const ALL: &str = "all";

/// Returns how many addresses of a family may be in quarantine at once, in a pool with `capacity` addresses of that
/// family.
pub fn limit(capacity: u128) -> usize {
    usize::try_from(capacity / SHARE).unwrap_or(MOST).clamp(1, MOST)
}

/// One address in quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The quarantined address.
    pub address: IpAddr,
    /// The stranger's link-layer address, as the speaker reported it; empty if it reported none.
    pub mac: String,
    /// The time at which the quarantine began.
    pub since: Timestamp,
    /// The Service that was meant to have the address.
    pub service: ServiceReference,
}

impl Entry {
    /// Reads an entry of a pool's status; `None` for an entry that Herald did not write.
    pub fn read(entry: &QuarantinedAddress) -> Option<Self> {
        Some(Self {
            address: entry.address.parse().ok()?,
            mac: entry.mac_address.clone(),
            since: entry.since.0,
            service: entry.service.clone(),
        })
    }

    /// Returns the entry in the form of the status.
    pub fn written(&self) -> QuarantinedAddress {
        QuarantinedAddress {
            address: self.address.to_string(),
            mac_address: self.mac.clone(),
            since: Time(self.since),
            service: self.service.clone(),
        }
    }

    /// Returns when the quarantine ends; `None` if that is not within the range of the calendar.
    pub fn ends(&self) -> Option<Timestamp> {
        self.since.checked_add(HOLD).ok()
    }
}

/// An address that a stranger holds, and the Service that was meant to have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contested {
    /// The contested address.
    pub address: IpAddr,
    /// The stranger's link-layer address.
    pub mac: String,
    /// The Service that was meant to have the address.
    pub service: ServiceReference,
}

/// The reason why another address cannot go into quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The Service has its maximum of addresses in quarantine.
    #[error("{PER_SERVICE} addresses it had before are in quarantine already")]
    Service,
    /// The pool has its maximum of addresses in quarantine.
    #[error("as many addresses of its pool as may be ({0}) are in quarantine already")]
    Pool(usize),
}

/// Checks that there is room for another address. `limit` is the pool's for the family, `elsewhere` the number of
/// addresses that the Service has in the quarantine of other pools.
///
/// # Errors
/// When the Service or the pool has its maximum in quarantine.
pub fn room(held: &[Entry], contested: &Contested, limit: usize, elsewhere: usize) -> Result<(), Full> {
    let family = IpFamily::of(contested.address);
    if held.iter().filter(|e| IpFamily::of(e.address) == family).count() >= limit {
        return Err(Full::Pool(limit));
    }
    if held.iter().filter(|e| e.service == contested.service).count() + elsewhere >= PER_SERVICE {
        return Err(Full::Service);
    }
    Ok(())
}

/// Returns the next quarantine of a pool: the entries of `held` that `stays` and have not ended, and as many of the
/// contested addresses as there is room for.
pub fn next(
    held: &[Entry],
    stays: impl Fn(&Entry) -> bool,
    contested: &[Contested],
    limit: impl Fn(IpFamily) -> usize,
    elsewhere: impl Fn(&ServiceReference) -> usize,
    now: Timestamp,
) -> Vec<Entry> {
    let lasts = |e: &&Entry| stays(e) && e.ends().is_some_and(|end| now < end);
    let mut next: Vec<Entry> = held.iter().filter(lasts).cloned().collect();
    for new in contested {
        let known = next.iter().any(|e| e.address == new.address);
        let limit = limit(IpFamily::of(new.address));
        if !known && room(&next, new, limit, elsewhere(&new.service)).is_ok() {
            let Contested { address, mac, service } = new.clone();
            next.push(Entry { address, mac, since: now, service });
        }
    }
    next.sort_by_key(|e| e.address);
    next
}

/// The addresses that an annotation of the pool keeps out of quarantine, for as long as it exists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Release {
    /// No address.
    #[default]
    Nothing,
    /// Only these addresses.
    These(BTreeSet<IpAddr>),
    /// Every address.
    All,
}

/// The error of an annotation that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address: write addresses separated by commas, or {ALL:?}")]
pub struct ReleaseError(String);

impl Release {
    /// Reads the annotation.
    ///
    /// # Errors
    /// When an item is not an address; none of the others counts then. The error names the first one.
    pub fn read(annotation: Option<&str>) -> Result<Self, ReleaseError> {
        match annotation.map(str::trim) {
            None | Some("") => Ok(Self::Nothing),
            Some(ALL) => Ok(Self::All),
            Some(list) => {
                let address = |item: &str| item.trim().parse().map_err(|_| ReleaseError(item.trim().to_owned()));
                Ok(Self::These(list.split(',').map(address).collect::<Result<_, _>>()?))
            }
        }
    }

    /// Returns whether the annotation keeps the address out of quarantine.
    pub fn covers(&self, address: IpAddr) -> bool {
        match self {
            Self::Nothing => false,
            Self::These(addresses) => addresses.contains(&address),
            Self::All => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use test_case::test_case;

    use super::*;

    fn service(n: u8) -> ServiceReference {
        ServiceReference { namespace: "ns".to_owned(), name: format!("s{n}"), uid: format!("u{n}") }
    }

    fn address(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn entry(n: u8, since: i64, of: u8) -> Entry {
        Entry { address: address(n), mac: String::new(), since: at(since), service: service(of) }
    }

    fn contested(n: u8, of: u8) -> Contested {
        Contested { address: address(n), mac: "m".to_owned(), service: service(of) }
    }

    #[test_case(0, 1; "at least one")]
    #[test_case(39, 1)]
    #[test_case(40, 2)]
    #[test_case(256, 12)]
    #[test_case(1 << 64, 256)]
    fn limit_is_a_twentieth_and_at_least_one(capacity: u128, expected: usize) {
        assert_eq!(limit(capacity), expected);
    }

    #[test_case(&[], 2, 0, Ok(()))]
    #[test_case(&[entry(1, 0, 1), entry(2, 0, 2)], 2, 0, Err(Full::Pool(2)))]
    #[test_case(&[entry(1, 0, 1)], 2, 1, Ok(()); "one here, one in another pool")]
    #[test_case(&[entry(1, 0, 1)], 2, 2, Err(Full::Service))]
    #[test_case(&[entry(1, 0, 1), entry(2, 0, 1), entry(3, 0, 1)], 9, 0, Err(Full::Service))]
    #[test_case(&[entry(1, 0, 2), entry(2, 0, 2), entry(3, 0, 2)], 9, 0, Ok(()); "another Service's")]
    fn room_is_bounded_by_service_and_pool(held: &[Entry], limit: usize, elsewhere: usize, expected: Result<(), Full>) {
        assert_eq!(room(held, &contested(9, 1), limit, elsewhere), expected);
    }

    #[test]
    fn families_are_counted_apart() {
        let six = Contested { address: "2001:db8::1".parse().unwrap(), ..contested(1, 1) };
        assert_eq!(room(&[entry(1, 0, 2)], &six, 1, 0), Ok(()));
    }

    #[test_case(3599, &[1]; "hour is not over")]
    #[test_case(3600, &[]; "hour is over")]
    fn quarantine_ends_after_an_hour(now: i64, expected: &[u8]) {
        let next = next(&[entry(1, 0, 1)], |_| true, &[], |_| 1, |_| 0, at(now));
        assert_eq!(
            next.iter().map(|e| e.address).collect::<Vec<_>>(),
            expected.iter().map(|n| address(*n)).collect::<Vec<_>>()
        );
    }

    #[test_case(None, Ok(Release::Nothing))]
    #[test_case(Some(" all "), Ok(Release::All))]
    #[test_case(Some(""), Ok(Release::Nothing))]
    #[test_case(Some("192.0.2.1, 192.0.2.2"), Ok(Release::These([address(1), address(2)].into())))]
    #[test_case(Some("192.0.2.1,web"), Err(ReleaseError("web".to_owned())))]
    fn release_annotation_is_read(annotation: Option<&str>, expected: Result<Release, ReleaseError>) {
        assert_eq!(Release::read(annotation), expected);
    }

    fn entries() -> impl Strategy<Value = Vec<Entry>> {
        let one = (0u8..30, -4000i64..4000, 0u8..6).prop_map(|(n, since, of)| (n, entry(n, since, of)));
        prop::collection::vec(one, 0..8)
            .prop_map(|all| all.into_iter().collect::<BTreeMap<_, _>>().into_values().collect())
    }

    proptest! {
        /// The bounds hold for the added entries, entries that stay keep their times, and a second run changes nothing,
        /// whatever is contested.
        #[test]
        fn next_quarantine_is_bounded_and_stable(
            held in entries(),
            new in prop::collection::vec((0u8..30, 0u8..6), 0..40),
            most in 1usize..6,
            released in prop::collection::btree_set(0u8..30, 0..4),
        ) {
            let new: Vec<_> = new.into_iter().map(|(n, of)| contested(n, of)).collect();
            let stays = |e: &Entry| !released.iter().any(|n| address(*n) == e.address);
            let step = |held: &[Entry]| next(held, stays, &new, |_| most, |_| 0, at(0));
            let after = step(&held);
            let kept = |e: &&Entry| held.contains(e);
            let old = after.iter().filter(kept).count();
            prop_assert!(after.len() <= most.max(old));
            for s in 0..6 {
                let of = |e: &&Entry| e.service == service(s);
                let had = after.iter().filter(kept).filter(of).count();
                prop_assert!(after.iter().filter(of).count() <= PER_SERVICE.max(had));
            }
            for e in after.iter().filter(|e| !kept(e)) {
                prop_assert!(e.since == at(0) && new.iter().any(|c| c.address == e.address && c.service == e.service));
            }
            let distinct: BTreeSet<_> = after.iter().map(|e| e.address).collect();
            prop_assert_eq!(distinct.len(), after.len());
            let stay: Vec<_> = after.iter().filter(|e| stays(e)).cloned().collect();
            if stay.len() == after.len() {
                prop_assert_eq!(step(&after), after);
            }
        }

        /// An entry is added as long as a contested address has room, so that no Service waits for ever.
        #[test]
        fn contested_address_with_room_is_quarantined(held in entries(), new in prop::collection::vec((0u8..30, 0u8..6), 1..9), most in 1usize..6) {
            let new: Vec<_> = new.into_iter().map(|(n, of)| contested(n, of)).collect();
            let waits = |c: &&Contested| !held.iter().any(|e| e.address == c.address) && room(&held, c, most, 0).is_ok();
            let after = next(&held, |_| true, &new, |_| most, |_| 0, at(0));
            if new.iter().any(|c| waits(&c)) {
                prop_assert_ne!(after, held);
            }
        }
    }
}

//! The selection of EndpointSlices to watch: those of the Services with `externalTrafficPolicy: Local`, by their names
//! while these fit into a selector, and all of the cluster beyond that. Pure.
//!
//! A new selection needs a new watch, which lists first. A change of the Services therefore waits for others that come
//! with it; and a watch on all is kept, whatever Services come and go.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use crate::api_objects::{ServiceName, SliceSelection, Vip};

/// Number of names in a label selector at most: 63 bytes each keep the request's URL below the 8 KiB that proxies
/// allow.
const MOST_NAMES: usize = 100;
/// Number of names up to which a watch on all returns to names: half of the maximum, so that a number about the limit
/// changes nothing.
const FEW_NAMES: usize = MOST_NAMES / 2;
/// Time for which the first of several changes waits for the others.
const SETTLE: Duration = Duration::from_millis(200);

/// The watch on EndpointSlices.
#[derive(Debug, Default)]
pub(super) struct SliceWatch {
    /// The Services whose endpoints decide about an address, and the addresses.
    wanted: BTreeMap<ServiceName, BTreeSet<IpAddr>>,
    /// The slices that are watched.
    selection: SliceSelection,
    /// The slices that are completely known.
    covered: SliceSelection,
    /// Whether the Services have changed since the selection was last scheduled.
    changed: bool,
    /// The time at which the selection is due.
    due: Option<Duration>,
}

impl SliceWatch {
    /// Returns the watch that an earlier run left, which has to be begun again.
    pub(super) fn restored<'a>(vips: impl Iterator<Item = &'a Vip>, covered: BTreeSet<ServiceName>) -> Self {
        let mut watch = Self { covered: SliceSelection::Of(covered), ..Self::default() };
        vips.for_each(|vip| watch.vip_changed(None, Some(vip)));
        watch.changed = false;
        watch.selection = watch.desired();
        watch
    }

    /// Takes in the previous and the present state of an address.
    pub(super) fn vip_changed(&mut self, before: Option<&Vip>, after: Option<&Vip>) {
        let [before, after] = [before, after].map(|vip| {
            vip.filter(|vip| !vip.deleting)
                .map(|vip| (vip.address, vip.local_services()))
                .filter(|(_, of)| !of.is_empty())
        });
        if before == after {
            return;
        }
        self.changed = true;
        if let Some((address, services)) = before {
            for service in services.iter().map(ServiceName::from) {
                let Some(addresses) = self.wanted.get_mut(&service) else { continue };
                addresses.remove(&address);
                if addresses.is_empty() {
                    self.wanted.remove(&service);
                }
            }
        }
        if let Some((address, services)) = after {
            for service in services.iter().map(ServiceName::from) {
                self.wanted.entry(service).or_default().insert(address);
            }
        }
    }

    /// Schedules the selection, if the Services have changed: at once where nothing is watched yet.
    pub(super) fn schedule(&mut self, now: Duration) {
        if std::mem::take(&mut self.changed) {
            let settle = if self.selection.is_empty() { Duration::ZERO } else { SETTLE };
            self.due.get_or_insert(now + settle);
        }
    }

    /// Returns the time at which [`SliceWatch::poll`] may have a selection.
    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        self.due
    }

    /// Returns the slices to watch from now on, if they are another selection than before.
    pub(super) fn poll(&mut self, now: Duration) -> Option<SliceSelection> {
        self.due.take_if(|due| *due <= now)?;
        let desired = self.desired();
        if desired == self.selection {
            return None;
        }
        self.selection = desired;
        // Slices of Services outside the new selection are no longer known; the state of the others is known up to this
        // moment.
        self.covered = SliceSelection::Of(self.known());
        Some(self.selection.clone())
    }

    /// Returns the slices that are watched.
    pub(super) fn selection(&self) -> &SliceSelection {
        &self.selection
    }

    /// Takes in the slices that are completely known from now on. Returns the addresses that waited for them.
    pub(super) fn cover(&mut self, covered: SliceSelection) -> BTreeSet<IpAddr> {
        if covered != self.selection {
            // A watch that was replaced sent this: what has become of its objects since is not known.
            return BTreeSet::new();
        }
        let before = std::mem::replace(&mut self.covered, covered);
        let new = self.wanted.iter().filter(|(service, _)| !before.contains(service) && self.covered.contains(service));
        new.flat_map(|(_, addresses)| addresses).copied().collect()
    }

    /// Returns whether the endpoints of a Service are completely known.
    pub(super) fn covers(&self, service: &ServiceName) -> bool {
        self.covered.contains(service)
    }

    /// Returns whether all endpoints that decide about an address are completely known.
    pub(super) fn covers_all(&self) -> bool {
        self.wanted.keys().all(|service| self.covers(service))
    }

    /// Returns whether endpoints decide about any address.
    pub(super) fn is_wanted(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// Returns the addresses whose owner depends on endpoints of a Service.
    pub(super) fn served_by(&self, service: &ServiceName) -> impl Iterator<Item = IpAddr> {
        self.wanted.get(service).into_iter().flatten().copied()
    }

    /// Returns the Services whose endpoints decide about an address and are completely known.
    pub(super) fn known(&self) -> BTreeSet<ServiceName> {
        self.wanted.keys().filter(|service| self.covers(service)).cloned().collect()
    }

    fn desired(&self) -> SliceSelection {
        let names: BTreeSet<&str> = self.wanted.keys().map(|service| service.name.as_str()).collect();
        let limit = if self.selection == SliceSelection::All { FEW_NAMES } else { MOST_NAMES };
        if names.len() > limit {
            return SliceSelection::All;
        }
        SliceSelection::Of(self.wanted.keys().cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use herald_crds::virtual_ip::ServiceReference;
    use test_case::test_case;

    use super::*;
    use crate::rank::tests::{LOCAL, vip};

    fn service(number: u8) -> ServiceName {
        ServiceName { namespace: "default".to_owned(), name: format!("web{number}") }
    }

    /// Returns an address with a Service of its own.
    fn of(number: u8) -> Vip {
        let ServiceName { namespace, name } = service(number);
        let services = vec![ServiceReference { namespace, name, uid: String::new() }];
        Vip { local: LOCAL, services, ..vip(&format!("192.0.2.{number}")) }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Lets time pass until nothing is due; slices are listed as soon as they are watched.
    fn pass(watch: &mut SliceWatch, until: Duration, lists: &mut Vec<SliceSelection>) {
        while let Some(due) = watch.poll_timeout().filter(|due| *due <= until) {
            if let Some(selection) = watch.poll(due) {
                watch.cover(selection.clone());
                lists.push(selection);
            }
        }
    }

    /// Creates Services one after another. Returns how often EndpointSlices are listed, and how often by names.
    fn created(count: u8, apart_ms: u64) -> (usize, usize, SliceWatch) {
        let (mut watch, mut lists) = (SliceWatch::default(), Vec::new());
        for number in 0..count {
            let now = ms(u64::from(number) * apart_ms);
            pass(&mut watch, now, &mut lists);
            watch.vip_changed(None, Some(&of(number)));
            watch.schedule(now);
        }
        pass(&mut watch, ms(1_000_000), &mut lists);
        assert!(watch.covers_all());
        let by_names = lists.iter().filter(|selection| **selection != SliceSelection::All).count();
        (lists.len(), by_names, watch)
    }

    #[test_case(1, 20 => (1, 1); "the first is listed at once")]
    #[test_case(200, 0 => (2, 1); "all at once")]
    #[test_case(200, 20 => (11, 10); "fifty a second")]
    #[test_case(200, 1000 => (101, 100); "slower than changes wait for each other, up to the limit")]
    fn number_of_listings_is_bounded(count: u8, apart_ms: u64) -> (usize, usize) {
        let (lists, by_names, _) = created(count, apart_ms);
        (lists, by_names)
    }

    #[test]
    fn watch_on_all_is_kept_while_services_come_and_go() {
        let (_, _, mut watch) = created(120, 20);
        for round in 0..100 {
            watch.vip_changed(Some(&of(7)), None);
            watch.schedule(ms(2_000_000 + round));
            assert!(!watch.wanted.contains_key(&service(7)));
            watch.vip_changed(None, Some(&of(7)));
            watch.schedule(ms(2_000_000 + round));
            assert!(watch.covers_all(), "a Service is known before it is wanted");
        }
        assert_eq!(watch.poll(ms(2_001_000)), None);
        for number in 0..70 {
            watch.vip_changed(Some(&of(number)), None);
            watch.schedule(ms(3_000_000));
        }
        let selection = watch.poll(ms(3_000_000) + SETTLE);
        assert_eq!(selection, Some(SliceSelection::Of((70..120).map(service).collect())));
        assert!(watch.covers_all(), "they were known");
        assert!(!watch.covers(&service(7)));
    }

    #[test]
    fn change_that_is_undone_in_time_starts_no_listing() {
        let (_, _, mut watch) = created(3, 1000);
        watch.vip_changed(None, Some(&of(9)));
        watch.schedule(ms(2_000_000));
        assert_eq!(watch.poll_timeout(), Some(ms(2_000_000) + SETTLE));
        let deleting = Vip { deleting: true, ..of(9) };
        watch.vip_changed(Some(&of(9)), Some(&deleting));
        watch.schedule(ms(2_000_100));
        assert_eq!((watch.poll(ms(3_000_000)), watch.poll_timeout()), (None, None));
    }

    #[test]
    fn replaced_watch_adds_no_knowledge() {
        let (_, _, mut watch) = created(3, 1000);
        let replaced = watch.selection().clone();
        watch.vip_changed(Some(&of(1)), Some(&of(9)));
        watch.schedule(ms(2_000_000));
        assert!(watch.poll(ms(3_000_000)).is_some());
        assert_eq!(watch.cover(replaced), BTreeSet::new());
        assert!(!watch.covers(&service(9)) && watch.covers(&service(0)));
    }

    #[test]
    fn waiting_addresses_are_returned_once() {
        let mut watch = SliceWatch::default();
        watch.vip_changed(None, Some(&of(1)));
        watch.schedule(ms(0));
        let selection = watch.poll(ms(0)).unwrap();
        assert!(!watch.covers_all());
        assert_eq!(watch.cover(selection.clone()), BTreeSet::from([of(1).address]));
        assert_eq!(watch.cover(selection), BTreeSet::new());
        assert_eq!(watch.known(), BTreeSet::from([service(1)]));
    }
}

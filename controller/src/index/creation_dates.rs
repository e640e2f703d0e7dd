//! The VirtualIPs of one address are dated each later than the one before.
//!
//! Speakers tell an address's object from the one before by when it was created: whoever claimed for the one that was
//! deleted gives way, and nobody claims for it again (docs/protocol.md, section 23). The API server that takes the create
//! notes that by its own clock, in whole seconds (`metav1.Time`). Two objects of one second, or one that comes from an API
//! server whose clock is behind, or was set back, cannot be told apart: the later would not be announced.
//!
//! So an object is created a second after the one before, and what the API server dated it is looked at. One that is not
//! later is deleted and created again once it will be.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use k8s_openapi::jiff::Timestamp;

/// What the API server tells apart.
const RESOLUTION: Duration = Duration::from_secs(1);
/// How long it is waited for a later date: clocks that are synchronised at all are less far apart.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often an object is created again: each of so many API servers may be behind the one before.
const ATTEMPTS: u32 = 3;
/// How long speakers remember an object that is gone (docs/protocol.md, section 23).
const REMEMBERED: Duration = Duration::from_secs(600);

/// What is known of when the objects of each address were created: of those that are there, and of those that have gone
/// within the time that speakers remember them. A process that has just started knows of none that has gone before.
#[derive(Debug, Default)]
pub(super) struct CreationDates {
    addresses: BTreeMap<IpAddr, Dates>,
}

#[derive(Clone, Debug)]
struct Dates {
    /// The newest object.
    uid: String,
    /// Its date, in seconds since the epoch.
    date: i64,
    /// The latest date of those before it.
    before: Option<i64>,
    /// When this process created it.
    created: Option<Duration>,
    /// When it was seen to be gone.
    gone: Option<Duration>,
    /// How many objects in a row were dated too early.
    too_early: u32,
}

/// Whether speakers take an object for a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dated {
    /// They do.
    Later,
    /// They do not, and would take one that is created at this time for a new one.
    TooEarly {
        /// When.
        until: Duration,
    },
    /// They do not, and the clocks are too far apart to wait.
    FarTooEarly {
        /// What the API server dated it.
        date: Timestamp,
        /// The date it has to be later than.
        before: Timestamp,
    },
}

impl CreationDates {
    /// An object is there.
    pub(super) fn observe(&mut self, address: IpAddr, uid: &str, date: i64) {
        let last = self.addresses.get(&address);
        if last.is_some_and(|last| last.uid == uid) {
            return;
        }
        let before = last.map(|last| last.before.map_or(last.date, |before| before.max(last.date)));
        let too_early =
            last.filter(|_| before.is_some_and(|before| date <= before)).map_or(0, |last| last.too_early + 1);
        let dates = Dates { uid: uid.to_owned(), date, before, created: None, gone: None, too_early };
        self.addresses.insert(address, dates);
    }

    /// An object was created by this process, at this time or before.
    pub(super) fn created(&mut self, now: Duration, address: IpAddr) {
        if let Some(last) = self.addresses.get_mut(&address) {
            last.created = Some(now);
        }
        self.addresses.retain(|_, last| last.gone.is_none_or(|gone| now < gone + REMEMBERED));
    }

    /// There is no object of the address.
    pub(super) fn gone(&mut self, now: Duration, address: IpAddr) {
        if let Some(last) = self.addresses.get_mut(&address) {
            last.gone.get_or_insert(now);
        }
    }

    /// From when on another object of the address is dated later, as far as that is known.
    pub(super) fn next(&self, now: Duration, address: IpAddr) -> Duration {
        let created = self.addresses.get(&address).and_then(|last| last.created);
        created.map_or(now, |at| now.max(at + RESOLUTION))
    }

    /// Whether the object of an address is dated later than those before it.
    pub(super) fn dated(&self, address: IpAddr) -> Dated {
        let Some(Dates { date, before: Some(before), created: Some(created), too_early, .. }) =
            self.addresses.get(&address)
        else {
            return Dated::Later;
        };
        if date > before {
            return Dated::Later;
        }
        // The clock that dated it goes on.
        let lacks = Duration::from_secs(before.abs_diff(*date)) + RESOLUTION;
        if lacks > PATIENCE || *too_early > ATTEMPTS {
            let at = |seconds| Timestamp::from_second(seconds).unwrap_or_default();
            return Dated::FarTooEarly { date: at(*date), before: at(*before) };
        }
        Dated::TooEarly { until: *created + lacks }
    }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn address() -> IpAddr {
        "192.0.2.1".parse().unwrap()
    }

    fn create(dates: &mut CreationDates, now: Duration, uid: &str, date: i64) -> Dated {
        dates.observe(address(), uid, date);
        dates.created(now, address());
        let dated = dates.dated(address());
        dates.gone(now, address());
        dated
    }

    #[test]
    fn two_objects_of_one_address_are_created_a_second_apart() {
        let mut dates = CreationDates::default();
        assert_eq!(dates.next(s(5), address()), s(5));
        create(&mut dates, s(5), "one", 100);
        let ms = Duration::from_millis;
        assert_eq!(dates.next(ms(5300), address()), s(6));
        assert_eq!(dates.next(ms(5300), "192.0.2.2".parse().unwrap()), ms(5300));
        assert_eq!(dates.next(ms(6500), address()), ms(6500));
    }

    #[test_case(101, Dated::Later)]
    #[test_case(100, Dated::TooEarly { until: s(11) }; "in the same second")]
    #[test_case(97, Dated::TooEarly { until: s(14) }; "by a clock that is behind")]
    #[test_case(-3500, Dated::FarTooEarly { date: Timestamp::from_second(-3500).unwrap(), before: Timestamp::from_second(100).unwrap() }; "by a clock that was set back")]
    fn second_object(date: i64, expected: Dated) {
        let mut dates = CreationDates::default();
        create(&mut dates, s(5), "one", 100);
        assert_eq!(create(&mut dates, s(10), "two", date), expected);
    }

    #[test]
    fn every_object_before_counts_and_attempts_end() {
        let mut dates = CreationDates::default();
        create(&mut dates, s(0), "one", 100);
        for n in 1..=i64::from(ATTEMPTS) {
            let dated = create(&mut dates, s(0), &n.to_string(), 100 - 2 * n);
            assert_eq!(dated, Dated::TooEarly { until: s(0) + Duration::from_secs(2 * n.unsigned_abs() + 1) });
        }
        assert!(matches!(create(&mut dates, s(0), "last", 99), Dated::FarTooEarly { .. }));
        assert_eq!(create(&mut dates, s(0), "later", 101), Dated::Later);
    }

    #[test]
    fn object_that_speakers_have_forgotten_is_forgotten() {
        let mut dates = CreationDates::default();
        create(&mut dates, s(0), "one", 100);
        dates.observe("192.0.2.2".parse().unwrap(), "other", 0);
        dates.created(REMEMBERED, "192.0.2.2".parse().unwrap());
        assert_eq!(create(&mut dates, REMEMBERED, "two", 50), Dated::Later);
    }

    #[test]
    fn object_that_another_process_created_is_left_alone() {
        let mut dates = CreationDates::default();
        create(&mut dates, s(0), "one", 100);
        dates.observe(address(), "two", 50);
        assert_eq!(dates.dated(address()), Dated::Later);
    }
}

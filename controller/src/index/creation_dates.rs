//! Creation dates: each VirtualIP of an address is dated later than the one before.
//!
//! Speakers distinguish an address's object from the one before by its creation time: a speaker that claimed for the
//! deleted object gives way, and no speaker claims for that object again (docs/protocol/ownership.md#deletion). The API
//! server that handles the create records the time by its own clock, in whole seconds (`metav1.Time`). Two objects
//! cannot be told apart if they are of one second, or if the later one comes from an API server whose clock is behind,
//! or was set back: the later object would not be announced.
//!
//! An object is therefore created a second after the one before, and its date is checked. An object with a date that is
//! not later is deleted, and created again once the date will be later.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use k8s_openapi::jiff::Timestamp;

/// The resolution of the API server's dates.
const RESOLUTION: Duration = Duration::from_secs(1);
/// Time to wait for a later date: clocks that are synchronised at all are less far apart.
const PATIENCE: Duration = Duration::from_secs(30);
/// Maximum of further attempts to create an object: each of this many API servers may be behind the one before.
const ATTEMPTS: u32 = 3;
/// Time for which speakers remember a deleted object (docs/protocol/ownership.md#deletion).
const REMEMBERED: Duration = Duration::from_secs(600);

/// The known creation times of the objects of each address: of those that exist, and of those that were deleted within
/// the time that speakers remember them. A process that has just started knows none of the objects deleted before.
#[derive(Debug, Default)]
pub(super) struct CreationDates {
    addresses: BTreeMap<IpAddr, Dates>,
}

#[derive(Clone, Debug)]
struct Dates {
    /// The UID of the newest object.
    uid: String,
    /// Its date, in seconds since the epoch.
    date: i64,
    /// The latest date of the objects before it.
    before: Option<i64>,
    /// The time at which this process created the newest object.
    created: Option<Duration>,
    /// The time at which it was seen to be deleted.
    gone: Option<Duration>,
    /// The number of objects in a row whose dates were too early.
    too_early: u32,
}

/// Whether speakers take an object for a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dated {
    /// Speakers take it for a new one.
    Later,
    /// Speakers do not take it for a new one, but would take one created at this time for it.
    TooEarly {
        /// The time of the next attempt.
        until: Duration,
    },
    /// Speakers do not take it for a new one, and the clocks are too far apart to wait.
    FarTooEarly {
        /// The date that the API server gave the object.
        date: Timestamp,
        /// The date that it has to be later than.
        before: Timestamp,
    },
}

impl CreationDates {
    /// Records that an object exists.
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

    /// Records that this process created an object, at this time or before.
    pub(super) fn created(&mut self, now: Duration, address: IpAddr) {
        if let Some(last) = self.addresses.get_mut(&address) {
            last.created = Some(now);
        }
        self.addresses.retain(|_, last| last.gone.is_none_or(|gone| now < gone + REMEMBERED));
    }

    /// Records that the address has no object.
    pub(super) fn gone(&mut self, now: Duration, address: IpAddr) {
        if let Some(last) = self.addresses.get_mut(&address) {
            last.gone.get_or_insert(now);
        }
    }

    /// Returns the time from which another object of the address is dated later, as far as that is known.
    pub(super) fn next(&self, now: Duration, address: IpAddr) -> Duration {
        let created = self.addresses.get(&address).and_then(|last| last.created);
        created.map_or(now, |at| now.max(at + RESOLUTION))
    }

    /// Returns whether the object of an address is dated later than those before it.
    pub(super) fn dated(&self, address: IpAddr) -> Dated {
        let Some(Dates { date, before: Some(before), created: Some(created), too_early, .. }) =
            self.addresses.get(&address)
        else {
            return Dated::Later;
        };
        if date > before {
            return Dated::Later;
        }
        // The clock that dated the object goes on.
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
    fn second_object_is_judged_by_its_date(date: i64, expected: Dated) {
        let mut dates = CreationDates::default();
        create(&mut dates, s(5), "one", 100);
        assert_eq!(create(&mut dates, s(10), "two", date), expected);
    }

    #[test]
    fn every_earlier_object_counts_and_attempts_are_bounded() {
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
    fn object_of_another_process_is_left_alone() {
        let mut dates = CreationDates::default();
        create(&mut dates, s(0), "one", 100);
        dates.observe(address(), "two", 50);
        assert_eq!(dates.dated(address()), Dated::Later);
    }
}

//! The times at which announcements go out. Pure; frames are made elsewhere.
//!
//! A gained address is announced in rounds at 0, 0.1, 0.3, 1 and 3 s. The first round goes out at once: it moves the
//! traffic. The others repeat it for hosts that lost a frame, and share a token bucket per segment, since switches
//! guard against bursts of ARP. If a refresh is configured, each address is announced again at an interval for as long
//! as it is owned.

use std::{net::IpAddr, time::Duration};

use crate::timer_queue::TimerQueue;

/// Time after the gain at which each repeat is due.
pub const REPEATS: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_millis(300), Duration::from_secs(1), Duration::from_secs(3)];

/// Repeats per second and segment, unless configured. A frame takes 84 bytes on the wire (60, checksum, preamble, gap):
/// 500/s are 0.34 Mbit/s, a third of a percent of Fast Ethernet. 1,000 addresses gained at once repeat 4,000 frames,
/// which takes 8 s. Switches with dynamic ARP inspection allow 15/s on untrusted ports: there, configure that rate.
pub const DEFAULT_RATE: u32 = 500;

/// How often announcements go out on a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Repeats per second, at least 1.
    pub rate: u32,
    /// The time between two announcements of an address that stays owned; `None`: no announcement after the rounds.
    pub refresh: Option<Duration>,
}

impl Default for Pace {
    /// [`DEFAULT_RATE`], and no refresh: the Hellos of a node keep its MAC in the switches' tables, and neighbours ask
    /// again before they forget.
    fn default() -> Self {
        Self { rate: DEFAULT_RATE, refresh: None }
    }
}

/// Schedules the announcements of gained addresses on one segment, until told to stop.
#[derive(Debug)]
pub struct Announcer {
    bucket: TokenBucket,
    /// When the next repeat of an address is due, and the number of repeats left after it.
    repeats: TimerQueue<usize>,
    refresh: Option<Duration>,
    /// When the refresh of an address is due.
    refreshes: TimerQueue<()>,
}

impl Announcer {
    /// Returns an announcer that keeps this pace.
    pub fn new(pace: Pace) -> Self {
        Self {
            bucket: TokenBucket::new(pace.rate.max(1)),
            repeats: TimerQueue::default(),
            refresh: pace.refresh,
            refreshes: TimerQueue::default(),
        }
    }

    /// Schedules the repeats for an address gained now; the caller sends the first round now. Replaces what was pending
    /// for the address.
    pub fn gained(&mut self, now: Duration, address: IpAddr) {
        self.gained_by_another(now, address);
        self.refresh_later(now, address);
    }

    /// Does the same for an address of a node for which this one covers. Such an address is not refreshed, because a
    /// cover ends.
    pub fn gained_by_another(&mut self, now: Duration, address: IpAddr) {
        self.repeats.set(now + REPEATS[0], address, REPEATS.len() - 1);
    }

    /// Schedules one announcement of an address that was announced before, as by a speaker that restarts: most
    /// neighbours know it already, so it only waits its turn.
    pub fn resumed(&mut self, now: Duration, address: IpAddr) {
        self.repeats.set(now, address, 0);
        self.refresh_later(now, address);
    }

    fn refresh_later(&mut self, now: Duration, address: IpAddr) {
        if let Some(refresh) = self.refresh {
            self.refreshes.set(now + refresh, address, ());
        }
    }

    /// Returns whether a repeat for an address is pending. (A refresh does not count.)
    pub fn is_pending(&self, address: IpAddr) -> bool {
        self.repeats.get(address).is_some()
    }

    /// Forgets what is pending for an address that was lost.
    pub fn cancel(&mut self, address: IpAddr) {
        self.repeats.remove(address);
        self.refreshes.remove(address);
    }

    /// Returns the next address to announce again now.
    pub fn poll(&mut self, now: Duration) -> Option<IpAddr> {
        let is_due = |next: Option<Duration>| next.is_some_and(|next| next <= now);
        let repeat = is_due(self.repeats.next());
        if !(repeat || is_due(self.refreshes.next())) || !self.bucket.take(now) {
            return None;
        }
        // A repeat of a newly gained address goes before a refresh.
        if !repeat {
            let (_, address, ()) = self.refreshes.pop_due(now)?;
            self.refresh_later(now, address);
            return Some(address);
        }
        let (due, address, left) = self.repeats.pop_due(now)?;
        if left > 0 {
            // The pause is that from one repeat to the next, so that a late repeat is not followed by a bunch.
            let at = |index: usize| REPEATS[index];
            let next = REPEATS.len() - left;
            self.repeats.set(due.max(now) + (at(next) - at(next - 1)), address, left - 1);
        }
        Some(address)
    }

    /// Returns when to poll again; `None` if nothing is pending.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let due = [self.repeats.next(), self.refreshes.next()].into_iter().flatten().min();
        due.map(|due| due.max(self.bucket.next()))
    }
}

/// A token bucket that holds the tokens of a tenth of a second (at least one): the largest burst.
#[derive(Debug)]
struct TokenBucket {
    /// Time that one token takes.
    interval: Duration,
    /// Time that a full bucket takes.
    depth: Duration,
    /// When the bucket would be full again (virtual scheduling, ITU-T I.371: no counter, no rounding).
    full_at: Duration,
}

impl TokenBucket {
    /// Returns a full bucket.
    fn new(rate: u32) -> Self {
        let interval = Duration::from_secs(1) / rate;
        Self { interval, depth: interval.max(Duration::from_millis(100)), full_at: Duration::ZERO }
    }

    /// Returns the first moment at which a token is there.
    fn next(&self) -> Duration {
        (self.full_at + self.interval).saturating_sub(self.depth)
    }

    fn take(&mut self, now: Duration) -> bool {
        if self.next() > now {
            return false;
        }
        self.full_at = self.full_at.max(now) + self.interval;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    const A: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2));

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Runs until nothing is pending, from timeout to timeout. Returns each announcement with its time.
    fn run(announcer: &mut Announcer, mut now: Duration) -> Vec<(Duration, IpAddr)> {
        let mut sent = Vec::new();
        loop {
            while let Some(address) = announcer.poll(now) {
                sent.push((now, address));
            }
            let Some(next) = announcer.poll_timeout() else { return sent };
            assert!(next > now, "a timeout in the past makes a hot loop");
            now = next;
        }
    }

    #[test]
    fn repeats_come_at_their_times() {
        let mut announcer = Announcer::new(Pace::default());
        announcer.gained(ms(5000), A);
        assert_eq!(announcer.poll(ms(5000)), None, "the first round is the caller's");
        let sent = run(&mut announcer, ms(5000));
        assert_eq!(sent, [100, 300, 1000, 3000].map(|t| (ms(5000 + t), A)));
    }

    #[test]
    fn lost_address_is_not_announced() {
        let mut announcer = Announcer::new(Pace::default());
        announcer.gained(ms(0), A);
        announcer.gained(ms(0), B);
        announcer.cancel(A);
        let sent = run(&mut announcer, ms(0));
        assert_eq!(sent, [100, 300, 1000, 3000].map(|t| (ms(t), B)));
    }

    #[test]
    fn resumed_address_is_announced_once() {
        let mut announcer = Announcer::new(Pace::default());
        announcer.resumed(ms(7), A);
        assert_eq!(run(&mut announcer, ms(7)), [(ms(7), A)]);
    }

    #[test]
    fn address_is_refreshed_for_as_long_as_it_is_owned() {
        let mut announcer = Announcer::new(Pace { refresh: Some(ms(10_000)), ..Pace::default() });
        announcer.gained(ms(0), A);
        announcer.resumed(ms(0), B);
        let until = |announcer: &mut Announcer, end| {
            let mut sent = Vec::new();
            while let Some(next) = announcer.poll_timeout().filter(|next| *next < end) {
                sent.extend(std::iter::from_fn(|| announcer.poll(next)).map(|address| (next, address)));
            }
            sent
        };
        let of = |sent: &[(Duration, IpAddr)], whose| {
            sent.iter().filter(|(_, a)| *a == whose).map(|(at, _)| *at).collect::<Vec<_>>()
        };
        let sent = until(&mut announcer, ms(25_000));
        assert_eq!(of(&sent, A), [100, 300, 1000, 3000, 10_000, 20_000].map(ms));
        assert_eq!(of(&sent, B), [0, 10_000, 20_000].map(ms));
        assert!(!announcer.is_pending(A) && !announcer.is_pending(B), "a refresh holds nothing up");
        announcer.cancel(A);
        let sent = until(&mut announcer, ms(45_000));
        assert_eq!((of(&sent, A), of(&sent, B)), (vec![], vec![ms(30_000), ms(40_000)]));
    }

    #[test]
    fn refreshes_do_not_delay_a_new_address() {
        let mut announcer = Announcer::new(Pace { rate: 10, refresh: Some(ms(1000)) });
        for last in 0..100 {
            announcer.resumed(ms(0), Ipv4Addr::new(192, 0, 2, last).into());
        }
        while announcer.poll_timeout().is_some_and(|next| next < ms(20_000)) {
            announcer.poll(announcer.poll_timeout().unwrap());
        }
        announcer.gained(ms(20_000), B);
        let mut at = ms(20_000);
        while announcer.poll(at) != Some(B) {
            at = announcer.poll_timeout().unwrap();
        }
        assert!(at <= ms(20_200), "the first repeat of {B} came at {at:?}, among refreshes that are late");
    }

    #[test]
    fn gaining_again_starts_over() {
        let mut announcer = Announcer::new(Pace::default());
        announcer.gained(ms(0), A);
        announcer.gained(ms(50), A);
        assert_eq!(run(&mut announcer, ms(50)), [100, 300, 1000, 3000].map(|t| (ms(50 + t), A)));
    }

    #[test]
    fn late_repeat_is_not_followed_by_a_bunch() {
        let mut announcer = Announcer::new(Pace::default());
        announcer.gained(ms(0), A);
        let sent = run(&mut announcer, ms(2000));
        assert_eq!(sent, [2000, 2200, 2900, 4900].map(|t| (ms(t), A)));
    }

    proptest! {
        /// Whatever is gained: all repeats come, never more than the rate allows, and never before their time.
        #[test]
        fn rate_is_kept(count in 1u8..200, rate in 1u32..1000) {
            let mut announcer = Announcer::new(Pace { rate, refresh: None });
            for last in 0..count {
                announcer.gained(ms(0), Ipv4Addr::new(192, 0, 2, last).into());
            }
            let sent = run(&mut announcer, ms(0));
            prop_assert_eq!(sent.len(), usize::from(count) * REPEATS.len());
            prop_assert!(sent[0].0 >= REPEATS[0]);
            let burst = (f64::from(rate) / 10.0).max(1.0);
            for (i, (from, _)) in sent.iter().enumerate() {
                for (n, (to, _)) in sent[i..].iter().enumerate().skip(1) {
                    let allowed = burst + f64::from(rate) * (*to - *from).as_secs_f64();
                    prop_assert!((n as f64) < allowed + 1.0, "{} frames in {:?}", n + 1, *to - *from);
                }
            }
        }
    }
}

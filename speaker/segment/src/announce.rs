//! When announcements go out. Pure; frames are made elsewhere.
//!
//! An address that has been gained is announced in rounds at 0, 0.1, 0.3, 1 and 3 s. The first round goes out at once:
//! it is what moves the traffic. The others repeat it for those who lost a frame, and share a token bucket per segment,
//! since switches guard against bursts of ARP.

use std::{net::IpAddr, time::Duration};

use crate::agenda::Agenda;

/// Time after the gain at which each repeat is due.
pub const REPEATS: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_millis(300), Duration::from_secs(1), Duration::from_secs(3)];

/// Repeats per second and segment, unless configured. A frame takes 84 bytes on the wire (60, checksum, preamble,
/// gap): 500/s are 0.34 Mbit/s, a third of a percent of Fast Ethernet. 1,000 addresses gained at once repeat
/// 4,000 frames, done after 8 s. Switches with dynamic ARP inspection allow 15/s on untrusted ports: configure that.
pub const DEFAULT_RATE: u32 = 500;

/// Announces what was gained on one segment, until told to stop.
#[derive(Debug)]
pub struct Announcer {
    bucket: TokenBucket,
    /// When the next repeat of an address is due, and the number of repeats left after it.
    repeats: Agenda<usize>,
}

impl Announcer {
    /// An announcer that repeats at most `rate` (at least 1) frames per second.
    pub fn new(rate: u32) -> Self {
        Self { bucket: TokenBucket::new(rate.max(1)), repeats: Agenda::default() }
    }

    /// Schedules the repeats for an address gained now; its first round is the caller's, now. What was pending for the
    /// address is replaced.
    pub fn gained(&mut self, now: Duration, address: IpAddr) {
        self.repeats.set(now + REPEATS[0], address, REPEATS.len() - 1);
    }

    /// Schedules one announcement of an address that was announced before, as by a speaker that restarts: most
    /// neighbours know it already, so it only waits its turn.
    pub fn resumed(&mut self, now: Duration, address: IpAddr) {
        self.repeats.set(now, address, 0);
    }

    /// Is a repeat for an address pending?
    pub fn is_pending(&self, address: IpAddr) -> bool {
        self.repeats.get(address).is_some()
    }

    /// Forgets what is pending for an address that was lost.
    pub fn cancel(&mut self, address: IpAddr) {
        self.repeats.remove(address);
    }

    /// The next address to announce again now.
    pub fn poll(&mut self, now: Duration) -> Option<IpAddr> {
        if self.repeats.next()? > now || !self.bucket.take(now) {
            return None;
        }
        let (due, address, left) = self.repeats.pop_due(now)?;
        if left > 0 {
            // From one repeat to the next, so that a late one is not followed by a bunch.
            let at = |index: usize| REPEATS[index];
            let next = REPEATS.len() - left;
            self.repeats.set(due.max(now) + (at(next) - at(next - 1)), address, left - 1);
        }
        Some(address)
    }

    /// When to poll again; `None` if nothing is pending.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.repeats.next().map(|due| due.max(self.bucket.next()))
    }
}

/// A token bucket that holds a tenth of a second's tokens (at least one): what may go out in one burst.
#[derive(Debug)]
struct TokenBucket {
    /// Time one token takes.
    interval: Duration,
    /// Time a full bucket takes.
    depth: Duration,
    /// The bucket would be full again then (virtual scheduling, ITU-T I.371: no counter, no rounding).
    full_at: Duration,
}

impl TokenBucket {
    /// A full bucket.
    fn new(rate: u32) -> Self {
        let interval = Duration::from_secs(1) / rate;
        Self { interval, depth: interval.max(Duration::from_millis(100)), full_at: Duration::ZERO }
    }

    /// The first moment a token is there.
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

    /// Runs until nothing is pending; each announcement with its time. Jumps from timeout to timeout.
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
        let mut announcer = Announcer::new(DEFAULT_RATE);
        announcer.gained(ms(5000), A);
        assert_eq!(announcer.poll(ms(5000)), None, "the first round is the caller's");
        let sent = run(&mut announcer, ms(5000));
        assert_eq!(sent, [100, 300, 1000, 3000].map(|t| (ms(5000 + t), A)));
    }

    #[test]
    fn what_was_lost_is_not_announced() {
        let mut announcer = Announcer::new(DEFAULT_RATE);
        announcer.gained(ms(0), A);
        announcer.gained(ms(0), B);
        announcer.cancel(A);
        let sent = run(&mut announcer, ms(0));
        assert_eq!(sent, [100, 300, 1000, 3000].map(|t| (ms(t), B)));
    }

    #[test]
    fn a_resumed_address_is_announced_once() {
        let mut announcer = Announcer::new(DEFAULT_RATE);
        announcer.resumed(ms(7), A);
        assert_eq!(run(&mut announcer, ms(7)), [(ms(7), A)]);
    }

    #[test]
    fn gaining_again_starts_over() {
        let mut announcer = Announcer::new(DEFAULT_RATE);
        announcer.gained(ms(0), A);
        announcer.gained(ms(50), A);
        assert_eq!(run(&mut announcer, ms(50)), [100, 300, 1000, 3000].map(|t| (ms(50 + t), A)));
    }

    #[test]
    fn a_late_repeat_is_not_followed_by_a_bunch() {
        let mut announcer = Announcer::new(DEFAULT_RATE);
        announcer.gained(ms(0), A);
        let sent = run(&mut announcer, ms(2000));
        assert_eq!(sent, [2000, 2200, 2900, 4900].map(|t| (ms(t), A)));
    }

    proptest! {
        /// Whatever is gained: all repeats come, never more than the rate allows, never before their time.
        #[test]
        fn the_rate_is_kept(count in 1u8..200, rate in 1u32..1000) {
            let mut announcer = Announcer::new(rate);
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

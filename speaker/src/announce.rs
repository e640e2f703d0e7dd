//! When announcements go out. Pure; frames are made elsewhere.
//!
//! An address that has been gained is announced in rounds at 0, 0.1, 0.3, 1 and 3 s. The first round goes out at once:
//! it is what moves the traffic. The others repeat it for those who lost a frame, and share a token bucket per segment,
//! since switches guard against bursts of ARP.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::Duration,
};

/// Time after the gain at which each repeat is due.
pub const REPEATS: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_millis(300), Duration::from_secs(1), Duration::from_secs(3)];

/// Repeats per second and segment, unless configured. A frame takes 84 bytes on the wire (60, checksum, preamble,
/// gap): 500/s are 0.34 Mbit/s, a third of a percent of Fast Ethernet. 1,000 addresses gained at once repeat
/// 4,000 frames, done after 8 s. Switches with dynamic ARP inspection allow 15/s on untrusted ports: configure that.
pub const DEFAULT_RATE: u32 = 500;

/// Announces what was gained, until told to stop.
#[derive(Debug)]
pub struct Announcer {
    rate: u32,
    segments: BTreeMap<u32, Pending>,
}

/// What is left to repeat on one segment.
#[derive(Debug)]
struct Pending {
    bucket: TokenBucket,
    /// In order of time. The value is the number of repeats left after this one.
    due: BTreeMap<(Duration, Ipv4Addr), usize>,
}

impl Announcer {
    /// An announcer that repeats at most `rate` (at least 1) frames per second and segment.
    pub fn new(rate: u32) -> Self {
        Self { rate: rate.max(1), segments: BTreeMap::new() }
    }

    /// Schedules the repeats for an address gained now; its first round is the caller's, now. What was pending for the
    /// address on this segment is replaced.
    pub fn gained(&mut self, now: Duration, segment: u32, address: Ipv4Addr) {
        self.schedule(now, segment, address, now + REPEATS[0], REPEATS.len() - 1);
    }

    /// Schedules one announcement of an address that was announced before, as by a speaker that restarts: neighbours
    /// know it already, so it only waits its turn.
    pub fn resumed(&mut self, now: Duration, segment: u32, address: Ipv4Addr) {
        self.schedule(now, segment, address, now, 0);
    }

    fn schedule(&mut self, now: Duration, segment: u32, address: Ipv4Addr, at: Duration, left: usize) {
        self.cancel(segment, address);
        let rate = self.rate;
        let pending = self
            .segments
            .entry(segment)
            .or_insert_with(|| Pending { bucket: TokenBucket::new(rate, now), due: BTreeMap::new() });
        pending.due.insert((at, address), left);
    }

    /// Forgets what is pending for an address that was lost.
    pub fn cancel(&mut self, segment: u32, address: Ipv4Addr) {
        if let Some(pending) = self.segments.get_mut(&segment) {
            pending.due.retain(|(_, pending), _| *pending != address);
        }
    }

    /// Forgets the segments that are gone.
    pub fn retain_segments(&mut self, segments: &BTreeSet<u32>) {
        self.segments.retain(|segment, _| segments.contains(segment));
    }

    /// The next repeat that is due: segment and address.
    pub fn poll(&mut self, now: Duration) -> Option<(u32, Ipv4Addr)> {
        for (segment, pending) in &mut self.segments {
            let Some(entry) = pending.due.first_entry().filter(|entry| entry.key().0 <= now) else { continue };
            if !pending.bucket.take(now) {
                continue;
            }
            let ((due, address), left) = entry.remove_entry();
            if left > 0 {
                // From one repeat to the next, so that a late one is not followed by a bunch.
                let at = |index: usize| REPEATS[index];
                let next = REPEATS.len() - left;
                pending.due.insert((due.max(now) + (at(next) - at(next - 1)), address), left - 1);
            }
            return Some((*segment, address));
        }
        None
    }

    /// When to poll again; `None` if nothing is pending.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let next = |p: &Pending| p.due.first_key_value().map(|((due, _), _)| (*due).max(p.bucket.next()));
        self.segments.values().filter_map(next).min()
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
    fn new(rate: u32, now: Duration) -> Self {
        let interval = Duration::from_secs(1) / rate;
        Self { interval, depth: interval.max(Duration::from_millis(100)), full_at: now }
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
    use proptest::prelude::*;

    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const B: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Runs until nothing is pending; each announcement with its time. Jumps from timeout to timeout.
    fn run(announcer: &mut Announcer, mut now: Duration) -> Vec<(Duration, u32, Ipv4Addr)> {
        let mut sent = Vec::new();
        loop {
            while let Some((segment, address)) = announcer.poll(now) {
                sent.push((now, segment, address));
            }
            let Some(next) = announcer.poll_timeout() else { return sent };
            assert!(next > now, "a timeout in the past makes a hot loop");
            now = next;
        }
    }

    #[test]
    fn repeats_come_at_their_times() {
        let mut announcer = Announcer::new(DEFAULT_RATE);
        announcer.gained(ms(5000), 2, A);
        assert_eq!(announcer.poll(ms(5000)), None, "the first round is the caller's");
        let sent = run(&mut announcer, ms(5000));
        assert_eq!(sent, [100, 300, 1000, 3000].map(|t| (ms(5000 + t), 2, A)));
    }

    #[test]
    fn what_was_lost_is_not_announced() {
        let mut announcer = Announcer::new(DEFAULT_RATE);
        announcer.gained(ms(0), 2, A);
        announcer.gained(ms(0), 2, B);
        announcer.cancel(2, A);
        assert!(run(&mut announcer, ms(0)).iter().all(|(_, _, address)| *address == B));
        announcer.gained(ms(0), 2, A);
        announcer.retain_segments(&BTreeSet::from([3]));
        assert_eq!(run(&mut announcer, ms(0)), []);
    }

    #[test]
    fn a_resumed_address_is_announced_once() {
        let mut announcer = Announcer::new(DEFAULT_RATE);
        announcer.resumed(ms(7), 2, A);
        assert_eq!(run(&mut announcer, ms(7)), [(ms(7), 2, A)]);
    }

    #[test]
    fn gaining_again_starts_over() {
        let mut announcer = Announcer::new(DEFAULT_RATE);
        announcer.gained(ms(0), 2, A);
        announcer.gained(ms(50), 2, A);
        assert_eq!(run(&mut announcer, ms(50))[0].0, ms(150));
    }

    #[test]
    fn segments_do_not_wait_for_each_other() {
        let mut announcer = Announcer::new(1);
        announcer.gained(ms(0), 2, A);
        announcer.gained(ms(0), 3, A);
        let first: Vec<_> = run(&mut announcer, ms(0)).into_iter().take(2).collect();
        assert_eq!(first, [(ms(100), 2, A), (ms(100), 3, A)]);
    }

    proptest! {
        /// Whatever is gained: all repeats come, never more than the rate allows, never before their time.
        #[test]
        fn the_rate_is_kept(count in 1u8..200, rate in 1u32..1000) {
            let mut announcer = Announcer::new(rate);
            for last in 0..count {
                announcer.gained(ms(0), 2, Ipv4Addr::new(192, 0, 2, last));
            }
            let sent = run(&mut announcer, ms(0));
            prop_assert_eq!(sent.len(), usize::from(count) * REPEATS.len());
            prop_assert!(sent[0].0 >= REPEATS[0]);
            let burst = (f64::from(rate) / 10.0).max(1.0);
            for (i, (from, ..)) in sent.iter().enumerate() {
                for (n, (to, ..)) in sent[i..].iter().enumerate().skip(1) {
                    let allowed = burst + f64::from(rate) * (*to - *from).as_secs_f64();
                    prop_assert!((n as f64) < allowed + 1.0, "{} frames in {:?}", n + 1, *to - *from);
                }
            }
        }
    }
}

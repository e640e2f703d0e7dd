//! Every number of the protocol, with its unit and its derivation.
//!
//! An *interval* is the time between two Hellos of a speaker. Every wait for peers is a multiple of it, so the whole
//! protocol slows down with the number of nodes, and no timer has to be tuned against another.

use std::{ops::RangeInclusive, time::Duration};

/// The timers that an operator may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// The shortest interval between two Hellos, within [`Timers::HELLO`].
    pub hello: Duration,
    /// The interval is at least this much for each peer, so that a segment carries no more than about
    /// 1 / `hello_per_peer` Hellos a second, however many speak. Within [`Timers::HELLO_PER_PEER`].
    pub hello_per_peer: Duration,
}

impl Default for Timers {
    /// 100 ms, and 1 ms a peer: at most 1,000 Hellos a second on a segment, or 1,100 with the jitter, which only
    /// shortens. With 150 bytes each that is 1.3 Mbit/s.
    fn default() -> Self {
        Self { hello: Duration::from_millis(100), hello_per_peer: Duration::from_millis(1) }
    }
}

impl Timers {
    /// Bounds of [`Timers::hello`]: below 50 ms an ordinary delay of a busy machine would count as a silence; above 10
    /// s a fail-over takes most of a minute.
    pub const HELLO: RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_secs(10);
    /// Bounds of [`Timers::hello_per_peer`].
    pub const HELLO_PER_PEER: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_millis(100);

    /// Returns the interval of a speaker that hears this many peers.
    pub fn interval(&self, peers: usize) -> Duration {
        self.hello.max(self.hello_per_peer * u32::try_from(peers).unwrap_or(u32::MAX))
    }
}

/// A Hello is sent after a random part of the interval between this percentage and all of it, so that the speakers of a
/// segment do not fall into step (Floyd and Jacobson 1994); never later, so that the interval is a promise.
pub const JITTER_FROM_PERCENT: u32 = 80;

/// A Hello that an event brought forward keeps this part of an interval (a quarter) from the one before: at most four
/// times the frames, whatever happens.
pub const TRIGGERED_GAP_DIVISOR: u32 = 4;

/// Returns the time after which a peer is silent: one and a half intervals, so that one Hello is late for certain.
/// Cover and probes begin.
pub const fn silent_after(interval: Duration) -> Duration {
    Duration::from_nanos(interval.as_nanos() as u64 / 2 * 3)
}

/// Returns the time after which a peer may be dead: three intervals, in which three Hellos are missing.
pub const fn lost_after(interval: Duration) -> Duration {
    Duration::from_nanos(interval.as_nanos() as u64 * 3)
}

/// Liveness probes go out this far apart. A kernel answers ARP within a millisecond from a softirq; three at 50 ms fit
/// between the suspicion (1.5 intervals) and the verdict (3 intervals) of the default interval.
pub const PROBE_EVERY: Duration = Duration::from_millis(50);

/// While a kernel answers, it is asked this often.
pub const PROBE_CALM: Duration = Duration::from_millis(100);

/// Unanswered probes in a row after which a kernel is silent.
pub const PROBES: u32 = 3;

/// An answer of a kernel shows for this long that it is alive, if nothing else is known: ten probes.
pub const KERNEL_IS_ALIVE: Duration = Duration::from_secs(1);

/// Number of pings (ICMP or ICMPv6 echo requests) that a silent node known to answer them must leave unanswered in a
/// row before its kernel counts as silent, though its address is answered for. They go out as often as
/// [probes](PROBE_EVERY), so 32 take [`PING_SILENCE`].
///
/// The number is not higher, because power-off to take-over is to last 2 s at most: 150 ms to the suspicion, or
/// [`PROBE_CALM`] to the next request if it was silent before, and 1.6 s from there; 250 ms are left for the claim. It
/// is not lower, because a network that loses 30 % of all frames, requests and replies, must leave a living node alone:
/// one is missed with a probability of 1 - 0.7 x 0.7 = 0.51, 32 in a row with 4e-10. In the ten minutes that cover
/// lasts at most 6,000 rows begin: 3e-6. (With 8 requests, 200 ms apart, it would be 5e-3 a row: dead within a minute.)
///
/// A reply may be late: whichever request it answers, it ends the row. Of the 32 requests 28 have waited for 200 ms or
/// more.
pub const PING_PROBES: u32 = 32;

/// The time that [`PING_PROBES`] take. For as long, an answer that another node had outweighs the missing answers to
/// this one, so that a firewall that lets one reply through in a second makes no living node count as dead.
pub const PING_SILENCE: Duration = Duration::from_millis(1600);

/// With the last eight of [`PING_PROBES`], in 400 ms, others are pinged too: only if one of them answers, the network,
/// or the switch that this node is attached to, is known to pass pings.
pub const PING_CONTROLS: u32 = 8;

/// Nodes are asked at this interval whether they answer pings.
pub const PING_HABIT_EVERY: Duration = Duration::from_secs(60);

/// Time between two such requests of a node, to whichever nodes: two a second. With more than 120 peers each is asked
/// less often than [`PING_HABIT_EVERY`].
pub const PING_HABIT_GAP: Duration = Duration::from_millis(500);

/// A node that used to answer and did not is asked again after this time.
pub const PING_HABIT_RETRY: Duration = Duration::from_secs(1);

/// Number of such requests not answered in a row after which a node counts as one that does not answer.
pub const PING_HABIT_MISSES: u32 = 3;

/// Returns how old a node's last answer to a ping may be for the next one to be missed: two of the rounds in which this
/// number of peers is asked.
pub fn ping_habit_lasts(peers: usize) -> Duration {
    PING_HABIT_EVERY.max(PING_HABIT_GAP * u32::try_from(peers).unwrap_or(u32::MAX)) * 2
}

/// An API view is fresh this long after the watch has made progress (bookmarks come every minute, events and the
/// progress requests of the edge more often).
pub const VIEW_FRESH: Duration = Duration::from_secs(30);

/// A node that has just joined takes nothing from a live owner for a class reason before this time. Its kernel lost its
/// neighbours with the link, and asks for those that it still wants every second, three times (RFC 4861 section 10,
/// RETRANS_TIMER and MAX_MULTICAST_SOLICIT; Linux does the same in ARP): packets of a client wait until then. A move to
/// a better place is not urgent.
pub const SETTLED: Duration = Duration::from_secs(3);

/// A fitter node that is not heard is handed an address over by way of the API after this time. A speaker that restarts
/// is heard again within 1 to 2 s; it then claims by itself, and no node falls silent in between.
pub const HAND_OVER_AFTER: Duration = Duration::from_secs(3);

/// A node that sees that an address was handed over by way of the API claims it after this time: a coverer of the
/// former owner answers in its name until its own watch shows the same. On a machine with two cores for three nodes two
/// watches were 40 ms apart at most.
pub const HANDED_OVER_PAUSE: Duration = Duration::from_millis(200);

/// An address that was handed over by way of the API and that no node has taken is taken back after this time: the API
/// server and a watch take some 10 ms each, and the first candidate claims [`HANDED_OVER_PAUSE`] later.
pub const TAKE_BACK_AFTER: Duration = Duration::from_secs(1);

/// A node deposed for its class does not take the address back for a class reason for this long, doubling per repeat.
pub const HOLD_DOWN: Duration = Duration::from_secs(60);

/// Doubling ends here: 60 s times 64.
pub const HOLD_DOWN_MAX: Duration = Duration::from_secs(3840);

/// The join barrier ends this long after the first evidence that the segment is heard, or after ten intervals.
pub const BARRIER: Duration = Duration::from_secs(1);

/// Time after which it is reported that a peer's claims do not arrive: a list of 10,000 addresses takes less than a
/// second, and is asked for in each Hello.
pub const LACKING_WARN: Duration = Duration::from_secs(10);

/// Time after which cover is reported.
pub const COVER_WARN: Duration = Duration::from_secs(60);

/// Time after which cover ends with a move.
pub const COVER_MAX: Duration = Duration::from_secs(600);

/// Before the first claim ever, an address is probed for twice (RFC 5227 section 2.1.1, shortened: PROBE_NUM 3 at 1 to
/// 2 s would take longer than a failover).
pub const FIRST_CLAIM_PROBES: u32 = 2;

/// Time between the two probes, and after the last.
pub const FIRST_CLAIM_PROBE_EVERY: Duration = Duration::from_millis(100);

/// After a conflict the address is probed for again (RFC 5227 section 2.1.1, RATE_LIMIT_INTERVAL).
pub const CONFLICT_RETRY: Duration = Duration::from_secs(60);

/// An address is defended at most this often (RFC 5227 section 2.4 c, DEFEND_INTERVAL).
pub const DEFEND_EVERY: Duration = Duration::from_secs(10);

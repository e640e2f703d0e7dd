//! A circuit breaker before the API server: when the server does not answer, or asks for fewer requests, one write at a
//! time finds out whether it is back, and the others wait.
//!
//! Without it each of a thousand waiting objects would try, fail and grow a pause of its own: thousands of requests
//! while the API server starts, and the last object written half a minute after it is back.

use std::time::Duration;

use herald_kube_common::backoff::Backoff;

/// Maximum of writes under way. 1,000 Services in a second are 3,000 writes of about 5 ms each: 15 at once would do;
/// twice that leaves room for a slow API server, and stays below the share that its priority levels give one client.
pub const CONCURRENT_WRITES: usize = 32;
/// The first pause: an API server behind a load balancer is back at once.
const FIRST: Duration = Duration::from_millis(50);
/// The longest pause: a server that is back is used within this time.
const LONGEST: Duration = Duration::from_secs(2);
/// The longest pause that the API server may ask for; its own priority and fairness asks for 1 s.
const LONGEST_ASKED: Duration = Duration::from_secs(30);

/// The state of the API server, as a write shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The API server answers.
    Answers,
    /// The API server does not answer, or asks for fewer requests.
    Unavailable {
        /// The pause that it asks for (Retry-After), if any.
        retry_after: Option<Duration>,
    },
}

/// The breaker. Times are monotonic, since any one moment.
#[derive(Debug)]
pub struct Breaker {
    pauses: Backoff,
    open: Option<Open>,
}

/// The open state, in which at most one write is allowed.
#[derive(Clone, Copy, Debug)]
struct Open {
    /// The time since which the breaker is open: failures of writes that began before bring no news.
    since: Duration,
    /// The time at which the next write is due.
    until: Duration,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { pauses: Backoff::new(FIRST, LONGEST), open: None }
    }
}

impl Breaker {
    /// Returns how many writes may be under way now.
    pub fn limit(&self, now: Duration) -> usize {
        match self.open {
            None => CONCURRENT_WRITES,
            Some(open) => usize::from(open.until <= now),
        }
    }

    /// Returns when the limit changes by itself.
    pub fn timeout(&self, now: Duration) -> Option<Duration> {
        self.open.map(|open| open.until).filter(|until| *until > now)
    }

    /// Records that a write that began at `begun` has ended. `jitter`, 0 to 1, spreads the replicas' and clusters'
    /// attempts.
    pub fn ended(&mut self, now: Duration, begun: Duration, signal: Signal, jitter: f64) {
        match signal {
            Signal::Answers => {
                self.open = None;
                self.pauses.reset();
            }
            Signal::Unavailable { retry_after } if self.open.is_none_or(|open| begun >= open.since) => {
                let asked = retry_after.unwrap_or_default().min(LONGEST_ASKED);
                self.open = Some(Open { since: now, until: now + self.pauses.wait(jitter).max(asked) });
            }
            Signal::Unavailable { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOWN: Signal = Signal::Unavailable { retry_after: None };

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn one_write_finds_out_whether_the_server_is_back() {
        let mut breaker = Breaker::default();
        assert_eq!(breaker.limit(ms(0)), CONCURRENT_WRITES);
        for _ in 0..CONCURRENT_WRITES {
            breaker.ended(ms(10), ms(5), DOWN, 1.0);
        }
        assert_eq!((breaker.limit(ms(10)), breaker.timeout(ms(10))), (0, Some(ms(60))), "they all failed once");
        assert_eq!((breaker.limit(ms(60)), breaker.timeout(ms(60))), (1, None));
        breaker.ended(ms(61), ms(60), DOWN, 1.0);
        assert_eq!(breaker.timeout(ms(61)), Some(ms(161)));
        breaker.ended(ms(200), ms(161), Signal::Answers, 1.0);
        assert_eq!(breaker.limit(ms(200)), CONCURRENT_WRITES);
        breaker.ended(ms(300), ms(290), DOWN, 1.0);
        assert_eq!(breaker.timeout(ms(300)), Some(ms(350)), "from the first pause again");
    }

    #[test]
    fn minute_without_an_api_server_costs_some_forty_requests() {
        let mut breaker = Breaker::default();
        let (mut now, mut requests) = (Duration::ZERO, 0);
        while now < Duration::from_secs(60) {
            now = breaker.timeout(now).unwrap_or(now);
            assert!(breaker.limit(now) >= 1);
            breaker.ended(now + ms(1), now, DOWN, 0.5);
            now += ms(1);
            requests += 1;
        }
        assert!((40..50).contains(&requests), "{requests}");
    }

    #[test]
    fn requested_pause_is_honoured_up_to_a_bound() {
        let pause = |seconds| {
            let mut breaker = Breaker::default();
            let retry_after = Some(Duration::from_secs(seconds));
            breaker.ended(ms(0), ms(0), Signal::Unavailable { retry_after }, 1.0);
            breaker.timeout(ms(0)).unwrap()
        };
        assert_eq!((pause(1), pause(86_400)), (Duration::from_secs(1), LONGEST_ASKED));
    }
}

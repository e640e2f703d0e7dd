//! A client: its neighbour cache, and the flows it keeps up.
//!
//! For IPv4 the cache behaves as Linux's ARP: an entry that exists is updated by a gratuitous ARP request
//! (net/ipv4/arp.c, `arp_process`, is_garp); a solicited answer counts while the entry is incomplete or being probed,
//! the first of several wins. For IPv6 it behaves as RFC 4861 section 7.2.5 has it. An entry is asked again by unicast
//! (3 times, a second apart: `ucast_solicit`, `retrans_time`) when traffic makes no progress or nothing confirmed it for
//! long, then by broadcast each second, until answered.

use std::time::Duration;

use herald_protocol::mac::MacAddr;

use crate::names::{AddrIx, NodeIx};

/// Traffic without progress for this long makes the client doubt its entry.
pub const DOUBT: Duration = Duration::from_secs(1);

/// Between two solicitations.
pub const RETRANSMIT: Duration = Duration::from_secs(1);

/// A stale entry of Neighbour Discovery that is used is asked for again after this (RFC 4861 section 10,
/// DELAY_FIRST_PROBE_TIME).
pub const DELAY_FIRST_PROBE: Duration = Duration::from_secs(5);

/// Unicast solicitations before the entry is dropped.
pub const UNICAST: u32 = 3;

/// What the client knows of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cached {
    /// Nothing; the next broadcast goes out then.
    Incomplete {
        /// When.
        next: Duration,
    },
    /// A MAC; it is asked again then.
    Valid {
        /// The MAC.
        mac: MacAddr,
        /// When.
        ask: Duration,
    },
    /// A MAC that is being asked again.
    Probing {
        /// The MAC.
        mac: MacAddr,
        /// How often.
        sent: u32,
        /// When next.
        next: Duration,
    },
}

/// How somebody stated where an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// An ARP reply, or a request that asks for something else.
    InAnswer,
    /// A gratuitous ARP request.
    Gratuitously,
    /// A Neighbour Advertisement with the Override flag, which all senders here set (RFC 4861 section 7.2.5): it fills
    /// an entry that is incomplete and replaces any other.
    ByAdvertisement,
}

/// A solicitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// To everybody.
    Broadcast,
    /// To the MAC that is known.
    Unicast(MacAddr),
}

/// A conversation with an address.
#[derive(Clone, Debug)]
pub struct Flow {
    /// The address.
    pub address: AddrIx,
    /// What the cache says.
    pub cached: Cached,
    /// The node it is established on: that which its first packet reached.
    pub node: Option<NodeIx>,
    /// When it was established.
    pub established: Duration,
    /// When a packet last reached its node.
    pub progress: Duration,
    /// When the cache last changed its MAC.
    pub changed: Duration,
    /// Entries are asked again after this, if nothing else happens.
    revalidate: Duration,
}

/// What it means that a packet got through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// The first of the flow.
    Established,
    /// Another.
    Same,
    /// It reached another node than those before: that node knows nothing of the flow and resets it.
    Moved {
        /// Where the flow was.
        from: NodeIx,
        /// Since when nothing had got through there.
        since: Duration,
    },
}

impl Flow {
    /// A conversation that begins now.
    pub fn new(now: Duration, address: AddrIx, revalidate: Duration) -> Self {
        Self {
            address,
            cached: Cached::Incomplete { next: now },
            node: None,
            established: now,
            progress: now,
            changed: now,
            revalidate,
        }
    }

    /// Where its packets go.
    pub fn mac(&self) -> Option<MacAddr> {
        match self.cached {
            Cached::Incomplete { .. } => None,
            Cached::Valid { mac, .. } | Cached::Probing { mac, .. } => Some(mac),
        }
    }

    /// What the cache asks now.
    pub fn ask(&mut self, now: Duration) -> Option<Ask> {
        if let Cached::Valid { mac, ask } = self.cached
            && (now >= ask || now >= self.progress.max(self.changed) + DOUBT)
        {
            self.cached = Cached::Probing { mac, sent: 0, next: now };
        }
        match &mut self.cached {
            Cached::Probing { mac, sent, next } if now >= *next && *sent < UNICAST => {
                *sent += 1;
                *next = now + RETRANSMIT;
                Some(Ask::Unicast(*mac))
            }
            Cached::Probing { next, .. } if now >= *next => {
                self.cached = Cached::Incomplete { next: now + RETRANSMIT };
                Some(Ask::Broadcast)
            }
            Cached::Incomplete { next } if now >= *next => {
                *next = now + RETRANSMIT;
                Some(Ask::Broadcast)
            }
            _ => None,
        }
    }

    /// Somebody stated where the address is, in an answer to the client or gratuitously.
    pub fn heard(&mut self, now: Duration, mac: MacAddr, said: Said) {
        let counts = match self.cached {
            Cached::Incomplete { .. } => said != Said::Gratuitously,
            Cached::Probing { .. } => true,
            Cached::Valid { .. } => said != Said::InAnswer,
        };
        if counts {
            let changed = self.mac() != Some(mac);
            if changed {
                self.changed = now;
            }
            // What an advertisement has changed is stale, and asked for again after DELAY_FIRST_PROBE_TIME, unless
            // it was solicited; which of the two is not modelled, and it is taken to be the first.
            let stale = changed && said == Said::ByAdvertisement;
            let good_for = if stale { DELAY_FIRST_PROBE } else { self.revalidate };
            self.cached = Cached::Valid { mac, ask: now + good_for };
        }
    }

    /// A packet of the flow reached a node, and its answer came back.
    pub fn reached(&mut self, now: Duration, node: NodeIx) -> Reached {
        let since = std::mem::replace(&mut self.progress, now);
        match self.node.replace(node) {
            Some(before) if before == node => Reached::Same,
            before => {
                self.established = now;
                before.map_or(Reached::Established, |from| Reached::Moved { from, since })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const B: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn flow() -> Flow {
        Flow::new(ms(0), 0, ms(30_000))
    }

    #[test]
    fn solicits_at_once_and_each_second() {
        let mut flow = flow();
        let asked: Vec<_> = (0..25).map(|i| ms(i * 100)).filter(|t| flow.ask(*t) == Some(Ask::Broadcast)).collect();
        assert_eq!(asked, [ms(0), ms(1000), ms(2000)]);
    }

    #[test]
    fn the_first_answer_wins_and_a_gratuitous_one_moves() {
        let mut flow = flow();
        flow.heard(ms(0), B, Said::Gratuitously);
        assert_eq!(flow.mac(), None, "a gratuitous packet creates no entry");
        flow.heard(ms(1), A, Said::InAnswer);
        flow.heard(ms(2), B, Said::InAnswer);
        assert_eq!(flow.mac(), Some(A));
        flow.heard(ms(3), B, Said::Gratuitously);
        assert_eq!(flow.mac(), Some(B));
    }

    #[test]
    fn without_progress_it_asks_by_unicast_and_then_by_broadcast() {
        let mut flow = flow();
        flow.heard(ms(0), A, Said::InAnswer);
        assert_eq!(flow.reached(ms(10), 1), Reached::Established);
        let asked: Vec<_> = (1..60).filter_map(|i| Some((i * 100, flow.ask(ms(i * 100))?))).collect();
        let unicast = Ask::Unicast(A);
        assert_eq!(
            asked,
            [(1100, unicast), (2100, unicast), (3100, unicast), (4100, Ask::Broadcast), (5100, Ask::Broadcast)]
        );
        assert_eq!(flow.mac(), None);
    }

    #[test]
    fn an_advertisement_fills_and_replaces_and_is_asked_for_soon() {
        let mut flow = flow();
        flow.heard(ms(0), A, Said::ByAdvertisement);
        assert_eq!(flow.mac(), Some(A));
        flow.heard(ms(1), B, Said::ByAdvertisement);
        assert_eq!(flow.mac(), Some(B));
        flow.reached(ms(4999), 1);
        assert_eq!((flow.ask(ms(5000)), flow.ask(ms(5001))), (None, Some(Ask::Unicast(B))));
        flow.heard(ms(5002), B, Said::ByAdvertisement);
        flow.reached(ms(35_000), 1);
        assert_eq!((flow.ask(ms(35_001)), flow.ask(ms(35_002))), (None, Some(Ask::Unicast(B))));
    }

    #[test]
    fn an_answer_confirms_an_entry() {
        let mut flow = flow();
        flow.heard(ms(0), A, Said::InAnswer);
        flow.reached(ms(30_000), 1);
        assert_eq!(flow.ask(ms(30_000)), Some(Ask::Unicast(A)));
        flow.heard(ms(30_001), A, Said::InAnswer);
        assert_eq!(flow.ask(ms(30_500)), None);
    }

    #[test]
    fn another_node_resets_the_flow() {
        let mut flow = flow();
        flow.reached(ms(10), 1);
        flow.reached(ms(20), 1);
        assert_eq!(flow.reached(ms(30), 2), Reached::Moved { from: 1, since: ms(20) });
    }
}

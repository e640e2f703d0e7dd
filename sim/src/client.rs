//! A client: its neighbour cache, and the flows that it keeps up.
//!
//! For IPv4 the cache behaves as Linux's ARP: a gratuitous ARP request updates an existing entry (net/ipv4/arp.c,
//! `arp_process`, is_garp); a solicited answer counts while the entry is incomplete or being probed, and the first of
//! several wins. For IPv6 it behaves as RFC 4861 section 7.2.5 says. The client probes an entry by unicast (3 times, a
//! second apart: `ucast_solicit`, `retrans_time`) when traffic makes no progress or nothing has confirmed the entry for
//! long, then by broadcast each second until it is answered.

use std::time::Duration;

use herald_protocol::mac::MacAddr;

use crate::names::{AddrIx, NodeIx};

/// If traffic makes no progress for this long, the client doubts its entry.
pub const DOUBT: Duration = Duration::from_secs(1);

/// Time between two solicitations.
pub const RETRANSMIT: Duration = Duration::from_secs(1);

/// A stale entry of Neighbour Discovery that is in use is probed after this time (RFC 4861 section 10,
/// DELAY_FIRST_PROBE_TIME).
pub const DELAY_FIRST_PROBE: Duration = Duration::from_secs(5);

/// Unicast solicitations before the entry is dropped.
pub const UNICAST: u32 = 3;

/// The client's cache entry for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cached {
    /// The MAC is unknown.
    Incomplete {
        /// When the next broadcast goes out.
        next: Duration,
    },
    /// The MAC is known.
    Valid {
        /// The MAC.
        mac: MacAddr,
        /// When the entry is probed.
        ask: Duration,
    },
    /// The MAC is known and being probed.
    Probing {
        /// The MAC.
        mac: MacAddr,
        /// Number of probes sent.
        sent: u32,
        /// When the next probe goes out.
        next: Duration,
    },
}

/// The kind of packet that stated where an address is.
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
    /// To all hosts.
    Broadcast,
    /// To the known MAC.
    Unicast(MacAddr),
}

/// A conversation with an address.
#[derive(Clone, Debug)]
pub struct Flow {
    /// The address.
    pub address: AddrIx,
    /// The cache entry.
    pub cached: Cached,
    /// The node on which the flow is established: the one that its first packet reached.
    pub node: Option<NodeIx>,
    /// When it was established.
    pub established: Duration,
    /// When a packet last reached its node.
    pub progress: Duration,
    /// When the cache last changed its MAC.
    pub changed: Duration,
    /// Time after which an entry is probed, if nothing else happens.
    revalidate: Duration,
}

/// What a packet that got through means for its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// The packet is the first of the flow.
    Established,
    /// The packet reached the same node as those before.
    Same,
    /// The packet reached another node than those before: that node does not know the flow and resets it.
    Moved {
        /// The node that the flow had reached.
        from: NodeIx,
        /// Since when nothing had got through to that node.
        since: Duration,
    },
}

impl Flow {
    /// Returns a flow that begins now.
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

    /// Returns the MAC to which the flow's packets go.
    pub fn mac(&self) -> Option<MacAddr> {
        match self.cached {
            Cached::Incomplete { .. } => None,
            Cached::Valid { mac, .. } | Cached::Probing { mac, .. } => Some(mac),
        }
    }

    /// Returns the solicitation that the cache sends now.
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

    /// A host stated where the address is, in an answer to the client or gratuitously.
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
            // An entry that an advertisement has changed is stale and is probed after DELAY_FIRST_PROBE_TIME, unless
            // the advertisement was solicited. The model does not tell the two apart and takes the entry for stale.
            let stale = changed && said == Said::ByAdvertisement;
            let good_for = if stale { DELAY_FIRST_PROBE } else { self.revalidate };
            self.cached = Cached::Valid { mac, ask: now + good_for };
        }
    }

    /// A packet of the flow reached a node, and its answer came back. Returns what that means for the flow.
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
    fn client_solicits_at_once_and_each_second() {
        let mut flow = flow();
        let asked: Vec<_> = (0..25).map(|i| ms(i * 100)).filter(|t| flow.ask(*t) == Some(Ask::Broadcast)).collect();
        assert_eq!(asked, [ms(0), ms(1000), ms(2000)]);
    }

    #[test]
    fn first_answer_wins_and_a_gratuitous_one_moves() {
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
    fn client_without_progress_asks_by_unicast_and_then_by_broadcast() {
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
    fn advertisement_fills_and_replaces_an_entry_that_is_probed_soon() {
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
    fn answer_confirms_an_entry() {
        let mut flow = flow();
        flow.heard(ms(0), A, Said::InAnswer);
        flow.reached(ms(30_000), 1);
        assert_eq!(flow.ask(ms(30_000)), Some(Ask::Unicast(A)));
        flow.heard(ms(30_001), A, Said::InAnswer);
        assert_eq!(flow.ask(ms(30_500)), None);
    }

    #[test]
    fn flow_that_reaches_another_node_is_reset() {
        let mut flow = flow();
        flow.reached(ms(10), 1);
        flow.reached(ms(20), 1);
        assert_eq!(flow.reached(ms(30), 2), Reached::Moved { from: 1, since: ms(20) });
    }
}

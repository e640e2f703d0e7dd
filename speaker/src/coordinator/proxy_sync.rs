//! The wait for kube-proxy: an endpoint that has just become ready counts once kube-proxy on its node has rules for it.
//!
//! With `externalTrafficPolicy: Local`, kube-proxy drops traffic that arrives on a node without a local endpoint.
//! kube-proxy learns of a new endpoint when this speaker does, and writes its rules later (up to its `minSyncPeriod`,
//! 1 s by default): a move at once would lose every connection in between. kube-proxy's health check for the Service
//! shows the end of that time: the number of local endpoints in it is set after the rules are (`SyncEndpoints`,
//! pkg/proxy/nftables/proxier.go).

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use crate::api_objects::Endpoint;

/// Time after which an endpoint counts, whatever kube-proxy answers: three times its default `minSyncPeriod`. Some
/// kube-proxies, or replacements of them, do not answer. The questions to kube-proxy end at the same time.
pub const PROXY_SYNC_TIMEOUT: Duration = Duration::from_secs(3);

/// The local endpoints of this node that count.
#[derive(Debug, Default)]
pub(super) struct ProxySyncGate {
    states: BTreeMap<IpAddr, State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// There is no endpoint.
    Shut,
    /// The endpoint counts from this moment on, or earlier if kube-proxy reports it.
    Waiting(Duration),
    /// The endpoint counts.
    Open,
}

impl ProxySyncGate {
    /// Takes in this node's endpoint for an address. Returns whether kube-proxy has to be asked. An endpoint that
    /// exists when the address is first seen counts: its rules came with it.
    pub(super) fn observe(&mut self, now: Duration, address: IpAddr, endpoint: Endpoint) -> bool {
        let next = match (self.states.get(&address), endpoint) {
            (_, Endpoint::None) => State::Shut,
            (None, _) => State::Open,
            // An endpoint that shuts down has had its rules for long.
            (Some(State::Shut), Endpoint::ServingTerminating) => State::Open,
            (Some(State::Shut), Endpoint::Ready) => State::Waiting(now + PROXY_SYNC_TIMEOUT),
            (Some(state), _) => *state,
        };
        let before = self.states.insert(address, next);
        matches!(next, State::Waiting(_)) && before != Some(next)
    }

    /// Records that kube-proxy has rules. Returns whether the endpoint waited for them.
    pub(super) fn open(&mut self, address: IpAddr) -> bool {
        match self.states.get_mut(&address) {
            Some(state @ State::Waiting(_)) => {
                *state = State::Open;
                true
            }
            Some(State::Shut | State::Open) | None => false,
        }
    }

    /// Returns whether the endpoint of an address does not count yet.
    pub(super) fn is_waiting(&self, address: IpAddr) -> bool {
        matches!(self.states.get(&address), Some(State::Waiting(_)))
    }

    /// Forgets an address that is no longer Local, or gone.
    pub(super) fn forget(&mut self, address: IpAddr) {
        self.states.remove(&address);
    }

    /// Returns the next moment at which an endpoint counts without kube-proxy.
    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        self.states
            .values()
            .filter_map(|state| if let State::Waiting(until) = state { Some(*until) } else { None })
            .min()
    }

    /// Lets the endpoints count that have waited long enough, and returns their addresses.
    pub(super) fn expire(&mut self, now: Duration) -> Vec<IpAddr> {
        let due = |(address, state): (&IpAddr, &State)| {
            matches!(state, State::Waiting(until) if *until <= now).then_some(*address)
        };
        let due: Vec<IpAddr> = self.states.iter().filter_map(due).collect();
        for address in &due {
            self.open(*address);
        }
        due
    }
}

/// Returns where kube-proxy answers about an address of a Service. The proxiers of the two families write their rules
/// independently, and each listens on the node's addresses of its family (`newServiceHealthServer`,
/// pkg/proxy/healthcheck/service_health.go).
pub(super) fn target(node: &[IpAddr], address: IpAddr, port: Option<u16>) -> Option<SocketAddr> {
    let same_family = node.iter().find(|ip| ip.is_ipv4() == address.is_ipv4());
    Some(SocketAddr::new(*same_family?, port?))
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("10.1.0.9", Some(30100), Some("192.0.2.1:30100"))]
    #[test_case("fd00::9", Some(30100), Some("[2001:db8::1]:30100"); "the proxier of the other family")]
    #[test_case("10.1.0.9", None, None; "no port")]
    fn kube_proxy_is_asked_in_the_family_of_the_address(address: &str, port: Option<u16>, expected: Option<&str>) {
        let node: Vec<IpAddr> =
            ["192.0.2.1", "192.0.2.2", "2001:db8::1"].iter().map(|ip| ip.parse().unwrap()).collect();
        let expected = expected.map(|target| target.parse().unwrap());
        assert_eq!(target(&node, address.parse().unwrap(), port), expected);
        assert_eq!(target(&[], address.parse().unwrap(), port), None);
    }

    const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 10));

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn first_endpoint_counts_at_once_and_a_later_one_waits() {
        let mut gate = ProxySyncGate::default();
        assert!(!gate.observe(s(1), VIP, Endpoint::Ready));
        assert!(!gate.is_waiting(VIP));
        assert!(!gate.observe(s(2), VIP, Endpoint::None));
        assert!(gate.observe(s(3), VIP, Endpoint::Ready), "kube-proxy is to be asked");
        assert!(!gate.observe(s(4), VIP, Endpoint::Ready), "once");
        assert!(gate.is_waiting(VIP));
        assert!(gate.open(VIP));
        assert!(!gate.is_waiting(VIP));
        assert!(!gate.open(VIP));
    }

    #[test]
    fn endpoint_counts_after_3_s_without_an_answer() {
        let mut gate = ProxySyncGate::default();
        gate.observe(s(1), VIP, Endpoint::None);
        gate.observe(s(2), VIP, Endpoint::Ready);
        assert_eq!(gate.poll_timeout(), Some(s(2) + PROXY_SYNC_TIMEOUT));
        assert!(gate.expire(s(4)).is_empty());
        assert_eq!(gate.expire(s(5)), vec![VIP]);
        assert!(!gate.is_waiting(VIP) && gate.poll_timeout().is_none());
    }

    #[test]
    fn endpoint_that_goes_while_it_waits_waits_again_when_it_returns() {
        let mut gate = ProxySyncGate::default();
        gate.observe(s(1), VIP, Endpoint::None);
        gate.observe(s(2), VIP, Endpoint::Ready);
        gate.observe(s(3), VIP, Endpoint::None);
        assert!(!gate.open(VIP), "kube-proxy's answer was about the one before");
        assert!(gate.observe(s(4), VIP, Endpoint::Ready));
        assert_eq!(gate.poll_timeout(), Some(s(4) + PROXY_SYNC_TIMEOUT));
    }

    #[test]
    fn endpoint_that_turns_from_terminating_to_ready_does_not_wait() {
        let mut gate = ProxySyncGate::default();
        gate.observe(s(1), VIP, Endpoint::None);
        assert!(!gate.observe(s(2), VIP, Endpoint::ServingTerminating));
        assert!(!gate.observe(s(3), VIP, Endpoint::Ready));
        assert!(!gate.is_waiting(VIP));
    }
}

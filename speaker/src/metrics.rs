//! The metrics of the speaker, in the text format of OpenMetrics 1.0. docs/observe.md lists them.
//!
//! Events are counted as they happen; the counters of a segment are read when a client asks for the metrics.

use std::{
    collections::BTreeSet,
    fmt,
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use herald_protocol::{
    Counters, Event,
    claim::Reason,
    inspect::{KeyUse, Totals},
};
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};

/// Upper bounds of the buckets of the take-over times, in seconds. Three missing Hellos are 0.3 s at the default
/// interval and 3 s among 1,000 nodes; the promise is 0.5 s; cover expires after 600 s.
const TAKEOVER_BUCKETS: [f64; 14] = [0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.75, 1.0, 2.0, 4.0, 10.0, 660.0];

/// The reasons for which an address goes from one node to another.
const TAKEOVERS: [Reason; 5] = [Reason::Dead, Reason::Leaving, Reason::Deaf, Reason::Class, Reason::CoverExpired];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OnInterface {
    interface: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Dropped {
    interface: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Held {
    interface: String,
    by: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct For {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    family: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfFile {
    file: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKey {
    interface: String,
    key: String,
}

/// The present counts of one segment.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The interface's name.
    pub interface: String,
    /// The numbers of peers and addresses.
    pub totals: Totals,
    /// The counters of frames.
    pub counters: Counters,
    /// The keys that are accepted.
    pub keys: Vec<KeyUse>,
}

/// The counters of answers. A clone counts for the same metric.
#[derive(Clone, Debug)]
pub struct Answered {
    ipv4: Counter,
    ipv6: Counter,
}

impl Answered {
    /// Counts an answer for this address.
    pub fn count(&self, address: IpAddr) {
        if address.is_ipv4() {
            self.ipv4.inc()
        } else {
            self.ipv6.inc()
        };
    }
}

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    peers: Family<OnInterface, Gauge>,
    owned: Family<OnInterface, Gauge>,
    covered: Family<OnInterface, Gauge>,
    hellos_sent: Family<OnInterface, Counter>,
    hellos_received: Family<OnInterface, Counter>,
    dropped: Family<Dropped, Counter>,
    conflicts: Family<Held, Counter>,
    takeovers: Family<For, Counter>,
    takeover_duration: Histogram,
    state_saved: Family<OfFile, Gauge>,
    signs: Family<OfKey, Gauge>,
    peers_signing: Family<OfKey, Gauge>,
    peers_accepting: Family<OfKey, Gauge>,
    answers: Family<Of, Counter>,
    announcements: Family<Of, Counter>,
    /// The interfaces of the last readings.
    interfaces: BTreeSet<String>,
}

impl Metrics {
    /// Returns metrics that have counted nothing yet. `version` is Herald's.
    pub fn new(version: &str) -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("herald_speaker"),
            peers: Family::default(),
            owned: Family::default(),
            covered: Family::default(),
            hellos_sent: Family::default(),
            hellos_received: Family::default(),
            dropped: Family::default(),
            conflicts: Family::default(),
            takeovers: Family::default(),
            takeover_duration: Histogram::new(TAKEOVER_BUCKETS),
            state_saved: Family::default(),
            signs: Family::default(),
            peers_signing: Family::default(),
            peers_accepting: Family::default(),
            answers: Family::default(),
            announcements: Family::default(),
            interfaces: BTreeSet::new(),
        };
        let registry = &mut metrics.registry;
        registry.register("build", "Herald's version", Info::new([("version", version.to_owned())]));
        registry.register("peers", "Speakers that are heard both ways", metrics.peers.clone());
        registry.register("addresses_owned", "Addresses this node owns", metrics.owned.clone());
        registry.register(
            "addresses_covered",
            "Addresses this node answers for in the place of nodes whose speakers are silent",
            metrics.covered.clone(),
        );
        registry.register("hellos_sent", "Hellos sent", metrics.hellos_sent.clone());
        registry.register("hellos_received", "Hellos taken in", metrics.hellos_received.clone());
        registry.register(
            "frames_dropped",
            "Frames of the protocol not taken in, or not sent",
            metrics.dropped.clone(),
        );
        registry.register("conflicts", "Conflicts seen: another answers for an address", metrics.conflicts.clone());
        registry.register("takeovers", "Addresses taken over from another node", metrics.takeovers.clone());
        registry.register_with_unit(
            "takeover_duration",
            "From the last sign of the former owner's speaker to this node's claim, for each address taken over from a \
             speaker that is not heard",
            Unit::Seconds,
            metrics.takeover_duration.clone(),
        );
        registry.register(
            "state_saved",
            "1 if a restart would go on from what the file holds, 0 if it is not written",
            metrics.state_saved.clone(),
        );
        registry.register("key_signs", "1 for a key it signs with, 0 for one it accepts only", metrics.signs.clone());
        registry.register(
            "key_peers_signing",
            "Peers that are heard and signed their last frame with the key",
            metrics.peers_signing.clone(),
        );
        registry.register(
            "key_peers_accepting",
            "Peers that are heard and accept the key",
            metrics.peers_accepting.clone(),
        );
        registry.register("answers", "ARP requests and Neighbour Solicitations answered", metrics.answers.clone());
        registry.register(
            "announcements",
            "Gratuitous ARP requests and unsolicited Neighbour Advertisements sent",
            metrics.announcements.clone(),
        );
        // A counter that appeared with its first event would have no rate for that event.
        for reason in TAKEOVERS {
            metrics.takeovers.get_or_create(&For { reason: reason_name(reason) }).inc_by(0);
        }
        for family in ["ipv4", "ipv6"] {
            metrics.answers.get_or_create(&Of { family }).inc_by(0);
            metrics.announcements.get_or_create(&Of { family }).inc_by(0);
        }
        metrics
    }

    /// Counts an event on a segment.
    pub fn event(&self, interface: &str, event: &Event) {
        match event {
            Event::Owned { claim, silent_for, .. } if TAKEOVERS.contains(&claim.reason) => {
                self.takeovers.get_or_create(&For { reason: reason_name(claim.reason) }).inc();
                if let Some(silent_for) = silent_for {
                    self.takeover_duration.observe(silent_for.as_secs_f64());
                }
            }
            Event::Conflict { .. } => self.conflict(interface, "stranger"),
            Event::AnsweredByClusterNode { .. } => self.conflict(interface, "cluster_node"),
            _ => {}
        }
    }

    /// Records whether a file of the state is as new as it should be.
    pub fn state(&self, file: &'static str, saved: bool) {
        self.state_saved.get_or_create(&OfFile { file }).set(i64::from(saved));
    }

    fn conflict(&self, interface: &str, by: &'static str) {
        self.conflicts.get_or_create(&Held { interface: interface.to_owned(), by }).inc();
    }

    /// Returns the counters of answers, which other threads may count with.
    pub fn answered(&self) -> Answered {
        let of = |family| self.answers.get_or_create(&Of { family }).clone();
        Answered { ipv4: of("ipv4"), ipv6: of("ipv6") }
    }

    /// Counts an announcement of this address.
    pub fn announced(&self, address: IpAddr) {
        self.announcements.get_or_create(&Of { family: family(address) }).inc();
    }

    /// Takes in the present segments; the metrics of segments that are not among them are dropped.
    pub fn read(&mut self, readings: &[Reading]) {
        let now: BTreeSet<String> = readings.iter().map(|reading| reading.interface.clone()).collect();
        for gone in self.interfaces.difference(&now) {
            self.forget(gone);
        }
        self.interfaces = now;
        // Keys come and go, and are few.
        for family in [&self.signs, &self.peers_signing, &self.peers_accepting] {
            family.clear();
        }
        for Reading { interface, totals, counters, keys } in readings {
            for KeyUse { id, signs, peers_signing, peers_accepting } in keys {
                let label = OfKey { interface: interface.clone(), key: id.clone() };
                self.signs.get_or_create(&label).set(i64::from(*signs));
                for (family, peers) in [(&self.peers_signing, peers_signing), (&self.peers_accepting, peers_accepting)]
                {
                    family.get_or_create(&label).set(i64::try_from(*peers).unwrap_or(i64::MAX));
                }
            }
            let label = OnInterface { interface: interface.clone() };
            for (gauge, value) in
                [(&self.peers, totals.peers), (&self.owned, totals.owned), (&self.covered, totals.covered)]
            {
                gauge.get_or_create(&label).set(i64::try_from(value).unwrap_or(i64::MAX));
            }
            set(&self.hellos_sent.get_or_create(&label), counters.hellos_sent);
            set(&self.hellos_received.get_or_create(&label), counters.hellos_accepted);
            for (reason, value) in dropped(counters) {
                set(&self.dropped.get_or_create(&Dropped { interface: interface.clone(), reason }), value);
            }
            for by in ["stranger", "cluster_node"] {
                self.conflicts.get_or_create(&Held { interface: interface.clone(), by }).inc_by(0);
            }
        }
    }

    fn forget(&self, interface: &str) {
        let label = OnInterface { interface: interface.to_owned() };
        self.peers.remove(&label);
        self.owned.remove(&label);
        self.covered.remove(&label);
        self.hellos_sent.remove(&label);
        self.hellos_received.remove(&label);
        for (reason, _) in dropped(&Counters::default()) {
            self.dropped.remove(&Dropped { interface: interface.to_owned(), reason });
        }
        for by in ["stranger", "cluster_node"] {
            self.conflicts.remove(&Held { interface: interface.to_owned(), by });
        }
    }

    /// Returns all metrics as text.
    ///
    /// # Errors
    /// If the encoder fails, which it never does when it writes into memory; its type allows it.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// Sets a counter to a segment's own count. The count starts at zero when its interface returns, as Prometheus expects
/// of a counter.
fn set(counter: &Counter<u64, AtomicU64>, value: u64) {
    counter.inner().store(value, Ordering::Relaxed);
}

fn dropped(counters: &Counters) -> [(&'static str, u64); 7] {
    [
        ("foreign", counters.foreign),
        ("forged", counters.forged),
        ("replayed", counters.replayed),
        ("unknown", counters.unknown),
        ("malformed", counters.malformed),
        ("unsendable", counters.unsendable),
        ("unsent", counters.unsent),
    ]
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "ipv4" } else { "ipv6" }
}

fn reason_name(reason: Reason) -> &'static str {
    match reason {
        Reason::Vacant => "vacant",
        Reason::Resumed => "resumed",
        Reason::Dead => "dead",
        Reason::Leaving => "leaving",
        Reason::Deaf => "deaf",
        Reason::Class => "class",
        Reason::CoverExpired => "cover_expired",
        Reason::Recreated => "recreated",
        Reason::Later(_) => "later",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use herald_protocol::{
        claim::{Birth, Claim, ClaimKey, Epoch},
        mac::MacAddr,
        node::NodeId,
    };

    use super::*;

    fn owned(reason: Reason, silent_ms: Option<u64>) -> Event {
        let address = IpAddr::from([192, 0, 2, 1]);
        let claim = Claim { address, birth: Birth(1), epoch: Epoch(2), key: ClaimKey(3), reason, cover: true };
        Event::Owned { claim, from: Some(NodeId(1)), silent_for: silent_ms.map(Duration::from_millis) }
    }

    fn reading(interface: &str, peers: usize, forged: u64) -> Reading {
        Reading {
            interface: interface.to_owned(),
            totals: Totals { peers, owned: 12, covered: 3 },
            counters: Counters { forged, hellos_sent: 40, hellos_accepted: 80, ..Counters::default() },
            keys: vec![],
        }
    }

    fn value(metrics: &Metrics, series: &str) -> Option<f64> {
        let text = metrics.encode().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        Some(line.parse().unwrap())
    }

    #[test]
    fn takeovers_are_counted_by_reason_and_timed_after_a_silence() {
        let metrics = Metrics::new("1.2.3");
        let events =
            [(Reason::Dead, Some(310)), (Reason::Dead, Some(480)), (Reason::Leaving, None), (Reason::Vacant, None)];
        for (reason, silent) in events {
            metrics.event("eth0", &owned(reason, silent));
        }
        assert_eq!(value(&metrics, "herald_speaker_takeovers_total{reason=\"dead\"}"), Some(2.0));
        assert_eq!(value(&metrics, "herald_speaker_takeovers_total{reason=\"leaving\"}"), Some(1.0));
        assert_eq!(value(&metrics, "herald_speaker_takeovers_total{reason=\"class\"}"), Some(0.0));
        assert_eq!(value(&metrics, "herald_speaker_takeovers_total{reason=\"vacant\"}"), None);
        assert_eq!(value(&metrics, "herald_speaker_takeover_duration_seconds_count"), Some(2.0));
        assert_eq!(value(&metrics, "herald_speaker_takeover_duration_seconds_bucket{le=\"0.3\"}"), Some(0.0));
        assert_eq!(value(&metrics, "herald_speaker_takeover_duration_seconds_bucket{le=\"0.35\"}"), Some(1.0));
        assert_eq!(value(&metrics, "herald_speaker_build_info{version=\"1.2.3\"}"), Some(1.0));
    }

    #[test]
    fn metrics_of_a_gone_interface_are_dropped() {
        let mut metrics = Metrics::new("1");
        metrics.read(&[reading("eth0", 2, 5), reading("eth1", 1, 0)]);
        metrics.event("eth1", &Event::Conflict { address: IpAddr::from([192, 0, 2, 1]), mac: MacAddr::ZERO });
        assert_eq!(value(&metrics, "herald_speaker_peers{interface=\"eth1\"}"), Some(1.0));
        assert_eq!(value(&metrics, "herald_speaker_conflicts_total{interface=\"eth1\",by=\"stranger\"}"), Some(1.0));
        metrics.read(&[reading("eth0", 3, 6)]);
        assert!(!metrics.encode().unwrap().contains("eth1"));
        assert_eq!(value(&metrics, "herald_speaker_peers{interface=\"eth0\"}"), Some(3.0));
        assert_eq!(value(&metrics, "herald_speaker_addresses_owned{interface=\"eth0\"}"), Some(12.0));
        assert_eq!(value(&metrics, "herald_speaker_addresses_covered{interface=\"eth0\"}"), Some(3.0));
        assert_eq!(value(&metrics, "herald_speaker_hellos_sent_total{interface=\"eth0\"}"), Some(40.0));
        assert_eq!(value(&metrics, "herald_speaker_hellos_received_total{interface=\"eth0\"}"), Some(80.0));
        let forged = "herald_speaker_frames_dropped_total{interface=\"eth0\",reason=\"forged\"}";
        assert_eq!(value(&metrics, forged), Some(6.0));
    }

    #[test]
    fn keys_are_reported_for_as_long_as_they_are_accepted() {
        let mut metrics = Metrics::new("1");
        let key =
            |id: &str, signs, peers_signing| KeyUse { id: id.to_owned(), signs, peers_signing, peers_accepting: 2 };
        metrics.read(&[Reading { keys: vec![key("aa", false, 1), key("bb", true, 1)], ..reading("eth0", 2, 0) }]);
        let of = |metrics: &Metrics, name: &str, id: &str| {
            value(metrics, &format!("herald_speaker_key_{name}{{interface=\"eth0\",key=\"{id}\"}}"))
        };
        assert_eq!((of(&metrics, "signs", "aa"), of(&metrics, "signs", "bb")), (Some(0.0), Some(1.0)));
        assert_eq!(of(&metrics, "peers_signing", "aa"), Some(1.0));
        assert_eq!(of(&metrics, "peers_accepting", "bb"), Some(2.0));
        metrics.read(&[Reading { keys: vec![key("bb", true, 2)], ..reading("eth0", 2, 0) }]);
        assert_eq!(of(&metrics, "peers_signing", "aa"), None);
        assert_eq!(of(&metrics, "peers_signing", "bb"), Some(2.0));
    }

    #[test]
    fn families_are_counted_separately() {
        let metrics = Metrics::new("1");
        metrics.answered().count("2001:db8::1".parse().unwrap());
        metrics.announced("192.0.2.1".parse().unwrap());
        metrics.announced("192.0.2.1".parse().unwrap());
        let counts = [("answers", "ipv4"), ("answers", "ipv6"), ("announcements", "ipv4"), ("announcements", "ipv6")]
            .map(|(name, family)| value(&metrics, &format!("herald_speaker_{name}_total{{family=\"{family}\"}}")));
        assert_eq!(counts, [Some(0.0), Some(1.0), Some(2.0), Some(0.0)]);
    }
}

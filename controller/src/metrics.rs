//! The controller's metrics, in the text format of OpenMetrics 1.0. docs/observe.md lists them.
//!
//! Writes are counted as they end; the index is read when a client asks.

use std::{fmt, net::IpAddr, sync::atomic::AtomicU64, time::Duration};

use herald_crds::address::IpFamily;
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};

use crate::{
    action::{Action, Change},
    index::{Kind, Tally},
    writer::Failure,
};

/// Upper bounds of the buckets of write times, in seconds. The API server answers in 2 to 20 ms when it is idle; a
/// write is given up after 10 s.
const WRITE_BUCKETS: [f64; 12] = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPool {
    pool: String,
    family: &'static str,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct From {
    pool: String,
    family: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct For {
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    kind: &'static str,
    verb: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failed {
    kind: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Watched {
    kind: &'static str,
}

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    leader: Gauge,
    pool_addresses: Family<OfPool, Gauge<f64, AtomicU64>>,
    waiting: Family<For, Gauge>,
    assignments: Family<From, Counter>,
    refusals: Family<For, Counter>,
    queue_depth: Gauge,
    under_way: Gauge,
    durations: Family<Request, Histogram>,
    conflicts: Counter,
    failures: Family<Failed, Counter>,
    blind: Family<Watched, Gauge>,
}

/// The state that the loop knows in addition to its index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Now {
    /// Whether this replica leads.
    pub leading: bool,
    /// The number of writes under way.
    pub under_way: usize,
    /// The kinds whose watches have been broken for long.
    pub blind: Vec<Kind>,
}

impl Metrics {
    /// Returns metrics without any count. `version` is Herald's.
    pub fn new(version: &str) -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("herald_controller"),
            leader: Gauge::default(),
            pool_addresses: Family::default(),
            waiting: Family::default(),
            assignments: Family::default(),
            refusals: Family::default(),
            queue_depth: Gauge::default(),
            under_way: Gauge::default(),
            durations: Family::new_with_constructor(|| Histogram::new(WRITE_BUCKETS)),
            conflicts: Counter::default(),
            failures: Family::default(),
            blind: Family::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("build", "Herald's version", Info::new([("version", version.to_owned())]));
        registry.register("leader", "1 if this replica leads", metrics.leader.clone());
        registry.register(
            "pool_addresses",
            "Addresses of a pool: all it can give out (capacity), those assigned, available, in quarantine",
            metrics.pool_addresses.clone(),
        );
        registry.register("services_waiting", "Services that lack an address, by reason", metrics.waiting.clone());
        registry.register("assignments", "Addresses given out: VirtualIPs created", metrics.assignments.clone());
        registry.register(
            "refusals",
            "Conditions written that refuse a Service what it asks for",
            metrics.refusals.clone(),
        );
        registry.register("queue_depth", "Objects that wait for a decision", metrics.queue_depth.clone());
        registry.register("writes_under_way", "Requests that are not answered yet", metrics.under_way.clone());
        registry.register_with_unit(
            "write_duration",
            "From a request to its answer, or to its failure",
            Unit::Seconds,
            metrics.durations.clone(),
        );
        registry.register(
            "write_conflicts",
            "Writes refused since they were decided on an old version",
            metrics.conflicts.clone(),
        );
        registry.register("write_failures", "Writes that failed otherwise", metrics.failures.clone());
        registry.register("watch_blind", "1 if the watch of a kind has been broken for long", metrics.blind.clone());
        metrics
    }

    /// Counts a write that has ended.
    pub fn written(&self, action: &Action, took: Duration, failure: Option<Failure>) {
        let request = request(action);
        let kind = request.kind;
        self.durations.get_or_create(&request).observe(took.as_secs_f64());
        match (failure, action) {
            (Some(Failure::Conflict), _) => {
                self.conflicts.inc();
            }
            (Some(failure), _) => {
                self.failures.get_or_create(&Failed { kind, reason: failure.as_str() }).inc();
            }
            (None, Action::CreateVirtualIp { address, spec, .. }) => {
                let from = From { pool: spec.pool.clone(), family: family_of(*address) };
                self.assignments.get_or_create(&from).inc();
            }
            (None, Action::PatchServiceStatus { patch, .. }) => {
                if let Change::Set(condition) = &patch.condition
                    && condition.status == "False"
                {
                    self.refusals.get_or_create(&For { reason: condition.reason.clone() }).inc();
                }
            }
            (None, _) => {}
        }
    }

    /// Returns all metrics as text.
    ///
    /// # Errors
    /// If the encoder fails. It writes into memory, which never fails; only its type allows for an error.
    pub fn encode(&self, tally: &Tally, now: Now) -> Result<String, fmt::Error> {
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.leader.set(now.leading.into());
        self.under_way.set(count(now.under_way));
        self.queue_depth.set(count(tally.queued));
        for kind in Kind::ALL {
            let blind = now.blind.contains(&kind);
            self.blind.get_or_create(&Watched { kind: kind.as_str() }).set(blind.into());
        }
        // The metrics of a deleted pool, or of a reason that no longer holds, are removed.
        self.pool_addresses.clear();
        for pool in &tally.pools {
            let states = [
                ("capacity", pool.capacity),
                ("assigned", pool.assigned),
                ("available", pool.available),
                ("quarantined", pool.quarantined),
            ];
            for (state, value) in states {
                let label = OfPool { pool: pool.pool.clone(), family: family(pool.family), state };
                self.pool_addresses.get_or_create(&label).set(value);
            }
        }
        self.waiting.clear();
        for (reason, services) in &tally.waiting {
            self.waiting.get_or_create(&For { reason: reason.clone() }).set(count(*services));
        }
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

fn request(action: &Action) -> Request {
    let (kind, verb) = match action {
        Action::CreateVirtualIp { .. } => ("VirtualIP", "create"),
        Action::UpdateVirtualIpSpec { .. }
        | Action::RemoveVirtualIpFinalizer { .. }
        | Action::CorrectVirtualIpStatus { .. }
        | Action::DescribeStrayVirtualIp { .. }
        | Action::ReleaseStrayVirtualIp { .. } => ("VirtualIP", "patch"),
        Action::DeleteVirtualIp { .. } => ("VirtualIP", "delete"),
        Action::DeleteSpeakerStatus { .. } => ("SpeakerStatus", "delete"),
        Action::LookUpService { .. } => ("Service", "get"),
        Action::PatchServiceStatus { .. } => ("Service", "patch"),
        Action::PatchPoolStatus { .. } => ("AddressPool", "patch"),
        Action::PatchAdvertisementStatus { .. } => ("L2Advertisement", "patch"),
        Action::Event(_) => ("Event", "create"),
    };
    Request { kind, verb }
}

fn family_of(address: IpAddr) -> &'static str {
    family(IpFamily::of(address))
}

fn family(family: IpFamily) -> &'static str {
    match family {
        IpFamily::V4 => "ipv4",
        IpFamily::V6 => "ipv6",
    }
}

#[cfg(test)]
mod tests {
    use herald_crds::virtual_ip::ServiceReference;

    use super::*;
    use crate::{
        action::{ConditionValue, ServicePatch},
        index::PoolTally,
    };

    const IDLE: Now = Now { leading: true, under_way: 0, blind: Vec::new() };

    fn value(text: &str, series: &str) -> Option<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        Some(line.parse().unwrap())
    }

    fn tally() -> Tally {
        let pool = PoolTally {
            pool: "six".to_owned(),
            family: IpFamily::V6,
            capacity: 2f64.powi(64),
            assigned: 3.0,
            available: 2f64.powi(64) - 4.0,
            quarantined: 1.0,
        };
        Tally { pools: vec![pool], waiting: [("PoolFull".to_owned(), 7)].into(), queued: 5 }
    }

    #[test]
    fn present_state_is_reported_and_former_state_is_not() {
        let metrics = Metrics::new("1.2.3");
        let text = metrics.encode(&tally(), Now { leading: true, under_way: 2, blind: vec![Kind::Pool] }).unwrap();
        let pool =
            |state| format!("herald_controller_pool_addresses{{pool=\"six\",family=\"ipv6\",state=\"{state}\"}}");
        assert_eq!(value(&text, &pool("capacity")), Some(2f64.powi(64)));
        assert_eq!((value(&text, &pool("assigned")), value(&text, &pool("quarantined"))), (Some(3.0), Some(1.0)));
        assert_eq!(value(&text, "herald_controller_services_waiting{reason=\"PoolFull\"}"), Some(7.0));
        assert_eq!(value(&text, "herald_controller_queue_depth"), Some(5.0));
        assert_eq!(value(&text, "herald_controller_writes_under_way"), Some(2.0));
        assert_eq!(value(&text, "herald_controller_leader"), Some(1.0));
        let blind = |kind| value(&text, &format!("herald_controller_watch_blind{{kind=\"{kind}\"}}"));
        assert_eq!((blind("AddressPool"), blind("Service")), (Some(1.0), Some(0.0)));
        assert_eq!(value(&text, "herald_controller_build_info{version=\"1.2.3\"}"), Some(1.0));
        let text = metrics.encode(&Tally::default(), Now { leading: false, ..IDLE }).unwrap();
        assert_eq!((value(&text, &pool("capacity")), value(&text, "herald_controller_leader")), (None, Some(0.0)));
        assert!(!text.contains("PoolFull"));
    }

    fn refusal(status: &'static str) -> Action {
        let reference = ServiceReference { namespace: "ns".to_owned(), name: "web".to_owned(), uid: "u".to_owned() };
        let condition = ConditionValue {
            type_: "t",
            status,
            reason: "PoolFull".to_owned(),
            message: String::new(),
            generation: None,
            since: None,
        };
        Action::PatchServiceStatus {
            service: reference,
            resource_version: "1".to_owned(),
            patch: ServicePatch { condition: Change::Set(condition), ..ServicePatch::default() },
            events: Vec::new(),
        }
    }

    #[test]
    fn writes_are_counted_as_they_end() {
        let metrics = Metrics::new("1");
        metrics.written(&refusal("False"), Duration::from_millis(7), None);
        metrics.written(&refusal("True"), Duration::from_millis(7), None);
        metrics.written(&refusal("False"), Duration::from_millis(7), Some(Failure::Conflict));
        metrics.written(&refusal("False"), Duration::from_secs(10), Some(Failure::TimedOut));
        let text = metrics.encode(&tally(), IDLE).unwrap();
        assert_eq!(value(&text, "herald_controller_refusals_total{reason=\"PoolFull\"}"), Some(1.0));
        assert_eq!(value(&text, "herald_controller_write_conflicts_total"), Some(1.0));
        let failures = "herald_controller_write_failures_total{kind=\"Service\",reason=\"timeout\"}";
        assert_eq!(value(&text, failures), Some(1.0));
        let patches = |le| {
            let labels = format!("le=\"{le}\",kind=\"Service\",verb=\"patch\"");
            value(&text, &format!("herald_controller_write_duration_seconds_bucket{{{labels}}}"))
        };
        assert_eq!((patches("0.005"), patches("0.01"), patches("10.0")), (Some(0.0), Some(3.0), Some(4.0)));
    }
}

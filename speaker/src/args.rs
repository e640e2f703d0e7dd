//! Flags and environment.

use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

use clap::Parser;
use herald_crds::advertisement::InterfacePatterns;
use herald_protocol::{
    announce::{DEFAULT_RATE, Pace},
    timers::Timers,
};
use herald_telemetry::{http::Listen, log::LogArgs};

use crate::{coordinator::Announcing, inspect::DEFAULT_STATE_DIR};

/// The default address of metrics and health. MetalLB's speaker has port 7472, its FRR 7473.
const DEFAULT_LISTEN: &str = "[::]:7475";

/// Answers on the wire for the addresses of its node.
///
/// The API server is found as kubectl finds it ($KUBECONFIG, ~/.kube/config), or by the pod's service account.
#[derive(Clone, Debug, Parser)]
#[command(name = "herald-speaker", version)]
pub struct Args {
    /// How the speaker runs.
    #[command(flatten)]
    pub run: RunArgs,

    /// The log.
    #[command(flatten, next_help_heading = "Log")]
    pub log: LogArgs,
}

/// How the speaker runs.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// The name of the speaker's own node, as the API knows it.
    #[arg(long, env = "NODE_NAME")]
    pub node_name: String,

    /// The speaker's own namespace, which holds the Secret with the cluster's keys.
    #[arg(long, env = "POD_NAMESPACE", default_value = "herald-system")]
    pub namespace: String,

    /// Let nodes with the label node.kubernetes.io/exclude-from-external-load-balancers announce too. The controller
    /// has the same setting: the manifests give both the key includeExcludedNodes of the ConfigMap herald.
    #[arg(long, env = "HERALD_INCLUDE_EXCLUDED_NODES", default_value_t = false, action = clap::ArgAction::Set,
          num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub include_excluded_nodes: bool,

    /// The interfaces to take, comma-separated: names, globs (eth*) and exclusions (!eth9); empty: each interface that
    /// qualifies by its kind (docs/networks.md). An interface that is left out gets no socket. The annotation
    /// heraldlb.io/interfaces of a Node wins over this value on that node.
    #[arg(long, env = "HERALD_INTERFACES", default_value = "")]
    pub interfaces: InterfacePatterns,

    /// Settings that some networks need.
    #[command(flatten)]
    pub announce: AnnounceArgs,

    /// Let the interfaces receive all frames: for access points and cards that filter multicast, or frames that are not
    /// to their own MAC.
    #[arg(long, env = "HERALD_PROMISCUOUS", default_value_t = false, action = clap::ArgAction::Set,
          num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub promiscuous: bool,

    /// The time between two Hellos on a segment, 50ms to 10s. A speaker that is silent for one and a half intervals is
    /// covered; a dead node is succeeded after about four. Hellos carry the interval, so speakers may differ in it.
    #[arg(long = "hello-interval", env = "HERALD_HELLO_INTERVAL", default_value = "100ms", value_parser = hello_interval)]
    pub hello: Duration,

    /// The Hello interval is at least this much times the number of peers, 0s to 100ms. 1ms bounds a segment to 1,000
    /// Hellos a second.
    #[arg(long, env = "HERALD_HELLO_PER_PEER", default_value = "1ms", value_parser = hello_per_peer)]
    pub hello_per_peer: Duration,

    /// The directory (in memory) of the state that outlives a restart of the container.
    #[arg(long, env = "HERALD_STATE_DIR", default_value = DEFAULT_STATE_DIR)]
    pub state_dir: PathBuf,

    /// The address:port that serves metrics, health and the log's filter; empty: none.
    #[arg(long, env = "HERALD_METRICS_LISTEN", default_value = DEFAULT_LISTEN)]
    pub metrics_listen: Listen,
}

/// Settings that some networks need, and others do not (docs/networks.md).
#[derive(Clone, Debug, clap::Args)]
pub struct AnnounceArgs {
    /// Repeated announcements per second on each interface. Switches with dynamic ARP inspection allow 15.
    #[arg(long, env = "HERALD_ANNOUNCE_RATE", default_value_t = DEFAULT_RATE, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub announce_rate: u32,

    /// Announce each address again at this interval, 1s to 1h; 0s: never. This is for routers that neither ask again
    /// nor learn from the frames that other hosts exchange.
    #[arg(long, env = "HERALD_ANNOUNCE_EVERY", default_value = "0s", value_parser = announce_every)]
    pub announce_every: Duration,

    /// Announce IPv4 addresses by an ARP reply as well, for hosts that do not learn from requests.
    #[arg(long, env = "HERALD_ANNOUNCE_WITH_REPLY", default_value_t = false, action = clap::ArgAction::Set,
          num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub announce_with_reply: bool,

    /// Probe whether another host has an address before it is announced for the first time ever. Turn this off where a
    /// switch or gateway answers for every address (local proxy ARP, private VLANs): each address would be taken for
    /// one in use.
    #[arg(long, env = "HERALD_FIRST_CLAIM_PROBE", default_value_t = true, action = clap::ArgAction::Set,
          num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub first_claim_probe: bool,
}

impl From<AnnounceArgs> for Announcing {
    fn from(args: AnnounceArgs) -> Self {
        // The pattern names every field, so a flag that is not used does not compile.
        let AnnounceArgs { announce_rate: rate, announce_every, announce_with_reply, first_claim_probe } = args;
        let refresh = Some(announce_every).filter(|every| !every.is_zero());
        Self { pace: Pace { rate, refresh }, with_reply: announce_with_reply, first_claim_probe }
    }
}

/// Bounds of the time between two announcements of one address. Shorter intervals flood the segment; longer ones help
/// no router (routers keep ARP entries for up to four hours, but switches keep MACs for five minutes).
const ANNOUNCE_EVERY: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(1);

fn announce_every(text: &str) -> Result<Duration, String> {
    let parsed = humantime::parse_duration(text);
    if parsed == Ok(Duration::ZERO) { Ok(Duration::ZERO) } else { between(text, ANNOUNCE_EVERY) }
}

fn hello_interval(text: &str) -> Result<Duration, String> {
    between(text, Timers::HELLO)
}

fn hello_per_peer(text: &str) -> Result<Duration, String> {
    between(text, Timers::HELLO_PER_PEER)
}

fn between(text: &str, bounds: RangeInclusive<Duration>) -> Result<Duration, String> {
    let value = humantime::parse_duration(text).map_err(|error| format!("{error}; write it as 100ms or 1s"))?;
    if bounds.contains(&value) {
        return Ok(value);
    }
    let [from, to] = [bounds.start(), bounds.end()].map(|bound| humantime::format_duration(*bound));
    Err(format!("it must be {from} to {to}"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use test_case::test_case;

    use super::*;

    #[test]
    fn flags_are_consistent() {
        Args::command().debug_assert();
    }

    fn parse(flags: &[&str]) -> Option<RunArgs> {
        Args::try_parse_from(["herald-speaker", "--node-name", "a"].iter().chain(flags)).ok().map(|args| args.run)
    }

    #[test_case(&[], Some((false, 500)))]
    #[test_case(&["--include-excluded-nodes"], Some((true, 500)))]
    #[test_case(&["--include-excluded-nodes=false", "--announce-rate=15"], Some((false, 15)))]
    #[test_case(&["--announce-rate=0"], None)]
    fn flags_are_read(flags: &[&str], expected: Option<(bool, u32)>) {
        assert_eq!(parse(flags).map(|a| (a.include_excluded_nodes, a.announce.announce_rate)), expected);
    }

    #[test_case(&[], Some(&[]))]
    #[test_case(&["--interfaces="], Some(&[]))]
    #[test_case(&["--interfaces=eth*,!eth9"], Some(&["eth*", "!eth9"]))]
    #[test_case(&["--interfaces=eth0;eth1"], None; "not separated by commas")]
    fn interfaces_are_patterns(flags: &[&str], expected: Option<&[&str]>) {
        let patterns = |args: &RunArgs| args.interfaces.0.iter().map(|pattern| pattern.0.clone()).collect::<Vec<_>>();
        assert_eq!(
            parse(flags).as_ref().map(patterns),
            expected.map(|patterns| patterns.iter().map(ToString::to_string).collect())
        );
    }

    #[test_case(&[], Some((None, false, true, false)))]
    #[test_case(&["--announce-every=30s", "--announce-with-reply"], Some((Some(30), true, true, false)))]
    #[test_case(&["--first-claim-probe=false", "--promiscuous"], Some((None, false, false, true)))]
    #[test_case(&["--announce-every=100ms"], None; "more often than each second")]
    #[test_case(&["--announce-every=2h"], None; "more rarely than each hour")]
    #[test_case(&["--announce-every=30"], None; "no unit")]
    fn settings_for_special_networks_are_read(flags: &[&str], expected: Option<(Option<u64>, bool, bool, bool)>) {
        let read = parse(flags).map(|args| {
            let Announcing { pace, with_reply, first_claim_probe } = args.announce.into();
            (pace.refresh.map(|refresh| refresh.as_secs()), with_reply, first_claim_probe, args.promiscuous)
        });
        assert_eq!(read, expected);
    }

    #[test_case(&[], Some((100, 1)))]
    #[test_case(&["--hello-interval=50ms", "--hello-per-peer=0s"], Some((50, 0)))]
    #[test_case(&["--hello-interval=10s"], Some((10_000, 1)))]
    #[test_case(&["--hello-interval=49ms"], None; "too fast")]
    #[test_case(&["--hello-interval=11s"], None; "too slow")]
    #[test_case(&["--hello-interval=100"], None; "without a unit")]
    #[test_case(&["--hello-per-peer=1s"], None; "too slow for many")]
    fn timers_have_bounds(flags: &[&str], expected: Option<(u128, u128)>) {
        assert_eq!(parse(flags).map(|a| (a.hello.as_millis(), a.hello_per_peer.as_millis())), expected);
    }
}
